"""Annotations: what a model says in comments because SQL can't.

``-- @key value`` in the comment block before a statement or at a statement's end; several may stand on one line.
The list is closed, so that a typing error is an error and never a silently missing rule.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lakehouse.errors import RequestError, near
from lakehouse.models.tokens import SourceText, Token
from lakehouse.types import TableName

__all__ = ["Annotations", "prose", "read_annotations"]

_KEY = re.compile(r"(?<!\S)@([A-Za-z_]\w*)")
_DURATION = re.compile(r"(?:\d+[smhdw])+")
_PERCENT = re.compile(r"\d+(?:\.\d+)?%?")
_SINCE = re.compile(r"load\(\s*([\w.]+)\s*\)", re.IGNORECASE)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Annotations:
    """What a model's comments declare.

    Parameters
    ----------
    owner
        ``@owner``: who answers for the table.
    description
        ``@description``: what the table is; without it, the leading comment says so.
    fresh
        ``@fresh 2h``: how old the newest data may be.
    on_violation
        ``@on_violation quarantine|fail``: what happens to rows that break the contract.
    max_quarantine
        ``@max_quarantine 5%``: share of a run's query rows, in [0, 1], above which nothing is published.
    since
        ``@since load(lake.x)``: the input that is read incrementally.
    order_by
        ``@order_by column``: the greatest value wins a key.
    tags
        ``@tags a, b``.
    pii
        ``@pii column, …``: columns whose values never appear in logs and reasons.
    """

    owner: str | None = None
    description: str | None = None
    fresh: dt.timedelta | None = None
    on_violation: str = "quarantine"
    max_quarantine: Fraction = Fraction(1, 20)
    since: TableName | None = None
    order_by: str | None = None
    tags: tuple[str, ...] = ()
    pii: frozenset[str] = frozenset()


def read_annotations(source: SourceText, outside: Iterable[Token], inside: Iterable[Token]) -> Annotations:
    """Return the annotations of a file.

    Parameters
    ----------
    source
        The file.
    outside
        Comments before a statement or at its end.
    inside
        Comments in the middle of a statement: an annotation there is an error, not a silent no-op.

    Raises
    ------
    ModelError
        If a key is unknown, repeated or misplaced, or its value doesn't parse.
    """
    found: dict[str, Any] = {}
    for comment in inside:
        for offset, key, _ in _pairs(comment):
            if key in _PARSERS:
                raise source.error(
                    f"@{key} stands in the middle of a statement",
                    offset,
                    hint="Put annotations in the comment before a statement or at its end.",
                )
    for comment in outside:
        for offset, key, value in _pairs(comment):
            if key not in _PARSERS:
                raise source.error(f"unknown annotation @{key}", offset, hint=near(key, _PARSERS, what="annotations"))
            if key in found:
                raise source.error(f"@{key} is given twice", offset, hint="Keep one of them.")
            parse, form = _PARSERS[key]
            try:
                found[key] = parse(value)
            except ValueError:
                shown = f"{value!r} is no value for @{key}" if value else f"@{key} has no value"
                raise source.error(shown, offset, hint=f"Write it as: @{key} {form}") from None
    return Annotations(**found)


def prose(comments: Iterable[Token]) -> str:
    """Return the text of comments without their annotations."""
    lines = (_KEY.split(line, maxsplit=1)[0].strip() for comment in comments for _, line in _lines(comment))
    return "\n".join(line for line in lines if line)


def _lines(comment: Token) -> Iterable[tuple[int, str]]:
    """Yield byte offset and text of each line of a comment, without the comment's own signs."""
    block = comment.text.startswith("/*")
    body = comment.text[2:-2] if block else comment.text[2:]
    offset = comment.start + 2
    for line in body.split("\n"):
        text = re.sub(r"\A\s*\*+(?=\s|\Z)", lambda sign: " " * len(sign[0]), line) if block else line
        yield offset, text
        offset += len(line.encode()) + 1


def _pairs(comment: Token) -> Iterable[tuple[int, str, str]]:
    """Yield byte offset, key and value of each annotation in a comment."""
    for offset, line in _lines(comment):
        marks = list(_KEY.finditer(line))
        ends = [*(mark.start() for mark in marks[1:]), len(line)]
        for mark, end in zip(marks, ends, strict=False):
            value = line[mark.end() : end]
            yield offset + len(line[: mark.start()].encode()), mark[1], value.strip()


def _text(value: str) -> str:
    if not value:
        raise ValueError
    return value


def _duration(value: str) -> dt.timedelta:
    if not _DURATION.fullmatch(value):
        raise ValueError
    parts = re.findall(r"(\d+)([smhdw])", value)
    try:
        return sum((dt.timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), dt.timedelta())
    except OverflowError:
        raise ValueError from None


def _violation(value: str) -> str:
    if value not in {"quarantine", "fail"}:
        raise ValueError
    return value


def _share(value: str) -> Fraction:
    if not _PERCENT.fullmatch(value):
        raise ValueError
    share = Fraction(value[:-1]) / 100 if value.endswith("%") else Fraction(value)
    if share > 1:
        raise ValueError
    return share


def _since(value: str) -> TableName:
    match = _SINCE.fullmatch(value)
    if not match:
        raise ValueError
    try:
        table = TableName.parse(match[1])
    except RequestError:
        raise ValueError from None
    if table.schema != "lake":
        raise ValueError
    return table


def _column(value: str) -> str:
    if len(value.split()) != 1:
        raise ValueError
    return value.strip('"')


def _names(value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(","))
    if not all(len(name.split()) == 1 for name in names):
        raise ValueError
    return names


_PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "owner": (_text, "city-data"),
    "description": (_text, "one row per trip"),
    "fresh": (_duration, "2h (or 45s, 30m, 1d12h, 1w)"),
    "on_violation": (_violation, "quarantine, or fail"),
    "max_quarantine": (_share, "5%, or 0.05; 100% is the most"),
    "since": (_since, "load(lake.trips)"),
    "order_by": (_column, "column"),
    "tags": (_names, "a, b"),
    "pii": (lambda value: frozenset(_names(value)), "column, other_column"),
}
