"""Reports as text for people, JSON for machines, CSV for spreadsheets."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse.types import plural

if TYPE_CHECKING:
    from lakehouse.land_report import LandReport, OnChange
    from lakehouse.landing import Progress
    from lakehouse.promotion import Plan, PromotionReport, Step

__all__ = [
    "PLAN_COLUMNS",
    "land_text",
    "plan_rows",
    "plan_text",
    "print_json",
    "print_rows",
    "progress_bar",
    "promotion_text",
]

_MANY_FILES = 12
Row = Mapping[str, Any]


def print_json(value: Any) -> None:
    """Print one JSON document; integers and decimals as exact numbers."""
    import msgspec

    encoder = msgspec.json.Encoder(decimal_format="number")
    click.echo(msgspec.json.format(encoder.encode(value), indent=2))


def print_rows(rows: Sequence[Row], form: str, *, empty: str = "nothing", columns: Sequence[str] = ()) -> None:
    """Print rows of the same keys as an aligned table, an array of JSON objects, or CSV with a header.

    Parameters
    ----------
    empty
        What a table says where there are no rows.
    columns
        The keys, for the header of a CSV without rows.
    """
    if form == "json":
        print_json(list(rows))
    elif form == "csv":
        _print_csv(rows, list(rows[0]) if rows else columns)
    elif not rows:
        click.echo(empty)
    else:
        for line in _table(rows):
            click.echo(line)


def _print_csv(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Print rows as CSV; lists, objects and booleans are JSON there, as in the result of a query."""
    if not columns:
        return
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _csv_value(value) for name, value in row.items()})


def _csv_value(value: Any) -> Any:
    import msgspec

    spelled = isinstance(value, list | tuple | dict | bool)
    return msgspec.json.encode(value).decode() if spelled else value


