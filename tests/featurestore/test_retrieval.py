"""Retrieval: every path equals the oracle, cell for cell; what jobs return, and what they report."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

sys.path.append(str(Path(__file__).parent))  # the oracle lies beside the tests

from feature_lake import FeatureLake, case_lake
from oracle import Row, SpineRow, answers, cells_of, differences, excluded, rank, rows_of, spine_of, visible

from featurestore.binding import BoundView
from featurestore.definitions import Aggregate, Entity, Feature, FeatureView, Projection
from featurestore.engines import Answer
from featurestore.engines.local import LocalEngine
from featurestore.engines.streams import arrow_type
from featurestore.retrieval import Options, RetrievalJob, retrieve
from featurestore.statuses import STATUSES
from featurestore.testing.histories import Case, aggregate_cases, arrow_table, feature_cases
from lakehouse.errors import CatalogDamagedError, DefinitionError, RequestError
from lakehouse.settings import LakeSettings, Resources, Settings

SLOW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def settings_of(lake: FeatureLake) -> Settings:
    return Settings(lake.root, LakeSettings(str(lake.root)), resources=Resources(memory="500MB", threads=1))


def job_of(lake: FeatureLake, case: Case, **options: Any) -> RetrievalJob:
    bound = lake.bind(case.view)
    return retrieve(
        lake.snapshot,
        settings_of(lake),
        {case.view.name: bound},
        [case.projection],
        options.pop("frame", case.spine),
        timestamp=case.timestamp,
        corrections=case.corrections,
        **options,
    )


def check(lake: FeatureLake, case: Case) -> RetrievalJob:
    bound = lake.bind(case.view)
    rows = rows_of(case.history)
    spine = spine_of(case.spine, case.spine_keys, case.timestamp)
    expected = answers(bound, rows, spine, features=case.asked, corrections=case.corrections)
    job = job_of(lake, case)
    table = job.to_arrow()
    names = job.asked[0].names
    codes = [[STATUSES.index(status) for status in job.statuses().column(name).to_pylist()] for name in names]
    got = cells_of([table.column(name) for name in names], codes)
    if not got:
        got = [[] for _ in spine]
    assert differences(expected, got, spine) == []
    assert table.select(case.spine.column_names).equals(case.spine)
    report = job.report.views[0]
    assert report.spine_rows == len(spine) == report.present + report.null + report.expired + report.not_found
    if report.without_key < len(spine):
        assert report.rows_excluded == excluded(bound, rows)
    if not bound.is_aggregate and case.corrections == "known":
        assert report.hidden == sum(
            greatest(bound, rows, one, "known") != greatest(bound, rows, one, "latest") for one in spine
        )
    return job


def greatest(view: BoundView, rows: Sequence[Row], one: SpineRow, corrections: str) -> Any:
    """Return the winner's place in the order, None without one."""
    return max((rank(view, row) for row in visible(view, rows, one, corrections)), default=None)


@given(feature_cases())
@SLOW
def test_lookups_equal_the_oracle(case: Case) -> None:
    with case_lake(case) as lake:
        check(lake, case)


@given(aggregate_cases())
@SLOW
def test_aggregates_equal_the_oracle(case: Case) -> None:
    with case_lake(case) as lake:
        check(lake, case)


@given(aggregate_cases() | feature_cases())
@settings(SLOW, max_examples=8)
def test_the_order_of_rows_and_files_does_not_matter(case: Case) -> None:
    with case_lake(case) as lake:
        before = check(lake, case)
        lake.compact(reverse=True)
        after = check(lake, case)
        assert after.statuses().equals(before.statuses())


@given(aggregate_cases() | feature_cases())
@settings(SLOW)
def test_large_files_are_read_another_way_with_the_same_answer(case: Case) -> None:
    with case_lake(case) as lake, mock.patch("featurestore.source_rows._MANY_ROWS", 0):
        check(lake, case)


# -- a lake by hand -------------------------------------------------------------------------------------------------

