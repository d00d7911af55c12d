"""Promotion: what runs and why, what it publishes, and that it is the same however the data came."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent))  # the fixture module lies beside the tests

from promotion_lake import PromotionLake, Row

from lakehouse.catalog import Change
from lakehouse.errors import ConflictError, GateError, ModelError, PenstockError, RequestError, UnknownTableError
from lakehouse.metadata import Executions
from lakehouse.quarantine import quarantine_report
from lakehouse.types import TableName, utc_text

COLUMNS = {"k": "BIGINT", "v": "BIGINT", "z": "BIGINT"}
ZONES = """\
create table warehouse.zones (z integer primary key, name varchar not null);
truncate warehouse.zones;
insert into warehouse.zones select * from (values (1, 'a'), (2, 'b')) t(z, name);
"""
TRIPS = """\
-- @max_quarantine 100%
create table warehouse.trips (
  k integer primary key,
  v integer not null check (v >= 0),
  z integer references warehouse.zones (z)
);
insert or replace into warehouse.trips
select k, v, z
from lake.trips
where k is distinct from 9; -- @since load(lake.trips)
"""
DAILY = """\
create table warehouse.daily (z integer primary key, n bigint not null);
truncate warehouse.daily;
insert into warehouse.daily select z, count(*) as n from warehouse.trips where z is not null group by z;
"""
COUNTS = ("landed", "malformed", "hidden", "filtered", "quarantined", "replaced", "good", "query_rows")

Load = Sequence[tuple[str, Sequence[Row]]]


@pytest.fixture
def lake(tmp_path: Path) -> PromotionLake:
    return a_lake(tmp_path)


@pytest.fixture(scope="module")
def promoted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = a_lake(tmp_path_factory.mktemp("promoted"))
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1), (2, -1, 1)]))
    lake.promote()
    return lake.root


@pytest.fixture
def promoted(promoted_once: Path, tmp_path: Path) -> PromotionLake:
    """Return a copy of a lake with one good and one rejected trip: a lake can be moved as a whole."""
    shutil.copytree(promoted_once, tmp_path, dirs_exist_ok=True)
    return PromotionLake(tmp_path)


def a_lake(root: Path) -> PromotionLake:
    lake = PromotionLake(root)
    lake.model("zones", ZONES)
    lake.model("trips", TRIPS)
    return lake


def table_report(lake: PromotionLake, name: str = "warehouse.trips", **options: Any) -> Any:
    return next(table for table in lake.promote().tables if table.table == name)


def step(lake: PromotionLake, name: str = "warehouse.trips") -> Any:
    return next(step for step in lake.plan().steps if step.table == name)


def counts(report: Any) -> dict[str, int]:
    return {name: getattr(report, name) for name in COUNTS}


def state(lake: PromotionLake) -> tuple[Any, ...]:
    """Return all that a promotion made, but for names and times of runs."""
    has_daily = "warehouse.daily" in lake.catalog.latest().entry.tables
    daily = lake.rows("warehouse.daily") if has_daily else []
    tables = [lake.rows("warehouse.trips", "k, v, z"), lake.rejected("trips"), daily]
    return (*tables, counts(next(t for t in lake.promote().tables if t.table == "warehouse.trips")))


# -- one run ------------------------------------------------------------------------------------------------------


def test_the_first_run_divides_the_rows_and_counts_them(lake: PromotionLake) -> None:
    lake.model("daily", DAILY)
    rows = [(1, 1, 1), (1, 5, 2), (2, -1, 1), (2, -2, 7), (3, None, 3), (9, 9, 1)]
    lake.land("trips", COLUMNS, ("a", rows), malformed=2)

    report = table_report(lake)

    assert lake.rows("warehouse.trips") == [(1, 5, 2)]
    assert [(seq, offset, key_state) for _, seq, offset, _, key_state, *_ in lake.rejected("trips")] == [
        (0, 20, "open"),
        (0, 30, "open"),
        (0, 40, "open"),
    ]
    assert [len(row[5]) for row in lake.rejected("trips")] == [1, 2, 2]
    assert lake.rows("warehouse.daily") == [(2, 1)]
    assert (report.mode, report.reason, report.rows) == ("full", "first run", 1)
    assert counts(report) == {
        "landed": 8,
        "malformed": 2,
        "hidden": 0,
        "filtered": 1,
        "quarantined": 3,
        "replaced": 1,
        "good": 1,
        "query_rows": 5,
    }


def test_all_tables_of_a_connected_part_appear_in_one_snapshot(lake: PromotionLake) -> None:
    lake.model("daily", DAILY)
    base = lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    report = lake.promote()
    assert report.snapshot == base.number + 1
    assert set(lake.catalog.latest().entry.tables) - set(base.entry.tables) == {
        f"{zone}.{name}" for zone in ("warehouse", "quarantine") for name in ("daily", "trips", "zones")
    }
    assert lake.catalog.latest().entry.execution == report.execution
    execution = Executions(lake.storage).get(str(report.execution))
    assert (execution.state, execution.snapshot) == ("COMPLETE", report.snapshot)


def test_promoting_again_does_nothing_and_says_so(lake: PromotionLake) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1), (2, -1, 1)]))
    first = lake.promote()
    before = (lake.paths(), lake.catalog.numbers(), len(Executions(lake.storage).list()))

    again = lake.promote()

    assert (again.snapshot, again.execution) == (None, None)
    assert {(table.table, table.mode, table.reason) for table in again.tables} == {
        (table.table, "nothing to do", "nothing changed") for table in first.tables
    }
    assert {t.table: counts(t) for t in again.tables} == {t.table: counts(t) for t in first.tables}
    assert (lake.paths(), lake.catalog.numbers(), len(Executions(lake.storage).list())) == before


def test_landing_known_content_again_is_nothing_to_do(lake: PromotionLake) -> None:
    rows = [(1, 1, 1)]
    lake.land("trips", COLUMNS, ("a", rows))
    lake.promote()
    lake.land("trips", COLUMNS, ("elsewhere", rows))
    assert lake.plan().is_empty


# -- incremental --------------------------------------------------------------------------------------------------


def test_only_what_newly_landed_is_read_and_only_touched_files_are_rewritten(lake: PromotionLake) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1), (2, 2, 1)]))
    lake.promote()
    lake.land("trips", COLUMNS, ("b", [(3, 3, 1), (4, 4, 1)]))
    lake.promote()
    before = {file.path for file in lake.catalog.latest().files(TableName("warehouse", "trips"))}
    lake.land("trips", COLUMNS, ("c", [(3, 33, 2), (5, 5, 1)]))

    planned = step(lake)
    report = table_report(lake)

    assert (planned.mode, planned.reason, planned.loads, planned.rows_to_read) == (
        "incremental", "1 new file in lake.trips", 1, 2,
    )  # fmt: skip
    assert report.mode == "incremental"
    after = {file.path for file in lake.catalog.latest().files(TableName("warehouse", "trips"))}
    assert len(before & after) == len(before) - 1
    assert lake.rows("warehouse.trips") == [(1, 1, 1), (2, 2, 1), (3, 33, 2), (4, 4, 1), (5, 5, 1)]
    assert (report.replaced, report.query_rows, report.good) == (1, 6, 5)


def test_many_rows_make_several_files(lake: PromotionLake, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse import building

    monkeypatch.setattr(building, "_FILE_ROWS", 2)
    lake.land("trips", COLUMNS, ("a", [(k, k, 1) for k in range(5)]))
    lake.promote()
    assert [file.rows for file in lake.catalog.latest().files(TableName("warehouse", "trips"))] == [2, 2, 1]
    lake.land("trips", COLUMNS, ("b", [(k, 10, 1) for k in range(3, 8)]))
    lake.promote()
    assert lake.rows("warehouse.trips", "k, v") == [(k, k if k < 3 else 10) for k in range(8)]


def test_a_later_good_row_supersedes_a_rejected_one(lake: PromotionLake) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, -1, 1), (2, -2, 1)]))
    lake.promote()
    lake.land("trips", COLUMNS, ("b", [(1, 1, 1), (3, 3, 1), (3, -3, 1)]))
    assert table_report(lake).mode == "incremental"
    assert [(row[1], row[2], row[4]) for row in sorted(lake.rejected("trips"), key=lambda row: row[1:3])] == [
        (0, 0, "superseded"),
        (0, 10, "open"),
        (1, 20, "open"),
    ]


values = st.one_of(st.none(), st.integers(-1, 3))
records = st.tuples(st.sampled_from([None, 1, 1, 2, 3, 9]), values, st.sampled_from([None, 1, 2, 7]))
files = st.tuples(st.sampled_from("abcd"), st.lists(records, max_size=5))
loads = st.lists(st.lists(files, min_size=1, max_size=2, unique_by=lambda file: file[0]), min_size=1, max_size=4)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(loads=loads, on_change=st.sampled_from(["replace", "add"]))
def test_load_after_load_equals_all_at_once_and_a_plain_model(
    loads: Sequence[Load], on_change: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    step_by_step, at_once = (a_lake(tmp_path_factory.mktemp("lake")) for _ in range(2))
    for load in loads:
        step_by_step.land("trips", COLUMNS, *load, malformed=1, on_change=on_change)
        step_by_step.promote()
        at_once.land("trips", COLUMNS, *load, malformed=1, on_change=on_change)
    at_once.promote()

    assert state(step_by_step) == state(at_once)
    good, rejected = oracle(loads, on_change)
    assert step_by_step.rows("warehouse.trips") == good
    assert sorted((row[1], row[2], row[4]) for row in step_by_step.rejected("trips")) == rejected
    total = state(step_by_step)[-1]
    assert total["landed"] == sum(total[name] for name in COUNTS[1:-1])
    assert total["query_rows"] == total["quarantined"] + total["replaced"] + total["good"]


def oracle(loads: Sequence[Load], on_change: str) -> tuple[list[Row], list[tuple[int, int, str]]]:
    """Return the good rows, and seq, offset and state of the rejected ones, by plain Python."""
    landed: list[tuple[str, tuple[Row, ...]]] = []
    for load in loads:
        landed += [(uri, tuple(rows)) for uri, rows in sorted(load)]
    first = {content: seq for seq, (_, content) in reversed(list(enumerate(landed)))}
    newest = {uri: first[content] for uri, content in landed}
    shown = sorted(set(newest.values())) if on_change == "replace" else sorted(first.values())
    winners: dict[Any, tuple[int, int, Row]] = {}
    bad = []
    for seq in shown:
        for number, row in enumerate(landed[seq][1]):
            k, v, z = row
            if k == 9:
                continue
            if k is None or v is None or v < 0 or z == 7:
                bad.append((seq, 10 * number, k))
            else:
                winners[k] = (seq, 10 * number, row)
    states = [
        (seq, offset, "superseded" if k in winners and winners[k][:2] > (seq, offset) else "open")
        for seq, offset, k in bad
    ]
    none_last = [(row[2] is None, row) for _, _, row in winners.values()]
    return sorted((row for _, row in none_last), key=lambda row: row[0]), sorted(states)


def test_a_hidden_file_that_shows_again_rebuilds_and_equals_a_fresh_lake(
    lake: PromotionLake, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first, second = [(1, 1, 1), (2, -2, 1)], [(1, 2, 1)]
    contents = (first, second, first)
    reasons = []
    for rows in contents:
        lake.land("trips", COLUMNS, ("a", rows))
        reasons.append(table_report(lake).reason)
    fresh = a_lake(tmp_path_factory.mktemp("fresh"))
    for rows in contents:
        fresh.land("trips", COLUMNS, ("a", rows))
    fresh.promote()

    assert reasons == ["first run", *["a load of lake.trips became hidden or visible again"] * 2]
    assert state(lake) == state(fresh)
    assert state(lake)[-1]["hidden"] == 1


# -- what has to run, and why ---------------------------------------------------------------------------------------


def edit(name: str, old: str, new: str) -> Callable[[PromotionLake], None]:
    texts = {"zones": ZONES, "trips": TRIPS}
    return lambda lake: lake.model(name, texts[name].replace(old, new))


def land(columns: dict[str, str], *rows: Row, **options: Any) -> Callable[[PromotionLake], None]:
    return lambda lake: (lake.land("trips", columns, ("new", rows), **options), None)[1]


def take_away_quarantine(lake: PromotionLake) -> None:
    """Empty the quarantine table in a publish of its own."""
    from lakehouse.catalog import TableChange

    base, name = lake.catalog.latest(), TableName("quarantine", "trips")
    lake.catalog.publish(base, Change("test", "x", tables={name: TableChange(base.schema(name), (), remove=None)}))


@pytest.mark.parametrize(
    ("change", "mode", "reason"),
    [
        (lambda _: None, "nothing to do", "nothing changed"),
        (land(COLUMNS, (1, 1, 1)), "incremental", "1 new file in lake.trips"),
        (land({**COLUMNS, "extra": "BIGINT"}, (1, 1, 1, 1)), "incremental", "1 new file in lake.trips"),
        (edit("trips", "v >= 0", "v >= 1"), "full", "the model changed"),
        (edit("zones", "'b'", "'c'"), "full", "warehouse.zones runs too"),
        (lambda lake: lake.model("daily", DAILY), "nothing to do", "nothing changed"),
        (land({**COLUMNS, "v": "INTEGER"}, (1, 1, 1)), "full", "a column of lake.trips changed its type"),
        (land(COLUMNS, (1, 1, 1), on_change="add"), "full", "on_change of lake.trips changed"),
        (
            lambda lake: lake.land("trips", COLUMNS, ("a", [(5, 5, 1)])),
            "full",
            "a load of lake.trips became hidden or visible again",
        ),
        (
            take_away_quarantine,
            "full",
            "quarantine.trips is not as the model left it (rolled back?)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_plan_says_what_runs_and_why(
    promoted: PromotionLake, change: Callable[[PromotionLake], None], mode: str, reason: str
) -> None:
    change(promoted)
    planned = step(promoted)
    assert (planned.mode, planned.reason) == (mode, reason)
    promoted.promote()
    assert promoted.plan().is_empty


def test_a_model_that_is_not_row_wise_is_rebuilt(lake: PromotionLake) -> None:
    select = "k, v, z from (select * from lake.trips)"
    lake.model("trips", TRIPS.replace("k, v, z\nfrom lake.trips", select).replace("-- @since load(lake.trips)", ""))
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    assert counts(table_report(lake))["landed"] is None
    lake.land("trips", {**COLUMNS, "extra": "BIGINT"}, ("b", [(2, 1, 1, 5)]))
    report = table_report(lake)
    assert (report.mode, report.reason) == ("full", "lake.trips changed")
    assert lake.rows("warehouse.trips") == [(1, 1, 1), (2, 1, 1)]


def test_a_new_column_that_the_query_sees_rebuilds(lake: PromotionLake) -> None:
    lake.model("trips", TRIPS.replace("k, v, z\n", "k, v, z + 0 * length(to_json(trips)) as z\n"))
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    lake.promote()
    lake.land("trips", {**COLUMNS, "extra": "BIGINT"}, ("b", [(2, 1, 1, 5)]))
    assert step(lake).reason == "lake.trips has new columns, and the query names trips"


def test_a_table_that_was_rolled_back_alone_catches_up(lake: PromotionLake) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1), (2, -2, 1)]))
    first = lake.catalog.snapshot(int(lake.promote().snapshot or 0))
    lake.land("trips", COLUMNS, ("b", [(3, 3, 1), (4, -4, 1)]))
    lake.promote()
    wanted = state(lake)

    lake.catalog.roll_back(first, table=TableName("warehouse", "trips"))
    assert lake.rows("warehouse.trips") == [(1, 1, 1)]
    # Its quarantine and its watermark went back with it, so reading what came since is enough.
    assert table_report(lake).mode == "incremental"
    assert state(lake) == wanted


def test_a_lake_that_was_rolled_back_promotes_the_same_again(lake: PromotionLake) -> None:
    base = lake.land("trips", COLUMNS, ("a", [(1, 1, 1), (2, -2, 1)]))
    lake.promote()
    wanted = state(lake)
    lake.catalog.roll_back(base)
    lake.promote()
    assert state(lake) == wanted


def test_rows_of_a_table_that_is_yet_to_run_are_not_known(lake: PromotionLake) -> None:
    lake.model("daily", DAILY)
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1), (2, 2, 1)]))
    first = step(lake, "warehouse.daily")
    assert (first.rows_to_read, first.yet_to_run) == (None, ("warehouse.trips",))
    # What a contract only references is not read.
    assert (step(lake).rows_to_read, step(lake).yet_to_run) == (2, ())
    lake.promote()
    lake.land("trips", COLUMNS, ("b", [(3, 3, 1)]))
    assert step(lake, "warehouse.daily").rows_to_read is None
    lake.promote()
    lake.model("daily", f"{DAILY}-- again\n")
    assert step(lake, "warehouse.daily").rows_to_read == 3


@pytest.mark.parametrize("edited", [False, True])
def test_who_reads_a_table_whose_model_is_gone_is_warned(lake: PromotionLake, edited: bool) -> None:
    lake.model("daily", DAILY)
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    lake.promote()
    (lake.root / "sql" / "warehouse" / "trips.sql").unlink()
    if edited:
        lake.model("daily", f"{DAILY}-- again\n")
    warned = ("it reads warehouse.trips, whose model is gone: that table stays as it is for ever",)
    assert step(lake, "warehouse.daily").warnings == warned
    assert step(lake, "warehouse.zones").warnings == ()
    assert warned[0] in lake.plan()._repr_html_()
    report = lake.promote()
    assert {table.table: table.warnings for table in report.tables} == {
        "warehouse.daily": warned, "warehouse.zones": (),
    }  # fmt: skip
    assert warned[0] in report._repr_html_()


def test_a_model_that_is_gone_leaves_its_table(lake: PromotionLake) -> None:
    lake.model("daily", DAILY)
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    lake.promote()
    (lake.root / "sql" / "warehouse" / "daily.sql").unlink()
    assert lake.plan().removed == ("warehouse.daily",)
    lake.promote()
    assert lake.rows("warehouse.daily") == [(1, 1)]


def test_select_runs_the_named_tables_and_what_they_need(lake: PromotionLake) -> None:
    lake.model("daily", DAILY)
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    report = lake.promote("trips")
    assert [table.table for table in report.tables] == ["warehouse.zones", "warehouse.trips"]
    assert [s.table for s in lake.plan().steps if s.runs] == ["warehouse.daily"]
    with pytest.raises(RequestError, match=r"no model makes warehouse\.trip\n.*warehouse\.trips"):
        lake.promote("trip")


def test_a_contract_change_is_told_with_its_breaking_parts(lake: PromotionLake) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    lake.promote()
    lake.model(
        "trips",
        "create table warehouse.trips (k bigint primary key, v integer, w integer);\n"
        "insert or replace into warehouse.trips select k, v, v as w from lake.trips;",
    )
    planned = step(lake)
    assert planned.schema_changes == (
        "added: w INTEGER", "removed: z INTEGER", "retyped: k INTEGER → BIGINT", "v may be null now",
    )  # fmt: skip
    assert planned.breaking
    lake.promote()
    assert lake.rows("warehouse.trips") == [(1, 1, 1)]


def test_a_hint_lists_what_models_may_read(lake: PromotionLake) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    lake.promote()
    lake.model("daily", DAILY.replace("warehouse.trips", f"warehouse.{30 * 'q'}"))
    with pytest.raises(ModelError, match=r"\n  What models read: lake\.trips, warehouse\.trips, warehouse\.zones\.\Z"):
        lake.plan()
    lake.model("daily", DAILY.replace("warehouse.trips", "typed.trip"))
    with pytest.raises(ModelError, match=r"\n  Did you mean .*typed\.trips"):
        lake.plan()


def test_a_hint_never_names_the_model_that_asks(lake: PromotionLake) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    lake.promote()
    lake.model("trips", TRIPS.replace("from lake.trips\n", "from lake.trips join warehouse.trip using (z)\n"))
    with pytest.raises(ModelError, match="there is no table") as caught:
        lake.plan()
    assert "warehouse.trips" not in str(caught.value.hint)


# -- models that are wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TRIPS.replace("lake.trips\n", "lake.strips\n").replace("load(lake.trips)", "load(lake.strips)"),
         r"trips.sql:9: nothing has landed in strips yet\n.*penstock land strips FILES…\n.*lake\.trips"),
        (TRIPS.replace("k, v, z\n", "k,\n v, vv as z\n"),
         r"trips.sql:9: there is no column vv in what the query reads\n  Did you mean v\?\Z"),
        (TRIPS.replace("k, v, z\n", "k,\n v, t.z\n"),
         r"trips.sql:9: the query reads nothing called t\n  Did you mean trips\?\Z"),
        (TRIPS.replace("k, v, z\n", "k,\n v, trips.vv as z\n"), r"trips.sql:9: trips has no column vv"),
        (TRIPS.replace("k, v, z\n", "k,\n abss(v) as v, z\n"),
         r"trips.sql:9: there is no function abss\(\)\n  Did you mean abs\?\Z"),
        (TRIPS.replace("k, v, z\n", "k,\n abs('x', v) as v, z\n"),
         r"trips.sql:9: nothing takes these types: abs\(.*\)\n  Cast an argument.*\Z"),
        (TRIPS.replace("k, v, z\n", "k, v\n"), r"trips.sql:8: the query lacks the column z"),
        (TRIPS.replace("k, v, z\n", "k, v, z, 1 as y\n"), r"trips.sql:8: the query's column y is not in the contract"),
        (TRIPS.replace("from lake.trips\n", "from lake.trips join warehouse.zone using (z)\n"),
         r"trips.sql:9: there is no table warehouse.zone\n.*warehouse\.zones"),
        (TRIPS.replace("k, v, z\n", "distinct k, v, z\n"), r"trips.sql:8: @since .* is not possible: it has DISTINCT"),
        (TRIPS.replace("k, v, z\n", "k, v, z + day(today()) as z\n"), r"trips.sql:8: @since .*not deterministic"),
        (TRIPS.replace("k, v, z\n", "k, v, [z] as z\n"), r"trips.sql:8: z is .*no value converts"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_model_is_found_before_data_is_read(lake: PromotionLake, text: str, message: str) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    lake.model("trips", text)
    with pytest.raises(ModelError, match=message):
        lake.promote()
    assert lake.paths() == set()
    assert Executions(lake.storage).list() == []


@pytest.mark.parametrize("word", ["user", "current_date", "localtime", '"session_user"'])
def test_a_column_called_like_a_function_is_read(lake: PromotionLake, word: str) -> None:
    lake.land("trips", {**COLUMNS, word.strip('"'): "BIGINT"}, ("a", [(1, 1, 1, 7)]))
    lake.model("trips", TRIPS.replace("k, v, z\n", f"k, {word} as v, z\n"))
    lake.promote()
    assert lake.rows("warehouse.trips", "k, v, z") == [(1, 7, 1)]


def test_a_join_that_multiplies_records_is_refused(lake: PromotionLake) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    lake.model("trips", TRIPS.replace("from lake.trips\n", "from lake.trips join (values (1), (1)) two(z) using (z)\n"))
    with pytest.raises(ModelError, match=r"makes 2 rows of the record [0-9a-f]{32}-0\n.*unique key"):
        lake.promote()
    assert lake.paths() == set()


def test_a_query_that_fails_on_a_value_is_an_error_without_the_value_in_the_records(lake: PromotionLake) -> None:
    lake.land("trips", {**COLUMNS, "v": "VARCHAR"}, ("a", [(1, "secret", 1)]))
    lake.model("trips", TRIPS.replace("k, v, z\n", "k, v::integer as v, z\n"))
    with pytest.raises(ModelError, match=r"trips.sql:8: the query failed on a value.*secret"):
        lake.promote()
    (execution,) = Executions(lake.storage).list()
    assert execution.state == "FAILED"
    assert "secret" not in str(execution)


@pytest.mark.parametrize(
    ("value", "told", "helped"),
    [
        ("v::integer", "Could not convert string 'secret' to INT32", True),
        ("strptime(v, '%Y')::integer", 'Could not parse string "secret"', True),
        ("case when v > 'a' then Error ('boom ' || v) end", "boom secret", False),
    ],
)
def test_a_query_that_fails_on_a_value_has_a_hint_that_fits(
    lake: PromotionLake, value: str, told: str, helped: bool
) -> None:
    lake.land("trips", {**COLUMNS, "v": "VARCHAR"}, ("a", [(1, "secret", 1)]))
    text = TRIPS.replace("-- @since load(lake.trips)", "")  # error() is not allowed with it
    lake.model("trips", text.replace("k, v, z\n", f"k, {value} as v, z\n"))
    with pytest.raises(ModelError) as caught:
        lake.promote()
    assert caught.value.what.startswith(f"the query failed on a value: {told}")
    assert ("try(…) gives null" in str(caught.value.hint)) == helped
    if helped:
        lake.model("trips", TRIPS.replace("k, v, z\n", f"k, try({value}) as v, z\n"))
        assert table_report(lake).quarantined == 1


# -- too many rejected rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "bad", "passes"),
    [("@owner x", 1, True), ("@owner x", 2, False), ("@max_quarantine 10%", 2, True), ("@on_violation fail", 1, False)],
)
def test_too_many_violations_publish_nothing_and_keep_the_reasons(
    lake: PromotionLake, annotation: str, bad: int, passes: bool
) -> None:
    lake.model("trips", TRIPS.replace("@max_quarantine 100%", annotation))
    lake.land("trips", COLUMNS, ("a", [(k, -1 if k < bad else 1, 1) for k in range(20 + 10) if k != 9][:20]))
    if passes:
        assert table_report(lake).quarantined == bad
        return
    before = lake.catalog.latest().number
    with pytest.raises(GateError, match=rf"{bad} of 20 rows break the contract of warehouse\.trips") as error:
        lake.promote()

    assert lake.catalog.latest().number == before
    assert lake.paths() == set()
    (execution,) = Executions(lake.storage).list()
    assert execution.state == "FAILED"
    assert f"penstock quarantine trips --run {execution.id}" in str(error.value)
    report = quarantine_report(lake.catalog.latest(), TableName("warehouse", "trips"), run=execution.id)
    assert [(group.column, group.state, group.rows) for group in report.groups] == [("v", "rejected", bad)]
    assert "-1" in str(report.rows.fetchall())


def test_the_quarantine_report_groups_by_rule_column_and_state(lake: PromotionLake) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, -1, 1), (1, 1, 1), (2, -2, 1), (3, -3, 7)]))
    lake.promote()
    report = quarantine_report(lake.catalog.latest(), TableName("warehouse", "trips"))
    found = sorted((group.column, group.state, group.rows) for group in report.groups)
    assert found == [("v", "open", 2), ("v", "superseded", 1), ("z", "open", 1)]
    assert len(report.rows.fetchall()) == 3
    with pytest.raises(UnknownTableError, match=r"warehouse\.nope has no quarantine"):
        quarantine_report(lake.catalog.latest(), TableName("warehouse", "nope"))


def test_rejected_rows_as_text_say_why_first(lake: PromotionLake) -> None:
    lake.model("trips", TRIPS.replace("  z integer", "  name varchar check (name <> ''),\n  z integer"))
    lake.model("trips", (lake.root / "sql/warehouse/trips.sql").read_text().replace("k, v, z\n", "k, v, name, z\n"))
    columns = {**COLUMNS, "name": "VARCHAR"}
    lake.land("trips", columns, ("a", [(1, -1, 1, ""), (2, None, 7, "a\nb" + 80 * "c"), (3, -3, 1, None)]))
    execution = lake.promote().execution
    report = quarantine_report(lake.catalog.latest(), TableName("warehouse", "trips"))
    first, second, third = [report.rows.fetchall()[i][0] for i in range(3)]
    at = utc_text(report.rows.fetchall()[0][-1])
    assert report.to_text(2).splitlines() == [
        "v is -1: check (v >= 0); name is '': check (\"name\" != '')",
        "  k = 1, v = -1, name = '', z = 1",
        f"  open since {at}, run {execution}, record {first}",
        "v is null: not null; z is 7: references warehouse.zones",
        f"  k = 2, v = null, name = a\\nb{56 * 'c'}…, z = 7",
        f"  open since {at}, run {execution}, record {second}",
        "… more rows than these 2",
    ]
    assert report.to_text(3).endswith(f"record {third}")
    lake.model("trips", TRIPS.replace("100%", "0%"))
    with pytest.raises(GateError):
        lake.promote()
    stopped = Executions(lake.storage).list()[0].id
    report = quarantine_report(lake.catalog.latest(), TableName("warehouse", "trips"), run=stopped)
    assert report.to_text(1).splitlines() == [
        "v is -1: check (v >= 0)", f'  key {{"k":1}}, record {first}', "… more rows than these 1",
    ]  # fmt: skip


# -- faults -----------------------------------------------------------------------------------------------------------


class Stopped(Exception):  # noqa: N818 - stands for a crash
    pass


def stop_at(point: str) -> Callable[[str], None]:
    def failpoint(name: str) -> None:
        if name == point:
            raise Stopped

    return failpoint


@pytest.mark.parametrize("point", ["staged", "committed", "published"])
def test_a_run_that_breaks_off_leaves_nothing_half_and_the_next_completes_it(
    promoted: PromotionLake, point: str, tmp_path: Path
) -> None:
    lake = promoted
    before = state(lake)
    lake.land("trips", COLUMNS, ("b", [(1, 3, 1), (2, 2, 2), (3, -1, 1)]))

    with pytest.raises(Stopped):
        PromotionLake(tmp_path, failpoint=stop_at(point)).promote()
    if point != "published":
        assert (lake.rows("warehouse.trips"), lake.rejected("trips")) == before[:2]
    lake.promote()

    assert lake.rows("warehouse.trips") == [(1, 3, 1), (2, 2, 2)]
    assert [row[4] for row in lake.rejected("trips")].count("open") == 1
    assert len(lake.rejected("trips")) == 2
    assert lake.plan().is_empty


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{here!r}, {repository!r}]
from promotion_lake import PromotionLake
def failpoint(name):
    if name == {point!r}:
        os.kill(os.getpid(), signal.SIGKILL)
PromotionLake(Path({root!r}), failpoint=failpoint).promote()
"""


