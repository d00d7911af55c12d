"""Definitions as they were applied: bound, versioned, and found by name."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from featurestore.binding import BoundView
from featurestore.definition_checks import shown
from featurestore.definitions import Entity, FeatureService, FeatureView, Projection, projections
from featurestore.durations import duration_text
from lakehouse.errors import DefinitionError, RequestError, near
from lakehouse.markup import html_table

__all__ = ["AppliedView", "Definitions", "ServiceVersion", "explicit", "meanings", "view_version"]

_SHORT = 12


@dataclass(frozen=True, slots=True)
class AppliedView:
    """A feature view as it was applied.

    Parameters
    ----------
    definition
        What was written.
    bound
        What it meant at the snapshot that it was applied to.
    upstream
        Per table that its source reads, directly or through models: hash of what the model that made it means.
    version
        Hash of ``bound`` and ``upstream``, hexadecimal: changes whenever answers may.
    """

    definition: FeatureView
    bound: BoundView
    upstream: Mapping[str, str]
    version: str

    @property
    def short(self) -> str:
        """The version's first 12 digits, for people."""
        return self.version[:_SHORT]

    def _repr_html_(self) -> str:
        rows = [
            (feature.name, feature.type, w and w.function, w and w.column, w and duration_text(w.window))
            for feature in self.bound.features
            for w in (feature.windowed,)
        ]
        keys = ", ".join(key.name for key in self.bound.keys) or "everybody"
        title = f"{self.definition.name} ({self.short}): features of {keys}, by {self.bound.event_timestamp}"
        return html_table(("feature", "type", "function", "column", "window"), rows, title=title)

    def meaning(self, features: Collection[str]) -> str:
        """Return a hash that changes whenever values of these features may.

        Features of windows stand by themselves. Plain features decide between rows of one instant, in the order of
        definition: those before the last one asked for count too, those after it only see rows that agree in all
        before. (Statuses may still change: a longer window finds events where there were none.)

        Raises
        ------
        DefinitionError
            If the view has no such feature.
        """
        wanted = {self.bound.feature(name).name for name in features}
        places = [place for place, feature in enumerate(self.bound.features) if feature.name in wanted]
        deciding = self.bound.features[: places[-1] + 1] if places else ()
        if self.bound.is_aggregate:
            deciding = tuple(sorted((self.bound.features[place] for place in places), key=lambda f: f.name))
        bound = {**_said(self.bound), "inputs": None, "features": msgspec.to_builtins(deciding)}
        return _hash({"bound": bound, "upstream": dict(self.upstream)})