HOUR = 3_600_000_000
UTC = pa.timestamp("us", "UTC")
TYPES = {
    "zone": "BIGINT",
    "seen": "TIMESTAMP WITH TIME ZONE",
    "made": "TIMESTAMP WITH TIME ZONE",
    "fare": "DECIMAL(38,2)",
    "tip": "BIGINT",
    "note": "VARCHAR",
}
ZONE = Entity("zone")
LOOKUP = FeatureView("sales", "warehouse.facts", [ZONE], [Feature("tip"), Feature("note")], "seen", "made", ttl="2h")
WINDOWS = FeatureView(
    "demand",
    "warehouse.facts",
    [ZONE],
    [
        Aggregate("n", "count", ["1h", "2h"], hop="1h"),
        Aggregate("fare", "sum", ["1h"], "fare", hop="1h"),
        Aggregate("top", "max", ["2h"], "tip", hop="1h"),
    ],
    "seen",
)


def facts(*rows: tuple[Any, ...]) -> pa.Table:
    return arrow_table(TYPES, {name: [row[place] for row in rows] for place, name in enumerate(TYPES)})


def at(*hours: float | None) -> pa.Array:
    return pa.array([None if hour is None else round(hour * HOUR) for hour in hours], pa.int64()).cast(UTC)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> FeatureLake:
    """Two loads: zones 1 and 2 in hours 1 to 3, then zone 1 in hour 100; corrections, ties, a row without time."""
    lake = FeatureLake(tmp_path_factory.mktemp("lake"))
    early = facts(
        (1, 1 * HOUR, None, Decimal("1.50"), 10, "a"),
        (1, 2 * HOUR, 2 * HOUR, Decimal("2.50"), 20, "b"),
        (1, 2 * HOUR, 5 * HOUR, Decimal("2.75"), 25, "corrected"),
        (2, 3 * HOUR, None, Decimal("4.00"), None, None),
        (2, None, None, Decimal("9.00"), 90, "no time"),
        (1, 2 * HOUR, 2 * HOUR, Decimal("7.00"), 20, "c"),
    )
    late = facts((1, 100 * HOUR, None, Decimal("5.00"), 50, "late"))
    lake.put(TYPES, [early, late])
    return lake


def ask(
    lake: FeatureLake, views: list[FeatureView], projections: list[Projection], frame: Any, **options: Any
) -> RetrievalJob:
    bound = {view.name: lake.bind(view) for view in views}
    return retrieve(lake.snapshot, settings_of(lake), bound, projections, frame, **options)


def refused(*args: Any, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        ask(*args, **options).to_arrow()
    return str(caught.value)


SPINE = pa.table(
    {
        "event_timestamp": at(2, 5, 3, None, 101, 2, 103),
        "zone": [1, 1, 2, 1, 1, None, 1],
        "id": ["x", "x", "y", "z", "w", "v", "u"],
    }
)


def test_lookups_by_hand(lake: FeatureLake) -> None:
    job = ask(lake, [LOOKUP], [LOOKUP.on()], SPINE)
    table = job.to_arrow()
    assert table.column_names == ["event_timestamp", "zone", "id", "tip", "note"]
    assert table.column("tip").to_pylist() == [20, None, None, None, 50, None, None]
    assert table.column("note").to_pylist() == ["c", None, None, None, "late", None, None]
    names = [column.to_pylist() for column in job.statuses().columns]
    assert names[0] == ["PRESENT", "EXPIRED", "NULL", "NOT_FOUND", "PRESENT", "NOT_FOUND", "EXPIRED"]
    assert names[1] == names[0]
    assert job.statuses().schema == pa.schema({"tip": pa.string(), "note": pa.string()})


def test_the_report_adds_up(lake: FeatureLake) -> None:
    report = ask(lake, [LOOKUP], [LOOKUP.on()], SPINE).report
    view = report.views[0]
    assert (report.snapshot, report.spine_rows) == (lake.snapshot.number, 7)
    assert (view.view, view.keys, view.columns) == ("sales", ("zone",), ("tip", "note"))
    assert (view.present, view.null, view.expired, view.not_found) == (2, 1, 2, 2)
    assert (view.matched, view.without_key, view.hidden, view.rows_excluded) == (3, 2, 1, 1)
    assert (view.files_read, view.files_skipped) == (2, 0)
    assert "7 spine rows at snapshot" in repr(report)
    assert "1 row of the source without an event timestamp" in repr(report)


@pytest.mark.parametrize("twice", [0, 1, 2])
def test_local_times_that_occur_twice_are_counted(lake: FeatureLake, twice: int) -> None:
    once, again = dt.datetime(2026, 10, 25, 1, 30), dt.datetime(2026, 10, 25, 2, 30)  # noqa: DTZ001 - what a clock shows
    spine = {"event_timestamp": [once, None, *[again] * twice], "zone": [1] * (2 + twice)}
    job = ask(lake, [LOOKUP], [LOOKUP.on()], spine, timezone="Europe/Paris")
    assert job.report.ambiguous == job.spine.ambiguous == twice
    line = ["", "1 local time occurs twice (clocks went back)", "2 local times occur twice (clocks went back)"][twice]
    for text in (job.report.to_text(), repr(job), job._repr_html_()):
        assert line in text
        assert ("clocks went back" in text) == bool(twice)


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        (pa.array([2**63, 1, None], pa.uint64()), "1 value of zone cannot be of the key's type BIGINT."),
        ([Decimal("1.5"), Decimal("2.5"), None], "2 values of zone cannot be of the key's type BIGINT."),
        ([1.0, float("nan"), None], None),
        ([1, 2, None], None),
    ],
)
def test_keys_that_cannot_be_are_told_from_those_that_are_missing(lake: FeatureLake, zone: Any, told: str) -> None:
    text = ask(lake, [LOOKUP], [LOOKUP.on()], {"event_timestamp": at(1, 2, 3), "zone": zone}).report.to_text()
    if told is None:
        assert "cannot be" not in text
    else:
        assert f"sales on zone: {told}" in text
        assert "without a key or an instant, or with a key that cannot be, found nothing" in text


