"""Frames in files: exact values, kept order, clear errors, results written whole or not at all."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import lzma
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from featurestore.frame_files import read_frame, write_frame
from lakehouse.errors import InputError, PenstockError, RequestError

NOON = dt.datetime(2024, 1, 2, 12, tzinfo=dt.UTC)
EXACT = pa.table(
    {
        "zone": ["007", None, "", "naïve 🚕"],
        "n": pa.array([2**53 + 1, None, -(2**63), 0]),
        "fare": pa.array([Decimal("1.10"), None, Decimal("-0.01"), Decimal("0.00")], pa.decimal128(38, 2)),
        "x": pa.array([float("nan"), -0.0, float("inf"), None]),
        "at": pa.array([NOON, None, NOON, NOON], pa.timestamp("us", "UTC")),
        "day": pa.array([dt.date(2024, 1, 1), None, None, None]),
        "raw": pa.array([b"\x00\xff", None, b"", b"x"], pa.binary()),
        "flag": pa.array([True, False, None, True]),
    }
)


@pytest.mark.parametrize("name", ["f.parquet", "f.PARQUET", "f.arrow", "f.feather"])
@pytest.mark.parametrize("table", [EXACT, EXACT.slice(0, 0), EXACT.select([])], ids=["rows", "none", "no columns"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str, table: pa.Table):
    write_frame(table, tmp_path / name)
    back = read_frame(tmp_path / name)
    assert back.schema.equals(table.schema)
    assert str(back.to_pydict()) == str(table.to_pydict())  # NaN and −0.0 too
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_csv_is_read_back_by_the_strict_grammar(tmp_path: Path):
    path = tmp_path / "f.csv"
    write_frame(EXACT.select(["zone", "n", "at", "day", "flag"]), path)
    back = read_frame(path)
    assert back.column("zone").to_pylist() == ["007", None, "", "naïve 🚕"]
    assert back.column("n").to_pylist() == [2**53 + 1, None, -(2**63), 0]
    assert back.column("at").to_pylist() == [NOON, None, NOON, NOON]
    assert back.column("day").to_pylist() == [dt.date(2024, 1, 1), None, None, None]
    assert back.column("flag").to_pylist() == [True, False, None, True]


def test_csv_types(tmp_path: Path):
    path = tmp_path / "spine.csv"
    path.write_text(
        "key,local,zoned,n,fare\n007,2024-01-01 03:00:00,2024-01-01T03:00:00+02:00,1,2.50\n8,2024-01-01 04:00:00,,,\n"
    )
    table = read_frame(path)
    assert table.column_names == ["key", "local", "zoned", "n", "fare"]
    assert table.column("key").to_pylist() == ["007", "8"]
    assert table.schema.field("local").type == pa.timestamp("us")
    assert table.schema.field("zoned").type == pa.timestamp("us", "UTC")
    assert table.column("zoned").to_pylist() == [dt.datetime(2024, 1, 1, 1, tzinfo=dt.UTC), None]
    assert table.column("n").to_pylist() == [1, None]
    assert table.column("fare").to_pylist() == [Decimal("2.50"), None]


def test_the_order_of_rows_is_kept(tmp_path: Path):
    numbers = [(7 * row) % 100_003 for row in range(60_000)]
    (tmp_path / "spine.csv").write_text("n\n" + "".join(f"{number}\n" for number in numbers))
    assert read_frame(tmp_path / "spine.csv").column("n").to_pylist() == numbers


@pytest.mark.parametrize(
    ("ending", "packed"),
    [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)],
)
@pytest.mark.parametrize("kind", [".csv", ".CSV", ".tsv"])
def test_kinds_of_csv(tmp_path: Path, ending: str, packed, kind: str):
    path = tmp_path / f"spine{kind}{ending}"
    path.write_bytes(packed(b"key\tn\n007\t1\n" if kind == ".tsv" else b"key,n\n007,1\n"))
    assert read_frame(path).to_pylist() == [{"key": "007", "n": 1}]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("7,8", ["7", "8"]),
        ("zone,_id", ["zone", "_id"]),
        ("_line,_id_2", ["_line", "_id_2"]),
        ("Zone Name,PULocationID", ["Zone Name", "PULocationID"]),
        ('"a ""b""",select', ['a "b"', "select"]),
    ],
)
def test_the_first_record_names_the_columns(tmp_path: Path, header: str, names: list[str]):
    path = tmp_path / "spine.csv"
    path.write_text(f"{header}\n1,2\n3,4\n")
    assert read_frame(path).to_pydict() == dict(zip(names, ([1, 3], [2, 4]), strict=True))


def test_a_header_without_rows_is_a_spine_without_rows(tmp_path: Path):
    (tmp_path / "spine.csv").write_text("zone,at\n")
    table = read_frame(tmp_path / "spine.csv")
    assert (table.column_names, table.num_rows) == (["zone", "at"], 0)
    assert table.schema.types == [pa.null(), pa.null()]


def test_a_column_without_a_value_has_no_type(tmp_path: Path):
    (tmp_path / "spine.csv").write_text('zone,at,note\n,2024-01-01,""\n,,\n')
    table = read_frame(tmp_path / "spine.csv")
    assert table.schema.types == [pa.null(), pa.date32(), pa.string()]
    assert table.column("note").to_pylist() == ["", None]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"a,b\n1\n2,3\n", "1 record cannot be read"),
        ("a.csv", b"a,b\n1\n2\n", "2 records cannot be read"),
        ("a.csv", b"a,b\n1,\xff\n", "cannot be read"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 1000)[:-20], "a.csv.gz"),
        ("a.parquet", b"PAR1", "cannot be read"),
        ("a.parquet", b"", "cannot be read"),
        ("a.arrow", b"ARROW1 but no", "cannot be read"),
        ("a.txt", b"a\n1\n", r"\.parquet, \.arrow or \.csv"),
        ("csv", b"a\n1\n", r"\.parquet, \.arrow or \.csv"),
        ("a.csv.txt", b"a\n1\n", r"\.parquet, \.arrow or \.csv"),
        ("a.csv/", b"", "directory"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes, message: str):
    path = tmp_path / name.rstrip("/")
    if name.endswith("/"):
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_frame(path)
    assert str(tmp_path) in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(InputError, match="no such file") as error:
        read_frame(tmp_path / "spine.csv")
    assert "SELECT must be in quotes" in str(error.value)


@pytest.mark.parametrize("name", ["x.xlsx", "x", "x.csv.gz"])
def test_names_that_say_nothing(tmp_path: Path, name: str):
    (tmp_path / name).write_text("precious")
    with pytest.raises(RequestError, match=name):
        write_frame(EXACT, tmp_path / name)
    assert (tmp_path / name).read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.parquet"
    write_frame(EXACT, path)

    def broken(_table: pa.Table, where: Path, **_options: object) -> None:
        where.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", broken)
    with pytest.raises(OSError, match="disk full"):
        write_frame(EXACT, path)
    monkeypatch.undo()
    assert read_frame(path).num_rows == 4
    assert len(list(tmp_path.iterdir())) == 1


def test_a_directory_that_is_not_there(tmp_path: Path):
    for name in ("x.parquet", "x.arrow", "x.csv"):
        with pytest.raises((PenstockError, OSError), match="nowhere"):
            write_frame(EXACT.select(["n"]), tmp_path / "nowhere" / name)


def test_feather_by_any_name(tmp_path: Path):
    feather.write_feather(EXACT, str(tmp_path / "x.feather"), compression="zstd")
    assert read_frame(tmp_path / "x.feather").num_rows == 4
