"""What came of a retrieval: per view, where every spine row ended up, and what was read for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.engines import ViewReport
from lakehouse.markup import html_table
from lakehouse.types import plural

__all__ = ["RetrievalReport"]

_HEADS = ("view", "present", "null", "expired", "not found", "hidden", "rows read", "excluded", "files", "skipped")


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """The reports of all views of a retrieval.

    Parameters
    ----------
    snapshot
        The snapshot that was read.
    spine_rows
        Number of rows of the spine, and of the answer.
    views
        One report per view and role, in the order asked; see `featurestore.engines.ViewReport`.
    seconds
        How long it took.
    ambiguous
        Local times of the spine that occur twice; the earlier instant was taken.
    """

    snapshot: int
    spine_rows: int
    views: tuple[ViewReport, ...]
    seconds: float
    ambiguous: int = 0

    def to_text(self) -> str:
        """Return the report as an aligned table, with a sentence for each thing that wants attention."""
        rows = [_HEADS, *(_cells(view) for view in self.views)]
        widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADS))]
        lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
        lines.insert(1, "  ".join("─" * width for width in widths))
        return "\n".join([self._title, *lines, *self._told()])

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        rows = [(_name(view), *_counts(view)) for view in self.views]
        return html_table(_HEADS, rows, title=self._title, notes=self._told())

    def _told(self) -> list[str]:
        """Return a sentence for each thing that wants attention."""
        # What holds for a view in all its roles is told once.
        notes = list(dict.fromkeys(note for view in self.views for note in _notes(view)))
        if self.ambiguous:
            occur = "occurs" if self.ambiguous == 1 else "occur"
            notes.insert(
                0, f"{plural(self.ambiguous, 'local time')} {occur} twice (clocks went back): the earlier was taken."
            )
        return notes

    @property
    def _title(self) -> str:
        return f"{plural(self.spine_rows, 'spine row')} at snapshot {self.snapshot}, {self.seconds:.2f} s"


def _name(view: ViewReport) -> str:
    return f"{view.view} on {', '.join(view.keys)}" if view.keys else view.view


def _counts(view: ViewReport) -> tuple[int, ...]:
    return (
        view.present, view.null, view.expired, view.not_found, view.hidden,
        view.rows_read, view.rows_excluded, view.files_read, view.files_skipped,
    )  # fmt: skip


def _cells(view: ViewReport) -> tuple[str, ...]:
    return (_name(view), *(f"{count:,}" for count in _counts(view)))


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *numbers = row
    return [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))]


def _notes(view: ViewReport) -> list[str]:
    name, notes = _name(view), []
    if view.without_key:
        without = "without a key or an instant"
        if view.impossible:
            without += ", or with a key that cannot be,"
        notes.append(f"{name}: {plural(view.without_key, 'spine row')} {without} found nothing.")
    for column, type_, rows in view.impossible:
        notes.append(f"{name}: {plural(rows, 'value')} of {column} cannot be of the key's type {type_}.")
    if view.hidden:
        notes.append(
            f"{name}: for {plural(view.hidden, 'spine row')} a later correction was hidden, "
            'as it was not known yet (--corrections latest, in Python corrections="latest", asks for it).'
        )
    if view.rows_excluded:
        notes.append(f"{view.view}: {plural(view.rows_excluded, 'row')} of the source without an event timestamp.")
    return notes