def test_files_out_of_time_are_skipped(lake: FeatureLake) -> None:
    spine = {"event_timestamp": at(101), "zone": [1]}
    assert ask(lake, [LOOKUP], [LOOKUP.on()], spine).report.views[0].files_skipped == 1
    assert ask(lake, [WINDOWS], [WINDOWS.on()], spine).report.views[0].files_skipped == 1
    spine = {"event_timestamp": at(2), "zone": [1]}
    report = ask(lake, [LOOKUP], [LOOKUP.on()], spine).report.views[0]
    assert (report.files_read, report.files_skipped, report.rows_read) == (1, 1, 3 + 1)


def test_corrections_are_hidden_until_they_are_known(lake: FeatureLake) -> None:
    spine = {"event_timestamp": at(2, 4, 4.5), "zone": [1, 1, 1]}
    known = ask(lake, [LOOKUP], [LOOKUP.on()], spine)
    assert known.to_arrow().column("note").to_pylist() == ["c", "c", None]
    assert known.report.views[0].hidden == 3
    assert "a later correction was hidden" in repr(known.report)
    latest = ask(lake, [LOOKUP], [LOOKUP.on()], spine, corrections="latest")
    assert latest.to_arrow().column("note").to_pylist() == ["corrected", "corrected", None]
    assert latest.report.views[0].hidden == 0


def test_features_that_are_not_asked_decide_ties_too(lake: FeatureLake) -> None:
    spine = {"event_timestamp": at(2), "zone": [1]}
    view = FeatureView("v", "warehouse.facts", [ZONE], [Feature("fare"), Feature("note")], "seen", "made")
    assert ask(lake, [view], [view[["note"]]], spine).to_arrow().column("note").to_pylist() == ["c"]
    turned = FeatureView("v", "warehouse.facts", [ZONE], [Feature("note")], "seen", "made", tie_breaker=["fare"])
    assert ask(lake, [turned], [turned.on()], spine).to_arrow().column("note").to_pylist() == ["c"]


