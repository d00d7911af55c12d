from __future__ import annotations

import datetime as dt
import multiprocessing
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lakehouse import Lake
from lakehouse.catalog import Catalog, Change, Snapshot, TableChange
from lakehouse.delta import ColumnSchema, DataFile, TableSchema, measure
from lakehouse.errors import (
    CatalogDamagedError,
    ConflictError,
    ForeignCommitError,
    ProjectError,
    RequestError,
    UnknownSnapshotError,
    UnknownTableError,
)
from lakehouse.storage import Storage
from lakehouse.types import TableName

T, U = TableName("warehouse", "t"), TableName("warehouse", "u")
SCHEMA = TableSchema((ColumnSchema("a", "BIGINT"),))
WIDER = TableSchema((*SCHEMA.columns, ColumnSchema("b", "VARCHAR")))


class Clock:
    def __init__(self) -> None:
        self.now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(seconds=1)
        return self.now


class StoppedError(Exception):
    """Stands for a process that dies."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(tmp_path: Path, clock: Clock) -> Catalog:
    catalog = Catalog(Storage(tmp_path / "lake"), clock=clock)
    catalog.create()
    return catalog


def write(storage: Storage, name: str, table: TableName = T) -> DataFile:
    path = f"{table.schema}/{table.name}"
    pq.write_table(pa.table({"a": [len(name)]}), storage.prepare(f"{path}/{name}"))
    return measure(storage, path, name, SCHEMA)


def add(catalog: Catalog, *names: str, table: TableName = T, base: Snapshot | None = None, schema=SCHEMA) -> Snapshot:
    files = tuple(write(catalog.storage, name, table) for name in names)
    change = Change("land", f"add {' '.join(names)}", tables={table: TableChange(schema, files)})
    return catalog.publish(base or catalog.latest(), change)


def paths(snapshot: Snapshot, table: TableName = T) -> list[str]:
    return [file.path for file in snapshot.files(table)]


def stopping_at(catalog: Catalog, point: str) -> Catalog:
    def stop(reached: str) -> None:
        if reached == point:
            raise StoppedError(reached)

    return Catalog(catalog.storage, clock=catalog.clock, failpoint=stop)


# -- publishing and reading ---------------------------------------------------------------------------------------------


def test_a_publish_is_the_next_snapshot_and_changes_no_older_one(catalog):
    one, two = add(catalog, "1"), add(catalog, "2")
    assert [one.number, two.number] == [1, 2]
    assert paths(two) == ["1", "2"]
    assert paths(catalog.snapshot(1)) == ["1"]
    assert catalog.snapshot(0).tables == ()
    assert (two.table(T).files, two.table(T).rows) == (2, 2)
    assert two.entry.parent_sha256 == one.entry.sha256


def test_creating_twice_changes_nothing(catalog):
    add(catalog, "1")
    catalog.create(purpose="other")
    assert catalog.latest().number == 1
    assert catalog.purpose == "lake"


def test_no_lake(tmp_path):
    with pytest.raises(ProjectError, match="no lake"):
        Catalog(Storage(tmp_path)).latest()


def test_files_can_go(catalog):
    add(catalog, "1", "2")
    gone = catalog.publish(
        catalog.latest(), Change("promote", "", tables={T: TableChange(SCHEMA, remove=frozenset({"1"}))})
    )
    assert paths(gone) == ["2"]
    replaced = catalog.publish(
        gone, Change("promote", "", tables={T: TableChange(SCHEMA, (write(catalog.storage, "3"),), remove=None)})
    )
    assert paths(replaced) == ["3"]
    assert paths(catalog.snapshot(1)) == ["1", "2"]


def test_a_column_can_be_added(catalog):
    one = add(catalog, "1")
    two = add(catalog, "2", schema=WIDER)
    assert two.schema(T) == WIDER
    assert catalog.snapshot(one.number).schema(T) == SCHEMA
    assert paths(two) == ["1", "2"]


def test_a_table_that_is_not_there_names_near_ones(catalog):
    with pytest.raises(UnknownTableError, match=r"warehouse\.tt at snapshot 1"):
        add(catalog, "1").table(TableName("warehouse", "tt"))


# -- as of --------------------------------------------------------------------------------------------------------------


def test_resolve_by_number_tag_and_time(catalog):
    one, two = add(catalog, "1"), add(catalog, "2")
    catalog.tag("first", 1)
    catalog.tag("first", 1)
    assert catalog.resolve(None).number == 2
    assert [catalog.resolve(ref).number for ref in (1, "1", " 1 ", "first")] == [1] * 4
    step = dt.timedelta(microseconds=1)
    at = two.entry.instant
    assert [catalog.resolve(instant).number for instant in (at - step, at, at + step, one.entry.instant)] == [
        1,
        2,
        2,
        1,
    ]
    assert catalog.resolve(two.entry.at).number == 2
    assert catalog.resolve(at.astimezone(dt.timezone(dt.timedelta(hours=9)))).number == 2


@pytest.mark.parametrize("ref", [7, "7", "tag", "2001-01-01", "2100-01-01", dt.datetime(2001, 1, 1, tzinfo=dt.UTC)])
def test_what_is_not_there(catalog, ref):
    with pytest.raises(UnknownSnapshotError):
        catalog.resolve(ref)


@pytest.mark.parametrize("ref", [-1, "-1", "", " ", "_x"])
def test_what_can_be_no_snapshot_is_told_what_can(catalog, ref):
    add(catalog, "1")
    with pytest.raises(
        UnknownSnapshotError, match=r"is no snapshot, tag or time\n  Give a .*\(0 to 1\), a tag, or a UTC"
    ):
        catalog.resolve(ref)


@pytest.mark.parametrize("ref", ["2026-99-99", dt.datetime(2026, 1, 1)])  # noqa: DTZ001 - that is the point
def test_what_is_no_time(catalog, ref):
    with pytest.raises(RequestError):
        catalog.resolve(ref)


@pytest.mark.parametrize(
    "ask",
    [
        lambda lake: lake.sql(5),
        lambda lake: lake.table(None),
        lambda lake: lake.scan(None),
        lambda lake: lake.history(5),
        lambda lake: lake.quarantine(None),
        lambda lake: lake.rollback(0, table=5),
        lambda lake: lake.tag(5),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path, ask):
    (tmp_path / "penstock.toml").touch()
    lake = Lake(tmp_path)
    lake.catalog.create()
    with pytest.raises(RequestError, match=r" is text, and this is (5|None)\n  Give a str, not (int|NoneType)\."):
        ask(lake)


def test_tags_stay_where_they_are(catalog):
    add(catalog, "1")
    catalog.tag("v1.0", 0)
    with pytest.raises(RequestError, match="snapshot 0 already"):
        catalog.tag("v1.0", 1)
    with pytest.raises(UnknownSnapshotError):
        catalog.tag("other", 99)
    catalog.delete_tag("v1.0")
    catalog.tag("v1.0", 1)
    assert catalog.tags() == {"v1.0": 1}
    with pytest.raises(UnknownSnapshotError, match="'x'"):
        catalog.delete_tag("x")


@pytest.mark.parametrize("name", ["1", "2026-01-01", "", "../x", "a/b", "é", "a b", "-x", ".x", "x\n"])
def test_names_that_cannot_be_tags(catalog, name):
    with pytest.raises(RequestError):
        catalog.tag(name, 0)


def test_a_clock_that_jumps_back_keeps_the_order(catalog, clock):
    one = add(catalog, "1")
    clock.now -= dt.timedelta(days=300)
    two = add(catalog, "2")
    assert two.entry.instant == one.entry.instant + dt.timedelta(microseconds=1)
    clock.now += dt.timedelta(days=600)
    assert catalog.resolve(one.entry.instant).number == 1
    assert catalog.resolve(two.entry.instant).number == 2


# -- rolling back -------------------------------------------------------------------------------------------------------


def test_rollback_is_a_new_snapshot_and_work_goes_on_from_it(catalog):
    one = add(catalog, "1")
    add(catalog, "2")
    back = catalog.roll_back(one)
    assert (back.number, paths(back), back.entry.kind) == (3, ["1"], "rollback")
    assert paths(add(catalog, "3")) == ["1", "3"]
    assert paths(catalog.snapshot(2)) == ["1", "2"]


def test_rollback_of_one_table_leaves_the_others(catalog):
    one = add(catalog, "1")
    add(catalog, "2")
    add(catalog, "u1", table=U)
    back = catalog.roll_back(one, table=T)
    assert (paths(back), paths(back, U)) == (["1"], ["u1"])
    with pytest.raises(RequestError, match="cannot be rolled back alone"):
        catalog.roll_back(one, table=TableName("raw", "t"))
    with pytest.raises(UnknownTableError):
        catalog.roll_back(one, table=U)


# -- races and crashes ----------------------------------------------------------------------------------------------------


def test_a_conflict_names_the_table_and_the_winner(catalog):
    base = catalog.latest()
    add(catalog, "1")
    with pytest.raises(ConflictError, match=r"warehouse\.t .* snapshot 1 \(land, add 1\)") as caught:
        add(catalog, "2", base=base)
    assert caught.value.exit_code == 75
    assert paths(catalog.latest()) == ["1"]


def test_disjoint_publishes_pass_each_other(catalog):
    base = catalog.latest()
    add(catalog, "1", base=base)
    both = add(catalog, "u1", table=U, base=base)
    assert (both.number, paths(both), paths(both, U)) == (2, ["1"], ["u1"])


def test_a_publish_between_commit_and_entry_is_retried(catalog):
    base = catalog.latest()
    done: list[int] = []

    def other(point: str) -> None:
        if point == "committed" and not done:
            done.append(add(catalog, "u1", table=U).number)

    racing = Catalog(catalog.storage, clock=catalog.clock, failpoint=other)
    late = add(racing, "1", base=base)
    assert done == [1]
    assert (late.number, paths(late), paths(late, U)) == (2, ["1"], ["u1"])


def test_the_loser_between_commit_and_entry_loses_nothing_of_the_winner(catalog):
    add(catalog, "0")
    base = catalog.latest()
    done: list[int] = []

    def other(point: str) -> None:
        if point == "committed" and not done:
            done.append(add(catalog, "winner").number)

    racing = Catalog(catalog.storage, clock=catalog.clock, failpoint=other)
    with pytest.raises(ConflictError):
        add(racing, "loser", base=base)
    assert paths(catalog.latest()) == ["0", "winner"]
    assert paths(add(catalog, "next")) == ["0", "next", "winner"]


@pytest.mark.parametrize("schema", [SCHEMA, WIDER])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("point", "visible"), [("staged", False), ("committed", False), ("published", True)])
def test_a_crash_shows_all_or_nothing_and_is_superseded(catalog, point, visible, first, schema):
    before = [] if first else paths(add(catalog, "0"))
    with pytest.raises(StoppedError):
        add(stopping_at(catalog, point), "lost", schema=schema)
    now = catalog.latest()
    expected = sorted([*before, *(["lost"] if visible else [])])
    assert (paths(now) if now.tables else []) == expected
    after = add(catalog, "next")
    assert paths(after) == sorted([*expected, "next"])
    assert after.schema(T) == SCHEMA
    assert paths(Catalog(catalog.storage, clock=catalog.clock).latest()) == paths(after)


def test_the_same_file_can_be_published_after_its_commit_was_lost(catalog):
    add(catalog, "0")
    with pytest.raises(StoppedError):
        add(stopping_at(catalog, "committed"), "again")
    assert paths(add(catalog, "again")) == ["0", "again"]


def test_somebody_elses_commit_is_never_undone_silently(catalog):
    from deltalake import write_deltalake

    one = add(catalog, "1")
    address = catalog.storage.address("warehouse/t")
    write_deltalake(address, pa.table({"a": pa.array([99], pa.int64())}), mode="append")
    assert paths(catalog.latest()) == ["1"]
    with pytest.raises(ForeignCommitError, match="Delta version") as caught:
        add(catalog, "2")
    assert "penstock rollback 1 --table warehouse.t (" in caught.value.hint
    assert paths(catalog.roll_back(one, table=T)) == ["1"]
    assert paths(add(catalog, "3")) == ["1", "3"]


@pytest.mark.parametrize("name", ["raw.s", "warehouse.new"])
def test_the_way_on_after_somebody_elses_commit_is_one_that_works(catalog, name):
    from deltalake import write_deltalake

    table = TableName.parse(name)
    folder = Path(catalog.storage.path(f"{table.schema}/{table.name}"))
    if table.schema == "raw":
        add(catalog, "1", table=table)
    write_deltalake(str(folder), pa.table({"a": pa.array([99], pa.int64())}), mode="append")
    with pytest.raises(ForeignCommitError) as caught:
        add(catalog, "2", table=table)
    if table.schema == "raw":
        first = catalog.latest().entry.tables[name].version + 1
        assert f"moving the files of raw/s/_delta_log from version {first} on away" in caught.value.hint
        for file in folder.glob("_delta_log/*.json"):
            if int(file.stem) >= first:
                file.unlink()
    else:
        assert "move it away" in caught.value.hint
        shutil.rmtree(folder)
    assert paths(add(catalog, "3", table=table), table)[-1] == "3"


# -- damage ---------------------------------------------------------------------------------------------------------------


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], flipped, lambda _: b"", lambda _: b"[]"])
def test_a_damaged_newest_entry_is_an_error_not_a_step_back(catalog, damage):
    add(catalog, "1")
    base = add(catalog, "2")
    entry = Path(catalog.storage.path("_catalog/log/2.json"))
    entry.write_bytes(damage(entry.read_bytes()))
    for attempt in (
        catalog.latest,
        lambda: catalog.resolve(None),
        lambda: add(catalog, "3", base=base),
        lambda: catalog.roll_back(base),
    ):
        with pytest.raises(CatalogDamagedError, match="snapshot 2") as caught:
            attempt()
        assert "newest good snapshot is 1" in caught.value.hint
    assert paths(catalog.resolve(1)) == ["1"]


def test_a_damaged_object_is_found(catalog):
    one = add(catalog, "1")
    place = Path(catalog.storage.path(f"_catalog/objects/{one.table(T).schema}"))
    place.write_bytes(flipped(place.read_bytes()))
    with pytest.raises(CatalogDamagedError, match="another hash"):
        catalog.latest().schema(T)
    place.unlink()
    with pytest.raises(CatalogDamagedError, match="missing"):
        catalog.latest().schema(T)


def test_a_cut_delta_log_is_found(catalog):
    add(catalog, "1")
    two = add(catalog, "2")
    commit = Path(catalog.storage.path(f"warehouse/t/_delta_log/{two.table(T).version:020d}.json"))
    commit.write_bytes(b"")
    with pytest.raises(CatalogDamagedError):
        catalog.latest().files(T)
    commit.unlink()
    with pytest.raises(CatalogDamagedError):
        catalog.latest().files(T)
    assert paths(catalog.snapshot(1)) == ["1"]


# -- processes ------------------------------------------------------------------------------------------------------------


def publish_many(root: str, table: TableName, prefix: str, count: int) -> None:
    catalog = Catalog(Storage(root))
    for n in range(count):
        file = write(catalog.storage, f"{prefix}{n}", table)
        while True:
            try:
                catalog.publish(catalog.latest(), Change("land", prefix, tables={table: TableChange(SCHEMA, (file,))}))
                break
            except ConflictError:
                continue


@pytest.mark.parametrize("tables", [(T, U), (T, T)])
def test_two_processes_lose_nothing(tmp_path, tables):
    catalog = Catalog(Storage(tmp_path))
    catalog.create()
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=publish_many, args=(str(tmp_path), table, prefix, 8))
        for table, prefix in zip(tables, ("x", "y"), strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    latest = catalog.latest()
    assert latest.number == 16
    found = {(table, path) for table in set(tables) for path in paths(latest, table)}
    assert found == {(table, f"{prefix}{n}") for table, prefix in zip(tables, "xy", strict=True) for n in range(8)}


# -- the catalog against a dict of snapshots --------------------------------------------------------------------------------


class CatalogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp()
        self.clock = Clock()
        self.catalog = Catalog(Storage(self.root), clock=self.clock)
        self.catalog.create()
        self.states: list[dict[TableName, frozenset[str]]] = [{}]
        self.tags: dict[str, int] = {}
        self.written = 0

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def new_file(self, table: TableName) -> DataFile:
        self.written += 1
        return write(self.catalog.storage, f"f{self.written:04d}", table)

    @rule(table=st.sampled_from([T, U]), schema=st.sampled_from([SCHEMA, WIDER]), replace=st.booleans())
    def publish(self, table, schema, replace):
        file = self.new_file(table)
        change = TableChange(schema, (file,), remove=None if replace else frozenset())
        self.catalog.publish(self.catalog.latest(), Change("land", "", tables={table: change}))
        old = frozenset() if replace else self.states[-1].get(table, frozenset())
        self.states.append({**self.states[-1], table: old | {file.path}})

    @rule()
    def publish_both(self):
        changes = {table: TableChange(SCHEMA, (self.new_file(table),)) for table in (T, U)}
        self.catalog.publish(self.catalog.latest(), Change("promote", "", tables=changes))
        last = self.states[-1]
        self.states.append({t: last.get(t, frozenset()) | {change.add[0].path} for t, change in changes.items()})

    @rule(table=st.sampled_from([T, U]), point=st.sampled_from(["staged", "committed", "published"]))
    def crash(self, table, point):
        try:
            add(stopping_at(self.catalog, point), f"c{self.written:04d}", table=table)
        except StoppedError:
            if point == "published":
                old = self.states[-1].get(table, frozenset())
                self.states.append({**self.states[-1], table: old | {f"c{self.written:04d}"}})
        self.written += 1

    @rule(data=st.data())
    def roll_back(self, data):
        number = data.draw(st.integers(0, len(self.states) - 1))
        self.catalog.roll_back(self.catalog.snapshot(number))
        self.states.append(self.states[number])

    @precondition(lambda self: len(self.states) > 1)
    @rule(data=st.data(), table=st.sampled_from([T, U]))
    def stale(self, data, table):
        number = data.draw(st.integers(0, len(self.states) - 2))
        base, file = self.catalog.snapshot(number), self.new_file(table)
        change = Change("land", "", tables={table: TableChange(SCHEMA, (file,))})
        same = base.entry.tables.get(str(table)) == self.catalog.latest().entry.tables.get(str(table))
        if same:
            self.catalog.publish(base, change)
            self.states.append({**self.states[-1], table: self.states[-1].get(table, frozenset()) | {file.path}})
        else:
            with pytest.raises(ConflictError):
                self.catalog.publish(base, change)

    @rule(data=st.data())
    def tag(self, data):
        number = data.draw(st.integers(0, len(self.states) - 1))
        name = f"t{len(self.tags)}"
        self.catalog.tag(name, number)
        self.tags[name] = number

    @rule()
    def reopen(self):
        self.catalog = Catalog(Storage(self.root), clock=self.clock)

    @rule(days=st.integers(-3, 3))
    def clock_jumps(self, days):
        self.clock.now += dt.timedelta(days=days)

    @invariant()
    def every_snapshot_is_what_was_published(self):
        assert self.catalog.numbers() == list(range(len(self.states)))
        for number in {0, len(self.states) // 2, len(self.states) - 1}:
            snapshot = self.catalog.snapshot(number)
            assert {t: frozenset(paths(snapshot, t)) for t in snapshot.tables} == self.states[number]
        assert self.catalog.tags() == self.tags

    @invariant()
    def times_ascend(self):
        times = [entry.instant for entry in self.catalog.entries()]
        assert times == sorted(set(times), reverse=True)


TestCatalogMachine = CatalogMachine.TestCase
TestCatalogMachine.settings = settings(
    max_examples=10, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
