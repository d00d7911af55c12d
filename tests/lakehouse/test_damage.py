"""Files of a lake that are missing, cut or changed: never a silent step back, always a way on."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featurestore.cli import cli
from lakehouse import Lake
from lakehouse.catalog import Catalog
from lakehouse.errors import CatalogDamagedError, StorageError, UnknownSnapshotError
from lakehouse.metadata import Executions
from lakehouse.storage import Storage
from lakehouse.types import plural

MODEL = """create table warehouse.trips (id bigint primary key, fare decimal(10,2) not null);
insert or replace into warehouse.trips select id, fare from lake.trips; -- @since load(lake.trips)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "penstock.toml").write_text('[resources]\nthreads = 1\n[sources.trips]\nfiles = "*.csv"\n')
    (tmp_path / "sql/warehouse").mkdir(parents=True)
    (tmp_path / "sql/warehouse/trips.sql").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def land(project: Path, *names: str) -> Lake:
    """Land one small file per name, each in a load of its own."""
    lake = Lake(project)
    for number, name in enumerate(names, 1 + len(list(project.glob("*.csv")))):
        (project / f"{name}.csv").write_text(f"id,fare\n{number},{number}.50\n")
        lake.land("trips", project / f"{name}.csv")
    return lake


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert "bug in Penstock" not in result.output
    return result


def catalog_file(project: Path, name: str) -> Path:
    return project / ".penstock/_catalog" / name


# -- the snapshot log -------------------------------------------------------------------------------------------------


def test_a_deleted_newest_entry_is_no_step_back(project: Path) -> None:
    lake = land(project, "a", "b", "c")
    lake.tag("one", 1)
    catalog_file(project, "log/3.json").unlink()
    (project / "d.csv").write_text("id,fare\n4,4.00\n")
    writing = (["land"], ["promote"], ["tag", "t", "1"], ["tag", "one", "--delete"], ["rollback", "1"])
    for arguments in (["tables"], ["sql", "select 1"], ["snapshots"], ["plan"], *writing):
        message = run(*arguments, code=1).stderr
        assert "snapshot 3 is missing" in message
        assert "log/3.json" in message
        assert "newest good snapshot is 2" in message
    assert "2" in run("sql", "select count(*) as n from lake.trips", "--as-of", "2").stdout
    assert "1" in run("sql", "select count(*) as n from lake.trips", "--as-of", "one").stdout
    assert "snapshot 3 is missing" in run("tables", "--as-of", "3", code=1).stderr
    assert sorted(path.name for path in catalog_file(project, "log").iterdir()) == ["0.json", "1.json", "2.json"]


@pytest.mark.parametrize(
    ("missing", "damaged", "good", "marked"),
    [
        ([3], [], 2, True),
        ([], [3], 2, True),
        ([], [3], 2, False),
        ([], [2, 3], 1, True),
        ([], [1, 2, 3], 0, True),
        ([3], [2], 1, True),
        ([2], [3], 1, False),
        ([2, 3], [], 1, True),
    ],
)
def test_who_gives_the_newest_entries_up_goes_on_from_the_good_one(
    project: Path, missing: list[int], damaged: list[int], good: int, marked: bool
) -> None:
    land(project, "a", "b", "c")
    for number in missing:
        catalog_file(project, f"log/{number}.json").unlink()
    for number in damaged:
        catalog_file(project, f"log/{number}.json").write_bytes(b'{"format": 1')
    if not marked:
        catalog_file(project, "head.json").unlink()
    hint = run("land", code=1).stderr
    to_delete = re.search(rf"delete (.*) to go on from snapshot {good}\.", hint)
    assert to_delete, hint
    names = re.split(", | and ", to_delete[1])
    assert names == [f"_catalog/log/{n}.json" for n in damaged] + ["_catalog/head.json"] * marked
    for name in names:
        (project / ".penstock" / name).unlink()
    assert Lake(project).catalog.latest().number == good
    assert f"{plural(3 - good, 'file')} landed" in run("land").stdout
    assert Lake(project).catalog.latest().number == good + 1
    assert run("sql", "select sum(id) from lake.trips", "--format", "csv").stdout.split() == ['"sum(id)"', "6"]


