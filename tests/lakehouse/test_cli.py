"""The command line: what it prints, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featurestore.cli import cli
from lakehouse import Lake
from lakehouse.errors import ConflictError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "penstock.toml").write_text('[sources.trips]\nfiles = "*.csv"\n')
    (tmp_path / "a.csv").write_text("id,fare\n1,2.50\n2,3.75\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(cli, arguments, input=stdin, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_land_and_ask(project: Path) -> None:
    assert "1 file landed; 2 records = 2 well-formed + 0 malformed" in run("land").stdout
    assert "nothing new, 1 file unchanged (snapshot 1)" in run("land", "trips", "a.csv").stdout
    assert json.loads(run("sql", "select id, fare from lake.trips order by id", "--format", "json").stdout) == [
        {"id": 1, "fare": 2.5},
        {"id": 2, "fare": 3.75},
    ]
    table = run("sql", "-", stdin="select sum(fare) as fares from lake.trips").stdout
    assert "6.250000" in table


@pytest.mark.parametrize(
    "arguments",
    [
        ["sources"],
        ["schema", "trips"],
        ["tables"],
        ["snapshots"],
        ["history", "raw.trips"],
        ["tag", "first"],
        ["tag"],
        ["rollback", "0"],
    ],
)
def test_every_listing_speaks_three_formats(project: Path, arguments: list[str]) -> None:
    run("land")
    run("tag", "one")
    assert run(*arguments).stdout.strip()
    objects = json.loads(run(*arguments, "--format", "json").stdout)
    rows = list(csv.DictReader(io.StringIO(run(*arguments, "--format", "csv").stdout)))
    assert len(rows) == len(objects) > 0
    assert list(rows[0]) == list(objects[0])


def test_as_of(project: Path) -> None:
    run("land")
    run("tag", "one")
    (project / "b.csv").write_text("id,fare\n3,1.00\n")
    run("land")
    count = ["sql", "select count(*) as n from lake.trips", "--format", "json"]
    at = json.loads(run("snapshots", "--format", "json").stdout)[1]["at"]
    for as_of, expected in ((None, 3), ("one", 2), ("1", 2), (at, 2)):
        options = ["--as-of", as_of] if as_of else []
        assert json.loads(run(*count, *options).stdout) == [{"n": expected}]
    run("rollback", "one")
    assert json.loads(run(*count).stdout) == [{"n": 2}]
    assert "1 file landed" in run("land").stdout
    assert json.loads(run(*count).stdout) == [{"n": 3}]


def test_export_raw(project: Path) -> None:
    run("land")
    load = json.loads(run("sources", "--format", "json").stdout)[0]["last_load"]
    run("export-raw", "trips", load, "-o", "out")
    assert (project / "out" / "a.csv").read_bytes() == (project / "a.csv").read_bytes()
    assert "is there already" in run("export-raw", "trips", load, "-o", "out", code=1).stderr
    assert "has no load" in run("export-raw", "trips", "nope", "-o", "out", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["sql", "select * from lake.tripz"], 1, "Did you mean lake.trips"),
        (["sql", "select * from lake.trips", "--as-of", "99"], 1, "there is no snapshot 99"),
        (["sql", "select * from lake.trips", "--as-of", "nine"], 1, "there is no tag 'nine'"),
        (["sql", "selec"], 1, "syntax error"),
        (["land", "trips", "nowhere.csv"], 1, "there is no such file"),
        (["land", "nothing"], 1, "declares no files"),
        (["history", "trips"], 1, "never been a table warehouse.trips"),
        (["schema", "x"], 1, "there is no source x"),
        (["tag", "2020"], 1, "cannot be a tag"),
        (["rollback", "7"], 1, "there is no snapshot 7"),
        (["sql"], 2, "Give a query"),
        (["land", "--format", "xml"], 2, "xml"),
        (["nonsense"], 2, "No such command"),
        (["tables", "--project", "/nonexistent"], 1, "there is no such directory"),
    ],
)
def test_what_is_wrong_where_and_what_to_do(project: Path, arguments: list[str], code: int, message: str) -> None:
    run("land")
    result = run(*arguments, code=code)
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_damaged_newest_entry_is_no_step_back(project: Path) -> None:
    run("land")
    (project / "b.csv").write_text("id,fare\n3,1.00\n")
    run("land")
    entry = project / ".penstock/_catalog/log/2.json"
    entry.write_bytes(entry.read_bytes()[:-30])
    for arguments in (["tables"], ["land"], ["sql", "select 1"], ["snapshots"], ["tag", "t", "1"]):
        assert "newest good snapshot is 1" in run(*arguments, code=1).stderr
    assert "2" in run("sql", "select count(*) as n from lake.trips", "--as-of", "1").stdout


def test_landing_says_what_is_malformed_and_where_to_see_all(project: Path) -> None:
    (project / "bad.csv").write_text("id,fare\n1\n2,3,4\n5\n6,6.00\n7\n")
    text = run("land", "bad", "bad.csv").stdout
    assert "  bad.csv, line 2, offset 8: 1 field, expected 2\n" in text
    assert "and 1 more" in text
    query = re.search(r'penstock sql "(.*)"', text)
    assert query
    rows = json.loads(run("sql", query[1], "--format", "json").stdout)
    assert [row["_line"] for row in rows] == [2, 3, 4, 6]
    (report,) = json.loads(run("land", "bad", "bad.csv", "--format", "json").stdout)
    assert report["first_malformed"] == []


@pytest.fixture
def three_sources(project: Path) -> Path:
    (project / "penstock.toml").write_text(
        "".join(f'[sources.{name}]\nfiles = "{name}.csv"\n' for name in ("orders", "customers", "prices"))
    )
    for name in ("orders", "prices"):
        (project / f"{name}.csv").write_text("id,fare\n1,2.50\n")
    return project


def test_a_source_that_fails_keeps_no_other_from_landing(three_sources: Path) -> None:
    told = run("land", code=1)
    assert [line.partition(":")[0] for line in told.stdout.splitlines() if line[0] != " "] == ["orders", "prices"]
    assert re.fullmatch(r"error: customers: \S+/customers.csv: there is no such file\n  .*\n", told.stderr)
    reports = json.loads(run("land", "--format", "json", code=1).stdout)
    assert [(report["source"], report["snapshot"]) for report in reports] == [("orders", 2), ("prices", 2)]
    rows = list(csv.DictReader(io.StringIO(run("land", "--format", "csv", code=1).stdout)))
    assert [(row["uri"], row["status"]) for row in rows] == [("orders.csv", "unchanged"), ("prices.csv", "unchanged")]
    assert "customers" not in run("land", "orders").output


@pytest.mark.parametrize(
    ("losers", "code"), [({"orders"}, 1), ({"customers"}, 75), ({"customers", "prices"}, 75), ({"prices"}, 1)]
)
def test_landing_fails_for_now_only_if_every_failure_is_for_now(
    three_sources: Path, monkeypatch: pytest.MonkeyPatch, losers: set[str], code: int
) -> None:
    land = Lake.land

    def losing(lake: Lake, source: str, *arguments: object, **options: object) -> object:
        if source in losers:
            raise ConflictError("another process won")
        return land(lake, source, *arguments, **options)

    monkeypatch.setattr(Lake, "land", losing)
    told = run("land", code=code).stderr
    assert all(f"error: {name}: another process won" in told for name in losers)


@pytest.mark.parametrize(("stopped", "error", "code"), [("orders", KeyError, 1), ("prices", KeyboardInterrupt, 130)])
def test_landing_tells_what_landed_whatever_stops_it(
    three_sources: Path, monkeypatch: pytest.MonkeyPatch, stopped: str, error: type, code: int
) -> None:
    land = Lake.land

    def broken(lake: Lake, source: str, *arguments: object, **options: object) -> object:
        if source == stopped:
            raise error
        return land(lake, source, *arguments, **options)

    monkeypatch.setattr(Lake, "land", broken)
    told = run("land", code=code)
    assert re.findall("(?m)^[a-z]+: 1 file landed", told.stdout) == [
        f"{name}: 1 file landed" for name in ("orders", "prices") if name != stopped
    ]
    assert "error: customers: " in told.stderr
    assert ("error: KeyError" in told.stderr) == (error is KeyError)


def test_landing_says_that_a_setting_took_effect(project: Path) -> None:
    run("land")
    (project / "a.csv").write_text("id,fare\n1,2.50\n")
    run("land")
    (project / "penstock.toml").write_text('[sources.trips]\nfiles = "*.csv"\non_change = "add"\n')
    assert "on_change was replace and is now add: 1 file landed before becomes visible" in run("land").stdout
    (project / "penstock.toml").write_text('[sources.trips]\nfiles = "*.csv"\n')
    (report,) = json.loads(run("land", "--format", "json").stdout)
    assert report["on_change"] == {"old": "add", "new": "replace", "shown": 0, "hidden": 1}


@pytest.mark.parametrize(
    "query",
    [
        "create table t as select 1",
        "create table warehouse.t (a int)",
        "drop view lake.trips",
        "set threads = 1; create table t (a int); insert into t values (1)",
        "begin; create schema s; commit",
    ],
)
def test_a_query_that_would_change_nothing_is_refused(project: Path, query: str) -> None:
    run("land")
    message = run("sql", query, code=1).stderr
    assert "would change nothing: its effect ends with this session" in message
    assert "penstock land, promote and rollback" in message
    assert "2" in run("sql", "select count(*) as n from lake.trips").stdout


def test_what_several_statements_did_is_said(project: Path) -> None:
    run("land")
    both = run("sql", "create table t as select 7 as a; select a from t", "--format", "csv")
    assert both.stdout == '"a"\n7\n'
    assert "note: CREATE: its effect ended with this session" in both.stderr
    two = run("sql", "select 1 as a; select 2 as b", "--format", "csv")
    assert two.stdout == '"b"\n2\n'
    assert "note: of 2 results, this is the last" in two.stderr
    for quiet in ("select 1", "create temp table t as select 7 as a; select a from t", "set threads = 1; select 1"):
        assert run("sql", quiet).stderr == ""
    run("sql", "copy (select 1 as a) to 'out.csv'")
    run("sql", "attach 'other.db' as other; create table other.t as select 1")
    assert (project / "out.csv").exists()


def test_before_a_tables_first_snapshot_that_one_is_named(project: Path) -> None:
    run("land")
    for arguments in (
        ["sql", "select * from lake.trips", "--as-of", "0"],
        ["sql", "select * from raw.trips", "--as-of", "0"],
        ["sql", "select * from lake.trips at (version => 0)"],
        ["schema", "trips", "--as-of", "0"],
    ):
        assert "The first snapshot that has it is 1." in run(*arguments, code=1).stderr
    assert "The first" not in run("sql", "from lake.nothing", "--as-of", "0", code=1).stderr


def test_help_says_where_the_time_zone_shows() -> None:
    text = " ".join(run("sql", "--help").stdout.split())
    assert "CSV and JSON are always UTC" in text


@pytest.mark.parametrize("there", [False, True])
def test_without_models_it_is_said_where_they_belong(project: Path, there: bool) -> None:
    if there:
        (project / "sql/warehouse").mkdir(parents=True)
    run("land")
    for verb in ("plan", "promote"):
        text = run(verb).stdout
        assert "There are no models yet" in text
        assert "sql/warehouse/" in text
        assert "Nothing to do" not in text
    assert json.loads(run("promote", "--format", "json").stdout)["tables"] == []


def test_a_model_that_is_gone_is_named(project: Path) -> None:
    model = project / "sql/warehouse/t.sql"
    model.parent.mkdir(parents=True)
    model.write_text(
        "create table warehouse.t (a bigint);\ntruncate warehouse.t;\ninsert into warehouse.t select 1 as a;\n"
    )
    run("land")
    run("promote")
    reader = model.with_name("u.sql")
    reader.write_text(model.read_text().replace("warehouse.t", "warehouse.u").replace("1 as a", "a from warehouse.t"))
    assert "warehouse.u: full (first run), reads 1 row" in run("plan").stdout
    model.write_text(f"{model.read_text()}-- again\n")
    assert "warehouse.u: full (first run), reads warehouse.t as it will be" in run("plan").stdout
    rows = json.loads(run("plan", "--format", "json").stdout)
    assert {row["name"]: row["rows_to_read"] for row in rows} == {"warehouse.t": 0, "warehouse.u": None}
    run("promote")
    model.unlink()
    gone = "warehouse.t: its model is gone; the table stays as it is"
    warning = "warning: it reads warehouse.t, whose model is gone"
    text = run("plan").stdout
    assert "Nothing to do" in text
    assert warning in text
    assert f"{gone}, and warehouse.u still reads it" in text
    assert f"warehouse.u: {warning}" in run("promote").stdout
    reader.unlink()
    text = run("plan").stdout
    assert "There are no models" in text
    assert gone in text
    assert "still" not in text


@pytest.mark.parametrize(("reads", "code"), [("select 1 as a", 0), ("select id as a from lake.trips", 1)])
def test_a_model_that_needs_no_source_runs_before_anything_has_landed(project: Path, reads: str, code: int) -> None:
    model = project / "sql/warehouse/t.sql"
    model.parent.mkdir(parents=True)
    model.write_text(f"create table warehouse.t (a bigint);\ntruncate warehouse.t;\ninsert into warehouse.t {reads};\n")
    told = run("plan", code=1).stderr
    assert ("penstock promote makes the lake" in told, "Land something first" in told) == (code == 0, code == 1)
    result = run("promote", code=code)
    assert ("good 1" in result.stdout, "Land something first" in result.stderr) == (code == 0, code == 1)
    assert Lake(project).catalog.exists == (code == 0)


@pytest.mark.parametrize("name", list(cli.commands))
def test_help_shows_an_example(name: str) -> None:
    assert f"Example:  penstock {name}" in run(name, "--help").stdout


def test_a_protected_lake_asks_for_yes(project: Path) -> None:
    run("land")
    run("tag", "one")
    (project / "penstock.toml").write_text("[lake]\nprotected = true\n")
    assert "add --yes" in run("rollback", "0", code=1).stderr
    assert "add --yes" in run("tag", "one", "--delete", code=1).stderr
    run("tag", "one", "--delete", "--yes")
    assert "2" in run("rollback", "0", "--yes").stdout


def test_deleting_no_tag_is_a_wrong_command(project: Path) -> None:
    run("land")
    run("tag", "one")
    assert "Name the tag" in run("tag", "--delete", code=2).stderr
    assert run("tag", "--format", "csv").stdout == "tag,snapshot\none,1\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a b", "' ' cannot be in a tag"),
        ("é", "'é' cannot be in a tag"),
        ("release/1", "'/' cannot be in a tag"),
        ("", "a tag needs a name"),
        ("-", "'-' cannot be a tag: it must begin with a letter"),
        ("_x", "'_x' cannot be a tag: it must begin with a letter"),
        ("2020-01-01", "it must not look like a number or a time"),
        ("a" * 300, "a tag has at most 200 characters, and this one has 300"),
    ],
)
def test_why_a_name_cannot_be_a_tag(project: Path, name: str, reason: str) -> None:
    run("land")
    message = run("tag", "--", name, code=1).stderr
    assert reason in message
    assert "A to Z" in message
    assert run("tag", "a" * 200).stdout
    assert f"there is no tag {'a' * 300!r}" in run("sql", "select 1", "--as-of", "a" * 300, code=1).stderr


def test_a_list_without_rows_has_its_header_in_csv(project: Path) -> None:
    Lake(project).catalog.create()
    for arguments, header in (
        (["tag"], "tag,snapshot"),
        (["sources"], "source,files,visible,records,malformed,columns,timezone,on_change,last_load"),
        (["tables"], "name,kind,rows,files,bytes,columns"),
        (["plan"], "kind,name,action,reason,rows_to_read,changes,breaking,warnings"),
        (["promote"], "table,mode,reason,read,"),
    ):
        lines = run(*arguments, "--format", "csv").stdout.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(header)


def test_promote_says_which_values_landing_could_not_type(project: Path) -> None:
    model = project / "sql/warehouse/t.sql"
    model.parent.mkdir(parents=True)
    model.write_text(
        "create table warehouse.t (id bigint primary key, fare double);\n"
        "insert or replace into warehouse.t select id, fare from lake.trips; -- @since load(lake.trips)\n"
    )
    run("land")
    assert "warning" not in run("promote").stdout
    (project / "b.csv").write_text("id,fare\n3,1.2345678\n4,N/A\n5,1\n")
    run("land")
    text = run("promote").stdout
    assert "warning: 2 records of lake.trips have values that are not of their column's type" in text
    query = re.search(r'penstock sql "([^"]+)"', text)
    assert query
    rows = json.loads(run("sql", query[1], "--format", "json").stdout)
    assert sorted(row["_rest"] for row in rows) == ['{"fare": "1.2345678"}', '{"fare": "N/A"}']

    model.write_text(
        "create table warehouse.t (id bigint primary key, fare double);\n"
        "insert or replace into warehouse.t\n"
        "select id, coalesce(fare, try_cast(_rest->>'$.fare' as double)) as fare from lake.trips;\n"
    )
    assert "warning" not in run("promote").stdout
    assert json.loads(run("sql", "select fare from warehouse.t where id = 3", "--format", "json").stdout) == [
        {"fare": 1.2345678}
    ]


def test_csv_has_no_spelling_of_pythons(project: Path) -> None:
    model = project / "sql/warehouse/t.sql"
    model.parent.mkdir(parents=True)
    model.write_text(
        "-- @max_quarantine 100%\ncreate table warehouse.t (a bigint check (a < 2));\ntruncate warehouse.t;\n"
        "insert into warehouse.t select id as a from lake.trips;\n"
    )
    run("land")
    (step,) = csv.DictReader(io.StringIO(run("plan", "--format", "csv").stdout))
    assert step["breaking"] == "false"
    text = run("promote", "--format", "csv").stdout
    (row,) = csv.DictReader(io.StringIO(text))
    assert json.loads(row["read"]) == ["lake.trips"]
    assert json.loads(row["by_reason"]) == {"a: check (a < 2)": 1}
    (group,) = csv.DictReader(io.StringIO(run("quarantine", "t", "--format", "csv").stdout))
    assert group["rows"] == "1"
    (rejected,) = json.loads(run("quarantine", "t", "--rows", "5", "--format", "json").stdout)
    assert json.loads(rejected["_row"]) == {"a": 2}
    assert run("quarantine", "t", "--rows", "5").stdout.startswith("a is 2: check (a < 2)\n  a = 2\n  open since 20")


def test_a_rollback_says_what_it_published(project: Path) -> None:
    run("land")
    assert run("rollback", "0").stdout == "Published as snapshot 2: back to snapshot 0\n"
    told = json.loads(run("rollback", "1", "--format", "json").stdout)
    assert told == [{"snapshot": 3, "summary": "back to snapshot 1"}]


def test_names_of_several_lines_take_one_in_a_list(project: Path) -> None:
    (project / "odd.csv").write_text('"a\nb","c\x1bd"\n1,2\n')
    run("land", "odd", str(project / "odd.csv"))
    assert [line.split()[:2] for line in run("schema", "odd").stdout.splitlines()[1:]] == [["a", "b"], ["c", "d"]]


def test_a_local_time_that_never_was_is_one_of_the_values_without_a_type(project: Path) -> None:
    with (project / "penstock.toml").open("a") as settings:
        settings.write('[sources.local]\ntimezone = "America/New_York"\n')
    (project / "local.csv").write_text("at\n2024-03-10 01:30:00\n2024-03-10 02:30:00\n")
    told = run("land", "local", str(project / "local.csv")).stdout
    assert re.search(r"1 local time never was .*: among the values below that are null.*\n.* at: 1 value is not", told)


@pytest.mark.parametrize("query", ["show tables", "SHOW TABLES;", "from (show tables) order by name"])
def test_show_tables_lists_the_lake(project: Path, query: str) -> None:
    run("land")
    lake = Lake(project)
    lake.sql("select * from lake.trips at (version => 1)").fetchall()
    assert lake.sql(query).fetchall() == [
        ("lake.trips",), ("raw.trips",), ("system.snapshots",), ("system.tables",), ("typed.trips",)
    ]  # fmt: skip
    lake.sql("create temp table mine as select 1 as a")
    assert ("mine",) in lake.sql(query).fetchall()
    assert "lake.trips" in run("sql", query).stdout
