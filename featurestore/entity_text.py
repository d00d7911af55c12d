"""Entities as they are typed on the command line: ``pickup_zone=132``."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from lakehouse.errors import RequestError, near
from lakehouse.types import parse_instant

__all__ = ["entity_rows"]


def entity_rows(texts: Sequence[str], types: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the entities that ``key=value`` texts name; a repeated key makes several, one value counts for all.

    Parameters
    ----------
    texts
        ``key=value``; nothing after the sign is null.
    types
        The type of each key, as DuckDB spells it.

    Raises
    ------
    RequestError
        If a key is unknown or missing, a value is not of its type, or keys are repeated differently often.
    """
    values: dict[str, list[Any]] = {}
    for text in texts:
        asked = [key for key in types if text.startswith(f"{key}=")]  # a key may have the sign in its name
        key = max(asked, key=len, default=text.partition("=")[0])
        value = text[len(key) + 1 :]
        if key not in types:
            hint = near(key, types, what="keys") if types else f"They describe everybody: leave {text} out."
            raise RequestError(f"there is no join key {key!r} among these features", hint=hint)
        values.setdefault(key, []).append(_typed(key, value, types[key]))
    for key in types:
        if key not in values:
            raise RequestError(f"{key} is missing", hint=f"Add it: {key}=VALUE ({types[key]}).")
    rows = max([len(column) for column in values.values()], default=1)
    for key, column in values.items():
        if len(column) not in (1, rows):
            raise RequestError(
                f"{key} has {len(column)} values, another key has {rows}",
                hint="Name each key equally often, or once where its value counts for all.",
            )
    return [{key: column[row if len(column) > 1 else 0] for key, column in values.items()} for row in range(rows)]


def _typed(key: str, text: str, type_: str) -> Any:
    if not text:
        return None
    try:
        return _PARSERS.get(type_, _decimal)(text)
    except (ValueError, KeyError, RequestError):
        written = _WRITTEN.get(type_, "digits alone, as 132" if type_ in _PARSERS else "digits with a point, as 1.50")
        raise RequestError(f"{key}: {text!r} is not of type {type_}", hint=f"Write it in {written}.") from None


def _integer(text: str) -> int:
    """Return an integer; Python's own reading takes blanks, underscores and the digits of other scripts as well."""
    if not _INTEGER.match(text):
        raise ValueError(text)
    return int(text)


def _decimal(text: str) -> Decimal:
    if not _DECIMAL.match(text):
        raise ValueError(text)
    return Decimal(text)


def _local(text: str) -> dt.datetime:
    parse_instant(text)  # refuses what would be cut
    found = dt.datetime.fromisoformat(text)
    if found.tzinfo is not None:
        raise ValueError(text)
    return found


_INTEGER = re.compile(r"[+-]?[0-9]+\Z")
_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?\Z|[+-]?\.[0-9]+\Z")

_WRITTEN = {
    "BOOLEAN": "one word, as true or false",
    "BLOB": "pairs of hexadecimal digits, as 00ff",
    "DATE": "the form 2026-11-23",
    "TIMESTAMP": "the form 2026-11-23T15:04:05, without a zone",
    "TIMESTAMP WITH TIME ZONE": "the form 2026-11-23T15:04:05Z",
}

_PARSERS: dict[str, Callable[[str], Any]] = {
    "BOOLEAN": lambda text: {"true": True, "false": False}[text.lower()],
    "TINYINT": _integer,
    "SMALLINT": _integer,
    "INTEGER": _integer,
    "BIGINT": _integer,
    "VARCHAR": str,
    "BLOB": bytes.fromhex,
    "DATE": dt.date.fromisoformat,
    "TIMESTAMP": _local,
    "TIMESTAMP WITH TIME ZONE": parse_instant,
}
