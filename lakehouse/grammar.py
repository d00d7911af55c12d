"""The strict grammar of values: which text is a number, a date, a time, and what it says exactly.

Casts are lax ('007', '0x1F' and ' 1_000 ' become integers, 't' a boolean), so what a value *is* is decided here. The
patterns below are the definition. They cost some 50 to 100 ns a value; therefore every reader first tries a test over
the whole buffer that holds only if *all* values belong, and falls back to the pattern otherwise.

All functions take Arrow string arrays without nulls and work on whole columns; the heavy calls release the GIL.
A mask of None means "all rows".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = [
    "DATE",
    "LOCAL",
    "NUMBER",
    "ZONED",
    "Plain",
    "Values",
    "all_exact_in_double",
    "as_booleans",
    "as_dates",
    "as_decimals",
    "as_doubles",
    "as_integers",
    "as_timestamps",
    "both",
    "matches",
    "narrowed",
    "plain_numbers",
    "scatter",
    "view",
    "within_calendar",
]

Mask = NDArray[np.bool_] | None
Values = tuple[NDArray[Any], Mask]
"""Values by row, and which rows belong (elsewhere the value is arbitrary)."""

_DIGITS = "(?:0|[1-9][0-9]*)"
PLAIN = rf"-?{_DIGITS}(?:\.[0-9]+)?"
NUMBER = rf"{PLAIN}(?:[eE][+-]?[0-9]+)?"
_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_BY_FOUR = "(?:0[48]|[2468][048]|[13579][26])"
_LEAP_YEAR = f"(?:[0-9]{{2}}{_BY_FOUR}|{_BY_FOUR}00)"
_LONG_MONTH = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
_SHORT_MONTH = "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
_FEBRUARY = "02-(?:0[1-9]|1[0-9]|2[0-8])"
_MONTH_DAY = f"(?:{_LONG_MONTH}|{_SHORT_MONTH}|{_FEBRUARY})"
DATE = f"(?:{_YEAR}-{_MONTH_DAY}|{_LEAP_YEAR}-02-29)"
LOCAL = rf"{DATE}[ T](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{{1,6}})?)?"
ZONED = f"{LOCAL}(?:Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)"
_BOOLEANS = ("true", "True", "TRUE", "false", "False", "FALSE")
_TRUE_SPELLINGS = 3

_ZERO, _MINUS, _POINT, _COLON = 48, 45, 46, 58
_INT64_DIGITS = 18  # any integer of so many digits fits
_DOUBLE_DIGITS = 15  # any decimal of so many digits survives the way through a double (DBL_DIG)
_DATE_LENGTH, _SHORTEST_TIME = 10, 16
_SURE_DOUBLE = rf"-?[0-9.]{{1,{_DOUBLE_DIGITS}}}(?:[eE][+-]?0*[0-9]{{1,2}})?"
_PARTS = r"\A-?(?P<whole>[0-9]+)(?:\.(?P<part>[0-9]+))?(?:[eE](?P<power>[+-]?[0-9]+))?\z"
_HUGE_POWER = 10**9
_DAY = 86_400_000_000  # µs
_FIRST_INSTANT = -719_162 * _DAY  # 0001-01-01 00:00
_END_OF_TIME = 2_932_897 * _DAY  # 10000-01-01 00:00


def view(strings: pa.StringArray) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return offsets that start at 0, and the bytes of the values, of an array that may be a slice."""
    _, offset_buffer, data_buffer = strings.buffers()
    if not len(strings):
        return np.zeros(1, dtype=np.int32), np.zeros(0, dtype=np.uint8)
    offsets: NDArray[np.int32] = np.frombuffer(offset_buffer, dtype=np.int32)
    offsets = offsets[strings.offset : strings.offset + len(strings) + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    if first == last:
        return np.zeros_like(offsets), np.zeros(0, dtype=np.uint8)
    data: NDArray[np.uint8] = np.frombuffer(data_buffer, dtype=np.uint8)[first:last]
    return (offsets - np.int32(first) if first else offsets), data


def matches(strings: pa.StringArray, pattern: str) -> NDArray[np.bool_]:
    """Return which values match the pattern as a whole."""
    # \A and \z: RE2's ^ and $ would do too, but only while nobody turns on its multi-line mode.
    found: NDArray[np.bool_] = pc.match_substring_regex(strings, rf"\A(?:{pattern})\z").to_numpy(zero_copy_only=False)
    return found


def both(first: Mask, second: Mask) -> Mask:
    """Return the rows that both masks hold."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def scatter(values: Values, rows: Mask) -> Values:
    """Return values of the rows that the mask selects as values of all rows."""
    data, ok = values
    if rows is None:
        return values
    spread = np.zeros((len(rows), *data.shape[1:]), dtype=data.dtype)
    spread[rows] = data
    return spread, rows if ok is None else narrowed(rows, ok)


def narrowed(rows: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the selected rows that are chosen, with one choice for each selected row."""
    result = np.zeros(len(rows), dtype=np.bool_)
    result[rows] = chosen
    return result


# --- numbers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plain:
    """Numbers without exponent, as they are written.

    Parameters
    ----------
    strings
        The texts; all match ``-?(0|[1-9][0-9]*)(.[0-9]+)?``.
    integer_digits
        int32 per value: digits before the point, not counting a lone 0.
    fraction_digits
        int32 per value: digits after the point; None if no value has a point.
    negative_zero
        The values such as ``-0`` or ``-0.00``, which only a double can hold; None if there are none.
    """

    strings: pa.StringArray
    integer_digits: NDArray[np.int32]
    fraction_digits: NDArray[np.int32] | None
    negative_zero: Mask

    def integers(self) -> Mask:
        """Return which values are integers that an int64 holds."""
        longest = int(self.integer_digits.max(initial=0))
        if longest <= _INT64_DIGITS and self.fraction_digits is None and self.negative_zero is None:
            return None
        fits: NDArray[np.bool_] = self.integer_digits <= _INT64_DIGITS
        if longest > _INT64_DIGITS:
            edge = np.flatnonzero(self.integer_digits == _INT64_DIGITS + 1)
            # Texts of one length sort as their numbers do.
            magnitude = pc.utf8_ltrim(self.strings.take(pa.array(edge)), characters="-")
            negative = pc.starts_with(self.strings.take(pa.array(edge)), pattern="-")
            limit = pc.if_else(negative, str(2**63), str(2**63 - 1))
            fits[edge] = pc.and_(
                pc.less_equal(pc.utf8_length(magnitude), _INT64_DIGITS + 1), pc.less_equal(magnitude, limit)
            ).to_numpy(zero_copy_only=False)
        if self.fraction_digits is not None:
            fits &= self.fraction_digits == 0
        if self.negative_zero is not None:
            fits &= ~self.negative_zero
        return fits

    def filter(self, rows: Mask) -> Plain:
        """Return the selected rows."""
        if rows is None:
            return self
        return Plain(
            self.strings.filter(pa.array(rows)),
            self.integer_digits[rows],
            None if self.fraction_digits is None else self.fraction_digits[rows],
            None if self.negative_zero is None else self.negative_zero[rows],
        )


def plain_numbers(strings: pa.StringArray) -> tuple[Plain, Mask]:
    """Return the numbers without exponent, and which rows they are."""
    plain = _all_plain(strings)
    if plain is not None:
        return plain, None
    rows = matches(strings, PLAIN)
    plain = _all_plain(strings.filter(pa.array(rows)))
    if plain is None:
        raise AssertionError("the test over the buffer refuses what the pattern accepts")
    return plain, rows


def _all_plain(strings: pa.StringArray) -> Plain | None:
    """Return the numbers if all values are numbers without exponent, otherwise None."""
    offsets, data = view(strings)
    starts, ends = offsets[:-1], offsets[1:]
    if (starts == ends).any():
        return None
    is_point = data == _POINT
    points = np.flatnonzero(is_point).astype(np.int32)
    negative = data.take(starts) == _MINUS
    minuses = np.count_nonzero(negative)
    # Digits, points and leading minuses account for every byte: nothing else is in there, and no minus elsewhere.
    if np.count_nonzero((data - np.uint8(_ZERO)) < 10) + len(points) + minuses != len(data):  # noqa: PLR2004 - digits
        return None
    fraction: NDArray[np.int32] | None = None
    integer_ends = ends
    if len(points):
        integer_ends_or_none = _integer_ends(starts, ends, points, is_point)
        if integer_ends_or_none is None:
            return None
        integer_ends = integer_ends_or_none
        fraction = np.maximum(ends - integer_ends - np.int32(1), np.int32(0))
    digits_start = starts + negative if minuses else starts
    integer = integer_ends - digits_start
    if int(integer.min(initial=1)) < 1:
        return None
    zero = data.take(digits_start) == _ZERO
    if (zero & (integer > 1)).any():
        return None
    integer -= zero
    return Plain(strings, integer, fraction, _negative_zeros(strings, negative & zero) if minuses else None)


def _integer_ends(
    starts: NDArray[np.int32], ends: NDArray[np.int32], points: NDArray[np.int32], is_point: NDArray[np.bool_]
) -> NDArray[np.int32] | None:
    """Return where each value's point is (its end if it has none); None if one has two, or nothing after it."""
    # One each, mostly: the k-th point is the k-th value's if all lie within bounds.
    if len(points) == len(starts) and bool(((points >= starts) & (points < ends)).all()):
        return points if bool((points < ends - 1).all()) else None
    until = np.zeros(len(is_point) + 1, dtype=np.int32)
    np.cumsum(is_point, dtype=np.int32, out=until[1:])
    before = until[starts]
    count = until[ends] - before
    if (count > 1).any():
        return None
    has = count == 1
    found = np.where(has, points[np.minimum(before, np.int32(len(points) - 1))], ends)
    return None if (has & (found == ends - 1)).any() else found


def _negative_zeros(strings: pa.StringArray, candidates: NDArray[np.bool_]) -> Mask:
    """Return the values that are zero with a minus, among those that begin with ``-0``."""
    if not candidates.any():
        return None
    zeros = matches(strings.filter(pa.array(candidates)), r"-0(?:\.0+)?")
    if not zeros.any():
        return None
    return narrowed(candidates, zeros)


def as_integers(strings: pa.StringArray) -> Values:
    """Return the int64 values."""
    plain, rows = plain_numbers(strings)
    fits = plain.integers()
    return scatter(scatter((_cast_integers(plain.filter(fits).strings), None), fits), rows)


def _cast_integers(strings: pa.StringArray) -> NDArray[np.int64]:
    """Return the values of texts that are known to be decimal integers within int64."""
    integers: NDArray[np.int64] = strings.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return integers


def as_decimals(strings: pa.StringArray, precision: int, scale: int) -> Values:
    """Return decimal128 values, as two little-endian 64-bit words each."""
    plain, rows = plain_numbers(strings)
    fits: Mask = None
    if int(plain.integer_digits.max(initial=0)) > precision - scale:
        fits = plain.integer_digits <= precision - scale
    if plain.fraction_digits is not None and int(plain.fraction_digits.max(initial=0)) > scale:
        fits = both(fits, plain.fraction_digits <= scale)
    if plain.negative_zero is not None:
        fits = both(fits, ~plain.negative_zero)
    plain = plain.filter(fits)
    if int(plain.integer_digits.max(initial=0)) + scale <= _INT64_DIGITS:
        words = _scaled(plain, scale)
    else:
        cast = plain.strings.cast(pa.decimal128(precision, scale))
        words = np.frombuffer(cast.buffers()[1], dtype=np.int64).reshape(-1, 2)[cast.offset : cast.offset + len(cast)]
    return scatter(scatter((words, None), fits), rows)


def _scaled(plain: Plain, scale: int) -> NDArray[np.int64]:
    """Return value · 10^scale in two words, for values whose product has at most 18 digits.

    Without its point the text is the integer value · 10^fraction; what is missing to the scale is multiplied on. All
    in int64: exact, and three times as fast as the general cast.
    """
    if plain.fraction_digits is None:
        product = _cast_integers(plain.strings) * np.int64(10**scale)
    else:
        powers = 10 ** np.arange(scale, -1, -1, dtype=np.int64)
        product = _cast_integers(_without_points(plain)) * powers.take(plain.fraction_digits)
    words = np.empty((len(product), 2), dtype=np.int64)
    words[:, 0] = product
    np.right_shift(product, 63, out=words[:, 1])
    return words


def _without_points(plain: Plain) -> pa.StringArray:
    """Return the texts with their points taken out."""
    offsets, data = view(plain.strings)
    points = np.zeros(len(offsets), dtype=np.int32)
    if plain.fraction_digits is not None:
        np.cumsum(plain.fraction_digits > 0, dtype=np.int32, out=points[1:])
    kept = data.compress(data != _POINT)
    return pa.StringArray.from_buffers(len(plain.strings), pa.py_buffer(offsets - points), pa.py_buffer(kept))


def as_doubles(strings: pa.StringArray) -> Values:
    """Return the float64 values of numbers with or without exponent; a number that a double doesn't hold is out."""
    rows: Mask = None
    plain = _all_plain(strings)
    if plain is None:
        rows = matches(strings, NUMBER)
        strings = strings.filter(pa.array(rows))
    doubles: NDArray[np.float64] = strings.cast(pa.float64()).to_numpy(zero_copy_only=False)
    exact = exact_in_double(strings, exponents=plain is None)
    return scatter((doubles, exact), rows)


def exact_in_double(strings: pa.StringArray, *, exponents: bool) -> Mask:
    """Return which numbers a double holds: its shortest text denotes the same number.

    A number of at most 15 digits and a moderate exponent always survives, so only the others are compared.
    """
    suspects = ~matches(strings, _SURE_DOUBLE) if exponents else np.diff(view(strings)[0]) > _DOUBLE_DIGITS
    if not suspects.any():
        return None
    chosen = strings.filter(pa.array(suspects))
    shortest = chosen.cast(pa.float64()).cast(pa.string())
    same: NDArray[np.bool_] = pc.equal(chosen, shortest).to_numpy(zero_copy_only=False)
    if not same.all():  # a different notation, or a different number
        differs = pa.array(~same)
        same = same | narrowed(~same, _same_numbers(chosen.filter(differs), shortest.filter(differs)))
    return None if same.all() else narrowed(suspects, same) | ~suspects


def all_exact_in_double(strings: pa.StringArray, *, exponents: bool) -> bool:
    """Return whether a double holds every number; cheap where one of the first numbers already tells."""
    few = 1000
    return (
        exact_in_double(strings.slice(0, few), exponents=exponents) is None
        and exact_in_double(strings.slice(few), exponents=exponents) is None
    )


def _same_numbers(left: pa.StringArray, right: pa.StringArray) -> NDArray[np.bool_]:
    """Return which numbers of equal sign are equal, whatever their notation. Infinity equals nothing."""
    left_digits, left_power = _normal(left)
    right_digits, right_power = _normal(right)
    same = pc.fill_null(pc.equal(left_digits, right_digits), fill_value=False).to_numpy(zero_copy_only=False)
    zero = pc.fill_null(pc.equal(left_digits, ""), fill_value=False).to_numpy(zero_copy_only=False)
    equal: NDArray[np.bool_] = same & (zero | (left_power == right_power))
    return equal


def _normal(numbers: pa.StringArray) -> tuple[pa.StringArray, NDArray[np.int64]]:
    """Return the digits without outer zeros, and the power of ten that they are multiplied by."""
    parts = pc.extract_regex(numbers, _PARTS)
    whole, part, power = (pc.struct_field(parts, index) for index in range(3))
    digits = pc.utf8_ltrim(pc.binary_join_element_wise(whole, part, ""), characters="0")
    short = pc.utf8_rtrim(digits, characters="0")
    negative = pc.starts_with(power, pattern="-")
    magnitude = pc.utf8_ltrim(power, characters="+-0")
    magnitude = pc.if_else(pc.greater(pc.binary_length(magnitude), 9), str(_HUGE_POWER), magnitude)
    magnitude = pc.if_else(pc.equal(magnitude, ""), "0", magnitude).cast(pa.int64())
    exponent = pc.if_else(negative, pc.negate(magnitude), magnitude)
    moved = pc.subtract(pc.subtract(pc.binary_length(digits), pc.binary_length(short)), pc.binary_length(part))
    total: NDArray[np.int64] = pc.fill_null(pc.add(exponent, moved), _HUGE_POWER).to_numpy(zero_copy_only=False)
    return short, total


# --- booleans, dates, times ------------------------------------------------------------------------------------------


def as_booleans(strings: pa.StringArray) -> Values:
    """Return the bool values."""
    index = pc.index_in(strings, value_set=pa.array(_BOOLEANS))
    known = index.is_valid().to_numpy(zero_copy_only=False)
    spelling: NDArray[np.int32] = pc.fill_null(index, 0).to_numpy(zero_copy_only=False)
    return spelling < _TRUE_SPELLINGS, None if known.all() else known


def as_dates(strings: pa.StringArray) -> Values:
    """Return int32 days since 1970."""
    # Arrow's reader is strict once the length is fixed; only the year 0 it takes too.
    if len(strings) and bool((np.diff(view(strings)[0]) == _DATE_LENGTH).all()):
        try:
            days = _cast_dates(strings)
        except pa.ArrowInvalid:
            pass
        else:
            if int(days.min()) * _DAY >= _FIRST_INSTANT:
                return days, None
    rows = matches(strings, DATE)
    return scatter((_cast_dates(strings.filter(pa.array(rows))), None), rows)


def _cast_dates(strings: pa.StringArray) -> NDArray[np.int32]:
    days: NDArray[np.int32] = strings.cast(pa.date32()).cast(pa.int32()).to_numpy(zero_copy_only=False)
    return days


def as_timestamps(strings: pa.StringArray, *, zoned: bool) -> Values:
    """Return int64 µs since 1970: of the local clock for texts without a zone, of UTC for texts with one.

    Only texts of the asked kind belong. A zoned text whose instant falls outside the years 1 to 9999 of UTC doesn't.
    """
    kind = pa.timestamp("us", tz="UTC" if zoned else None)
    if _have_minutes(strings):
        try:
            instants = _cast_instants(strings, kind)
        except pa.ArrowInvalid:
            pass
        else:
            # Arrow takes the year 0 too; near the ends of the calendar the pattern decides.
            if int(instants.min()) >= _FIRST_INSTANT + _DAY and int(instants.max()) < _END_OF_TIME - _DAY:
                return instants, None
    rows = matches(strings, ZONED if zoned else LOCAL)
    instants = _cast_instants(strings.filter(pa.array(rows)), kind)
    return scatter((instants, within_calendar(instants)), rows)


def within_calendar(instants: NDArray[np.int64]) -> Mask:
    """Return which instants (µs since 1970) lie in the years 1 to 9999."""
    if not len(instants) or (int(instants.min()) >= _FIRST_INSTANT and int(instants.max()) < _END_OF_TIME):
        return None
    inside: NDArray[np.bool_] = (instants >= _FIRST_INSTANT) & (instants < _END_OF_TIME)
    return inside


def _have_minutes(strings: pa.StringArray) -> bool:
    """Return whether all values could be times with minutes; Arrow also takes bare dates and hours."""
    offsets, data = view(strings)
    if not len(strings) or int(np.diff(offsets).min()) < _SHORTEST_TIME:
        return False
    return bool((data.take(offsets[:-1] + np.int32(13)) == _COLON).all())


def _cast_instants(strings: pa.StringArray, kind: pa.DataType) -> NDArray[np.int64]:
    instants: NDArray[np.int64] = strings.cast(kind).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return instants
