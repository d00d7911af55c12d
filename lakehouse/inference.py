"""Types of text columns: observed by a strict grammar, settled once, converted exactly or not at all.

A batch of texts is *observed* (what kinds of values are there); observations merge in any order and say which type
holds them all. Texts are then *converted* to the column's type: each value exactly, or it is a misfit, which the
typed table shows as null and keeps as text in ``_rest``.

For a settled column convert first; observe only a batch that has misfits. Everything works on whole columns and is
safe to run in several threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, fields

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakehouse import grammar
from lakehouse.conversion import Converted, arrow_type, convert, rest
from lakehouse.grammar import Values
from lakehouse.zones import as_timezone

__all__ = ["Converted", "Observed", "arrow_type", "as_timezone", "convert", "observe", "rest", "widened"]

_MAX_DIGITS = 38
_MONEY = (18, 6)
_BIGINT_DIGITS = 19


@dataclass(frozen=True, slots=True)
class Observed:
    """What the values of a column, or of a part of it, are. ``Observed()`` is a column without any value.

    Plain booleans and integers: ``astuple`` and ``asdict`` give what any format can store, the constructor takes it.

    Parameters
    ----------
    boolean, bigint, decimal, double, date, local, zoned, text
        Whether such a value was there. Kinds are disjoint: *decimal* has a point or exceeds int64, *double* has an
        exponent, *local* and *zoned* are times without and with an offset.
    negative_zero
        Whether ``-0``, ``-0.0`` … was there, which only a double holds.
    inexact
        Whether a number was there that a double doesn't hold.
    integer_digits, fraction_digits
        The most digits before (a lone 0 counts none) and after the point of any bigint or decimal.
    """

    boolean: bool = False
    bigint: bool = False
    decimal: bool = False
    double: bool = False
    date: bool = False
    local: bool = False
    zoned: bool = False
    text: bool = False
    negative_zero: bool = False
    inexact: bool = False
    integer_digits: int = 0
    fraction_digits: int = 0

    @classmethod
    def settled(cls, column_type: str) -> Observed:
        """Return the most that a column settled as bigint can hold, for when its own observation is gone.

        Raises
        ------
        ValueError
            For any other type: none of them widens.
        """
        if column_type != "bigint":
            raise ValueError(column_type)
        return cls(bigint=True, inexact=True, integer_digits=_BIGINT_DIGITS)

    def merge(self, other: Observed) -> Observed:
        """Return what both have seen together. Associative, commutative, ``Observed()`` is neutral."""
        return Observed(*(max(mine, theirs) for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def type(self, *, timezone: str | None) -> str:
        """Return the type that holds every value seen, as DuckDB spells it; ``unknown`` if none was.

        Parameters
        ----------
        timezone
            The zone declared for local times. With one, times of both sorts are ``timestamptz``.
        """
        kinds = {field.name for field in fields(self) if field.name in _KINDS and getattr(self, field.name)}
        if not kinds:
            return "unknown"
        if kinds <= {"bigint", "decimal", "double", "negative_zero"}:
            return self._number_type()
        if kinds <= {"local", "zoned"}:
            if timezone is not None or kinds == {"zoned"}:
                return "timestamptz"
            return "timestamp" if kinds == {"local"} else "varchar"
        return kinds.pop() if len(kinds) == 1 and kinds <= {"boolean", "date"} else "varchar"

    def _number_type(self) -> str:
        if self.double:
            return "varchar" if self.inexact else "double"
        if self.negative_zero:
            return "varchar"
        return (self.decimal_type() or "varchar") if self.decimal else "bigint"

    def decimal_type(self) -> str | None:
        """Return the decimal type for the digits seen, if there is one."""
        precision, scale = _MONEY
        if self.integer_digits <= precision - scale and self.fraction_digits <= scale:
            return f"decimal({precision},{scale})"
        if self.integer_digits + self.fraction_digits <= _MAX_DIGITS:
            return f"decimal({_MAX_DIGITS},{self.fraction_digits})"
        return None


_KINDS = {"boolean", "bigint", "decimal", "double", "date", "local", "zoned", "text", "negative_zero"}


def observe(values: pa.StringArray | pa.ChunkedArray) -> Observed:
    """Return what the non-null values are.

    Parameters
    ----------
    values
        Texts as found; null stands for "no value", an empty text is a text.
    """
    if isinstance(values, pa.ChunkedArray):
        return _merged(observe(chunk) for chunk in values.chunks)
    strings = values.drop_null() if values.null_count else values
    offsets, data = grammar.view(strings)
    lengths = np.diff(offsets)
    if not len(lengths):
        return Observed()
    # The first byte tells apart what can be a number or a date, a boolean, or nothing but text.
    leads = np.full(len(lengths), _TEXT, dtype=np.uint8)
    if (lengths > 0).all():
        leads = _leads().take(data.take(offsets[:-1]))
    else:
        filled = lengths > 0
        leads[filled] = _leads().take(data.take(offsets[:-1][filled]))
    found = np.bincount(leads, minlength=3)
    seen = Observed(text=bool(found[_TEXT]))
    if found[_LETTER]:
        seen = seen.merge(_observe_booleans(_pick(strings, leads == _LETTER)))
    if found[_DIGIT]:
        chosen = leads == _DIGIT
        dated = _look_dated(offsets, data, lengths, chosen)
        if dated.any():
            seen = seen.merge(_observe_times(_pick(strings, dated)))
            chosen &= ~dated
        seen = seen.merge(_observe_numbers(_pick(strings, chosen)))
    return seen


_TEXT, _DIGIT, _LETTER = 0, 1, 2
_DASH = 45


@functools.cache
def _leads() -> NDArray[np.uint8]:
    """Return what a value can be, by its first byte."""
    table = np.full(256, _TEXT, dtype=np.uint8)
    table[np.frombuffer(b"-0123456789", dtype=np.uint8)] = _DIGIT
    table[np.frombuffer(b"tTfF", dtype=np.uint8)] = _LETTER
    return table


def _merged(parts: Iterable[Observed]) -> Observed:
    return functools.reduce(Observed.merge, parts, Observed())


def _pick(strings: pa.StringArray, rows: NDArray[np.bool_]) -> pa.StringArray:
    return strings if bool(rows.all()) else strings.filter(pa.array(rows))


def _look_dated(
    offsets: NDArray[np.int32], data: NDArray[np.uint8], lengths: NDArray[np.int32], among: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return the rows whose fifth byte is a dash that follows a digit: in a number it would follow an e."""
    long = among & (lengths >= len("YYYY-MM-DD"))
    if not long.any():
        return long
    whole = bool(long.all())
    starts = offsets[:-1] if whole else offsets[:-1][long]
    dashed: NDArray[np.bool_] = (data.take(starts + np.int32(4)) == _DASH) & (
        _leads().take(data.take(starts + np.int32(3))) == _DIGIT
    )
    if not whole:
        return grammar.narrowed(long, dashed)
    return dashed


