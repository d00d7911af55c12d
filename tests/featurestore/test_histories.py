"""The generated cases: they hold what goes wrong, and the oracle keeps its own laws on them."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

from hypothesis import Phase, given, seed, settings

sys.path.append(str(Path(__file__).parent))  # the oracle lies beside the tests

import oracle
from feature_lake import FACTS, case_lake
from oracle import INFINITE, answers, same

from featurestore.binding import BoundView
from featurestore.testing.histories import Case, aggregate_cases, cases, feature_cases
from featurestore.testing.values import CONFUSABLE, KEY_TYPES, VALUE_TYPES

NAN, DAY = float("nan"), 86_400_000_000


@settings(max_examples=60, deadline=None)
@given(cases())
def test_generated_cases_have_an_answer_that_does_not_depend_on_the_order_of_rows(case: Case):
    view = case.bound()
    history = oracle.rows_of(*case.batches)
    spine = oracle.spine_of(case.spine, case.spine_keys, case.timestamp)
    how = {"features": case.asked, "corrections": case.corrections}
    expected = answers(view, history, spine, **how)
    assert oracle.differences(expected, answers(view, history[::-1], spine, **how), spine) == []
    assert [len(row) for row in expected] == [len(case.asked)] * case.spine.num_rows
    assert case.spine["row"].to_pylist() == list(range(case.spine.num_rows))
    assert case.history.num_rows == len(history) <= 14


@settings(max_examples=60, deadline=None)
@given(cases())
def test_what_happens_or_is_written_later_changes_no_answer(case: Case):
    view = case.bound()
    history = [row for row in oracle.rows_of(*case.batches) if not oracle.is_excluded(view, row)]
    for key, t in oracle.spine_of(case.spine, case.spine_keys, case.timestamp):
        if t is not None:
            known = [row for row in history if _seen_from(view, row) <= t]
            before, after = answers(view, known, [(key, t)]), answers(view, history, [(key, t)])
            assert oracle.differences(before, after, [(key, t)]) == []


def _seen_from(view: BoundView, row: Any) -> int:
    happened = oracle.event(view, row) + view.delay + view.closed_left
    return max(happened, oracle.created(view, row)) if view.created_timestamp else happened


WANTED = {
    "status PRESENT", "status NULL", "status EXPIRED", "status NOT_FOUND",
    "tie of events", "tie of events and creations", "tie that a feature decides", "two equal rows",
    "hidden by creation", "correction asked for", "created before it happened",
    "age is the TTL", "age is 1 µs more than the TTL", "event at the effective instant",
    "event on a window's start", "event 1 µs before a window's start", "event 1 µs after a window's start",
    "start on the way between hops", "start on a hop", "event older than all windows", "null in a window",
    "no key", "composite key", "confusable keys", "key of 600 characters", "null key", "unknown key",
    "null event timestamp", "infinite event timestamp", "null instant", "instant before 1970",
    "several files", "empty file", "no rows", "no spine", "spine row twice", "role", "part of the features",
    "closed left", "delay", "day of a clock change in New York", "NaN", "−0.0", "2^53 + 1", "38 digits",
    *(f"feature of type {type_}" for type_ in VALUE_TYPES),
    *(f"key of type {type_}" for type_ in KEY_TYPES),
}  # fmt: skip


def test_generated_cases_meet_what_goes_wrong():
    seen: set[str] = set()

    @settings(max_examples=100, deadline=None, database=None, phases=[Phase.generate])
    @given(feature_cases() | aggregate_cases(online=True))
    def collect(case: Case) -> None:
        seen.update(_kinds(case))

    for number in range(40):
        if not seen >= WANTED:
            seed(number)(collect)()
    assert WANTED - seen == set()


def _kinds(case: Case) -> set[str]:
    """Name what a case holds."""
    view, history = case.bound(), oracle.rows_of(*case.batches)
    spine = oracle.spine_of(case.spine, case.spine_keys, case.timestamp)
    cells = answers(view, history, spine, features=case.asked, corrections=case.corrections)
    keys = [tuple(row[column.name] for column in view.keys) for row in history]
    values = [value for row in history for value in row.values()]
    events = [oracle.micros_of(row["event_at"]) for row in history]
    instants = [t for _, t in spine if t is not None]
    days = {dt.date(1970, 1, 1) + dt.timedelta(days=t // DAY) for t in instants if abs(t) < 10**5 * DAY}
    kinds = {f"status {cell.status}" for row in cells for cell in row}
    kinds |= {f"feature of type {column.type}" for column in view.inputs}
    kinds |= {f"key of type {column.type}" for column in view.keys}
    told = {
        "no key": not view.keys,
        "composite key": len(view.keys) > 1,
        "confusable keys": any(set(pair) < {key[:2] for key in keys} for pair in combinations(CONFUSABLE, 2)),
        "key of 600 characters": any(part == "x" * 600 for key in keys for part in key),
        "null key": any(None in key for key, _ in spine) and any(None in key for key in keys),
        "unknown key": any(None not in key and key not in keys for key, _ in spine),
        "null event timestamp": None in events,
        "infinite event timestamp": INFINITE in events and -INFINITE in events,
        "null instant": any(t is None for _, t in spine),
        "instant before 1970": any(t < 0 for t in instants),
        "several files": len(case.batches) > 1,
        "empty file": len(case.batches) > 1 and any(not batch.num_rows for batch in case.batches),
        "no rows": not history,
        "no spine": not spine,
        "spine row twice": len(set(spine)) < len(spine),
        "two equal rows": len({repr(row) for row in history}) < len(history),
        "role": case.projection.prefix is not None and case.spine_keys != tuple(case.view.join_keys),
        "part of the features": len(case.asked) < len(view.features),
        "closed left": view.closed_left,
        "delay": view.delay > 0,
        "day of a clock change in New York": bool(days & {dt.date(2020, 3, 8), dt.date(2020, 11, 1)}),
        "NaN": any(same(value, NAN) for value in values),
        "−0.0": any(same(value, -0.0) for value in values),
        "2^53 + 1": any(same(value, 2**53 + 1) for value in values),
        "38 digits": any(isinstance(value, Decimal) and len(value.as_tuple().digits) == 38 for value in values),
    }
    kinds |= {name for name, holds in told.items() if holds}
    for asked in spine:
        if asked[1] is not None:
            kinds |= _window_kinds(view, history, asked) if view.is_aggregate else _row_kinds(view, history, asked)
    return kinds


def _row_kinds(view: BoundView, history: list[Any], asked: Any) -> set[str]:
    """Name what a spine row meets in a view whose rows are feature values."""
    known, latest = (oracle.visible(view, history, asked, mode) for mode in ("known", "latest"))
    if not known:
        return set()
    ranks = sorted(oracle.rank(view, row) for row in known)
    last, ties = ranks[-1], len(view.tie_breaker)
    age = asked[1] - view.delay - last[0]
    told = {
        "tie of events": any(rank[0] == last[0] for rank in ranks[:-1]),
        "tie of events and creations": any(rank[:2] == last[:2] for rank in ranks[:-1]),
        "tie that a feature decides": any(rank[: 2 + ties] == last[: 2 + ties] and rank != last for rank in ranks),
        "hidden by creation": len(latest) > len(known),
        "correction asked for": max(oracle.rank(view, row) for row in latest) != last,
        "created before it happened": last[1] < last[0],
        "age is the TTL": age == view.ttl,
        "age is 1 µs more than the TTL": view.ttl is not None and age == view.ttl + 1,
        "event at the effective instant": age == 0,
    }
    return {name for name, holds in told.items() if holds}


def _window_kinds(view: BoundView, history: list[Any], asked: Any) -> set[str]:
    """Name what a spine row meets in a view of aggregates."""
    found = oracle.visible(view, history, asked, "known")
    kinds = set()
    for feature in view.features:
        window, hop = oracle.windowed_of(feature).window, oracle.windowed_of(feature).hop
        exact = asked[1] - view.delay - window
        start = oracle.window_start(exact, window=0, hop=hop)
        off = {oracle.event(view, row) - start for row in found}
        inside = oracle.within(view, oracle.windowed_of(feature), found, asked[1])
        told = {
            "event on a window's start": 0 in off,
            "event 1 µs before a window's start": -1 in off,
            "event 1 µs after a window's start": 1 in off,
            "event at the effective instant": exact + window - start in off,
            "start on the way between hops": start != exact and bool(found),
            "start on a hop": start == exact and bool(found),
            "event older than all windows": bool(found) and not inside,
            "null in a window": any(row[column.name] is None for row in inside for column in view.inputs),
        }
        kinds |= {name for name, holds in told.items() if holds}
    return kinds


# -- in a lake --------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(cases())
def test_a_lake_holds_a_case_as_it_is_through_appends_and_compaction(case: Case):
    with case_lake(case) as lake:
        assert lake.bind(case.view) == case.bound()
        with lake.session() as session:
            assert session.sql("select * from warehouse.facts").to_arrow().schema == case.history.schema
        assert len(lake.snapshot.files(FACTS)) == len(case.batches)
        first = lake.snapshot.number
        lake.compact(reverse=True)
        assert len(lake.snapshot.files(FACTS)) == 1
        assert _content(lake) == _content(lake, first) == sorted(map(repr, oracle.rows_of(case.history)))
        lake.append(case.batches[0])
        assert _content(lake) == sorted(map(repr, oracle.rows_of(case.history, case.batches[0])))


def _content(lake: Any, as_of: int | None = None) -> list[str]:
    with lake.session(as_of) as session:
        return sorted(map(repr, oracle.rows_of(session.sql("select * from warehouse.facts").to_arrow())))


def test_without_hypothesis_a_message_names_the_extra():
    script = "import sys; sys.modules['hypothesis'] = None; import featurestore.testing.histories"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs hypothesis: pip install hypothesis" in done.stderr.splitlines()[-1]