@dataclass(frozen=True, slots=True)
class ServiceVersion:
    """One version of a feature service.

    Parameters
    ----------
    version
        Counts up from 1; a new one whenever answers may change.
    definition
        What was written.
    projections
        What it takes, every feature by name.
    meanings
        Per view that it takes from: `AppliedView.meaning` of these features.
    """

    version: int
    definition: FeatureService
    projections: tuple[Projection, ...]
    meanings: Mapping[str, str]

    @property
    def name(self) -> str:
        """The service's name."""
        return self.definition.name

    @property
    def ref(self) -> str:
        """How to ask for this version: ``tips@3``."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Definitions:
    """All definitions of one snapshot.

    Parameters
    ----------
    entities, views
        By name, sorted.
    services
        By name, sorted; the versions of each ascending.
    sha256
        The object of the catalog that holds them; None if nothing was ever applied, or not yet.
    retired
        The last version of each service that was removed: numbers never come back.
    """

    entities: Mapping[str, Entity] = field(default_factory=dict)
    views: Mapping[str, AppliedView] = field(default_factory=dict)
    services: Mapping[str, tuple[ServiceVersion, ...]] = field(default_factory=dict)
    sha256: str | None = field(default=None, compare=False)
    retired: Mapping[str, int] = field(default_factory=dict)

    @property
    def bound(self) -> dict[str, BoundView]:
        """The views as they were bound when they were applied."""
        return {name: view.bound for name, view in self.views.items()}

    def last_number(self, name: str) -> int:
        """Return the last version of a service, also of one that was removed; 0 if there was none."""
        versions = self.services.get(name)
        return versions[-1].version if versions else self.retired.get(name, 0)

    def view(self, name: str) -> AppliedView:
        """Return a feature view.

        Raises
        ------
        RequestError
            If there is none of that name; near matches are listed.
        """
        try:
            return self.views[name]
        except KeyError:
            raise RequestError(
                f"there is no feature view {name!r}", hint=self._known(name, self.views, "feature views")
            ) from None

    def service(self, ref: str) -> ServiceVersion:
        """Return a feature service: its newest version (``tips``), or a certain one (``tips@3``).

        Raises
        ------
        RequestError
            If there is none of that name or version; near matches or the versions are listed.
        """
        name, at, number = ref.partition("@")
        if name not in self.services:
            hint = self._known(name, self.services, "feature services")
            if name in self.retired:
                hint = f"It was removed; its last version was {name}@{self.retired[name]}."
            if name in self.views:
                hint = f"It is a feature view: ask for its features, e.g. {self._example(name)}."
            raise RequestError(f"there is no feature service {name!r}", hint=hint)
        versions = self.services[name]
        if not at:
            return versions[-1]
        for version in versions:
            if str(version.version) == number:
                return version
        known = ", ".join(version.ref for version in versions)
        raise RequestError(f"there is no version {number!r} of feature service {name!r}", hint=f"Versions: {known}.")

    def projections(
        self, features: FeatureService | ServiceVersion | str | Sequence[FeatureView | Projection | str]
    ) -> tuple[Projection, ...]:
        """Return what is asked for, every feature by name.

        Views and services are looked up by name: an object of ``features.py`` stands for what was applied, as long as
        it says the same.

        Parameters
        ----------
        features
            A service or its name (``"tips"``, ``"tips@2"``), a feature (``"view:feature"``), or a list of views,
            roles, parts and ``"view:feature"`` names. A service gives what its version took when it was applied.

        Raises
        ------
        RequestError
            If a name is unknown, an object was changed since it was applied, or a version of a service means something
            that its views don't mean any more.
        """
        service = self.service_of(features)
        if service is not None:
            return self._pinned(service)
        single = isinstance(features, str | FeatureView | Projection)
        return self._explicit([features] if single else features)

    def changed_views(self, service: ServiceVersion) -> tuple[str, ...]:
        """Return the views that are gone, or don't mean any more what they meant to a version of a service."""
        taken = _taken(service.projections)
        return tuple(view for view, meaning in service.meanings.items() if self._meaning(view, taken[view]) != meaning)

    def _meaning(self, name: str, features: Collection[str]) -> str | None:
        view = self.views.get(name)
        known = view is not None and set(features) <= set(view.bound.feature_names)
        return view.meaning(features) if view is not None and known else None

    def service_of(self, features: object) -> ServiceVersion | None:
        """Return the version of a service that is asked for, or None where features are asked for one by one.

        Raises
        ------
        RequestError
            If there is no such service or version, or the object was changed since it was applied.
        """
        if isinstance(features, FeatureService):
            return self._as_applied(features)
        if isinstance(features, ServiceVersion):
            return features
        if isinstance(features, str) and ":" not in features:
            return self.service(features)
        return None

    def _explicit(self, features: Any) -> tuple[Projection, ...]:
        try:
            asked = projections(list(features))
        except TypeError:
            raise RequestError(
                f"{shown(features)} names no features", hint='Ask for a service, or a list such as ["view:feature"].'
            ) from None
        except DefinitionError as error:
            raise RequestError(error.what, hint=self._list_hint(features) or error.hint) from None
        if not asked:
            raise RequestError("no features are asked for", hint="Name a feature service, or features as view:feature.")
        self._refuse_changed(asked)
        bound = {projection.view: self.view(projection.view).bound for projection in asked}
        try:
            return explicit(asked, bound)
        except DefinitionError as error:
            raise RequestError(error.what, where=error.where, hint=error.hint) from None

    def _as_applied(self, service: FeatureService) -> ServiceVersion:
        """Return the newest version that a service object means; one that was changed since is nobody's version."""
        newest = self.service(service.name)
        self._refuse_changed(service.projections)
        for version in reversed(self.services[service.name]):
            if version.definition.projections == service.projections:
                return version
        raise RequestError(
            f"feature service {service.name!r} was changed since it was applied as {newest.ref}",
            hint=f"Apply it: penstock apply. Or ask for what was applied: {newest.ref!r}.",
        )

    def _refuse_changed(self, asked: Sequence[Projection]) -> None:
        """Refuse view objects that say something else than what was applied, which would answer in their name."""
        for given in (projection.definition for projection in asked):
            if given is not None and _answers(given) != _answers(self.view(given.name).definition):
                raise RequestError(
                    f"feature view {given.name!r} was changed since it was applied",
                    hint=f"Apply it: penstock apply. Or ask for what was applied: {self._example(given.name)}.",
                )

    def _pinned(self, service: ServiceVersion) -> tuple[Projection, ...]:
        """Return a service's projections, if they mean what they meant when that version was applied."""
        for view in self.changed_views(service):
            newest = self.services[service.name][-1] if service.name in self.services else service
            hint = f"Ask for {newest.ref}. " if newest.version != service.version else ""
            raise RequestError(
                f"{service.ref} cannot be answered: feature view {view!r} "
                f"{'does not mean what it meant then' if view in self.views else 'is gone'}",
                hint=f"{hint}Offline it can be asked for as of a snapshot from before that change (penstock historical "
                "--as-of N, in Python as_of=N).",
            )
        return service.projections

    def _list_hint(self, features: Sequence[Any]) -> str | None:
        for element in features:
            if isinstance(element, FeatureService):
                return f"Ask for a service by itself, not with others: {element.name!r}."
            if isinstance(element, str) and element.partition("@")[0] in self.services:
                return f"Ask for a service by itself, not with others: {element!r}."
            if isinstance(element, str) and element in self.views:
                return f"Name its features, e.g. {self._example(element)}."
        return None

    def _example(self, view: str) -> str:
        return f"{view}:{self.views[view].bound.feature_names[0]}"

    def _known(self, name: str, known: Collection[str], what: str) -> str:
        if known:
            return near(name, known, what=what)
        return f"There are no {what} yet: penstock apply." if self.sha256 is None else f"No {what} are applied."


