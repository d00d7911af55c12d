"""Windows: their bounds, and kernels whose results hang on the set of events only."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.testing.values import VALUE_TYPES, values_of
from featurestore.windows import Counts, Extremes, Spans, Sums, Totals, boundaries, decimals
from lakehouse.delta import ColumnSchema, arrow_schema

HOUR = 3_600_000_000
SLOTS = 7
# Windows over slots: those after the first number up to the second.
ALL_SPANS = [(low, high) for low in range(SLOTS) for high in range(low, SLOTS)]
SPANS = Spans(*(np.array(side, np.int64) for side in zip(*ALL_SPANS, strict=True)))
INTEGERS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}


def arrow_type(type_: str) -> pa.DataType:
    return arrow_schema((ColumnSchema("c", type_),)).field(0).type


def order(value: Any) -> Any:
    if isinstance(value, float):
        return (1,) if math.isnan(value) else (0, value, math.copysign(1, value))
    return value.encode() if isinstance(value, str) else value


def same(a: Any, b: Any) -> bool:
    return repr(a) == repr(b)


def filed(state: Any, events: list[tuple[int, Any]], type_: str, batch: int) -> Any:
    for start in range(0, len(events), batch):
        places, values = zip(*events[start : start + batch], strict=True)
        state.add(np.array(places, np.int64), pa.array(values, arrow_type(type_)))
    return state


def within(events: list[tuple[int, Any]], span: tuple[int, int]) -> list[Any]:
    return [value for place, value in events if span[0] < place <= span[1]]


# -- bounds ---------------------------------------------------------------------------------------------------------


@given(
    st.integers(-(10**17), 10**17),
    st.sampled_from([1, 10, HOUR, 7 * 24 * HOUR]),
    st.sampled_from([None, 1, 5]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_windows_hold_the_events_that_the_rule_says(t: int, unit: int, parts: int | None, closed_left: bool) -> None:
    window, hop = unit * (parts or 3), None if parts is None else unit
    start = t - window if hop is None else math.floor(Fraction(t - window, hop)) * hop
    low, high = (int(side[0]) for side in boundaries(np.array([t]), window, hop, closed_left=closed_left))
    for event in (start - 1, start, start + 1, t - 1, t, t + 1):
        inside = start <= event < t if closed_left else start < event <= t
        assert (low < event <= high) == inside


def test_windows_before_all_time_do_not_wrap() -> None:
    low, high = boundaries(np.array([-(2**63), -(2**63) + 5]), 7 * HOUR, HOUR, closed_left=True)
    assert (low <= high).all()
    assert (low < -(2**63) + 8 * HOUR).all()


# -- counts and sums ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, SLOTS - 1), max_size=30))
@settings(max_examples=50, deadline=None)
def test_counts(places: list[int]) -> None:
    counts = Counts(SLOTS)
    counts.add(np.array(places, np.int64))
    events = [(place, place) for place in places]
    assert counts.over(SPANS).tolist() == [len(within(events, span)) for span in ALL_SPANS]


SUMMED = [
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "DECIMAL(4,1)",
    "DECIMAL(18,6)",
    "DECIMAL(38,0)",
    "DECIMAL(38,38)",
]


@given(st.sampled_from(SUMMED), st.integers(1, 9), st.data())
@settings(max_examples=200, deadline=None)
def test_sums_and_means_are_exact(type_: str, batch: int, data: Any) -> None:
    kind = arrow_type(type_)
    scale = kind.scale if pa.types.is_decimal(kind) else 0
    limit = 10**kind.precision - 1 if pa.types.is_decimal(kind) else 2 ** (INTEGERS[type_] - 1) - 1
    number = st.integers(-limit, limit) | st.integers(-9, 9) | st.sampled_from([limit, -limit])
    digits = data.draw(st.lists(st.tuples(st.integers(0, SLOTS - 1), number), max_size=25))
    values = [(p, decimal(n, scale) if pa.types.is_decimal(kind) else n) for p, n in digits]
    totals = filed(Sums(SLOTS, type_), values, type_, batch).over(SPANS)
    sums = [sum(within(digits, span)) for span in ALL_SPANS]
    counts = np.array([len(within(digits, span)) for span in ALL_SPANS])
    low, high, fits = totals.words()
    assert fits.tolist() == [abs(total) < 10**38 for total in sums]
    got = decimals(low, high, fits, pa.decimal128(38, scale)).to_pylist()
    assert got == [decimal(total, scale) if ok else None for total, ok in zip(sums, fits, strict=True)]
    assert [totals.exact(row) for row in range(len(sums))] == sums
    for mean, total, count in zip(totals.means(counts, scale), sums, counts.tolist(), strict=True):
        assert math.isnan(mean) if not count else mean == total / (count * 10**scale)


def decimal(digits: int, scale: int) -> Decimal:
    return Decimal((int(digits < 0), tuple(int(digit) for digit in str(abs(digits))), -scale))


@pytest.mark.parametrize("edge", [10**38 - 1, 10**38, -(10**38) + 1, -(10**38), 2**127, -(2**127) - 1, 2**140, 0, -1])
def test_38_digits_fit_and_no_more(edge: int) -> None:
    # What sums of limbs can be: each but the highest below 2^32 times the number of events.
    limbs = [edge & 0xFFFFFFFF, (edge >> 32) & 0xFFFFFFFF, (edge >> 64) & 0xFFFFFFFF, edge >> 96]
    totals = Totals(tuple(np.array([limb], np.int64) for limb in limbs))
    assert totals.exact(0) == edge
    assert totals.words()[2].tolist() == [abs(edge) < 10**38]


def test_many_great_limbs_carry() -> None:
    count = 200_000
    sums = Sums(2, "BIGINT")
    sums.add(np.ones(count, np.int64), pa.array(np.full(count, 2**63 - 1)))
    sums.add(np.zeros(count, np.int64), pa.array(np.full(count, -(2**63))))
    totals = sums.over(Spans(np.array([0, -1, -1]), np.array([1, 0, 1])))
    assert [totals.exact(row) for row in range(3)] == [count * (2**63 - 1), -count * 2**63, -count]
    low, high, fits = totals.words()
    assert decimals(low, high, fits, pa.decimal128(38, 0)).to_pylist() == [totals.exact(row) for row in range(3)]


@pytest.mark.parametrize(
    ("total", "count", "scale"),
    [(2**53 + 1, 1, 0), (2**53 - 1, 3, 0), (1, 3, 15), (1, 10, 15), (1, 1, 16), (-7, 3, 38), (2**70 + 1, 2**20, 2)],
)
def test_means_round_once(total: int, count: int, scale: int) -> None:
    limbs = [total & 0xFFFFFFFF, (total >> 32) & 0xFFFFFFFF, (total >> 64) & 0xFFFFFFFF, total >> 96]
    totals = Totals(tuple(np.array([limb], np.int64) for limb in limbs))
    assert totals.means(np.array([count]), scale).tolist() == [total / (count * 10**scale)]


# -- smallest and greatest ------------------------------------------------------------------------------------------


@given(st.sampled_from(VALUE_TYPES), st.booleans(), st.integers(1, 9), st.data())
@settings(max_examples=300, deadline=None)
def test_extremes_are_the_first_or_last_in_order(type_: str, greatest: bool, batch: int, data: Any) -> None:
    pool = st.sampled_from(values_of(type_))
    events = data.draw(st.lists(st.tuples(st.integers(0, SLOTS - 1), pool), max_size=25))
    state = filed(Extremes(SLOTS, type_, greatest=greatest), events, type_, batch)
    held = [within(events, span) for span in ALL_SPANS]
    some = np.array([bool(values) for values in held])
    got = state.over(SPANS, some, arrow_type(type_))
    assert got.type == arrow_type(type_)
    pick = max if greatest else min
    expected = pa.array([pick(values, key=order) if values else None for values in held], arrow_type(type_)).to_pylist()
    assert [(a, b) for a, b in zip(got.to_pylist(), expected, strict=True) if not same(a, b)] == []


@pytest.mark.parametrize("greatest", [True, False])
def test_nan_of_any_sign_is_the_greatest(greatest: bool) -> None:
    state = Extremes(1, "DOUBLE", greatest=greatest)
    state.add(np.zeros(3, np.int64), pa.array([-math.nan, math.inf, -math.inf]))
    got = state.over(Spans(np.array([-1]), np.array([0])), np.array([True]), pa.float64()).to_pylist()
    assert repr(got) == ("[nan]" if greatest else "[-inf]")


def test_extremes_may_be_the_ends_of_their_type() -> None:
    for greatest, value in ((True, -(2**63)), (False, 2**63 - 1)):
        state = Extremes(1, "BIGINT", greatest=greatest)
        state.add(np.zeros(1, np.int64), pa.array([value]))
        assert state.over(Spans(np.array([-1]), np.array([0])), np.array([True]), pa.int64()).to_pylist() == [value]


def test_texts_are_merged_when_many_are_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.windows._PENDING", 3)
    events = [(n % 2, f"{n * 7 % 23:02}") for n in range(40)]
    state = filed(Extremes(2, "VARCHAR", greatest=False), events, "VARCHAR", 5)
    spans = Spans(np.array([-1, 0]), np.array([0, 1]))
    assert state.over(spans, np.array([True, True]), pa.string()).to_pylist() == [
        min(v for p, v in events if p == 0),
        min(v for p, v in events if p == 1),
    ]
