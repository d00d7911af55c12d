"""What a landing tells: counts per file, what is malformed, and what may surprise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lakehouse.markup import html_table
from lakehouse.sources import LandedFile, visible
from lakehouse.staging import FIRST_FAULTS, Counts, StagedFile
from lakehouse.types import plural

__all__ = [
    "FileReport",
    "LandReport",
    "MalformedRecord",
    "OnChange",
    "first_malformed",
    "on_change_report",
]


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one input file.

    Parameters
    ----------
    status
        ``landed``; ``unchanged`` if this content is the newest of this URI already; ``same content`` if it had
        landed before, so that only its place in the list was recorded.
    seq
        Its ``_load_seq``; None if unchanged.
    """

    uri: str
    status: str
    records: int
    malformed: int
    size: int
    stored_size: int
    seq: int | None


@dataclass(frozen=True, slots=True)
class MalformedRecord:
    """A record that is none of its format: its file, its first line (from 1), and why."""

    uri: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class OnChange:
    """A changed ``on_change`` that took effect.

    Parameters
    ----------
    shown, hidden
        How many landed files ``lake.<source>`` shows, or no longer shows, for it.
    """

    old: str
    new: str
    shown: int
    hidden: int


@dataclass(frozen=True, slots=True)
class LandReport:
    """What a load did. ``records`` counts well-formed and malformed ones, never header and blank lines.

    Parameters
    ----------
    first_malformed
        The first malformed records of this load, by file and line.
    on_change
        What a changed setting did, if it changed.
    warnings
        What may surprise, in whole sentences.
    """

    source: str
    load_id: str | None
    snapshot: int
    files: tuple[FileReport, ...]
    records: int = 0
    malformed: int = 0
    first_malformed: tuple[MalformedRecord, ...] = ()
    misfits: Mapping[str, int] = field(default_factory=dict)
    ambiguous: int = 0
    missing: int = 0
    widened: tuple[str, ...] = ()
    new_columns: tuple[tuple[str, str], ...] = ()
    on_change: OnChange | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def _repr_html_(self) -> str:
        rows = [(f.uri.rpartition("/")[2], f.status, f.records, f.malformed, f.size) for f in self.files]
        good = self.records - self.malformed
        counts = f"{plural(self.records, 'record')} = {good:,} well-formed + {self.malformed:,} malformed"
        title = f"{self.source}: {counts}, snapshot {self.snapshot}"
        return html_table(("file", "status", "records", "malformed", "bytes"), rows, title=title, notes=self.warnings)


def on_change_report(landed: Sequence[LandedFile], old: str, new: str) -> OnChange | None:
    """Return what a changed ``on_change`` does to the view of what has landed; None if it did not change."""
    if old == new:
        return None
    before, after = ({file.seq for file in visible(landed, setting)} for setting in (old, new))
    return OnChange(old, new, shown=len(after - before), hidden=len(before - after))


def first_malformed(staged: Sequence[StagedFile], counts: Sequence[Counts]) -> tuple[MalformedRecord, ...]:
    """Return the first malformed records of a load, by file and line."""
    found = [
        MalformedRecord(file.file.uri, line, reason)
        for file, count in zip(staged, counts, strict=True)
        for line, reason in count.faults
    ]
    return tuple(found[:FIRST_FAULTS])
