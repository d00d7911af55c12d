"""Point-in-time retrieval of ten features for a spine, against exact ASOF joins of DuckDB and polars.

All read the same Parquet files, hold the same budget of memory, and must come to the same rows. Where two feature rows
of an entity have one event timestamp, the greater values win; the data has such ties.

The floor joins narrow and fetches the wide columns of the winners afterwards, the ties decided among them; it is the
faster of the two DuckDB ways. ``duckdb_wide`` brings all columns through the join, after ties were removed.
``polars_join_asof`` also removes ties first, with the rows sorted by all of their columns, as ``join_asof`` promises
nothing about them; it reads everything into memory.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import compare, timed

DATA = Path(__file__).parent / "data"
_FILES = 8
_MEMORY = "4GB"
_TTL = 7 * 86_400_000_000
_NAMES = ["clicks", "visits", "score", "ratio", "spent", "owed", "vendor", "member", "distance", "rank"]
_COLUMNS = """
(hash(i) % {entities})::bigint as customer,
timestamptz '2020-01-01' + to_microseconds((hash(i + 7) % 12960)::bigint * 600000000) as seen,
(hash(i + 1) % 1000000)::bigint as clicks, (hash(i + 2) % 1000)::integer as visits, hash(i + 3) / 1e15 as score,
case when i % 11 = 0 then null else hash(i + 4) / 1e15 end as ratio,
(hash(i + 5) % 100000 / 100)::decimal(10,2) as spent, (hash(i + 6) % 100000 / 100)::decimal(10,2) as owed,
'vendor ' || (hash(i + 8) % 1000) as vendor, (hash(i) % 2 = 0) as member, hash(i + 9) / 1e10 as distance,
(hash(i + 10) % 5000)::bigint as rank"""
_SPINE = """
select i::bigint as row, (hash(i + 100) % {entities})::bigint as customer,
  timestamptz '2020-01-01' + to_microseconds((hash(i + 1000) % 7776000000000)::bigint) as event_timestamp
from range({spine}) r(i) order by hash(i)"""


def prepare(rows: int, spine: int, entities: int) -> Path:
    """Make a lake with one table of feature rows in eight files, not in any order, and a spine beside it."""
    import duckdb

    from lakehouse import delta
    from lakehouse.catalog import Catalog, Change, TableChange
    from lakehouse.delta import ColumnSchema, TableSchema
    from lakehouse.storage import Storage
    from lakehouse.types import TableName

    root = DATA / f"retrieval-{rows}-{spine}-{entities}"
    if root.exists():
        return root
    partial = DATA / f"{root.name}.part"
    shutil.rmtree(partial, ignore_errors=True)
    storage = Storage(partial)
    catalog = Catalog(storage)
    catalog.create()
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    columns = _COLUMNS.format(entities=entities)
    described = connection.execute(f"describe select {columns} from range(1) r(i)").fetchall()
    schema = TableSchema(tuple(ColumnSchema(name, type_) for name, type_, *_ in described))
    files = []
    for part in range(_FILES):
        low, high = rows * part // _FILES, rows * (part + 1) // _FILES
        address = storage.prepare(f"warehouse/facts/part-{part}.parquet")
        connection.execute(f"copy (select {columns} from range({low}, {high}) r(i)) to '{address}' (compression zstd)")
        files.append(delta.measure(storage, "warehouse/facts", f"part-{part}.parquet", schema))
    spine_query = _SPINE.format(entities=entities, spine=spine)
    connection.execute(f"copy ({spine_query}) to '{storage.prepare('spine.parquet')}'")
    change = TableChange(schema, tuple(files))
    catalog.publish(catalog.latest(), Change("promote", "benchmark", tables={TableName("warehouse", "facts"): change}))
    partial.rename(root)
    return root


def _checksum(table: Any) -> Any:
    """Return something that hangs on every value and its row."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    connection.register("answer", table)
    listed = ", ".join(f"coalesce({name}::varchar, 'null')" for name in ("row", *_NAMES))
    return connection.execute(
        f"select count(*), count(vendor), sum(md5_number_lower(concat_ws('|', {listed}))::hugeint)::varchar from answer"
    ).fetchall()


def _connection(root: str) -> Any:
    import duckdb

    spill = tempfile.mkdtemp(prefix="penstock-")
    connection = duckdb.connect(config={"memory_limit": _MEMORY, "threads": 2, "temp_directory": spill})
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set asof_loop_join_threshold = 0")  # else a plan that is hundreds of times slower may be taken
    connection.execute(f"create view facts as select * from read_parquet('{root}/warehouse/facts/part-*.parquet')")
    connection.execute(f"create view spine as select * from '{root}/spine.parquet'")
    connection.execute("select 1 from facts limit 0").fetchall()
    return connection


