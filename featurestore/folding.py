"""One view of one snapshot, folded as of an instant: the packed value of every entity, batch by batch.

DuckDB folds and sorts (SQL over the source), Arrow packs; no row passes through Python, and Python's memory holds one
batch of entities. See `featurestore.layout` for the form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featurestore.binding import BAD_VALUE, BoundView, Column, unreadable
from featurestore.codec import KeyCodec, RowCodec, pack_sections
from featurestore.instants import micros_text
from featurestore.layout import Atom, HopLayout, PlainLayout, WindowLayout, atoms_of, scale_of
from featurestore.pit import created_micros, event_micros, is_dated, order_terms, visible_from
from lakehouse.errors import QueryError, RequestError
from lakehouse.types import quote

if TYPE_CHECKING:
    from lakehouse.session import Session

__all__ = ["Folded", "Folding", "fold"]

_FLOATS = ("FLOAT", "DOUBLE")
_HALF = f"{10**19}::hugeint"
_DIGITS = 40  # more than a sum has


@dataclass(frozen=True, slots=True)
class Folded:
    """The entities of a view.

    Parameters
    ----------
    keys, values
        Encoded join keys, distinct, and the packed value of each.
    tail
        Rows that become visible after the instant.
    """

    keys: pa.Array
    values: pa.Array
    tail: int


def fold(view: BoundView, session: Session, at: int) -> Folded:
    """Return every entity of a view with its packed value, all at once; otherwise like `Folding`."""
    folding = Folding(view, session, at)
    batches = list(folding)
    keys, values = ([batch[place] for batch in batches] or [pa.array([], pa.large_binary())] for place in (0, 1))
    return Folded(pa.concat_arrays(keys), pa.concat_arrays(values), folding.tail)


class Folding:
    """Every entity of a view with its packed value: iterate over it, once, for batches of encoded keys and values.

    No entity is in two batches. Keys ascend, but for those so long that they are hashed.

    Parameters
    ----------
    at
        The instant, µs since 1970.

    Attributes
    ----------
    entities, tail
        How many entities there were so far, and how many of their rows become visible after the instant.

    Raises
    ------
    RequestError
        While iterating, if a sum does not fit 38 digits in some window at the instant or later.
    """

    def __init__(self, view: BoundView, session: Session, at: int) -> None:
        self.entities = 0
        self.tail = 0
        self._view = view
        self._session = session
        self._at = at
        self._keys = KeyCodec([key.type for key in view.keys])

    def __iter__(self) -> Iterator[tuple[pa.LargeBinaryArray, pa.LargeBinaryArray]]:
        """Yield batches of keys and values."""
        sql = _windows_sql if self._view.is_aggregate else _plain_sql
        pack = self._packed_windows if self._view.is_aggregate else self._packed_rows
        width = len(self._view.keys)
        try:
            for columns in _whole_entities(self._session.sql(sql(self._view, self._at)).batches(), width):
                keys = self._keys.encode(columns[:width], rows=len(columns[-1]))
                first = _differs(keys)
                self.entities += int(first.sum())
                yield keys.filter(first), pack(columns[width:], first)
        except QueryError as error:
            raise self._too_large() or self._refused(unreadable(error.what), BAD_VALUE) from error

    def left_out(self) -> tuple[int, int]:
        """Return how many rows describe nobody: those without an event timestamp, and of the others without a key."""
        [(undated, without_key)] = self._session.sql(_left_out_sql(self._view)).fetchall()
        return undated, without_key

    def _refused(self, what: str, hint: str | None) -> RequestError:
        return RequestError(what, where=f"feature view {self._view.name!r}", hint=hint)

    def _too_large(self) -> RequestError | None:
        """Return the error of a sum that does not fit; None if it is not for a sum that folding failed."""
        for hop in WindowLayout(self._view).hops if self._view.is_aggregate else ():
            for atom in hop.atoms:
                # What fails as well when values are only counted, fails in the source.
                counted = Atom("values", atom.column, "BIGINT")
                if atom.kind == "sum" and not self._runs(hop, atom) and self._runs(hop, counted):
                    return self._refused(
                        f"the sum of {atom.column!r} (for {_needed_by(atom, hop, self._view)}) has more than 38 digits "
                        f"for some entity at {micros_text(self._at)} or later",
                        "Give the column fewer digits in the model or in a SELECT as the source, or shorten windows; "
                        "online=False and penstock apply keep the view out of generations.",
                    )
        return None

    def _runs(self, hop: HopLayout, atom: Atom) -> bool:
        """Return whether one state of a hop can be computed."""
        try:
            for _ in self._session.sql(_hop_sql(self._view, hop, self._at, [atom])).batches():
                pass
        except QueryError:
            return False
        return True

    def _packed_rows(self, columns: Sequence[pa.Array], first: NDArray[np.bool_]) -> pa.LargeBinaryArray:
        """Return the packed value of each entity; of rows with the same stamp the first is taken.

        Parameters
        ----------
        columns
            Stamp, event timestamp, features.
        first
            Where an entity begins.
        """
        stamps = columns[0].to_numpy(zero_copy_only=False)
        kept = first.copy()
        kept[1:] |= stamps[1:] != stamps[:-1]
        stamps, codes = stamps[kept], np.cumsum(first)[kept] - 1
        rows = RowCodec(PlainLayout(self._view).types).encode(_filtered(columns[1:], kept))
        self.tail += int((stamps > self._at).sum())
        return pack_sections([(_offsets(codes, int(first.sum())), stamps, rows)])

    def _packed_windows(self, columns: Sequence[pa.Array], first: NDArray[np.bool_]) -> pa.LargeBinaryArray:
        """Return the packed value of each entity.

        Parameters
        ----------
        columns
            Number of the section, stamp, and one after the other the columns of all sections.
        first
            Where an entity begins.
        """
        numbers, stamps = (column.to_numpy(zero_copy_only=False) for column in columns[:2])
        codes, entities = np.cumsum(first) - 1, int(first.sum())
        packed, place = [], 2
        for number, types in enumerate(_sections(WindowLayout(self._view))):
            mine = numbers == number
            own = _filtered(columns[place : place + len(types)], mine)
            place += len(types)
            rows = RowCodec(types).encode(own, rows=int(mine.sum()))
            packed.append((_offsets(codes[mine], entities), stamps[mine], rows))
        self.tail += len(packed[-1][1])
        return pack_sections(packed)


def _needed_by(atom: Atom, hop: HopLayout, view: BoundView) -> str:
    """Return how users call the windows of a hop that need a state."""
    features = [f for f in view.features if f.windowed is not None and f.windowed.hop == hop.hop]
    return ", ".join(feature.name for feature in features if atom in atoms_of(feature, view))


def _sections(layout: WindowLayout) -> list[Sequence[str]]:
    """Return the types of each section's columns."""
    return [*(hop.types for hop in layout.hops), layout.tail_types]


