"""What a CSV file looks like: delimiter, quote, header, and the column names that follow from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lakehouse.errors import InputError, SettingsError
from lakehouse.formats.csv_bits import Marks
from lakehouse.formats.csv_faults import body, settle
from lakehouse.formats.csv_structure import BOM, looks_like_utf16, scan

__all__ = ["Dialect", "column_names", "first_record", "renamed", "sniff", "split_fields"]

_CANDIDATES = ",;\t|"
# Deliberately wider than the grammar of the typed view: a header must not look like data of any kind.
_VALUE = re.compile(
    r"""[+-]?(\d[\d_.,' ]*|\.\d+)(e[+-]?\d+)?\s*%?      # number
      | [+-]?(nan|inf|infinity)
      | \d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?        # date, timestamp
      | \d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?                # time
      | true|false|yes|no                               # boolean (letters alone are names)
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file is written.

    Parameters
    ----------
    delimiter, quote
        One ASCII character each, different, neither a line end nor NUL.
    header
        Whether the first record that is not blank names the columns.

    Raises
    ------
    SettingsError
        If delimiter and quote can't be that.
    """

    delimiter: str = ","
    quote: str = '"'
    header: bool = True

    def __post_init__(self) -> None:
        for what, text in (("delimiter", self.delimiter), ("quote", self.quote)):
            if len(text) != 1 or not text.isascii() or text in "\r\n\0":
                raise SettingsError(
                    f"the CSV {what} {text!r} is not one ASCII character",
                    hint='Choose a single character such as "," or ";" or a tab, no line end.',
                )
        if self.delimiter == self.quote:
            raise SettingsError(
                f"CSV delimiter and quote are both {self.quote!r}", hint="Choose two different characters."
            )

    @property
    def marks(self) -> Marks:
        """Delimiter and quote as byte values."""
        return Marks(ord(self.delimiter), ord(self.quote))

    def to_text(self, names: Sequence[str] = ()) -> str:
        """Return compact JSON that holds the dialect and, if given, the column names."""
        content: dict[str, object] = {"delimiter": self.delimiter, "quote": self.quote, "header": self.header}
        if names:
            content["columns"] = list(names)
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Dialect:
        """Return the dialect that `to_text` wrote.

        Raises
        ------
        InputError
            If the text is something else.
        """
        try:
            content = json.loads(text)
            return cls(str(content["delimiter"]), str(content["quote"]), bool(content["header"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{text[:80]!r} describes no CSV dialect", hint="Land the file again.") from error

    @staticmethod
    def names_from_text(text: str) -> list[str]:
        """Return the column names that `to_text` was given."""
        return [str(name) for name in json.loads(text).get("columns", [])]


def sniff(
    sample: bytes,
    *,
    delimiter: str | None = None,
    quote: str = '"',
    header: bool | None = None,
    known: Sequence[str] = (),
) -> Dialect:
    """Return the dialect of a file from its first bytes.

    The delimiter is the one of comma, semicolon, tab and bar with which most complete records of the sample have the
    same number of fields, more than one; of equals the one with more fields, then the first in that order. If none
    splits, it is the comma. The first record is a header if all its fields are among ``known`` (case-insensitively);
    otherwise if every field is non-empty, distinct (case-insensitively) and looks like no number, date, time or
    boolean. So a headerless file of nothing but text is taken to have one: say ``header=False`` there. A last field
    that is empty for a delimiter at the end does not count; unless the others are ``known``, it must then be empty in
    every record of the sample.

    Parameters
    ----------
    sample
        The first bytes of the decompressed file, at best some hundred records; a last, cut record is ignored.
    delimiter, quote, header
        What is known already.
    known
        Column names of this source, from earlier files.

    Raises
    ------
    SettingsError
        If delimiter or quote can't be one.
    """
    best, best_score = delimiter or ",", (0.0, 0)
    if delimiter is None and not looks_like_utf16(sample):
        for candidate in _CANDIDATES.replace(quote, ""):
            score = _consistency(sample, Dialect(candidate, quote))
            if score > best_score:
                best, best_score = candidate, score
    dialect = Dialect(best, quote)
    if header is None:
        header = _has_header(sample, dialect, known)
    return Dialect(best, quote, header)


def _consistency(sample: bytes, dialect: Dialect) -> tuple[float, int]:
    """Return the share of records with the most frequent field count, and that count; zeros if it is one."""
    data = np.frombuffer(sample.removeprefix(BOM), np.uint8)
    found = scan(data, dialect.marks, final=False)
    ends = np.flatnonzero(found.kind != dialect.marks.delimiter)
    if not ends.size:  # one record without an end, or one that a stray quote made of all
        found = scan(data, dialect.marks._replace(quote=None), final=True)
        ends = np.flatnonzero(found.kind != dialect.marks.delimiter)
    at = found.at[ends]
    blank = np.diff(at, prepend=-1) == 1
    counts = np.bincount(np.diff(ends, prepend=-1)[~blank])
    if counts.size < 3:  # noqa: PLR2004 - index 0 and 1: nothing was split
        return 0.0, 0
    usual = int(counts[2:].argmax()) + 2
    return float(counts[usual] / counts.sum()), usual


def _has_header(sample: bytes, dialect: Dialect, known: Sequence[str]) -> bool:
    first = first_record(sample, dialect)
    if first is None:
        return not looks_like_utf16(sample)
    fields = [name.strip() for name in split_fields(first, dialect)]
    trails = len(fields) > 1 and not fields[-1]
    if trails:
        del fields[-1]
    folded = [name.casefold() for name in fields]
    if known and set(folded) <= {name.strip().casefold() for name in known}:
        return True
    if not all(fields) or len(set(folded)) < len(fields) or any(map(_VALUE.fullmatch, fields)):
        return False
    return not trails or _all_trail(sample, dialect, len(fields) + 1)


def _all_trail(sample: bytes, dialect: Dialect, width: int) -> bool:
    """Return whether the last field of all records that have one is empty; a last, cut record may have lost it."""
    data = np.frombuffer(sample.removeprefix(BOM), np.uint8)
    found = scan(data, dialect.marks)
    ends = [0, *(found.at[found.kind != dialect.marks.delimiter] + 1).tolist()]
    records = (body(data[start:end].tobytes()) for start, end in pairwise(ends))
    return not any(field.strip() for record in records for field in split_fields(record, dialect)[width - 1 :])


def first_record(sample: bytes, dialect: Dialect) -> bytes | None:
    """Return the first record that is not blank, without byte order mark and line end; None if there is none.

    Text that looks like UTF-16 has none. A quote that the sample doesn't close ends with its line.
    """
    if looks_like_utf16(sample):
        return None
    sample = sample.removeprefix(BOM)
    start = re.search(rb"[^\r\n]", sample)
    if start is None:
        return None
    data = np.frombuffer(sample, np.uint8)[start.start() :]
    size = 1 << 16
    while size < data.size:
        found = scan(data[:size], dialect.marks, final=False)
        if (found.kind != dialect.marks.delimiter).any():
            break
        size *= 4
    else:
        _, faults, _ = settle(data, dialect.marks, final=True, limit=data.size)
        found = scan(data, dialect.marks, faults=faults)
    end = int(found.at[np.flatnonzero(found.kind != dialect.marks.delimiter)[0]])
    return body(data[: end + 1].tobytes())


def split_fields(record: bytes, dialect: Dialect) -> list[str]:
    """Return the fields of one record (without its line end), unquoted; bytes that are no UTF-8 as U+FFFD."""
    return [field.decode("utf-8", "replace") for field in _split(record, dialect)]


def _split(record: bytes, dialect: Dialect) -> Iterator[bytes]:
    delimiter, quote = dialect.delimiter.encode(), dialect.quote.encode()
    start = 0
    while True:
        content = b""
        if record.startswith(quote, start):
            close = start + 1
            while (close := record.find(quote, close)) >= 0 and record.startswith(quote, close + 1):
                close += 2
            stop = len(record) if close < 0 else close
            content = record[start + 1 : stop].replace(quote * 2, quote)
            start = min(stop + 1, len(record))
        end = record.find(delimiter, start)
        yield content + (record[start:] if end < 0 else record[start:end])
        if end < 0:
            return
        start = end + 1


def column_names(header_record: bytes | None, dialect: Dialect, width: int) -> list[str]:
    """Return ``width`` names, unique case-insensitively.

    A name is its field of the header without a byte order mark and surrounding blanks. ``column_3`` stands for a
    name (here the third) that is empty, missing, no UTF-8 or has a NUL byte in it, and for each if there is no header.
    A name that came before or starts with ``_`` (those are the provenance columns') gets the suffix ``_2``, ``_3``, …

    Parameters
    ----------
    header_record
        The header without its line end; None if the file has none.
    dialect
        The file's.
    width
        The number of columns.
    """
    header = b"" if header_record is None else header_record.removeprefix(BOM)
    fields = list(_split(header, dialect))[:width] if header else []
    names: list[str] = []
    taken: set[str] = set()
    for position in range(1, width + 1):
        wanted = _name(fields[position - 1]) if position <= len(fields) else ""
        wanted = wanted or f"column_{position}"
        name, suffix = wanted, 2
        if wanted.startswith("_"):
            name, suffix = f"{wanted}_2", 3
        while name.casefold() in taken:
            name, suffix = f"{wanted}_{suffix}", suffix + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def renamed(sample: bytes, dialect: Dialect, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return each name of the header that is not its column's, with the column's; but none that cannot be read."""
    header = first_record(sample, dialect) if dialect.header else None
    if header is None:
        return []
    pairs = [(field, _name(field), name) for field, name in zip(_split(header, dialect), names, strict=True)]
    return [(text, name) for field, text, name in pairs if text != name and (text or not field.strip())]


def _name(field: bytes) -> str:
    try:
        text = field.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return "" if "\0" in text else text.strip().strip("\ufeff").strip()
