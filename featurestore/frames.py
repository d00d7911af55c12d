"""Frames that may be spines, from whatever library they come: Arrow tables of exactly their values, or a refusal.

Arrow takes Python objects by the first of them, and silently leaves out what does not fit that: zones, times of day,
nanoseconds. So they are looked at here.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lakehouse.errors import PenstockError, RequestError
from lakehouse.types import plural
from lakehouse.zones import as_timezone

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TOO_FINE", "as_table", "check_select", "no_micros"]

TOO_FINE = "nanoseconds that are no whole microseconds"

_MAX = 2**63 - 1
_NOT_ARROW = ("Int128", "UInt128", "Object")  # types of polars
_OFFSET = re.compile(r"[+-][0-9]{2}:?[0-9]{2}\Z")


def check_select(query: str) -> None:
    """Refuse a text that is not one SELECT, before any of it runs.

    Raises
    ------
    RequestError
        If it cannot be parsed, has several statements, or one of another kind.
    """
    import duckdb

    if len(query.split()) < 2:  # noqa: PLR2004 - the shortest is two words: from t
        raise RequestError(
            f"a spine is a table or a SELECT, not {query!r}",
            hint="Files are spines of penstock historical --spine FILE; in Python read them first, e.g. with "
            "polars.read_csv() or pyarrow.parquet.read_table().",
        )
    try:
        kinds = [statement.type for statement in duckdb.extract_statements(query)]
    except duckdb.Error as error:
        raise RequestError(f"the spine's SELECT cannot be read: {_first_line(error)}") from None
    if kinds == [duckdb.StatementType.SELECT]:
        return
    if kinds == [duckdb.StatementType.MULTI]:
        raise RequestError(
            "a spine is one SELECT, and a PIVOT that looks for its values is more than that",
            hint="Name the values: pivot … on column in ('a', 'b') ….",
        )
    told = ", ".join(kind.name.replace("_", " ") for kind in kinds) or "a comment"
    number = f"{plural(len(kinds), 'statement')}: " if len(kinds) > 1 else ""
    raise RequestError(f"a spine is a SELECT, not {number}{told}", hint="Nothing was run.")


def as_table(frame: Any) -> pa.Table:
    """Return the rows of a frame. See `featurestore.spine.read_spine`.

    Raises
    ------
    RequestError
        If it is no table, can't be computed, or has a column whose values have no exact equals in Arrow.
    """
    named = _named_columns(frame)
    table = _exported(frame) if named is None else _assembled(named)
    if table is None:
        raise RequestError(
            f"a spine is a table, not a {type(frame).__name__}",
            hint="Give a pandas, polars, pyarrow or DuckDB table, a dict of lists, or a list of dicts.",
        )
    _check_zones(table.schema)
    return table.replace_schema_metadata(None)


def _named_columns(frame: Any) -> list[tuple[str, Any]] | None:
    """Return names and values of a frame that is taken column by column; None if it is no such frame."""
    libraries = {base.__module__.partition(".")[0] for base in type(frame).__mro__}
    if "polars" in libraries and hasattr(frame, "collect"):
        frame = _collected(frame)
    named = None
    if "polars" in libraries and hasattr(frame, "get_columns"):
        named = [(values.name, values) for values in frame.get_columns()]
    elif isinstance(frame, Mapping) or ("pandas" in libraries and hasattr(frame, "columns")):
        named = [(str(name), values) for name, values in frame.items()]
    elif isinstance(frame, list | tuple) and all(isinstance(row, Mapping) for row in frame):
        names = list(dict.fromkeys(name for row in frame for name in row))
        named = [(str(name), [row.get(name) for row in frame]) for name in names]
    return named


def _collected(frame: Any) -> Any:
    from polars.exceptions import PolarsError

    try:
        return frame.collect()
    except (PolarsError, OSError) as error:  # behind the first line stands the whole plan
        raise RequestError(f"the spine's LazyFrame cannot be computed: {str(error).splitlines()[0]}") from error


def _exported(frame: Any) -> pa.Table | None:
    """Return the rows of a frame that speaks Arrow, None if it is no table."""
    import duckdb
    import pyarrow as pa

    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    try:
        if hasattr(frame, "__arrow_c_stream__"):
            reader = pa.RecordBatchReader.from_stream(frame)
        elif hasattr(frame, "__arrow_c_array__"):
            reader = pa.Table.from_batches([pa.record_batch(frame)]).to_reader()
        else:
            return None
    except (pa.ArrowException, TypeError, ValueError):  # a single column
        return None
    except duckdb.Error as error:
        raise _failed(error) from error
    try:
        return reader.read_all()
    except (pa.ArrowException, OSError, duckdb.Error) as error:
        raise _failed(error) from error


def _failed(error: Exception) -> RequestError:
    """Return why the rows of a frame that is computed while it is read can't be had."""
    return RequestError(f"the spine's rows cannot be computed: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    """Return what DuckDB says, without the kind of error before it and the query behind it."""
    first = str(error).partition("\n")[0]
    return first.partition("Error: ")[2] or first


def _assembled(named: Sequence[tuple[str, Any]]) -> pa.Table:
    import pyarrow as pa

    columns = [_column(name, values) for name, values in named]
    for (name, _), column in zip(named, columns, strict=True):
        if len(column) != len(columns[0]):
            raise RequestError(
                f"the spine's columns {named[0][0]!r} and {name!r} are of unequal length: {len(columns[0]):,} and "
                f"{len(column):,}",
                hint="Give each of them a value for every row, None where there is none.",
            )
    return pa.Table.from_arrays(columns, names=[name for name, _ in named])


def _column(name: str, values: Any) -> pa.Array | pa.ChunkedArray:
    import pyarrow as pa

    listed = hasattr(values, "__iter__") or hasattr(values, "__array__")
    # The values of a set are in no order, so nothing says to which rows they belong.
    if not listed or isinstance(values, str | bytes | set | frozenset | Mapping) or getattr(values, "ndim", 1) != 1:
        raise RequestError(f"the spine's column {name!r} is a {type(values).__name__}, not a list of values")
    kind = getattr(values, "dtype", None)
    if str(kind) in _NOT_ARROW:
        raise _no_arrow(name, kind)
    if not hasattr(values, "__len__"):
        values = list(values)
    try:
        if hasattr(values, "__arrow_c_stream__") and not hasattr(values, "iloc"):  # what pandas holds may be objects
            return pa.chunked_array(values)
        column = pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise _unreadable(name, values) from error
    _check_exact(name, values, column.type)
    return column


def _unreadable(name: str, values: Any) -> RequestError:
    """Return why values can't be a column, with the first row that shows it."""
    kind = getattr(values, "dtype", None)
    if kind not in (None, object):
        return _no_arrow(name, kind)
    first: dict[str, int] = {}
    for row, value in enumerate(values):
        if isinstance(value, int) and not -_MAX - 1 <= value <= _MAX:
            return RequestError(
                f"row {row} of the spine has an integer of more than 64 bits in {name!r}",
                hint="Make all of the column decimals (decimal.Decimal) or text.",
            )
        if value is not None and not (isinstance(value, float) and math.isnan(value)):
            first.setdefault(type(value).__name__, row)
    if len(first) > 1:
        shown = ", ".join(f"{kind} in row {row}" for kind, row in first.items())
        return RequestError(
            f"the spine's column {name!r} holds values of several types: {shown}", hint="Give all of them one type."
        )
    return _no_arrow(name, ", ".join(first))


def _no_arrow(name: str, kind: Any) -> RequestError:
    return RequestError(
        f"the spine's column {name!r} holds {kind} values that Arrow cannot hold",
        hint="Convert them to integers, decimals, text or times, or leave the column out.",
    )


def _check_exact(name: str, values: Any, kind: pa.DataType) -> None:
    """Refuse Python objects of which Arrow silently leaves out a part: a zone, a time of day, nanoseconds."""
    import pyarrow as pa

    if not pa.types.is_temporal(kind) or getattr(values, "dtype", None) not in (None, object):
        return
    zoned: bool | None = None
    for row, value in enumerate(values):
        if type(value).__name__ == "NaTType":  # to pandas a datetime
            continue
        if getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0):
            raise no_micros(row, name, TOO_FINE)
        if not isinstance(value, dt.datetime):
            continue
        if pa.types.is_date(kind):
            raise RequestError(
                f"row {row} of the spine has a time among the dates in {name!r}", hint="Give all of them one type."
            )
        if zoned is not None and zoned != (value.tzinfo is not None):
            have = ("has no zone", "do") if zoned else ("has a zone", "don't")
            raise RequestError(
                f"row {row} of the spine has a time in {name!r} that {have[0]}, though those before it {have[1]}",
                hint="Give all of them a zone, or none of them and say which clock they come from: timezone=.",
            )
        zoned = value.tzinfo is not None


def _check_zones(schema: pa.Schema) -> None:
    """Refuse times in zones that nobody knows: no library could show them."""
    for field in schema:
        for zone in _zones(field.type):
            if _OFFSET.match(zone):
                continue
            try:
                as_timezone(zone)
            except PenstockError as error:
                raise RequestError(f"the spine's column {field.name!r}: {error.what}", hint=error.hint) from None


def _zones(kind: pa.DataType) -> Iterator[str]:
    import pyarrow as pa

    if pa.types.is_timestamp(kind) and kind.tz is not None:
        yield kind.tz
    within = [kind.value_type] if pa.types.is_dictionary(kind) else [kind.field(n).type for n in range(kind.num_fields)]
    for inner in within:
        yield from _zones(inner)


def no_micros(row: int, name: str, what: str) -> RequestError:
    """Return the refusal of a time that has no exact equal in µs."""
    return RequestError(
        f"row {row} of the spine has {what} in {name!r}",
        hint="Times count in whole microseconds: round them in a way that suits what they mean.",
    )
