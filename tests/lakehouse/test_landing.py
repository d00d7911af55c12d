"""Landing through the public API: bytes, idempotence, visibility, types, races."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import socket
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse import Lake
from lakehouse.errors import InputError, RequestError
from lakehouse.land_report import OnChange

CSV = b"id,name,price\n1,ann,1.50\n2,bob,2.25\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "penstock.toml").write_text("[resources]\nthreads = 2\n[sources.s]\n")
    return tmp_path


def put(project: Path, name: str, data: bytes) -> Path:
    path = project / name
    path.write_bytes(data)
    return path


def rows(lake: Lake, columns: str = "*", **options: object) -> list[tuple]:
    return lake.sql(f"select {columns} from lake.s order by _load_seq, _offset", **options).fetchall()


def exported(lake: Lake, load_id: str, directory: Path) -> list[bytes]:
    return [Path(file.path).read_bytes() for file in lake.export_raw("s", load_id, directory)]


def test_records_become_typed_rows_with_provenance(project: Path) -> None:
    lake = Lake(project)
    report = lake.land("s", put(project, "a.csv", CSV))
    assert (report.records, report.malformed, report.snapshot) == (2, 0, 1)
    assert rows(lake, "id, name, price") == [(1, "ann", Decimal("1.5")), (2, "bob", Decimal("2.25"))]
    sha = lake.source("s").landed[0].sha256
    assert rows(lake, "_record_id, _load_seq, _line") == [(f"{sha[:32]}-14", 0, 2), (f"{sha[:32]}-25", 0, 3)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a,b\n",
        b"a,b\r\n1,2\n3,4\r5,6",
        b"\xef\xbb\xbfa,b\n1,2\n\n\n3,4\n",
        b'a,b\n1,"x\ny"\n2,"un""quoted"\n3,"never closed\n4,5\n',
        b"a,b\n1\n1,2,3\n1,\xff\n1,\x00\n1,2\n",
        bytes(range(256)) * 3,
        "\ufeffa,b\n1,2\n".encode("utf-16"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_byte_comes_back(project: Path, tmp_path: Path, data: bytes, compressed: bool) -> None:
    lake = Lake(project)
    report = lake.land(
        "s", put(project, "a.csv.gz" if compressed else "a.csv", gzip.compress(data) if compressed else data)
    )
    assert exported(lake, str(report.load_id), tmp_path / "out") == [data]
    counted = lake.sql("select count(*) filter (_kind = 'record'), count(*) filter (not _ok) from raw.s").fetchall()
    assert counted == [(report.records, report.malformed)]
    assert lake.sql("select count(*) from lake.s").fetchall() == [(report.records - report.malformed,)]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"1", b"\xc3\xa9", b"\xff", b"\x00"]), max_size=60))
def test_any_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    project = tmp_path_factory.mktemp("any")
    (project / "penstock.toml").write_text("")
    lake = Lake(project)
    report = lake.land("s", put(project, "a.csv", b"".join(parts)))
    assert exported(lake, str(report.load_id), project / "out") == [b"".join(parts)]


def test_malformed_records_land_with_their_reason(project: Path) -> None:
    lake = Lake(project)
    report = lake.land("s", put(project, "a.csv", b"a,b\n1,2\n3\n4,5,6\n7,8\n"))
    assert (report.records, report.malformed) == (4, 2)
    found = lake.sql("select _line, _error from raw.s where not _ok order by _offset").fetchall()
    assert [line for line, _ in found] == [3, 4]
    assert "expected 2" in found[0][1]


def test_what_has_landed_is_skipped(project: Path) -> None:
    lake = Lake(project)
    path = put(project, "a.csv", CSV)
    lake.land("s", path)
    again = lake.land("s", path)
    assert (again.load_id, again.snapshot, [f.status for f in again.files]) == (None, 1, ["unchanged"])
    recompressed = lake.land("s", put(project, "a.csv", gzip.compress(CSV)))
    assert recompressed.load_id is None
    assert len(rows(lake)) == 2


def test_same_content_elsewhere_is_an_alias(project: Path) -> None:
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", CSV))
    report = lake.land("s", put(project, "b.csv", CSV))
    assert [(f.status, f.records) for f in report.files] == [("same content", 0)]
    assert len(rows(lake)) == 2
    put(project, "a.csv", b"id,name,price\n9,zoe,9.99\n")
    lake.land("s", project / "a.csv")
    assert len(rows(lake)) == 3, "b.csv still shows the first content"


def test_same_content_twice_when_asked_for(project: Path) -> None:
    (project / "penstock.toml").write_text('[sources.s]\non_same_content = "land"\n')
    lake = Lake(project)
    lake.land("s", [put(project, "a.csv", CSV), put(project, "b.csv", CSV)])
    ids = [row[0] for row in rows(lake, "_record_id")]
    assert len(set(ids)) == 4
    assert sum("~1-" in text for text in ids) == 2


def test_changed_file_replaces_or_adds(project: Path) -> None:
    lake = Lake(project)
    path = put(project, "a.csv", CSV)
    lake.land("s", path)
    put(project, "a.csv", CSV + b"3,cid,3.00\n")
    lake.land("s", path)
    assert [row[0] for row in rows(lake, "id")] == [1, 2, 3]
    assert [row[0] for row in rows(lake, "id", as_of=1)] == [1, 2]
    put(project, "a.csv", CSV)
    lake.land("s", path)
    assert [row[0] for row in rows(lake, "id")] == [1, 2], "going back shows the first landing again"
    (project / "penstock.toml").write_text('[sources.s]\non_change = "add"\n')
    adding = Lake(project)
    adding.land("s", path)
    assert [row[0] for row in rows(adding, "id")] == [1, 2, 1, 2, 3]


def test_rollback_lets_a_file_land_again_once(project: Path) -> None:
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", CSV))
    second = put(project, "b.csv", b"id,name,price\n3,cid,3.00\n")
    lake.land("s", second)
    lake.rollback(1)
    assert len(rows(lake)) == 2
    assert lake.land("s", second).records == 1
    assert [row[0] for row in rows(lake, "id")] == [1, 2, 3]


def test_types_hold_for_all_values_of_the_first_load(project: Path) -> None:
    many = b"".join(b"%d\n" % i for i in range(50_000))
    lake = Lake(project)
    files = [put(project, "a.csv", b"x\n" + many), put(project, "b.csv", b"x\n1.5\n"), put(project, "c.csv", b"x\n7\n")]
    report = lake.land("s", files)
    assert report.new_columns == (("x", "decimal(18,6)"),)
    assert report.misfits == {}
    assert lake.sql("select count(*), sum(x), count(_rest) from lake.s").fetchall() == [
        (50_002, Decimal(sum(range(50_000))) + Decimal("8.5"), 0)
    ]


def test_a_settled_column_keeps_its_type(project: Path) -> None:
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", CSV))
    report = lake.land("s", put(project, "b.csv", b'id,name,price\n3,cid,N/A\n4,"d ""q""\xc3\xa9",1\n'))
    assert report.misfits == {"price": 1}
    assert rows(lake, "id, price")[2:] == [(3, None), (4, Decimal(1))]
    assert json.loads(rows(lake, "_rest")[2][0]) == {"price": "N/A"}


def test_bigint_widens_to_decimal(project: Path) -> None:
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", b"x,y\n1,a\n-7,b\n"))
    report = lake.land("s", put(project, "b.csv", b"x,y\n2.5,c\nN/A,d\n"))
    assert report.widened == ("x: bigint → decimal(18,6)",)
    assert rows(lake, "x, y, _rest") == [
        (Decimal(1), "a", None),
        (Decimal(-7), "b", None),
        (Decimal("2.5"), "c", None),
        (None, "d", '{"x": "N/A"}'),
    ]
    assert rows(lake, "x", as_of=1) == [(1,), (-7,)]


def test_columns_appear_and_move(project: Path) -> None:
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", b"a,b\n1,\n"))
    lake.land("s", put(project, "b.csv", b"b,C,a\n5,x,2\n"))
    assert rows(lake, "a, b, c") == [(1, None, None), (2, 5, "x")]


def test_a_time_without_zone_appears_in_a_later_load(project: Path) -> None:
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", b"a,t\n1,\n"))
    lake.land("s", put(project, "b.csv", b"a,t\n2,2018-07-01 12:00:00\n"))
    assert rows(lake, "a, t::varchar") == [(1, None), (2, "2018-07-01 12:00:00")]


@pytest.mark.parametrize("uri", ["zz://x/y.csv"])
def test_an_address_that_nothing_opens(project: Path, uri: str) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        Lake(project).land("s", uri)


def test_an_address_that_needs_a_package_names_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    with pytest.raises(InputError, match="a package that opens this is not installed") as caught:
        Lake(project).land("s", "http://127.0.0.1:9/x.csv")
    assert str(caught.value.hint).startswith("pip install aiohttp, or save the file")


def test_an_address_that_does_not_answer_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(MemoryFileSystem, "isdir", refuse)
    with pytest.raises(InputError, match="cannot be reached: Connection refused") as caught:
        Lake(project).land("s", "memory://x.csv")
    assert caught.value.where == "memory://x.csv"


def test_local_times(project: Path) -> None:
    (project / "penstock.toml").write_text('[sources.s]\ntimezone = "America/New_York"\n')
    lake = Lake(project)
    report = lake.land(
        "s", put(project, "a.csv", b"t\n2018-11-04 01:30:00\n2018-03-11 02:30:00\n2018-07-01 12:00:00\n")
    )
    assert (report.ambiguous, report.missing) == (1, 1)
    assert rows(lake, "t::varchar, _rest") == [
        ("2018-11-04 05:30:00+00", None),
        (None, '{"t": "2018-03-11 02:30:00"}'),
        ("2018-07-01 16:00:00+00", None),
    ]
    (project / "penstock.toml").write_text('[sources.s]\ntimezone = "Europe/Berlin"\n')
    moved = Lake(project).land("s", put(project, "b.csv", b"t\n2018-07-02 12:00:00\n"))
    assert "Europe/Berlin" in moved.warnings[0]


def test_a_changed_on_change_says_what_it_does(project: Path) -> None:
    lake = Lake(project)
    path = put(project, "a.csv", CSV)
    lake.land("s", path)
    put(project, "a.csv", CSV + b"3,cid,3.00\n")
    assert lake.land("s", path).on_change is None
    (project / "penstock.toml").write_text('[sources.s]\non_change = "add"\n')
    added = Lake(project).land("s", path)
    assert added.on_change == OnChange("replace", "add", shown=1, hidden=0)
    assert Lake(project).land("s", path).on_change is None
    (project / "penstock.toml").write_text("[sources.s]\n")
    back = Lake(project).land("s", put(project, "b.csv", b"id,name,price\n4,dan,4.00\n"))
    assert back.on_change == OnChange("add", "replace", shown=0, hidden=1)


def test_a_changed_time_zone_says_what_to_do(project: Path) -> None:
    (project / "penstock.toml").write_text('[sources.s]\ntimezone = "America/New_York"\n')
    path = put(project, "a.csv", b"t\n2018-07-01 12:00:00\n")
    assert Lake(project).land("s", path).warnings == ()
    for declared in ('timezone = "Europe/Berlin"', ""):
        (project / "penstock.toml").write_text(f"[sources.s]\n{declared}\n")
        (note,) = Lake(project).land("s", path).warnings
        assert "America/New_York" in note
        assert "penstock land s_2 FILES…" in note
        assert "None" not in note


def test_the_first_malformed_records_are_named(project: Path) -> None:
    lake = Lake(project)
    bad = put(project, "a.csv", b"a,b\n1\n" + b"1,2\n" * 900_000 + b"1,2,3\n1\n1\n")
    worse = put(project, "b.csv", b"a,b\n\xff,1\n1,2\n")
    report = lake.land("s", [bad, worse])
    assert report.malformed == 5
    assert [(m.uri.rpartition("/")[2], m.line) for m in report.first_malformed] == [
        ("a.csv", 2),
        ("a.csv", 900_003),
        ("a.csv", 900_004),
    ]
    assert report.first_malformed[0].reason == "line 2, offset 4: 1 field, expected 2"
    assert lake.land("s", [bad, worse]).first_malformed == ()


def test_text_of_another_encoding_says_how_to_convert_it(project: Path) -> None:
    report = Lake(project).land("s", put(project, "a.csv", "a,b\n1,2\n".encode("utf-16")))
    assert report.malformed
    assert any("a.csv: looks like UTF-16" in note and "iconv" in note for note in report.warnings)


def test_a_first_record_that_was_taken_as_data_is_named(project: Path) -> None:
    lake = Lake(project)
    report = lake.land("s", [put(project, "a.csv", b"1,2\n3,4\n"), put(project, "b.csv", b"x,y\n3,4\n")])
    (note,) = report.warnings
    assert note.startswith("a.csv: its first record was taken as data")
    assert "header = true" in note
    assert "penstock rollback 0" in note
    (project / "penstock.toml").write_text("[sources.s]\nheader = false\n")
    assert Lake(project).land("s", put(project, "c.csv", b"5,6\n")).warnings == ()
    assert Lake(project).land("s", put(project, "d.csv", b"")).warnings == ()


def test_quoted_empty_is_text_and_unquoted_is_null(project: Path) -> None:
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", b'a,b\n1,""\n2,\n3,x\n'))
    assert rows(lake, "b") == [("",), (None,), ("x",)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(project: Path, delimiter: str) -> None:
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", CSV.replace(b",", delimiter.encode())))
    assert rows(lake, "id, name") == [(1, "ann"), (2, "bob")]


def test_without_header(project: Path) -> None:
    (project / "penstock.toml").write_text("[sources.s]\nheader = false\n")
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", b"1,ann\n2,bob\n"))
    lake.land("s", put(project, "b.csv", b"3,cid\n"))
    assert rows(lake, "column_1, column_2") == [(1, "ann"), (2, "bob"), (3, "cid")]


def test_a_header_that_ends_with_a_delimiter(project: Path) -> None:
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", b"a,b,\r\n1,x,\r\n2,y,\r\n"))
    lake.land("s", put(project, "b.csv", b"A,b,c,\n3,z,5,\n"))
    lake.land("s", put(project, "c.csv", b"c,a,\n6,4,stray\n"))
    columns = [(column.name, column.type) for column in lake.source("s").schema.columns]
    assert columns == [
        ("a", "bigint"),
        ("b", "varchar"),
        ("column_3", "varchar"),
        ("c", "bigint"),
        ("column_4", "unknown"),
    ]
    assert rows(lake, "a, b, column_3, c") == [
        (1, "x", None, None),
        (2, "y", None, None),
        (3, "z", None, 5),
        (4, None, "stray", 6),
    ]


def test_awkward_column_names(project: Path) -> None:
    (project / "penstock.toml").write_text("[sources.s]\nheader = true\n")
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", 'a b,"x;{}(y)=",Größe,_offset,a b,\n1,2,3,4,5,6\n'.encode()))
    names = [column.name for column in lake.source("s").schema.columns]
    assert names[:3] == ["a b", "x;{}(y)=", "Größe"]
    assert len({name.lower() for name in names}) == 6
    assert "_offset" not in names
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    assert rows(lake, quoted) == [(1, 2, 3, 4, 5, 6)]


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


COMPRESSORS = [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nowhere.csv", "there is no such file"),
        (lambda p: p, "is a directory"),
        (lambda p: str(p / "*.parquet"), "no file matches"),
        *((lambda p, e=e, c=c: put(p, f"cut.csv.{e}", c(CSV * 99)[:-20]), "file is cut short") for e, c in COMPRESSORS),
        *((lambda p, e=e: put(p, f"empty.csv.{e}", b""), "file is cut short") for e, _ in COMPRESSORS),
        (lambda p: put(p, "one.csv.gz", b"\x1f"), "file is cut short"),
        (lambda p: put(p, "flip.csv.gz", gzip.compress(CSV)[:-8] + bytes(8)), "file is damaged"),
        (lambda p: put(p, "flip.csv.bz2", bz2.compress(CSV)[:-8] + bytes(8)), "file is damaged"),
        (lambda p: put(p, "flip.csv.xz", lzma.compress(CSV)[:24] + bytes(8)), "file is damaged|cut short"),
        (lambda p: put(p, "flip.csv.zst", zstd(CSV * 99)[:6] + b"\xff" * 40), "file is damaged"),
        (lambda p: put(p, "more.csv.gz", gzip.compress(CSV) + b"garbage"), "file has other bytes after its end"),
        (lambda p: put(p, "more.csv.zst", zstd(CSV) + b"garbage"), "file has other bytes after its end"),
        (lambda p: fifo(p / "pipe.csv"), "not a regular file: it is a pipe"),
        (lambda p: [fifo(p / "pipe.dat"), str(p / "pipe.*")][1], "not a regular file: it is a pipe"),
        (lambda p: listening(p / "s.csv"), "not a regular file: it is a socket"),
        (lambda p: [(p / "gone.dat").symlink_to(p / "no"), str(p / "*.dat")][1], "cannot be read|no file matches"),
        (lambda _: "/dev/zero", "not a regular file: it is a device"),
    ],
)
def test_bad_files_land_nothing(project: Path, make, message: str) -> None:
    lake = Lake(project)
    good = put(project, "good.csv", CSV)
    with pytest.raises(InputError, match=message) as caught:
        lake.land("s", [good, make(project)])
    assert caught.value.where
    assert not lake.catalog.exists or lake.catalog.latest().number == 0
    assert lake.land("s", good).records == 2


def test_a_file_without_bytes_is_no_broken_one(project: Path) -> None:
    report = Lake(project).land("s", [put(project, "a.csv", b""), put(project, "b.csv.gz", gzip.compress(b""))])
    assert (report.load_id is not None, report.records) == (True, 0)


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def listening(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # the address may not be long
    return path


def test_bad_requests(project: Path) -> None:
    lake = Lake(project)
    with pytest.raises(RequestError, match="declares no files"):
        lake.land("s")
    with pytest.raises(RequestError, match="cannot name a source"):
        lake.land("no good", put(project, "a.csv", CSV))


def test_near_matches_of_a_file(project: Path) -> None:
    put(project, "trips.csv", CSV)
    with pytest.raises(InputError) as caught:
        Lake(project).land("s", project / "tripz.csv")
    assert "trips.csv" in str(caught.value)


_LAND = """
import sys
from lakehouse import Lake
from lakehouse.errors import ConflictError
lake = Lake(sys.argv[1])
for path in sys.argv[2:]:
    lake.land("s", path)
