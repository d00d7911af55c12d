"""From decompressed bytes to staged Parquet files: raw tiles and typed rows, several chunks at a time.

One thread cuts the file at record ends; workers turn chunks into tiles and columns and write them. Each worker owns
its output files, so nothing is shared but the settlement of types.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from lakehouse.delta import ColumnSchema, TableSchema
from lakehouse.errors import StorageError
from lakehouse.formats.csv import Chunk, Tiles, chunks, read_chunk
from lakehouse.formats.dialect import Dialect
from lakehouse.inputs import InputFile
from lakehouse.settlement import Settlement
from lakehouse.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["FIRST_FAULTS", "RAW_SCHEMA", "TWIN_OPTIONS", "Counts", "StagedFile", "Stager", "Target", "twin_schema"]

CHUNK_BYTES = 8 << 20
FIRST_FAULTS = 3
"""Malformed records of a file that are remembered with their reason; the table holds all."""
_AHEAD = 2  # chunks cut ahead of each worker

RAW_SCHEMA = TableSchema(
    columns=(
        ColumnSchema("_load_id", "VARCHAR", comment="ULID of the load"),
        ColumnSchema("_landed_at", "TIMESTAMP WITH TIME ZONE", comment="system time"),
        ColumnSchema("_load_date", "DATE", comment="UTC date of the load; partition"),
        ColumnSchema("_source_uri", "VARCHAR", comment="the file"),
        ColumnSchema("_source_sha256", "VARCHAR", comment="of the bytes as received"),
        ColumnSchema("_source_size", "BIGINT", comment="bytes as received"),
        ColumnSchema("_content_sha256", "VARCHAR", comment="of the decompressed bytes"),
        ColumnSchema("_content_size", "BIGINT", comment="decompressed bytes"),
        ColumnSchema("_kind", "VARCHAR", comment="record or filler"),
        ColumnSchema("_line", "BIGINT", comment="first physical line of the tile, from 1"),
        ColumnSchema("_offset", "BIGINT", comment="of the tile in the decompressed file, bytes"),
        ColumnSchema("_length", "BIGINT", comment="of the tile, bytes"),
        ColumnSchema("_body_start", "BIGINT", comment="of the record inside the tile, bytes"),
        ColumnSchema("_body_length", "BIGINT", comment="of the record inside the tile, bytes"),
        ColumnSchema("_format", "VARCHAR"),
        ColumnSchema("_header", "VARCHAR", comment="dialect and column names, JSON"),
        ColumnSchema("_ok", "BOOLEAN", comment="verdict of the parse pass"),
        ColumnSchema("_error", "VARCHAR", comment="why not, with line and offset"),
        ColumnSchema("payload", "BLOB", comment="the tile exactly as received"),
    ),
    partition_by=("_load_date",),
    no_stats=("payload", "_error", "_header"),
)

_TWIN_COLUMNS = (
    ColumnSchema("_load_id", "VARCHAR", comment="ULID of the load"),
    ColumnSchema("_file", "INTEGER", comment="place of the file in its load"),
    ColumnSchema("_line", "BIGINT", comment="first physical line of the record, from 1"),
    ColumnSchema("_offset", "BIGINT", comment="of the record's tile in the decompressed file, bytes"),
    ColumnSchema("_rest", "VARCHAR", comment="values that do not belong to their column's type, JSON"),
)

_SQL_TYPES = {"timestamptz": "TIMESTAMP WITH TIME ZONE"}


def twin_schema(settlement: Settlement) -> TableSchema:
    """Return the schema of the typed twin."""
    typed = tuple(ColumnSchema(field, _SQL_TYPES.get(type_, type_.upper())) for _, field, type_ in settlement.typed())
    return TableSchema(columns=_TWIN_COLUMNS + typed, no_stats=("_rest",))


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file on its way into the lake, with everything that its rows say about where they come from.

    Parameters
    ----------
    index
        Its place in the load.
    constants
        Values of the raw columns that are the same for all its rows.
    dialect, header, names
        How it is cut, the dialect and names as JSON, and its column names.
    utf16
        Whether it looks like UTF-16.
    renamed
        Names of its header with the columns that are called otherwise.
    """

    index: int
    file: InputFile
    constants: dict[str, Any]
    dialect: Dialect
    header: str
    names: tuple[str, ...]
    utf16: bool = False
    renamed: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Counts:
    """Tiles of one file, by kind, and line and reason of the first malformed ones.

    Parameters
    ----------
    header_error
        Why the header is malformed; None if it is not.
    endless
        The line of the first record that is longer than records can be, and their limit in bytes.
    """

    records: int = 0
    malformed: int = 0
    filler: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    header_error: str | None = None
    endless: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where the Parquet files of one table go: the table's path, the prefix of file names within it."""

    table_path: str
    prefix: str


