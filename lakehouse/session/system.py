"""The catalog as SQL: small views over values that are written into their text."""

from __future__ import annotations

from collections.abc import Sequence

from lakehouse.catalog import Snapshot
from lakehouse.types import quote, quote_literal

__all__ = ["SCHEMA", "VIEWS", "view"]

SCHEMA = "system"
"""DuckDB has a catalog of this name, so queries are pointed to ``memory.system``."""

VIEWS = {
    "snapshots": {
        "snapshot": "BIGINT",
        "parent": "BIGINT",
        "published_at": "TIMESTAMP WITH TIME ZONE",
        "kind": "VARCHAR",
        "summary": "VARCHAR",
        "execution": "VARCHAR",
        "tables": "BIGINT",
        "tags": "VARCHAR[]",
    },
    "tables": {
        "table_schema": "VARCHAR",
        "table_name": "VARCHAR",
        "version": "BIGINT",
        "files": "BIGINT",
        "rows": "BIGINT",
        "bytes": "BIGINT",
        "path": "VARCHAR",
    },
}


def view(snapshot: Snapshot, name: str) -> str:
    """Return the SELECT of ``system.<name>`` as a snapshot has it.

    ``system.snapshots`` lists the snapshots up to this one by number, ``system.tables`` the stored tables by name
    with their Delta versions, rows and bytes.
    """
    rows = _snapshots(snapshot) if name == "snapshots" else _tables(snapshot)
    columns = VIEWS[name]
    if not rows:
        return f"select {', '.join(f'cast(null as {kind}) as {quote(c)}' for c, kind in columns.items())} where false"
    values = ", ".join(f"({', '.join(_literal(value) for value in row)})" for row in rows)
    casts = ", ".join(f"cast({quote(column)} as {kind}) as {quote(column)}" for column, kind in columns.items())
    return f"select {casts} from (values {values}) v({', '.join(quote(column) for column in columns)})"


def _snapshots(snapshot: Snapshot) -> list[Sequence[int | str | list[str] | None]]:
    catalog = snapshot.catalog
    tags: dict[int, list[str]] = {}
    for tag, number in sorted(catalog.tags().items()):
        tags.setdefault(number, []).append(tag)
    entries = reversed(list(catalog.entries(snapshot)))
    return [
        (e.snapshot, e.parent, e.at, e.kind, e.summary, e.execution, len(e.tables), tags.get(e.snapshot, []))
        for e in entries
    ]


def _tables(snapshot: Snapshot) -> list[Sequence[int | str | list[str] | None]]:
    tables = snapshot.entry.tables
    return [
        (name.schema, name.name, entry.version, entry.files, entry.rows, entry.bytes, entry.path)
        for name, entry in ((name, tables[str(name)]) for name in snapshot.tables)
    ]


def _literal(value: int | str | list[str] | None) -> str:
    match value:
        case None:
            return "null"
        case int():
            return str(value)
        case list():
            return f"[{', '.join(_literal(item) for item in value)}]::VARCHAR[]"
    return quote_literal(value)
