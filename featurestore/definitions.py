"""What users write in ``features.py``: entities, feature views and feature services.

Definitions are frozen values. They know nothing of a lake: what can be judged from the definition alone is judged
here, everything else when they are bound to a snapshot (`featurestore.binding`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from featurestore.definition_checks import (
    NAME,
    check_column,
    check_name,
    checked_tags,
    elements,
    refuse_twice,
    set_fields,
    shown,
    texts,
)
from featurestore.durations import Duration, canonical_duration, micros
from lakehouse.errors import DefinitionError, near

__all__ = [
    "Aggregate",
    "AggregateFunction",
    "Duration",
    "Entity",
    "Feature",
    "FeatureService",
    "FeatureView",
    "Projection",
    "canonical_duration",
    "micros",
]

AggregateFunction = Literal["count", "sum", "mean", "min", "max"]

# The default hop of a window: (windows shorter than this, hop).
_HOPS = ((micros("12h"), "5m"), (micros("12d"), "1h"))
_LONG_HOP = "1d"
_SHORTEST_DEFAULT = micros("5m")


# -- entities and features ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entity:
    """What features describe.

    Parameters
    ----------
    name
        Letters, digits and underscores.
    join_keys
        The columns that identify it; its name if not given.
    description, owner, tags
        For people.

    Raises
    ------
    DefinitionError
        If a name is none, or a join key is named twice.
    """

    name: str
    join_keys: Sequence[str] = ()
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"entity {self.name!r}"
        check_name(self.name, where)
        keys = texts(self.join_keys, "join_keys", where) or (self.name,)
        refuse_twice(keys, "join key", where)
        set_fields(self, join_keys=keys, tags=checked_tags(self.tags, where))


@dataclass(frozen=True)
class Feature:
    """One feature whose value a row of the source holds.

    Parameters
    ----------
    name
        The feature, and the column of the source.
    dtype
        Its type as SQL spells it (``bigint``, ``decimal(10,2)``, ``varchar``, …); ``apply`` refuses a source whose
        column has another. None takes the column's.
    description
        For people.

    Raises
    ------
    DefinitionError
        If the name is none.
    """

    name: str
    dtype: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, f"feature {self.name!r}")
        if self.dtype is None:
            return
        if not isinstance(self.dtype, str) or not self.dtype.strip():
            raise DefinitionError("dtype must be a type as SQL spells it", where=f"feature {self.name!r}")
        set_fields(self, dtype=self.dtype.strip())

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features that it defines: itself."""
        return (self.name,)