@dataclass(slots=True)
class _Output:
    """One worker's files of one table. A new file is begun when the schema has grown."""

    storage: Storage
    target: Target
    slot: int
    options: dict[str, Any]
    paths: list[str] = field(default_factory=list)
    _writer: pq.ParquetWriter | None = None
    _schema: pa.Schema | None = None

    def write(self, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        if not table.num_rows:
            return
        if self._writer is None or table.schema != self._schema:
            self.close()
            path = f"{self.target.prefix}-{self.slot}-{len(self.paths)}.parquet"
            address = self.storage.prepare(f"{self.target.table_path}/{path}")
            sink = address if self.storage.is_local else self.storage.open_write(f"{self.target.table_path}/{path}")
            self._writer = pq.ParquetWriter(sink, table.schema, store_schema=False, **self.options)
            self._schema = table.schema
            self.paths.append(path)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


_RAW_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    # A dictionary of payloads or offsets would only be built to be thrown away.
    "use_dictionary": [
        "_load_id",
        "_source_uri",
        "_source_sha256",
        "_content_sha256",
        "_kind",
        "_format",
        "_header",
        "_error",
    ],
    "column_encoding": {"_line": "DELTA_BINARY_PACKED", "_offset": "DELTA_BINARY_PACKED"},
    "write_statistics": True,
}
TWIN_OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "store_decimal_as_integer": True}


class Stager:
    """Stages the files of one load.

    Parameters
    ----------
    storage
        Of the lake.
    raw, twin
        Where tiles and typed rows go; None leaves them out.
    settlement
        The source's columns.
    threads
        Number of workers.
    visit
        Called with the column index and values of every parsed column instead of typing it, when ``twin`` is None.
    """

    def __init__(
        self,
        storage: Storage,
        settlement: Settlement,
        *,
        raw: Target | None,
        twin: Target | None,
        threads: int,
        visit: Callable[[int, pa.StringArray], None] | None = None,
    ) -> None:
        self._settlement = settlement
        self._storage = storage
        self._visit = visit
        self._raw = [_Output(storage, raw, slot, _RAW_OPTIONS) for slot in range(threads)] if raw else []
        self._twin = [_Output(storage, twin, slot, TWIN_OPTIONS) for slot in range(threads)] if twin else []
        self._threads = threads
        self._lock = threading.Lock()

    @property
    def raw_paths(self) -> list[str]:
        """Files written for the raw table, relative to it."""
        return [path for output in self._raw for path in output.paths]

    @property
    def twin_paths(self) -> list[str]:
        """Files written for the twin, relative to it."""
        return [path for output in self._twin for path in output.paths]

    def run(self, files: Sequence[StagedFile], on_bytes: Callable[[int], None] = lambda _: None) -> list[Counts]:
        """Stage the files, and return their counts in the same order. On any error what was written is deleted."""
        counts = [Counts() for _ in files]
        slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(self._threads):
            slots.put(slot)
        pending: deque[Future[None]] = deque()

        def work(staged: StagedFile, chunk: Chunk, places: Sequence[int], count: Counts) -> None:
            slot = slots.get()
            try:
                self._work(slot, staged, chunk, places, count)
            finally:
                slots.put(slot)

        try:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="penstock-stage") as pool:
                try:
                    for staged, count in zip(files, counts, strict=True):
                        places = self._settlement.places(staged.names)
                        for chunk in _chunks(staged):
                            if len(pending) >= self._threads * _AHEAD:
                                pending.popleft().result()
                            pending.append(pool.submit(work, staged, chunk, places, count))
                            on_bytes(len(chunk.data))
                        staged.file.forget()
                    while pending:
                        pending.popleft().result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
            for output in (*self._raw, *self._twin):
                output.close()
        except BaseException:
            self.discard()
            raise
        return counts

    def discard(self) -> None:
        """Delete everything that was written."""
        for output in (*self._raw, *self._twin):
            with contextlib.suppress(Exception):  # the first error is the one to report
                output.close()
            for path in output.paths:
                with contextlib.suppress(OSError, StorageError):
                    self._storage.delete(f"{output.target.table_path}/{path}")

    def _work(self, slot: int, staged: StagedFile, chunk: Chunk, places: Sequence[int], count: Counts) -> None:
        tiles = read_chunk(chunk, staged.dialect, len(staged.names))
        if self._raw:
            self._raw[slot].write(_raw_rows(tiles, staged.constants, staged.header))
        if self._twin:
            self._twin[slot].write(_twin_rows(tiles, staged, places, self._settlement))
        elif self._visit is not None:
            for index, values in zip(places, tiles.fields, strict=True):
                self._visit(index, values)
        records = int(tiles.is_record.sum())
        faults = _first_faults(tiles)
        endless = _endless(chunk, tiles)
        with self._lock:
            count.header_error = count.header_error or tiles.header_error
            count.endless = min(filter(None, (count.endless, endless)), default=None)
            count.faults = sorted([*count.faults, *faults])[:FIRST_FAULTS]  # chunks end in any order
            count.records += records
            count.malformed += len(tiles.ok) - int(tiles.ok.sum())
            count.filler += len(tiles.is_record) - records


