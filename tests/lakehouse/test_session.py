from __future__ import annotations

import datetime as dt
import re
import resource
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.catalog import Catalog, Change, Snapshot, TableChange
from lakehouse.delta import ColumnSchema, DataFile, TableSchema, measure
from lakehouse.errors import CatalogDamagedError, QueryError, RequestError, UnknownSnapshotError, UnknownTableError
from lakehouse.session import Session, streaming
from lakehouse.sources import LandedFile, SourceColumn, SourceSchema, source_entry, twin_table
from lakehouse.storage import Storage
from lakehouse.types import TableName, utc_text

TRIPS, ZONES = TableName("warehouse", "trips"), TableName("warehouse", "zones")
SCHEMA = TableSchema(
    (
        ColumnSchema("id", "BIGINT"),
        ColumnSchema("picked", "TIMESTAMP WITH TIME ZONE"),
        ColumnSchema("fare", "DECIMAL(18,6)"),
        ColumnSchema("tip", "DOUBLE"),
        ColumnSchema("zone", "VARCHAR"),
        ColumnSchema("_record_id", "VARCHAR", hidden=True),
    )
)
ZONE_SCHEMA = TableSchema((ColumnSchema("zone", "VARCHAR"), ColumnSchema("size", "INTEGER")))
START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
ROWS = 40


def write(storage: Storage, table: str, name: str, schema: TableSchema, data: pa.Table) -> DataFile:
    pq.write_table(data, storage.prepare(f"{table}/{name}"))
    return measure(storage, table, name, schema)


def trips(storage: Storage, part: int, rows: int = 10) -> DataFile:
    ids = list(range(part * rows, (part + 1) * rows))
    data = pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "picked": pa.array(
                [START + dt.timedelta(hours=n, microseconds=123456) for n in ids], pa.timestamp("us", "UTC")
            ),
            "fare": pa.array([Decimal(n) / 4 if n % 7 else None for n in ids], pa.decimal128(18, 6)),
            "tip": pa.array([float("nan") if n % 11 == 3 else n / 10 for n in ids], pa.float64()),
            "zone": pa.array([f"z{n // 8}" for n in ids]),
            "_record_id": pa.array([f"r{n}" for n in ids]),
        }
    )
    return write(storage, "warehouse/trips", f"p{part}.parquet", SCHEMA, data)


def publish(catalog: Catalog, tables: dict[TableName, TableChange], **more) -> Snapshot:
    return catalog.publish(catalog.latest(), Change("promote", "test", tables=tables, **more))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Catalog:
    """Snapshot 1: ten trips; 2: forty in four files, and zones; 3: no trips of the first file."""
    storage = Storage(tmp_path_factory.mktemp("lake"))
    catalog = Catalog(storage)
    catalog.create()
    publish(catalog, {TRIPS: TableChange(SCHEMA, (trips(storage, 0),))})
    zones = pa.table({"zone": [f"z{n}" for n in range(3)] + [None], "size": pa.array(range(4), pa.int32())})
    publish(
        catalog,
        {
            TRIPS: TableChange(SCHEMA, tuple(trips(storage, n) for n in (1, 2, 3))),
            ZONES: TableChange(ZONE_SCHEMA, (write(storage, "warehouse/zones", "z.parquet", ZONE_SCHEMA, zones),)),
        },
    )
    catalog.tag("full", 2)
    publish(catalog, {TRIPS: TableChange(SCHEMA, remove=frozenset({"p0.parquet"}))})
    return catalog


@pytest.fixture
def session(catalog):
    with Session(catalog.snapshot(2)) as session:
        yield session


# -- pinned tables ----------------------------------------------------------------------------------------------------


def test_a_session_reads_its_snapshot_without_hidden_columns(session):
    result = session.sql("select * from warehouse.trips")
    assert result.columns == ["id", "picked", "fare", "tip", "zone"]
    assert result.types == ["BIGINT", "TIMESTAMP WITH TIME ZONE", "DECIMAL(18,6)", "DOUBLE", "VARCHAR"]
    assert str(result.schema.field("picked").type) == "timestamp[us, tz=UTC]"
    assert result.snapshot == 2
    assert sorted(row[0] for row in result.fetchall()) == list(range(ROWS))


