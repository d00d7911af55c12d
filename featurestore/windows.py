"""Aggregates over windows: events are summed up once per interval between window boundaries, then intervals are.

Each event is filed at the first boundary of its entity that is not before it; so a slot holds the events of the
interval that ends there. A window's value comes from the slots between its two boundaries: counts and exact sums by
difference of running totals, smallest and greatest values by a table of ranges of powers of two. Nothing depends on
the order of the events.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Counts", "Extremes", "Spans", "Sums", "Totals", "boundaries"]

Ints = NDArray[np.int64]

_MIN, _MAX = -(2**63), 2**63 - 1
_LIMB = 32
_MASK = 0xFFFFFFFF
_SURE = 2**53  # doubles hold all integers up to here
_HIGHEST_SUM, _LOWEST_SUM = 10**38 - 1, -(10**38) + 1
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)\Z")
_SHORT_DECIMAL = 18  # digits that fit into 64 bits
_PENDING = 1_000_000


def boundaries(instants: Ints, window: int, hop: int | None, *, closed_left: bool) -> tuple[Ints, Ints]:
    """Return the bounds of a window at effective instants: it holds the events with low < event ≤ high, in µs.

    The window's start is rounded down to a multiple of the hop; what is closed left becomes closed right by moving
    both ends by a microsecond.
    """
    start = np.maximum(instants, _MIN + window + (hop or 0) + 1) - window
    if hop is not None:
        start = start // hop * hop
    shift = int(closed_left)
    high = np.maximum(instants, _MIN + shift) - shift
    return np.minimum(start - shift, high), high


@dataclass(frozen=True, slots=True)
class Spans:
    """For each window the slots of its bounds: it holds the slots after ``low`` up to ``high``."""

    low: Ints
    high: Ints


# -- counts and sums ------------------------------------------------------------------------------------------------


class Counts:
    """How many events each slot has."""

    def __init__(self, slots: int) -> None:
        self._count = np.zeros(slots, np.int64)

    def add(self, places: Ints) -> None:
        """Count events at these slots."""
        np.add.at(self._count, places, 1)

    def over(self, spans: Spans) -> Ints:
        """Return the number of events of each window."""
        return _difference(self._count, spans)


def _difference(values: Ints, spans: Spans) -> Ints:
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    difference: Ints = total[spans.high + 1] - total[spans.low + 1]
    return difference


@dataclass(frozen=True, slots=True)
class Totals:
    """Exact sums in limbs of 32 bits, the lowest first, each a sum of limbs; the highest is signed."""

    limbs: tuple[Ints, ...]

    def words(self) -> tuple[NDArray[np.uint64], Ints, NDArray[np.bool_]]:
        """Return low and high half of the sums as 128-bit integers, and whether they fit into DECIMAL(38)."""
        carry = np.zeros(len(self.limbs[0]), np.int64)
        digits = []
        for limb in self.limbs[:-1]:
            value = limb + carry
            digits.append(value & _MASK)
            carry = value >> _LIMB
        top = self.limbs[-1] + carry
        while len(digits) < 3:  # noqa: PLR2004 - four limbs make 128 bits
            digits.append(top & _MASK)
            top = top >> _LIMB
        low = digits[0].view(np.uint64) | (digits[1].view(np.uint64) << np.uint64(_LIMB))
        high = digits[2] | (top << _LIMB)
        fits = (top >= -(2**31)) & (top < 2**31)
        above = _greater(high, low, _HIGHEST_SUM)
        below = ~_greater(high, low, _LOWEST_SUM - 1)
        return low, high, fits & ~above & ~below

    def exact(self, row: int) -> int:
        """Return one sum."""
        return sum(int(limb[row]) << (_LIMB * place) for place, limb in enumerate(self.limbs))

    def means(self, counts: Ints, scale: int) -> NDArray[np.float64]:
        """Return the doubles nearest to sum / (count · 10^scale); NaN where nothing was counted."""
        low, high, fits = self.words()
        small = low.view(np.int64)
        unit = 10**scale
        sure = fits & (high == small >> 63) & (small > -_SURE) & (small < _SURE) & (counts <= _SURE // unit)
        sure &= counts > 0
        result = np.full(len(counts), np.nan)
        if unit <= _SURE:  # both sides are exact doubles, so the division rounds once
            result[sure] = small[sure].astype(np.float64) / (counts[sure] * unit).astype(np.float64)
        rest = np.flatnonzero((counts > 0) & ~sure)
        result[rest] = [
            self.exact(row) / (count * unit) for row, count in zip(rest.tolist(), counts[rest].tolist(), strict=True)
        ]
        return result


def _greater(high: Ints, low: NDArray[np.uint64], value: int) -> NDArray[np.bool_]:
    top, bottom = value >> 64, np.uint64(value & (2**64 - 1))
    return np.asarray((high > top) | ((high == top) & (low > bottom)))


class Sums:
    """Exact sums of integers and decimals per slot.

    Parameters
    ----------
    slots
        Number of slots.
    type_
        The column's type as DuckDB spells it.
    """

    def __init__(self, slots: int, type_: str) -> None:
        decimal = _DECIMAL.match(type_)
        self._wide = decimal is not None and int(decimal[1]) > _SHORT_DECIMAL
        self._limbs = tuple(np.zeros(slots, np.int64) for _ in range(4 if self._wide else 2))
        self.scale = int(decimal[2]) if decimal else 0

    def add(self, places: Ints, values: pa.Array) -> None:
        """Add values, none of them null, at these slots."""
        low, high = _words(values)
        halves = [low, high] if self._wide else [low]
        limbs = [part for half in halves for part in (half & _MASK, half >> _LIMB)]
        if self._wide:
            limbs[1] &= _MASK
        for limb, part in zip(self._limbs, limbs, strict=True):
            np.add.at(limb, places, part)

    def over(self, spans: Spans) -> Totals:
        """Return the sum of each window."""
        return Totals(tuple(_difference(limb, spans) for limb in self._limbs))


def _words(values: pa.Array) -> tuple[Ints, Ints]:
    """Return the low and high 64 bits of integers or of a decimal's unscaled integers; without nulls."""
    import pyarrow as pa

    if not pa.types.is_decimal(values.type):
        low = values.cast(pa.int64()).to_numpy()
        return low, low >> 63
    if not pa.types.is_decimal128(values.type):
        values = values.cast(pa.decimal128(values.type.precision, values.type.scale))
    _, data = values.buffers()
    words = np.frombuffer(data, np.int64)[2 * values.offset : 2 * (values.offset + len(values))]
    return words[0::2], words[1::2]


