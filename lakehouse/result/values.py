"""Arrow columns as Python values, and as DuckDB's text what Python has no value for.

Dates and times of DuckDB reach from 290,000 BC to 290,000 AD and end in two infinities; Python's have four digits of a
year and no end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["beyond_python", "is_bignum", "local_values", "python_values", "told"]

Odd = Callable[[str], Any]
"""Returns what stands for a date or time that Python has no value for, given DuckDB's text."""

_FIRST_DAY, _END_DAY = -719_162, 2_932_897  # 0001-01-01 and 10000-01-01
_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_MICROS = {"s": 1_000_000, "ms": 1000, "us": 1}
_INFINITE = 2**63 - 1
_INFINITE_DAY = 2**31 - 1
_BIGNUM_HEADER = 3  # bytes: the sign, and the number of bytes that follow


def python_values(column: pa.Array, *, integer: bool = False, odd: Odd = str) -> list[Any]:
    """Return an Arrow column as Python values: instants in UTC, nanoseconds cut to microseconds.

    Parameters
    ----------
    integer
        Whether its decimals are whole numbers and shall be `int`.
    odd
        What stands for dates and times, also nested ones, that Python has no value for: their text if not given.
    """
    values = _values(column, odd)
    return [None if value is None else int(value) for value in values] if integer else values


def local_values(column: pa.Array) -> list[Any]:
    """Return instants in the zone of their column, for people: as text where Python does not know it or its year."""
    values = python_values(column)
    name = column.type.tz
    if name == "UTC":
        return values
    try:
        zone = ZoneInfo(name)
    except (KeyError, ValueError):  # ICU knows more names than Python
        zone = None
    local = [_in_zone(value, zone) for value in values]
    strange = [i for i, value in enumerate(values) if value is not None and local[i] is None]
    for i, text in zip(strange, told(column.take(pa.array(strange, pa.int64())), zone=name), strict=True):
        local[i] = text
    return local


def _in_zone(value: Any, zone: ZoneInfo | None) -> Any:
    if value is None or isinstance(value, str) or zone is None:
        return None
    try:
        return value.astimezone(zone)
    except (OverflowError, ValueError):  # a year before 1 or after 9999 there
        return None


# -- nested values -----------------------------------------------------------------------------------------------------


def _values(column: pa.Array, odd: Odd) -> list[Any]:
    for belongs, read in _READERS:
        if belongs(column.type):
            return read(column, odd)
    return _plain(column, odd)


def _extended(column: pa.ExtensionArray, odd: Odd) -> list[Any]:
    return _bignums(column.storage) if is_bignum(column.type) else _values(column.storage, odd)


def _structs(column: pa.StructArray, odd: Odd) -> list[Any]:
    names = [field.name for field in column.type]
    members = [_values(column.field(i), odd) for i in range(len(names))]
    rows = zip(*members, strict=True) if members else ((),) * len(column)
    return _nulled([dict(zip(names, row, strict=True)) for row in rows], column)


def _maps(column: pa.MapArray, odd: Odd) -> list[Any]:
    starts = column.offsets.to_pylist()
    parts = [_values(part[starts[0] : starts[-1]], odd) for part in (column.keys, column.items)]
    return _cut(list(zip(*parts, strict=True)), starts, column)


def _lists(column: pa.ListArray, odd: Odd) -> list[Any]:
    starts = column.offsets.to_pylist()
    return _cut(_values(column.values[starts[0] : starts[-1]], odd), starts, column)


def _arrays(column: pa.FixedSizeListArray, odd: Odd) -> list[Any]:
    size = column.type.list_size
    starts = [size * i for i in range(column.offset, column.offset + len(column) + 1)]
    return _cut(_values(column.values[starts[0] : starts[-1]], odd), starts, column)


def _unions(column: pa.UnionArray, odd: Odd) -> list[Any]:
    members = [_values(column.field(i), odd) for i in range(column.type.num_fields)]
    return [members[code][i] for i, code in enumerate(column.type_codes.to_pylist())]


_READERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any, Odd], list[Any]]], ...] = (
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _extended),
    (pa.types.is_struct, _structs),
    (pa.types.is_map, _maps),
    (lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind), _lists),
    (pa.types.is_fixed_size_list, _arrays),
    (lambda kind: pa.types.is_union(kind) and kind.mode == "sparse", _unions),
)


def _cut(values: Sequence[Any], starts: Sequence[int], column: pa.Array) -> list[Any]:
    first = starts[0]
    ends = starts[1:]
    return _nulled([list(values[a - first : b - first]) for a, b in zip(starts, ends, strict=False)], column)


def _nulled(values: list[Any], column: pa.Array) -> list[Any]:
    if not column.null_count:
        return values
    given = column.is_valid().to_pylist()
    return [value if there else None for value, there in zip(values, given, strict=True)]


def is_bignum(kind: pa.DataType) -> bool:
    """Whether a column holds integers of any length, which Arrow knows as DuckDB's bytes only."""
    return isinstance(kind, pa.OpaqueType) and kind.type_name == "bignum"