def _table(rows: Sequence[Row]) -> list[str]:
    names = list(rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    right = [all(isinstance(row[name], int | float | None) for row in rows) for name in names]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]

    def line(texts: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(texts, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return [click.style(line(names), bold=True), *(line(texts) for texts in cells)]


def _cell(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case list() | tuple():
            value = ", ".join(map(str, value))
    return "".join(character if character.isprintable() else " " for character in str(value))


def land_text(report: LandReport, *, verbose: bool) -> list[str]:
    """Return what a load did, a line for the whole and one per file if they are few."""
    landed = [file for file in report.files if file.status == "landed"]
    same = [file for file in report.files if file.status == "same content"]
    unchanged = len(report.files) - len(landed) - len(same)
    if report.load_id is None:
        lines = [f"{report.source}: nothing new, {plural(unchanged, 'file')} unchanged (snapshot {report.snapshot})"]
    else:
        good = report.records - report.malformed
        also = [f"{len(same)} with content known before"] * bool(same) + [f"{unchanged} unchanged"] * bool(unchanged)
        what = f"{plural(len(landed), 'file')} landed{''.join(f', {text}' for text in also)}"
        counts = f"{plural(report.records, 'record')} = {good:,} well-formed + {report.malformed:,} malformed"
        lines = [
            f"{report.source}: {what}; {counts}",
            f"  snapshot {report.snapshot}, load {report.load_id}, {report.seconds:.1f} s",
        ]
    if verbose or 1 < len(report.files) <= _MANY_FILES:
        lines += [
            f"  {file.uri.rpartition('/')[2]}: {file.status}"
            + (f", {plural(file.records, 'record')}" if file.status == "landed" else "")
            + (f", {file.malformed:,} malformed" if file.malformed else "")
            for file in report.files
        ]
    lines += _malformed_text(report)
    if report.ambiguous:
        occur = "occurs" if report.ambiguous == 1 else "occur"
        lines.append(
            f"  {plural(report.ambiguous, 'local time')} {occur} twice (clocks went back): the earlier was taken"
        )
    if report.missing:
        were = "was" if report.missing == 1 else "were"
        lines.append(
            f"  {plural(report.missing, 'local time')} never {were} (clocks went forward): among the values below "
            "that are null, and kept in _rest"
        )
    lines += [f"  widened {text}" for text in report.widened]
    if report.on_change:
        lines.append(f"  note: {_on_change_text(report.on_change)}")
    return lines + [f"  note: {text}" for text in report.warnings]


def _malformed_text(report: LandReport) -> list[str]:
    """Return the first malformed records, and the command that shows all."""
    if not report.first_malformed:
        return []
    first = [f"  {record.uri.rpartition('/')[2]}, {record.reason}" for record in report.first_malformed]
    more = report.malformed - len(first)
    columns = "_source_uri, _line, _error, payload"
    query = f"select {columns} from raw.{report.source} where not _ok and _load_id = '{report.load_id}'"
    see = f'penstock sql "{query} order by _source_uri, _line"'
    return [*first, f"  … and {more:,} more. All of them: {see}" if more else f"  Their bytes: {see}"]


def _on_change_text(change: OnChange) -> str:
    shown = f"{plural(change.shown, 'file')} landed before {'becomes' if change.shown == 1 else 'become'} visible"
    hidden = f"{change.hidden:,} {'is' if change.hidden == 1 else 'are'} hidden"
    return f"on_change was {change.old} and is now {change.new}: {shown}, {hidden}"


def plan_text(plan: Plan, sql: Path) -> list[str]:
    """Return what a promotion would do, with the models of a directory."""
    lines = [_nothing_to_do(plan.steps, sql)] if plan.is_empty else []
    for step in plan.steps:
        read = f", reads {_read_text(step)}" if step.runs else ""
        lines.append(f"{click.style(str(step.table), bold=True)}: {step.mode} ({step.reason}){read}")
        breaking = " (breaking)" if step.breaking else ""
        lines += [f"  {text}{breaking}" for text in step.schema_changes]
        lines += [f"  warning: {text}" for text in step.warnings]
    return lines + [_removed_text(table, plan.steps) for table in plan.removed]


def _read_text(step: Step) -> str:
    if step.rows_to_read is not None:
        return plural(step.rows_to_read, "row")
    *others, last = step.yet_to_run
    return f"{', '.join(others)} and {last} as they will be" if others else f"{last} as it will be"


def _removed_text(table: str, steps: Sequence[Step]) -> str:
    readers = [step.table for step in steps if table in step.reads]
    still = f", and {', '.join(readers)} still {'reads' if len(readers) == 1 else 'read'} it" if readers else ""
    return f"{table}: its model is gone; the table stays as it is{still}"


PLAN_COLUMNS = ("kind", "name", "action", "reason", "rows_to_read", "changes", "breaking", "warnings")


def plan_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return what a promotion would do, a row per model."""
    return [
        {
            "kind": "model",
            "name": str(step.table),
            "action": step.mode,
            "reason": step.reason,
            "rows_to_read": step.rows_to_read,
            "changes": list(step.schema_changes),
            "breaking": step.breaking,
            "warnings": list(step.warnings),
        }
        for step in plan.steps
    ]


def _nothing_to_do(models: Sequence[object], sql: Path) -> str:
    if models:
        return "Nothing to do: every table is up to date."
    place = sql / "warehouse"
    shown = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
    return f"There are no models yet. Each is a file of its own: {shown}/TABLE.sql"


def promotion_text(report: PromotionReport, sql: Path) -> list[str]:
    """Return what a promotion did with the models of a directory; its counts add up."""
    if report.snapshot is None:
        warnings = [f"{table.table}: warning: {text}" for table in report.tables for text in table.warnings]
        return [_nothing_to_do(report.tables, sql), *warnings]
    lines = []
    for table in report.tables:
        lines.append(
            f"{click.style(str(table.table), bold=True)}: {table.mode} ({table.reason}), {table.seconds:.1f} s"
        )
        lines += [f"  warning: {text}" for text in table.warnings]
        if table.mode == "nothing to do":
            continue
        fates = [(name, getattr(table, name)) for name in ("quarantined", "replaced", "good")]
        whole, count = "query rows", table.query_rows
        if table.landed is not None:
            before = [(name, getattr(table, name)) for name in ("malformed", "hidden", "filtered")]
            whole, count, fates = "landed", table.landed, [*before, *fates]
        lines.append(f"  {whole} {count:,} = " + " + ".join(f"{name} {number:,}" for name, number in fates))
    return [*lines, f"Published as snapshot {report.snapshot}, {report.seconds:.1f} s"]


def progress_bar(*, hidden: bool, steps: bool = False) -> AbstractContextManager[Progress | None]:
    """Return a context with a progress callback that draws on a terminal, or with None.

    Parameters
    ----------
    steps
        Count steps, not bytes.
    """
    if hidden or not sys.stderr.isatty():
        return nullcontext(None)
    return _Bar(steps=steps)


class _Bar(AbstractContextManager["Progress | None"]):
    """A bar on stderr that vanishes when the work is done."""

    def __init__(self, *, steps: bool) -> None:
        self._steps = steps

    def __enter__(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        amount = MofNCompleteColumn() if self._steps else DownloadColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._progress.start()
        self._task = self._progress.add_task("", total=None)
        return self._update

    def _update(self, done: int, total: int, label: str) -> None:
        self._progress.update(self._task, completed=done, total=total, description=label)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
