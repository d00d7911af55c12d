"""The feature store's commands: what they print in each format, how they end, and what they say when they can't."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

sys.path.append(str(Path(__file__).parent))  # the project lies beside the tests

from feature_project import AT, FEATURES, LATER, PROJECT, SPINE, TRIPS, made, run

from featurestore.store import FeatureStore
from lakehouse import Lake


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    commands = (["land"], ["promote"], ["apply"], ["materialize", "--at", AT])
    root = made(tmp_path_factory.mktemp("project"), *commands)
    run("historical", "tips", "--spine", SPINE, "--save", "small", "--project", str(root))
    return root


@pytest.fixture
def reading(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as the working directory, for commands that change nothing."""
    monkeypatch.chdir(built)
    return built


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project as the working directory."""
    shutil.copytree(built, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def objects(*arguments: str, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--format", "json", code=code).stdout)


def records(*arguments: str, code: int = 0) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(run(*arguments, "--format", "csv", code=code).stdout)))


def land_more(project: Path, text: str = "5,007,2024-01-01 02:30:00,30.00,3.00,true\n") -> None:
    (project / "data/b.csv").write_text(f"{TRIPS.splitlines()[0]}\n{text}")
    run("land")
    run("promote")


# -- lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["features", "list"], ["training-set", "list"], ["online", "status"]], ids=" ".join
)
def test_a_list_has_the_same_csv_header_with_rows_and_without(reading: Path, tmp_path: Path, command: list[str]):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "penstock.toml").write_text(PROJECT)
    Lake(empty).catalog.create()
    (header,) = run(*command, "--project", str(empty), "--format", "csv").stdout.splitlines()
    assert run(*command, "--format", "csv").stdout.splitlines()[0] == header


def test_differences_have_the_same_csv_header_with_rows_and_without(project: Path):
    before = {verb: run(verb, "--format", "csv").stdout.splitlines()[0] for verb in ("plan", "apply")}
    (project / "features.py").write_text(FEATURES.replace('owner="science"', 'owner="art"'))
    for verb in ("plan", "apply"):
        rows = records(verb)
        assert ",".join(rows[0]) == before[verb]
        assert [json.loads(row["changes"]) for row in rows if row["name"] == "tips"] == [["owner: science → art"]]


# -- help -----------------------------------------------------------------------------------------------------------

COMMANDS = [
    ["plan"], ["apply"], ["features", "list"], ["features", "show"], ["historical"], ["training-set", "list"],
    ["training-set", "show"], ["training-set", "reproduce"], ["materialize"], ["online", "get"], ["online", "status"],
    ["online", "rollback"], ["verify"], ["demo"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example(command: list[str]):
    text = run(*command, "--help").stdout
    example = re.search(r"Example:\s+penstock (.*)", text)
    assert example
    assert example[1].split()[: len(command)] == command
    assert re.search(r"\n  [A-Z][^\n]+\n", text)


@pytest.mark.parametrize("group", ["features", "training-set", "online"])
def test_groups_list_their_commands(group: str):
    text = run(group, "--help").stdout
    for command in COMMANDS:
        if command[0] == group:
            assert f"  {command[1]} " in text


# -- definitions ----------------------------------------------------------------------------------------------------


def test_plan_and_apply(project: Path):
    (project / "features.py").write_text(FEATURES.replace('ttl="7d"', 'ttl="8d"'))
    assert "feature view last_trip" in run("plan").stdout
    assert any(row["name"] == "last_trip" and row["action"] == "change" for row in objects("plan"))
    rows = records("apply")
    changed = {row["name"]: row for row in rows if row["action"] in ("add", "change", "remove")}
    assert set(changed) == {"last_trip", "tips"}
    assert json.loads(changed["last_trip"]["changes"]) == ["ttl: 7d → 8d"]
    assert not [row for row in records("apply") if row["action"] in ("add", "change", "remove")]
    assert "feature service tips" in run("features", "show", "tips@2").stdout


def test_features_list_is_good_to_read(reading: Path):
    lines = run("features", "list").stdout.splitlines()
    assert lines[0].split() == [
        "kind",
        "name",
        "version",
        "keys",
        "features",
        "source",
        "used_by",
        "owner",
        "description",
    ]
    assert max(map(len, lines)) < 170
    assert next(line for line in lines if "last_trip " in line and "view" in line).count("…") == 1
    assert [row["name"] for row in objects("features", "list")] == ["zone", "city", "demand", "last_trip", "tips"]
    rows = records("features", "list")
    assert [json.loads(row["keys"]) for row in rows] == [["zone"], [], ["zone"], ["zone"], ["zone", "to_zone"]]
    assert rows[3]["source"].endswith("from warehouse.trips")


@pytest.mark.parametrize("name", ["demand", "last_trip", "city", "tips", "tips@1", "zone"])
def test_features_show_is_good_to_read(reading: Path, name: str):
    text = run("features", "show", name).stdout
    assert not re.search(r"[{}\[\]]|None|True|False|=None", text)
    assert text.splitlines()[0].endswith(f" {name.partition('@')[0]}")
    assert objects("features", "show", name)["name"] == name.partition("@")[0]
    assert len(records("features", "show", name)) >= 1


def test_features_show_says_all(reading: Path):
    text = run("features", "show", "demand").stdout
    for part in ("zone VARCHAR", "warehouse.trips (", "tier=gold", "online           yes", "mean fare"):
        assert part in text
    assert "to__paid       last_trip:paid       BOOLEAN        zone=to_zone" in run("features", "show", "tips").stdout
    # A source of several lines is shown as it was written.
    shown = run("features", "show", "last_trip").stdout.splitlines()
    place = next(place for place, line in enumerate(shown) if line.startswith("  source"))
    assert shown[place + 1].split() == ["from", "warehouse.trips"]
    assert "Did you mean demand" in run("features", "show", "demnd", code=1).stderr


def test_a_version_that_cannot_be_asked_any_more_says_so(project: Path):
    assert "cannot be asked" not in run("features", "show", "tips@1").stdout
    (project / "features.py").write_text(
        FEATURES.replace("entities=[zone], event", 'entities=[zone], delay="1h", event')
    )
    text = run("plan").stdout
    assert text.startswith("warehouse.trips: nothing to do (nothing changed)\n~ feature view demand")
    run("apply")
    assert (
        "cannot be asked  feature view demand does not mean what it meant then"
        in run("features", "show", "tips@1").stdout
    )
    assert objects("features", "show", "tips")["cannot_be_asked"] == []


def test_a_directory_is_no_features_py(project: Path):
    (project / "features.py").unlink()
    (project / "features.py").mkdir()
    for command in ("plan", "apply"):
        assert "features.py: it cannot be read: Is a directory" in run(command, code=1).stderr


def test_what_features_py_prints_is_no_output(project: Path):
    (project / "features.py").write_text(f"print('hello')\n{FEATURES}")
    result = run("plan", "--format", "json")
    assert json.loads(result.stdout)
    assert "hello" in result.stderr


def test_nothing_applied_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "penstock.toml").write_text(PROJECT)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.csv").write_text(TRIPS)
    run("land")
    assert run("features", "list").stdout.strip() == "Nothing is applied: penstock apply."
    assert objects("features", "list") == []
    assert "penstock apply" in run("features", "show", "x", code=1).stderr
    assert "No training sets yet" in run("training-set", "list").stdout
    assert "No generation yet" in run("online", "status").stdout
    assert "no feature view is online" in run("materialize", code=1).stderr
    for command in (["online", "get", "x:y"], ["online", "rollback"], ["verify", "x:y"]):
        assert "no online generation yet\n  Build one: penstock materialize" in run(*command, code=1).stderr


# -- offline --------------------------------------------------------------------------------------------------------

SPINE_CSV = """\
zone,to_zone,event_timestamp,label
132,007,2024-01-01 04:00:00,0
007,048,2024-01-01 03:00:00,1
,007,2024-01-02 04:00:00,
007,048,2024-01-01 03:00:00,1
"""


def test_historical_from_a_select(reading: Path):
    rows = objects("historical", "demand:trips_1d", "demand:fare_1d", "--spine", SPINE)
    assert sorted((row["zone"], row["trips_1d"], row["fare_1d"]) for row in rows) == [
        ("007", 1, 10.5), ("007", 2, 15.25), ("048", 1, 5.25), ("132", 1, 7.0),
    ]  # fmt: skip
    result = run("historical", "tips", "--spine", SPINE)
    assert "to__last_fare" in result.stdout
    assert "4 spine rows at snapshot 4" in result.stderr


@pytest.mark.parametrize("name", ["spine.csv", "spine.CSV", "spine.csv.gz"])
def test_a_csv_spine_keeps_texts_and_order(reading: Path, tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(gzip.compress(SPINE_CSV.encode()) if name.endswith("gz") else SPINE_CSV.encode())
    rows = records("historical", "tips", "--spine", str(path), "--timezone", "UTC", "--statuses")
    assert [row["zone"] for row in rows] == ["132", "007", "", "007"]
    assert [row["to_zone"] for row in rows] == ["007", "048", "007", "048"]
    assert [row["label"] for row in rows] == ["0", "1", "", "1"]
    assert [row["trips_1d"] for row in rows] == ["0", "2", "0", "2"]
    assert [row["trips_1d__status"] for row in rows] == ["NOT_FOUND", "PRESENT", "NOT_FOUND", "PRESENT"]
    assert [row["to__last_fare"] for row in rows] == ["20.00", "5.25", "20.00", "5.25"]


def test_local_times_need_a_zone(reading: Path, tmp_path: Path):
    path = tmp_path / "spine.csv"
    path.write_text("zone,event_timestamp\n007,2023-12-31 21:00:00\n")
    assert "have no zone" in run("historical", "demand:trips_1d", "--spine", str(path), code=1).stderr
    trips = [
        objects("historical", "demand:trips_1h", "--spine", str(path), "--timezone", zone)[0]["trips_1h"]
        for zone in ("UTC", "America/New_York")
    ]
    assert trips == [0, 1]  # nine in the evening in New York is two in the morning
    assert "Marz" in run("historical", "demand:trips_1d", "--spine", str(path), "--timezone", "Marz", code=1).stderr


@pytest.mark.parametrize("name", ["spine.csv", "spine.csv.gz"])
def test_a_spine_of_no_rows(reading: Path, tmp_path: Path, name: str):
    header = SPINE_CSV.splitlines(keepends=True)[0].encode()
    (tmp_path / name).write_bytes(gzip.compress(header) if name.endswith("gz") else header)
    arguments = ("historical", "tips", "--spine", str(tmp_path / name))
    assert records(*arguments) == objects(*arguments) == []
    assert "trips_1h__status" in run(*arguments, "--statuses", "--format", "csv").stdout
    assert "0 spine rows at snapshot" in run(*arguments).stderr
    for output in ("out.parquet", "out.arrow", "out.csv"):
        run(*arguments, "-o", str(tmp_path / output))
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_a_spine_of_no_rows_is_a_training_set(project: Path):
    (project / "spine.csv").write_text(SPINE_CSV.splitlines()[0])
    assert "0 rows" in run("historical", "tips", "--spine", "spine.csv", "--save", "none").stdout
    run("training-set", "reproduce", "none")


def test_a_csv_spine_without_a_key_or_instant(reading: Path, tmp_path: Path):
    (tmp_path / "spine.csv").write_text("zone,event_timestamp\n,\n,\n")
    rows = objects("historical", "demand:trips_1h", "--spine", str(tmp_path / "spine.csv"))
    assert [row["trips_1h"] for row in rows] == [0, 0]


def test_statuses_never_give_two_columns_of_one_name(reading: Path):
    spine = SPINE.replace("select", "select 7 as trips_1h__status,")
    assert "trips_1h__status" in run("historical", "demand:trips_1h", "--spine", spine).stdout
    result = run("historical", "demand:trips_1h", "--spine", spine, "--statuses", code=1)
    assert "two columns would be called 'trips_1h__status'" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", ["spine.parquet", "spine.arrow", "spine.feather"])
def test_binary_spines(reading: Path, tmp_path: Path, name: str):
    import datetime as dt

    when = [dt.datetime(2024, 1, 1, 3, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, 1, tzinfo=dt.UTC)]
    table = pa.table({"zone": ["007", "007"], "event_timestamp": when, "n": pa.array([2**53 + 1, None])})
    (pq.write_table if name.endswith("parquet") else feather.write_feather)(table, str(tmp_path / name))
    rows = objects("historical", "demand:trips_1d", "--spine", str(tmp_path / name))
    assert [(row["trips_1d"], row["n"]) for row in rows] == [(2, 2**53 + 1), (1, None)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "there is no such file"),
        ("folder.csv", "directory", "this is a directory"),
        ("notes.txt", b"x", "a file of this kind"),
        ("broken.parquet", b"PAR1 no", "cannot be read"),
        ("broken.arrow", b"nonsense", "cannot be read"),
        ("broken.csv.gz", b"\x1f\x8b nonsense", "broken.csv.gz"),
        ("short.csv", b"zone,event_timestamp\n1\n2,3,4\n", "2 records cannot be read"),
        ("empty.csv", b"", "empty.csv"),
        ("nokey.csv", b"x,event_timestamp\n1,2024-01-01T00:00:00Z\n", "'zone'"),
        ("notime.csv", b"zone,x\n007,1\n", "timestamp"),
        ("two.csv", b"zone,a,b\n007,2024-01-01T00:00:00Z,2024-01-01T00:00:00Z\n", "a, b"),
        ("clash.csv", b"zone,event_timestamp,trips_1d\n007,2024-01-01T00:00:00Z,1\n", "trips_1d"),
        ("number.csv", b"zone,event_timestamp\n7,2024-01-01T00:00:00Z\n", "VARCHAR"),
    ],
)
def test_spines_that_are_none(reading: Path, tmp_path: Path, name: str, content: bytes | str | None, message: str):
    path = tmp_path / name
    if content == "directory":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    result = run("historical", "demand:trips_1d", "--spine", str(path), code=1)
    assert message in result.stderr
    assert "bug in Penstock" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tipps", "--spine", SPINE], 1, "Did you mean tips"),
        (["demand:trips_2h", "--spine", SPINE], 1, "Did you mean trips_1h"),
        (["demand:trips_1h", "--spine", "select 1 as"], 1, "syntax error"),
        (["demand:trips_1h", "--spine", "select * from nowhere"], 1, "nowhere"),
        (["demand:trips_1h"], 2, "--spine"),
        (["--spine", SPINE], 2, "FEATURES"),
        (["tips", "--spine", SPINE, "--timestamp", "sean"], 1, "sean"),
        (["tips", "--spine", SPINE, "--as-of", "99"], 1, "there is no snapshot 99"),
        (["tips", "--spine", SPINE, "-o", "x.xlsx"], 1, "x.xlsx"),
        (["tips", "--spine", SPINE, "--corrections", "none"], 2, "known"),
    ],
)
def test_historical_says_what_is_wrong(reading: Path, arguments: list[str], code: int, message: str):
    assert message in run("historical", *arguments, code=code).stderr
    assert not list(reading.glob("*.xlsx*"))


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow", "out.csv"])
def test_results_are_read_back_exactly(reading: Path, tmp_path: Path, name: str):
    path = tmp_path / name
    result = run("historical", "tips", "--spine", SPINE, "-o", str(path))
    assert f"4 rows × 10 columns written to {path}" in result.stderr
    assert result.stdout == ""
    expected = FeatureStore(reading).get_historical_features(SPINE, "tips").to_arrow()
    if name.endswith("csv"):
        header, *rows = csv.reader(path.read_text().splitlines())
        assert header == expected.column_names
        assert [row[header.index("zone")] for row in rows] == expected.column("zone").to_pylist()
        fares = [row[header.index("to__last_fare")] for row in rows]
        assert fares == [str(fare) for fare in expected.column("to__last_fare").to_pylist()]
    else:
        back = pq.read_table(path) if name.endswith("parquet") else feather.read_table(path)
        assert back.equals(expected)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_an_output_replaces_what_was_there_only_when_it_is_whole(reading: Path, tmp_path: Path):
    path = tmp_path / "out.csv"
    path.write_text("precious")
    run("historical", "tipps", "--spine", SPINE, "-o", str(path), code=1)
    assert path.read_text() == "precious"
    run("historical", "tips", "--spine", SPINE, "-o", str(path))
    assert path.read_text().startswith('"zone"')
    assert (
        "out.csv" in run("historical", "tips", "--spine", SPINE, "-o", str(tmp_path / "nowhere/out.csv"), code=1).stderr
    )


# -- training sets --------------------------------------------------------------------------------------------------


def test_training_sets_are_saved_listed_shown_and_reproduced(project: Path):
    saved = run("historical", "demand:trips_1d", "--spine", SPINE, "--save", "small").stdout
    assert "training set small@2: 4 rows" in saved
    lines = run("training-set", "list").stdout.splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) < 170
    rows = objects("training-set", "list")
    assert [(row["name"], row["version"], row["service"]) for row in rows] == [
        ("small", 1, "tips@1"),
        ("small", 2, None),
    ]
    assert len(rows[0]["sha256"]) == 64
    assert len(records("training-set", "list")) == 2

    assert run("training-set", "show", "small").stdout == run("training-set", "show", "small@2").stdout
    assert "small@1" in run("training-set", "show", "small@1").stdout
    assert objects("training-set", "show", "small@1")["name"] == "small"
    assert [row["trips_1d"] for row in records("training-set", "show", "small")] == ["1", "2", "1", "1"]

    land_more(project)
    assert "small@1 reproduces" in run("training-set", "reproduce", "small@1").stdout
    again = objects("training-set", "reproduce", "small")
    assert (again["ref"], again["same"], again["got"]) == ("small@2", True, again["expected"])
    (row,) = records("training-set", "reproduce", "small")
    assert row["same"] == "true"


def test_a_training_set_that_cannot_be_made_again_exits_1(project: Path):
    for path in (project / ".penstock/warehouse/trips").glob("*.parquet"):
        path.unlink()
    result = run("training-set", "reproduce", "small", code=1)
    assert "can't be reproduced" in result.stdout
    answer = objects("training-set", "reproduce", "small", code=1)
    assert (answer["same"], answer["got"]) == (False, None)
    assert answer["gone"]
    # What was saved stays.
    assert len(records("training-set", "show", "small")) == 4


def test_a_training_set_whose_rows_are_lost_exits_1(project: Path):
    for path in (project / ".penstock/training/small").glob("*.parquet"):
        path.unlink()
    result = run("training-set", "reproduce", "small", code=1)
    assert "small@1 reproduces" in result.stdout
    assert "the saved rows are lost" in result.stdout
    answer = objects("training-set", "reproduce", "small", code=1)
    assert (answer["same"], "is missing" in answer["unreadable"]) == (True, True)


def test_a_training_set_that_cannot_be_made_again_exits_1_also_where_nobody_reads(project: Path):
    for path in (project / ".penstock/warehouse/trips").glob("*.parquet"):
        path.unlink()
    reading, writing = os.pipe()
    os.close(reading)
    script = "from featurestore.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", script, "training-set", "reproduce", "small"],
        cwd=project, stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, "")


@pytest.mark.parametrize("command", ["show", "reproduce"])
@pytest.mark.parametrize(
    ("name", "message"),
    [("smal", "small"), ("small@9", "Versions: 1"), ("small@x", "tips@2"), ("small@", "tips@2"), ("", "''")],
)
def test_training_sets_that_are_none(reading: Path, command: str, name: str, message: str):
    assert message in run("training-set", command, name, code=1).stderr


# -- online ---------------------------------------------------------------------------------------------------------


def test_materialize(project: Path):
    run("materialize", "--at", AT)  # the saved training set is a snapshot of its own
    nothing = run("materialize", "--at", AT)
    assert nothing.stdout.startswith("Nothing to do: generation ")
    assert objects("materialize", "--at", AT)["published"] is False
    rows = records("materialize", "--at", AT, "--full")
    assert [(row["view"], row["entities"], row["reused"]) for row in rows] == [
        ("city", "1", "false"), ("demand", "2", "false"), ("last_trip", "3", "false"),
    ]  # fmt: skip
    text = run("materialize", "--at", LATER).stdout.splitlines()
    assert [line.partition(":")[0] for line in text[:3]] == ["city", "demand", "last_trip"]
    assert re.fullmatch(r"serving generation \w{26}: snapshot \d+, for 2024-01-01T04:00:00.000000Z and later", text[-1])
    assert "later than 2024-01-01T03:00:00" in run("materialize", "--at", AT, code=1).stderr
    assert run("materialize", "--at", AT, "--force").exit_code == 0
    land_more(project)
    assert objects("materialize", "--at", AT)["published"] is True
    assert "older snapshot 3" in run("materialize", "--at", AT, "--as-of", "3", code=1).stderr
    assert "noon" in run("materialize", "--at", "noon", code=1).stderr


def test_a_materialization_that_was_overtaken_exits_75(project: Path, monkeypatch: pytest.MonkeyPatch):
    from featurestore.online.lmdb import LmdbStore

    publish = LmdbStore.publish

    def overtaken(self: LmdbStore, *arguments: Any, **options: Any) -> None:
        monkeypatch.undo()
        monkeypatch.chdir(project)
        FeatureStore(project).materialize(at=AT, full=True)
        publish(self, *arguments, **options)

    monkeypatch.setattr(LmdbStore, "publish", overtaken)
    result = run("materialize", "--at", LATER, code=75)
    assert "another process published" in result.stderr
    assert "run it again" in result.stderr
    assert run("materialize", "--at", LATER).exit_code == 0


def test_online_get(reading: Path):
    result = run("online", "get", "tips", "zone=007", "to_zone=048", "--at", LATER)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[:2] == [["zone", "007"], ["to_zone", "048"]]
    assert ["trips_1d", "2"] in lines
    assert ["to__last_fare", "5.25"] in lines
    assert ["city_trips", "4"] in lines
    assert "of snapshot 3" in result.stdout.splitlines()[-1]


def test_online_get_of_several(reading: Path):
    asked = ["online", "get", "tips", "zone=007", "zone=", "zone=132", "to_zone=048", "--at", LATER]
    table = run(*asked).stdout
    assert table.splitlines()[0].split() == ["zone", "007", "null", "132"]
    assert re.search(r"trips_1d +2 +0 \(NOT_FOUND\) +0 \(NOT_FOUND\)", table)
    rows = objects(*asked)
    assert [row["zone"] for row in rows] == ["007", None, "132"]
    assert [row["to_zone"] for row in rows] == ["048"] * 3
    assert [row["fare_1d"] for row in rows] == [15.25, None, None]
    assert [row["to__last_fare__status"] for row in rows] == ["PRESENT"] * 3
    result = run(*asked, "--format", "csv")
    assert [row["trips_1h__status"] for row in csv.DictReader(io.StringIO(result.stdout))] == [
        "PRESENT", "NOT_FOUND", "NOT_FOUND",
    ]  # fmt: skip
    assert "of snapshot 3" in result.stderr


def test_online_get_by_names(reading: Path):
    (row,) = objects(
        "online", "get", "demand:trips_1d", "city:city_trips", "zone=007", "--full-feature-names", "--at", LATER
    )
    assert {name: value for name, value in row.items() if "status" not in name} == {
        "zone": "007", "demand__trips_1d": 2, "city__city_trips": 4,
    }  # fmt: skip
    (row,) = objects("online", "get", "city:city_trips", "--at", LATER)
    assert row == {"city_trips": 4, "city_trips__status": "PRESENT"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tips"], 1, "zone is missing"),
        (["tips", "zone=007"], 1, "Add it: to_zone=VALUE (VARCHAR)"),
        (["tips", "zome=007", "to_zone=048"], 1, "Did you mean zone"),
        (["tips", "zone=1", "zone=2", "zone=3", "to_zone=4", "to_zone=5"], 1, "another key"),
        (["tipps", "zone=007"], 1, "Did you mean tips"),
        (["demand:trip_1h", "zone=007"], 1, "Did you mean trips_1h"),
        (["zone=007"], 2, "Name what to get"),
        ([], 2, "Missing argument"),
        (["tips", "zone=007", "to_zone=048", "--at", "2023-12-31"], 1, "2024-01-01T03:00:00"),
        (["tips", "zone=007", "to_zone=048", "--at", "soon"], 1, "soon"),
    ],
)
def test_online_get_says_what_is_wrong(reading: Path, arguments: list[str], code: int, message: str):
    assert message in run("online", "get", *arguments, code=code).stderr


def test_status_and_rollback(project: Path):
    land_more(project)
    run("materialize", "--at", LATER)
    rows = objects("online", "status")
    first, second = rows[3]["generation"], rows[0]["generation"]
    assert [(row["generation"], row["served"], row["view"]) for row in rows] == [
        *((second, True, view) for view in ("city", "demand", "last_trip")),
        *((first, False, view) for view in ("city", "demand", "last_trip")),
    ]
    assert [row["snapshot"] for row in rows] == [6, 6, 6, 3, 3, 3]
    assert len(records("online", "status")) == 6
    assert run("online", "status").stdout.splitlines()[0].split() == list(rows[0])

    asked = ["online", "get", "demand:trips_1d", "zone=007", "--at", LATER]
    assert objects(*asked)[0]["trips_1d"] == 3
    (row,) = objects("online", "rollback")
    assert (row["generation"], row["snapshot"]) == (first, 3)
    assert objects(*asked)[0]["trips_1d"] == 2
    assert "verify" not in run("verify", "tips").stderr
    assert "no generation before" in run("online", "rollback", code=1).stderr
    assert objects("online", "rollback", second)[0]["generation"] == second
    assert objects(*asked)[0]["trips_1d"] == 3
    assert first in run("online", "rollback").stdout
    assert "there is no generation nope" in run("online", "rollback", "nope", code=1).stderr


def test_verify(reading: Path):
    text = run("verify", "tips").stdout.splitlines()
    assert re.fullmatch(
        r"tips: (\d+) of \1 values are the same online and offline \(\d+ lookups at \d+ instants\)", text[0]
    )
    report = objects("verify", "demand:trips_1d", "city:city_trips", "--sample", "5", "--seed", "7")
    assert report["mismatches"] == []
    assert report["values"] == report["rows"] * 2
    assert records("verify", "tips") == []
    assert "Did you mean tips" in run("verify", "tipps", code=1).stderr
    assert "0" in run("verify", "tips", "--sample", "0", code=2).stderr
    run("verify", code=2)


def test_a_damaged_file_and_the_way_back(project: Path):
    land_more(project)
    run("materialize", "--at", AT)
    path = max((project / ".penstock/_online/views").glob("demand-*"), key=lambda path: path.stat().st_mtime_ns)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1000])
    asked = ["online", "get", "demand:trips_1d", "zone=007", "--at", LATER]
    result = run(*asked, code=1)
    assert path.name in result.stderr
    assert "penstock online rollback" in result.stderr
    run("online", "rollback")
    assert objects(*asked)[0]["trips_1d"] == 2
    run("materialize", "--at", AT, "--full")
    assert objects(*asked)[0]["trips_1d"] == 3
