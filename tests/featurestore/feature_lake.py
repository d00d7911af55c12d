"""A case's history in a real lake: each batch one file of the table ``warehouse.facts``, published without a promotion."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.binding import BoundView, bind
from featurestore.definitions import FeatureView
from featurestore.testing.histories import Case
from lakehouse.catalog import Catalog, Change, Snapshot, TableChange
from lakehouse.delta import ColumnSchema, DataFile, TableSchema, measure
from lakehouse.session import Session
from lakehouse.storage import Storage
from lakehouse.types import TableName

FACTS = TableName("warehouse", "facts")


class Ticking:
    """A clock that moves one second per look."""

    def __init__(self) -> None:
        self.now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(seconds=1)
        return self.now


class FeatureLake:
    """A lake under a directory; its catalog and every snapshot are the real ones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.storage = Storage(root / "lake")
        self.catalog = Catalog(self.storage, clock=Ticking())
        self.catalog.create()
        self._written = 0

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        return self.catalog.latest()

    # -- writing ----------------------------------------------------------------------------------------------------

    def put(self, types: Mapping[str, str], batches: Sequence[pa.Table], table: TableName = FACTS) -> Snapshot:
        """Make these batches the whole content of a table, one file each, whatever columns it had before."""
        schema = TableSchema(tuple(ColumnSchema(name, type_) for name, type_ in types.items()))
        return self._publish(table, TableChange(schema, self._write(table, schema, batches), remove=None))

    def append(self, *batches: pa.Table, table: TableName = FACTS) -> Snapshot:
        """Add files to a table."""
        schema = self.snapshot.schema(table)
        return self._publish(table, TableChange(schema, self._write(table, schema, batches)))

    def compact(self, table: TableName = FACTS, *, reverse: bool = False) -> Snapshot:
        """Rewrite all files of a table as one, the rows in the same or in the reverse order."""
        schema, files = self.snapshot.schema(table), self.snapshot.files(table)
        paths = [self.storage.address(f"{table.schema}/{table.name}/{file.path}") for file in files]
        whole = pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths])
        if reverse:
            whole = whole.take(pa.array(range(whole.num_rows - 1, -1, -1), pa.int64()))
        return self._publish(table, TableChange(schema, self._write(table, schema, [whole]), remove=None))

    def drop_column(self, name: str, table: TableName = FACTS) -> Snapshot:
        """Rewrite a table without one of its columns."""
        schema, files = self.snapshot.schema(table), self.snapshot.files(table)
        types = {column.name: column.type for column in schema.columns if column.name != name}
        paths = [self.storage.address(f"{table.schema}/{table.name}/{file.path}") for file in files]
        return self.put(types, [pq.read_table(path, columns=list(types), partitioning=None) for path in paths], table)

    def _write(self, table: TableName, schema: TableSchema, batches: Sequence[pa.Table]) -> tuple[DataFile, ...]:
        written = []
        place = f"{table.schema}/{table.name}"
        for batch in batches:
            path = f"part-{self._written:03d}.parquet"
            self._written += 1
            pq.write_table(batch, self.storage.prepare(f"{place}/{path}"))
            written.append(measure(self.storage, place, path, schema))
        return tuple(written)

    def _publish(self, table: TableName, change: TableChange) -> Snapshot:
        return self.catalog.publish(self.snapshot, Change("promote", str(table), tables={table: change}))

    # -- reading ----------------------------------------------------------------------------------------------------

    def session(self, as_of: int | None = None) -> Session:
        """Return a session over a snapshot; close it, or use it in a with statement."""
        return Session(self.catalog.resolve(as_of), memory="500MB", threads=1)

    def bind(self, view: FeatureView, as_of: int | None = None) -> BoundView:
        """Return a view bound to a snapshot."""
        with self.session(as_of) as session:
            return bind(view, session)


@contextmanager
def case_lake(case: Case) -> Iterator[FeatureLake]:
    """Put a case's history into a fresh lake, for the length of a with statement."""
    with tempfile.TemporaryDirectory() as root:
        lake = FeatureLake(Path(root))
        lake.put(case.types, case.batches)
        yield lake
