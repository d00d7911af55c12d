"""The definitions that a snapshot has: read, bound anew, and refused where they mean something else than was accepted.

All definitions of a snapshot are one object of the catalog, which the snapshot's entry names by its hash. `penstock
apply` accepts what they mean, the models upstream included; a promotion can change that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from featurestore import documents
from featurestore.applied import AppliedView, Definitions, ServiceVersion
from featurestore.binding import TIMESTAMPTZ, BoundView, Column, source_columns, unreadable
from featurestore.definitions import Projection
from featurestore.upstream import changed_upstream
from lakehouse.catalog import Snapshot
from lakehouse.errors import CatalogDamagedError, PenstockError, RequestError

if TYPE_CHECKING:
    from lakehouse.session import Session

__all__ = ["accepted_views", "asked_for", "bound_views", "last_accepted", "place_of", "read_definitions"]


def read_definitions(snapshot: Snapshot) -> Definitions:
    """Return the definitions that a snapshot has; none if nothing was ever applied.

    Raises
    ------
    FormatTooNewError
        If a newer Penstock wrote them in a form that this one cannot read.
    CatalogDamagedError
        If their object is missing or damaged.
    """
    sha256 = snapshot.entry.definitions
    if sha256 is None:
        return Definitions()
    return documents.decode(snapshot.catalog.object(sha256), place=place_of(snapshot), sha256=sha256)


def place_of(snapshot: Snapshot) -> str:
    """Return how errors call the definitions of a snapshot."""
    return f"the feature definitions of snapshot {snapshot.number}"


def accepted_views(
    definitions: Definitions, session: Session, names: Iterable[str] | None = None
) -> dict[str, BoundView]:
    """Return views bound at a session's snapshot, where they mean what an apply accepted, models upstream included.

    Definitions of another snapshot are tried on what the models of this one made: nobody has accepted that, and the
    versions that a training set records are those that they have here.

    Parameters are those of `bound_views`, as is what it raises.

    Raises
    ------
    RequestError
        If a model upstream of a view means something else than when the view was applied.
    """
    found = bound_views(definitions, session, names)
    if definitions.sha256 == session.snapshot.entry.definitions:
        for name in found:
            _refuse_unaccepted(definitions.view(name), session.snapshot)
    return found


def _refuse_unaccepted(view: AppliedView, snapshot: Snapshot) -> None:
    changed = changed_upstream(snapshot.entry, view.upstream)
    if not changed:
        return
    last, again = last_accepted(snapshot, [view]), _applied_again(snapshot)
    ways = ["Accept the new meaning: penstock apply." if again is None else _AGAIN.format(again)]
    if last is not None:
        ways.append(f"Or read as of snapshot {last}, where it still held: --as-of {last}, in Python as_of={last}.")
    raise RequestError(
        f"at snapshot {snapshot.number} it means something else than when it was applied: the model of "
        f"{', '.join(changed)} changed",
        where=view.definition.where,
        hint=" ".join(ways),
    )


_AGAIN = "Read as of snapshot {0}, where definitions were applied again: --as-of {0}, in Python as_of={0}."


def _applied_again(snapshot: Snapshot) -> int | None:
    """Return the first later snapshot with other definitions, if there is one."""
    found = None
    with contextlib.suppress(CatalogDamagedError):
        for entry in snapshot.catalog.entries():
            if entry.snapshot <= snapshot.number:
                break
            if entry.definitions != snapshot.entry.definitions:
                found = entry.snapshot
    return found


def last_accepted(snapshot: Snapshot, views: Sequence[AppliedView]) -> int | None:
    """Return the last snapshot with these definitions at which all models upstream of views are what was accepted."""
    with contextlib.suppress(CatalogDamagedError):  # the past cannot be told then
        for entry in snapshot.catalog.entries(snapshot):
            if entry.definitions != snapshot.entry.definitions:
                break
            if not any(changed_upstream(entry, view.upstream) for view in views):
                return entry.snapshot
    return None


def bound_views(definitions: Definitions, session: Session, names: Iterable[str] | None = None) -> dict[str, BoundView]:
    """Return views bound at a session's snapshot, which are the same as when they were applied.

    Parameters
    ----------
    names
        The views wanted; all if not given. Only these are looked at.

    Raises
    ------
    RequestError
        If a view is unknown, or its source has vanished, lost a column or has one of another type than at the apply.
    """
    wanted = definitions.views if names is None else dict.fromkeys(names)
    return {name: _same(definitions.view(name), session) for name in wanted}


def _same(view: AppliedView, session: Session) -> BoundView:
    """Return a view's binding if the columns that it stands on still are what they were: then it is what it was."""
    bound, number, where = view.bound, session.snapshot.number, view.definition.where
    try:
        columns = {column.name.lower(): column.type for column in source_columns(view.definition.source, session)}
    except PenstockError as error:
        raise RequestError(
            unreadable(error.what, f" at snapshot {number}"),
            where=where,
            hint=f"It could when the view was applied. Bring it back (penstock promote), or {_CHANGE}",
        ) from error
    times = [name for name in (bound.event_timestamp, bound.created_timestamp) if name is not None]
    needed = (*bound.keys, *(Column(name, TIMESTAMPTZ) for name in times), *bound.tie_breaker, *bound.inputs)
    for column in needed:
        found = columns.get(column.name.lower())
        if found != column.type:
            now = f"is gone at snapshot {number}" if found is None else f"is {found} at snapshot {number}"
            raise RequestError(
                f"column {column.name!r} of its source was {column.type} when the view was applied, and {now}",
                where=where,
                hint=f"Restore it in the model (penstock promote), or accept it: {_CHANGE}",
            )
    return bound


