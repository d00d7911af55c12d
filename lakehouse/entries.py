"""The entries of the snapshot log: what they hold, and how they are sealed against damage."""

from __future__ import annotations

import datetime as dt

import msgspec

from lakehouse import sealing
from lakehouse.errors import CatalogDamagedError, FormatTooNewError
from lakehouse.types import parse_instant

__all__ = [
    "FORMAT",
    "Entry",
    "ModelEntry",
    "SourceEntry",
    "TableEntry",
    "entry_path",
    "refuse_newer_writer",
    "sealed",
    "unsealed",
]

FORMAT = 1


class TableEntry(msgspec.Struct, frozen=True):
    """Where a snapshot finds a table.

    Parameters
    ----------
    path
        Relative to the lake's root.
    version
        Delta version.
    schema
        SHA-256 of the `TableSchema` object.
    files_sha256
        SHA-256 over the paths and sizes of the table's files, in path order.
    files, rows, bytes
        Totals over those files.
    """

    path: str
    version: int
    schema: str
    files_sha256: str
    files: int
    rows: int
    bytes: int


class SourceEntry(msgspec.Struct, frozen=True):
    """The state of one source; ``landed`` and ``schema`` are SHA-256 of objects that `lakehouse.sources` reads."""

    landed: str
    schema: str
    kind: str = "record"
    timezone: str | None = None
    on_change: str = "replace"


class ModelEntry(msgspec.Struct, frozen=True):
    """What a model was when it last ran, and what it had read.

    Parameters
    ----------
    sha256
        Of the model file.
    read
        Per input table, what identifies the state that was read.
    counts
        Rows since the last rebuild, by fate.
    meaning
        Hash of what the file says, without comments and layout; "" where nobody looked yet.
    """

    sha256: str
    read: dict[str, dict[str, str]]
    counts: dict[str, int] = {}
    meaning: str = ""


class Entry(msgspec.Struct, frozen=True):
    """One entry of the snapshot log, complete in itself."""

    format: int
    min_reader: int
    min_writer: int
    snapshot: int
    parent: int | None
    parent_sha256: str | None
    at: str
    kind: str
    execution: str | None
    summary: str
    tables: dict[str, TableEntry]
    sources: dict[str, SourceEntry]
    models: dict[str, ModelEntry]
    definitions: str | None = None
    sha256: str = ""

    @property
    def instant(self) -> dt.datetime:
        """When the snapshot was published, UTC."""
        return parse_instant(self.at)

    @property
    def objects(self) -> frozenset[str]:
        """The SHA-256 of every object of the catalog that the entry needs."""
        names = {table.schema for table in self.tables.values()}
        names |= {name for source in self.sources.values() for name in (source.landed, source.schema)}
        return frozenset(names if self.definitions is None else {*names, self.definitions})


def entry_path(number: int) -> str:
    """Return where a snapshot's entry lies in the lake."""
    return f"_catalog/log/{number}.json"


def sealed(entry: Entry) -> bytes:
    """Return the entry's file content, its own hash included."""
    return msgspec.json.encode(sealing.with_seal(entry))


def unsealed(data: bytes, number: int, place: str) -> Entry:
    """Return the entry that a file holds, checked against its hash.

    Raises
    ------
    CatalogDamagedError
        If the content is not what was written.
    FormatTooNewError
        If a newer Penstock wrote it in a form that this one cannot read.
    """
    what = f"snapshot {number}"
    entry = sealing.unsealed(data, Entry, reads=FORMAT, what=what, where=place)
    if entry.snapshot != number:
        raise CatalogDamagedError(f"{what} is damaged: this is snapshot {entry.snapshot}", where=place)
    return entry


def refuse_newer_writer(entry: Entry) -> None:
    """Stop before writing to a lake that a newer Penstock has claimed."""
    if entry.min_writer > FORMAT:
        raise FormatTooNewError(
            f"writing needs format {entry.min_writer}, this Penstock writes format {FORMAT}",
            hint="Install a newer Penstock.",
        )