def explicit(asked: Sequence[Projection], views: Mapping[str, BoundView]) -> tuple[Projection, ...]:
    """Return projections with every feature by name; the views must be there.

    Raises
    ------
    DefinitionError
        If a view has no such feature, or a role names a join key that its view has not.
    """
    found = []
    for projection in asked:
        view = views[projection.view]
        keys = [key.name for key in view.keys]
        for key in projection.join_keys:
            if key not in keys:
                raise DefinitionError(
                    f"there is no join key {key!r}",
                    where=f"feature view {view.name!r}",
                    hint=near(key, keys, what="join keys"),
                )
        names = tuple(view.feature(name).name for name in projection.features or view.feature_names)
        found.append(Projection(view.name, names, projection.join_keys, projection.prefix))
    return tuple(found)


def meanings(taken: Sequence[Projection], views: Mapping[str, AppliedView]) -> dict[str, str]:
    """Return the `ServiceVersion.meanings` of projections that name every feature."""
    return {view: views[view].meaning(features) for view, features in sorted(_taken(taken).items())}


def view_version(bound: BoundView, upstream: Mapping[str, str]) -> str:
    """Return the version of a view: a hash of all that its answers follow from."""
    return _hash({"bound": _said(bound), "upstream": dict(upstream)})


def _answers(view: FeatureView) -> FeatureView:
    """Return a view without what says nothing about answers."""
    features: list[Any] = [replace(feature, description="") for feature in view.features]
    return replace(
        view,
        entities=[Entity(entity.name, entity.join_keys) for entity in view.entities],
        features=features,
        history="full",
        online=False,
        description="",
        owner="",
        tags={},
    )


def _taken(asked: Sequence[Projection]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for projection in asked:
        found[projection.view] = (*found.get(projection.view, ()), *(projection.features or ()))
    return found


def _said(bound: BoundView) -> dict[str, Any]:
    """Return a bound view as plain values, without what says nothing about answers."""
    return {key: value for key, value in msgspec.to_builtins(bound).items() if key != "online"}


def _hash(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