def test_results_can_be_read_again_and_out_of_order(session):
    first = session.sql("select count(*) from warehouse.trips where id < 10")
    second = session.sql("select count(*) from warehouse.trips where id >= 30")
    assert [second.fetchone(), first.fetchone(), first.fetchone(), second.fetchone()] == [(10,)] * 4
    assert duckdb.sql("select count(*) from first a, first b").fetchall() == [(1,)]


def test_an_untouched_query_keeps_its_text(session):
    query = "select  /* mine */ count(*) from Warehouse.TRIPS t join warehouse.zones using (zone)"
    assert session.prepare(query) == query
    assert session.sql(query).fetchall() == [(24,)]


def test_only_the_tables_of_a_query_become_views(session):
    session.sql("select 1 from warehouse.trips")
    views = session.connection.execute("select view_name from duckdb_views() where not internal").fetchall()
    assert views == [("trips",)]
    session.require_all()
    assert session.connection.sql("select count(*) from warehouse.zones").fetchall() == [(4,)]


def test_describe_does_not_run(session):
    assert session.describe("select error('x') as e, 1.5 as d from warehouse.trips") == [
        ("e", "NULL"),
        ("d", "DECIMAL(2,1)"),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "drop view warehouse.trips",
        'select 1; drop view "memory"."Warehouse"./* é */trips',
        "create or replace view warehouse.trips as select 1",
        "create table warehouse.mine (x int)",
        "insert into warehouse.trips by name select 1 as id",
        "with one as (select 1) insert into warehouse.trips from one",
        "update warehouse.trips set id = 1",
        "delete from warehouse.trips",
        "copy warehouse.trips from 'x.csv'",
        "alter view warehouse.trips rename to t",
        "drop schema if exists warehouse cascade",
    ],
)
def test_the_views_of_the_lake_stay_as_they_are(session, statement):
    with pytest.raises(QueryError, match=r"changes nothing of the lake, and \w+.* is part of it\n.*create temp table"):
        session.sql(statement)
    assert session.sql("select count(*) from warehouse.trips").fetchall() == [(ROWS,)]


def test_what_only_reads_the_lake_or_is_the_users_own_may_change(session, tmp_path):
    session.sql(f"copy warehouse.zones to '{tmp_path}/zones.csv'")
    session.sql("create schema own; create table own.t as select zone from warehouse.trips")
    assert session.sql("insert into own.t from own.t").fetchall() == [(ROWS,)]
    assert session.sql("create view comment as from warehouse.zones").columns == []
    assert session.sql("select 1; select count(*) from comment").fetchall() == [(4,)]


@pytest.mark.parametrize(
    "statement",
    [
        "copy (select 1 as x) to '{lake}/_catalog/log/7.json'",
        "select 1; copy warehouse.zones to '{lake}/../{name}/it''s.csv' (header false)",
        "copy (pivot warehouse.zones on zone using count(*)) to '{lake}/x.csv'",
        "export database '{lake}/raw'",
        "attach '{lake}/own.db' as own; create table own.t as select 1 as x",
    ],
)
def test_no_query_writes_into_the_lake(session, catalog, statement):
    lake = Path(catalog.storage.uri)
    before = sorted(lake.rglob("*"))
    with pytest.raises(QueryError, match=r"writes nothing into the lake, and .*lies there"):
        session.sql(statement.format(lake=lake, name=lake.name))
    assert sorted(lake.rglob("*")) == before


def test_an_unknown_time_zone(catalog):
    with pytest.raises(RequestError, match=r"'Europe/Pari' is not a time zone\n.*Europe/Paris"):
        Session(catalog.snapshot(1), timezone="Europe/Pari")


