# ruff: noqa: DTZ001 - some columns have no zone, so neither have their values
from __future__ import annotations

import datetime as dt
import math
import tempfile
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.delta import ColumnSchema, DataFile, TableSchema, measure
from lakehouse.scan import Predicate, prune, scan_sql
from lakehouse.storage import Storage

COLUMNS = {
    "i": "BIGINT",
    "d": "DECIMAL(18,6)",
    "f": "DOUBLE",
    "g": "FLOAT",
    "s": "VARCHAR",
    "ts": "TIMESTAMP",
    "tz": "TIMESTAMP WITH TIME ZONE",
    "da": "DATE",
    "b": "BOOLEAN",
}
ARROW = {
    "i": pa.int64(),
    "d": pa.decimal128(18, 6),
    "f": pa.float64(),
    "g": pa.float32(),
    "s": pa.string(),
    "ts": pa.timestamp("us"),
    "tz": pa.timestamp("us", "UTC"),
    "da": pa.date32(),
    "b": pa.bool_(),
}


def schema_of(columns: dict[str, str], **more) -> TableSchema:
    return TableSchema(tuple(ColumnSchema(name, kind) for name, kind in columns.items()), **more)


def write(storage: Storage, schema: TableSchema, name: str, table: pa.Table, partition=None) -> DataFile:
    pq.write_table(table, storage.prepare(f"t/{name}"))
    return measure(storage, "t", name, schema, partition)


@pytest.fixture
def connection():
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        yield con


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "a lake's [x] *")


@pytest.mark.parametrize("instant", [2**63 - 1, -(2**63 - 1), 2**63 - 2], ids=["infinity", "-infinity", "294247"])
def test_a_time_that_python_cannot_hold_has_no_statistics(storage, connection, instant):
    schema = schema_of({"tz": "TIMESTAMP WITH TIME ZONE", "i": "BIGINT"})
    times = pa.array([0, instant, None], pa.int64()).cast(pa.timestamp("us", "UTC"))
    file = write(storage, schema, "far.parquet", pa.table({"tz": times, "i": [1, 2, 3]}))
    assert file.stats == {"minValues": {"i": 1}, "maxValues": {"i": 3}, "nullCount": {"i": 0}}
    kept = prune([file], schema, [Predicate("tz", ">", (dt.datetime(2999, 1, 1, tzinfo=dt.UTC),))])
    assert kept == [file]
    assert connection.sql(scan_sql(storage, "t", schema, [file])).to_arrow_table()["tz"].cast(
        pa.int64()
    ).to_pylist() == [0, instant, None]


def test_files_of_different_age_read_as_one_table(storage, connection):
    schema = schema_of({"a": "BIGINT", "b": "VARCHAR", "c": "DECIMAL(18,6)"})
    files = [
        write(storage, schema, "old[1].parquet", pa.table({"b": ["x"], "a": pa.array([1], pa.int32())})),
        write(
            storage, schema, "new*.parquet", pa.table({"a": [2], "c": pa.array([Decimal("1.5")], pa.decimal128(10, 2))})
        ),
        write(storage, schema, "it's.parquet", pa.table({"z": [7]})),
    ]
    relation = connection.sql(scan_sql(storage, "t", schema, files))
    assert [str(kind) for kind in relation.types] == ["BIGINT", "VARCHAR", "DECIMAL(18,6)"]
    assert relation.fetchall() == [(1, "x", None), (2, None, Decimal("1.500000")), (None, None, None)]


def test_glob_characters_do_not_pull_in_other_files(storage, connection):
    schema = schema_of({"a": "BIGINT"})
    wanted = write(storage, schema, "p*.parquet", pa.table({"a": [1]}))
    write(storage, schema, "pq.parquet", pa.table({"a": [2]}))
    assert connection.sql(scan_sql(storage, "t", schema, [wanted])).fetchall() == [(1,)]


def test_no_files_is_an_empty_table_with_types(storage, connection):
    schema = schema_of(COLUMNS)
    relation = connection.sql(scan_sql(storage, "t", schema, []))
    assert relation.fetchall() == []
    assert dict(zip(relation.columns, map(str, relation.types), strict=True)) == COLUMNS


def test_hidden_columns_only_on_request(storage, connection):
    schema = TableSchema((ColumnSchema("a", "BIGINT"), ColumnSchema("_h", "VARCHAR", hidden=True)))
    file = write(storage, schema, "f.parquet", pa.table({"a": [1], "_h": ["x"]}))
    assert connection.sql(scan_sql(storage, "t", schema, [file])).fetchall() == [(1,)]
    assert connection.sql(scan_sql(storage, "t", schema, [file], hidden=True)).fetchall() == [(1, "x")]


