"""SQL over a table of the lake, against DuckDB over its bare Parquet files: seven shapes of query."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.harness import compare, timed

DATA = Path(__file__).parent / "data"
_FILES = 8
_COLUMNS = """
i as id, (i % 265 + 1)::integer as zone, timestamptz '2020-01-01' + to_seconds(i // 4) as began,
(hash(i) % 10000 / 100)::decimal(10,2) as fare, (hash(i + 1) % 1000 / 100)::decimal(10,2) as tip,
(hash(i + 2) % 5)::tinyint as kind, case when i % 7 = 0 then null else (hash(i + 3) % 6)::smallint end as passengers,
hash(i + 4) / 1e15 as distance, 'vendor ' || (hash(i + 5) % 40) as vendor, (i % 3 = 0) as shared,
md5(i::varchar) as token, (date '2020-01-01' + (i // 345600)::integer) as day"""

QUERIES = {
    "count": "select count(*) from {t}",
    "one column": "select sum(fare)::varchar, max(tip)::varchar from {t}",
    "filter": "select count(*), sum(tip)::varchar from {t} where began >= '2020-01-09' and began < '2020-01-10'",
    "group": "select zone, count(*), sum(fare)::varchar from {t} group by zone order by zone",
    "text": "select vendor, count(*) from {t} where token like 'ab%' group by vendor order by vendor",
    "top": "select id, fare::varchar from {t} order by fare desc, id limit 100",
    "wide": "select count(*), min(id), max(zone), sum(fare)::varchar, sum(tip)::varchar, max(kind),"
    " sum(passengers)::varchar, max(distance), min(vendor), count(*) filter (shared), min(token),"
    " max(day)::varchar from {t}",
}

# A few milliseconds each: five repeats say little on a machine that does other things too.
_SHORT = frozenset({"count", "filter"})


def prepare(rows: int) -> Path:
    """Make a lake with one table of that many rows in eight files."""
    import duckdb

    from lakehouse import delta
    from lakehouse.catalog import Catalog, Change, TableChange
    from lakehouse.delta import ColumnSchema, TableSchema
    from lakehouse.storage import Storage
    from lakehouse.types import TableName

    root = DATA / f"scan-{rows}"
    if root.exists():
        return root
    partial = DATA / f"scan-{rows}.part"
    shutil.rmtree(partial, ignore_errors=True)
    storage = Storage(partial)
    catalog = Catalog(storage)
    catalog.create()
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    described = connection.execute(f"describe select {_COLUMNS} from range(1) r(i)").fetchall()
    schema = TableSchema(tuple(ColumnSchema(name, type_) for name, type_, *_ in described))
    files = []
    for part in range(_FILES):
        low, high = rows * part // _FILES, rows * (part + 1) // _FILES
        address = storage.prepare(f"warehouse/trips/part-{part}.parquet")
        connection.execute(f"copy (select {_COLUMNS} from range({low}, {high}) r(i)) to '{address}' (compression zstd)")
        files.append(delta.measure(storage, "warehouse/trips", f"part-{part}.parquet", schema))
    change = TableChange(schema, tuple(files))
    catalog.publish(catalog.latest(), Change("promote", "benchmark", tables={TableName("warehouse", "trips"): change}))
    partial.rename(root)
    return root


def duckdb_parquet(root: str, query: str) -> Any:
    """The floor: the same files, named to DuckDB directly."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    relation = f"read_parquet('{root}/warehouse/trips/part-*.parquet')"
    connection.execute(f"select 1 from {relation} limit 0").fetchall()
    with timed():
        result = connection.execute(QUERIES[query].format(t=relation)).fetchall()
    return result


def duckdb_first_parquet(root: str, query: str) -> Any:
    """The same as the first query of a process, to compare `penstock_first_sql` with: a connection is opened too."""
    import duckdb

    with timed():
        connection = duckdb.connect()
        connection.execute("set TimeZone = 'UTC'")
        relation = f"read_parquet('{root}/warehouse/trips/part-*.parquet')"
        result = connection.execute(QUERIES[query].format(t=relation)).fetchall()
    return result


def penstock_sql(root: str, query: str) -> Any:
    """Resolve the newest snapshot and run the query, in a lake that has been asked before."""
    import duckdb  # noqa: F401 - imports are not what is measured
    import pyarrow.parquet  # noqa: F401
    from deltalake import DeltaTable  # noqa: F401

    import lakehouse.session  # noqa: F401
    from lakehouse import Lake

    lake = Lake(root)
    lake.sql("select 1 from warehouse.trips limit 0").fetchall()
    with timed():
        result = lake.sql(QUERIES[query].format(t="warehouse.trips")).fetchall()
    return result


def penstock_first_sql(root: str, query: str) -> Any:
    """The same as the first query of a process: the catalog, the table's log and a DuckDB connection are opened too."""
    import duckdb  # noqa: F401 - imports are not what is measured
    import pyarrow.parquet  # noqa: F401
    from deltalake import DeltaTable  # noqa: F401

    import lakehouse.session  # noqa: F401
    from lakehouse import Lake

    with timed():
        result = Lake(root).sql(QUERIES[query].format(t="warehouse.trips")).fetchall()
    return result


def run(*, full: bool, repeats: int) -> str:
    """Return the benchmark's report."""
    rows = 20_000_000 if full else 5_000_000
    DATA.mkdir(exist_ok=True)
    root = prepare(rows)
    return "\n\n".join(
        compare(
            "benchmarks.bench_scan",
            ["duckdb_parquet", "penstock_sql", "duckdb_first_parquet", "penstock_first_sql"],
            {"root": str(root), "query": query},
            repeats=repeats * 3 if query in _SHORT else repeats,
            title=f"Scan, {rows / 1e6:.0f} M rows × 12 columns: {query}",
            difference=True,
        )
        for query in QUERIES
    )
