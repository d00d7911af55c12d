"""Key columns as they come, in the types that a view's join keys have: losslessly, or matching nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lakehouse.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["as_key", "first_odd_text", "is_text", "plain"]

_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)\Z")
_BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
# From here on floating-point numbers skip integers, so what once was a key may have been rounded.
_SURE = 2.0**53
_WIDE = 76  # digits of the decimal type in which all others are compared
_ADVICE = {
    "VARCHAR": "Cast it to text: keys are never converted by guess.",
    "BLOB": "Give the bytes.",
    "BOOLEAN": "Give booleans.",
    "DATE": "Cast it to a date.",
    "TIMESTAMP": "Cast it to a timestamp without a zone.",
    "TIMESTAMP WITH TIME ZONE": "Give it a zone.",
}


def as_key(column: pa.Array | pa.ChunkedArray, type_: str, *, what: str) -> pa.Array:
    """Return a column in a key's type; null where the value cannot be of that type, so that it matches nothing.

    Parameters
    ----------
    column
        Integers of any width and decimals for integer and decimal keys, also floating-point numbers that are all
        whole (as pandas makes of integers with gaps); text for text, bytes for bytes, and so on. Dictionaries, views
        and large variants are the same as what they hold.
    type_
        The key's type as DuckDB spells it.
    what
        How errors name the column.

    Raises
    ------
    RequestError
        If the column is of another kind than the key, with both types; or if it has floating-point numbers that are
        not whole, or so great that they are not sure.
    """
    import pyarrow as pa

    array = plain(column)
    if pa.types.is_decimal256(array.type):
        raise RequestError(f"{what} is of type {array.type}", hint="Cast it: keys have at most 38 digits.")
    decimal = _DECIMAL.match(type_)
    result = None
    if pa.types.is_null(array.type):
        result = pa.nulls(len(array), _arrow(type_))
    elif type_ in _BITS:
        result = _integers(array, _BITS[type_], what)
    elif decimal:
        result = _decimals(array, int(decimal[1]), int(decimal[2]), what)
    elif type_ in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        result = _timestamps(array, zoned=type_ != "TIMESTAMP")
    else:
        result = _others(array, type_)
    if result is None:
        pattern = _written(type_) if is_text(array.type) else None
        odd = first_odd_text(array, pattern) if pattern else None
        shown = f", and {odd[1]!r} in row {odd[0]} is none" if odd else ""
        raise RequestError(
            f"{what} is of type {array.type}, the join key is {type_}{shown}",
            hint=_ADVICE.get(type_, "Cast it to a number: keys are never converted by guess."),
        )
    return result


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array of its values, however they are encoded."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # nothing to combine, or too long for one
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    if pa.types.is_dictionary(array.type):
        # Views, which polars gives, can't be cast out of dictionaries.
        simple = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(array.type.value_type)
        if simple is not None:
            array = pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(simple))
        array = array.cast(array.type.value_type)
    return array


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of the three for text."""
    import pyarrow as pa

    return kind in (pa.string(), pa.large_string(), pa.string_view())


def first_odd_text(texts: pa.Array | pa.ChunkedArray, pattern: str) -> tuple[int, str] | None:
    """Return row and text of the first value that a pattern doesn't match as a whole; None if there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    matched = pc.match_substring_regex(texts.cast(pa.large_string()), rf"\A(?:{pattern})\z")
    row = pc.index(matched, False).as_py()
    return None if row < 0 else (row, texts[row].as_py())


def _written(type_: str) -> str | None:
    """Return how values of a key's type are written, where that decides what landing makes of a column of text."""
    from lakehouse import grammar

    if type_ in _BITS or _DECIMAL.match(type_):
        return grammar.NUMBER
    patterns = {"DATE": grammar.DATE, "TIMESTAMP": grammar.LOCAL, "TIMESTAMP WITH TIME ZONE": grammar.ZONED}
    return patterns.get(type_)


def _arrow(type_: str) -> pa.DataType:
    from lakehouse.delta import ColumnSchema, arrow_schema

    return arrow_schema((ColumnSchema("key", type_),)).field(0).type


# -- numbers --------------------------------------------------------------------------------------------------------