_CHANGE = "change the view where it needs it, and run penstock apply."


def asked_for(
    definitions: Definitions, snapshot: Snapshot, features: Any
) -> tuple[tuple[Projection, ...], ServiceVersion | None]:
    """Return what is asked for at a snapshot, every feature by name, and the version of a service if one is.

    Parameters
    ----------
    features
        See `Definitions.projections`.

    Raises
    ------
    RequestError
        As `Definitions.projections` does; where another snapshot has what is asked for, the hint names it.
    """
    try:
        return definitions.projections(features), definitions.service_of(features)
    except RequestError as error:
        hint = None
        with contextlib.suppress(CatalogDamagedError):  # what is asked is wrong, whatever is wrong with the past
            hint = _elsewhere(snapshot, features, error.hint or "")
        raise RequestError(error.what, where=error.where, hint=hint or error.hint) from None


def _elsewhere(snapshot: Snapshot, features: object, hint: str) -> str | None:
    """Return a hint at a later snapshot with what is asked for, or else an earlier one; None if no other has it."""
    catalog = snapshot.catalog
    asked: dict[str, list[AppliedView] | None] = {}
    later = None
    for entry in catalog.entries():
        sha256 = entry.definitions
        if sha256 is None or sha256 == snapshot.entry.definitions:
            continue
        if sha256 not in asked:
            asked[sha256] = _taken_from(documents.decode(catalog.object(sha256), place=place_of(snapshot)), features)
        views = asked[sha256]
        if views is None or any(changed_upstream(entry, view.upstream) for view in views):
            continue
        number = entry.snapshot
        if number > snapshot.number:
            later = number
        elif later is None:
            hint += f" The last that has it is snapshot {number}: --as-of {number}, in Python as_of={number}."
            return hint.lstrip()
    if later is None:
        return None
    return f"It was applied after snapshot {snapshot.number}: take --as-of {later}, in Python as_of={later}."


def _taken_from(definitions: Definitions, features: Any) -> list[AppliedView] | None:
    """Return the views that features are taken from, or None if these definitions don't have them."""
    try:
        return [definitions.view(projection.view) for projection in definitions.projections(features)]
    except RequestError:
        return None