def test_statements_run_once_and_their_effects_stay(session, tmp_path):
    session.sql("create temp table picked as select id from warehouse.trips where id < 3")
    assert session.sql("select count(*) from picked join warehouse.trips using (id)").fetchall() == [(3,)]
    session.sql(f"copy (from picked) to '{tmp_path}/out.csv'")
    assert (tmp_path / "out.csv").read_text().split() == ["id", "0", "1", "2"]
    session.sql("set variable x = 5")
    assert session.sql("select getvariable('x')").fetchall() == [(5,)]
    assert session.sql("select 1; select count(*) from warehouse.zones").fetchall() == [(4,)]
    assert session.sql("describe warehouse.zones").fetchall()[0][:2] == ("zone", "VARCHAR")


def test_views_cannot_be_written(session):
    with pytest.raises(QueryError):
        session.sql("insert into warehouse.zones values ('q', 1)")


def test_registered_objects_can_be_queried(session):
    session.connection.register("mine", pa.table({"id": [1, 2, 99]}))
    assert session.sql("select count(*) from mine semi join warehouse.trips using (id)").fetchall() == [(2,)]


def test_the_zone_of_the_session_changes_views_not_values(catalog):
    with Session(catalog.snapshot(1), timezone="Asia/Tokyo") as session:
        result = session.sql("select picked, picked::varchar from warehouse.trips where id = 0")
        assert result.fetchall() == [(START + dt.timedelta(microseconds=123456), "2020-01-01 09:00:00.123456+09")]
        assert "2020-01-01 09:00:00.123456+09:00" in result.to_text()


def test_streams_while_another_query_runs(session):
    batches = session.sql("select range as n from range(300000)").batches()
    assert next(batches).num_rows < 300000
    assert session.sql("select 1").fetchone() == (1,)
    assert sum(batch.num_rows for batch in batches) < 300000


def test_a_result_larger_than_the_memory_limit_streams(catalog):
    unit = 1 if sys.platform == "darwin" else 1024
    with Session(catalog.snapshot(2), memory="100MB", threads=2) as session:
        session.sql("select 1").fetchall()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        result = session.sql("select range as n, repeat('x', 100 + (range % 100)::int) as t from range(5000000)")
        rows = size = 0
        for batch in result.batches():
            rows, size = rows + batch.num_rows, size + batch.nbytes
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
    assert (rows, size > 0.7e9) == (5_000_000, True)
    assert grown < 300e6


def test_every_zone_is_spelled_utc(session):
    result = session.sql(
        "select picked as a, [picked] as b, {'x': picked} as c, map {1: picked} as d, picked::timestamp as e from warehouse.trips"
    )
    assert "Etc" not in str(result.schema)
    assert result.to_arrow().schema.equals(result.schema)
    assert str(result.schema.field("e").type) == "timestamp[us]"


STREAMED = """
select null as a, [now()] as a, 'x'::enum('x', 'y') as e, '[1]'::json as j, 1::hugeint as h, {'k': 1.5} as s, map {1: 'x'} as m,
       uuid() as u, interval 1 day as i, array_value(1, 2) as f from range(150000) -- not read; only counted
"""


def test_the_short_way_gives_what_a_relation_gives():
    with duckdb.connect() as connection:
        short, types = streaming.stream(connection.cursor(), STREAMED, 65_536)
        long, expected = streaming._related(connection.cursor(), STREAMED, 65_536)
        assert types == expected
        assert types[:4] == ["NULL", "TIMESTAMP WITH TIME ZONE[]", "ENUM('x', 'y')", "JSON"]
        assert short.schema == long.schema
        sizes = [batch.num_rows for batch in short]
        assert sizes == [batch.num_rows for batch in long]
        assert (sum(sizes), max(sizes) <= 65_536) == (150_000, True)


class OtherVersion:
    """A cursor of a DuckDB without the call beneath relations."""

    def __init__(self, cursor):
        self.sql, self.execute = cursor.sql, cursor.execute


@pytest.mark.parametrize("cursor_of", [lambda c: c.cursor(), lambda c: OtherVersion(c.cursor())])
def test_both_ways_name_the_place_of_an_error(cursor_of):
    with duckdb.connect() as connection:
        reader, types = streaming.stream(cursor_of(connection), "select 1 as n;", 10)
        assert (reader.read_all().to_pylist(), types) == ([{"n": 1}], ["INTEGER"])
        with pytest.raises(duckdb.BinderException, match=r"LINE 2: from range\(3\) where nope(?s:.*)\n +\^\^\^\^"):
            streaming.stream(cursor_of(connection), "select 1\nfrom range(3) where nope = 1", 10)


