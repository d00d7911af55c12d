"""Definitions in the catalog: plan, and apply.

All definitions of a snapshot are one object of the catalog, which the snapshot's entry names by its hash. Whatever can
be wrong with them is found by the plan, before anything is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from featurestore import documents
from featurestore.acceptance import last_accepted, place_of, read_definitions
from featurestore.applied import AppliedView, Definitions, ServiceVersion, explicit, meanings, view_version
from featurestore.binding import bind
from featurestore.definitions import Entity, FeatureService, FeatureView
from featurestore.differences import (
    DefinitionPlan,
    Difference,
    Holders,
    Users,
    consequences,
    entity_difference,
    service_difference,
    view_difference,
)
from featurestore.feature_file import Definition, Given, collect, load_features
from featurestore.listing import features_list, features_show
from featurestore.pasts import past
from featurestore.request import resolve
from featurestore.row_order import refuse_row_order
from featurestore.upstream import ModelFiles, ReadSource, SourceReader, models_upstream
from lakehouse.catalog import Catalog, Change, Snapshot
from lakehouse.errors import CatalogDamagedError, DefinitionError, PenstockError, RequestError
from lakehouse.metadata import Executions
from lakehouse.settings import Settings
from lakehouse.types import TableName

if TYPE_CHECKING:
    from lakehouse.session import Session

__all__ = [
    "AppliedView",
    "DefinitionPlan",
    "Definitions",
    "ServiceVersion",
    "Users",
    "apply_definitions",
    "features_list",
    "features_show",
    "load_features",
    "plan_definitions",
]


def _nobody(_view: str, _version: str | None = None) -> Sequence[str]:
    return ()


# -- planning and applying ----------------------------------------------------------------------------------------


def plan_definitions(
    snapshot: Snapshot,
    settings: Settings,
    objects: Sequence[object] | Definition,
    *,
    prune: bool = False,
    users: Users = _nobody,
    holders: Holders = _nobody,
) -> DefinitionPlan:
    """Return what `apply_definitions` would change, with all that follows from it.

    Parameters
    ----------
    objects
        Entities, feature views and feature services, or one of them; what a view or service stands on comes along.
    prune
        Remove what is not among them; without it that is kept.
    users
        Tells what was made of a view, or with it: the plan names it where the view changes or goes.
    holders
        Tells what needs a view to be applied: until then it is not removed. (A saved training set does not: it has
        the definitions of its snapshot.)

    Raises
    ------
    DefinitionError
        If a definition is wrong: what it names is not there, a type doesn't fit, two columns of a service have one
        name, a source keeps no past.
    RequestError
        If a view is to be removed that is in use.
    ModelError
        If a model of ``sql/`` is wrong.
    """
    return _planned(snapshot, settings, objects, prune=prune, users=users, holders=holders)[0]


def apply_definitions(
    catalog: Catalog,
    settings: Settings,
    objects: Sequence[object] | Definition,
    *,
    prune: bool = False,
    users: Users = _nobody,
    holders: Holders = _nobody,
) -> DefinitionPlan:
    """Publish definitions as one new snapshot, and return what changed; if nothing does, nothing is published.

    Parameters are those of `plan_definitions`, as is what it raises.

    Raises
    ------
    ConflictError
        If another process applied meanwhile.
    """
    snapshot = catalog.latest()
    plan, document = _planned(snapshot, settings, objects, prune=prune, users=users, holders=holders)
    if plan.empty:
        return plan
    executions = Executions(catalog.storage, catalog.clock)
    execution = executions.start("apply", {"prune": prune, "snapshot": snapshot.number})
    try:
        change = Change("apply", plan.summary, execution=execution, definitions=catalog.put_object(document))
        published = catalog.publish(snapshot, change)
    except BaseException as error:
        told = f": {error.what}" if isinstance(error, PenstockError) else ""
        executions.finish(execution, "FAILED", error=f"{type(error).__name__}{told}")
        raise
    counts = {action: sum(d.action == action for d in plan.differences) for action in ("add", "change", "remove")}
    executions.finish(execution, "COMPLETE", snapshot=published.number, counts=counts)
    return replace(plan, snapshot=published.number, execution=execution)


def _planned(
    snapshot: Snapshot,
    settings: Settings,
    objects: Sequence[object] | Definition,
    *,
    prune: bool,
    users: Users,
    holders: Holders,
) -> tuple[DefinitionPlan, bytes]:
    """Return the plan, and the document that it would publish."""
    old = read_definitions(snapshot)
    if old.sha256 is not None:
        documents.refuse_newer_writer(snapshot.catalog.object(old.sha256), place=place_of(snapshot))
    given = collect(objects)
    for definition in given.all():
        documents.checked(definition)
    with _Planner(snapshot, settings, old, given, prune=prune) as planner:
        new = planner.definitions()
        _refuse_removal(old, new, holders)
        follows = [*consequences(old, new, users), *_lost_versions(old, new, snapshot)]
        plan = DefinitionPlan(
            snapshot.number, tuple(_differences(old, new, given)), tuple(follows), tuple(planner.notes())
        )
    return plan, documents.encode(new)


@dataclass
class _Planner:
    """Makes the new definitions from the old ones and what is given, checking all of it. A context manager."""

    snapshot: Snapshot
    settings: Settings
    old: Definitions
    given: Given
    prune: bool
    _session: Session | None = None
    _notes: list[str] = field(default_factory=list)
    _doubtful: dict[tuple[TableName, tuple[str, ...]], list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._models = ModelFiles(self.settings)
        self._reader = SourceReader()
        self._views: dict[str, AppliedView] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()
        if self._session is not None:
            self._session.close()

    def definitions(self) -> Definitions:
        """Return the definitions as they would be."""
        kept = Definitions() if self.prune else self.old
        entities = {**kept.entities, **self.given.entities}
        former = {name: view.definition for name, view in kept.views.items()}
        for name, view in sorted({**former, **self.given.views}.items()):
            self._views[name] = self._view(_with_entities(view, entities))
        services = {name: versions[-1].definition for name, versions in kept.services.items()}
        services |= self.given.services
        last = {name: versions[-1].version for name, versions in self.old.services.items()}
        return Definitions(
            dict(sorted(entities.items())),
            self._views,
            {name: self._service(service) for name, service in sorted(services.items())},
            retired={name: n for name, n in {**self.old.retired, **last}.items() if name not in services},
        )

    def notes(self) -> list[str]:
        """Return what is worth knowing besides."""
        if not self._views:
            return self._notes
        for (kept, key), views in sorted(self._doubtful.items()):
            self._notes.append(
                f"{kept} keeps only the newest row per {', '.join(key)}: where one comes again with other values, "
                f"{', '.join(views)} no longer see{'s' if len(views) == 1 else ''} the former ones"
            )
        pending = set(self._models.pending(self.snapshot.entry))
        for table in sorted(pending):
            hit = [name for name, view in self._views.items() if table in view.upstream]
            if hit:
                self._notes.append(
                    f"the model of {table} is not what last ran: penstock promote will change the meaning of "
                    f"{', '.join(hit)}; penstock apply accepts it then"
                )
        return self._notes

    # -- views ----------------------------------------------------------------------------------------------------

    def _view(self, view: FeatureView) -> AppliedView:
        former = self.old.views.get(view.name)
        try:
            return self._bound(view)
        except DefinitionError as error:
            # Nobody asked to touch it; reading it says the same.
            if former is None or view.name in self.given.views or former.definition != view:
                raise
            self._notes.append(f"{view.where} is kept, but does not work at snapshot {self.snapshot.number}: {error}")
            return former

    def _bound(self, view: FeatureView) -> AppliedView:
        source = self._reader.read(view)
        missing = self._models.waiting(self.snapshot.entry, source.tables)
        if missing is not None:
            raise DefinitionError(
                f"the source: there is no table {missing} yet",
                where=view.where,
                hint="Make it first: penstock promote.",
            )
        bound = bind(view, self._opened())
        refuse_row_order(view, source, self._models)
        former = self.old.views.get(view.name)
        known = former.upstream if former is not None else None
        upstream = models_upstream(self.snapshot.entry, source.tables, known=known)
        applied = AppliedView(view, bound, upstream, view_version(bound, upstream))
        self._check_history(view, source, new=former is None or former.version != applied.version)
        return applied

    def _check_history(self, view: FeatureView, source: ReadSource, *, new: bool) -> None:
        known = past(view, source, self._models)
        if view.history == "current":
            if known.none is not None:
                self._notes.append(f'{view.where}: {known.none} (accepted by history="current")')
            return
        if known.none is None:
            for table, key in known.doubtful if new else ():
                self._doubtful.setdefault((table, key), []).append(view.name)
            return
        raise DefinitionError(
            known.none,
            where=view.where,
            hint=f'{known.keep} Or accept that the past cannot be asked: history="current".',
        )

    def _opened(self) -> Session:
        if self._session is None:
            from lakehouse.session import Session

            self._session = Session(self.snapshot, memory=self.settings.resources.memory, threads=1)
        return self._session

    # -- services -------------------------------------------------------------------------------------------------

    def _service(self, service: FeatureService) -> tuple[ServiceVersion, ...]:
        """Return a service's versions: a new one if answers may change, else the newest as it is written now."""
        where = f"feature service {service.name!r}"
        for view in (projection.view for projection in service.projections):
            if view in self.old.views and view not in self._views:
                raise DefinitionError(
                    f"it takes features of feature view {view!r}, which is not in features.py any more and would be "
                    "removed by --prune",
                    where=where,
                    hint=f"Define {view} there, take it out of {service.name}, or apply without --prune.",
                )
        try:
            bound = {name: view.bound for name, view in self._views.items()}
            asked = resolve(service.projections, bound)
            # Whoever asks brings the keys as columns of the same answer.
            keys = dict.fromkeys(key for one in asked for key in one.keys)
            resolve(service.projections, bound, taken=keys)
            taken = explicit(service.projections, bound)
        except (RequestError, DefinitionError) as error:
            what = f"{error.where}: {error.what}" if error.where else error.what
            clash = what.startswith("two columns")
            hint = "Give one of them a role with a prefix: view.on(prefix=…)." if clash else error.hint
            raise DefinitionError(what, where=where, hint=hint) from None
        versions = self.old.services.get(service.name, ())
        now = meanings(taken, self._views)
        if versions and (versions[-1].projections, versions[-1].meanings) == (taken, now):
            return (*versions[:-1], replace(versions[-1], definition=service))
        return (*versions, ServiceVersion(self._last_number(service.name) + 1, service, taken, now))

    def _last_number(self, name: str) -> int:
        """Return the last number that a service ever had, also one rolled back: it means one thing for ever."""
        last, seen = self.old.last_number(name), {self.old.sha256, None}
        catalog = self.snapshot.catalog
        with contextlib.suppress(CatalogDamagedError):  # what is damaged cannot be asked for either
            for entry in catalog.entries():
                if entry.definitions not in seen:
                    seen.add(entry.definitions)
                    known = documents.decode(catalog.object(str(entry.definitions)), place=place_of(self.snapshot))
                    last = max(last, known.last_number(name))
        return last