def _whole_entities(batches: Iterator[pa.RecordBatch], width: int) -> Iterator[list[pa.Array]]:
    """Yield the columns of sorted rows anew, in batches that divide no entity; its keys are the first columns."""
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        start = _last_entity(batch, width)
        if start:
            yield _columns([*pending, batch.slice(0, start)])
            pending = []
        pending.append(batch.slice(start))
    if pending:
        yield _columns(pending)


def _last_entity(batch: pa.RecordBatch, width: int) -> int:
    """Return where the last entity of a batch begins."""
    same = np.ones(batch.num_rows, np.bool_)
    for column in batch.columns[:width]:
        same &= pc.equal(column, column[-1]).to_numpy(zero_copy_only=False)
    others = np.flatnonzero(~same)
    return int(others[-1]) + 1 if len(others) else 0


def _columns(batches: Sequence[pa.RecordBatch]) -> list[pa.Array]:
    return [pa.concat_arrays(pieces) for pieces in zip(*(batch.columns for batch in batches), strict=True)]


def _differs(keys: pa.LargeBinaryArray) -> NDArray[np.bool_]:
    """Return where a key is another than the one before."""
    first = np.ones(len(keys), np.bool_)
    first[1:] = pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    return first


def _filtered(columns: Sequence[pa.Array], kept: NDArray[np.bool_]) -> Sequence[pa.Array]:
    if kept.all():
        return columns
    places = pa.array(np.flatnonzero(kept))
    return [column.take(places) for column in columns]


def _offsets(codes: NDArray[np.int64], entities: int) -> NDArray[np.int64]:
    """Return where the rows of each entity begin, and the last one's end."""
    offsets = np.zeros(entities + 1, np.int64)
    np.cumsum(np.bincount(codes, minlength=entities), out=offsets[1:])
    return offsets


# -- SQL ------------------------------------------------------------------------------------------------------------


