"""Files of a generation that were damaged: found before they are kept, built anew, and no trouble for other views."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

sys.path.append(str(Path(__file__).parent))

from online_lake import CITY, NOON, STATE, SUMS, TOWN, OnlineLake, city

from featurestore.cli import cli
from featurestore.definitions import FeatureService
from featurestore.materialization import MaterializationReport
from lakehouse.errors import CatalogDamagedError

DAMAGES = ["cut short", "flipped byte", "missing"]


@pytest.fixture
def lake(tmp_path: Path) -> OnlineLake:
    lake = OnlineLake.built(tmp_path)
    lake.store.materialize(at=NOON)
    return lake


def damage(lake: OnlineLake, view: str, how: str = "flipped byte") -> Path:
    path = lake.directory / "views" / lake.files[view]
    content = bytearray(path.read_bytes())
    path.chmod(0o600)
    if how == "missing":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(content[:-100])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    return path


def built(report: MaterializationReport) -> dict[str, tuple[bool, bool]]:
    """Return which views' files were reused, and which were built because the old one was damaged."""
    return {view.view: (view.reused, view.damaged is not None) for view in report.views}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_built_anew_though_nothing_changed(lake: OnlineLake, how: str):
    path = damage(lake, "state", how)
    report = lake.another().materialize(at=NOON)
    assert report.published
    assert built(report) == {"state": (False, True), "sums": (True, False), "town": (True, False)}
    assert "built anew because the file " in report.text()[0]
    assert path.name not in lake.files.values()
    assert lake.state()["rides_1d"] == 2
    assert lake.store.verify("tips").same
    assert lake.another().materialize(at=NOON).published is False


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_not_kept_when_another_view_changed(lake: OnlineLake, how: str):
    damage(lake, "state", how)
    lake.append(city((-6, 170)), table=CITY)
    report = lake.another().materialize(at=NOON)
    assert built(report) == {"state": (False, True), "sums": (True, False), "town": (False, False)}
    assert (lake.state()["rides_1d"], lake.state()["trips"]) == (2, 170)


def test_damage_is_found_by_a_process_that_has_read_the_file_before(lake: OnlineLake):
    assert lake.store.get_online_features("tips", [{"zone": 1}], at=NOON).to_dict()["rides_1d"] == [2]
    path = lake.directory / "views" / lake.files["town"]
    before = path.stat()
    damage(lake, "town")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert built(lake.store.materialize(at=NOON))["town"] == (False, True)


def test_the_command_says_what_was_damaged(lake: OnlineLake):
    damage(lake, "sums")
    project = ["--project", str(lake.root / "lake"), "--at", "2024-01-02T12:00:00Z"]
    result = CliRunner().invoke(cli, ["materialize", *project])
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("sums: ")]
    assert line.endswith("built anew because the file is damaged: it does not match its hash")
    damage(lake, "town", "missing")
    views = json.loads(CliRunner().invoke(cli, ["materialize", "--format", "json", *project]).stdout)["views"]
    assert {view["view"]: view["damaged"] for view in views} == {
        "state": None, "sums": None, "town": "the file is missing",
    }  # fmt: skip


# -- lookups --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", DAMAGES)
def test_lookups_of_other_views_go_on(lake: OnlineLake, how: str):
    path = damage(lake, "state", how)
    store = lake.another()
    for _ in range(2):
        assert ask(store, ["sums:rides_1d", "town:trips"]) == {"zone": [1, 2], "rides_1d": [2, 0], "trips": [100, 100]}
        for asked in (["state:fare"], "tips"):
            with pytest.raises(CatalogDamagedError) as error:
                ask(store, asked)
            assert path.name in str(error.value)
            assert "penstock materialize" in str(error.value)
    assert store.verify(["sums:rides_1d", "town:trips"]).same
    with pytest.raises(CatalogDamagedError):
        store.verify("tips")
    # The next generation is whole, for whoever has this one open too.
    lake.another().materialize(at=NOON)
    assert [str(fare) for fare in ask(store, ["state:fare"])["fare"]] == ["2.50", "None"]