@pytest.mark.parametrize("name", ["log/1.json", "log/0.json", "refs/one.json", "lake.json", "head.json"])
def test_bytes_that_are_no_text_are_damage_like_any_other(project: Path, name: str) -> None:
    lake = land(project, "a")
    lake.tag("one", 1)
    path = catalog_file(project, name)
    path.write_bytes(path.read_bytes().replace(b'":"', b'":"\xff', 1).replace(b't":', b'\xff":', 1))
    for arguments in (["snapshots"], ["tables", "--as-of", "one"], ["tables"], ["land", "trips", "a.csv"]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code in (0, 1)
        assert "bug in Penstock" not in result.output
    if name.startswith("log/"):
        run("snapshots", code=1)
    run("sources", "--as-of", "1", code=int(name == "log/1.json"))


@pytest.mark.parametrize("end", ["start", "end"])
def test_an_execution_record_that_is_no_text_is_damage(project: Path, end: str) -> None:
    lake = land(project, "a")
    (path,) = catalog_file(project, "executions").glob(f"*.{end}.json")
    path.write_bytes(b'{"format": 1, "id": "\xff"}')
    with pytest.raises(CatalogDamagedError, match="execution record"):
        Executions(lake.storage).list()


@pytest.mark.parametrize(
    "mark",
    [
        None,
        b"",
        b"{",
        b"\xff\xfe",
        b'{"format": 1, "snapshot": "\xff"}',
        b"[]",
        b'{"format": 1, "snapshot": "x"}',
        b'{"snapshot": 0}',
    ],
)
def test_the_mark_is_never_needed_and_comes_back(project: Path, mark: bytes | None) -> None:
    land(project, "a")
    head = catalog_file(project, "head.json")
    head.unlink()
    if mark is not None:
        head.write_bytes(mark)
    assert Lake(project).catalog.latest().number == 1
    assert land(project, "b").catalog.latest().number == 2
    assert json.loads(head.read_bytes())["snapshot"] == 2
    Lake(project).rollback(1)
    assert json.loads(head.read_bytes())["snapshot"] == 3


def test_a_late_mark_does_not_lower_a_higher_one(project: Path) -> None:
    lake = land(project, "a")
    done: list[int] = []

    def other(point: str) -> None:
        if point == "published" and not done:
            done.append(1)
            Lake(project).rollback(0)

    Catalog(lake.storage, failpoint=other).roll_back(lake.catalog.snapshot(1))
    assert lake.catalog.latest().number == 3
    assert json.loads(catalog_file(project, "head.json").read_bytes())["snapshot"] == 3


def test_a_publish_while_somebody_reads_the_newest_is_no_damage(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, other = land(project, "a"), Lake(project)
    listed = lake.storage.list

    def publish_first(relative: str) -> list[str]:
        names = listed(relative)
        if relative == "_catalog/log":
            other.rollback(0)
        return names

    monkeypatch.setattr(lake.storage, "list", publish_first)
    assert lake.catalog.latest().number == 1


def test_a_log_without_any_entry_is_damage_not_an_empty_lake(project: Path) -> None:
    land(project, "a")
    for path in catalog_file(project, "log").iterdir():
        path.unlink()
    assert "Restore" in run("land", code=1).stderr
    assert "Restore" in run("tables", code=1).stderr


def test_a_lake_whose_making_was_stopped_is_made_whole(project: Path) -> None:
    lake = Lake(project)
    lake.catalog.create()
    catalog_file(project, "lake.json").unlink()
    catalog_file(project, "head.json").unlink(missing_ok=True)
    land(project, "a")
    assert lake.catalog.exists
    assert lake.catalog.latest().number == 1


def test_a_hole_in_the_log_is_not_stepped_over(project: Path) -> None:
    lake = land(project, "a", "b", "c", "d")
    times = [entry.instant for entry in reversed(lake.snapshots())]
    catalog_file(project, "log/2.json").unlink()
    for arguments in (["snapshots"], ["history", "raw.trips"], ["sql", "from system.snapshots"]):
        message = run(*arguments, code=1).stderr
        assert "snapshot 2 is missing" in message
        assert "--as-of" in message
    assert "snapshot 2 is missing" in run("tables", "--as-of", "2", code=1).stderr
    with pytest.raises(CatalogDamagedError, match="snapshot 2 is missing"):
        lake.catalog.resolve(times[2])
    assert [lake.catalog.resolve(times[n]).number for n in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert lake.sql("select count(*) from lake.trips").fetchall() == [(4,)]
    assert land(project, "e").catalog.latest().number == 5, "what is whole can be written to"


def test_a_damaged_entry_matters_only_where_it_may_be_the_answer(project: Path) -> None:
    lake = land(project, "a", "b")
    times = [entry.instant for entry in reversed(lake.snapshots())]
    catalog_file(project, "log/2.json").write_bytes(b"{}")
    assert lake.catalog.resolve(times[1]).number == 1
    with pytest.raises(CatalogDamagedError, match="snapshot 2"):
        lake.catalog.resolve(times[2])
    catalog_file(project, "log/2.json").unlink()
    with pytest.raises(CatalogDamagedError, match="snapshot 2 is missing"):
        lake.catalog.resolve(times[2])
    with pytest.raises(UnknownSnapshotError, match="no snapshot 3"):
        lake.catalog.resolve(3)


def test_an_entry_of_another_history_is_noticed(project: Path) -> None:
    land(project, "a", "b", "c")
    other = project / "other"
    other.mkdir()
    (other / "penstock.toml").write_text("")
    land(other, "x", "y", "z")
    catalog_file(project, "log/2.json").write_bytes(catalog_file(other, "log/2.json").read_bytes())
    assert "snapshot 2 is not the one that snapshot 3 was built on" in run("snapshots", code=1).stderr


# -- objects of the catalog -------------------------------------------------------------------------------------------


def objects(lake: Lake, number: int) -> list[str]:
    """Return the objects that a snapshot names and the one before does not."""

    def named(n: int) -> set[str]:
        entry = lake.catalog.snapshot(n).entry
        sources = {sha for source in entry.sources.values() for sha in (source.landed, source.schema)}
        return sources | {table.schema for table in entry.tables.values()}

    return sorted(named(number) - named(number - 1))


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_nothing_goes_back_to_a_snapshot_whose_objects_are_damaged(project: Path, damage: str) -> None:
    lake = land(project, "a", "b")
    lake.promote()
    lake.rollback(0)
    for name in objects(lake, 1):
        path = catalog_file(project, f"objects/{name}")
        kept = path.read_bytes()
        path.unlink() if damage == "missing" else path.write_bytes(kept[:-1] + b"x")
        for arguments in (["rollback", "1"], ["tag", "bad", "1"]):
            message = run(*arguments, code=1).stderr
            assert damage in message
            assert name in message
            assert "penstock snapshots" in message
        assert lake.catalog.latest().number == 4
        assert lake.tags() == {}
        path.write_bytes(kept)
    run("rollback", "1")


def test_nothing_goes_back_to_a_table_whose_log_is_damaged(project: Path) -> None:
    lake = land(project, "a", "b")
    lake.rollback(0)
    version = lake.catalog.snapshot(2).entry.tables["raw.trips"].version
    (project / f".penstock/raw/trips/_delta_log/{version:020d}.json").unlink()
    assert "raw/trips" in run("rollback", "2", code=1).stderr
    assert lake.catalog.latest().number == 3
    run("rollback", "1")


def test_content_that_is_stored_again_mends_a_damaged_object(project: Path) -> None:
    lake = land(project, "a")
    name = lake.catalog.put_object(b"content")
    catalog_file(project, f"objects/{name}").write_bytes(b"contend")
    assert lake.catalog.put_object(b"content") == name
    assert lake.catalog.object(name) == b"content"


# -- data files -------------------------------------------------------------------------------------------------------


def data_file(project: Path, table: str) -> Path:
    """Return the first data file of a table."""
    return min((project / ".penstock" / table).rglob("*.parquet"))


def wrecked(data: bytes) -> bytes:
    """Return a Parquet file whose pages are no longer what they were, and whose footer is."""
    return data[:4] + bytes(byte ^ 0x5A for byte in data[4:80]) + data[80:]


DAMAGES = {
    "is missing": lambda path: path.unlink(),
    "is cut: it has 50 of": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "has 3 bytes more than were written": lambda path: path.write_bytes(path.read_bytes() + b"abc"),
    "is damaged": lambda path: path.write_bytes(wrecked(path.read_bytes())),
}


@pytest.fixture
def promoted(project: Path) -> Path:
    """A project whose second load is not promoted yet."""
    land(project, "a").promote()
    land(project, "b")
    return project


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("at", ["", " at (version => 2)"])
def test_a_damaged_data_file_is_named_by_a_query(promoted: Path, damage: str, at: str) -> None:
    path = data_file(promoted, "warehouse/trips")
    DAMAGES[damage](path)
    for form in ("table", "csv", "json"):
        message = run("sql", f"select sum(id), sum(fare) from warehouse.trips{at}", "--format", form, code=1).stderr
        assert f"the lake's file warehouse/trips/{path.name} {damage}" in message
        assert f"warehouse.trips at snapshot {2 if at else 3}" in message
        assert "Restore the file from a copy" in message
        assert "penstock history warehouse.trips" in message
    Lake(promoted).sql("select count(*) from lake.trips").fetchall()


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("changed", [True, False])
def test_a_damaged_file_of_a_table_that_another_model_reads_is_named(
    promoted: Path, damage: str, changed: bool
) -> None:
    total = promoted / "sql/warehouse/total.sql"
    total.write_text(
        "create table warehouse.total (n decimal(38,2));\ntruncate warehouse.total;\n"
        "insert into warehouse.total select sum(fare) as n from warehouse.trips;\n"
    )
    if not changed:  # trips is not built again, so total reads it as the snapshot has it
        run("promote")
        total.write_text(f"{total.read_text()}-- changed\n")
    path = min(promoted.glob(".penstock/warehouse/trips/*.parquet"), key=lambda file: file.stat().st_mtime)
    DAMAGES[damage](path)
    message = run("promote", code=1).stderr
    assert f"the lake's file warehouse/trips/{path.name} {damage}" in message
    assert "Restore the file from a copy" in message
    assert "try_cast" not in message


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("table", ["typed/trips", "warehouse/trips"])
def test_a_damaged_data_file_is_not_the_models_fault(promoted: Path, damage: str, table: str) -> None:
    if table == "typed/trips":  # all of it is read
        (promoted / "sql/warehouse/trips.sql").write_text(MODEL + "-- changed\n")
    else:  # a key that comes again makes the stored file be read
        (promoted / "c.csv").write_text("id,fare\n1,9.50\n")
        run("land", "trips", "c.csv")
    path = data_file(promoted, table)
    DAMAGES[damage](path)
    message = run("promote", code=1).stderr
    assert f"the lake's file {table}/{path.name} {damage}" in message
    assert table.replace("/", ".") in message
    assert "try_cast" not in message
    assert "trips.sql" not in message


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_data_file_is_named_when_a_column_widens(project: Path, damage: str) -> None:
    lake = land(project, "a")
    path = data_file(project, "typed/trips")
    DAMAGES[damage](path)
    (project / "c.csv").write_text("id,fare\n1.5,2.0\n")
    message = run("land", "trips", "c.csv", code=1).stderr
    assert f"the lake's file typed/trips/{path.name} {damage}" in message
    assert lake.catalog.latest().number == 1


def test_a_damaged_raw_file_is_named_by_the_export(project: Path) -> None:
    lake = land(project, "a")
    data_file(project, "raw/trips").unlink()
    load = lake.source("trips").landed[0].load_id
    assert "the lake's file raw/trips/_load_date=" in run("export-raw", "trips", load, "-o", "out", code=1).stderr


def test_what_a_query_does_wrong_is_not_damage(promoted: Path) -> None:
    for query, message in (
        ("select error('no such luck') from warehouse.trips", "no such luck"),
        ("select strptime(fare::varchar, '%Y') from warehouse.trips", "Could not parse"),
        ("select * from warehouse.trips, 'nowhere.parquet'", "nowhere.parquet"),
    ):
        error = run("sql", query, code=1).stderr
        assert message in error
        assert "the lake's file" not in error


# -- Delta logs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "has no file for version 1"),
        (lambda path: path.write_bytes(b""), "file for version 1 is empty"),
        (lambda path: path.write_bytes(b"\n \n"), "file for version 1 is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "file for version 1 is damaged"),
        (lambda path: path.write_bytes(b"\xff" + path.read_bytes()[1:]), "file for version 1 is damaged"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b".parquet", b".parquex")),
            "names other files than were published",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b'numRecords\\":1', b'numRecords\\":2')),
            "names other files than were published",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b"numRecords", b"numRecordz")),
            "names other files than were published",
        ),
    ],
)
@pytest.mark.parametrize("newest", [False, True])
def test_a_damaged_delta_log_is_one_clear_sentence(project: Path, damage, message: str, newest: bool) -> None:
    lake = land(project, "a") if newest else land(project, "a", "b")
    before = lake.catalog.latest().number
    log = project / ".penstock/typed/trips/_delta_log/00000000000000000001.json"
    old = log.read_bytes()
    damage(log)
    assert not log.exists() or log.read_bytes() != old
    (project / "c.csv").write_text("id,fare\n7,7.00\n")
    for arguments in (["sql", "select sum(id) from lake.trips"], ["promote"], ["land", "trips", "c.csv"]):
        error = run(*arguments, code=1).stderr
        assert message in error
        assert "typed.trips at snapshot" in error or "typed/trips" in error
        assert "ParsedLogPath" not in error
        assert "Kernel" not in error
        assert len(error.splitlines()) == 2
    assert lake.catalog.latest().number == before


