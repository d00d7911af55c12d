"""The oracle itself, against answers written by hand: every row of the table of rules, with literal numbers.

Times are small integers, µs since 1970 UTC, except where a calendar matters.
"""

from __future__ import annotations

import datetime as dt
import math
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

sys.path.append(str(Path(__file__).parent))  # the oracle lies beside the tests

import oracle
from oracle import EXPIRED, INFINITE, NOT_FOUND, NULL, PRESENT, Cell, answers, same

from featurestore.binding import BoundFeature, BoundView, Column, Windowed

NAN, INF = float("nan"), float("inf")
HOUR, DAY = 3_600_000_000, 86_400_000_000


def view_of(
    *features: str | tuple[str, str, str | None, int, int | None],
    keys: str = "k",
    types: dict[str, str] | None = None,
    **options: Any,
) -> BoundView:
    """A bound view; its features are columns, or (name, function, column, window, hop)."""
    types = types or {}
    bound, inputs = [], {}
    for feature in features:
        column = feature if isinstance(feature, str) else feature[2]
        if column is not None:
            inputs[column] = Column(column, types.get(column, "BIGINT"))
        if isinstance(feature, str):
            bound.append(BoundFeature(feature, types.get(feature, "BIGINT")))
        else:
            name, function, _, window, hop = feature
            bound.append(BoundFeature(name, "BIGINT", Windowed(function, column, window, hop)))
    defaults = {"created_timestamp": None, "tie_breaker": (), "ttl": None, "delay": 0, "closed_left": False}
    return BoundView(
        name="facts",
        source="select * from facts",
        keys=tuple(Column(key, "VARCHAR") for key in keys.split()),
        event_timestamp="e",
        features=tuple(bound),
        inputs=tuple(inputs.values()),
        online=True,
        **{**defaults, **options},
    )


def rows(columns: str, *values: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dict(zip(columns.split(), row, strict=True)) for row in values]


def ask(view: BoundView, history: list[dict[str, Any]], *instants: int | None, key: Any = "a", **how: Any) -> list[Any]:
    """The answers about one key at some instants: a tuple (value, status) where one feature is asked, else a list."""
    spine = [((key,) if view.keys else (), t) for t in instants]
    got = [[tuple(cell) for cell in row] for row in answers(view, history, spine, **how)]
    return [row[0] if len(row) == 1 else row for row in got]


# -- the instant ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delay", "closed_left", "first_instant"),
    [(0, False, 100), (0, True, 101), (7, False, 107), (7, True, 108)],
)
def test_a_row_counts_from_the_delay_after_its_event_on(delay, closed_left, first_instant):
    view = view_of("v", delay=delay, closed_left=closed_left)
    history = rows("k e v", ("a", 100, 1))
    assert ask(view, history, first_instant - 1, first_instant) == [(None, NOT_FOUND), (1, PRESENT)]


def test_created_timestamps_compare_with_the_instant_itself_not_with_the_delayed_one():
    view = view_of("v", delay=50, created_timestamp="c")
    history = rows("k e c v", ("a", 100, 150, 1), ("b", 100, 151, 1))
    assert ask(view, history, 149, 150) == [(None, NOT_FOUND), (1, PRESENT)]
    assert ask(view, history, 150, 151, key="b") == [(None, NOT_FOUND), (1, PRESENT)]


# -- which row ------------------------------------------------------------------------------------------------------


