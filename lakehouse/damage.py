"""Why a query failed that nobody wrote wrongly: a data file of the lake that is missing, cut or damaged.

Looked for only after DuckDB has failed, and only where its message names a file of the lake or is none that a query
could bring about by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lakehouse.catalog import Snapshot
from lakehouse.delta import DataFile
from lakehouse.errors import CatalogDamagedError
from lakehouse.types import TableName, plural, quote_literal

__all__ = ["Opened", "find_damage"]

Opened = tuple[Snapshot, TableName]
"""A stored table that a query may have read, at a snapshot."""

_QUOTED_PATH = re.compile(r"""["']([^"'\n]*/[^"'\n]*)["']""")
# What DuckDB says by itself begins with a kind; a bare text comes from the depths of its Parquet reader.
_KIND = re.compile(r"[A-Z][A-Za-z ]* Error: ")
_READERS = re.compile(r"(IO|INTERNAL|Serialization) Error: |.*[Pp]arquet", re.DOTALL)


def find_damage(message: str, opened: Iterable[Opened]) -> CatalogDamagedError | None:
    """Return the error that names the data file which made DuckDB fail; None if that was not the reason.

    Parameters
    ----------
    message
        What DuckDB said.
    opened
        The tables that the query may have read.
    """
    told = message.strip()
    named = {path for path in _QUOTED_PATH.findall(told) if "/" in path}
    if not named and _KIND.match(told) and not _READERS.match(told):
        return None
    reason = told.splitlines()[0].rpartition(": ")[2].strip() if told else ""
    for snapshot, name, file, address in _files(opened):
        if named and address not in named:
            continue
        what = _wrong_size(snapshot, name, file) or _unreadable(address)
        if what is None and named:
            what = f"is damaged: {reason}"
        if what is not None:
            return CatalogDamagedError(
                f"the lake's file {snapshot.table(name).path}/{file.path} {what}",
                where=f"{name} at snapshot {snapshot.number}",
                hint="Restore the file from a copy. Snapshots from before it was added are whole: "
                f"penstock history {name}, then --as-of N, or penstock rollback N.",
            )
    return None


def _files(opened: Iterable[Opened]) -> Iterator[tuple[Snapshot, TableName, DataFile, str]]:
    seen: set[str] = set()
    for snapshot, name in opened:
        if str(name) not in snapshot.entry.tables:
            continue
        path = snapshot.table(name).path
        for file in snapshot.files(name):
            address = snapshot.storage.address(f"{path}/{file.path}")
            if address not in seen:
                seen.add(address)
                yield snapshot, name, file, address


def _wrong_size(snapshot: Snapshot, name: TableName, file: DataFile) -> str | None:
    try:
        size = snapshot.storage.size(f"{snapshot.table(name).path}/{file.path}")
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if size < file.size:
        return f"is cut: it has {size:,} of {plural(file.size, 'byte')}"
    return f"has {plural(size - file.size, 'byte')} more than were written" if size > file.size else None


def _unreadable(address: str) -> str | None:
    """Return why DuckDB cannot read all of a file."""
    import duckdb

    connection = duckdb.connect()
    try:
        reader = connection.sql(f"from read_parquet([{{filename: {quote_literal(address)}}}])").to_arrow_reader()
        for _ in reader:
            pass
    except (duckdb.Error, OSError, ValueError) as error:  # Arrow's errors are ValueErrors
        return f"is damaged: {str(error).splitlines()[0].rpartition(': ')[2].strip()}"
    finally:
        connection.close()
    return None