# -- smallest and greatest ------------------------------------------------------------------------------------------


class Extremes:
    """The smallest or greatest value per slot: NaN is the greatest, −0.0 is below 0.0, text is ordered by its bytes.

    Parameters
    ----------
    slots
        Number of slots.
    type_
        The column's type as DuckDB spells it.
    greatest
        Whether the greatest is kept rather than the smallest.
    """

    def __init__(self, slots: int, type_: str, *, greatest: bool) -> None:
        self._fold: Any = np.maximum if greatest else np.minimum
        self._empty = _MIN if greatest else _MAX
        self._greatest = greatest
        self._slots = slots
        decimal = _DECIMAL.match(type_)
        self._ordinal = type_ not in ("VARCHAR", "BLOB") and not (decimal and int(decimal[1]) > _SHORT_DECIMAL)
        self._keys = np.full(slots if self._ordinal else 0, self._empty, np.int64)
        self._best: list[tuple[Ints, pa.Array]] = []
        self._pending = 0

    def add(self, places: Ints, values: pa.Array) -> None:
        """Offer values, none of them null, at these slots."""
        if self._ordinal:
            self._fold.at(self._keys, places, _ordinals(values))
            return
        self._best.append(self._reduced(places, values))
        self._pending += len(self._best[-1][0])
        if self._pending > max(_PENDING, 2 * self._slots):
            self._merge()

    def _reduced(self, places: Ints, values: pa.Array) -> tuple[Ints, pa.Array]:
        """Keep the best value of each place."""
        order = np.lexsort((_ranks(values), places))
        sorted_places = places[order]
        edge = np.ones(len(order), np.bool_)
        if self._greatest:
            edge[:-1] = sorted_places[1:] != sorted_places[:-1]
        else:
            edge[1:] = sorted_places[1:] != sorted_places[:-1]
        return sorted_places[edge], values.take(order[edge])

    def _merge(self) -> None:
        import pyarrow as pa

        places = np.concatenate([places for places, _ in self._best])
        values = pa.concat_arrays([values for _, values in self._best])
        self._best = [self._reduced(places, values)]
        self._pending = len(self._best[0][0])

    def over(self, spans: Spans, some: NDArray[np.bool_], type_: pa.DataType) -> pa.Array:
        """Return the value of each window in this Arrow type; null for windows without ``some`` value."""
        import pyarrow as pa

        if self._ordinal:
            return _from_ordinals(_folded(self._keys, spans, self._fold, some), some, type_)
        if not self._best:
            return pa.nulls(len(some), type_)
        self._merge()
        ((places, values),) = self._best
        ranks = _ranks(values)
        keys = np.full(self._slots, self._empty, np.int64)
        keys[places] = ranks
        where = np.empty(int(ranks.max(initial=-1)) + 1, np.int64)
        where[ranks] = np.arange(len(ranks))
        found = _folded(keys, spans, self._fold, some)
        picks = where[np.where(some, found, 0)] if len(where) else np.zeros(len(some), np.int64)
        return values.take(pa.array(picks, mask=~some)).cast(type_)