def test_the_greatest_event_timestamp_wins():
    history = rows("k e v", ("a", 10, 1), ("a", 30, 3), ("a", 20, 2), ("b", 25, 9))
    assert ask(view_of("v"), history, 9, 10, 19, 20, 29, 30, 999) == [
        (None, NOT_FOUND),
        (1, PRESENT),
        (1, PRESENT),
        (2, PRESENT),
        (2, PRESENT),
        (3, PRESENT),
        (3, PRESENT),
    ]


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize(
    ("why", "loser", "winner"),
    [
        # e, c, tie, v
        ("event timestamp", (10, 99, 9, 9), (11, 12, 0, 0)),
        ("then created timestamp", (10, 12, 9, 9), (10, 13, 0, 0)),
        ("created null is the event timestamp", (10, None, 9, 9), (10, 11, 0, 0)),
        ("created null against an earlier one", (10, 9, 9, 9), (10, None, 0, 0)),
        ("then tie breakers", (10, 12, 3, 9), (10, 12, 4, 0)),
        ("a null tie breaker is lowest", (10, 12, None, 9), (10, 12, -4, 0)),
        ("then features", (10, 12, 3, 8), (10, 12, 3, 9)),
        ("a null feature is lowest", (10, 12, 3, None), (10, 12, 3, -1)),
    ],
)
def test_ties_are_decided_by_values_in_order(why, loser, winner, turn):
    view = view_of("v", created_timestamp="c", tie_breaker=(Column("tie", "BIGINT"),))
    history = rows("k e c tie v", ("a", *loser), ("a", *winner))[::turn]
    assert ask(view, history, 100) == [(winner[-1], PRESENT)]


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        (None, -INF),
        (-INF, -1.5),
        (-0.0, 0.0),
        (0.0, 5e-324),
        (INF, NAN),
        (None, NAN),
        (None, False),
        (False, True),
        (None, ""),
        ("", "a"),
        ("Z", "a"),
        ("a", "a\0"),
        ("z", "é"),
        ("\uffff", "\U0001f600"),  # by UTF-8; UTF-16 has it the other way round
        (b"", b"\0"),
        (b"\x7f", b"\x80"),
        (2**53, 2**53 + 1),
        (-(2**63), 2**63 - 1),
        (Decimal("9" * 37 + "8"), Decimal("9" * 38)),
        (dt.date(1, 1, 1), dt.date(9999, 12, 31)),
        (dt.datetime(1969, 12, 31, 23, 59, 59, 999999), dt.datetime(1970, 1, 1)),  # noqa: DTZ001
    ],
)
def test_the_order_of_values(lower, higher, turn):
    history = rows("k e v", ("a", 10, lower), ("a", 10, higher))[::turn]
    ((value, _),) = ask(view_of("v"), history, 10)
    assert same(value, higher)
    least, most = ("least", "min", "v", 100, None), ("most", "max", "v", 100, None)
    ((low, high),) = ask(view_of(least, most), history, 10)
    assert same(low[0], higher if lower is None else lower)
    assert same(high[0], higher)


def test_all_features_decide_whatever_is_asked():
    view = view_of("v", "w")
    history = rows("k e v w", ("a", 10, 1, 9), ("a", 10, 2, 1))
    assert ask(view, history, 10, features=["w"]) == [(1, PRESENT)]
    assert ask(view, history, 10, features=["w", "v"]) == [[(1, PRESENT), (2, PRESENT)]]


# -- knowledge time -------------------------------------------------------------------------------------------------


def test_corrections_are_seen_from_their_creation_on():
    view = view_of("v", created_timestamp="c")
    history = rows("k e c v", ("a", 10, None, 1), ("a", 10, 50, 2), ("a", 20, 40, 3), ("a", 30, 5, 4))
    #  t      10: the first    20, 39: 3 is not written yet   40: 3 is     29/30: 4 was written before it happened
    assert ask(view, history[:3], 10, 20, 39, 40, 50, 60) == [
        (1, PRESENT),
        (1, PRESENT),
        (1, PRESENT),
        (3, PRESENT),
        (3, PRESENT),
        (3, PRESENT),
    ]
    assert ask(view, history[:2], 49, 50) == [(1, PRESENT), (2, PRESENT)]
    assert ask(view, history, 29, 30) == [(1, PRESENT), (4, PRESENT)]