def test_windows_by_hand(lake: FeatureLake) -> None:
    job = ask(lake, [WINDOWS], [WINDOWS.on()], SPINE)
    table, statuses = job.to_arrow(), job.statuses()
    assert table.column("n_1h").to_pylist() == [3, 0, 1, 0, 0, 0, 0]
    assert table.column("n_2h").to_pylist() == [4, 0, 1, 0, 1, 0, 0]
    assert table.column("fare_1h").type == pa.decimal128(38, 2)
    sums = [Decimal("12.25"), None, Decimal("4.00"), None, None, None, None]
    assert table.column("fare_1h").to_pylist() == sums
    assert table.column("top_2h").to_pylist() == [25, None, None, None, 50, None, None]
    counted = ["PRESENT", "NOT_FOUND", "PRESENT", "NOT_FOUND", "PRESENT", "NOT_FOUND", "NOT_FOUND"]
    assert statuses.column("n_1h").to_pylist() == counted
    # A window of the view holds an event, or a value; this one doesn't.
    assert statuses.column("fare_1h")[4].as_py() == "NULL"
    assert statuses.column("top_2h")[2].as_py() == "NULL"


def test_windows_that_are_not_asked_decide_whether_there_is_anything(lake: FeatureLake) -> None:
    spine = {"event_timestamp": at(4, 4.5, 5, 6), "zone": [2, 2, 2, 2]}
    job = ask(lake, [WINDOWS], [WINDOWS[["n_1h", "fare_1h"]]], spine)
    assert job.to_arrow().column("n_1h").to_pylist() == [0, 0, 0, 0]
    assert job.statuses().column("n_1h").to_pylist() == ["PRESENT", "PRESENT", "NOT_FOUND", "NOT_FOUND"]
    assert job.statuses().column("fare_1h").to_pylist() == ["NULL", "NULL", "NOT_FOUND", "NOT_FOUND"]


def test_a_view_in_two_roles(lake: FeatureLake) -> None:
    spine = {"event_timestamp": at(3, 3), "zone": [1, 2], "dropoff": [2, 1]}
    projections = [LOOKUP.on(), LOOKUP.on(zone="dropoff", prefix="dropoff"), WINDOWS.on(zone="dropoff", prefix="d")]
    job = ask(lake, [LOOKUP, WINDOWS], projections, spine)
    table = job.to_arrow()
    assert table.column("note").to_pylist() == ["c", None]
    assert table.column("dropoff__note").to_pylist() == [None, "c"]
    assert table.column("d__n_2h").to_pylist() == [1, 3]
    assert [view.keys for view in job.report.views] == [("zone",), ("dropoff",), ("dropoff",)]


def test_notes_tell_the_roles_of_a_view_apart(lake: FeatureLake) -> None:
    spine = {"event_timestamp": at(3, 3, 3), "zone": [1, 1, None], "dropoff": [1, None, None]}
    projections = [LOOKUP.on(), LOOKUP.on(zone="dropoff", prefix="dropoff")]
    report = ask(lake, [LOOKUP], projections, spine).report
    for text in (report.to_text(), report._repr_html_()):
        assert "sales on zone: 1 spine row without a key or an instant found nothing." in text
        assert "sales on dropoff: 2 spine rows without a key or an instant found nothing." in text
        assert text.count("sales: 1 row of the source without an event timestamp.") == 1


def test_one_row_for_everybody(lake: FeatureLake) -> None:
    view = FeatureView("world", "warehouse.facts", [], [Feature("note")], "seen")
    spine = {"event_timestamp": at(2, 3, 0)}
    table = ask(lake, [view], [view.on()], spine, full_feature_names=True).to_arrow()
    assert table.column("world__note").to_pylist() == ["corrected", None, None]


def test_a_select_as_the_source(lake: FeatureLake) -> None:
    source = "select zone, seen, upper(note) as note from warehouse.facts where fare < 6 -- cheap ones"
    view = FeatureView("v", source, [ZONE], [Feature("note")], "seen")
    job = ask(lake, [view], [view.on()], {"event_timestamp": at(2, 200), "zone": [1, 1]})
    assert job.to_arrow().column("note").to_pylist() == ["CORRECTED", "LATE"]
    assert (job.report.views[0].files_read, job.report.views[0].files_skipped) == (2, 0)


def test_a_source_that_hangs_on_chance_is_refused(lake: FeatureLake) -> None:
    source = "select zone, seen + to_microseconds((random() * 1e9)::bigint) as seen, note from warehouse.facts"
    view = FeatureView("v", source, [ZONE], [Feature("note")], "seen")
    assert "must not depend on chance" in refused(lake, [view], [view.on()], {"event_timestamp": at(200), "zone": [1]})