"""


def test_processes_landing_at_once_lose_and_double_nothing(project: Path) -> None:
    Lake(project).land("s", put(project, "first.csv", b"id\n0\n"))
    shared = put(project, "shared.csv", b"id\n1000\n")
    files = [[put(project, f"{p}-{i}.csv", b"id\n%d\n" % (10 * p + i)) for i in range(1, 5)] for p in range(3)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _LAND, str(project), *map(str, mine), str(shared)], stderr=subprocess.PIPE
        )
        for mine in files
    ]
    errors = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    expected = sorted([0, 1000, *(10 * p + i for p in range(3) for i in range(1, 5))])
    assert [row[0] for row in Lake(project).sql("select id from lake.s order by id").fetchall()] == expected


_CRASH = """
import os, signal, sys
from lakehouse import Lake
from lakehouse.catalog import Catalog
lake = Lake(sys.argv[1])
def stop(point):
    if point == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
lake.catalog = Catalog(lake.storage, failpoint=stop)
lake.land("s", sys.argv[2])
"""


@pytest.mark.parametrize("point", ["staged", "committed", "published"])
def test_killed_while_publishing(project: Path, point: str) -> None:
    lake = Lake(project)
    lake.land("s", put(project, "a.csv", CSV))
    second = put(project, "b.csv", b"id,name,price,more\n3,cid,3.00,x\n")
    killed = subprocess.run([sys.executable, "-c", _CRASH, str(project), str(second), point], check=False)
    assert killed.returncode == -9
    seen = {"published": [1, 2, 3]}.get(point, [1, 2])
    assert [row[0] for row in rows(lake, "id")] == seen
    lake.land("s", second)
    assert [row[0] for row in rows(lake, "id")] == [1, 2, 3]
    assert rows(lake, "more")[-1] == ("x",)