def test_corrections_latest_asks_for_what_was_written_later():
    view = view_of("v", created_timestamp="c")
    history = rows("k e c v", ("a", 10, None, 1), ("a", 10, 50, 2), ("a", 20, 40, 3), ("b", 10, INFINITE, 5))
    assert ask(view, history, 9, 10, 20, corrections="latest") == [(None, NOT_FOUND), (2, PRESENT), (3, PRESENT)]
    assert ask(view, history, 99, key="b") == [(None, NOT_FOUND)]
    assert ask(view, history, 10, key="b", corrections="latest") == [(5, PRESENT)]


# -- TTL ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delay", "last"), [(0, 110), (7, 117)])
def test_a_value_lives_for_its_ttl_and_not_one_microsecond_longer(delay, last):
    view = view_of("v", "w", ttl=10, delay=delay)
    history = rows("k e v w", ("a", 100, 1, None))
    assert ask(view, history, last, last + 1) == [
        [(1, PRESENT), (None, NULL)],
        [(None, EXPIRED), (None, EXPIRED)],
    ]


def test_without_a_ttl_nothing_expires():
    assert ask(view_of("v"), rows("k e v", ("a", -(10**15), 1)), 10**15) == [(1, PRESENT)]


def test_an_expired_row_is_the_winner_and_not_replaced_by_an_older_one():
    view = view_of("v", ttl=10, created_timestamp="c")
    history = rows("k e c v", ("a", 95, None, 1), ("a", 100, 108, 2))
    assert ask(view, history, 105, 107, 110, 111) == [(1, PRESENT), (None, EXPIRED), (2, PRESENT), (None, EXPIRED)]


# -- nulls ----------------------------------------------------------------------------------------------------------


def test_a_null_feature_is_a_value():
    history = rows("k e v", ("a", 10, 1), ("a", 20, None))
    assert ask(view_of("v"), history, 10, 20) == [(1, PRESENT), (None, NULL)]


def test_a_null_key_matches_nothing_on_either_side():
    history = rows("k e v", (None, 10, 1), ("a", 10, 2))
    assert ask(view_of("v"), history, 10, key=None) == [(None, NOT_FOUND)]
    composite = view_of("v", keys="k l")
    history = rows("k l e v", ("a", None, 10, 1), (None, None, 10, 2))
    spine = [(("a", None), 10), ((None, None), 10), ((None, "a"), 10)]
    assert answers(composite, history, spine) == [[Cell(None, NOT_FOUND)]] * 3


def test_rows_without_a_time_are_excluded_and_counted():
    history = rows("k e v", ("a", None, 1), ("a", INFINITE, 2), ("a", -INFINITE, 3), (None, None, 4), ("a", 5, 6))
    assert ask(view_of("v"), history, 10) == [(6, PRESENT)]
    assert ask(view_of("v"), history[:4], 10) == [(None, NOT_FOUND)]
    assert ask(view_of(("n", "count", None, 100, None)), history, 10) == [(1, PRESENT)]
    assert oracle.excluded(view_of("v"), history) == 4


def test_the_last_finite_instant_is_one():
    assert ask(view_of("v"), rows("k e v", ("a", INFINITE - 1, 1)), INFINITE - 2, INFINITE - 1) == [
        (None, NOT_FOUND),
        (1, PRESENT),
    ]


def test_a_null_instant_finds_nothing():
    history = rows("k e v", ("a", 10, 1))
    assert ask(view_of("v", "v"), history, None) == [[(None, NOT_FOUND)] * 2]
    counted = view_of(("n", "count", None, 100, None), ("s", "sum", "v", 100, None))
    assert ask(counted, history, None) == [[(0, NOT_FOUND), (None, NOT_FOUND)]]


# -- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        NAN, -0.0, 0.0, INF, -INF, 2**53 + 1, 2**63 - 1, -(2**63), Decimal("9" * 38), Decimal("0." + "9" * 38), "", "a\0",
        b"", b"\0", True, dt.date(9999, 12, 31),
    ],
    ids=repr,
)  # fmt: skip
def test_values_come_back_as_they_are(value):
    ((got, status),) = ask(view_of("v"), rows("k e v", ("a", 10, value)), 10)
    assert status == PRESENT
    assert same(got, value)