def _ranks(values: pa.Array) -> Ints:
    """Return the dense rank of each value."""
    import pyarrow.compute as pc

    encoded = values.dictionary_encode()
    rank = np.empty(len(encoded.dictionary), np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    ranks: Ints = rank[encoded.indices.to_numpy()]
    return ranks


def _ordinals(values: pa.Array) -> Ints:
    """Return int64 that are in the same order as the values."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_floating(kind):
        floats = values.to_numpy(zero_copy_only=False)
        floats = np.where(np.isnan(floats), floats.dtype.type("nan"), floats)
        bits = floats.view(np.int32 if kind == pa.float32() else np.int64)
        # The bits of negative numbers grow with their magnitude: all but the sign are turned over.
        turned = np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)
        return np.asarray(turned.astype(np.int64))
    if pa.types.is_decimal(kind):
        return _words(values)[0]
    if pa.types.is_boolean(kind):
        return np.asarray(values.cast(pa.int8()).to_numpy().astype(np.int64))
    if pa.types.is_date32(kind):
        values = values.cast(pa.int32())
    return np.asarray(values.cast(pa.int64()).to_numpy())


def _from_ordinals(keys: Ints, some: NDArray[np.bool_], type_: pa.DataType) -> pa.Array:
    """Return the values that int64 of `_ordinals` stand for, null where there is none."""
    import pyarrow as pa

    keys = np.where(some, keys, 0)
    if pa.types.is_floating(type_):
        bits = keys.astype(np.int32) if type_ == pa.float32() else keys
        floats = np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)
        return pa.array(floats.view(np.float32 if type_ == pa.float32() else np.float64), type_, mask=~some)
    if pa.types.is_decimal(type_):
        return decimals(keys.view(np.uint64), keys >> 63, some, type_)
    if pa.types.is_boolean(type_):
        return pa.array(keys.astype(np.bool_), mask=~some)
    if pa.types.is_date32(type_):
        return pa.array(keys.astype(np.int32), mask=~some).cast(type_)
    return pa.array(keys, mask=~some).cast(type_)


def decimals(low: NDArray[np.uint64], high: Ints, some: NDArray[np.bool_], type_: pa.DataType) -> pa.Array:
    """Return 128-bit integers as the unscaled values of decimals, null where ``some`` is false."""
    import pyarrow as pa

    words = np.empty(2 * len(low), np.int64)
    words[0::2], words[1::2] = low.view(np.int64), high
    words[np.repeat(~some, 2)] = 0
    present = pa.array(some).buffers()[1]
    return pa.Array.from_buffers(type_, len(low), [present, pa.py_buffer(words.tobytes())])


def _folded(keys: Ints, spans: Spans, fold: Callable[..., Ints], some: NDArray[np.bool_]) -> Ints:
    """Return the fold of the keys of each window that has a value.

    Level by level, entry i of the table is the fold of 2^level keys from i on: two entries cover any range.
    """
    result = np.zeros(len(some), np.int64)
    wanted = np.flatnonzero(some)
    first, length = spans.low[wanted] + 1, spans.high[wanted] - spans.low[wanted]
    level_of = np.frexp(length.astype(np.float64))[1] - 1
    table = keys
    for level in range(int(level_of.max(initial=-1)) + 1):
        if level:
            half = 1 << (level - 1)
            table = fold(table[:-half], table[half:])
        now = level_of == level
        begin = first[now]
        result[wanted[now]] = fold(table[begin], table[begin + length[now] - (1 << level)])
    return result