def _with_entities(view: FeatureView, entities: Mapping[str, Entity]) -> FeatureView:
    """Return a view with the entities that will hold."""
    return replace(view, entities=[entities[entity.name] for entity in view.entities])


# -- what follows -------------------------------------------------------------------------------------------------


def _differences(old: Definitions, new: Definitions, given: Given) -> Iterable[Difference]:
    for name in sorted({*old.entities, *new.entities}):
        kept = name not in given.entities
        yield entity_difference(old.entities.get(name), new.entities.get(name), kept=kept)
    for name in sorted({*old.views, *new.views}):
        yield view_difference(old.views.get(name), new.views.get(name), kept=name not in given.views)
    for name in sorted({*old.services, *new.services}):
        before, after = old.services.get(name, ()), new.services.get(name, ())
        changed = new.changed_views(before[-1]) if before else ()
        yield service_difference(before, after, name=name, changed=changed, kept=name not in given.services)


def _refuse_removal(old: Definitions, new: Definitions, holders: Holders) -> None:
    """Refuse to remove a view that something needs, naming all of that and the way out."""
    for name in sorted(old.views.keys() - new.views.keys()):
        services = [f"feature service {s[-1].ref}" for s in new.services.values() if name in s[-1].meanings]
        others = list(holders(name))
        used = services + others
        if not used:
            continue
        steps = [f"take it out of {', '.join(services)}"] if services else []
        if others:
            steps += ["penstock materialize"]
            if old.views[name].definition.online:
                steps = ["set online=False for it", "penstock apply", *steps]
        raise RequestError(
            f"it cannot be removed: {', '.join(used)} use{'s' if len(used) == 1 else ''} it",
            where=f"feature view {name!r}",
            hint="Keep it in features.py. Or, in this order: "
            f"{', '.join([*steps, 'remove it there'])}, penstock apply --prune.",
        )


