"""Reading through a session: keys go in as Arrow tables, rows come back in batches, errors name the view."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurestore.binding import BAD_VALUE, BoundView, unreadable
from featurestore.source_rows import Span, source_table
from lakehouse.errors import PenstockError, QueryError
from lakehouse.types import quote

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.session import Session

__all__ = ["Bounds", "arrow_type", "batches", "int64", "one_number", "registered", "rows_of", "utc"]

_BATCH_ROWS = 250_000
_MIN, _MAX = -(2**63), 2**63 - 1
_NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True)
class Bounds:
    """From when to when events of each entity matter, µs, both included."""

    codes: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    @classmethod
    def of(cls, codes: NDArray[np.int64], high: NDArray[np.int64], low: NDArray[np.int64]) -> Bounds:
        """Return the outermost bounds of each entity; codes are dense, from 0."""
        count = int(codes.max()) + 1
        lowest, highest = np.full(count, _MAX, np.int64), np.full(count, _MIN, np.int64)
        np.minimum.at(lowest, codes, low)
        np.maximum.at(highest, codes, high)
        return cls(np.arange(count), lowest, highest)

    def before(self, codes: NDArray[np.int64]) -> Bounds:
        """Return the bounds of all that is earlier, for some entities."""
        return Bounds(codes, np.full(len(codes), _MIN, np.int64), np.maximum(self.low[codes], _MIN + 1) - 1)

    @property
    def span(self) -> Span:
        """The bounds of all entities together."""
        low, high = int(self.low.min()), int(self.high.max())
        return Span(None if low == _MIN else low, high)

    def table(self, keys: pa.Table) -> pa.Table:
        """Return a table of the entities: k0, k1, … (their keys), code, low, high (as instants)."""
        import pyarrow as pa

        instant = pa.timestamp("us", "UTC")
        # The outermost integers mean infinity, and nothing that counts lies there.
        low, high = np.maximum(self.low, _MIN + 2), np.minimum(self.high, _MAX - 1)
        own = [pa.array(self.codes), pa.array(low).cast(instant), pa.array(high).cast(instant)]
        taken = keys.take(self.codes).columns if keys.num_columns else []
        return pa.table([*taken, *own], names=[*(f"k{n}" for n in range(len(taken))), "code", "low", "high"])


def rows_of(view: BoundView, table: str) -> str:
    """Return the join of source rows ``s`` with the entities ``k`` that they are about, within their bounds."""
    keys = (f"s.{quote(key.name)} = k.k{place}" for place, key in enumerate(view.keys))
    time = f"s.{quote(view.event_timestamp)}"
    return f"join {table} k on {' and '.join([*keys, f'{time} >= k.low', f'{time} <= k.high'])}"


@contextmanager
def registered(session: Session, table: pa.Table) -> Iterator[str]:
    """Make an Arrow table known to the session's connection for a while, and yield its name there."""
    name = f"penstock_keys_{next(_NUMBERS)}"
    session.connection.register(name, table)
    try:
        yield name
    finally:
        session.connection.unregister(name)


def batches(session: Session, view: BoundView, query: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query in no particular order; at least one batch, for its schema.

    Raises
    ------
    QueryError
        If the view's source fails to run.
    CatalogDamagedError
        If a file of the lake is missing, cut or damaged.
    """
    import duckdb
    import pyarrow as pa

    try:
        reader = session.connection.sql(query).to_arrow_reader(_BATCH_ROWS)
        empty = True
        for batch in reader:
            yield batch
            empty = False
        if empty:
            yield _nothing(reader.schema)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _unreadable(session, view, error) from error


def one_number(session: Session, view: BoundView, query: str) -> int:
    """Return the number that a query returns; raises as `batches` does."""
    import duckdb

    try:
        rows = session.connection.cursor().execute(query).fetchall()
    except duckdb.Error as error:
        raise _unreadable(session, view, error) from error
    return int(rows[0][0])


def _nothing(schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.record_batch([pa.array([], field.type) for field in schema], schema=schema)


def _unreadable(session: Session, view: BoundView, error: BaseException) -> PenstockError:
    table = source_table(view)
    damaged = session.damage(error, *([table] if table in session.snapshot.tables else []))
    if damaged is not None:
        return damaged
    return QueryError(unreadable(str(error)), where=f"feature view {view.name!r}", hint=BAD_VALUE)


def int64(column: pa.Array) -> NDArray[np.int64]:
    """Return integers without nulls as numpy has them."""
    return np.asarray(column.to_numpy(zero_copy_only=False)).astype(np.int64, copy=False)


def arrow_type(type_: str) -> pa.DataType:
    """Return the Arrow type of a DuckDB type."""
    from lakehouse.delta import ColumnSchema, arrow_schema

    return arrow_schema((ColumnSchema("value", type_),)).field(0).type


def utc(column: pa.ChunkedArray, type_: str) -> pa.Array:
    """Return a column in one piece, of exactly the Arrow type of its DuckDB type."""
    import pyarrow as pa

    whole = column.cast(arrow_type(type_)) if column.type != arrow_type(type_) else column
    return pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