def _of_source(columns: Sequence[Column]) -> list[str]:
    return [f"s.{quote(column.name)}" for column in columns]


def _known(view: BoundView) -> list[str]:
    """Return the conditions that a row must fulfil to describe anybody: it has a time, and no null key."""
    return [is_dated(view), *(f"{name} is not null" for name in _of_source(view.keys))]


def _left_out_sql(view: BoundView) -> str:
    """Return the numbers of rows that are not known: without a time, and of the others without a key."""
    dated, *keyed = _known(view)
    unkeyed = f"{dated} and not ({' and '.join(keyed)})" if keyed else "false"
    return f"""
select count(*) filter (where ({dated}) is not true), count(*) filter (where {unkeyed}) from ({view.source}\n) as s"""


def _by(places: Sequence[str]) -> str:
    """Return the part of a window that keeps entities apart; nothing where there is one row for everybody."""
    return f"partition by {', '.join(places)} " if places else ""


def _times(view: BoundView) -> str:
    """Return what orders rows by event and created timestamp, as one integer."""
    event = event_micros(view)
    if view.created_timestamp is None:
        return event
    return f"({event}::hugeint * {2**64} + ({created_micros(view)}::hugeint + {2**63}))"


def _plain_sql(view: BoundView, at: int) -> str:
    """Return the winners, by entity and stamp: at the instant, and at each later one where the winner changes.

    Columns: keys, stamp, event timestamp, features. Rows that tie in their times are all there, the winner first. The
    winners' times are found first, by the narrow columns that this takes; only their rows are fetched and sorted.
    """
    keys = _of_source(view.keys)
    places = [f"k{i}" for i in range(len(keys))]
    named = [f"{name} as {place}" for name, place in zip(keys, places, strict=True)]
    won = [f"won.{place}" for place in places]
    same = [*(f"{name} = {place}" for name, place in zip(keys, won, strict=True)), f"{_times(view)} = won.times"]
    columns = [*won, "won.stamp as stamp", f"{event_micros(view)} as event"]
    columns += [f"s.{quote(feature.name)} as f{i}" for i, feature in enumerate(view.features)]
    rows = f"({view.source}\n) as s"
    known = " and ".join(_known(view))
    before = f"({_by(places)}order by stamp rows between unbounded preceding and 1 preceding)"
    # By position: a name may be one of the source's columns too.
    groups = ", ".join(str(place) for place in range(1, len(keys) + 2))
    return f"""
with won as (
  select * from (
    select *, max(times) over {before} as before from (
      select {", ".join([*named, f"greatest({visible_from(view)}, {at}) as stamp", f"max({_times(view)}) as times"])}
      from {rows} where {known} group by {groups}
    )
  ) where before is null or times > before
)
select {", ".join(columns)} from {rows} join won on {" and ".join(same)} where {known}
order by {", ".join([*won, "won.stamp", *order_terms(view, times=False)])}"""


def _windows_sql(view: BoundView, at: int) -> str:
    """Return the rows of all sections, by entity, section and stamp.

    Columns: keys, number of the section, stamp, and one after the other the columns of all sections; those of the
    others are null.
    """
    layout = WindowLayout(view)
    queries = [*(_hop_sql(view, hop, at, hop.atoms) for hop in layout.hops), _tail_sql(view, layout, at)]
    sections = _sections(layout)
    places = [f"k{i}" for i in range(len(view.keys))]
    parts = []
    for number, query in enumerate(queries):
        columns = [
            f"a{i}" if other == number else f"cast(null as {type_})"
            for other, types in enumerate(sections)
            for i, type_ in enumerate(types)
        ]
        parts.append(f"select {', '.join([*places, str(number), 'stamp', *columns])} from ({query})")
    order = ", ".join(str(place) for place in range(1, len(places) + 3))
    return f"select * from ({' union all '.join(parts)}) order by {order}"