@pytest.mark.parametrize("point", ["staged", "committed", "published"])
def test_a_killed_run_is_closed_and_completed_by_the_next(lake: PromotionLake, point: str, tmp_path: Path) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1), (2, -1, 1)]))
    here = Path(__file__).parent
    script = KILLED.format(here=str(here), repository=str(here.parents[1]), point=point, root=str(tmp_path))
    run = subprocess.run([sys.executable, "-c", script], check=False, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert run.returncode == -signal.SIGKILL
    (killed,) = Executions(lake.storage).list()
    assert killed.state == ("COMPLETE" if point == "published" else "RUNNING")

    lake.promote()
    Executions(lake.storage).close_dead()

    assert lake.rows("warehouse.trips") == [(1, 1, 1)]
    assert len(lake.rejected("trips")) == 1
    assert lake.plan().is_empty
    states = [execution.state for execution in Executions(lake.storage).list() if execution.id == killed.id]
    assert states == ["COMPLETE" if point == "published" else "KILLED"]


def test_of_two_promotions_at_once_one_wins_and_the_other_says_who(lake: PromotionLake, tmp_path: Path) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    other = PromotionLake(tmp_path, failpoint=lambda name: (name == "staged" and lake.promote(), None)[1])
    with pytest.raises(ConflictError, match=r"was changed by another process meanwhile: snapshot 2 \(promote"):
        other.promote()
    assert lake.rows("warehouse.trips") == [(1, 1, 1)]
    assert other.plan().is_empty


def test_a_landing_in_the_middle_is_left_for_the_next_promotion(lake: PromotionLake, tmp_path: Path) -> None:
    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    once = iter([lambda: lake.land("trips", COLUMNS, ("b", [(2, 2, 1)]))])
    other = PromotionLake(
        tmp_path, failpoint=lambda name: (name == "committed" and next(once, lambda: None)(), None)[1]
    )
    other.promote()
    assert lake.rows("warehouse.trips") == [(1, 1, 1)]
    assert table_report(lake).mode == "incremental"
    assert lake.rows("warehouse.trips") == [(1, 1, 1), (2, 2, 1)]


def test_counts_that_do_not_add_up_stop_the_publish(lake: PromotionLake, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from lakehouse import building

    honest = building.gate

    def miscounting(*args: Any, **kwargs: Any) -> Any:
        report = honest(*args, **kwargs)
        return dataclasses.replace(report, replaced=report.replaced + 1)

    lake.land("trips", COLUMNS, ("a", [(1, 1, 1)]))
    monkeypatch.setattr(building, "gate", miscounting)
    with pytest.raises(PenstockError, match="the counts do not add up"):
        lake.promote()
    assert lake.paths() == set()
