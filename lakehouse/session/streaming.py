"""A query's rows as a stream of Arrow batches, bound once.

DuckDB offers two public ways, and neither will do. ``execute`` binds once, but an Arrow reader made from it first
fetches every row into memory (3 GB for 20 M rows of four columns, whatever the memory limit). A relation streams, but
binds twice, when it is made and when it is read, which is a tenth of a short query. Beneath relations lies the call
that does both; where a version of DuckDB lacks it, a relation takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["stream", "type_names"]


def stream(cursor: duckdb.DuckDBPyConnection, query: str, rows: int) -> tuple[pa.RecordBatchReader, list[str]]:
    """Run a query that reads, and return a reader over its rows with the columns' DuckDB types.

    The reader fetches as it is read, and keeps the cursor alive, which can run nothing else meanwhile.

    Parameters
    ----------
    rows
        Greatest number of rows in a batch.

    Raises
    ------
    duckdb.Error
        If DuckDB refuses the query, with the line and a caret below the place.
    """
    try:
        result = cursor._submit(query, None, "stream", rows)  # noqa: SLF001 - see above
    except (AttributeError, TypeError):
        return _related(cursor, query, rows)
    types = type_names(column[1] for column in result.description)  # gone once there is a reader
    return result.arrow_reader(), types


def _related(cursor: duckdb.DuckDBPyConnection, query: str, rows: int) -> tuple[pa.RecordBatchReader, list[str]]:
    try:
        relation = cursor.sql(query)
    except duckdb.BinderException:
        cursor.execute(query)  # fails too, and names the place; nothing has run before binding fails
        raise
    return relation.to_arrow_reader(rows), type_names(relation.types)


def type_names(types: Iterable[object]) -> list[str]:
    """Return DuckDB's types as it spells them: the type of NULL without quotes."""
    return [str(kind).strip('"') for kind in types]