def _observe_booleans(strings: pa.StringArray) -> Observed:
    _, ok = grammar.as_booleans(strings)
    return Observed(boolean=ok is None or bool(ok.any()), text=ok is not None)


def _observe_times(strings: pa.StringArray) -> Observed:
    """Observe values that begin like a date."""
    seen = Observed()
    readers: tuple[tuple[str, Callable[[pa.StringArray], Values]], ...] = (
        ("date", grammar.as_dates),
        ("local", functools.partial(grammar.as_timestamps, zoned=False)),
        ("zoned", functools.partial(grammar.as_timestamps, zoned=True)),
    )
    for kind, read in _likeliest_first(strings, readers):
        _, ok = read(strings)
        if ok is None or ok.any():
            seen = seen.merge(Observed(**{kind: True}))
        if ok is None:
            return seen
        strings = strings.filter(pa.array(~ok))
        if not len(strings):
            return seen
    return seen.merge(Observed(text=True))


def _likeliest_first(
    strings: pa.StringArray, readers: tuple[tuple[str, Callable[[pa.StringArray], Values]], ...]
) -> list[tuple[str, Callable[[pa.StringArray], Values]]]:
    """Return the readers with the one first that takes the first value."""
    first = strings.slice(0, 1)
    return sorted(readers, key=lambda reader: reader[1](first)[1] is not None)


def _observe_numbers(strings: pa.StringArray) -> Observed:
    """Observe values that begin like a number."""
    plain, rows = grammar.plain_numbers(strings)
    seen = _observe_plain(plain)
    if rows is None:
        return seen
    others = strings.filter(pa.array(~rows))
    is_number = grammar.matches(others, grammar.NUMBER)
    doubles = others.filter(pa.array(is_number))
    if len(doubles):
        exact = grammar.all_exact_in_double(doubles, exponents=True)
        seen = seen.merge(Observed(double=True, inexact=not exact))
    return seen.merge(Observed(text=not is_number.all()))


def _observe_plain(plain: grammar.Plain) -> Observed:
    zero = plain.negative_zero
    if zero is not None and zero.any():
        return Observed(negative_zero=True).merge(_observe_plain(plain.filter(~zero)))
    if not len(plain.strings):
        return Observed()
    integers = plain.integers()
    return Observed(
        bigint=integers is None or bool(integers.any()),
        decimal=integers is not None and not integers.all(),
        inexact=not grammar.all_exact_in_double(plain.strings, exponents=False),
        integer_digits=int(plain.integer_digits.max()),
        fraction_digits=0 if plain.fraction_digits is None else int(plain.fraction_digits.max()),
    )


def widened(current: str, observed: Observed) -> str | None:
    """Return the type to which a settled column widens by itself, or None to leave it and keep the misfits.

    The only automatic widening is from bigint to decimal. Other kinds among the new values don't prevent it: they
    would be misfits either way.

    Parameters
    ----------
    current
        The settled type.
    observed
        What the settled column holds, or ``Observed.settled(current)`` if nobody knows, merged with what came.
    """
    return observed.decimal_type() if current == "bigint" and observed.decimal else None