_GREATEST = ", ".join(f"{name} desc nulls last" for name in _NAMES)
_LIVE = f"case when s.event_timestamp - f.seen <= to_microseconds({_TTL}) then"
_ANSWER = ", ".join(f"{_LIVE} f.{name} end as {name}" for name in _NAMES)


def duckdb_narrow(root: str) -> Any:
    """The floor: an ASOF join of keys and times, then the winners' columns by semi-join, ties ranked."""
    connection = _connection(root)
    with timed():
        connection.execute(
            "create temp table won as select s.*, f.seen from spine s "
            "asof left join (select customer, seen from facts) f "
            "on s.customer = f.customer and s.event_timestamp >= f.seen"
        )
        result = connection.sql(
            "with found as (select f.* from facts f "
            "join (select distinct customer, seen from won) w using (customer, seen) "
            f"qualify row_number() over (partition by f.customer, f.seen order by {_GREATEST}) = 1) "
            f"select s.row, {_ANSWER} from won s left join found f on s.customer = f.customer and s.seen = f.seen"
        ).to_arrow_table()
    return _checksum(result)


def duckdb_wide(root: str) -> Any:
    """All columns through the ASOF join, on rows of which ties were removed."""
    connection = _connection(root)
    with timed():
        result = connection.sql(
            "with single as (select * from facts "
            f"qualify row_number() over (partition by customer, seen order by {_GREATEST}) = 1) "
            f"select s.row, {_ANSWER} from spine s asof left join single f "
            "on s.customer = f.customer and s.event_timestamp >= f.seen"
        ).to_arrow_table()
    return _checksum(result)


def polars_join_asof(root: str) -> Any:
    """Everything in memory: sorted by all columns, the last of each tie kept, joined."""
    import polars as pl

    with timed():
        facts = pl.scan_parquet(f"{root}/warehouse/facts/part-*.parquet")
        spine = pl.scan_parquet(f"{root}/spine.parquet").sort("event_timestamp")
        single = facts.sort("seen", *_NAMES, nulls_last=False).unique(
            ["customer", "seen"], keep="last", maintain_order=True
        )
        joined = spine.join_asof(
            single, left_on="event_timestamp", right_on="seen", by="customer", tolerance="7d", check_sortedness=False
        )
        result = joined.select("row", *_NAMES).collect().to_arrow()
    return _checksum(result)


def penstock(root: str) -> Any:
    """The job as a user's script has it, from the snapshot on."""
    import duckdb  # noqa: F401 - imports are not what is measured
    import pyarrow.parquet as pq
    from deltalake import DeltaTable  # noqa: F401

    import featurestore.engines.local  # noqa: F401
    from featurestore.binding import bind
    from featurestore.definitions import Entity, Feature, FeatureView
    from featurestore.retrieval import retrieve
    from lakehouse.catalog import Catalog
    from lakehouse.session import Session
    from lakehouse.settings import LakeSettings, Resources, Settings
    from lakehouse.storage import Storage

    features = [Feature(name) for name in _NAMES]
    view = FeatureView("facts", "warehouse.facts", [Entity("customer")], features, "seen", ttl="7d")
    snapshot = Catalog(Storage(root)).latest()
    with Session(snapshot) as session:
        bound = bind(view, session)
    settings = Settings(Path(root), LakeSettings(root), resources=Resources(memory=_MEMORY, threads=2))
    with timed():
        spine = pq.read_table(f"{root}/spine.parquet")
        job = retrieve(snapshot, settings, {"facts": bound}, [view.on()], spine)
        result = job.to_arrow()
    return _checksum(result)


def run(*, full: bool, repeats: int) -> str:
    """Return the benchmark's report."""
    rows, spine, entities = (10_000_000, 100_000, 100_000) if full else (1_000_000, 20_000, 20_000)
    DATA.mkdir(exist_ok=True)
    root = prepare(rows, spine, entities)
    return compare(
        "benchmarks.bench_retrieval",
        ["duckdb_narrow", "duckdb_wide", "polars_join_asof", "penstock"],
        {"root": str(root)},
        repeats=repeats,
        title=f"Retrieval, {rows / 1e6:.0f} M feature rows × 10 columns, spine of {spine:,}, TTL 7 d",
    )
