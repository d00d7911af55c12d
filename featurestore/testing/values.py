"""Values on which exactness fails, by type: extremes, neighbours, and what looks alike."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

__all__ = ["CONFUSABLE", "KEY_TYPES", "SUM_TYPES", "VALUE_TYPES", "keys_of", "summands_of", "values_of"]

TIMESTAMPTZ = "TIMESTAMP WITH TIME ZONE"
# TIMESTAMP has no zone.
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001
_FIRST, _LAST = dt.datetime.min, dt.datetime.max  # noqa: DTZ901
_TICK = dt.timedelta(microseconds=1)
_LONG = "x" * 600
"""Longer than an LMDB key may be."""


def _integers(bits: int) -> tuple[int, ...]:
    high = 2 ** (bits - 1) - 1
    return (0, 1, -1, high, high - 1, -high - 1)


def _decimals(precision: int, scale: int) -> tuple[Decimal, ...]:
    digits = (0, 1, -1, 10, 10**precision - 1, 1 - 10**precision)
    return tuple(_decimal(value, scale) for value in digits)


def _decimal(unscaled: int, scale: int) -> Decimal:
    return Decimal((int(unscaled < 0), tuple(int(digit) for digit in str(abs(unscaled))), -scale))


_DECIMALS = ((4, 1), (9, 2), (18, 6), (38, 0), (38, 10), (38, 38))
_WIDEST = 38
_DOUBLES = (float("nan"), -0.0, 0.0, float("inf"), float("-inf"), 0.1, 5e-324, 1.7976931348623157e308)
_FLOATS = (float("nan"), -0.0, 0.0, float("inf"), float("-inf"), 0.5, 2.0**-149, 2.0**127)
_TEXTS = ("", "a", "a\0", "a\0b", "ab", "B", "é", "e\u0301", "日本", "\uffff", "😀", "z" * 70)
_TIMESTAMPS = (_EPOCH, _EPOCH - _TICK, _EPOCH + _TICK, _FIRST, _LAST)

_VALUES: Mapping[str, tuple[Any, ...]] = {
    "BOOLEAN": (False, True),
    "TINYINT": _integers(8),
    "SMALLINT": _integers(16),
    "INTEGER": _integers(32),
    "BIGINT": (*_integers(64), 2**53 + 1, 2**53),
    "FLOAT": _FLOATS,
    "DOUBLE": _DOUBLES,
    "VARCHAR": _TEXTS,
    "BLOB": (*(text.encode("utf-16-le") for text in _TEXTS), b"\x7f", b"\x80", b"\xff"),
    "DATE": (dt.date(1970, 1, 1), dt.date(1969, 12, 31), dt.date(2024, 2, 29), dt.date.min, dt.date.max),
    "TIMESTAMP": _TIMESTAMPS,
    TIMESTAMPTZ: tuple(value.replace(tzinfo=dt.UTC) for value in _TIMESTAMPS),
    **{f"DECIMAL({precision},{scale})": _decimals(precision, scale) for precision, scale in _DECIMALS},
}

_KEY_TEXTS = ("", "a", "ab", "abc", "b", "bc", "c", "a\0", "\0", "é", "日本", _LONG, _LONG + "y")

VALUE_TYPES = tuple(_VALUES)
"""Every type that a feature can have."""

KEY_TYPES = tuple(type_ for type_ in VALUE_TYPES if type_ not in ("FLOAT", "DOUBLE"))
"""Every type that a join key can have."""

SUM_TYPES = tuple(type_ for type_ in VALUE_TYPES if type_.endswith("INT") or type_.startswith(("INTEGER", "DECIMAL")))
"""Every type whose values can be summed up."""

CONFUSABLE = (("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"), ("a\0", "b"), ("a", "\0b"))
"""Pairs of texts that are one when they are put together."""


def values_of(type_: str) -> tuple[Any, ...]:
    """Return values of a type as Python ones; no nulls."""
    return _VALUES[type_]


def summands_of(type_: str) -> tuple[Any, ...]:
    """Return values of a type, at most fifty of which have a sum of 38 digits or fewer."""
    if not type_.startswith(f"DECIMAL({_WIDEST},"):
        return _VALUES[type_]
    scale = int(type_.partition(",")[2].rstrip(")"))
    return (*_VALUES[type_][:4], _decimal(10**36 + 1, scale), _decimal(7 - 10**36, scale))


def keys_of(type_: str) -> tuple[Any, ...]:
    """Return values of a type for join keys; no nulls."""
    if type_ == "VARCHAR":
        return _KEY_TEXTS
    return (*(text.encode() for text in _KEY_TEXTS), b"\xff") if type_ == "BLOB" else _VALUES[type_]
