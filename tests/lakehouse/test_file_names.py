"""What files are called: a project can be moved, a lake without one can be read from anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lakehouse import Lake
from lakehouse.catalog import Catalog
from lakehouse.errors import InputError
from lakehouse.storage import Storage

FIRST, SECOND = b"id,v\n1,10\n2,20\n", b"id,v\n1,11\n2,20\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "q"
    (root / "d").mkdir(parents=True)
    (root / "penstock.toml").write_text('[sources.s]\nfiles = "d/*.csv"\n')
    (root / "d/a.csv").write_bytes(FIRST)
    return root


def rows(lake: Lake) -> list[tuple]:
    return lake.sql("select id, v, _source_uri from lake.s order by _load_seq, _offset").fetchall()


def land_as_before(project: Path) -> Lake:
    """Land as every lake did once, under absolute URIs, as a lake without a project still does."""
    Catalog(Storage(project / ".penstock")).create()
    lake = Lake(project / ".penstock")
    lake.land("s", project / "d/*.csv")
    return lake


def test_a_moved_project_knows_its_files(project: Path) -> None:
    Lake(project).land("s")
    moved = project.rename(project.with_name("q2"))
    assert [file.status for file in Lake(moved).land("s").files] == ["unchanged"]
    (moved / "d/a.csv").write_bytes(SECOND)
    lake = Lake(moved)
    report = lake.land("s")
    assert [(file.uri, file.status) for file in report.files] == [("d/a.csv", "landed")]
    assert rows(lake) == [(1, 11, "d/a.csv"), (2, 20, "d/a.csv")]
    assert lake.sql("select distinct _source_uri from raw.s").fetchall() == [("d/a.csv",)]
    assert [Path(f.path).read_bytes() for f in lake.export_raw("s", str(report.load_id), moved / "out")] == [SECOND]


def test_a_lake_of_before_does_not_double(project: Path) -> None:
    land_as_before(project)
    lake = Lake(project)
    old = f"file://{project}/d/a.csv"
    assert rows(lake) == [(1, 10, old), (2, 20, old)]
    assert [file.status for file in lake.land("s").files] == ["unchanged"]
    (project / "d/a.csv").write_bytes(SECOND)
    lake.land("s")
    assert rows(lake) == [(1, 11, "d/a.csv"), (2, 20, "d/a.csv")]
    moved = project.rename(project.with_name("q2"))
    (moved / "d/a.csv").write_bytes(FIRST + b"3,30\n")
    Lake(moved).land("s")
    assert [row[:2] for row in rows(Lake(moved))] == [(1, 10), (2, 20), (3, 30)]


def test_a_lake_of_before_keeps_its_names_when_it_moves(project: Path) -> None:
    land_as_before(project)
    (project / "d/b.csv").write_bytes(b"id,v\n7,70\n")
    Lake(project).land("s")  # from here on the list says what a.csv is called
    moved = project.rename(project.with_name("q2"))
    (moved / "d/a.csv").write_bytes(SECOND)
    lake = Lake(moved)
    lake.land("s")
    assert sorted(row[:2] for row in rows(lake)) == [(1, 11), (2, 20), (7, 70)]
    assert rows(lake)[0][2] == "d/b.csv"


def test_files_of_before_can_be_exported(project: Path) -> None:
    land_as_before(project)
    load = Lake(project).source("s").landed[0].load_id
    (project / "d/b.csv").write_bytes(FIRST)
    (project / "d/c.csv").write_bytes(SECOND)
    report = Lake(project).land("s")
    assert [file.status for file in report.files] == ["unchanged", "same content", "landed"]
    for number, expected in ((load, [FIRST]), (str(report.load_id), [FIRST, SECOND])):
        written = Lake(project).export_raw("s", number, project / f"out-{number}")
        assert [Path(file.path).read_bytes() for file in written] == expected


def test_a_model_over_a_lake_of_before_reads_new_files_only(project: Path) -> None:
    land_as_before(project)
    model = project / "sql/warehouse/t.sql"
    model.parent.mkdir(parents=True)
    model.write_text(
        "create table warehouse.t (k varchar primary key, v bigint, file varchar);\n"
        "insert or replace into warehouse.t select _record_id as k, v, _source_uri as file from lake.s; "
        "-- @since load(lake.s)\n"
    )
    Lake(project).promote()
    (project / "d/b.csv").write_bytes(b"id,v\n7,70\n")
    lake = Lake(project)
    lake.land("s")
    (report,) = lake.promote().tables
    assert report.mode == "incremental"
    found = lake.sql("select v, file from warehouse.t order by v").fetchall()
    assert found == lake.sql("select v, _source_uri from lake.s order by v").fetchall()
    assert found == [(10, f"file://{project}/d/a.csv"), (20, f"file://{project}/d/a.csv"), (70, "d/b.csv")]


def test_files_outside_keep_their_uri(project: Path) -> None:
    outside = project.with_name("elsewhere.csv")
    outside.write_bytes(FIRST)
    lake = Lake(project)
    assert [file.uri for file in lake.land("s", outside).files] == [f"file://{outside}"]
    assert [file.status for file in lake.land("s", f"{project}/d/../../elsewhere.csv").files] == ["unchanged"]


def test_a_lake_without_a_project_keeps_uris(project: Path, tmp_path: Path) -> None:
    Catalog(Storage(tmp_path / "lake")).create()
    report = Lake(tmp_path / "lake").land("s", project / "d/a.csv")
    assert [file.uri for file in report.files] == [f"file://{project}/d/a.csv"]


def test_a_file_has_one_name_whichever_way_leads_to_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = project.with_name("link")
    link.symlink_to(project)
    lake = Lake(project)
    monkeypatch.chdir(project / "d")
    ways = ["a.csv", "../d/a.csv", project / "d/a.csv", link / "d/a.csv", f"file://{project}/d/a.csv"]
    assert [[file.uri for file in lake.land("s", way).files] for way in ways] == [["d/a.csv"]] * 5
    assert len(lake.land("s", ways).files) == 1


def test_a_linked_directory_of_the_project_belongs_to_it(project: Path) -> None:
    elsewhere = project.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "b.csv").write_bytes(FIRST)
    (project / "linked").symlink_to(elsewhere)
    assert [file.uri for file in Lake(project).land("s", project / "linked/b.csv").files] == ["linked/b.csv"]


def test_later_file_of_a_load_is_the_later_by_name(project: Path) -> None:
    """The order of a load does not depend on where the project lies."""
    for name in ("b.csv", "a b.csv", "z.csv"):
        (project / "d" / name).write_bytes(b"id,v\n1,%d\n" % len(name))
    lake = Lake(project)
    assert [file.uri for file in lake.land("s").files] == ["d/a b.csv", "d/a.csv", "d/b.csv", "d/z.csv"]
    assert [file.uri for file in lake.source("s").landed] == ["d/a b.csv", "d/a.csv", "d/b.csv", "d/z.csv"]


def test_a_name_that_is_not_utf8_lands(project: Path) -> None:
    name = os.fsencode(project) + b"/d/s\xff.csv"
    Path(os.fsdecode(name)).write_bytes(b"id,v\n3,30\n")
    lake = Lake(project)
    report = lake.land("s")
    assert [file.uri for file in report.files] == ["d/a.csv", "d/s%FF.csv"]
    assert rows(lake)[-1] == (3, 30, "d/s%FF.csv")
    written = lake.export_raw("s", str(report.load_id), project / "out")
    assert [Path(file.path).name for file in written] == ["a.csv", "s%FF.csv"]
    assert [file.status for file in lake.land("s").files] == ["unchanged"] * 2
    (project / "d/s%FF.csv").write_bytes(b"id,v\n4,40\n")
    with pytest.raises(InputError, match="two files"):
        lake.land("s")


def test_a_double_colon_is_part_of_a_name(project: Path) -> None:
    path = project / "d/s::x.csv"
    path.write_bytes(b"id,v\n3,30\n")
    lake = Lake(project)
    assert [file.uri for file in lake.land("s", path).files] == ["d/s::x.csv"]
    assert [file.uri for file in lake.land("s", f"file://{path}").files] == ["d/s::x.csv"]
    assert [file.uri for file in lake.land("s", str(project / "d/s::*.csv")).files] == ["d/s::x.csv"]


def test_a_lake_in_a_directory_with_a_double_colon(tmp_path: Path) -> None:
    root = tmp_path / "a::b"
    root.mkdir()
    (root / "penstock.toml").write_text("")
    (root / "a.csv").write_bytes(FIRST)
    lake = Lake(root)
    assert lake.land("s", root / "a.csv").records == 2
    assert len(rows(lake)) == 2


@pytest.mark.parametrize(
    ("target", "message"),
    [("loop.csv", "Too many levels of symbolic links"), ("gone.csv", "No such file or directory")],
)
def test_a_link_that_leads_nowhere(project: Path, target: str, message: str) -> None:
    (project / "loop.csv").symlink_to(target)
    with pytest.raises(InputError, match=message) as caught:
        Lake(project).land("s", project / "loop.csv")
    assert caught.value.hint == f"It is a link to {target}."
