"""What each type of a feature is in memory: its Arrow type, its width, and what makes a Python value of it."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EPOCH", "EPOCH_DATE", "EPOCH_UTC", "EXACT", "Layout", "arrow_type", "layout"]

EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - the type TIMESTAMP has no zone
EPOCH_UTC = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
EPOCH_DATE = dt.date(1970, 1, 1).toordinal()
EXACT = decimal.Context(prec=64)
"""Wide enough that no 128-bit integer is rounded."""

_DECIMAL = re.compile(r"DECIMAL\((\d{1,2}),(\d{1,2})\)\Z")
_MAX_PRECISION = 38
_NARROW = 18  # digits that always fit into 64 bits
TIMESTAMPTZ = "TIMESTAMP WITH TIME ZONE"


@dataclass(frozen=True, slots=True)
class Layout:
    """How values of one type are stored.

    Parameters
    ----------
    type
        As DuckDB spells it.
    code
        The `struct` code of the fixed part; for text and blobs that of the end of their bytes.
    size
        Bytes of the fixed part.
    dtype
        NumPy's name of the fixed part, little-endian.
    variable
        ``text``, ``blob``, or empty for types of fixed width.
    precision, scale
        Of decimals; a precision of 0 means no decimal.
    convert
        Makes the Python value of what `struct` returns; None if it is that already.
    """

    type: str
    code: str
    size: int
    dtype: str
    variable: str = ""
    precision: int = 0
    scale: int = 0
    convert: Callable[[Any], Any] | None = None

    @property
    def wide(self) -> bool:
        """Whether it is a decimal of 128 bits."""
        return self.precision > _NARROW


def _date(days: int) -> dt.date:
    try:
        return dt.date.fromordinal(days + EPOCH_DATE)
    except (ValueError, OverflowError):
        raise _beyond(f"the date {days} days from 1970-01-01") from None


def _naive(micros: int) -> dt.datetime:
    try:
        return EPOCH + dt.timedelta(0, 0, micros)
    except OverflowError:
        raise _beyond(f"the time {micros} µs from 1970-01-01") from None


def _utc(micros: int) -> dt.datetime:
    try:
        return EPOCH_UTC + dt.timedelta(0, 0, micros)
    except OverflowError:
        raise _beyond(f"the instant {micros} µs from 1970-01-01 UTC") from None


def _beyond(what: str) -> RequestError:
    return RequestError(
        f"{what} lies beyond the years 1 to 9999, which is all that Python has",
        hint="Ask for an Arrow result: it holds such values.",
    )


def _text(data: bytes | memoryview) -> str:
    return str(data, "utf-8")


_FIXED = {
    "BOOLEAN": Layout("BOOLEAN", "?", 1, "<u1"),
    "TINYINT": Layout("TINYINT", "b", 1, "<i1"),
    "SMALLINT": Layout("SMALLINT", "h", 2, "<i2"),
    "INTEGER": Layout("INTEGER", "i", 4, "<i4"),
    "BIGINT": Layout("BIGINT", "q", 8, "<i8"),
    "FLOAT": Layout("FLOAT", "f", 4, "<f4"),
    "DOUBLE": Layout("DOUBLE", "d", 8, "<f8"),
    "VARCHAR": Layout("VARCHAR", "I", 4, "<u4", variable="text", convert=_text),
    "BLOB": Layout("BLOB", "I", 4, "<u4", variable="blob", convert=bytes),
    "DATE": Layout("DATE", "i", 4, "<i4", convert=_date),
    "TIMESTAMP": Layout("TIMESTAMP", "q", 8, "<i8", convert=_naive),
    TIMESTAMPTZ: Layout(TIMESTAMPTZ, "q", 8, "<i8", convert=_utc),
}


@functools.cache
def layout(type_: str) -> Layout:
    """Return how values of a type are stored.

    Raises
    ------
    RequestError
        If features can't have this type.
    """
    if type_ in _FIXED:
        return _FIXED[type_]
    match = _DECIMAL.match(type_)
    if match is None or not 0 < int(match[1]) <= _MAX_PRECISION or int(match[2]) > int(match[1]):
        raise RequestError(
            f"{type_} is no type that features can have", hint=f"Types: {', '.join(_FIXED)}, DECIMAL(p,s)."
        )
    precision, scale = int(match[1]), int(match[2])
    # A product has the exponents of both added up, zero too; it takes half the time of scaleb.
    scaled = functools.partial(EXACT.multiply, decimal.Decimal((0, (1,), -scale)))

    def scaled_wide(data: bytes) -> decimal.Decimal:
        return scaled(int.from_bytes(data, "little", signed=True))

    if precision <= _NARROW:
        return Layout(type_, "q", 8, "<i8", precision=precision, scale=scale, convert=scaled)
    return Layout(type_, "16s", 16, "<2u8", precision=precision, scale=scale, convert=scaled_wide)


def arrow_type(type_: str) -> pa.DataType:
    """Return the Arrow type of a type that DuckDB spells so, the same that a scan of the lake gives.

    Raises
    ------
    RequestError
        If features can't have this type.
    """
    import pyarrow as pa

    known = layout(type_)
    if known.precision:
        return pa.decimal128(known.precision, known.scale)
    makers = {
        "BOOLEAN": pa.bool_(),
        "TINYINT": pa.int8(),
        "SMALLINT": pa.int16(),
        "INTEGER": pa.int32(),
        "BIGINT": pa.int64(),
        "FLOAT": pa.float32(),
        "DOUBLE": pa.float64(),
        "VARCHAR": pa.string(),
        "BLOB": pa.binary(),
        "DATE": pa.date32(),
        "TIMESTAMP": pa.timestamp("us"),
        TIMESTAMPTZ: pa.timestamp("us", "UTC"),
    }
    return makers[type_]
