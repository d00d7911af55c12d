"""What may surprise about a load, in whole sentences: settings that do not apply, files that were perhaps misread."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lakehouse.formats.dialect import Dialect
from lakehouse.settings import SourceSettings
from lakehouse.sources import LandedFile
from lakehouse.staging import Counts, StagedFile
from lakehouse.types import plural, printable

__all__ = ["Reading", "dialect_notes", "misfit_notes", "time_zone_note"]

_NAMED = 3
_TO_UTF8 = "to UTF-8 (mostly iconv -f WINDOWS-1252 -t UTF-8 FILE, or -f LATIN1)"


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


def dialect_notes(source: str, declared: SourceSettings, shown: Iterable[LandedFile]) -> list[str]:
    """Return what to do about files that landed under another dialect than is declared now.

    Parameters
    ----------
    shown
        Files that this landing skipped, whose rows the source shows.
    """
    read = [(file, Dialect.from_text(file.dialect)) for file in shown if file.dialect and file.records]
    notes, new = [], f"{source}_2"
    for key in ("delimiter", "quote", "header"):
        wanted = getattr(declared, key)
        others = [(file, found) for file, dialect in read if (found := getattr(dialect, key)) != wanted]
        if wanted is None or not others:
            continue
        was, now = ", ".join(sorted({_toml(key, found) for _, found in others})), _toml(key, wanted)
        notes.append(
            f"{_names([file.uri for file, _ in others])}: landed with {was}; penstock.toml now says {now}, which holds "
            f"for what lands from now on. To read these files that way, declare [sources.{new}] with {now}, land them "
            f"there (penstock land {new} FILES…), and let the models read lake.{new}"
        )
    return notes


def _toml(key: str, value: str | bool) -> str:
    return f"{key} = {json.dumps(value)}"


def misfit_notes(source: str, load_id: str, misfits: Mapping[str, int]) -> list[str]:
    """Return how many values of each column went to ``_rest`` in a load, and the query that shows them.

    The values themselves are not here: a model may declare the column PII.
    """
    if not misfits:
        return []
    query = f"select _record_id, _rest from lake.{source} where _rest is not null and _load_id = '{load_id}'"
    counted = [
        f"{name}: {plural(count, 'value')} {'is' if count == 1 else 'are'} not of the column's type; "
        f"null there, kept in _rest"
        for name, count in misfits.items()
    ]
    return [*counted, f'what this load kept in _rest: penstock sql "{query}"']


@dataclass(frozen=True, slots=True)
class Reading:
    """How the files of a load were read.

    Parameters
    ----------
    source
        Its name.
    header
        What the settings say about a header; None if nothing.
    known
        The source's columns before the load.
    files
        The files, each with its counts.
    before
        The newest snapshot without the load.
    """

    source: str
    header: bool | None
    known: Sequence[str]
    files: Sequence[tuple[StagedFile, Counts]]
    before: int

    def notes(self) -> list[str]:
        """Return notes about files that were perhaps not read as they were meant, and what to do then."""
        return [
            *self._utf16(),
            *self._headers(),
            *self._renamed(),
            *self._other_columns(),
            *self._headerless(),
            *self._not_utf8(),
            *self._nothing(),
            *self._endless(),
        ]

    def _utf16(self) -> list[str]:
        utf16 = [file.file.uri for file, _ in self.files if file.utf16]
        if not utf16:
            return []
        looks = "looks" if len(utf16) == 1 else "look"
        return [f"{_names(utf16)}: {looks} like UTF-16. Convert to UTF-8 (iconv -f UTF-16 -t UTF-8 FILE) and land that"]

    def _headers(self) -> list[str]:
        """Return what became of headers that cannot be read."""
        damaged = [(file, count.header_error) for file, count in self.files if count.header_error]
        notes = [self._header(file, error) for file, error in damaged[:_NAMED]]
        return notes + [f"{len(damaged) - _NAMED:,} more headers are malformed"] * (len(damaged) > _NAMED)

    def _header(self, file: StagedFile, error: str) -> str:
        unread = [name for place, name in enumerate(file.names, 1) if name == f"column_{place}"]
        means = "stands for a name" if len(unread) == 1 else "stand for names"
        instead = f", and {_listed(unread)} {means} that cannot be read" if unread else ""
        mend = "Mend it"
        if "UTF-8" in error:
            mend = f"Convert the file {_TO_UTF8}"
        elif "NUL" in error:
            mend = "If this is UTF-16, convert it to UTF-8 (iconv -f UTF-16LE -t UTF-8 FILE)"
        nulls = self._nulls(file.names, 1)
        return f"{_names([file.file.uri])}: its header is malformed ({error}){instead}{nulls}. {mend}, {self._again}"

    def _renamed(self) -> list[str]:
        """Return which columns are not called what the header says."""
        groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for file, _ in self.files:
            if file.renamed:
                groups.setdefault(file.renamed, []).append(file.file.uri)
        return [
            f"{_names(uris)}: columns are called otherwise than in the header: "
            + _listed([f"{printable(name) or '(no name)'} → {column}" for name, column in renamed])
            for renamed, uris in groups.items()
        ]

    def _other_columns(self) -> list[str]:
        """Return which columns by the header are new to the source, and which of the source's are missing."""
        known = {name.casefold() for name in self.known}
        groups: dict[tuple[str, ...], list[str]] = {}
        for file, count in self.files:
            if known and file.dialect.header and not file.utf16 and not count.header_error and count.records:
                groups.setdefault(file.names, []).append(file.file.uri)
        notes = []
        for names, uris in groups.items():
            new = [name for name in names if name.casefold() not in known]
            nulls = self._nulls(names, len(uris))
            if new or nulls:
                told = f"{plural(len(new), 'new column')} {_listed(new)}" if new else "fewer columns"
                notes.append(f"{_names(uris)}: {told}{nulls}")
        return notes

    def _headerless(self) -> list[str]:
        """Return into which columns the values of files without a header went."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for file, count in self.files:
            is_new = bool(self.known) and not set(file.names) <= set(self.known)
            if not file.dialect.header and not file.utf16 and count.records and (self.header is None or is_new):
                groups.setdefault(file.names, []).append(file.file.uri)
        return [self._values(names, uris) for names, uris in groups.items()]

    def _values(self, names: Sequence[str], uris: Sequence[str]) -> str:
        values = f"the values are in {_listed(names)}{self._nulls(names, len(uris))}"
        if self.header is not None:
            return f"{_names(uris)}: {values}"
        whose = "its first record was" if len(uris) == 1 else "their first records were"
        return (
            f"{_names(uris)}: {whose} taken as data, not as column names; {values}. If that is wrong: penstock "
            f"rollback {self.before}, set header = true in [sources.{self.source}], land again; header = false says "
            "that it is right"
        )

    def _nulls(self, names: Iterable[str], files: int) -> str:
        """Return which columns of the source have no values in rows of these columns."""
        there = {name.casefold() for name in names}
        nulls = [name for name in self.known if name.casefold() not in there]
        are = "is" if len(nulls) == 1 else "are"
        return f"; {_listed(nulls)} {are} null in {'its' if files == 1 else 'their'} rows" if nulls else ""

    def _not_utf8(self) -> list[str]:
        """Return which files have text of another encoding, as their first malformed records show."""
        uris = [
            file.file.uri
            for file, count in self.files
            if any("UTF-8" in reason for _, reason in count.faults) and "UTF-8" not in (count.header_error or "")
        ]
        have = "has" if len(uris) == 1 else "have"
        return [f"{_names(uris)}: {have} text that is not UTF-8. Convert {_TO_UTF8}, {self._again}"] * bool(uris)

    def _nothing(self) -> list[str]:
        """Return which files have no record that is well-formed."""
        uris = [file.file.uri for file, count in self.files if 0 < count.records == count.malformed]
        them = "it" if len(uris) == 1 else "them"
        note = f"{_names(uris)}: no record is well-formed, so lake.{self.source} shows nothing of {them}"
        return [note] * bool(uris)

    def _endless(self) -> list[str]:
        """Return where records are longer than a record can be."""
        found = [(file.file.uri, *count.endless) for file, count in self.files if count.endless]
        notes = [
            f"{_names([uri])}, line {line}: a record has no end within {limit >> 20} MiB, which is the most that one "
            "can have. It was read line by line, the first line as malformed, the others as records of their own. "
            "Either a quote is not closed, or a value is that long"
            for uri, line, limit in found[:_NAMED]
        ]
        return notes + [f"{plural(len(found) - _NAMED, 'more file')} with such records"] * (len(found) > _NAMED)

    @property
    def _again(self) -> str:
        return f"then penstock rollback {self.before} and land it again"


def _names(uris: Sequence[str]) -> str:
    return _listed([uri.rpartition("/")[2] for uri in uris])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
