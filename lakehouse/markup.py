"""HTML for notebooks: tables that say what reports say."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["html_table"]


def html_table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "", notes: Iterable[str] = ()
) -> str:
    """Return a table with escaped cells, numbers to the right.

    Parameters
    ----------
    heads
        The columns' names.
    rows
        Cells as Python values: integers get thousands separators, None is a dash, a list one line per item.
    title, notes
        A line above, and lines below.
    """
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    above = f"<p>{html.escape(title)}</p>" if title else ""
    below = "".join(f"<p><small>{html.escape(note)}</small></p>" for note in notes)
    return f"{above}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td style="text-align:right">{value:,}</td>'
    if isinstance(value, list | tuple):
        return f"<td>{'<br>'.join(html.escape(str(item)) for item in value)}</td>"
    return f"<td>{'–' if value is None else html.escape(str(value))}</td>"