@pytest.mark.parametrize("view", [LOOKUP, WINDOWS], ids=["lookups", "windows"])
@pytest.mark.parametrize(
    "spine",
    [
        {"event_timestamp": at(), "zone": pa.array([], pa.int32())},
        {"event_timestamp": pa.array([None, None], UTC), "zone": [1, 2]},
        {"event_timestamp": at(1, 2), "zone": pa.array([None, None])},
        {"event_timestamp": at(1, 2), "zone": pa.array([2**63, None], pa.uint64())},
        {"event_timestamp": at(1, -1e6), "zone": [77, 1]},
    ],
    ids=["no rows", "no instants", "no keys", "no possible keys", "nothing known"],
)
def test_nothing_to_find_gives_the_right_schema(lake: FeatureLake, view: FeatureView, spine: Any) -> None:
    job = ask(lake, [view], [view.on()], spine)
    table = job.to_arrow()
    bound = lake.bind(view)
    types = [arrow_type(feature.type) for feature in bound.features]
    assert table.schema.types[2:] == types
    assert table.num_rows == len(spine["zone"])
    assert set(job.statuses().column(0).to_pylist()) <= {"NOT_FOUND"}
    if view is WINDOWS:
        assert set(table.column("n_1h").to_pylist()) <= {0}
    report = job.report.views[0]
    assert report.not_found == report.spine_rows == table.num_rows


def test_sums_that_do_not_fit_name_view_feature_and_row(tmp_path: Path) -> None:
    lake = FeatureLake(tmp_path)
    huge = Decimal((0, (9,) * 38, -2))
    lake.put(
        TYPES,
        [
            facts(
                (1, HOUR, None, huge, 1, None),
                (1, HOUR, None, Decimal("0.01"), 1, None),
                (2, HOUR, None, huge, 1, None),
            )
        ],
    )
    spine = {"event_timestamp": at(1, 1), "zone": [2, 1]}
    message = refused(lake, [WINDOWS], [WINDOWS.on()], spine)
    assert message.startswith(
        "feature view 'demand': the sum of 'fare_1h' has more than 38 digits for row 1 of the spine"
    )
    fine = ask(lake, [WINDOWS], [WINDOWS.on()], {"event_timestamp": at(1), "zone": [2]}).to_arrow()
    assert fine.column("fare_1h").to_pylist() == [huge]


# -- what is refused ------------------------------------------------------------------------------------------------


def test_unknown_views_and_features_have_near_matches(lake: FeatureLake) -> None:
    assert "Did you mean sales?" in refused(lake, [LOOKUP], [Projection("sale")], SPINE)
    with pytest.raises(DefinitionError, match="no feature 'tipp'"):
        ask(lake, [LOOKUP], [LOOKUP[["tipp"]]], SPINE)


def test_a_spine_column_called_like_a_feature_is_refused(lake: FeatureLake) -> None:
    spine = SPINE.append_column("Tip", pa.array([1] * 7))
    message = refused(lake, [LOOKUP], [LOOKUP.on()], spine)
    assert "the column 'Tip' of the spine and sales:tip" in message
    assert ask(lake, [LOOKUP], [LOOKUP.on()], spine, full_feature_names=True).to_arrow().num_columns == 6


def test_full_names_that_are_taken_are_not_advised_again(lake: FeatureLake) -> None:
    spine = SPINE.append_column("sales__tip", pa.array([1] * 7))
    message = refused(lake, [LOOKUP], [LOOKUP.on()], spine, full_feature_names=True)
    assert message.splitlines()[1:] == ["  Give a role another prefix, or rename the spine's column."]


@pytest.mark.parametrize("name", ["tip__status", "Note__Status"])
def test_a_column_called_like_that_of_a_status_is_refused(lake: FeatureLake, name: str) -> None:
    job = ask(lake, [LOOKUP], [LOOKUP.on()], SPINE.append_column(name, pa.array([1] * 7)))
    with pytest.raises(RequestError, match=f"(?i)two columns would be called '{name}'"):
        job.to_arrow(statuses=True)
    assert job.to_arrow().column_names[-3:] == [name, "tip", "note"]
    assert job.statuses().column_names == ["tip", "note"]


