"""What landing says about files that were perhaps not read as they were meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from featurestore.cli import cli
from lakehouse import Lake


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "penstock.toml").write_text("[resources]\nthreads = 2\n[sources.s]\n")
    return tmp_path


def declare(project: Path, text: str) -> Lake:
    (project / "penstock.toml").write_text(f"[sources.s]\n{text}\n")
    return Lake(project)


def land(project: Path, *files: tuple[str, bytes]) -> tuple[str, ...]:
    paths = []
    for name, data in files:
        (project / name).write_bytes(data)
        paths.append(project / name)
    return Lake(project).land("s", paths).warnings


# A header that cannot be read


@pytest.mark.parametrize(
    ("data", "reason", "column"),
    [
        (b"id,caf\xe9\n1,2\n3,4\n", "line 1, offset 0: invalid UTF-8 at offset 6", "column_2"),
        (b"\n\nid,\0x\n1,2\n3,4\n", "line 3, offset 2: NUL byte at offset 5", "column_2"),
        (b'id,"ab"c\n1,2\n3,4\n', "line 1, offset 0: text after a closing quote, field 2", "abc"),
        (b'id,"ab\n1,2\n3,4\n', "line 1, offset 0: quote opened at line 1 is never closed", "ab"),
        (b"\xef\xbb\xbfid,\xff\n1,2\n3,4\n", "line 1, offset 0: invalid UTF-8 at offset 6", "column_2"),
    ],
)
def test_a_damaged_header_is_malformed_and_named(project: Path, data: bytes, reason: str, column: str) -> None:
    (project / "a.csv").write_bytes(data)
    lake = declare(project, "header = true")
    report = lake.land("s", project / "a.csv")
    assert (report.records, report.malformed) == (3, 1)
    assert [found.reason for found in report.first_malformed] == [reason]
    assert lake.sql("select _error from raw.s where not _ok").fetchall() == [(reason,)]
    assert lake.sql(f"select id, {column} from lake.s order by id").fetchall() == [(1, 2), (3, 4)]
    (note,) = report.warnings
    assert note.startswith(f"a.csv: its header is malformed ({reason})")
    assert "penstock rollback 0" in note
    written = lake.export_raw("s", str(report.load_id), project / "out")
    assert [Path(file.path).read_bytes() for file in written] == [data]


def test_a_damaged_header_in_a_known_source_names_the_columns_that_stay_null(project: Path) -> None:
    assert land(project, ("a.csv", "id,café\n1,2\n".encode())) == ()
    (note,) = land(project, ("b.csv", b"id,caf\xe9\n3,4\n"))
    assert "column_2 stands for a name that cannot be read" in note
    assert "café is null in its rows" in note


def test_utf16_without_a_byte_order_mark(project: Path) -> None:
    note, nothing = land(project, ("a.csv", "id,name\n1,ann\n2,bob\n".encode("utf-16-le")))
    assert "a.csv: its header is malformed (line 1, offset 0: NUL byte at offset 1)" in note
    assert "iconv" in note
    assert nothing.startswith("a.csv: no record is well-formed")


def test_a_malformed_header_is_promoted_as_malformed(project: Path) -> None:
    land(project, ("a.csv", b"id,caf\xe9\n1,2\n"))
    (project / "sql/warehouse").mkdir(parents=True)
    (project / "sql/warehouse/t.sql").write_text(
        "create table warehouse.t (k varchar primary key, id bigint);\n"
        "insert or replace into warehouse.t select _record_id as k, id from lake.s;\n"
    )
    (table,) = Lake(project).promote().tables
    assert (table.landed, table.malformed, table.good) == (2, 1, 1)


# Columns that are not called what the header says


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("_record_id,_rest,b", "_record_id → _record_id_2, _rest → _rest_2"),
        ("a,a,b", "a → a_2"),
        ("A,a,B", "a → a_2"),
        (' a ,"b",a\x1b', ""),
        ("a,b,", "(no name) → column_3"),
        ("x,X,x,_x,_X", "X → X_2, x → x_3, _x → _x_2 and 1 more"),
        ("a,a,caf\xe9", "a → a_2"),
    ],
)
def test_a_column_that_is_not_called_what_the_header_says(project: Path, header: str, told: str) -> None:
    declare(project, "header = true")
    record = "7" + ",7" * header.count(",")
    files = [(f"{name}.csv", f"{header}\n{record}{name}\n".encode("latin-1")) for name in "12"]
    notes = [note for note in land(project, *files) if "called otherwise" in note]
    assert notes == [f"1.csv, 2.csv: columns are called otherwise than in the header: {told}"] * bool(told)


# Files without a header


def test_values_without_a_header_are_said_to_be_where_they_are(project: Path) -> None:
    assert land(project, ("1.csv", b"id,name\n1,ann\n")) == ()
    (note,) = land(project, ("3.csv", b"7,gus\n8,hal\n"))
    assert note.startswith(
        "3.csv: its first record was taken as data, not as column names; the values are in id, name. If that is wrong"
    )


def test_values_that_went_to_columns_of_their_own(project: Path) -> None:
    land(project, ("1.csv", b"id,name,extra\n1,ann,x\n"))
    (note,) = land(project, ("3.csv", b"7,gus\n8,hal\n"))
    assert "the values are in column_1, column_2; id, name, extra are null in its rows. If that" in note
    declare(project, "header = false")
    (note,) = land(project, ("4.csv", b"7,gus,a,b\n"))
    assert note.startswith("4.csv: the values are in column_1, column_2, column_3 and 1 more; id, name, extra are null")
    assert land(project, ("5.csv", b"9,ian\n")) == ()


def test_a_long_list_of_columns_is_cut(project: Path) -> None:
    (note,) = land(project, ("1.csv", b"1,2,3,4,5\n"), ("2.csv", b"2,2,3,4,5\n"))
    assert note.startswith("1.csv, 2.csv: their first records were taken as data")
    assert "the values are in column_1, column_2, column_3 and 2 more." in note


# Records that are not well-formed


def test_text_of_a_one_byte_encoding_says_how_to_convert_it(project: Path) -> None:
    text = "id,name\n1,ann\n2,café\n"
    (note,) = land(project, ("a.csv", text.encode("latin-1")))
    assert note.startswith("a.csv: has text that is not UTF-8. Convert to UTF-8 (mostly iconv -f WINDOWS-1252")
    assert note.endswith("or -f LATIN1), then penstock rollback 0 and land it again")
    Lake(project).rollback(0)
    assert land(project, ("a.csv", text.encode())) == ()
    assert Lake(project).sql("select name from lake.s order by id").fetchall() == [("ann",), ("café",)]


def test_files_without_a_well_formed_record_are_named(project: Path) -> None:
    (note,) = land(project, ("1.csv", b"id,name\n1\n2\n"), ("2.csv", b"id,name\n3,x\n"), ("3.csv", b"id,name\n"))
    assert note == "1.csv: no record is well-formed, so lake.s shows nothing of it"


# Values of another type


def test_values_in_rest_come_with_the_query_that_shows_them(project: Path) -> None:
    assert land(project, ("1.csv", b"g,h\n1,2\n")) == ()
    land(project, ("2.csv", b"g,h\nearlier,2\n"))
    first, second, query = land(project, ("3.csv", b"g,h\nx,y\n3,z\n"))
    assert (first[:13], second[:15]) == ("g: 1 value is", "h: 2 values are")
    text = query.removeprefix("what this load kept in _rest: penstock sql ").strip('"')
    shown = Lake(project).sql(text).fetchall()
    assert sorted(rest for _, rest in shown) == ['{"g": "x", "h": "y"}', '{"h": "z"}']


# A setting that came too late


@pytest.mark.parametrize(
    ("declared", "was"),
    [("header = true", "header = false"), ('delimiter = "."', 'delimiter = ","'), ('quote = "|"', 'quote = "\\""')],
)
def test_a_changed_dialect_says_what_to_do(project: Path, declared: str, was: str) -> None:
    (project / "a.csv").write_bytes(b"1,2.5\n3,4.5\n")
    declare(project, "header = false").land("s", project / "a.csv")
    lake = declare(project, declared)
    (note,) = lake.land("s", project / "a.csv").warnings
    assert note.startswith(f"a.csv: landed with {was}; penstock.toml now says {declared}")
    assert "penstock land s_2 FILES…" in note
    (project / "b.csv").write_bytes(b"x,y\n3,4\n")
    assert note in lake.land("s", [project / "a.csv", project / "b.csv"]).warnings
    assert lake.land("s", project / "b.csv").warnings == ()
    (project / "a.csv").write_bytes(b"x,y\n5,6\n")
    assert not any("landed with" in warning for warning in lake.land("s", project / "a.csv").warnings)


def test_a_declared_dialect_that_was_found_anyway_is_no_change(project: Path) -> None:
    (project / "a.csv").write_bytes(b"x;y\n1;2\n")
    Lake(project).land("s", [project / "a.csv"])
    lake = declare(project, "header = true\ndelimiter = ';'")
    assert lake.land("s", project / "a.csv").warnings == ()


# Records that are too long


def test_a_record_that_is_too_long_is_named_once(project: Path) -> None:
    line = b"x" * 65_535 + b"\n"
    data = b'id,text\n1,a\n2,"' + line * 300 + b'"\n3,c\n'
    (note,) = land(project, ("a.csv", data))
    assert note.startswith("a.csv, line 3: a record has no end within 16 MiB")
    assert Lake(project).sql("select id from lake.s order by id").fetchall() == [(1,), (3,)]
    assert land(project, ("b.csv", b'id,text\n4,"' + line * 200 + b'"\n')) == ()


def test_notes_are_printed(project: Path) -> None:
    (project / "a.csv").write_bytes(b"id,caf\xe9\n1,2\n")
    result = CliRunner().invoke(cli, ["land", "s", str(project / "a.csv"), "--project", str(project)])
    assert "  note: a.csv: its header is malformed" in result.stdout


# Columns that appear and vanish


def test_columns_that_are_new_or_missing_are_told(project: Path) -> None:
    assert land(project, ("1.csv", b"id,a\n1,2\n"), ("2.csv", b"id,b\n1,2\n")) == ()
    assert land(project, ("3.csv", b"B,id,a\n1,2,3\n")) == ()
    assert land(project, ("4.csv", b"id,a,b,c\n1,2,3,4\n"), ("5.csv", b"id,a,b,c\n5,2,3,4\n")) == (
        "4.csv, 5.csv: 1 new column c",
    )
    assert land(project, ("6.csv", b"id,d,e\n1,2,3\n"), ("7.csv", b"id,c\n1,2\n"), ("8.csv", b"id\n")) == (
        "6.csv: 2 new columns d, e; a, b, c are null in its rows",
        "7.csv: fewer columns; a, b are null in its rows",
    )
