"""Landing of CSV with its typed twin, against DuckDB's ``read_csv`` → Parquet of the same file."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import compare, timed

DATA = Path(__file__).parent / "data"
_SAMPLES = Path(__file__).parents[1] / "featurestore" / "demo" / "data"
_CHECK = """
select count(*), sum(fare_amount)::decimal(38,2)::varchar, sum(tip_amount)::decimal(38,2)::varchar,
       sum(pickup_location_id)::varchar, count(passenger_count),
       min(pickup_datetime)::varchar, max(dropoff_datetime)::varchar
from {}"""


def prepare(megabytes: int) -> Path:
    """Make a CSV of that size from the sample months that have one kind of line end (DuckDB refuses the others)."""
    DATA.mkdir(exist_ok=True)
    path = DATA / f"trips-{megabytes}.csv"
    if not path.exists():
        months = [gzip.decompress(p.read_bytes()) for p in sorted(_SAMPLES.glob("*.gz")) if "2019-0" not in p.name]
        header, body = months[0].partition(b"\n")[0], b"".join(m.partition(b"\n")[2] for m in months)
        with path.open("wb") as file:
            file.write(header + b"\n")
            while file.tell() < megabytes * 1_000_000:
                file.write(body)
    return path


def duckdb_read_csv(path: str) -> Any:
    """The floor: types detected by DuckDB, Parquet with zstd."""
    import duckdb

    out = Path(tempfile.mkdtemp(dir=DATA)) / "out.parquet"
    connection = duckdb.connect()
    with timed():
        connection.execute(f"copy (select * from read_csv('{path}')) to '{out}' (format parquet, compression zstd)")
    result = connection.execute(_CHECK.format(f"'{out}'")).fetchall()
    shutil.rmtree(out.parent)
    return result


def penstock_land(path: str) -> Any:
    """Raw tiles, verdicts, typed twin, hashes and the publish."""
    from lakehouse import Lake
    from lakehouse.catalog import Catalog
    from lakehouse.storage import Storage

    root = tempfile.mkdtemp(dir=DATA)
    Catalog(Storage(root)).create()
    lake = Lake(root)
    with timed():
        lake.land("trips", path)
    result = lake.sql(_CHECK.format("lake.trips")).fetchall()
    shutil.rmtree(root)
    return result


def run(*, full: bool, repeats: int) -> str:
    """Return the benchmark's report."""
    megabytes = 1000 if full else 500
    path = prepare(megabytes)
    return compare(
        "benchmarks.bench_landing",
        ["duckdb_read_csv", "penstock_land"],
        {"path": str(path)},
        repeats=repeats,
        title=f"Landing {megabytes} MB of CSV",
    )