# -- keys -----------------------------------------------------------------------------------------------------------


def test_composite_keys_are_never_confused():
    view = view_of("v", keys="k l")
    history = rows("k l e v", ("a", "bc", 10, 1), ("ab", "c", 10, 2), ("abc", "", 10, 3), ("", "abc", 10, 4))
    spine = [(("ab", "c"), 10), (("a", "bc"), 10), (("", "abc"), 10), (("abc", ""), 10), (("a", "b"), 10)]
    assert [row[0].value for row in answers(view, history, spine)] == [2, 1, 4, 3, None]


def test_keys_are_compared_exactly():
    history = rows("k e v", (2**53, 10, 1), (2**53 + 1, 10, 2), ("A", 10, 3), ("a", 10, 4), ("a ", 10, 5))
    for key, value in [(2**53, 1), (2**53 + 1, 2), ("A", 3), ("a", 4), ("a ", 5)]:
        assert ask(view_of("v"), history, 10, key=key) == [(value, PRESENT)]


def test_without_keys_there_is_one_row_for_everybody():
    view = view_of("v", keys="")
    assert ask(view, rows("e v", (10, 1), (20, 2)), 5, 10, 20) == [(None, NOT_FOUND), (1, PRESENT), (2, PRESENT)]
    counted = view_of(("n", "count", None, 15, None), keys="")
    assert ask(counted, rows("e v", (10, 1), (20, 2)), 20, 25, 35) == [(2, PRESENT), (1, PRESENT), (0, NOT_FOUND)]


# -- the spine ------------------------------------------------------------------------------------------------------


def test_every_spine_row_comes_back_in_its_order_duplicates_too():
    history = rows("k e v", ("a", 10, 1), ("b", 10, 2))
    spine = [(("b",), 10), (("a",), 10), (("b",), 10), (("b",), 10), (("c",), 10), (("a",), 9)]
    assert [row[0].value for row in answers(view_of("v"), history, spine)] == [2, 1, 2, 2, None, None]
    assert answers(view_of("v"), history, []) == []
    assert answers(view_of("v"), [], spine[:1]) == [[Cell(None, NOT_FOUND)]]


# -- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("closed_left", "delay", "hop", "t", "counted"),
    [
        # Events at 0, 10, 20, …, 100; a window of 30.
        # hop none: (t' - 30, t']
        (False, 0, None, 70, [50, 60, 70]),
        (False, 0, None, 69, [40, 50, 60]),
        (False, 0, None, 71, [50, 60, 70]),
        (False, 0, None, 79, [50, 60, 70]),
        # [t' - 30, t')
        (True, 0, None, 70, [40, 50, 60]),
        (True, 0, None, 71, [50, 60, 70]),
        (True, 0, None, 69, [40, 50, 60]),
        # hop 15: the start is rounded down: (45, 79], (30, 70], (30, 74], (45, 75]
        (False, 0, 15, 79, [50, 60, 70]),
        (False, 0, 15, 70, [40, 50, 60, 70]),
        (False, 0, 15, 74, [40, 50, 60, 70]),
        (False, 0, 15, 75, [50, 60, 70]),
        # [30, 70), [30, 71), [45, 75)
        (True, 0, 15, 70, [30, 40, 50, 60]),
        (True, 0, 15, 71, [30, 40, 50, 60, 70]),
        (True, 0, 15, 75, [50, 60, 70]),
        # the delay moves the window, and then its start is rounded: (30, 70], (45, 75]
        (False, 5, 15, 75, [40, 50, 60, 70]),
        (False, 5, 15, 80, [50, 60, 70]),
        # an event exactly on the start, and one microsecond beside it: (60, 90], (30, 89]
        (False, 0, 30, 90, [70, 80, 90]),
        (True, 0, 30, 90, [60, 70, 80]),
        (False, 0, 30, 89, [40, 50, 60, 70, 80]),
        (True, 0, 30, 91, [60, 70, 80, 90]),
        # before and after everything
        (False, 0, 30, -1, []),
        (False, 0, 30, 0, [0]),
        (True, 0, 30, 0, []),
        (False, 0, None, 129, [100]),
        (False, 0, None, 130, []),
        (True, 0, None, 130, [100]),
        (True, 0, None, 131, []),
    ],
)  # fmt: skip
def test_the_events_of_a_window(closed_left, delay, hop, t, counted):
    view = view_of(
        ("n", "count", None, 30, hop), ("low", "min", "v", 30, hop), ("high", "max", "v", 30, hop),
        closed_left=closed_left, delay=delay,
    )  # fmt: skip
    history = rows("k e v", *(("a", e, e) for e in range(0, 101, 10)))
    ((number, low, high),) = ask(view, history, t)
    if counted:
        assert (number, low, high) == ((len(counted), PRESENT), (counted[0], PRESENT), (counted[-1], PRESENT))
    else:
        assert (number, low, high) == ((0, NOT_FOUND), (None, NOT_FOUND), (None, NOT_FOUND))