# -- queries that come again --------------------------------------------------------------------------------------------


def test_a_query_that_comes_again_is_not_prepared_again(session, monkeypatch):
    query = "select count(*) from warehouse.trips where id = 15"
    text = session.prepare(query)
    assert text != query
    monkeypatch.setattr(session, "_parsed", None)
    assert session.prepare(query) == text
    assert [session.sql(query).fetchall() for _ in range(2)] == [[(1,)]] * 2


def test_queries_that_may_change_their_meaning_are_prepared_anew(session, catalog):
    query = "select count(*) from warehouse.trips at (version => 'moving')"
    for number, rows in ((1, 10), (2, 40)):
        catalog.tag("moving", number)
        assert session.sql(query).fetchall() == [(rows,)]
        catalog.delete_tag("moving")
    with pytest.raises(UnknownSnapshotError):
        session.sql(query)
    for rows in (3, 5):
        session.sql(f"create or replace temp table mine as from range({rows})")
        assert session.sql("select count(*) from mine").fetchall() == [(rows,)]
    session.sql("drop table mine")
    with pytest.raises(UnknownTableError):
        session.sql("select count(*) from mine")


def test_the_texts_that_are_kept_are_bounded(session):
    for n in range(300):
        assert session.sql(f"select {n} from warehouse.zones limit 1").fetchall() == [(n,)]
    long = "select count(*) from warehouse.zones where size not in (" + ", ".join(map(str, range(100, 5000))) + ")"
    assert session.sql(long).fetchall() == session.sql(long).fetchall() == [(4,)]
    assert len(session._texts) == 256
    assert "select 299 from warehouse.zones limit 1" in session._texts
    assert long not in session._texts


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["warehouse.trip", "trips", "warehous.trips"])
def test_unknown_tables_name_near_ones(session, name):
    with pytest.raises(UnknownTableError, match=re.escape(name)) as caught:
        session.sql(f"select * from {name}")
    assert "snapshot 2" in caught.value.what
    assert "warehouse.trips" in caught.value.hint


@pytest.mark.parametrize(
    "query", ["select nope from warehouse.trips", "select nope from warehouse.trips where id > 35"]
)
def test_duckdbs_message_points_into_the_users_text(session, query):
    with pytest.raises(QueryError, match="nope") as caught:
        session.sql(query)
    assert f"LINE 1: {query}" in caught.value.what
    assert re.search(r"\n +\^\^\^\^$", caught.value.what)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("query", ["selec 1", "", "-- nothing", "select 'x'::int"])
def test_bad_queries_are_query_errors(session, query):
    with pytest.raises(QueryError):
        session.sql(query).fetchall()


def test_an_error_in_the_middle_of_a_stream_is_a_query_error(session):
    result = session.sql("select case when range = 250000 then error('late') else range end from range(300000)")
    with pytest.raises(QueryError, match="late"):
        result.to_arrow()


# -- AT ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select count(*) from warehouse.trips at (version => 1)", 10),
        ("select count(*) from warehouse.trips at (version => 3)", 30),
        ("select count(*) from warehouse.trips at (version => 'full')", 40),
        ("select count(*) from warehouse.trips t at (version => 1) where t.id > 4", 5),
        ("select count(warehouse.trips.id) from warehouse.trips at (version => 1)", 10),
        ("select count(*) from warehouse.trips a join warehouse.trips b at (version => 1) using (id)", 10),
        (
            "with old as (from warehouse.trips at (version => 1)) select count(*) from warehouse.trips anti join old using (id)",
            30,
        ),
        ("select (select count(*) from warehouse.trips at (version => 1))", 10),
        ("select count(*) from (from warehouse.trips at (version => 3)) where id = 5", 0),
    ],
)
def test_at_reads_a_table_at_another_snapshot(session, query, expected):
    result = session.sql(query)
    assert result.fetchall() == result.fetchall() == [(expected,)]