def test_a_table_whose_log_is_gone_is_not_begun_anew(project: Path) -> None:
    land(project, "a")
    log = project / ".penstock/raw/trips/_delta_log"
    for path in log.iterdir():
        path.unlink()
    (project / "c.csv").write_text("id,fare\n7,7.00\n")
    assert "its Delta log is gone" in run("land", "trips", "c.csv", code=1).stderr
    assert list(log.iterdir()) == []
    assert "its Delta log is gone" in run("sql", "from raw.trips", code=1).stderr


@pytest.mark.parametrize("content", [b"garbage", b'{"add": 1}\n', b"[1]\n"])
def test_a_commit_of_somebody_else_that_cannot_be_read_stops_a_publish(project: Path, content: bytes) -> None:
    land(project, "a")
    log = project / ".penstock/raw/trips/_delta_log"
    (log / f"{len(list(log.iterdir())):020d}.json").write_bytes(content)
    (project / "c.csv").write_text("id,fare\n7,7.00\n")
    assert "raw/trips" in run("land", "trips", "c.csv", code=1).stderr


# -- storage that takes nothing ---------------------------------------------------------------------------------------


def test_reading_writes_nothing(promoted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("reading wrote to the lake")

    before = {path: path.stat().st_mtime_ns for path in promoted.rglob("*")}
    for name in ("put_if_absent", "replace", "open_write", "prepare", "delete"):
        monkeypatch.setattr(Storage, name, refuse)
    load = Lake(promoted).source("trips").landed[0].load_id
    for arguments in (
        ["tables"],
        ["snapshots"],
        ["history", "trips"],
        ["sources"],
        ["schema", "trips"],
        ["plan"],
        ["quarantine", "trips"],
        ["sql", "select * from warehouse.trips, lake.trips, system.snapshots"],
        ["tag"],
        ["export-raw", "trips", load, "-o", str(promoted.parent / "exported")],
    ):
        run(*arguments)
    assert {path: path.stat().st_mtime_ns for path in promoted.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["land", "trips", "c.csv"], errno.EROFS),
        (["promote"], errno.EACCES),
        (["rollback", "1"], errno.EROFS),
        (["tag", "x"], errno.ENOSPC),
        (["tag", "one", "--delete"], errno.EROFS),
    ],
)
def test_a_storage_that_refuses_is_one_clear_error(
    promoted: Path, monkeypatch: pytest.MonkeyPatch, code: int, arguments: list[str]
) -> None:
    Lake(promoted).tag("one")
    (promoted / "c.csv").write_text("id,fare\n7,7.00\n")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), "some/file")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "remove", refuse)
    message = run(*arguments, code=1).stderr
    assert os.strerror(code) in message
    assert ".penstock" in message
    assert "some/file" not in message
    assert len(message.splitlines()) == 2
    monkeypatch.undo()
    assert Lake(promoted).catalog.latest().number == 3


_FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from featurestore.cli import cli
cli(sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("verb", "size"), [("land", 0), ("land", 900), ("land", 20_000), ("promote", 900), ("promote", 20_000)]
)
def test_a_full_disk_loses_nothing(promoted: Path, verb: str, size: int) -> None:
    rows = "".join(f"{n},{n}.25\n" for n in range(10, 4_000))
    (promoted / "c.csv").write_text(f"id,fare\n{rows}")
    if verb == "promote":
        run("land")
    before = Lake(promoted).catalog.latest().number
    command = [sys.executable, "-c", _FULL, str(size), verb]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=promoted)
    assert done.returncode == 1
    assert os.strerror(errno.EFBIG) in done.stderr
    assert "Make room" in done.stderr
    assert "bug in Penstock" not in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert Lake(promoted).catalog.latest().number == before
    run("land")
    run("promote")
    assert Lake(promoted).sql("select count(*), sum(id) from warehouse.trips").fetchall() == [
        (3_992, 3 + sum(range(10, 4_000)))
    ]


def test_a_record_that_cannot_be_closed_fails_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Storage.put_if_absent

    def refuse_ends(self: Storage, relative: str, data: bytes) -> bool:
        if relative.endswith(".end.json"):
            raise StorageError("cannot write here")
        return put(self, relative, data)

    monkeypatch.setattr(Storage, "put_if_absent", refuse_ends)
    lake = land(project, "a")
    assert lake.promote().snapshot == 2