def _hop_sql(view: BoundView, hop: HopLayout, at: int, atoms: Sequence[Atom]) -> str:
    """Return the states of everything from each hop's start up to the instant: keys, stamp, atoms."""
    keys = _of_source(view.keys)
    places = [f"k{i}" for i in range(len(keys))]
    event = event_micros(view)
    # Closed right, hop k holds (k·hop, (k+1)·hop]; closed left [k·hop, (k+1)·hop).
    within = event if view.closed_left else f"({event} - 1)"
    stamp = f"({within} - (({within} % {hop.hop}) + {hop.hop}) % {hop.hop})"
    older = ">=" if view.closed_left else ">"
    effective = at - view.delay
    first = hop.first_start(effective)
    folded = [*_known(view), f"{event} {older} {first}", f"{event} <= {effective - view.closed_left}"]
    named = [f"{name} as {place}" for name, place in zip(keys, places, strict=True)]
    states = []
    for i, atom in enumerate(atoms):
        own = hop.first_start(effective, atom)
        states.append(f"{_state(atom, '' if own == first else f' filter ({event} {older} {own})')} as a{i}")
    later = [f"{_merged(atom, f'a{i}')} as a{i}" for i, atom in enumerate(atoms)]
    finals = [f"{_final(atom, f'a{i}')} as a{i}" for i, atom in enumerate(atoms)]
    groups = ", ".join(str(place) for place in range(1, len(keys) + 2))
    return f"""
select {", ".join([*places, "stamp", *finals])} from (
  select {", ".join([*places, "stamp", *later])} from (
    select {", ".join([*named, f"{stamp} as stamp", *states])}
    from ({view.source}\n) as s where {" and ".join(folded)} group by {groups}
  ) window later as ({_by(places)}order by stamp desc)
)"""


def _tail_sql(view: BoundView, layout: WindowLayout, at: int) -> str:
    """Return the events that are not visible yet: keys, stamp, inputs."""
    columns = [f"{name} as k{i}" for i, name in enumerate(_of_source(view.keys))]
    columns += [f"{visible_from(view)} as stamp"]
    columns += [f"{name} as a{i}" for i, name in enumerate(_of_source(layout.tail_columns))]
    later = [*_known(view), f"{event_micros(view)} > {at - layout.lag}"]
    return f"select {', '.join(columns)} from ({view.source}\n) as s where {' and '.join(later)}"


def _state(atom: Atom, among: str) -> str:
    """Return the state of a group's events, or of those among them that a filter leaves."""
    column = "" if atom.column is None else f"s.{quote(atom.column)}"
    match atom.kind:
        case "events":
            return f"count(*){among}"
        case "values":
            return f"count({column}){among}"
        case "sum" if atom.is_wide:
            # The digits as one integer, in two halves: a sum of either has room for any number of rows.
            unscaled = f"cast(replace(cast({column} as varchar), '.', '') as hugeint)"
            return f"struct_pack(h := sum({unscaled} // {_HALF}){among}, l := sum({unscaled} % {_HALF}){among})"
        case "sum":
            return f"cast(sum({column}){among} as {atom.type})"
        case function:
            return f"{function}({_ordered(column, atom.type)}){among}"


def _merged(atom: Atom, name: str) -> str:
    if atom.is_wide:
        return f"struct_pack(h := sum({name}.h) over later, l := sum({name}.l) over later)"
    function = "sum" if atom.kind in ("events", "values", "sum") else atom.kind
    return f"{function}({name}) over later"


def _ordered(column: str, type_: str) -> str:
    """Return a value in the order in which −0.0 comes before 0.0; DuckDB's own takes them for equal."""
    if type_ not in _FLOATS:
        return column
    return f"case when {column} is null then null else struct_pack(v := {column}, p := not signbit({column})) end"


def _final(atom: Atom, name: str) -> str:
    if atom.kind in ("events", "values"):
        return f"cast({name} as bigint)"
    if atom.kind in ("min", "max") and atom.type in _FLOATS:
        zero = f"cast(if({name}.p, '0.0', '-0.0') as {atom.type})"
        return f"if({name}.v = 0, {zero}, {name}.v)"
    return _whole(atom, name) if atom.is_wide else name


def _whole(atom: Atom, name: str) -> str:
    """Return the sum whose halves are in a struct; DuckDB refuses what does not fit the atom's type."""
    high, low = f"({name}.h + {name}.l // {_HALF})", f"({name}.l % {_HALF})"
    scale = scale_of(atom.type)
    # Out of range of the type, but not of the arithmetic.
    digits = f"(greatest(least({high}, {_HALF}), -{_HALF}) * {_HALF} + {low})"
    padded = f"lpad(cast(abs({digits}) as varchar), {_DIGITS}, '0')"
    text = f"if({digits} < 0, '-', '') || {padded}[:-{scale + 1}] || '.' || right({padded}, {scale})"
    return f"cast({text} as {atom.type})" if scale else f"cast({digits} as {atom.type})"