@dataclass(frozen=True)
class Aggregate:
    """Features that sum up the events of windows: one for each window, named ``<name>_<window>``.

    A window at the effective instant t' holds the events in (start, t'], where start is t' − window, rounded down to
    a multiple of the hop since 1970 (UTC): it is between window and window + hop long. For views with
    ``closed="left"`` it holds those in [start, t').

    Parameters
    ----------
    name
        First part of the features' names.
    function
        ``count`` counts events (or, with a column, those that have a value there); ``sum`` is exact, decimal(38, s);
        ``mean`` is the double nearest to the exact ratio; ``min`` and ``max`` keep the column's type. All but
        ``count`` ignore nulls.
    windows
        Durations, e.g. ``["1h", "1d", "7d"]``; each a multiple of its hop.
    column
        The column of the source that is aggregated; only ``count`` goes without.
    hop
        How finely windows move: ``"auto"`` is 5 minutes for windows shorter than 12 hours, 1 hour for those shorter
        than 12 days, 1 day from there; windows shorter than 5 minutes need it given. None gives exact starts
        (offline only).
    description
        For people.

    Raises
    ------
    DefinitionError
        If a name, window or hop cannot be.
    """

    name: str
    function: AggregateFunction
    windows: Sequence[Duration] = ()
    column: str | None = None
    hop: Duration | None = "auto"
    description: str = ""

    def __post_init__(self) -> None:
        where = f"aggregate {self.name!r}"
        check_name(self.name, where)
        if self.function not in get_args(AggregateFunction):
            hint = near(str(self.function), get_args(AggregateFunction), what="functions")
            raise DefinitionError(f"there is no function {self.function!r}", where=where, hint=hint)
        check_column(self.column, "column", where)
        if self.column is None and self.function != "count":
            raise DefinitionError(f"{self.function} needs a column", where=where)
        if isinstance(self.windows, str) or not isinstance(self.windows, Sequence) or not self.windows:
            raise DefinitionError('windows must be a list of durations, e.g. ["1h", "7d"]', where=where)
        try:
            windows = tuple(canonical_duration(window, what="windows") for window in self.windows)
            hop = self.hop if self.hop is None or self.hop == "auto" else canonical_duration(self.hop, what="hop")
        except DefinitionError as error:
            raise DefinitionError(error.what, where=where, hint=error.hint) from None
        set_fields(self, windows=windows, hop=hop)
        refuse_twice(windows, "window", where)
        for window in windows:
            self._check_window(window, where)

    def _check_window(self, window: str, where: str) -> None:
        if not micros(window):
            raise DefinitionError("a window of length 0 holds nothing", where=where)
        if self.hop == "auto" and micros(window) < _SHORTEST_DEFAULT:
            raise DefinitionError(
                f"the window {window} is shorter than 5 minutes and needs a hop",
                where=where,
                hint='Give one that divides it, e.g. hop="10s".',
            )
        hop = self.hop_of(window)
        if hop is None:
            return
        if not micros(hop):
            raise DefinitionError("a hop of length 0", where=where, hint="hop=None gives exact starts, offline.")
        if micros(window) % micros(hop):
            raise DefinitionError(
                f"the window {window} is not a multiple of its hop {hop}",
                where=where,
                hint="Take another window, or give a hop that divides it.",
            )

    def hop_of(self, window: str) -> str | None:
        """Return the hop of one of the windows, or None if it starts exactly."""
        if self.hop != "auto":
            return None if self.hop is None else str(self.hop)
        return next((hop for limit, hop in _HOPS if micros(window) < limit), _LONG_HOP)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features that it defines, one for each window."""
        return tuple(f"{self.name}_{window}" for window in self.windows)


# -- views --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Projection:
    """What is taken from one feature view: which features, in which role.

    Made by ``view.on(…)`` and ``view[[…]]``, not by hand.

    Parameters
    ----------
    view
        Name of the feature view.
    features
        Names of its features in the order wanted; None takes all.
    join_keys
        For a role: the spine's column for each join key that is named differently there.
    prefix
        The role's prefix: its features are called ``prefix__feature``.
    """

    view: str
    features: Sequence[str] | None = None
    join_keys: Mapping[str, str] = field(default_factory=dict)
    prefix: str | None = None

    def __post_init__(self) -> None:
        where = f"features of {self.view!r}"
        if self.prefix is not None:
            check_name(self.prefix, f"the prefix {self.prefix!r} of {self.view!r}")
        if self.features is not None:
            features = texts(self.features, "features", where)
            if not features:
                raise DefinitionError("no features are taken", where=where, hint="The view itself takes all.")
            refuse_twice(features, "feature", where)
            set_fields(self, features=features)
        for key, column in self.join_keys.items():
            if not isinstance(column, str):
                raise DefinitionError(f"{key} must be the name of a column, not {column!r}", where=where)
        set_fields(self, join_keys=dict(sorted(self.join_keys.items())))

    def __getitem__(self, features: Sequence[str] | str) -> Projection:
        """Take only these features."""
        wanted = (features,) if isinstance(features, str) else features
        taken = Projection(self.view, wanted, self.join_keys, self.prefix)
        if self.definition is not None:
            self.definition.check_features(taken.features or ())
        return _taken(self.definition, taken)

    def on(self, *, prefix: str | None = None, **join_keys: str) -> Projection:
        """Let the same features serve a role. See `FeatureView.on`; keys of an earlier role that are not named stay."""
        view = self.definition
        if view is not None:
            view.check_join_keys(join_keys)
        keys = {**self.join_keys, **join_keys}
        return _taken(view, Projection(self.view, self.features, keys, self.prefix if prefix is None else prefix))

    @property
    def definition(self) -> FeatureView | None:
        """The view that it was made from, if it was made from one and not from a name; no part of its value."""
        found: FeatureView | None = vars(self).get("_definition")
        return found


@dataclass(frozen=True)
class FeatureView:
    r"""Features of an entity from one source.

    Parameters
    ----------
    name
        Letters, digits and underscores.
    source
        A table of the lake (``"warehouse.trips"``), or a SELECT over its tables. ``apply`` refuses one whose answer
        hangs on the clock, on chance, or on the order of rows, as far as that can be seen: ties in the ORDER BY of a
        window function, in ``arg_max``, ``arg_min``, ``mode`` and ASOF joins can't, nor sums of floating-point numbers.
    entities
        What the features describe; an empty list is one row for everybody.
    features
        Either `Feature`\ s (rows of the source are feature values) or `Aggregate`\ s (rows are events).
    event_timestamp
        The column (timestamptz) that says when the fact became true.
    created_timestamp
        The column (timestamptz) that says when the record was written. Rows created after the asked instant are
        invisible. A null counts as the event timestamp.
    ttl
        How old a value may be, at the effective instant, to be served (equal still is); None never expires.
        Not for aggregates: their window is the limit.
    delay
        How long after its event timestamp a fact is usually known; the effective instant is t' = t − delay.
    closed
        Whether rows at exactly t' count (``"right"``) or not (``"left"``).
    tie_breaker
        Columns that decide between rows of the same event and created timestamp: the greatest wins.
    history
        ``"full"``, or ``"current"`` for a source that keeps only the present row of each entity.
    online
        Whether materialization builds it.
    valid_to, deleted, push
        Refused by ``apply`` until they work.
    description, owner, tags
        For people.

    Raises
    ------
    DefinitionError
        If the definition contradicts itself.
    """

    name: str
    source: str
    entities: Sequence[Entity]
    features: Sequence[Feature] | Sequence[Aggregate]
    event_timestamp: str
    created_timestamp: str | None = None
    ttl: Duration | None = None
    delay: Duration = "0s"
    closed: Literal["right", "left"] = "right"
    tie_breaker: Sequence[str] = ()
    history: Literal["full", "current"] = "full"
    online: bool = True
    valid_to: str | None = None
    deleted: str | None = None
    push: bool = False
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = self.where
        check_name(self.name, where)
        if not isinstance(self.source, str) or not self.source.strip():
            raise DefinitionError("source must be a table or a SELECT", where=where)
        if not isinstance(self.event_timestamp, str) or not self.event_timestamp:
            raise DefinitionError("event_timestamp must name a column of the source", where=where)
        for role in ("created_timestamp", "valid_to", "deleted"):
            check_column(getattr(self, role), role, where)
        entities = elements(self.entities, Entity, "entities", where)
        features = elements(self.features, (Feature, Aggregate), "features", where)
        try:
            delay = canonical_duration(self.delay, what="delay")
            ttl = None if self.ttl is None else canonical_duration(self.ttl, what="ttl")
        except DefinitionError as error:
            raise DefinitionError(error.what, where=where, hint=error.hint) from None
        set_fields(
            self,
            source=self.source.strip().rstrip("; \t\r\n"),
            entities=entities,
            features=features,
            delay=delay,
            ttl=ttl,
            tie_breaker=texts(self.tie_breaker, "tie_breaker", where),
            tags=checked_tags(self.tags, where),
        )
        self._check()

    def _check(self) -> None:
        where = self.where
        if not self.features:
            raise DefinitionError("a view needs at least one feature", where=where)
        if len({type(feature) for feature in self.features}) > 1:
            raise DefinitionError(
                "a view has either features or aggregates, not both",
                where=where,
                hint="Rows of the source are either values or events: make two views of it.",
            )
        if self.closed not in ("right", "left"):
            raise DefinitionError(f"closed is 'right' or 'left', not {self.closed!r}", where=where)
        if self.history not in ("full", "current"):
            raise DefinitionError(f"history is 'full' or 'current', not {self.history!r}", where=where)
        if self.ttl is not None and not micros(str(self.ttl)):
            raise DefinitionError("a TTL of 0 serves nothing", where=where, hint="None never expires.")
        if self.is_aggregate:
            self._check_aggregates()
        refuse_twice(self.join_keys, "join key", where)
        refuse_twice(self.feature_names, "feature", where)
        refuse_twice(self.tie_breaker, "tie_breaker", where)
        keys = {key.lower() for key in self.join_keys}
        if clash := [name for name in self.feature_names if name.lower() in keys]:
            raise DefinitionError(f"{clash[0]} is a join key and a feature", where=where)

    def _check_aggregates(self) -> None:
        where = self.where
        if self.ttl is not None:
            raise DefinitionError(
                "a view of aggregates takes no ttl", where=where, hint="Its windows say how old an event may be."
            )
        if self.tie_breaker:
            raise DefinitionError(
                "a view of aggregates takes no tie_breaker", where=where, hint="All events of a window count."
            )
        exact = [aggregate.name for aggregate in self.aggregates if aggregate.hop is None]
        if exact and self.online:
            raise DefinitionError(
                f"aggregate {exact[0]!r} has hop=None: exact window starts work offline only",
                where=where,
                hint="Give it a hop, or set online=False for the view.",
            )

    @property
    def where(self) -> str:
        """How errors name the view."""
        return f"feature view {self.name!r}"

    @property
    def is_aggregate(self) -> bool:
        """Whether the rows of the source are events."""
        return isinstance(self.features[0], Aggregate)

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        """The aggregates, if it is a view of aggregates."""
        return tuple(feature for feature in self.features if isinstance(feature, Aggregate))

    @property
    def join_keys(self) -> tuple[str, ...]:
        """The columns that identify a row's entities, in order."""
        return tuple(key for entity in self.entities for key in entity.join_keys)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of all features, in the order of definition."""
        return tuple(name for feature in self.features for name in feature.feature_names)

    def check_features(self, names: Sequence[str]) -> None:
        """Raise a `DefinitionError` for a name that is no feature of this view; near matches are listed."""
        for name in names:
            if name not in self.feature_names:
                hint = near(name, self.feature_names, what="features")
                raise DefinitionError(f"there is no feature {name!r}", where=self.where, hint=hint)

    def check_join_keys(self, names: Iterable[str]) -> None:
        """Raise a `DefinitionError` for a name that is no join key of this view; near matches are listed."""
        for name in names:
            if name not in self.join_keys:
                hint = near(name, self.join_keys, what="join keys")
                raise DefinitionError(f"there is no join key {name!r}", where=self.where, hint=hint)

    def on(self, *, prefix: str | None = None, **join_keys: str) -> Projection:
        """Let the view serve a role: read its join keys from other columns.

        Parameters
        ----------
        prefix
            Its features are called ``prefix__feature``.
        join_keys
            ``join_key="column"``.

        Raises
        ------
        DefinitionError
            If it has no such join key.
        """
        return _taken(self, Projection(self.name)).on(prefix=prefix, **join_keys)

    def __getitem__(self, features: Sequence[str] | str) -> Projection:
        """Take only these features: ``view[["trips_1h", "trips_1d"]]``."""
        return _taken(self, Projection(self.name))[features]


@dataclass(frozen=True)
class FeatureService:
    """The named, versioned set of features that one model uses.

    Parameters
    ----------
    name
        Letters, digits and underscores. A changed service becomes a new version: ``tips@2``.
    features
        Feature views, roles (``view.on(…)``), parts (``view[["feature"]]``) and names (``"view:feature"``).
    description, owner, tags
        For people.

    Raises
    ------
    DefinitionError
        If there is no feature, or something that is none.
    """

    name: str
    features: Sequence[FeatureView | Projection | str]
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"feature service {self.name!r}"
        check_name(self.name, where)
        if isinstance(self.features, str) or not isinstance(self.features, Sequence) or not self.features:
            raise DefinitionError("features must be a list of feature views, roles or names", where=where)
        try:
            features = projections(self.features)
        except DefinitionError as error:
            raise DefinitionError(error.what, where=where, hint=error.hint) from None
        set_fields(self, features=features, tags=checked_tags(self.tags, where))

    @property
    def projections(self) -> tuple[Projection, ...]:
        """What it takes from which view, in order."""
        return projections(self.features)


def projections(features: Sequence[Any]) -> tuple[Projection, ...]:
    """Return what a list of views, projections and ``view:feature`` names takes, in order.

    Names that follow each other and belong to one view become one projection.

    Raises
    ------
    DefinitionError
        If an element is none of these.
    """
    found: list[Projection] = []
    named = False
    for element in features:
        if isinstance(element, FeatureView):
            found.append(_taken(element, Projection(element.name)))
        elif isinstance(element, Projection):
            found.append(element)
        elif isinstance(element, str):
            view, _, feature = element.partition(":")
            if not NAME.match(view) or not NAME.match(feature):
                raise DefinitionError(f"{element!r} names no feature", hint="Write it as view:feature.")
            if named and found[-1].view == view:
                found[-1] = Projection(view, (*(found[-1].features or ()), feature))
            else:
                found.append(Projection(view, (feature,)))
        else:
            raise DefinitionError(
                f"{shown(element)} is no feature",
                hint="Take a feature view, view.on(…), view[[…]] or a view:feature name.",
            )
        named = isinstance(element, str)
    return tuple(found)


def _taken(view: FeatureView | None, projection: Projection) -> Projection:
    """Let a projection remember its view, so that whoever has a service has all that it stands on."""
    set_fields(projection, _definition=view)
    return projection
