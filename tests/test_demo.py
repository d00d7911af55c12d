"""The demo makes its lake anew, and never touches what somebody else has put there."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.demo.project import prepare
from lakehouse import Lake
from lakehouse.errors import ProjectError


def test_the_demos_lake_is_made_anew(tmp_path: Path):
    project, data = prepare(tmp_path / "taxi")
    lake = Lake(project)
    lake.land("yellow_trips", sorted(data.glob("*.gz"))[:1])
    lake.tag("twelve-months")
    assert prepare(tmp_path / "taxi") == (project, data)
    assert Lake(project).catalog.latest().number == 0


def test_what_a_user_added_is_not_deleted(tmp_path: Path):
    project, _ = prepare(tmp_path / "taxi")
    (project / "own.csv").write_text("a\n1\n")
    lake = Lake(project)
    lake.land("mine", project / "own.csv")
    lake.tag("precious")
    with pytest.raises(ProjectError, match="more than the demo made: source mine, tag precious") as told:
        prepare(project)
    assert "--directory" in str(told.value)
    assert lake.sql("select a from lake.mine").fetchall() == [(1,)]


@pytest.mark.parametrize("made", ["project", "lake"])
def test_what_the_demo_did_not_make_is_not_touched(tmp_path: Path, made: str):
    project = tmp_path / "mine"
    project.mkdir()
    (project / "penstock.toml").write_text("")
    if made == "lake":
        (project / "own.csv").write_text("a\n1\n")
        Lake(project).land("mine", project / "own.csv")
    before = sorted(path.name for path in project.rglob("*"))
    with pytest.raises(ProjectError, match="the demo did not make"):
        prepare(project)
    assert sorted(path.name for path in project.rglob("*")) == before
