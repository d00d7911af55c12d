"""Tables for terminals and notebooks: the first rows of a result, aligned, escaped, and never wider than the screen."""

from __future__ import annotations

import datetime as dt
import decimal
import html
import json
import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from lakehouse.types import plural, printable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Preview", "as_html", "as_text", "type_name", "unique_names"]

_NULL = "NULL"
_CELL = 60  # greatest natural width of a cell
_NARROW = 8  # text columns are not squeezed below this
_NAME = 16  # nor are names of columns that can't be squeezed
_GAP = 2

_SHORT = {"TIMESTAMP WITH TIME ZONE": "timestamptz", "TIME WITH TIME ZONE": "timetz"}
_NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


@dataclass(frozen=True, slots=True)
class Preview:
    """The first rows of a result, and whether there are more."""

    schema: pa.Schema
    types: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    more: bool


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    type: str
    right: bool
    cells: list[str]
    width: int
    rigid: bool
    """Whether cutting a cell would show another value: a number without its last digits."""


def unique_names(names: Iterable[str]) -> list[str]:
    """Return the names with ``_1``, ``_2``, … behind those that were there before."""
    names = list(names)
    taken: set[str] = set()
    unique = []
    for name in names:
        candidate, n = name, 0
        while candidate in taken or (n and candidate in names):
            n += 1
            candidate = f"{name}_{n}"
        taken.add(candidate)
        unique.append(candidate)
    return unique


def type_name(kind: pa.DataType) -> str:
    """Return how DuckDB calls an Arrow type."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return "TIMESTAMP WITH TIME ZONE" if kind.tz else "TIMESTAMP"
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    names = {
        pa.bool_(): "BOOLEAN",
        pa.int8(): "TINYINT",
        pa.int16(): "SMALLINT",
        pa.int32(): "INTEGER",
        pa.int64(): "BIGINT",
        pa.float32(): "FLOAT",
        pa.float64(): "DOUBLE",
        pa.string(): "VARCHAR",
        pa.large_string(): "VARCHAR",
        pa.binary(): "BLOB",
        pa.date32(): "DATE",
    }
    return names.get(kind, str(kind).upper())


def as_text(preview: Preview, *, width: int | None = None) -> str:
    """Return an aligned table: names, types, a rule, rows, and what is not shown."""
    room = width or shutil.get_terminal_size((120, 24)).columns
    columns, left_out = _fitted(_columns(preview), room)
    lines = [
        _line([_aligned(_cut(c.name, c.width), c) for c in columns]),
        _line([_aligned(_cut(c.type, c.width), c) for c in columns]),
        _line(["─" * c.width for c in columns]),
        *(_line([_aligned(_cut(c.cells[i], c.width), c) for c in columns]) for i in range(len(preview.rows))),
    ]
    if not preview.rows:
        lines.append("(no rows)")
    if preview.more:
        lines.append(f"… more rows than these {len(preview.rows)}")
    if left_out:
        lines.append(_cut(f"… {plural(len(left_out), 'more column')}: {', '.join(left_out)}", room))
    return "\n".join(lines)


def _columns(preview: Preview) -> list[_Column]:
    columns = []
    for index, (name, kind) in enumerate(zip(preview.schema.names, preview.types, strict=True)):
        numeric = kind in _NUMERIC or kind.startswith("DECIMAL") or kind in ("FLOAT", "DOUBLE", "UHUGEINT", "BIGNUM")
        cells = [_cell(row[index]) for row in preview.rows]
        shown, short = printable(name), _SHORT.get(kind, kind.lower())
        content = max((_width(cell) for cell in cells), default=1)
        rigid = numeric or kind.startswith(("TIMESTAMP", "DATE", "BOOLEAN"))
        natural = max(content if rigid else min(content, _CELL), min(_width(shown), _CELL), min(len(short), 16))
        columns.append(_Column(shown, short, numeric, cells, natural, rigid))
    return columns


def _fitted(columns: list[_Column], room: int) -> tuple[list[_Column], list[str]]:
    """Leave out columns from the right until the others can fit, and squeeze the widest texts until they do."""
    ends = accumulate(_least(column) + _GAP for column in columns)
    count = max(1, sum(end - _GAP <= room for end in ends))
    return _squeezed(columns[:count], room), [column.name for column in columns[count:]]


def _squeezed(columns: list[_Column], room: int) -> list[_Column]:
    if len(columns) == 1:
        return [_with_width(columns[0], min(columns[0].width, room))]
    widths, least = [column.width for column in columns], [_least(column) for column in columns]
    while sum(widths) + _GAP * (len(widths) - 1) > room:
        index = max(range(len(widths)), key=lambda i: widths[i] - least[i])
        widths[index] -= 1
    return [_with_width(column, width) for column, width in zip(columns, widths, strict=True)]


def _least(column: _Column) -> int:
    """Return how narrow a column may become: numbers and times are never cut."""
    if not column.rigid:
        return min(_NARROW, column.width)
    head = max(min(_NAME, _width(column.name)), min(_NARROW, len(column.type)))
    return min(column.width, max([head, *map(_width, column.cells)]))


def _with_width(column: _Column, width: int) -> _Column:
    return _Column(column.name, column.type, column.right, column.cells, width, column.rigid)


def _line(cells: Sequence[str]) -> str:
    return (" " * _GAP).join(cells).rstrip()


def _aligned(text: str, column: _Column) -> str:
    padding = " " * (column.width - _width(text))
    return padding + text if column.right else text + padding


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    kept = ""
    for character in text:
        if _width(kept + character) >= width:
            break
        kept += character
    return kept + "…"


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _cell(value: Any) -> str:
    """Return a value as people read it; the text NULL and the empty text keep quotes, null has none."""
    match value:
        case None:
            return _NULL
        case str():
            return f"'{value}'" if value in ("", _NULL) else printable(value)
        case bool():
            return "true" if value else "false"
        case dict() | list() | tuple():
            from lakehouse.result.intervals import with_texts

            spelled = with_texts(value)
            if isinstance(spelled, str):
                return spelled
            return printable(json.dumps(spelled, default=_cell, ensure_ascii=False))
    return _scalar(value)


def _scalar(value: Any) -> str:
    match value:
        case dt.datetime():
            return _moment(value)
        case decimal.Decimal():
            return f"{value:f}"  # never 1E-10
        case bytes():
            return printable(repr(value)[2:-1])
    return str(value)


def _moment(value: dt.datetime) -> str:
    text = value.replace(tzinfo=None).isoformat(sep=" ")
    if value.tzinfo is None:
        return text
    return value.isoformat(sep=" ") if value.utcoffset() else f"{text}Z"


def as_html(preview: Preview) -> str:
    """Return an HTML table with the types in its header; every text is escaped."""
    columns = _columns(preview)
    heads = "".join(f"<th>{html.escape(c.name)}<br><small>{html.escape(c.type)}</small></th>" for c in columns)
    rows = "".join(
        f"<tr>{''.join(_html_cell(row[i], c.cells[n], right=c.right) for i, c in enumerate(columns))}</tr>"
        for n, row in enumerate(preview.rows)
    )
    more = f"<p><small>… more rows than these {len(preview.rows)}</small></p>" if preview.more else ""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{more}"


def _html_cell(value: Any, text: str, *, right: bool) -> str:
    shown = "<em>NULL</em>" if value is None else html.escape(text)
    return f'<td style="text-align:right">{shown}</td>' if right else f"<td>{shown}</td>"