@pytest.mark.parametrize("days", [3, 70])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_partition_values_are_typed_constants(storage, connection, days, zone):
    schema = TableSchema(
        (
            ColumnSchema("day", "DATE"),
            ColumnSchema("a", "BIGINT"),
            ColumnSchema("happened", "TIMESTAMP WITH TIME ZONE"),
        ),
        partition_by=("day", "happened"),
    )
    start = dt.date(2020, 1, 1)
    expected, files = [], []
    for n in range(days):
        day = start + dt.timedelta(n) if n else None
        partition = {"day": day and day.isoformat(), "happened": f"2020-01-01 00:00:{n % 60:02d}"}
        files.append(write(storage, schema, f"{n}.parquet", pa.table({"a": [n]}), partition))
        expected.append((day, n, 1577836800 + n % 60))
    connection.execute(f"set TimeZone = '{zone}'")
    sql = scan_sql(storage, "t", schema, files)
    assert ("union all" in sql) == (days == 3)
    rows = connection.sql(f"select day, a, epoch(happened)::bigint from ({sql})").fetchall()
    assert sorted(rows, key=lambda row: row[1]) == expected


def test_a_column_called_file_index_is_read(storage, connection):
    schema = TableSchema((ColumnSchema("p", "INTEGER"), ColumnSchema("file_index", "BIGINT")), partition_by=("p",))
    files = [
        write(storage, schema, f"{n}.parquet", pa.table({"file_index": [n * 10]}), {"p": str(n)}) for n in range(40)
    ]
    rows = connection.sql(scan_sql(storage, "t", schema, files)).fetchall()
    assert rows == [(n, n * 10) for n in range(40)]


@pytest.mark.parametrize("days", [1, 40])
def test_nan_is_found_though_statistics_leave_it_out(storage, connection, days):
    schema = TableSchema((ColumnSchema("day", "INTEGER"), ColumnSchema("x", "DOUBLE")), partition_by=("day",))
    data = pa.table({"x": [1.0, float("nan"), None]})
    files = [write(storage, schema, f"{n}.parquet", data, {"day": str(n)}) for n in range(days)]
    sql = scan_sql(storage, "t", schema, files)
    assert connection.sql(f"select count(*) from ({sql}) where x > 5").fetchall() == [(days,)]
    assert connection.sql(f"select count(*) from ({sql}) where x >= 1").fetchall() == [(2 * days,)]
    assert connection.sql(f"select max(x)::varchar from ({sql})").fetchall() == [("nan",)]


def file_with(name: str, low, high, *, nulls: int | None = 0, rows: int = 10, partition=None) -> DataFile:
    stats = {
        "minValues": {name: low} if low is not None else {},
        "maxValues": {name: high} if high is not None else {},
        "nullCount": {name: nulls} if nulls is not None else {},
    }
    return DataFile("f", 1, rows, partition or {}, stats)


@pytest.mark.parametrize(
    ("column", "low", "high", "op", "value", "kept"),
    [
        ("i", 1, 5, ">", 5, False),
        ("i", 1, 5, ">=", 5, True),
        ("i", 1, 5, "<", 1, False),
        ("i", 1, 5, "=", Decimal("2.5"), True),
        ("i", 1, 5, "=", Decimal("5.5"), False),
        ("i", 1, 2**53, "=", float(2**53), True),
        ("i", 2**53 + 1, 2**60, "=", float(2**53), True),
        ("i", None, None, "=", 5, True),
        ("d", Decimal("0.1"), Decimal("0.3"), ">", Decimal("0.3"), False),
        ("d", Decimal("0.1"), Decimal("0.3"), ">=", Decimal("0.3"), True),
        ("f", 1.0, 5.0, ">", 7, True),  # a NaN is greater than 7
        ("f", 1.0, 5.0, "=", 7, False),
        ("f", 1.0, 5.0, "=", math.nan, True),
        ("f", 1.0, 5.0, "<", 1, True),  # within the rounding that is allowed for
        ("f", 1.0, 5.0, "<", Decimal("0.9"), False),
        ("f", 0.0, 5.0, "=", -0.0, True),
        ("g", 0.10000000149011612, 1.0, "=", Decimal("0.1"), True),
        ("s", "b", "d", "=", "a", False),
        ("s", "b", "d", ">", "d", False),
        ("s", "b", "x" * 64, "=", "x" * 70, True),
        ("s", "b", "d", "=", 5, True),
        (
            "ts",
            "2020-01-01T00:00:00.123",
            "2020-01-01T00:00:00.123",
            "=",
            dt.datetime(2020, 1, 1, 0, 0, 0, 123456),
            True,
        ),
        (
            "ts",
            "2020-01-01T00:00:00.123",
            "2020-01-01T00:00:00.123",
            ">",
            dt.datetime(2020, 1, 1, 0, 0, 0, 124000),
            False,
        ),
        (
            "tz",
            "2020-01-01T00:00:00.000Z",
            "2020-01-02T00:00:00.000Z",
            "<",
            dt.datetime(2019, 12, 31, tzinfo=dt.UTC),
            False,
        ),
        ("tz", "2020-01-01T00:00:00.000Z", "2020-01-02T00:00:00.000Z", "<", dt.datetime(2019, 12, 31), True),
        ("da", "2020-01-01", "2020-01-02", "=", dt.date(2020, 1, 5), False),
        ("da", "2020-01-01", "2020-01-02", "<=", dt.date(2020, 1, 1), True),
        ("b", None, None, "=", True, True),
    ],
)
def test_statistics_decide(column, low, high, op, value, kept):  # noqa: PLR0917 - one per parametrized name
    schema = schema_of(COLUMNS)
    assert prune([file_with(column, low, high)], schema, [Predicate(column, op, (value,))]) == (
        [file_with(column, low, high)] if kept else []
    )


