"""A small lake for the tests of promotion: files land as finished twins, without the landing pipeline."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.catalog import Catalog, Change, Snapshot, TableChange
from lakehouse.delta import ColumnSchema, TableSchema, measure
from lakehouse.promotion import Plan, PromotionReport, plan, promote
from lakehouse.session import Session
from lakehouse.settings import LakeSettings, Paths, Resources, Settings
from lakehouse.sources import LandedFile, SourceColumn, SourceSchema, read_source, source_entry, twin_table
from lakehouse.storage import Storage
from lakehouse.types import TableName, utc_text

PROVENANCE = (
    ColumnSchema("_load_id", "VARCHAR"),
    ColumnSchema("_file", "INTEGER"),
    ColumnSchema("_line", "BIGINT"),
    ColumnSchema("_offset", "BIGINT"),
    ColumnSchema("_rest", "VARCHAR"),
)
ARROW = {"BIGINT": pa.int64(), "INTEGER": pa.int32(), "VARCHAR": pa.string(), "DOUBLE": pa.float64()}
RECORD_LENGTH = 10

Row = Sequence[Any]
"""One record: its values in the order of the source's columns."""


class Ticking:
    """A clock that moves one second per look."""

    def __init__(self) -> None:
        self.now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(seconds=1)
        return self.now


class PromotionLake:
    """A lake with a project beside it."""

    def __init__(self, root: Path, *, failpoint: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self.storage = Storage(root / "lake")
        self.catalog = Catalog(self.storage, clock=Ticking(), failpoint=failpoint)
        self.catalog.create()
        self.settings = Settings(
            project=root,
            lake=LakeSettings(uri=str(root / "lake")),
            paths=Paths(sql=root / "sql"),
            resources=Resources(memory="500MB", threads=1),
        )

    # -- landing ----------------------------------------------------------------------------------------------------

    def land(
        self,
        source: str,
        columns: dict[str, str],
        *files: tuple[str, Sequence[Row]],
        malformed: int = 0,
        on_change: str = "replace",
    ) -> Snapshot:
        """Land files, each a URI and its records, as one load; each also has some malformed records."""
        base = self.catalog.latest()
        known = read_source(base, source) if source in base.entry.sources else None
        landed = list(known.landed) if known else []
        load = f"L{len(landed):03d}"
        schema = TableSchema((*PROVENANCE, *(ColumnSchema(name, kind) for name, kind in columns.items())))
        added = []
        for number, (uri, rows) in enumerate(sorted(files)):
            sha256 = hashlib.sha256(repr((list(columns), list(rows))).encode()).hexdigest()
            alias = any(file.sha256 == sha256 for file in landed)
            records = 0 if alias else len(rows) + malformed
            landed.append(
                LandedFile(
                    load, number, uri, sha256, len(rows) * RECORD_LENGTH, sha256, len(rows) * RECORD_LENGTH,
                    utc_text(self.catalog.clock()), records, 0 if alias else malformed, alias=alias,
                )
            )  # fmt: skip
            if not alias:
                added.append(self._write_twin(source, schema, load, number, rows))
        entry = source_entry(
            self.catalog,
            landed,
            SourceSchema(tuple(SourceColumn(name, name, kind.lower()) for name, kind in columns.items())),
            timezone=None,
            on_change=on_change,
        )
        change = Change(
            "land", load, tables={twin_table(source): TableChange(schema, tuple(added))}, sources={source: entry}
        )
        return self.catalog.publish(base, change)

    def _write_twin(self, source: str, schema: TableSchema, load: str, number: int, rows: Sequence[Row]) -> Any:
        count = len(rows)
        values = [
            [load] * count,
            [number] * count,
            list(range(2, count + 2)),
            [RECORD_LENGTH * i for i in range(count)],
            [None] * count,
            *(list(column) for column in zip(*rows, strict=True)),
        ]
        if not rows:
            values += [[] for _ in schema.columns[len(PROVENANCE) :]]
        arrays = [pa.array(v, ARROW[c.type]) for v, c in zip(values, schema.columns, strict=True)]
        path = f"{load}-{number}.parquet"
        target = self.storage.prepare(f"typed/{source}/{path}")
        pq.write_table(pa.table(dict(zip(schema.names, arrays, strict=True))), target)
        return measure(self.storage, f"typed/{source}", path, schema)

    # -- promoting --------------------------------------------------------------------------------------------------

    def model(self, name: str, text: str) -> None:
        """Write a model file."""
        path = self.root / "sql" / "warehouse" / f"{name}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def plan(self, *select: str) -> Plan:
        return plan(self.catalog, self.settings, select=select)

    def promote(self, *select: str) -> PromotionReport:
        return promote(self.catalog, self.settings, select=select)

    # -- reading ----------------------------------------------------------------------------------------------------

    def rows(self, table: str, columns: str = "*", as_of: int | None = None) -> list[tuple[Any, ...]]:
        """Return a table's rows, sorted."""
        with Session(self.catalog.resolve(as_of)) as session:
            return session.sql(f"select {columns} from {TableName.parse(table).sql} order by all").fetchall()

    def rejected(self, table: str) -> list[tuple[Any, ...]]:
        """Return a quarantine table's rows without what tells runs apart, sorted."""
        return self.rows(f"quarantine.{table}", "* exclude (_execution, _at)")

    def paths(self) -> set[str]:
        """Return all data files of the warehouse and of quarantine."""
        lake = self.root / "lake"
        return {
            str(p.relative_to(lake)) for zone in ("warehouse", "quarantine") for p in lake.glob(f"{zone}/*/*.parquet")
        }