def test_a_feature_called_like_the_status_of_another_is_refused(lake: FeatureLake) -> None:
    source = "select zone, seen, tip, note as tip__status from warehouse.facts"
    view = FeatureView("odd", source, [ZONE], [Feature("tip"), Feature("tip__status")], "seen")
    job = ask(lake, [view], [view.on()], SPINE)
    with pytest.raises(RequestError, match="the feature 'tip__status', and the status of 'tip'"):
        job.to_arrow(statuses=True)


def test_keys_are_checked_before_anything_runs(lake: FeatureLake) -> None:
    bound = {"sales": lake.bind(LOOKUP)}
    for column, part in (("zone", "is of type string, the join key is BIGINT"), ("zne", "no column 'zone'")):
        with pytest.raises(RequestError, match=part):
            retrieve(lake.snapshot, settings_of(lake), bound, [LOOKUP.on()], {"event_timestamp": at(1), column: ["1"]})


def test_asking_for_nothing_or_for_unknown_corrections(lake: FeatureLake) -> None:
    assert "no features are asked for" in refused(lake, [LOOKUP], [], SPINE)
    assert "Did you mean latest?" in refused(lake, [LOOKUP], [LOOKUP.on()], SPINE, corrections="lastest")


def test_a_source_that_changed_is_named_with_both_types(tmp_path: Path) -> None:
    lake = FeatureLake(tmp_path)
    lake.put(TYPES, [facts()])
    bound = {"sales": lake.bind(LOOKUP)}

    def message() -> str:
        with pytest.raises(RequestError) as caught:
            retrieve(lake.snapshot, settings_of(lake), bound, [LOOKUP.on()], SPINE).to_arrow()
        assert caught.value.where == "feature view 'sales'"
        assert "penstock apply" in str(caught.value.hint)
        return caught.value.what

    lake.put({**TYPES, "tip": "VARCHAR"}, [arrow_table({**TYPES, "tip": "VARCHAR"}, {name: [] for name in TYPES})])
    assert message() == "the source's column 'tip' is of type VARCHAR now, not BIGINT"
    lake.drop_column("note")
    assert "no column 'note' any more" in message() or "'tip'" in message()
    gone = replace(bound["sales"], source='select * from "warehouse"."fcts"')
    bound["sales"] = gone
    assert "there is no table warehouse.fcts" in message()