@pytest.mark.parametrize(
    ("nulls", "is_null", "is_not_null", "equal"),
    [(0, False, True, True), (10, True, False, False), (3, True, True, True), (None, True, True, True)],
)
def test_null_counts_decide(nulls, is_null, is_not_null, equal):
    schema = schema_of(COLUMNS)
    files = [file_with("i", 1, 5, nulls=nulls)]
    assert bool(prune(files, schema, [Predicate("i", "is null")])) == is_null
    assert bool(prune(files, schema, [Predicate("i", "is not null")])) == is_not_null
    assert bool(prune(files, schema, [Predicate("i", "=", (3,))])) == equal


def test_partitions_decide_exactly():
    schema = TableSchema(
        (ColumnSchema("p", "DATE"), ColumnSchema("n", "INTEGER"), ColumnSchema("a", "BIGINT")), partition_by=("p", "n")
    )
    files = [DataFile(str(n), 1, 1, {"p": f"2020-01-0{n}", "n": str(n)}) for n in range(1, 5)]
    files.append(DataFile("null", 1, 1, {"p": None, "n": None}))

    def kept(*predicates: Predicate) -> list[str]:
        return [file.path for file in prune(files, schema, predicates)]

    assert kept(Predicate("p", "=", (dt.date(2020, 1, 2),))) == ["2"]
    assert kept(Predicate("p", ">", (dt.date(2020, 1, 2),)), Predicate("n", "<", (4,))) == ["3"]
    assert kept(Predicate("n", "in", (1, 4, 9))) == ["1", "4"]
    assert kept(Predicate("n", "in", ())) == []
    assert kept(Predicate("p", "is null")) == ["null"]
    assert kept(Predicate("p", "is not null")) == ["1", "2", "3", "4"]
    assert kept(Predicate("unknown", "=", (1,))) == ["1", "2", "3", "4", "null"]


VALUES = {
    "i": st.integers(-5, 5) | st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1]),
    "d": st.decimals(-3, 3, places=6) | st.just(Decimal("999999999999.999999")),
    "f": st.sampled_from([0.0, -0.0, 0.1, 1.5, -2.0, 1e300, math.inf, -math.inf, math.nan]),
    "g": st.sampled_from([0.0, -0.0, 0.10000000149011612, 1.5, math.inf, math.nan]),
    "s": st.sampled_from(
        ["", "a", "b", "ab", "é", "\U0001f600", "￿", "z" * 64, "z" * 63 + "é", "z" * 70, "z" * 64 + "a"]
    ),
    "ts": st.datetimes(dt.datetime(1969, 12, 31, 23, 59, 59, 990000), dt.datetime(1970, 1, 1, 0, 0, 0, 5000)),
    "tz": st.datetimes(
        dt.datetime(1969, 12, 31, 23, 59, 59, 990000), dt.datetime(1970, 1, 1, 0, 0, 0, 5000), timezones=st.just(dt.UTC)
    ),
    "da": st.dates(dt.date(1969, 12, 30), dt.date(1970, 1, 3)),
    "b": st.booleans(),
}


@st.composite
def cases(draw):
    column = draw(st.sampled_from(sorted(COLUMNS)))
    value = VALUES[column]
    files = draw(st.lists(st.lists(value | st.none(), max_size=4), min_size=1, max_size=4))
    op = draw(st.sampled_from(["=", "<", "<=", ">", ">=", "in", "is null", "is not null"]))
    count = 0 if op.startswith("is") else draw(st.integers(0, 3)) if op == "in" else 1
    return column, files, op, [draw(value) for _ in range(count)]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_no_file_with_a_matching_row_is_dropped(case):
    column, contents, op, values = case
    schema = schema_of({column: COLUMNS[column]})
    with tempfile.TemporaryDirectory() as root, duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        storage = Storage(root)
        files = [
            write(storage, schema, f"{n}.parquet", pa.table({column: pa.array(rows, ARROW[column])}))
            for n, rows in enumerate(contents)
        ]
        kept = prune(files, schema, [Predicate(column, op, tuple(values))])
        condition = {"in": f"{column} in (select unnest($1::{COLUMNS[column]}[]))"}.get(
            op, f"{column} {op}" + (f" $1::{COLUMNS[column]}" if values else "")
        )
        parameters = [values] if op == "in" else values
        for file in files:
            if file not in kept:
                scan = scan_sql(storage, "t", schema, [file])
                found = con.execute(f"select count(*) from ({scan}) where {condition}", parameters).fetchall()
                assert found == [(0,)], (file, op, values)


def test_pruning_skips_most_files_of_ordered_data():
    schema = schema_of(COLUMNS)
    files = [file_with("i", n * 10, n * 10 + 9) for n in range(100)]
    assert len(prune(files, schema, [Predicate("i", ">=", (300,)), Predicate("i", "<", (320,))])) == 2