def _bignums(column: pa.Array) -> list[int | None]:
    return [None if data is None else _bignum(data) for data in column.to_pylist()]


def _bignum(data: bytes) -> int:
    """Return what three bytes of header and a big-endian magnitude mean; all bits are flipped below zero."""
    magnitude = data[_BIGNUM_HEADER:]
    if data[0] & 0x80:
        return int.from_bytes(magnitude, "big")
    return -int.from_bytes(bytes(byte ^ 0xFF for byte in magnitude), "big")


# -- dates and times ---------------------------------------------------------------------------------------------------


def _plain(column: pa.Array, odd: Odd) -> list[Any]:
    beyond = beyond_python(column)
    if beyond is None:
        plain: list[Any] = _for_python(column).to_pylist()
        return plain
    values: list[Any] = _for_python(_without(column, beyond)).to_pylist()
    for i, text in zip(np.flatnonzero(beyond), told(column.filter(pa.array(beyond))), strict=True):
        values[i] = odd(text)
    return values


def _without(column: pa.Array, rows: NDArray[np.bool_]) -> pa.Array:
    return pc.if_else(pa.array(rows), pa.scalar(None, column.type), column)


def _for_python(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_timestamp(kind):
        kind = pa.timestamp("us" if kind.unit == "ns" else kind.unit, "UTC" if kind.tz else None)
    elif pa.types.is_time64(kind):
        kind = pa.time64("us")
    return column if kind == column.type else column.cast(kind, safe=False)


def beyond_python(column: pa.Array) -> NDArray[np.bool_] | None:
    """Return which values of a column that is not nested are dates or times that Python has none for; None if none."""
    limits = _limits(column.type)
    if limits is None or column.null_count == len(column):
        return None
    first, end = limits
    numbers = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64())  # noqa: PLR2004 - bits
    ends = pc.min_max(numbers)
    if first <= ends["min"].as_py() and ends["max"].as_py() < end:
        return None
    outside = pc.or_(pc.less(numbers, first), pc.greater_equal(numbers, end))
    found: NDArray[np.bool_] = outside.fill_null(False).to_numpy(zero_copy_only=False)
    return found


def _limits(kind: pa.DataType) -> tuple[int, int] | None:
    """Return the first number that Python has a value for, and the one after the last."""
    if pa.types.is_date32(kind):
        return _FIRST_DAY, _END_DAY
    if pa.types.is_date64(kind):
        return _FIRST_DAY * _DAY["ms"], _END_DAY * _DAY["ms"]
    if pa.types.is_time(kind):
        return 0, _DAY[kind.unit]
    if not pa.types.is_timestamp(kind):
        return None
    if kind.unit == "ns":  # 64 bits of them end in 2262
        return -_INFINITE + 1, _INFINITE
    return _FIRST_DAY * _DAY[kind.unit], _END_DAY * _DAY[kind.unit]


def told(column: pa.Array, *, zone: str = "UTC") -> list[str]:
    """Return dates or times without null as DuckDB prints them: ``infinity``, ``20000-01-01``, ``0044-03-15 (BC)``."""
    kind = column.type
    if pa.types.is_date64(kind):
        column, kind = column.cast(pa.date32()), pa.date32()
    if pa.types.is_time(kind):
        return _duckdb_texts(column.cast(pa.time64("us"), safe=False), zone)
    infinite = _INFINITE_DAY if pa.types.is_date(kind) else _INFINITE
    numbers = column.view(pa.int32() if pa.types.is_date(kind) else pa.int64()).to_pylist()
    texts = {infinite: "infinity", -infinite: "-infinity"}
    finite = sorted(set(numbers) - texts.keys())
    texts |= zip(finite, _finite_texts(finite, kind, zone), strict=True)
    return [texts[number] for number in numbers]


def _finite_texts(numbers: Sequence[int], kind: pa.DataType, zone: str) -> list[str]:
    if pa.types.is_date(kind):
        return _duckdb_texts(pa.array(numbers, pa.int32()).view(kind), zone)
    if kind.unit == "ns":
        return _duckdb_texts(pa.array(numbers, pa.int64()).view(kind), zone)
    micros = [number * _MICROS[kind.unit] for number in numbers]
    if any(abs(number) >= _INFINITE for number in micros):  # DuckDB has no such time either
        return [str(np.datetime64(number, kind.unit)) for number in numbers]
    return _duckdb_texts(pa.array(micros, pa.int64()).view(pa.timestamp("us", kind.tz and "UTC")), zone)


def _duckdb_texts(values: pa.Array, zone: str) -> list[str]:
    if not len(values):
        return []
    import duckdb

    from lakehouse.types import quote_literal

    with duckdb.connect() as connection:
        connection.execute(f"set TimeZone = {quote_literal(zone)}")
        connection.register("given", pa.table({"value": values}))
        found = connection.execute("select cast(value as varchar) from given").fetchall()
    return [text for (text,) in found]
