"""Words of the commands that ask offline: both those who type commands and those who write Python understand them."""

from __future__ import annotations

import gzip
import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from feature_project import SPINE, made, run

MODEL = """\
create table warehouse.trips (trip bigint primary key, zone integer not null, seen timestamptz not null,
  fare decimal(20,10));
insert or replace into warehouse.trips select trip, zone::integer as zone, seen,
  (case when trip = 1 then '-0.0000000001' else '1' end)::decimal(20,10) as fare
from lake.trips;
"""
FEATURES = """\
from featurestore import Entity, Feature, FeatureView

last = FeatureView("last", "warehouse.trips", [Entity("zone")], [Feature("fare")], "seen")
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    commands = (["land"], ["promote"], ["apply"])
    return made(tmp_path_factory.mktemp("project"), *commands, model=MODEL, features=FEATURES)


@pytest.fixture
def project(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(built)
    return built


@pytest.mark.parametrize(
    ("spine", "words"),
    [
        ("select 7 as zone, timestamp '2024-01-01' as a", ["--timezone, in Python timezone="]),
        ("select 7 as zone, now() as a, now() as b", ["--timestamp, in Python timestamp=; one of a, b"]),
        ("select 7 as zone, 'x' as event_timestamp", ["::timestamptz", "to_datetime"]),
        ("select 7 as zone, 1 as fare, now() as a", ["--full-feature-names, in Python full_feature_names=True"]),
        ("", ["--spine is empty\n  Give a .parquet, .arrow or .csv file, or a SELECT in quotes."]),
        (" ", ["--spine is empty"]),
        ("delete from warehouse.trips", ["a spine is a SELECT, not DELETE"]),
    ],
)
def test_hints_name_options_of_both_kinds(project: Path, spine: str, words: list[str]):
    message = run("historical", "last:fare", "--spine", spine, code=1).stderr
    for word in words:
        assert word in message


@pytest.mark.parametrize("before", ["-- a comment\n", "select 1 as zone, now() as event_timestamp; "])
def test_a_spine_that_is_more_than_a_select_runs_nothing(project: Path, tmp_path: Path, before: str):
    spine = f"{before}copy (select 7 as zone) to '{tmp_path / 'x.csv'}'"
    assert "a spine is a SELECT, not " in run("historical", "last:fare", "--spine", spine, code=1).stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "x.csv",
            "zone,at\n7,2024-01-01 00:00:00Z\n7,2024-01-01 00:00:00\n",
            "in row 1 has no zone, though those before",
        ),
        ("x.csv", "zone,at\n7,2024-01-01 00:00:00Z\n7,2.1.2024\n", "'2.1.2024' in row 1 is no time"),
        ("x.csv", "zone,at\n7,2024-01-01 00:00:00Z\n07,2024-01-01 00:00:00Z\n", "'07' in row 1 is none"),
        ("x.csv", "zone,at,Zone\n7,2024-01-01 00:00:00Z,8\n", "x.csv: the header has two columns called 'Zone'"),
        ("x.csv.gz", "zone,zone\n7,7\n", "x.csv.gz: the header has two columns called 'zone'"),
        ("x.parquet", "PAR1", "x.parquet: the file cannot be read: it is no Parquet file, or a damaged one"),
        ("x.arrow", "ARROW1", "x.arrow: the file cannot be read: it is no Arrow file, or a damaged one"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(project: Path, tmp_path: Path, name: str, content: str, told: str):
    (tmp_path / name).write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    arguments = ("--spine", str(tmp_path / name), "--timestamp", "at")
    assert told in run("historical", "last:fare", *arguments, code=1).stderr


def test_a_service_among_features_is_told_in_words_of_both_kinds(project: Path):
    (project / "features.py").write_text(
        FEATURES.replace("Feature,", "Feature, FeatureService,") + 'tips = FeatureService("tips", [last])\n'
    )
    run("apply")
    message = run("historical", "last:fare", "tips", "--spine", SPINE, code=1).stderr
    assert "Ask for a service by itself, not with others: 'tips'." in message


def test_a_key_that_cannot_be_is_told(project: Path):
    told = run("historical", "last:fare", "--spine", "select 3000000000 as zone, now() as event_timestamp").stderr
    assert "1 value of zone cannot be of the key's type INTEGER" in told


@pytest.mark.parametrize("name", ["nowhere/x.csv", "nowhere/x.parquet"])
def test_an_output_without_a_directory_is_refused_before_anything_is_read(project: Path, name: str):
    message = run("historical", "last:fare", "--spine", "nothing.csv", "-o", name, code=1).stderr
    assert f"{name}: there is no directory nowhere" in message


def test_counts_and_decimals_are_good_to_read(project: Path, tmp_path: Path):
    spine = "select 7 as zone, timestamptz '2024-01-01 01:00:00Z' as event_timestamp"
    result = run("historical", "last:fare", "--spine", spine, "-o", str(tmp_path / "x.csv"))
    assert f"1 row × 3 columns written to {tmp_path / 'x.csv'}" in result.stderr
    assert " -0.0000000001\n" in run("historical", "last:fare", "--spine", spine).stdout
    shutil.copytree(project, tmp_path / "copy")
    run("materialize", "--at", "2024-01-01T01:00:00Z", "--project", str(tmp_path / "copy"))
    command = (
        "online",
        "get",
        "last:fare",
        "zone=7",
        "--at",
        "2024-01-01T01:00:00Z",
        "--project",
        str(tmp_path / "copy"),
    )
    assert " -0.0000000001" in run(*command).stdout
