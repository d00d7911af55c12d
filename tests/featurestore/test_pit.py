"""The order of feature rows, from when on they are visible, and the kernel that finds winners."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.binding import BoundFeature, BoundView, Column
from featurestore.pit import (
    Winners,
    created_micros,
    event_micros,
    is_dated,
    order_terms,
    visible_from,
    visible_from_micros,
)
from featurestore.slots import Slots

TIMESTAMPTZ = "TIMESTAMP WITH TIME ZONE"
UTC = pa.timestamp("us", "UTC")
MAX = 2**63 - 1


def view(
    *,
    created: bool = True,
    delay: int = 0,
    closed_left: bool = False,
    features: tuple[str, ...] = ("BIGINT",),
    **more: Any,
) -> BoundView:
    bound = tuple(BoundFeature(f"x{place}", type_) for place, type_ in enumerate(features))
    return BoundView(
        "v", "select 1", (Column("k", "BIGINT"),), "seen at", "made" if created else None,
        more.get("tie_breaker", ()), bound, (), None, delay, closed_left, True,
    )  # fmt: skip


def table(events: list[int | None], created: list[int | None], **columns: Any) -> pa.Table:
    times = {"seen at": pa.array(events, pa.int64()).cast(UTC), "made": pa.array(created, pa.int64()).cast(UTC)}
    return pa.table({**times, **columns})


def queried(rows: pa.Table, sql: str) -> list[Any]:
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'Asia/Tokyo'")
        connection.register("rows", rows)
        return [row[0] for row in connection.sql(sql).fetchall()]


# -- in SQL ---------------------------------------------------------------------------------------------------------

NUMBERS = st.integers(-3, 3) | st.sampled_from([MAX - 1, -(2**63) + 2, 2**62])


@given(
    st.lists(st.tuples(NUMBERS, st.none() | NUMBERS | st.sampled_from([MAX, -MAX])), min_size=1, max_size=6),
    st.sampled_from([0, 1, 10**15]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_visible_from_is_the_same_in_sql_and_in_the_kernel(
    rows: list[tuple[int, int | None]], delay: int, closed_left: bool, created: bool
) -> None:
    events, made = [e for e, _ in rows], [c for _, c in rows]
    v = view(created=created, delay=delay, closed_left=closed_left)
    shift = delay + closed_left
    known = [min(e + shift, MAX) for e in events]
    seen = [max(k, e if c is None else c) for k, e, c in zip(known, events, made, strict=True)] if created else known
    data = table(events, made)
    assert queried(data, f"select {visible_from(v)} from rows s") == seen
    assert queried(data, f"select {visible_from(v, corrections='latest')} from rows s") == known
    assert queried(data, f"select {event_micros(v)} from rows s") == events
    filled = [e if c is None or not created else c for e, c in rows]
    assert queried(data, f"select {created_micros(v)} from rows s") == filled
    assert visible_from_micros(v, np.array(events), np.array(filled) if created else None).tolist() == seen
    assert visible_from_micros(v, np.array(events), None).tolist() == known


def test_rows_without_an_event_timestamp_are_not_dated() -> None:
    data = table([0, None, MAX, -MAX, 5], [0] * 5)
    assert queried(data, f"select {event_micros(view())} from rows s where {is_dated(view())}") == [0, 5]


def test_the_order_is_by_times_then_tie_breakers_then_features() -> None:
    v = view(features=("BIGINT", "VARCHAR"), tie_breaker=(Column("tie", "INTEGER"),))
    rows = [  # each wins over all before it
        (1, 9, 9, 9, "z"), (2, None, 9, 9, "z"), (2, 3, None, 9, "z"), (2, 3, 1, None, "z"), (2, 3, 1, 4, None),
        (2, 3, 1, 4, ""), (2, 3, 1, 4, "B"), (2, 3, 1, 4, "a"), (2, 3, 1, 4, "\uffff"), (2, 3, 1, 4, "😀"),
        (2, 3, 1, 5, None), (3, None, None, None, None), (3, 4, None, None, None),
    ]  # fmt: skip
    events, made, ties, numbers, texts = (list(column) for column in zip(*rows, strict=True))
    data = table(
        events,
        made,
        place=list(range(len(rows))),
        tie=pa.array(ties, pa.int32()),
        x0=pa.array(numbers),
        x1=pa.array(texts),
    )
    shuffled = data.take(np.random.default_rng(5).permutation(len(rows)))
    order = queried(shuffled, f"select place from rows s order by {', '.join(order_terms(v))}")
    assert order == list(range(len(rows)))[::-1]


@pytest.mark.parametrize("type_", ["DOUBLE", "FLOAT"])
def test_nan_is_one_and_the_greatest_and_minus_zero_is_below_zero(type_: str) -> None:
    v = view(created=False, features=(type_, "BIGINT"))
    values = [None, float("-inf"), -1.0, -0.0, 0.0, 5e-45, float("inf")]
    arrow = pa.float64() if type_ == "DOUBLE" else pa.float32()
    negative_nan = float(np.copysign(np.nan, -1))
    # Among NaN of any sign the next feature decides.
    numbers = [*values, negative_nan, float("nan"), negative_nan]
    data = table([0] * 10, [0] * 10, x0=pa.array(numbers, arrow), x1=list(range(10)))
    terms = ", ".join(order_terms(v, times=False))
    assert queried(data.slice(0).take([3, 9, 1, 8, 0, 7, 6, 5, 4, 2]), f"select x1 from rows s order by {terms}") == [
        9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
    ]  # fmt: skip


# -- the kernel -----------------------------------------------------------------------------------------------------

ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=30)
ASKED = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10)), max_size=12)


@given(ROWS, ASKED, st.booleans(), st.integers(1, 5), st.sampled_from([1, 2**58]))
@settings(max_examples=200, deadline=None)
def test_winners_are_the_greatest_visible_rows_however_they_come(
    rows: list[tuple[int, int, int, int]], asked: list[tuple[int, int]], has_created: bool, batch: int, apart: int
) -> None:
    slots = Slots(np.array([c for c, _ in asked], np.int64), np.array([t * apart for _, t in asked], np.int64))
    winners = Winners(slots)
    for start in range(0, len(rows), batch):
        code, visible, event, created = np.array(rows[start : start + batch], np.int64).T
        winners.add(code, visible * apart, event, created if has_created else None)
    won = winners.at_slots().take(slots.of)
    for place, (code, t) in enumerate(asked):
        times = [(e, c if has_created else 0) for k, v, e, c in rows if k == code and v <= t]
        assert won.found[place] == bool(times)
        if times:
            assert won.event[place] == max(times)[0]
            if has_created:
                assert won.created[place] == max(times)[1]


def test_rows_that_tie_in_both_times_are_counted() -> None:
    slots = Slots(np.zeros(3, np.int64), np.array([5, 9, 5]))
    winners = Winners(slots)
    for visible, event, created in (
        (1, 1, 1),
        (2, 2, 3),
        (2, 2, 4),
        (2, 2, 4),
        (6, 2, 3),
        (8, 3, 0),
        (8, 3, 0),
        (8, 3, 0),
    ):
        winners.add(*(np.array([value]) for value in (0, visible, event, created)))
    won = winners.at_slots().take(slots.of)
    assert won.rows.tolist() == [2, 3, 2]
    assert won.filed.tolist() == [0, 1, 0]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-(2**63), MAX)), max_size=10),
    st.lists(st.tuples(st.integers(0, 3), st.integers(-(2**63), MAX)), max_size=10),
)
@settings(max_examples=200, deadline=None)
def test_slots_are_found_wherever_in_time_they_lie(
    given_: list[tuple[int, int]], sought: list[tuple[int, int]]
) -> None:
    slots = Slots(np.array([c for c, _ in given_], np.int64), np.array([t for _, t in given_], np.int64))
    distinct = sorted(set(given_))
    assert list(zip(slots.codes.tolist(), slots.instants.tolist(), strict=True)) == distinct
    assert [distinct[place] for place in slots.of] == given_
    sought = [*sought, *given_, *((code, min(t + 1, MAX)) for code, t in given_)]
    sought = [pair for pair in sought if not distinct or pair[0] <= distinct[-1][0] + 1]
    codes, instants = np.array([c for c, _ in sought], np.int64), np.array([t for _, t in sought], np.int64)
    expected = [next((n for n, (c, t) in enumerate(distinct) if c == code and t >= at), -1) for code, at in sought]
    assert slots.find(codes, instants).tolist() == expected
