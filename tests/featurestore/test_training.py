"""Training sets: kept exactly, made again hash for hash, cut by time; and what is left when something breaks off."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import shutil
import sys
import threading
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings

sys.path.append(str(Path(__file__).parent))  # the fixture module lies beside the tests

from feature_lake import FeatureLake

from featurestore.acceptance import bound_views, read_definitions
from featurestore.content_hash import content_sha256
from featurestore.definitions import Aggregate, Entity, Feature, FeatureService, FeatureView
from featurestore.registry import apply_definitions
from featurestore.reproduction import differing_rows
from featurestore.retrieval import RetrievalJob, retrieve
from featurestore.splits import cut, time_cutoffs
from featurestore.store import FeatureStore
from featurestore.training import TrainingSet, save, training_set, training_sets, users_of_view
from lakehouse.catalog import Catalog, Change, TableChange
from lakehouse.delta import ColumnSchema, TableSchema
from lakehouse.errors import CatalogDamagedError, ConflictError, FormatTooNewError, RequestError
from lakehouse.lake import Lake
from lakehouse.metadata import Executions
from lakehouse.pins import Pins
from lakehouse.session import Session
from lakehouse.types import TableName

TRIPS = TableName("warehouse", "trips")
TYPES = {
    "zone": "INTEGER",
    "seen": "TIMESTAMP WITH TIME ZONE",
    "fare": "DECIMAL(10,2)",
    "name": "VARCHAR",
    "rate": "DOUBLE",
}
START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)

ZONE = Entity("zone")
LAST = FeatureView(
    "last_trip",
    source="warehouse.trips",
    entities=[ZONE],
    event_timestamp="seen",
    features=[Feature("fare"), Feature("name"), Feature("rate")],
    ttl="2d",
)
DEMAND = FeatureView(
    "demand",
    source="select zone, seen, fare from warehouse.trips",
    entities=[ZONE],
    event_timestamp="seen",
    features=[
        Aggregate("trips", "count", windows=["1d", "7d"]),
        Aggregate("fare", "mean", column="fare", windows=["1d"]),
    ],
)
TIPS = FeatureService("tips", features=[LAST, DEMAND.on(zone="to", prefix="to")])


def trips(start: int, rows: int) -> pa.Table:
    hours = range(start, start + rows)
    return pa.table(
        {
            "zone": pa.array([hour % 5 for hour in hours], pa.int32()),
            "seen": pa.array([START + hour * HOUR for hour in hours], pa.timestamp("us", "UTC")),
            "fare": pa.array([Decimal(hour * 7 % 1000).scaleb(-2) for hour in hours], pa.decimal128(10, 2)),
            "name": [None if hour % 4 == 0 else f"trip {hour % 3}" for hour in hours],
            "rate": [math.nan if hour % 6 == 0 else -0.0 if hour % 6 == 1 else hour / 3 for hour in hours],
        }
    )


def spine(rows: int = 40, **columns) -> pa.Table:
    at = [START + dt.timedelta(days=1) + row // 2 * HOUR for row in range(rows)]
    own = {
        "zone": [row % 7 for row in range(rows)],
        "to": [row % 5 for row in range(rows)],
        "event_timestamp": pa.array(at, pa.timestamp("us", "UTC")),
        "label": [row % 3 == 0 for row in range(rows)],
    }
    return pa.table({**own, **columns})


class TrainingLake(FeatureLake):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._written = len(list(root.rglob("*.parquet")))  # a copy goes on from what was written

    @property
    def lake(self) -> Lake:
        return Lake(self.root / "lake", clock=self.catalog.clock)

    def job(self, frame=None, *, features=None, failpoint=None, as_of=None, **options) -> RetrievalJob:
        catalog = Catalog(self.storage, clock=self.catalog.clock, failpoint=failpoint or (lambda _: None))
        snapshot = catalog.resolve(as_of)
        definitions = read_definitions(snapshot)
        service = definitions.service("tips")
        asked = service.projections if features is None else definitions.projections(features)
        with Session(snapshot, memory="500MB", threads=1) as session:
            views = bound_views(definitions, session)
        return retrieve(
            snapshot,
            self.lake.settings,
            views,
            asked,
            spine() if frame is None else frame,
            service=service.ref if features is None else None,
            definitions_sha=definitions.sha256,
            **options,
        )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = TrainingLake(tmp_path_factory.mktemp("built"))
    lake.put(TYPES, [trips(0, 60), trips(60, 20)], TRIPS)
    apply_definitions(lake.catalog, lake.lake.settings, [ZONE, LAST, DEMAND, TIPS])
    return lake.root


@pytest.fixture
def lake(built: Path, tmp_path: Path) -> TrainingLake:
    """Return a copy: a lake can be moved as a whole."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return TrainingLake(tmp_path)