def test_at_timestamp(session, catalog):
    at = utc_text(catalog.snapshot(1).entry.instant)
    assert session.sql(f"select count(*) from warehouse.trips at (timestamp => '{at}')").fetchall() == [(10,)]
    assert session.sql(f"select count(*) from warehouse.trips at (timestamp => timestamptz '{at}')").fetchall() == [
        (10,)
    ]


def test_at_before_a_tables_first_snapshot_names_it(session):
    with pytest.raises(UnknownTableError, match="snapshot 1") as caught:
        session.sql("select * from warehouse.zones at (version => 1)")
    assert caught.value.hint == "The first snapshot that has it is 2."


def test_at_needs_constants_and_snapshots(session):
    with pytest.raises(QueryError, match="constant"):
        session.sql("select * from warehouse.trips at (version => 1 + 1)")
    with pytest.raises(UnknownSnapshotError):
        session.sql("select * from warehouse.trips at (version => 77)")
    with pytest.raises(UnknownSnapshotError):
        session.sql("select * from warehouse.trips at (timestamp => '2001-01-01')")
    with pytest.raises(RequestError):
        session.sql("with x as (select 1) select * from x at (version => 1)")


# -- pruning ----------------------------------------------------------------------------------------------------------


def files_read(session: Session, query: str) -> int:
    """How many files the plan opens: its views' texts name them."""
    schemas = re.findall(r'"(warehouse@2#\d+)"\.trips', session.prepare(query))
    if not schemas:
        return 4
    texts = session.connection.execute("select sql from duckdb_views() where schema_name = ?", [schemas[0]]).fetchall()
    return texts[0][0].count(".parquet")


@pytest.mark.parametrize(
    ("condition", "files"),
    [
        ("id = 15", 1),
        ("trips.id = 15", 1),
        ("15 = id and tip > 0", 1),
        ("ID < 10", 1),
        ("10 > id", 1),
        ("id between 10 and 29", 2),
        ("id in (1, 35)", 2),
        ("id > 100", 0),
        ("picked < '2020-01-01 10:00:00'", 1),
        ("picked >= timestamptz '2020-01-02T06:00:00Z'", 1),
        ("picked >= date '2020-01-02' and picked < date '2020-01-02'", 1),
        ("fare < 2.5", 1),
        ("zone = 'z0'", 1),
        ("tip > 3.5", 4),
        ("id = 15 or id = 3", 4),
        ("id + 0 = 15", 4),
        ("zone is null", 0),
    ],
)
def test_conditions_skip_files(session, condition, files):
    assert files_read(session, f"select * from warehouse.trips where {condition}") == files


def test_skipped_files_are_never_opened(catalog, tmp_path):
    storage = Storage(tmp_path)
    own = Catalog(storage)
    own.create()
    publish(own, {TRIPS: TableChange(SCHEMA, (trips(storage, 0), trips(storage, 1)))})
    storage.delete("warehouse/trips/p1.parquet")
    with Session(own.latest()) as session:
        assert session.sql("select count(id), sum(id) from warehouse.trips where id < 10").fetchall() == [(10, 45)]
        with pytest.raises(CatalogDamagedError, match=r"p1\.parquet is missing"):
            session.sql("select sum(id) from warehouse.trips").fetchall()


