"""The tables of a training set as files: written in the order of the rows, read back exactly, checked by hash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from featurestore.content_hash import ContentHash
from featurestore.exact_types import column_schemas, restored, stored, stored_schema
from featurestore.training_manifest import Stored, packed_schema
from lakehouse.catalog import Snapshot, TableChange
from lakehouse.delta import ColumnSchema, TableSchema, measure
from lakehouse.errors import CatalogDamagedError, RequestError
from lakehouse.storage import Storage
from lakehouse.types import TableName

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROW", "StagedTable", "check_columns", "read_stored", "stage"]

ROW = "_row"
"""The hidden column with each row's place, from 0."""

_FILE_ROWS = 1 << 20
_GROUP_ROWS = 1 << 17
_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "store_schema": False,  # the manifest holds the schema; two that disagree would be one too many
    "store_decimal_as_integer": True,
    "column_encoding": {ROW: "DELTA_BINARY_PACKED"},
}


class StagedTable:
    """A table whose files are written, and which no snapshot has yet.

    Parameters
    ----------
    name
        Of the table.
    columns
        Hash of each column, in order.
    change
        What publishes it.
    """

    def __init__(self, name: TableName, record: Stored, columns: list[str], change: TableChange) -> None:
        self.name = name
        self.record = record
        self.columns = columns
        self.change = change
        self._paths = [f"{name.schema}/{name.name}/{file.path}" for file in change.add]

    def discard(self, storage: Storage) -> None:
        """Delete the files: nobody will publish them."""
        for path in self._paths:
            storage.delete(path)


def check_columns(schema: pa.Schema) -> pa.Schema:
    """Return the schema that a table is stored under, or say why it can't be stored.

    Raises
    ------
    RequestError
        If a column has a type that can't be stored exactly, or a name that is taken.
    """
    if any(name.lower() == ROW for name in schema.names):
        raise RequestError(
            f"a column called {ROW!r} can't be stored: training sets keep the order of their rows in one of that name",
            hint="Rename it.",
        )
    return stored_schema(schema)


def stage(storage: Storage, name: TableName, table: pa.Table, *, prefix: str, private: frozenset[str]) -> StagedTable:
    """Write a table's rows into new files, and read them again to be sure of them.

    Parameters
    ----------
    prefix
        Of the files' names, unlike that of any other file.
    private
        Columns of which the log shall tell nothing.

    Raises
    ------
    RequestError
        If a column can't be stored exactly.
    """
    columns = check_columns(table.schema)
    folder = f"{name.schema}/{name.name}"
    written: list[str] = []
    try:
        for start in range(0, table.num_rows, _FILE_ROWS):
            written.append(f"{prefix}-{start // _FILE_ROWS:05}.parquet")
            _write(storage, f"{folder}/{written[-1]}", table.slice(start, _FILE_ROWS), columns, start)
        whole = ContentHash(table.schema).update(table)
        back = ContentHash(table.schema)
        for path in written:
            for batch in _batches(storage, f"{folder}/{path}"):
                back.update(restored(batch.drop_columns([ROW]), table.schema))
        _refuse_unlike(table.schema, whole.columns(), back.columns())
        schema = TableSchema(
            (*column_schemas(columns), ColumnSchema(ROW, "BIGINT", comment="place of the row, from 0", hidden=True)),
            no_stats=tuple(field for field in table.schema.names if field in private),
        )
        files = tuple(measure(storage, folder, path, schema) for path in written)
    except BaseException:
        for path in written:
            storage.delete(f"{folder}/{path}")
        raise
    record = Stored(str(name), table.num_rows, whole.hexdigest(), packed_schema(table.schema))
    return StagedTable(name, record, whole.columns(), TableChange(schema, files, remove=None))


def _write(storage: Storage, path: str, rows: pa.Table, schema: pa.Schema, first: int) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = schema.append(pa.field(ROW, pa.int64()))
    # Floating-point numbers seldom repeat: half of the time went into dictionaries that were thrown away.
    repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]
    with (
        storage.open_write(path) as sink,
        pq.ParquetWriter(sink, whole, use_dictionary=repeating or False, **_OPTIONS) as writer,
    ):
        for start in range(0, rows.num_rows, _GROUP_ROWS):
            part = stored(rows.slice(start, _GROUP_ROWS), schema)
            places = np.arange(first + start, first + start + part.num_rows)
            writer.write_table(part.append_column(whole.field(ROW), pa.array(places)), row_group_size=_GROUP_ROWS)


def _refuse_unlike(schema: pa.Schema, wanted: list[str], found: list[str]) -> None:
    names = [name for name, one, other in zip(schema.names, wanted, found, strict=True) if one != other]
    if names:
        raise RequestError(
            f"a stored table can't hold these columns exactly: {', '.join(map(repr, names))}",
            hint="Nothing was saved. Convert them to simpler types, or leave them out of the spine.",
        )


# -- reading ------------------------------------------------------------------------------------------------------


def read_stored(snapshot: Snapshot, record: Stored) -> pa.Table:
    """Return a stored table exactly as it was: its schema, its rows in their order, its hash.

    Raises
    ------
    CatalogDamagedError
        If a file is missing or holds something else than was saved.
    """
    import pyarrow as pa

    name = TableName.parse(record.table)
    schema = record.arrow_schema()
    with _told(snapshot, name):
        folder = snapshot.table(name).path
        paths = [f"{folder}/{file.path}" for file in snapshot.files(name)]
        pieces = [pa.Table.from_batches(_batches(snapshot.storage, path)) for path in paths]
        rows = _in_order(pa.concat_tables(pieces), record) if pieces else None
        table = schema.empty_table() if rows is None else restored(rows.select(schema.names), schema)
    digest = ContentHash(schema).update(table).hexdigest()
    if digest != record.sha256:
        raise _damage(snapshot, name, f"its content has the hash {digest[:12]}…, not {record.sha256[:12]}…")
    return table


def _batches(storage: Storage, path: str) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with storage.open_read(path) as source, pq.ParquetFile(source, pre_buffer=True) as file:
        yield from file.iter_batches(batch_size=_GROUP_ROWS)


def _in_order(rows: pa.Table, record: Stored) -> pa.Table:
    """Return the rows by their places, which must be 0, 1, 2, …: files may have been rewritten in another order."""
    import numpy as np
    import pyarrow as pa

    places = rows.column(ROW).to_numpy()
    if not np.array_equal(places, np.arange(record.rows)):
        order = np.argsort(places, kind="stable")
        if not np.array_equal(places[order], np.arange(record.rows)):
            raise pa.ArrowInvalid(f"it has not the {record.rows:,} rows that were saved")
        rows = rows.take(pa.array(order))
    return rows.drop_columns([ROW])


@contextmanager
def _told(snapshot: Snapshot, name: TableName) -> Iterator[None]:
    """Turn what goes wrong with a file into an error that names the table."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError as error:
        raise _damage(snapshot, name, f"the file {error.filename or error} is missing") from None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:  # of pyarrow, for bytes that make no sense
        raise _damage(snapshot, name, f"a file can't be read: {str(error).splitlines()[0]}") from None


def _damage(snapshot: Snapshot, name: TableName, what: str) -> CatalogDamagedError:
    return CatalogDamagedError(
        f"the training set can't be read: {what}",
        where=f"{name} at snapshot {snapshot.number}",
        hint="Restore the table's files from a copy; other versions may be whole: penstock training-set list.",
    )
