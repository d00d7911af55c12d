"""What a landing tells: counts per file, what is malformed, and what may surprise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lakehouse.catalog import Snapshot
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
    "misfit_notes",
    "misreadings",
    "on_change_report",
    "time_zone_note",
]

_NAMED = 3


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


def time_zone_note(source: str, settled: str | None, declared: str | None) -> str | None:
    """Return what to do about a declared time zone that is not the source's; None if it is."""
    if settled == declared:
        return None
    new = f"{source}_2"
    zone = f'timezone = "{declared}"' if declared else "no timezone"
    return (
        f"the source keeps {f'the time zone {settled}' if settled else 'times without a zone'}, as its first load "
        f"settled it; penstock.toml now says {declared or 'none'}. To read the files that way, declare [sources.{new}] "
        f"with {zone}, land them there (penstock land {new} FILES…), and let the models read lake.{new}"
    )


def first_malformed(staged: Sequence[StagedFile], counts: Sequence[Counts]) -> tuple[MalformedRecord, ...]:
    """Return the first malformed records of a load, by file and line."""
    found = [
        MalformedRecord(file.file.uri, line, reason)
        for file, count in zip(staged, counts, strict=True)
        for line, reason in count.faults
    ]
    return tuple(found[:FIRST_FAULTS])


def misreadings(
    source: str, header: bool | None, staged: Sequence[StagedFile], counts: Sequence[Counts], snapshot: Snapshot
) -> list[str]:
    """Return notes about files of a load that were perhaps not read as they were meant, and what to do then.

    Parameters
    ----------
    header
        What the settings say about a header; None if nothing.
    snapshot
        What the load published.
    """
    notes = []
    utf16 = [file.file.uri for file in staged if file.utf16]
    if utf16:
        looks = "looks" if len(utf16) == 1 else "look"
        notes.append(
            f"{_names(utf16)}: {looks} like UTF-16. Convert to UTF-8 (iconv -f UTF-16 -t UTF-8 FILE) and land that"
        )
    headerless = [
        file.file.uri
        for file, count in zip(staged, counts, strict=True)
        if header is None and not file.dialect.header and not file.utf16 and count.records
    ]
    if headerless:
        whose = "its first record was" if len(headerless) == 1 else "their first records were"
        notes.append(
            f"{_names(headerless)}: {whose} taken as data, not as column names. If that is wrong: penstock rollback "
            f"{snapshot.number - 1}, set header = true in [sources.{source}], land again; header = false says that it "
            "is right"
        )
    return notes


def misfit_notes(misfits: Mapping[str, int]) -> list[str]:
    """Return how many values of each column went to ``_rest``."""
    return [
        f"{name}: {plural(count, 'value')} {'is' if count == 1 else 'are'} not of the column's type; "
        f"null there, kept in _rest"
        for name, count in misfits.items()
    ]


def _names(uris: Sequence[str]) -> str:
    names = [uri.rpartition("/")[2] for uri in uris]
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