@pytest.mark.parametrize(
    "query",
    [
        "select * from warehouse.zones left join warehouse.trips t using (zone) where t.id is null",
        "select * from warehouse.zones z left join warehouse.trips t using (zone) where t.id = 3",
        "select count(*) from warehouse.trips t full join warehouse.zones z using (zone) where z.size is null",
        "select a.id, b.id from warehouse.trips a asof join warehouse.trips b on a.id >= b.id + 1 where b.id > 30",
        "select a.id, b.id from warehouse.trips a positional join warehouse.trips b where b.id > 30",
        "select count(*) from warehouse.trips a, warehouse.trips b where a.id = 3 and b.id > 30",
        "select id + 100 as id from warehouse.trips where id > 30",
        "select * from warehouse.zones where exists (select 1 from warehouse.trips t where zones.size = 1 and t.id > 38)",
        "with t as (select * from warehouse.trips where id > 38) select count(*) from t where id < 5",
        "select count(*) from warehouse.trips as t(k) where k > 35",
        "select warehouse.trips.id from warehouse.trips where id > 35",
        "select max(id) over () from warehouse.trips where id < 5 qualify id = 3",
        "select tip from warehouse.trips where tip >= 3.8",
        "select id from warehouse.trips where picked between '2020-01-02' and '2020-01-02 05:00:00.123456' and id <> 25",
    ],
)
def test_skipping_changes_no_result(session, query):
    with duckdb.connect() as plain:
        plain.execute("set TimeZone = 'UTC'; create schema warehouse")
        for table in ("trips", "zones"):
            rows = session.sql(f"select * from warehouse.{table}").to_arrow()
            plain.register("rows", rows)
            plain.execute(f"create table warehouse.{table} as from rows")
        expected = plain.execute(f"select x::varchar from ({query}) x").fetchall()
    found = session.sql(f"select x::varchar from ({query}) x").fetchall()
    assert sorted(found) == sorted(expected)


LITERALS = {
    "id": ["0", "9", "10", "19.5", "2e1", "-1", "39"],
    "picked": [
        "'2020-01-01'",
        "date '2020-01-02'",
        "timestamptz '2020-01-01T20:00:00.123456Z'",
        "timestamp '2020-01-01 09:00:00.123'",
    ],
    "fare": ["0", "2.25", "2.5", "1e1", "5::decimal(10,2)", "7.500000"],
    "tip": ["0.9", "1", "1e0", "3.9", "0"],
    "zone": ["'z0'", "'z2'", "''", "'zz'"],
}


@st.composite
def conditions(draw):
    column = draw(st.sampled_from(sorted(LITERALS)))
    one, two, three = (draw(st.sampled_from(LITERALS[column])) for _ in range(3))
    op = draw(st.sampled_from(["=", "<", "<=", ">", ">="]))
    forms = [
        f"{column} {op} {one}",
        f"{one} {op} t.{column}",
        f"{column} <> {one}",
        f"{column} in ({one}, {two}, {three})",
        f"{column} between {one} and {two}",
        f"{column} is null",
        f"{column} is not null",
        f"({column} = {one} or id = 3)",
        f"not ({column} < {one})",
    ]
    return draw(st.sampled_from(forms))


@pytest.fixture(scope="module")
def shared(catalog):
    with Session(catalog.snapshot(2)) as session:
        yield session, session.sql("select * from warehouse.trips").to_arrow()


@settings(max_examples=80, deadline=None)
@given(parts=st.lists(conditions(), min_size=1, max_size=3))
def test_skipping_finds_the_same_rows_as_reading_everything(shared, parts):
    session, everything = shared
    where = " and ".join(parts)
    found = session.sql(f"select id from warehouse.trips t where {where}").fetchall()
    with duckdb.connect() as plain:
        plain.execute("set TimeZone = 'UTC'")
        plain.register("t", everything)
        expected = plain.execute(f"select id from t where {where}").fetchall()
    assert sorted(found) == sorted(expected)


# -- sources, overlays, system ----------------------------------------------------------------------------------------


def landed(load: str, uri: str, sha: str, records: int) -> LandedFile:
    return LandedFile(load, 0, uri, sha * 32, 1, sha * 32, 1, "2020-01-01T00:00:00.000000Z", records)