def refused(kind, call) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables are equal where NaN is NaN."""
    return one.schema.equals(other.schema) and content_sha256(one) == content_sha256(other)


def paths(lake: TrainingLake, table: str, as_of: int | None = None) -> list[Path]:
    files = lake.catalog.resolve(as_of).files(TableName.parse(table))
    return [lake.root / "lake" / table.replace(".", "/") / file.path for file in files]


def manifest_path(lake: TrainingLake, version: int = 1) -> Path:
    return lake.root / f"lake/_catalog/training/tips/{version}.json"


# -- kept exactly --------------------------------------------------------------------------------------------------


def test_a_saved_set_is_the_table_that_was_retrieved(lake: TrainingLake) -> None:
    job = lake.job()
    kept = save(job, "tips")
    expected = job.to_arrow()
    assert kept.ref == "tips@1"
    for again in (
        kept,
        training_set(lake.lake, "tips"),
        training_set(lake.lake, "tips", 1),
        training_set(lake.lake, "tips@1"),
    ):
        assert again.to_arrow().schema.equals(expected.schema, check_metadata=True)
        assert content_sha256(again.to_arrow()) == content_sha256(expected) == kept.manifest.content.sha256
        assert again.spine().equals(spine())
    assert same(pa.table(kept), kept.to_arrow())
    assert kept.to_polars().equals(pl.DataFrame(kept.to_arrow()))


def test_a_set_is_a_table_of_the_lake_without_its_hidden_column(lake: TrainingLake) -> None:
    kept = save(lake.job(), "tips")
    for table, expected in (("training.tips", kept.to_arrow()), ("training.tips__spine", kept.spine())):
        found = lake.lake.sql(f"select * from {table}").to_arrow()
        assert found.column_names == expected.column_names
        assert same(found.cast(expected.schema), expected)
    (execution,) = [each for each in Executions(lake.storage).list() if each.kind == "training"]
    assert (execution.state, execution.snapshot) == ("COMPLETE", kept.manifest.snapshot)
    assert lake.catalog.snapshot(kept.manifest.snapshot).entry.kind == "training"


def test_the_manifest_says_what_the_set_was_made_of(lake: TrainingLake) -> None:
    job = lake.job()
    manifest = save(job, "tips").manifest
    definitions = read_definitions(lake.snapshot)
    assert (manifest.source_snapshot, manifest.snapshot) == (2, 3)
    assert manifest.tables == {"warehouse.trips": lake.snapshot.table(TRIPS).version}
    assert manifest.definitions == definitions.sha256
    assert manifest.service == "tips@1"
    assert [taken.view for taken in manifest.projections] == ["last_trip", "demand"]
    assert manifest.projections[1].join_keys == {"zone": "to"}
    assert manifest.projections[1].prefix == "to"
    assert manifest.views == {name: view.version for name, view in definitions.views.items()}
    assert manifest.options.timestamp == "event_timestamp"
    assert manifest.report["views"][0]["spine_rows"] == 40
    assert manifest.transforms == ()
    assert set(manifest.written_by) >= {"penstock", "pyarrow"}
    assert manifest.spine.sha256 == content_sha256(spine())


def test_statistics_tell_ranges_of_numbers_and_nothing_of_texts(lake: TrainingLake) -> None:
    frame = spine(4, big=[2**63 - 1, 2**62, None, -1], far=[math.inf, math.nan, -1.5, None], none=pa.nulls(4))
    kept = save(lake.job(frame), "tips")
    found = {column.name: column for column in kept.manifest.columns}
    assert (found["big"].min, found["big"].max, found["big"].nulls) == (-1, 2**63 - 1, 1)
    assert found["big"].mean == pytest.approx(2**62, rel=1e-3)
    assert (found["far"].min, found["far"].max, found["far"].mean, found["far"].nans) == (
        -1.5,
        "Infinity",
        "Infinity",
        1,
    )
    assert (found["event_timestamp"].min, found["none"].nulls) == ("2020-01-02 00:00:00.000000Z", 4)
    assert (found["fare"].min, found["fare"].max) == ("1.40", "1.61")
    assert (found["name"].min, found["name"].max, found["name"].mean) == (None, None, None)
    assert [c.sha256 for c in kept.manifest.columns if c.name == "label"]


def test_private_columns_have_no_statistics(lake: TrainingLake) -> None:
    secret = TableSchema(tuple(ColumnSchema(name, type_) for name, type_ in TYPES.items()), no_stats=("fare", "zone"))
    files = lake.snapshot.files(TRIPS)
    lake.catalog.publish(
        lake.snapshot, Change("promote", "pii", tables={TRIPS: TableChange(secret, files, remove=None)})
    )
    kept = save(lake.job(), "tips")
    found = {column.name: column for column in kept.manifest.columns}
    for name in ("fare", "to__fare_1d", "zone"):
        assert found[name].private
        assert (found[name].min, found[name].max, found[name].mean) == (None, None, None)
    assert not found["to"].private
    log = (lake.root / "lake/training/tips/_delta_log/00000000000000000001.json").read_text()
    assert '\\"to\\"' in log
    assert '\\"fare\\"' not in log
    assert kept.reproduce().same


ODD = {
    "u8": pa.array([1, None, 255], pa.uint8()),
    "u64": pa.array([1, None, 2**64 - 1], pa.uint64()),
    "coded": pa.array(["a", None, "b"]).cast(pa.dictionary(pa.int8(), pa.string())),
    "coded_int": pa.array([5, None, 6]).dictionary_encode(),
    "nanos": pa.array([1000, None, 2000]).cast(pa.timestamp("ns", "Europe/Berlin")),
    "seconds": pa.array([1000, None, -2000]).cast(pa.timestamp("s")),
    "empty": pa.nulls(3),
    "fixed": pa.array([b"ab", None, b"cd"], pa.binary(2)),
    "large": pa.array(["x", None, ""], pa.large_string()),
    "view": pa.array(["x", None, "longer than what a view holds inline"], pa.string_view()),
    "date64": pa.array([dt.date(2020, 1, 1), None, dt.date(1900, 1, 1)], pa.date64()),
    "wide": pa.array([Decimal("1.25"), None, Decimal("-2.00")], pa.decimal256(20, 2)),
    "float": pa.array([math.nan, -0.0, None], pa.float32()),
    "list": pa.array([[1], None, [None]], pa.large_list(pa.uint32())),
    "pairs": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.float32(), 2)),
    "map": pa.array([[("a", 1)], None, []], pa.map_(pa.large_string(), pa.int8())),
    "struct": pa.array(
        [{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}],
        pa.struct([("a", pa.uint8()), ("b", pa.list_(pa.large_string()))]),
    ),
    'a name, with "signs" = {;}': pa.array([1, 2, 3]),
}


def test_columns_of_types_that_delta_does_not_know_come_back_as_they_were(lake: TrainingLake) -> None:
    frame = spine(3, **ODD)
    job = lake.job(frame)
    kept = save(job, "tips")
    assert kept.spine().schema.equals(frame.schema)
    assert kept.to_arrow().schema.equals(job.to_arrow().schema)
    assert content_sha256(kept.to_arrow()) == content_sha256(job.to_arrow())
    assert kept.spine().to_pylist()[1:2] == frame.to_pylist()[1:2]
    assert kept.reproduce().same


@pytest.mark.parametrize(
    "column",
    [
        pa.array([dt.time(1), None, None]),
        pa.array([dt.timedelta(1), None, None]),
        pa.array([np.float16(1), None, None], pa.float16()),
        pa.array([1, None, None], pa.decimal256(40, 2)),
        pa.array([[None], None, None], pa.list_(pa.null())),
        pa.array([{"t": dt.time(1)}, None, None]),
        pa.array([[1], None, None], pa.list_view(pa.int8())),
    ],
    ids=lambda column: str(column.type),
)
def test_what_cannot_be_stored_exactly_is_refused_by_name(lake: TrainingLake, column: pa.Array) -> None:
    job = lake.job(spine(3, odd=column))
    told = refused(RequestError, lambda: save(job, "tips"))
    assert f"'odd' ({column.type})" in told
    assert "leave them out of the spine" in told
    assert job._done is None  # nothing was computed for it
    assert lake.catalog.latest().number == 2


def test_values_and_names_that_cannot_be_stored_are_refused(lake: TrainingLake) -> None:
    def attempt(**columns):
        before = sorted((lake.root / "lake").rglob("*.parquet"))
        told = refused(RequestError, lambda: save(lake.job(spine(2, **columns)), "tips"))
        assert sorted((lake.root / "lake").rglob("*.parquet")) == before
        return told

    assert "'odd' has a value" in attempt(odd=pa.array([1, 1000]).cast(pa.timestamp("ns")))
    assert "'odd' has a value" in attempt(odd=pa.array([2**60, 0]).cast(pa.timestamp("s")))
    assert "'_row'" in attempt(_row=[1, 2])
    assert "'Label' can't be stored together" in attempt(Label=[1, 2])
    assert training_sets(lake.lake) == []


def test_a_pandas_spine_is_kept_too(lake: TrainingLake) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"zone": [1, 2], "to": [3, 4], "kind": pd.Categorical(["x", "y"])})
    frame["event_timestamp"] = pd.to_datetime(["2020-01-02T10:00:00Z", "2020-01-02T11:00:00Z"])
    kept = save(lake.job(frame), "tips")
    assert kept.reproduce().same
    assert kept.to_pandas()["kind"].tolist() == ["x", "y"] == kept.to_df()["kind"].tolist()


def test_a_set_without_rows_is_a_set(lake: TrainingLake) -> None:
    kept = save(lake.job(spine(0)), "tips")
    assert same(kept.to_arrow(), lake.job(spine(0)).to_arrow())
    assert kept.reproduce().same
    assert "without rows" in refused(RequestError, kept.split)
    assert save(lake.job(), "tips").to_arrow().num_rows == 40
    assert training_set(lake.lake, "tips", 1).to_arrow().num_rows == 0


def test_rows_of_several_files_and_groups_stay_in_order(lake: TrainingLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.training_files._FILE_ROWS", 15)
    monkeypatch.setattr("featurestore.training_files._GROUP_ROWS", 4)
    kept = save(lake.job(), "tips")
    assert len(paths(lake, "training.tips")) == 3
    assert same(kept.to_arrow(), lake.job().to_arrow())
    assert kept.spine().equals(spine())
    # Somebody rewrites the table in another order: the rows still come back in theirs, at that snapshot too.
    lake.compact(TableName("training", "tips"), reverse=True)
    moved = msgspec.structs.replace(kept.manifest, snapshot=lake.snapshot.number)
    assert same(TrainingSet(lake.catalog, lake.lake.settings, moved).to_arrow(), kept.to_arrow())


# -- versions ------------------------------------------------------------------------------------------------------


def test_versions_count_up_and_older_ones_stay_readable(lake: TrainingLake) -> None:
    first = save(lake.job(), "tips")
    before = first.to_arrow()
    lake.append(trips(30, 40), table=TRIPS)
    second = save(lake.job(spine(20, extra=["x"] * 20), features=["last_trip:fare"]), "tips")
    third = save(lake.job(), "Tips", version=7)
    fourth = save(lake.job(), "tips")
    assert [each.version for each in (first, second, third, fourth)] == [1, 2, 7, 8]
    assert same(training_set(lake.lake, "tips", 1).to_arrow(), before)
    assert second.to_arrow().column_names == ["zone", "to", "event_timestamp", "label", "extra", "fare"]
    assert training_set(lake.lake, "tips").version == 8
    rows = training_sets(lake.lake)
    assert [(row["name"], row["version"], row["rows"], row["service"]) for row in rows] == [
        ("tips", 1, 40, "tips@1"),
        ("tips", 2, 20, None),
        ("tips", 7, 40, "tips@1"),
        ("tips", 8, 40, "tips@1"),
    ]


def test_a_taken_version_and_bad_names_are_refused_before_anything_is_computed(lake: TrainingLake) -> None:
    save(lake.job(), "tips")
    job = lake.job()
    told = refused(RequestError, lambda: save(job, "tips", version=1))
    assert "a version 1 of training set 'tips' already" in told
    assert "The next is 2" in told
    for version in (0, -1, "1", 1.0, True):
        assert "count up from 1" in refused(RequestError, partial(save, job, "tips", version=version))
    for name in ("", "2020", "a b", "tips__spine", "a.b", "../x", 5, None):
        assert "can't be the name" in refused(RequestError, partial(save, job, name))
    assert "keep: 'soon'" in refused(RequestError, lambda: save(job, "tips", keep="soon"))
    assert job._done is None


def test_unknown_sets_and_versions_are_told_with_what_there_is(lake: TrainingLake) -> None:
    assert "no training sets yet" in refused(RequestError, lambda: training_set(lake.lake, "tips"))
    save(lake.job(), "tips")
    assert "Did you mean tips?" in refused(RequestError, lambda: training_set(lake.lake, "tps"))
    assert "Versions: 1." in refused(RequestError, lambda: training_set(lake.lake, "tips", 4))
    assert "'x' is no version" in refused(RequestError, lambda: training_set(lake.lake, "tips@x"))
    assert "None can't be the name" in refused(RequestError, lambda: training_set(lake.lake, None))
    for version in (1.0, "1", True, 0):
        assert "count up from 1" in refused(RequestError, partial(training_set, lake.lake, "tips", version))


def test_a_view_knows_the_sets_that_were_made_with_it(lake: TrainingLake) -> None:
    save(lake.job(), "tips")
    save(lake.job(features=["last_trip:fare"]), "fares")
    assert users_of_view(lake.lake, "demand") == ["training set tips@1"]
    assert users_of_view(lake.lake, "last_trip") == ["training set fares@1", "training set tips@1"]
    assert users_of_view(lake.lake, "other") == []


# -- races and crashes ---------------------------------------------------------------------------------------------


def at_point(point: str, act):
    """A failpoint that acts once."""
    waiting = [act]

    def failpoint(name: str) -> None:
        if name == point and waiting:
            waiting.pop()()

    return failpoint


def test_who_loses_a_race_for_a_version_is_told(lake: TrainingLake) -> None:
    job = lake.job(failpoint=at_point("published", lambda: save(lake.job(), "tips", version=1)))
    told = refused(ConflictError, lambda: save(job, "tips", version=1))
    assert "another process saved version 1" in told
    assert training_set(lake.lake, "tips").reproduce().same
    assert save(lake.job(), "tips").version == 2


@pytest.mark.parametrize("point", ["staged", "committed", "published"])
def test_savers_at_the_same_time_get_versions_of_their_own(lake: TrainingLake, point: str) -> None:
    small = spine(6)
    job = lake.job(failpoint=at_point(point, lambda: save(lake.job(small), "tips")))
    kept = save(job, "tips")
    other = training_set(lake.lake, "tips", 1)
    assert (kept.version, other.version) == (2, 1)
    assert (kept.to_arrow().num_rows, other.to_arrow().num_rows) == (40, 6)
    assert other.spine().equals(small)
    assert kept.spine().equals(spine())


def test_many_threads_save_without_loss(lake: TrainingLake) -> None:
    jobs = [lake.job(spine(5 + place)) for place in range(4)]
    threads = [threading.Thread(target=save, args=(job, "tips")) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = training_sets(lake.lake)
    assert [row["version"] for row in rows] == [1, 2, 3, 4]
    assert sorted(training_set(lake.lake, "tips", row["version"]).to_arrow().num_rows for row in rows) == [5, 6, 7, 8]


class Killed(BaseException):
    """What no code of ours catches."""


def killed() -> None:
    raise Killed


@pytest.mark.parametrize("point", ["staged", "committed", "published"])
def test_a_save_that_is_killed_leaves_everything_usable(lake: TrainingLake, point: str) -> None:
    first = save(lake.job(), "tips")
    with pytest.raises(Killed):
        save(lake.job(spine(6), failpoint=at_point(point, killed)), "tips")
    assert [row["version"] for row in training_sets(lake.lake)] == [1]
    assert first.to_arrow().num_rows == 40
    second = save(lake.job(spine(8)), "tips")
    assert (second.version, second.to_arrow().num_rows, first.to_arrow().num_rows) == (2, 8, 40)
    assert lake.lake.sql("select count(*) from training.tips").fetchall() == [(8,)]


def test_pins_that_a_killed_save_left_out_are_made_by_the_next(
    lake: TrainingLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Pins, "pin", lambda *_, **__: killed())
        with pytest.raises(Killed):
            save(lake.job(), "tips")
    assert Pins(lake.storage).list() == []
    save(lake.job(), "tips")
    names = [pin.name for pin in Pins(lake.storage).list()]
    assert sorted(names) == ["training.tips@1", "training.tips@1.inputs", "training.tips@2", "training.tips@2.inputs"]


def test_pins_keep_the_set_for_ever_and_its_inputs_for_a_while(lake: TrainingLake) -> None:
    kept = save(lake.job(), "tips", keep="7d")
    save(lake.job(), "tips", keep=None)
    pins = {pin.name: pin for pin in Pins(lake.storage).list()}
    own, inputs, for_ever = (pins[f"training.tips@{end}"] for end in ("1", "1.inputs", "2.inputs"))
    assert (own.snapshot, own.keep_until) == (kept.manifest.snapshot, None)
    assert own.tables == ("training.tips", "training.tips__spine")
    assert (inputs.snapshot, inputs.tables) == (kept.manifest.source_snapshot, ())
    assert inputs.keep_until == kept.manifest.keep_until
    assert dt.datetime.fromisoformat(inputs.keep_until) - kept.manifest.instant == dt.timedelta(days=7)
    assert for_ever.keep_until is None


def test_a_rollback_takes_no_set_away(lake: TrainingLake) -> None:
    before = lake.snapshot
    kept = save(lake.job(), "tips")
    lake.catalog.roll_back(before)
    assert TableName("training", "tips") not in lake.snapshot.tables
    assert same(training_set(lake.lake, "tips").to_arrow(), kept.to_arrow())
    assert kept.reproduce().same
    again = save(lake.job(spine(4)), "tips")
    assert (again.version, again.to_arrow().num_rows) == (2, 4)
    assert same(training_set(lake.lake, "tips", 1).to_arrow(), kept.to_arrow())


# -- made again ----------------------------------------------------------------------------------------------------


def test_a_set_reproduces_whatever_comes_later(lake: TrainingLake) -> None:
    kept = save(lake.job(full_feature_names=True, corrections="latest"), "tips")
    lake.append(trips(20, 50), table=TRIPS)  # late rows, which do change the answer
    lake.compact(TRIPS)
    again = kept.reproduce()
    assert (again.same, again.got, again.differences, again.gone) == (True, kept.manifest.content.sha256, (), ())
    assert "tips@1 reproduces" in str(again)
    newer = save(lake.job(full_feature_names=True, corrections="latest"), "tips")
    assert newer.manifest.content.sha256 != kept.manifest.content.sha256
    assert newer.reproduce().same
    assert training_set(lake.lake, "tips", 1).reproduce().same


def test_a_set_reproduces_with_the_definitions_that_it_was_made_with(lake: TrainingLake) -> None:
    kept = save(lake.job(), "tips")
    other = FeatureView(
        "demand", source=DEMAND.source, entities=[ZONE], event_timestamp="seen", features=[Feature("fare")]
    )
    replaced = [ZONE, LAST, other, FeatureService("tips", features=[LAST, other.on(zone="to", prefix="to")])]
    apply_definitions(lake.catalog, lake.lake.settings, replaced)
    assert kept.reproduce().same
    assert "to__fare" in lake.job().to_arrow().column_names


def test_naive_times_are_read_again_in_their_zone(lake: TrainingLake) -> None:
    frame = spine(10)
    local = frame.column("event_timestamp").cast(pa.timestamp("us"))
    frame = frame.set_column(2, "event_timestamp", local)
    kept = save(lake.job(frame, timezone="America/New_York"), "tips")
    assert kept.manifest.options.timezone == "America/New_York"
    assert kept.reproduce().same
    split = kept.split()
    assert split.cutoffs.test == dt.datetime(2020, 1, 2, 9, tzinfo=dt.UTC)  # 04:00 in New York


def test_a_difference_is_told_by_column_and_rows(lake: TrainingLake, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = save(lake.job(), "tips")
    real = RetrievalJob.to_arrow

    def other(job: RetrievalJob) -> pa.Table:
        table = real(job)
        fares = table.column("fare").to_pylist()
        fares[3:5] = [Decimal("9.99"), Decimal("9.99")]
        table = table.set_column(4, "fare", pa.array(fares, pa.decimal128(10, 2)))
        table = table.set_column(6, "rate", table.column("rate").cast(pa.float32()))
        return table.drop_columns(["name"]).append_column("more", table.column("zone"))

    monkeypatch.setattr(RetrievalJob, "to_arrow", other)
    again = kept.reproduce()
    assert not again.same
    told = {each.column: (each.rows, each.note) for each in again.differences}
    assert told == {
        "fare": (2, ""),
        "name": (None, "it is gone"),
        "rate": (None, "it was double and is float"),
        "more": (None, "it is new"),
    }
    assert "fare: 2 rows\n" in str(again)
    assert "\n  the saved rows are whole\n  go on with these: a file of warehouse.trips may" in str(again)
    assert re.search(r"saved by penstock \S+, duckdb .*Restore the files from a copy; or .* --save tips$", str(again))
    monkeypatch.setattr(RetrievalJob, "to_arrow", lambda job: real(job).slice(1))
    assert {each.note for each in kept.reproduce().differences} == {"it had 40 rows and has 39"}
    monkeypatch.setattr(RetrievalJob, "to_arrow", lambda job: real(job).select([*reversed(real(job).column_names)]))
    assert [each.note for each in kept.reproduce().differences] == ["the columns come in another order"]


def test_what_is_gone_is_said_and_the_set_stays(lake: TrainingLake) -> None:
    kept = save(lake.job(), "tips")
    (first, second) = paths(lake, "warehouse.trips")
    first.rename(first.with_suffix(".away"))
    again = kept.reproduce()
    assert (again.same, again.got) == (False, None)
    assert again.gone == (f"warehouse.trips at snapshot 2: the file warehouse/trips/{first.name} is missing",)
    assert str(again).startswith("tips@1 can't be reproduced\n")
    assert re.search(r"\n  the saved rows are whole\n  restore what is missing .* --save tips$", str(again))
    second.unlink()
    assert "and 1 more" in kept.reproduce().gone[0]
    assert kept.to_arrow().num_rows == 40
    definitions = lake.root / "lake/_catalog/objects" / kept.manifest.definitions
    data = definitions.read_bytes()
    definitions.unlink()
    assert "an object of the catalog is missing" in kept.reproduce().gone[0]
    definitions.write_bytes(data)
    (lake.root / "lake/_catalog/log/2.json").unlink()
    assert "snapshot" in kept.reproduce().gone[0]


VALUES = st.none() | st.sampled_from([0.0, -0.0, math.nan, 1.5])
COLUMNS = {
    pa.float64(): VALUES,
    pa.string(): st.none() | st.sampled_from(["", "a", "b"]),
    pa.list_(pa.float64()): st.none() | st.lists(VALUES, max_size=2),
    pa.list_(pa.float64(), 1): st.none() | st.lists(VALUES, min_size=1, max_size=1),
    pa.struct([("x", pa.float64())]): st.none() | st.fixed_dictionaries({"x": VALUES}),
    pa.map_(pa.string(), pa.float64()): st.none() | st.lists(st.tuples(st.sampled_from("ab"), VALUES), max_size=2),
    pa.list_(pa.struct([("x", pa.list_(pa.float64()))])): st.none()
    | st.lists(st.none() | st.fixed_dictionaries({"x": st.none() | st.lists(VALUES, max_size=2)}), max_size=2),
    pa.null(): st.none(),
}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_rows_differ_where_their_hashes_do(data) -> None:
    kind, values = data.draw(st.sampled_from(list(COLUMNS.items())))
    pairs = data.draw(st.lists(st.tuples(values, values), max_size=6))
    one, other = (pa.chunked_array([pa.array([pair[side] for pair in pairs], kind)]) for side in (0, 1))
    hashes = [
        [content_sha256(pa.table({"c": column[row : row + 1]})) for row in range(len(pairs))] for column in (one, other)
    ]
    chunks = pa.chunked_array([one[:2].chunk(0), one[2:].chunk(0)]) if len(pairs) > 2 else one
    assert differing_rows(chunks, other) == sum(a != b for a, b in zip(*hashes, strict=True))


# -- splits --------------------------------------------------------------------------------------------------------


def test_a_split_cuts_by_time_and_is_recorded(lake: TrainingLake) -> None:
    kept = save(lake.job(), "tips")  # 40 rows, two per hour
    split = kept.split(test=0.2, validation=0.1)
    assert split.rows == {"train": 28, "validation": 4, "test": 8}
    assert split.cutoffs.validation == START + dt.timedelta(days=1) + 14 * HOUR
    assert split.cutoffs.test == START + dt.timedelta(days=1) + 16 * HOUR
    whole = kept.to_arrow()
    parts = [split.train.to_arrow(), split.validation.to_arrow(), split.test.to_arrow()]
    assert content_sha256(pa.concat_tables(parts)) == content_sha256(whole)  # this set is in the order of time
    assert "train 28, validation 4, test 8 rows; validation from 2020-01-02T14:00:00.000000Z" in repr(split)
    kept.split(test=0.2, validation=0.1)
    kept.split()
    kept.split(at="2020-01-02T10:00:00Z")
    again = training_set(lake.lake, "tips").splits
    assert sorted(each.rows["test"] for each in again) == [8, 8, 20]
    assert {"by time: train 32, test 8 rows; test from 2020-01-02T16:00:00.000000Z"} <= {
        line.split("split", 1)[1].strip() for line in kept.to_text().splitlines() if "split" in line
    }
    assert training_sets(lake.lake)[0]["version"] == 1


def test_a_split_may_name_the_instants(lake: TrainingLake) -> None:
    kept = save(lake.job(), "tips")
    zone = dt.timezone(-5 * HOUR)
    cutoffs = ("2020-01-02", dt.datetime(2020, 1, 2, 0, 0, 0, 1, tzinfo=zone))
    split = kept.split(at=cutoffs)
    assert split.rows == {"train": 0, "validation": 12, "test": 28}  # 05:00 UTC itself is before the cutoff
    assert kept.split(at=dt.datetime(2021, 1, 1, tzinfo=dt.UTC)).rows["test"] == 0
    assert "without a zone" in refused(RequestError, lambda: kept.split(at=dt.datetime(2020, 1, 2)))  # noqa: DTZ001
    assert "two ascending" in refused(RequestError, lambda: kept.split(at=["2020-01-03", "2020-01-02"]))
    assert "two ascending" in refused(RequestError, lambda: kept.split(at=[]))
    assert "not both" in refused(RequestError, lambda: kept.split(0.3, at="2020-01-02"))
    assert "no instant" in refused(RequestError, lambda: kept.split(at=[5]))


def test_splits_that_cannot_be_are_refused(lake: TrainingLake) -> None:
    kept = save(lake.job(), "tips")
    assert "is no fraction" in refused(RequestError, lambda: kept.split(1.0))
    assert "is no fraction" in refused(RequestError, lambda: kept.split(math.nan))
    assert "nothing to learn from" in refused(RequestError, lambda: kept.split(0.5, 0.5))
    assert "split nothing off" in refused(RequestError, lambda: kept.split(0.0))
    assert kept.split(0.0, 0.25).rows == {"train": 30, "validation": 10, "test": 0}
    assert "train part would be empty" in refused(RequestError, lambda: kept.split(0.99))
    one = save(lake.job(spine(2)), "tips")
    assert "1 instant" in refused(RequestError, one.split)
    assert "at=5 is no instant" in refused(RequestError, lambda: one.split(at=5))
    times = pa.array([None, START, None], pa.timestamp("us", "UTC"))
    nulls = save(lake.job(spine(3).set_column(2, "event_timestamp", times)), "tips")
    assert "2 rows of tips@3 have no event_timestamp" in refused(RequestError, nulls.split)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-3, 12) | st.integers(-(2**40), 2**40), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.1, 0.2, 1 / 3, 0.5, 0.9]),
    st.sampled_from([0.0, 0.05, 0.2, 0.3]),
)
def test_every_row_is_in_exactly_one_part_and_no_instant_on_two_sides(instants, test, validation) -> None:
    times = np.array(instants, np.int64)
    table = pa.table({"row": range(len(instants)), "at": instants})
    try:
        split = cut(table, times, time_cutoffs(times, test=test, validation=validation))
    except RequestError:
        total = Fraction(str(test)) + Fraction(str(validation))
        later = math.ceil(total * len(times))
        ordered = sorted(instants)
        empty_train = 0 < total < 1 and ordered[len(times) - later] == ordered[0]
        first_test = math.ceil(Fraction(str(test)) * len(times))
        tied = 0 < test < 1 and validation and ordered[len(times) - later] == ordered[len(times) - first_test]
        assert empty_train or tied or not 0 < total < 1
        return
    parts = [part.to_arrow().to_pylist() for part in (split.train, split.validation, split.test)]
    assert sorted(row["row"] for part in parts for row in part) == list(range(len(instants)))
    for part in parts:
        assert [row["row"] for row in part] == sorted(row["row"] for row in part)
    reached = [[row["at"] for row in part] for part in parts if part]
    for earlier, later in pairwise(reached):
        assert max(earlier) < min(later)
    sizes = [len(part) for part in parts]
    assert sizes[2] >= Fraction(str(test)) * len(instants)
    if test:  # no larger than it must be: without the rows of its first instant it would be too small
        first = min(row["at"] for row in parts[2])
        assert sizes[2] - instants.count(first) < Fraction(str(test)) * len(instants)


# -- damage --------------------------------------------------------------------------------------------------------


def test_damage_of_files_is_seen_when_they_are_read(lake: TrainingLake) -> None:
    kept = save(lake.job(), "tips")
    (path,) = paths(lake, "training.tips")
    data = path.read_bytes()
    for place in range(4, len(data) - 8, max(1, len(data) // 40)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            assert content_sha256(kept.to_arrow()) == kept.manifest.content.sha256  # it hit what nobody reads
        except CatalogDamagedError as error:
            assert "training.tips at snapshot 3" in str(error)  # noqa: PT017 - either is right
    path.write_bytes(data[: len(data) // 2])
    assert "can't be read" in refused(CatalogDamagedError, kept.to_arrow)
    path.unlink()
    assert "is missing" in refused(CatalogDamagedError, kept.to_arrow)
    again = kept.reproduce()
    assert again.same  # the spine and the inputs are there
    assert f"{path.name} is missing" in str(again.unreadable)
    assert re.search(r"the saved rows are lost: .*\n  restore their files .* --save tips --as-of 2$", str(again))
    (spine,) = paths(lake, "training.tips__spine")
    spine.unlink()
    again = kept.reproduce()
    assert (again.same, again.got) == (False, None)
    assert re.search(rf"{spine.name} is missing\n  the saved rows are lost: .*{path.name} is missing", str(again))


def test_another_file_in_place_of_the_saved_one_is_seen(lake: TrainingLake) -> None:
    kept = save(lake.job(), "tips")
    other = save(lake.job(features=["last_trip:fare", "last_trip:name"]), "other")
    (path,), (wrong,) = paths(lake, "training.tips"), paths(lake, "training.other")
    path.write_bytes(wrong.read_bytes())
    refused(CatalogDamagedError, kept.to_arrow)
    assert other.reproduce().same


def test_damage_of_manifests_is_seen(lake: TrainingLake) -> None:
    save(lake.job(), "tips").split()
    path = manifest_path(lake)
    text = path.read_text()
    path.write_text(text.replace('"source_snapshot": 2', '"source_snapshot": 1'))
    assert "does not match its hash" in refused(CatalogDamagedError, lambda: training_set(lake.lake, "tips"))
    path.write_text(text[:500])
    assert "cannot be read" in refused(CatalogDamagedError, lambda: training_sets(lake.lake))
    path.write_text(json.dumps({"min_reader": 99}))
    assert "format 99" in refused(FormatTooNewError, lambda: users_of_view(lake.lake, "demand"))
    path.write_text(text)
    manifest_path(lake, 2).write_text(text)
    assert "is of the training set tips@1" in refused(CatalogDamagedError, lambda: training_set(lake.lake, "tips", 2))
    manifest_path(lake, 2).unlink()
    (split,) = path.parent.glob("1.split-*.json")
    split.write_text("{}")
    assert "1.split-" in refused(CatalogDamagedError, lambda: training_set(lake.lake, "tips").show())


# -- for people ----------------------------------------------------------------------------------------------------


def test_a_set_says_what_it_is(lake: TrainingLake, capsys: pytest.CaptureFixture[str]) -> None:
    kept = save(lake.job(), "tips")
    kept.split()
    kept.show()
    text = capsys.readouterr().out
    assert text == repr(kept) + "\n"
    for part in ("tips@1: 40 rows, 10 columns", "tips@1, as of snapshot 2", kept.manifest.content.sha256, "by time: "):
        assert part in text
    page = kept._repr_html_()
    assert page.startswith("<table><caption>training set tips@1: 40 rows, 10 columns</caption>")
    assert kept.manifest.content.sha256 in page


def test_the_job_itself_saves(lake: TrainingLake) -> None:
    assert lake.job().save("tips", keep=None).manifest.keep_until is None


# -- as users type it ----------------------------------------------------------------------------------------------


def test_a_store_saves_and_lists_and_sets_outlive_their_views(lake: TrainingLake) -> None:
    store = FeatureStore(lake.root / "lake")
    kept = store.get_historical_features(spine(), "tips").save("tips")
    assert kept.manifest.service == "tips@1"
    assert store.training_set("tips").reproduce().same
    assert [row["name"] for row in store.training_sets()] == ["tips"]
    told = store.apply([ZONE, LAST], prune=True).consequences
    assert "training set tips@1 was made with feature view demand, and keeps its definition" in told
    assert store.training_set("tips").reproduce().same


def test_newer_definitions_on_older_data_reproduce(lake: TrainingLake) -> None:
    store = FeatureStore(lake.root / "lake")
    before = lake.snapshot.number
    lake.append(trips(80, 10), table=TRIPS)
    newer = replace(LAST, ttl="1h")
    store.apply([ZONE, newer, DEMAND, replace(TIPS, features=[newer])])
    job = store.get_historical_features(spine(), ["last_trip:fare"], as_of=before, definitions="latest")
    kept = job.save("tips")
    assert kept.manifest.source_snapshot == before
    assert (
        kept.manifest.definitions
        == read_definitions(lake.snapshot).sha256
        != read_definitions(lake.catalog.snapshot(before)).sha256
    )
    assert kept.reproduce().same