def test_starts_before_1970_are_rounded_down_too():
    assert oracle.window_start(-1, 30, 30) == -60
    assert oracle.window_start(0, 30, 30) == -30
    assert oracle.window_start(29, 30, 30) == -30
    assert oracle.window_start(-31, 30, None) == -61


@pytest.mark.parametrize(
    ("window", "hop", "t", "start"),
    [
        (HOUR, 300_000_000, "2020-03-08T07:03:00", "2020-03-08T06:00:00"),
        (HOUR, 300_000_000, "2020-03-08T07:05:00", "2020-03-08T06:05:00"),
        (DAY, HOUR, "2020-03-09T03:59:59.999999", "2020-03-08T03:00:00"),
        (30 * DAY, DAY, "2020-03-31T23:00:00", "2020-03-01T00:00:00"),
    ],
)
def test_hops_are_counted_in_utc_whatever_clocks_do(window, hop, t, start):
    instant, expected = (
        oracle.micros_of(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)) for text in (t, start)
    )
    assert oracle.window_start(instant or 0, window, hop) == expected


def test_an_hour_that_comes_twice_has_two_hours_of_events():
    new_york = ZoneInfo("America/New_York")
    first = dt.datetime(2020, 11, 1, 1, 30, tzinfo=new_york)
    second = first.replace(fold=1)
    history = rows("k e v", ("a", first, 1), ("a", second, 2))
    view = view_of(("n", "count", None, HOUR, None))
    at_second = oracle.micros_of(second.astimezone(dt.UTC))
    assert at_second == 1_604_212_200_000_000
    assert ask(view, history, at_second - HOUR, at_second - 1, at_second) == [(1, PRESENT), (1, PRESENT), (1, PRESENT)]
    assert ask(view_of(("n", "count", None, HOUR + 1, None)), history, at_second) == [(2, PRESENT)]


# -- aggregates -----------------------------------------------------------------------------------------------------


def of_window(function: str, type_: str, *values: Any, column: str | None = "v") -> tuple[Any, str]:
    view = view_of(("f", function, column, 100, None), types={"v": type_})
    ((cell),) = ask(view, rows("k e v", *(("a", 10, value) for value in values)), 10)
    return cell


