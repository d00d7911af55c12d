"""Names, times and identities that every floor uses."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from lakehouse.errors import RequestError

__all__ = [
    "AsOf",
    "Clock",
    "TableName",
    "new_ulid",
    "parse_instant",
    "plural",
    "printable",
    "quote",
    "quote_literal",
    "utc_now",
    "utc_text",
]

AsOf = int | str | dt.datetime | None
"""A snapshot number, a tag or an instant; ``None`` is the newest snapshot."""

Clock = Callable[[], dt.datetime]
"""Returns the present instant, zoned UTC."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TOO_FINE = re.compile(r"[.,][0-9]{6}[0-9]*[1-9]")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def utc_now() -> dt.datetime:
    """Return the present instant in UTC."""
    return dt.datetime.now(dt.UTC)


def utc_text(instant: dt.datetime) -> str:
    """Return ``2026-11-23T15:04:05.123456Z``: always six digits, always Z, so that text order is time order."""
    return f"{instant.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def parse_instant(text: str) -> dt.datetime:
    """Return the UTC instant that ISO 8601 text names; text without a zone is UTC.

    Raises
    ------
    RequestError
        If the text is no ISO 8601 date or time, or finer than a microsecond.
    """
    try:
        instant = dt.datetime.fromisoformat(text)
        instant = instant.replace(tzinfo=dt.UTC) if instant.tzinfo is None else instant.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise RequestError(
            f"{text!r} is not a time", hint="Write it as 2026-11-23, 2026-11-23T15:04:05Z or with an offset."
        ) from None
    if _TOO_FINE.search(text):  # Python cuts these digits
        raise RequestError(f"{text!r}: microseconds are the finest that there are", hint="Give at most six digits.")
    return instant


def plural(count: int, noun: str) -> str:
    """Return ``1 file`` or ``1,234 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """Escape what would move the cursor, change colours or break the line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quote(name: str) -> str:
    """Return an SQL identifier, quoted so that no content can end it."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Return an SQL string literal, quoted so that no content can end it."""
    return "'" + text.replace("'", "''") + "'"


def new_ulid(now: dt.datetime) -> str:
    """Return a ULID: 48 bits of milliseconds and 80 random bits, in text that sorts by time.

    Follows https://github.com/ulid/spec.
    """
    value = (int(now.timestamp() * 1000) << 80) | int.from_bytes(os.urandom(10))
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


@dataclass(frozen=True, order=True, slots=True)
class TableName:
    """A table's two-part name.

    Parameters
    ----------
    schema
        The zone: ``raw``, ``lake``, ``typed``, ``warehouse``, ``quarantine``, …
    name
        The table's name within it: letters, digits and underscores, not starting with a digit.
    """

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str, *, default_schema: str | None = None) -> TableName:
        """Return the name that ``schema.name`` (or ``name``, with a default schema) spells.

        Raises
        ------
        RequestError
            If the text is not of that form.
        """
        schema, _, name = text.strip().rpartition(".")
        schema = schema or (default_schema or "")
        if not _NAME.match(schema) or not _NAME.match(name):
            raise RequestError(
                f"{text!r} is not a table name", hint="Write it as warehouse.trips: letters, digits and underscores."
            )
        return cls(schema.lower(), name.lower())

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        """The name, quoted for SQL."""
        return f"{quote(self.schema)}.{quote(self.name)}"
