"""What a model has read of each input, and what has come since.

A watermark is a small map of texts that the catalog entry keeps per model and input. It identifies the state that was
read; for a source it also says which landed files were shown, so that the next run can tell new files from changes of
old ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from lakehouse.catalog import Snapshot, files_sha256
from lakehouse.delta import DataFile, TableSchema
from lakehouse.sources import Source, SourceColumn, VisibleFile, read_source
from lakehouse.types import TableName

__all__ = ["Arrivals", "Watermark", "arrivals", "changed", "of_staged", "watermark"]

Watermark = dict[str, str]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How a source differs from what was read of it.

    Parameters
    ----------
    files
        Visible files that were not landed then, in landing order.
    columns
        Names of columns that were not there then.
    why_not
        Why reading just ``files`` would not do; None if it would.
    """

    files: tuple[VisibleFile, ...]
    columns: tuple[str, ...]
    why_not: str | None


def watermark(snapshot: Snapshot, name: TableName) -> Watermark | None:
    """Return the watermark of an input as a snapshot has it, or None if there is no such table or source."""
    if name.schema != "lake":
        table = snapshot.entry.tables.get(str(name))
        return None if table is None else {"schema": table.schema, "files": table.files_sha256}
    if name.name not in snapshot.entry.sources:
        return None
    return _of_source(read_source(snapshot, name.name))


def of_staged(schema: TableSchema, files: Iterable[DataFile]) -> Watermark:
    """Return the watermark of a table that the same publish writes."""
    return {"schema": hashlib.sha256(msgspec.json.encode(schema)).hexdigest(), "files": files_sha256(files)}


def changed(snapshot: Snapshot, name: TableName, mark: Mapping[str, str]) -> bool:
    """Return whether an input is no longer what was read.

    Cheap where nothing happened. A landing that only repeats known content is no change.
    """
    if name.schema != "lake":
        return watermark(snapshot, name) != mark
    entry = snapshot.entry.sources.get(name.name)
    if entry is None:
        return True
    if entry.landed == mark.get("landed") and _settings(snapshot, name) == _part(mark, "timezone", "on_change"):
        return entry.schema != mark.get("schema")
    now = _of_source(read_source(snapshot, name.name))
    compared = ("schema", "timezone", "on_change", "landings", "seqs", "prefixes")
    return _part(now, *compared) != _part(mark, *compared)


def arrivals(source: Source, mark: Mapping[str, str]) -> Arrivals:
    """Return what has come to a source since it was read up to a watermark."""
    known = int(mark["known"])
    shown = source.visible
    before = tuple(file for file in shown if file.seq < known)
    columns = source.schema.columns
    count = int(mark["columns"])
    why_not = None
    if (source.entry.timezone or "") != mark["timezone"]:
        why_not = f"the time zone of lake.{source.name} changed"
    elif source.entry.on_change != mark["on_change"]:
        why_not = f"on_change of lake.{source.name} changed"
    elif _types(columns[:count]) != mark["types"]:
        why_not = f"a column of lake.{source.name} changed its type"
    elif _ranges([file.seq for file in before]) != mark["seqs"] or _prefixes(before) != mark["prefixes"]:
        why_not = f"a load of lake.{source.name} became hidden or visible again"
    return Arrivals(
        files=tuple(file for file in shown if file.seq >= known),
        columns=tuple(column.name for column in columns[count:]),
        why_not=why_not,
    )


def _of_source(source: Source) -> Watermark:
    shown = source.visible
    return {
        "landed": source.entry.landed,
        "schema": source.entry.schema,
        "timezone": source.entry.timezone or "",
        "on_change": source.entry.on_change,
        "known": str(len(source.landed)),
        "landings": str(sum(not file.alias for file in source.landed)),
        "seqs": _ranges([file.seq for file in shown]),
        "prefixes": _prefixes(shown),
        "columns": str(len(source.schema.columns)),
        "types": _types(source.schema.columns),
    }


def _settings(snapshot: Snapshot, name: TableName) -> dict[str, str | None]:
    entry = snapshot.entry.sources[name.name]
    return {"timezone": entry.timezone or "", "on_change": entry.on_change}


def _part(mark: Mapping[str, str], *keys: str) -> dict[str, str | None]:
    return {key: mark.get(key) for key in keys}


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as ``0-12,14``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def _prefixes(files: Iterable[VisibleFile]) -> str:
    return hashlib.sha256("\n".join(file.prefix for file in files).encode()).hexdigest()


def _types(columns: Iterable[SourceColumn]) -> str:
    return hashlib.sha256(msgspec.json.encode([(c.name, c.field, c.type) for c in columns])).hexdigest()