def _first_faults(tiles: Tiles) -> list[tuple[int, str]]:
    places = (~tiles.ok).nonzero()[0][:FIRST_FAULTS]
    return [(int(tiles.line[place]), tiles.error[int(place)].as_py()) for place in places]


def _endless(chunk: Chunk, tiles: Tiles) -> tuple[int, int] | None:
    """Return the line of the first record that is longer than the limit, and the limit."""
    for fault in chunk.faults:
        if fault.limit is not None:
            place = int(tiles.offset.searchsorted(chunk.offset + fault.start, side="right")) - 1
            return int(tiles.line[place]), fault.limit
    return None


def _chunks(staged: StagedFile) -> Iterator[Chunk]:
    with staged.file.open() as stream:
        yield from chunks(stream, staged.dialect, chunk_bytes=CHUNK_BYTES)


def _constant(value: Any, rows: int) -> pa.Array:
    """Return a column of one value: a dictionary of one entry, which costs nothing to write."""
    import numpy as np
    import pyarrow as pa

    if isinstance(value, str):
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([value]))
    return pa.repeat(value, rows)


def _raw_rows(tiles: Tiles, constants: dict[str, Any], header: str) -> pa.Table:
    """Return the rows of the raw table, without its partition column."""
    import numpy as np
    import pyarrow as pa

    rows = len(tiles.offset)
    kinds = pa.DictionaryArray.from_arrays(
        pa.array(np.where(tiles.is_record, np.int32(0), np.int32(1))), pa.array(["record", "filler"])
    )
    columns = {name: _constant(value, rows) for name, value in constants.items()}
    columns |= {
        "_kind": kinds,
        "_line": pa.array(tiles.line),
        "_offset": pa.array(tiles.offset),
        "_length": pa.array(tiles.length),
        "_body_start": pa.array(tiles.body_start),
        "_body_length": pa.array(tiles.body_length),
        "_format": _constant("csv", rows),
        "_header": _constant(header, rows),
        "_ok": pa.array(tiles.ok),
        "_error": tiles.error,
        "payload": tiles.payload,
    }
    return pa.table(columns)


def _twin_rows(tiles: Tiles, staged: StagedFile, places: Sequence[int], settlement: Settlement) -> pa.Table:
    """Return the typed rows of the well-formed records."""
    import pyarrow as pa

    from lakehouse import inference

    wanted = tiles.is_record & tiles.ok
    everything = bool(wanted.all())
    rows = int(wanted.sum())
    values: dict[int, pa.Array] = {}
    misfits = []
    for index, texts in zip(places, tiles.fields, strict=True):
        array, misfit = settlement.convert(index, texts)
        if array is not None:
            values[index] = array
        if misfit is not None:
            misfits.append((settlement.name(index), texts, misfit))
    columns: dict[str, pa.Array] = {
        "_load_id": _constant(staged.constants["_load_id"], rows),
        "_file": pa.repeat(pa.scalar(staged.index, pa.int32()), rows),
        "_line": pa.array(tiles.line if everything else tiles.line[wanted]),
        "_offset": pa.array(tiles.offset if everything else tiles.offset[wanted]),
        "_rest": inference.rest(misfits, rows) if misfits else pa.nulls(rows, pa.string()),
    }
    for index, name, type_ in settlement.typed():
        array = values.get(index)
        columns[name] = pa.nulls(rows, inference.arrow_type(type_)) if array is None else array
    return pa.table(columns)