@pytest.mark.parametrize(
    ("function", "type_", "values", "expected"),
    [
        ("count", "BIGINT", [1, None, 1], (2, PRESENT)),
        ("count", "BIGINT", [None], (0, PRESENT)),
        ("sum", "BIGINT", [2**63 - 1, 2**63 - 1, None], (Decimal(2**64 - 2), PRESENT)),
        ("sum", "TINYINT", [-128, 127], (Decimal(-1), PRESENT)),
        ("sum", "DECIMAL(9,2)", [Decimal("0.10"), Decimal("0.20")], (Decimal("0.30"), PRESENT)),
        ("sum", "DECIMAL(9,2)", [Decimal("0.10"), Decimal("-0.10")], (Decimal("0.00"), PRESENT)),
        ("sum", "DECIMAL(38,38)", [Decimal("0." + "9" * 38)], (Decimal("0." + "9" * 38), PRESENT)),
        ("sum", "BIGINT", [None, None], (None, NULL)),
        ("mean", "BIGINT", [1, 2], (1.5, PRESENT)),
        ("mean", "BIGINT", [2**53, 2**53 + 1], (9007199254740992.0, PRESENT)),  # half way: to the even one
        ("mean", "BIGINT", [2**53 + 2, 2**53 + 4, 2**53 + 3], (9007199254740996.0, PRESENT)),
        ("mean", "DECIMAL(9,2)", [Decimal("0.10"), Decimal("0.20")], (0.15, PRESENT)),
        ("mean", "DECIMAL(4,1)", [Decimal("0.1")] * 3, (0.1, PRESENT)),
        ("mean", "DECIMAL(9,2)", [Decimal("0.01"), Decimal("-0.01")], (0.0, PRESENT)),
        ("mean", "BIGINT", [None], (None, NULL)),
        ("mean", "DECIMAL(38,0)", [Decimal("9" * 38)] * 7, (1e38, PRESENT)),  # too long for a sum, not for a mean
        ("min", "DOUBLE", [None, 2.0, NAN], (2.0, PRESENT)),
        ("max", "DOUBLE", [None, 0.0, -0.0], (0.0, PRESENT)),
        ("min", "DOUBLE", [None, 0.0, -0.0], (-0.0, PRESENT)),
        ("min", "VARCHAR", ["b", "a\0", None], ("a\0", PRESENT)),
        ("max", "BOOLEAN", [False, True, None], (True, PRESENT)),
        ("min", "DATE", [None], (None, NULL)),
    ],
)
def test_aggregates_of_a_window(function, type_, values, expected):
    got = of_window(function, type_, *values)
    assert same(got[0], expected[0])
    assert got[1] == expected[1]


def test_a_mean_is_rounded_once():
    cent, nothing = Decimal("0.01"), Decimal("0.00")
    # Dividing by 3 first and by 100 then, it would be 0.003333333333333333.
    assert of_window("mean", "DECIMAL(9,2)", cent, nothing, nothing) == (0.0033333333333333335, PRESENT)
    # Through a sum of doubles it would be 4503599627370496.
    assert of_window("mean", "BIGINT", 2**53 + 1, 1) == (4503599627370497.0, PRESENT)


def test_a_count_of_events_counts_nulls_and_repeats():
    assert of_window("count", "BIGINT", None, 1, 1, column=None) == (3, PRESENT)


def test_a_sum_of_more_than_38_digits_is_an_error():
    nines = Decimal("9" * 38)
    assert of_window("sum", "DECIMAL(38,0)", nines) == (nines, PRESENT)
    assert of_window("sum", "DECIMAL(38,0)", nines, Decimal(1), Decimal(-1)) == (nines, PRESENT)
    with pytest.raises(oracle.SumOverflow):
        of_window("sum", "DECIMAL(38,0)", nines, Decimal(1))
    with pytest.raises(oracle.SumOverflow):
        of_window("sum", "DECIMAL(38,38)", Decimal("-0." + "9" * 38), Decimal("-0." + "0" * 37 + "1"))


