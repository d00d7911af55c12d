"""One view of one snapshot, folded as of an instant: the packed value of every entity.

DuckDB folds (SQL over the source), Arrow packs; no row passes through Python. See `featurestore.layout` for the form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.binding import BoundView, Column
from featurestore.codec import KeyCodec, RowCodec, pack_sections
from featurestore.layout import Atom, HopLayout, PlainLayout, WindowLayout
from featurestore.pit import event_micros, is_dated, order_terms, visible_from
from lakehouse.errors import PenstockError, RequestError
from lakehouse.types import quote

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from lakehouse.session import Session

__all__ = ["Folded", "fold"]

_FLOATS = ("FLOAT", "DOUBLE")


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


@dataclass(frozen=True, slots=True)
class _Section:
    """Rows of one section, with their encoded keys and stamps, in any order."""

    keys: pa.Array
    stamps: NDArray[np.int64]
    rows: pa.Array


def fold(view: BoundView, session: Session, at: int) -> Folded:
    """Return every entity of a view with its packed value.

    Parameters
    ----------
    at
        The instant, µs since 1970.

    Raises
    ------
    RequestError
        If a sum does not fit 38 digits.
    """
    if not view.is_aggregate:
        section = _section(view, session, _plain_sql(view, at), PlainLayout(view).types)
        return _folded([section], tail=int((section.stamps > at).sum()))
    layout = WindowLayout(view)
    sections = [_section(view, session, _hop_sql(view, hop, layout, at), hop.types) for hop in layout.hops]
    tail = _section(view, session, _tail_sql(view, layout, at), layout.tail_types)
    return _folded([*sections, tail], tail=len(tail.stamps))


# -- packing --------------------------------------------------------------------------------------------------------


def _section(view: BoundView, session: Session, query: str, types: Sequence[str]) -> _Section:
    """Run a query whose columns are the keys, the stamp and the row's columns."""
    try:
        table = session.sql(query).to_arrow().combine_chunks()
    except PenstockError as error:
        raise RequestError(error.what, where=f"feature view {view.name!r}", hint=error.hint) from error
    columns = [_array(column) for column in table.columns]
    width = len(view.keys)
    keys = _keys(view, columns[:width], table.num_rows)
    stamps = columns[width].to_numpy(zero_copy_only=False)
    return _Section(keys, stamps, RowCodec(types).encode(columns[width + 1 :]))


def _array(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _keys(view: BoundView, columns: Sequence[pa.Array], rows: int) -> pa.Array:
    import pyarrow as pa

    codec = KeyCodec([key.type for key in view.keys])
    if not columns:
        return pa.array([codec.encode_one(())] * rows, pa.large_binary())
    return codec.encode(columns)


def _folded(sections: Sequence[_Section], *, tail: int) -> Folded:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    everybody = pa.chunked_array([section.keys for section in sections], pa.large_binary()).unique()
    everybody = everybody.take(pc.sort_indices(everybody))
    packed = []
    for section in sections:
        codes = pc.index_in(section.keys, value_set=everybody).to_numpy(zero_copy_only=False).astype(np.int64)
        order = np.lexsort((section.stamps, codes))
        offsets = np.zeros(len(everybody) + 1, np.int64)
        np.cumsum(np.bincount(codes, minlength=len(everybody)), out=offsets[1:])
        packed.append((offsets, section.stamps[order], section.rows.take(pa.array(order))))
    return Folded(everybody, pack_sections(packed), tail)


# -- SQL ------------------------------------------------------------------------------------------------------------


def _of_source(columns: Sequence[Column]) -> list[str]:
    return [f"s.{quote(column.name)}" for column in columns]


def _known(view: BoundView) -> list[str]:
    """Return the conditions that a row must fulfil to describe anybody: it has a time, and no null key."""
    return [is_dated(view), *(f"{name} is not null" for name in _of_source(view.keys))]


def _by(places: Sequence[str]) -> str:
    """Return the part of a window that keeps entities apart; nothing where there is one row for everybody."""
    return f"partition by {', '.join(places)} " if places else ""


def _plain_sql(view: BoundView, at: int) -> str:
    """Return the winners: of all rows visible at the instant, and at each later one where the winner changes."""
    keys = _of_source(view.keys)
    places = [f"k{i}" for i in range(len(keys))]
    features = [f"f{i}" for i in range(len(view.features))]
    named = [
        *(f"{name} as {place}" for name, place in zip(keys, places, strict=True)),
        *(f"s.{quote(f.name)} as {name}" for f, name in zip(view.features, features, strict=True)),
    ]
    return f"""
select {", ".join([*places, "stamp", "event", *features])} from (
  select *, min(rank) over ({_by(places)}order by stamp) as best from (
    select {", ".join(named)}, {event_micros(view)} as event, greatest({visible_from(view)}, {at}) as stamp,
      row_number() over ({_by(keys)}order by {", ".join(order_terms(view))}) as rank
    from ({view.source}\n) as s where {" and ".join(_known(view))}
  )
) where rank = best"""


def _hop_sql(view: BoundView, hop: HopLayout, layout: WindowLayout, at: int) -> str:
    """Return the states of everything from each hop's start up to the instant."""
    keys = _of_source(view.keys)
    places = [f"k{i}" for i in range(len(keys))]
    event = event_micros(view)
    # Closed right, hop k holds (k·hop, (k+1)·hop]; closed left [k·hop, (k+1)·hop).
    within = event if view.closed_left else f"({event} - 1)"
    stamp = f"({within} - (({within} % {hop.hop}) + {hop.hop}) % {hop.hop})"
    older = ">=" if view.closed_left else ">"
    first = hop.first_start(at - view.delay)
    folded = [*_known(view), f"{event} {older} {first}", f"{event} <= {at - layout.lag}"]
    named = [f"{name} as {place}" for name, place in zip(keys, places, strict=True)]
    atoms = [f"{_state(atom)} as a{i}" for i, atom in enumerate(hop.atoms)]
    later = [f"{_merged(atom, f'a{i}')} as a{i}" for i, atom in enumerate(hop.atoms)]
    finals = [_final(atom, f"a{i}") for i, atom in enumerate(hop.atoms)]
    return f"""
select {", ".join([*places, "stamp", *finals])} from (
  select {", ".join([*places, "stamp", *later])} from (
    select {", ".join([*named, f"{stamp} as stamp", *atoms])}
    from ({view.source}\n) as s where {" and ".join(folded)} group by {", ".join([*places, "stamp"])}
  ) window later as ({_by(places)}order by stamp desc)
)"""


def _tail_sql(view: BoundView, layout: WindowLayout, at: int) -> str:
    """Return the events that are not visible yet."""
    columns = [*_of_source(view.keys), f"{visible_from(view)} as stamp", *_of_source(layout.tail_columns)]
    later = [*_known(view), f"{event_micros(view)} > {at - layout.lag}"]
    return f"select {', '.join(columns)} from ({view.source}\n) as s where {' and '.join(later)}"


def _state(atom: Atom) -> str:
    column = "" if atom.column is None else f"s.{quote(atom.column)}"
    match atom.kind:
        case "events":
            return "count(*)"
        case "values":
            return f"count({column})"
        case "sum":
            return f"cast(sum({column}) as {atom.type})"  # DuckDB refuses what does not fit
        case function:
            return f"{function}({_ordered(column, atom.type)})"


def _merged(atom: Atom, name: str) -> str:
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
    return name