def ask(store: Any, asked: Any) -> dict[str, list[Any]]:
    return store.get_online_features(asked, [{"zone": 1}, {"zone": 2}], at=NOON).to_dict()


def test_damage_that_comes_with_a_flip_stops_nobody_else(lake: OnlineLake):
    store = lake.another()
    assert ask(store, ["town:trips"])["trips"] == [100, 100]
    other = lake.another()
    lake.append(city((-1, 5)), table=CITY)
    other.materialize(at=NOON)
    damage(lake, "state")
    assert ask(store, ["town:trips"])["trips"] == [5, 5]


# -- the pointer and the manifests ----------------------------------------------------------------------------------


def run(lake: OnlineLake, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, [*arguments, "--project", str(lake.root / "lake")])
    assert result.exit_code == code, result.output
    return result


def status(lake: OnlineLake, code: int = 0) -> tuple[dict[str, bool], str]:
    """Return the generations of `penstock online status` and whether they are served, and what it complains of."""
    result = run(lake, "online", "status", "--format", "json", code=code)
    return {row["generation"]: row["served"] for row in json.loads(result.stdout)}, result.stderr


@pytest.fixture
def two(lake: OnlineLake) -> tuple[str, str]:
    """Two generations, the older one first; they share files."""
    lake.append(city((-6, 170)), table=CITY)
    first = lake.store.online.current_id()
    assert first is not None
    return first, lake.store.materialize(at=NOON).generation


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"{"])
def test_generations_without_their_pointer_are_listed_and_served_by_name(
    lake: OnlineLake, two: tuple[str, str], content: bytes | None
):
    pointer = lake.directory / "CURRENT"
    if content is None:
        pointer.unlink()
    else:
        pointer.write_bytes(content)
    listed, said = status(lake, code=1)
    assert listed == {two[0]: False, two[1]: False}
    arguments = ["--at", "2024-01-02T12:00:00Z"]
    for told in (
        said,
        run(lake, "online", "get", "town:trips", *arguments, code=1).stderr,
        run(lake, "online", "rollback", code=1).stderr,
        run(lake, "materialize", *arguments, code=1).stderr,
    ):
        assert f"error: {pointer}: the pointer " in told
        assert f"penstock online rollback ID, where ID is one of {two[1]}, {two[0]}." in told
    run(lake, "online", "rollback", two[1])
    assert status(lake) == ({two[0]: False, two[1]: True}, "")
    assert lake.state()["trips"] == 170


@pytest.mark.parametrize("damage", [None, b"\xff\xfe", b"{}"])
def test_status_says_that_the_served_generation_is_damaged(
    lake: OnlineLake, two: tuple[str, str], damage: bytes | None
):
    path = lake.directory / f"generations/{two[1]}.json"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    listed, said = status(lake, code=1)
    assert listed == {two[0]: False}
    assert f"error: {path}: generation {two[1]} is " in said
    assert "penstock materialize --full" in said
    run(lake, "online", "rollback")
    assert status(lake) == ({two[0]: True}, "")


def test_status_of_nothing_that_can_be_read(lake: OnlineLake):
    for path in (lake.directory / "generations").iterdir():
        path.write_bytes(b"{}")
    result = run(lake, "online", "status", code=1)
    assert result.stdout == "No generation that can be read.\n"
    assert "penstock materialize --full" in result.stderr


def test_status_lists_a_generation_without_views(lake: OnlineLake):
    off = [replace(view, online=False) for view in (STATE, SUMS, TOWN)]
    lake.store.apply([*off, FeatureService("tips", features=off)])
    served = lake.store.materialize(at=NOON).generation
    rows = json.loads(run(lake, "online", "status", "--format", "json").stdout)
    assert (rows[0]["generation"], rows[0]["served"], rows[0]["view"]) == (served, True, None)
    assert served in run(lake, "online", "status").stdout
    assert "no feature view is online" in run(lake, "online", "get", "town:trips", code=1).stderr