def _lost_versions(old: Definitions, new: Definitions, base: Snapshot) -> Iterable[str]:
    """Yield the new versions of services, and which of the older ones can't be answered any more."""
    for name, versions in new.services.items():
        before = old.services.get(name, ())
        if before and before[-1].version != versions[-1].version:
            still = "" if new.changed_views(before[-1]) else f"; {before[-1].ref} can still be asked for"
            yield f"feature service {name} becomes version {versions[-1].version}{still}"
        for version in versions[:-1]:
            lost = new.changed_views(version)
            if lost and not old.changed_views(version):
                last = last_accepted(base, [old.views[view] for view in version.meanings])
                when = "no longer" if last is None else f"only as of snapshot {last} or earlier"
                yield f"{version.ref} can be asked for {when}: {_why(lost, new)}"


def _why(lost: Sequence[str], new: Definitions) -> str:
    """Return ``feature view demand is gone; feature views city, last_trip mean something else``."""
    gone = [view for view in lost if view not in new.views]
    other = [view for view in lost if view in new.views]
    told = ((gone, "is gone", "are gone"), (other, "means something else", "mean something else"))
    return "; ".join(
        f"feature view{'s' if len(views) > 1 else ''} {', '.join(views)} {many if len(views) > 1 else one}"
        for views, one, many in told
        if views
    )