def test_statuses_of_aggregates_follow_all_windows_of_the_view():
    view = view_of(
        ("short", "count", None, 10, None), ("short_sum", "sum", "v", 10, None), ("long_sum", "sum", "v", 100, None),
        ("long", "count", "v", 100, None),
    )  # fmt: skip
    history = rows("k e v", ("a", 50, None), ("a", 40, 7))
    # Something in both; only in the long ones; only the null in them; in none.
    assert ask(view, history, 50, 130, 145, 150) == [
        [(1, PRESENT), (None, NULL), (Decimal(7), PRESENT), (1, PRESENT)],
        [(0, PRESENT), (None, NULL), (Decimal(7), PRESENT), (1, PRESENT)],
        [(0, PRESENT), (None, NULL), (None, NULL), (0, PRESENT)],
        [(0, NOT_FOUND), (None, NOT_FOUND), (None, NOT_FOUND), (0, NOT_FOUND)],
    ]
    assert ask(view, history, 130, features=["short", "short_sum"]) == [[(0, PRESENT), (None, NULL)]]
    for key in ("unknown", None):
        assert ask(view, history, 50, key=key, features=["short", "long_sum"]) == [[(0, NOT_FOUND), (None, NOT_FOUND)]]


# -- comparing and reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (NAN, NAN, True),
        (NAN, -NAN, True),
        (NAN, None, False),
        (None, None, True),
        (0, None, False),
        (-0.0, 0.0, False),
        (-0.0, -0.0, True),
        (1, 1.0, False),
        (1, True, False),
        (1, Decimal(1), False),
        (Decimal("1.0"), Decimal("1.00"), False),
        (2**53 + 1, float(2**53 + 1), False),
        ("a", b"a", False),
        ("é", "e\u0301", False),
        (dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC), False),  # noqa: DTZ001
        (dt.datetime(2020, 1, 1, 1, tzinfo=ZoneInfo("UTC")), dt.datetime(2020, 1, 1, 1, tzinfo=dt.UTC), True),
        (dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), False),  # noqa: DTZ001
    ],
)
def test_same_is_equality_to_the_last_bit(a, b, expected):
    assert same(a, b) is expected
    assert same(b, a) is expected


def test_differences_say_where_and_what():
    spine = [(("a",), 1), (("b",), 2)]
    expected = [[Cell(1, PRESENT), Cell(NAN, PRESENT)], [Cell(None, NULL), Cell(-0.0, PRESENT)]]
    got = [[Cell(1, PRESENT), Cell(NAN, PRESENT)], [Cell(None, EXPIRED), Cell(0.0, PRESENT)]]
    assert oracle.differences(expected, expected, spine) == []
    assert oracle.differences(expected, got, spine) == [
        "row 1 (('b',), 2), feature 0: (None, 'EXPIRED') instead of (None, 'NULL')",
        "row 1 (('b',), 2), feature 1: (0.0, 'PRESENT') instead of (-0.0, 'PRESENT')",
    ]
    assert oracle.differences(expected, got[:1], spine) == ["1 rows instead of 2"]
    assert oracle.differences([[]], [[Cell(1, NULL)]], spine[:1]) == ["row 0 (('a',), 1): 1 features instead of 0"]


def test_rows_are_read_from_arrow():
    times = pa.array([1, None, INFINITE, -INFINITE], pa.int64()).cast(pa.timestamp("us", "UTC"))
    table = pa.table({"k": ["a", None, "", "b"], "e": times})
    assert [oracle.micros_of(row["e"]) for row in oracle.rows_of(table)] == [1, None, INFINITE, -INFINITE]
    assert [row["k"] for row in oracle.rows_of(table.slice(0, 1), table.slice(1))] == ["a", None, "", "b"]
    assert oracle.rows_of(pa.table({"k": pa.array([], pa.string())})) == []
    spine = oracle.spine_of(table.slice(0, 2), ["k"], "e")
    assert spine == [(("a",), 1), ((None,), None)]


def test_answers_are_read_from_columns_and_codes():
    columns = [pa.array([1, None]), pa.array([0.5, math.nan])]
    codes = [np.array([0, 1], np.uint8), np.array([0, 3], np.uint8)]
    (first, second) = oracle.cells_of(columns, codes)
    assert first == [(1, PRESENT), (0.5, PRESENT)]
    assert second[0] == (None, NULL)
    assert same(second[1].value, NAN)
    assert second[1].status == NOT_FOUND