def _integers(array: pa.Array, bits: int, what: str) -> pa.Array | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    target = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[bits]
    if array.type == target:
        return array
    if pa.types.is_floating(array.type):
        array = _whole(array, what)
    if pa.types.is_decimal(array.type):
        array = _rescaled(array, 38, 0)
        low, high = (pa.scalar(n).cast(array.type) for n in (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
        inside = pc.and_(pc.greater_equal(array, low), pc.less_equal(array, high))
        return pc.if_else(inside, array, pa.scalar(None, array.type)).cast(target)
    if not pa.types.is_integer(array.type):
        return None
    if pa.types.is_unsigned_integer(array.type):
        inside = pc.less_equal(array.cast(pa.uint64()), pa.scalar(2 ** (bits - 1) - 1, pa.uint64()))
    else:
        wide = array.cast(pa.int64())
        low, high = (pa.scalar(n, pa.int64()) for n in (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
        inside = pc.and_(pc.greater_equal(wide, low), pc.less_equal(wide, high))
    return pc.if_else(inside, array, pa.scalar(None, array.type)).cast(target)


def _whole(array: pa.Array, what: str) -> pa.Array:
    """Return whole floating-point numbers as integers, NaN as null."""
    import numpy as np
    import pyarrow as pa

    values = array.cast(pa.float64()).fill_null(float("nan")).to_numpy(zero_copy_only=False)
    gaps = np.isnan(values)
    filled = np.where(gaps, 0.0, values)
    bad = (np.trunc(filled) != filled) | (np.abs(filled) >= _SURE)
    if bad.any():
        row = int(np.argmax(bad))
        raise RequestError(
            f"{what} is of type {array.type} and holds {float(filled[row])!r} in row {row}: not surely an integer",
            hint="Cast it to an integer or decimal before anything turns it into floating-point numbers.",
        )
    return pa.array(filled.astype(np.int64), mask=gaps)


def _decimals(array: pa.Array, precision: int, scale: int, what: str) -> pa.Array | None:
    import pyarrow as pa

    if array.type == pa.decimal128(precision, scale):
        return array
    if pa.types.is_floating(array.type):
        array = _whole(array, what)
    if not (pa.types.is_integer(array.type) or pa.types.is_decimal(array.type)):
        return None
    return _rescaled(array, precision, scale)


def _rescaled(array: pa.Array, precision: int, scale: int) -> pa.Array:
    """Return integers or decimals as DECIMAL(precision, scale), null where that cannot hold them exactly."""
    import decimal

    import pyarrow as pa
    import pyarrow.compute as pc

    finer = max(scale, array.type.scale) if pa.types.is_decimal(array.type) else scale
    wide = array.cast(pa.decimal256(_WIDE, finer))
    exact = pc.equal(pc.round(wide, scale, "towards_zero"), wide)
    if precision - scale + finer < _WIDE:  # else nothing has that many digits before the point
        limit = pa.scalar(decimal.Decimal(1).scaleb(precision - scale), wide.type)
        exact = pc.and_(exact, pc.less(pc.abs(wide), limit))
    held: pa.Array = pc.if_else(exact, wide, pa.scalar(None, wide.type))
    return held.cast(pa.decimal128(precision, scale))


# -- everything else ------------------------------------------------------------------------------------------------


def _timestamps(array: pa.Array, *, zoned: bool) -> pa.Array | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_timestamp(array.type) or bool(array.type.tz) != zoned:
        return None
    target = pa.timestamp("us", "UTC" if zoned else None)
    if array.type.unit == "us":
        return array.cast(target)
    coarse = array.cast(pa.timestamp("us", array.type.tz), safe=False)
    exact = pc.equal(coarse.cast(array.type, safe=False), array)
    return pc.if_else(exact, coarse, pa.scalar(None, coarse.type)).cast(target)


def _others(array: pa.Array, type_: str) -> pa.Array | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds: dict[str, tuple[Any, pa.DataType]] = {
        "VARCHAR": (
            is_text,
            pa.string(),
        ),
        "BLOB": (
            lambda t: (
                pa.types.is_binary(t)
                or pa.types.is_large_binary(t)
                or pa.types.is_fixed_size_binary(t)
                or t == pa.binary_view()
            ),
            pa.binary(),
        ),
        "BOOLEAN": (pa.types.is_boolean, pa.bool_()),
        "DATE": (pa.types.is_date, pa.date32()),
    }
    fits, target = kinds[type_]
    if not fits(array.type):
        return None
    if array.type != pa.date64():
        return array.cast(target)
    days = array.cast(target, safe=False)
    return pc.if_else(pc.equal(days.cast(array.type), array), days, pa.scalar(None, target))