@pytest.mark.parametrize("many", [0, 50_000], ids=["large", "small"])
@pytest.mark.parametrize("view", [LOOKUP, WINDOWS], ids=["lookups", "windows"])
def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: FeatureView, many: int) -> None:
    monkeypatch.setattr("featurestore.source_rows._MANY_ROWS", many)
    lake = FeatureLake(tmp_path)
    lake.put(TYPES, [facts(*((1, HOUR, None, Decimal("1.00"), n, "x" * 50) for n in range(50)))])
    bound = {view.name: lake.bind(view)}
    (path,) = (tmp_path / "lake" / "warehouse" / "facts").glob("*.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CatalogDamagedError, match=path.name):
        retrieve(lake.snapshot, settings_of(lake), bound, [view.on()], SPINE).to_arrow()
    path.unlink()
    with pytest.raises(CatalogDamagedError, match=f"{path.name} is missing"):
        retrieve(lake.snapshot, settings_of(lake), bound, [view.on()], SPINE).to_arrow()


def test_a_value_that_makes_the_source_fail_names_the_view(lake: FeatureLake) -> None:
    view = FeatureView(
        "v", "select zone, seen, note::integer as note from warehouse.facts", [ZONE], [Feature("note")], "seen"
    )
    message = refused(lake, [view], [view.on()], SPINE)
    assert message.startswith("feature view 'v': the source cannot be read: ")
    assert "Could not convert string" in message


def test_files_without_a_column_or_with_a_narrower_type_are_read_the_common_way(tmp_path: Path) -> None:
    lake = FeatureLake(tmp_path)
    old = facts((1, HOUR, None, Decimal("1.00"), 1, "gone"), (2, HOUR, None, None, None, None)).drop_columns("note")
    narrow = old.set_column(old.column_names.index("tip"), "tip", pa.array([7, None], pa.int8()))
    new = facts((1, 2 * HOUR, None, Decimal("1.00"), 1, "new"))
    spine = {"event_timestamp": at(1, 2), "zone": [1, 1]}
    for batch, tip in ((old, 1), (narrow, 7)):
        lake.put(TYPES, [batch, new])
        with mock.patch("featurestore.source_rows._MANY_ROWS", 0):
            table = ask(lake, [LOOKUP], [LOOKUP.on()], spine).to_arrow()
        assert table.column("note").to_pylist() == [None, "new"]
        assert table.column("tip").to_pylist() == [tip, 1]


# -- jobs -----------------------------------------------------------------------------------------------------------


class Counting(LocalEngine):
    """An engine that counts how often it is asked."""

    asked = 0

    def answer(self, *args: Any, **options: Any) -> Answer:
        self.asked += 1
        return super().answer(*args, **options)


def test_a_job_computes_once_and_only_when_it_is_looked_at(lake: FeatureLake) -> None:
    engine = Counting()
    job = ask(lake, [LOOKUP], [LOOKUP.on()], SPINE, engine=engine)
    assert engine.asked == 0
    first = job.to_arrow()
    assert job.to_arrow().equals(first)
    assert job.report.seconds >= 0
    assert job.statuses().num_rows == 7
    assert engine.asked == 1


def test_results_go_to_any_library(lake: FeatureLake) -> None:
    job = ask(lake, [LOOKUP], [LOOKUP.on()], SPINE)
    assert job.to_polars()["tip"].to_list() == job.to_arrow().column("tip").to_pylist()
    assert pa.table(job).equals(job.to_arrow())
    assert pl.from_arrow(pa.RecordBatchReader.from_stream(job)).shape == (7, 5)


def test_spine_columns_keep_their_types(lake: FeatureLake) -> None:
    extra = {
        "dictionary": pa.array(["a", "b"]).dictionary_encode(),
        "nested": pa.array([[1], None]),
        "view": pa.array(["x", None], pa.string_view()),
        "time": pa.array([1, 2], pa.time64("us")),
    }
    spine = pa.table({"event_timestamp": at(2, 3), "zone": pa.array([1, 2], pa.uint8()), **extra})
    table = ask(lake, [LOOKUP], [LOOKUP.on()], spine).to_arrow()
    assert table.select(spine.column_names).equals(spine)
    assert table.column("note").to_pylist() == ["c", None]


def test_pandas_is_asked_for_by_its_extra(lake: FeatureLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RequestError, match="pandas is not installed") as caught:
        ask(lake, [LOOKUP], [LOOKUP.on()], SPINE).to_df()
    assert "pip install pandas" in str(caught.value.hint)


def test_text_and_html_show_rows_and_report(lake: FeatureLake) -> None:
    spine = {"event_timestamp": at(2), "zone": [1], "id": ["<b>"]}
    job = ask(lake, [LOOKUP, WINDOWS], [LOOKUP.on(), WINDOWS.on()], spine)
    assert "1 spine row at snapshot" in repr(job)
    assert "sales on zone" in repr(job)
    shown = job._repr_html_()
    assert "&lt;b&gt;" in shown
    assert shown.count("<table>") == 2


def test_options_are_kept(lake: FeatureLake) -> None:
    spine = {"when": [dt.datetime(1970, 1, 1, 2)], "zone": [1]}  # noqa: DTZ001 - what a clock shows
    job = ask(lake, [LOOKUP], [LOOKUP.on()], spine, timezone="UTC", service="tips@3", definitions_sha="abc")
    assert job.options == Options("when", "UTC", False, "known", "tips@3", "abc")
    assert job.snapshot.number == lake.snapshot.number
    assert job.to_arrow().column("note").to_pylist() == ["c"]


def test_an_engine_that_answers_with_other_rows_is_refused(lake: FeatureLake) -> None:
    class Short(LocalEngine):
        def answer(self, *args: Any, **options: Any) -> Answer:
            whole = super().answer(*args, **options)
            return Answer(tuple(column.slice(1) for column in whole.columns), whole.statuses, whole.report)

    assert "other rows or columns" in refused(lake, [LOOKUP], [LOOKUP.on()], SPINE, engine=Short())
