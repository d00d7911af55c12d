"""What a source is at a snapshot: the files that landed, which of them are visible, and its typed view.

The state lives in two content-addressed objects that the catalog entry names, so it rolls back with the data.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from lakehouse.catalog import Catalog, Snapshot
from lakehouse.entries import SourceEntry
from lakehouse.types import TableName, quote, quote_literal

__all__ = [
    "TWIN_PROVENANCE",
    "LandedFile",
    "Source",
    "SourceColumn",
    "SourceSchema",
    "VisibleFile",
    "raw_table",
    "read_source",
    "source_entry",
    "twin_table",
    "view_sql",
    "visible",
]

UNKNOWN = "unknown"
"""Type of a column that has had no value yet."""

TWIN_PROVENANCE = ("_load_id", "_file", "_line", "_offset", "_rest")
"""The typed twin's own columns, before the user's."""


class LandedFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One landing of one file. Its place in the source's list is its ``_load_seq``.

    Parameters
    ----------
    load_id, file
        The load, and the file's place in it (files of a load go by URI).
    uri
        What the file was called when it landed: its path in the project, or a URI. Its raw rows say the same.
    sha256, size
        Of the decompressed bytes.
    stored_sha256, stored_size
        Of the bytes as received.
    landed_at
        System time, UTC.
    records, malformed, filler
        Tiles of each kind; ``records`` includes the malformed ones.
    alias
        True if the same content had landed before, so that this landing has no rows of its own.
    name
        What the file is called today; empty if that is its ``uri``. Only files have one that landed when all files were
        still called by their absolute URIs.
    dialect
        How it was read, as `Dialect.to_text` says; empty for an alias, and for files that landed before it was noted.
    """

    load_id: str
    file: int
    uri: str
    sha256: str
    size: int
    stored_sha256: str
    stored_size: int
    landed_at: str
    records: int = 0
    malformed: int = 0
    filler: int = 0
    alias: bool = False
    name: str = ""
    dialect: str = ""

    @property
    def identity(self) -> str:
        """What tells landings of one file from landings of another."""
        return self.name or self.uri


class SourceColumn(msgspec.Struct, frozen=True):
    """One column of a source: the user's name for it, its column in the twin, and its settled type."""

    name: str
    field: str
    type: str


class SourceSchema(msgspec.Struct, frozen=True):
    """The columns of a source in order of appearance."""

    columns: tuple[SourceColumn, ...] = ()

    @property
    def typed(self) -> tuple[SourceColumn, ...]:
        """The columns that the twin stores."""
        return tuple(column for column in self.columns if column.type != UNKNOWN)


@dataclass(frozen=True, slots=True)
class VisibleFile:
    """A landed file whose rows the typed view shows.

    Parameters
    ----------
    seq
        Its ``_load_seq``.
    file
        The landing that holds the rows.
    prefix
        What its record ids begin with.
    """

    seq: int
    file: LandedFile
    prefix: str


@dataclass(frozen=True, slots=True)
class Source:
    """A source as one snapshot has it."""

    name: str
    entry: SourceEntry
    schema: SourceSchema
    landed: tuple[LandedFile, ...]

    @property
    def visible(self) -> tuple[VisibleFile, ...]:
        """The files whose rows ``lake.<source>`` shows."""
        return visible(self.landed, self.entry.on_change)


def raw_table(source: str) -> TableName:
    """Return the name of a source's raw table."""
    return TableName("raw", source)


def twin_table(source: str) -> TableName:
    """Return the name of a source's typed twin."""
    return TableName("typed", source)


def read_source(snapshot: Snapshot, name: str) -> Source:
    """Return a source's state at a snapshot.

    Raises
    ------
    UnknownTableError
        If there is no such source at that snapshot.
    """
    entry = snapshot.entry.sources.get(name)
    if entry is None:
        known = [f"lake.{source}" for source in snapshot.entry.sources]
        raise snapshot.absent(f"source {name}", TableName("lake", name), known)
    catalog = snapshot.catalog
    return Source(
        name=name,
        entry=entry,
        schema=msgspec.json.decode(catalog.object(entry.schema), type=SourceSchema),
        landed=msgspec.json.decode(catalog.object(entry.landed), type=tuple[LandedFile, ...]),
    )


def source_entry(
    catalog: Catalog,
    landed: Sequence[LandedFile],
    schema: SourceSchema,
    *,
    timezone: str | None,
    on_change: str,
) -> SourceEntry:
    """Store a source's state as objects of the catalog, and return the entry that names them."""
    return SourceEntry(
        landed=catalog.put_object(msgspec.json.encode(tuple(landed))),
        schema=catalog.put_object(msgspec.json.encode(schema)),
        timezone=timezone,
        on_change=on_change,
    )


def visible(landed: Sequence[LandedFile], on_change: str) -> tuple[VisibleFile, ...]:
    """Return the landed files whose rows are shown, in landing order.

    ``replace`` shows each content that is the newest of at least one file, ``add`` every content. An alias points to
    the first landing of its content. The n-th visible landing of one content beyond the first gets ``~n`` in its
    record ids, so that they stay unique.
    """
    carrier: dict[str, int] = {}
    for seq, file in enumerate(landed):
        if not file.alias:
            carrier.setdefault(file.sha256, seq)
    if on_change == "add":
        shown = {seq for seq, file in enumerate(landed) if not file.alias}
    else:
        newest = {file.identity: seq for seq, file in enumerate(landed)}
        shown = {carrier[landed[seq].sha256] if landed[seq].alias else seq for seq in newest.values()}
    result = []
    times: dict[str, int] = {}
    for seq in sorted(shown):
        file = landed[seq]
        repeat = times.get(file.sha256, 0)
        times[file.sha256] = repeat + 1
        result.append(VisibleFile(seq, file, file.sha256[:32] + (f"~{repeat}" if repeat else "")))
    return tuple(result)


def view_sql(source: Source, twin: str, *, only: Collection[int] | None = None) -> str:
    """Return the SELECT behind ``lake.<source>``: the visible, well-formed records with their provenance.

    Parameters
    ----------
    twin
        SQL of the twin's scan, usable after FROM (a name or a parenthesised SELECT).
    only
        Show just the files with these ``_load_seq``.
    """
    files = [file for file in source.visible if only is None or file.seq in only]
    columns = [
        f"t.{quote(column.field)} as {quote(column.name)}"
        if column.type != UNKNOWN
        else f"cast(null as varchar) as {quote(column.name)}"
        for column in source.schema.columns
    ]
    provenance = [
        "t._rest",
        "f.prefix || '-' || t._offset as _record_id",
        "f.seq as _load_seq",
        "t._offset",
        "t._line",
        "f.uri as _source_uri",
        "t._load_id",
        "f.landed_at as _landed_at",
    ]
    rows = [
        f"({quote_literal(file.file.load_id)}, {file.file.file}, {file.seq}::bigint, {quote_literal(file.prefix)}, "
        f"{quote_literal(file.file.uri)}, timestamptz {quote_literal(file.file.landed_at)})"
        for file in files
    ] or ["('', 0, 0::bigint, '', '', timestamptz '1970-01-01T00:00:00Z')"]
    return (
        f"select {', '.join([*columns, *provenance])}\nfrom {twin} t\n"
        f"join (values {', '.join(rows)}) f(load_id, file, seq, prefix, uri, landed_at)\n"
        "on t._load_id = f.load_id and t._file = f.file"
    )