@pytest.fixture
def with_source(tmp_path: Path) -> Catalog:
    """Source ``rides``: two files visible, one replaced; a column that never had a value."""
    storage = Storage(tmp_path)
    catalog = Catalog(storage)
    catalog.create()
    schema = SourceSchema((SourceColumn("Amount", "c_amount", "BIGINT"), SourceColumn("void", "c_void", "unknown")))
    files = (landed("L1", "a", "aa", 2), landed("L2", "b", "bb", 2), landed("L3", "a", "cc", 2))
    stored = TableSchema(
        (
            ColumnSchema("_load_id", "VARCHAR"),
            ColumnSchema("_file", "INTEGER"),
            ColumnSchema("_line", "BIGINT"),
            ColumnSchema("_offset", "BIGINT"),
            ColumnSchema("_rest", "VARCHAR"),
            ColumnSchema("c_amount", "BIGINT"),
        )
    )
    parts = []
    for n, file in enumerate(files):
        data = pa.table(
            {
                "_load_id": [file.load_id] * 2,
                "_file": pa.array([0, 0], pa.int32()),
                "_line": [1, 2],
                "_offset": [0, 10],
                "_rest": pa.array([None, None], pa.string()),
                "c_amount": [n * 10, n * 10 + 1],
            }
        )
        parts.append(write(storage, "typed/rides", f"{n}.parquet", stored, data))
    entry = source_entry(catalog, files, schema, timezone=None, on_change="replace")
    empty = source_entry(catalog, (), schema, timezone=None, on_change="replace")
    publish(catalog, {}, sources={"empty": empty})
    publish(catalog, {twin_table("rides"): TableChange(stored, tuple(parts))}, sources={"rides": entry})
    return catalog


def test_a_source_shows_its_visible_rows(with_source):
    with Session(with_source.latest()) as session:
        rows = session.sql('select "Amount", void, _load_seq, _record_id from lake.rides order by all').fetchall()
        assert [(row[0], row[2]) for row in rows] == [(10, 1), (11, 1), (20, 2), (21, 2)]
        assert rows[0][3].endswith("-0")
        assert session.sql("select count(*) from lake.rides where amount >= 20").fetchall() == [(2,)]
        assert session.sql("select count(*) from typed.rides").fetchall() == [(6,)]


def test_hidden_loads_and_skipped_rows_cost_no_file(with_source):
    with_source.storage.delete("typed/rides/0.parquet")
    with_source.storage.delete("typed/rides/1.parquet")
    with Session(with_source.latest()) as session:
        assert session.sql("select sum(amount) from lake.rides where amount >= 20").fetchall() == [(41,)]


def test_only_landed_restricts_a_source(with_source):
    with Session(with_source.latest(), only_landed={"rides": [2]}) as session:
        assert session.sql("select sum(amount) from lake.rides").fetchall() == [(41,)]
    with Session(with_source.latest(), only_landed={"rides": []}) as session:
        assert session.sql("select count(*) from lake.rides").fetchall() == [(0,)]


def test_a_source_without_a_twin_is_a_typed_empty_view(with_source):
    with Session(with_source.latest()) as session:
        assert session.sql("select * from lake.empty").fetchall() == []
        assert dict(session.describe("select * from lake.empty"))["Amount"] == "BIGINT"


def test_a_source_before_its_first_load(with_source):
    with Session(with_source.latest()) as session, pytest.raises(UnknownTableError) as caught:
        session.sql("select * from lake.rides at (version => 1)")
    assert caught.value.hint == "The first snapshot that has it is 2."


def test_staged_files_stand_in_for_tables(catalog):
    storage = catalog.storage
    new = TableName("warehouse", "fresh")
    staged = write(
        storage,
        "warehouse/fresh",
        "s.parquet",
        ZONE_SCHEMA,
        pa.table({"zone": ["q"], "size": pa.array([9], pa.int32())}),
    )
    overlay = {new: (ZONE_SCHEMA, (staged,)), TRIPS: (SCHEMA, ())}
    with Session(catalog.snapshot(2), overlay=overlay) as session:
        assert session.sql("from warehouse.fresh").fetchall() == [("q", 9)]
        assert session.sql("select count(*) from warehouse.trips").fetchall() == [(0,)]
        assert session.sql("select count(*) from warehouse.trips at (version => 2)").fetchall() == [(40,)]


def test_the_catalog_is_readable_as_sql(session, catalog):
    rows = session.sql("select snapshot, parent, kind, tags, published_at from system.snapshots order by 1").fetchall()
    assert [row[:4] for row in rows] == [(0, None, "create", []), (1, 0, "promote", []), (2, 1, "promote", ["full"])]
    assert rows[1][4] == catalog.snapshot(1).entry.instant
    tables = session.sql("select table_schema || '.' || table_name, rows from system.tables t order by 1").fetchall()
    assert tables == [("warehouse.trips", 40), ("warehouse.zones", 4)]
