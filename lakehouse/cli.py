"""The command group and the commands of the lake: one verb per method of `Lake`.

Commands parse, call, and print. Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 the data or the
request is bad, 2 usage, 75 temporary (run it again).
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from lakehouse import rendering
from lakehouse.errors import PenstockError, RequestError

if TYPE_CHECKING:
    from lakehouse.lake import Lake, TableInfo
    from lakehouse.land_report import LandReport
    from lakehouse.result import QueryResult

__all__ = ["VERDICT", "cli", "command"]

VERDICT = f"{__name__}.verdict"
"""Where a command says in the context's ``meta``, before it prints, what it exits with even if nobody reads on."""

_BUG = 1
_INTERRUPTED = 130


class _Group(click.Group):
    """A group whose errors are one message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PenstockError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            # Whoever read us has gone; the flush at exit must not complain about it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(ctx.meta.get(VERDICT, 0))
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            click.echo(f"error: {place}{error.strerror or error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # the last resort: one line, not a traceback
            if os.environ.get("PENSTOCK_DEBUG"):
                raise
            text = str(error).splitlines()[0] if str(error) else ""
            click.echo(f"error: {type(error).__name__}: {text}", err=True)
            click.echo("  This is a bug in Penstock. Set PENSTOCK_DEBUG=1 to see where.", err=True)
            ctx.exit(_BUG)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the flow, not of the alphabet


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="penstock", message="penstock %(version)s")
def cli() -> None:
    """Raw files to enforced tables, readable at any past snapshot."""


def _open_lake(project: str, env: str | None) -> Lake:
    from lakehouse.lake import Lake

    return Lake(project, env=env)


def command(
    name: str,
    *,
    example: str,
    prints: bool = True,
    group: click.Group = cli,
    opens: Callable[[str, str | None], Any] = _open_lake,
) -> Callable[[Callable[..., None]], click.Command]:
    """Register a command that gets an opened `Lake` first, with the options that every command has.

    Parameters
    ----------
    example
        A command line that works, shown by ``--help``.
    prints
        Whether it prints data, and so takes ``--format``; the function then gets ``form``.
    group
        What it is a command of.
    opens
        Returns what the function gets first, from the project's path and the environment's name.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(project: str, env: str | None, **options: Any) -> None:
            function(opens(project, env), **options)

        wrapped = click.option("--env", metavar="NAME", help="Overlay the settings with [env.NAME].")(run)
        wrapped = click.option(
            "--project", metavar="PATH", default=".", help="The project's directory, or one below it, or a lake."
        )(wrapped)
        if prints:
            wrapped = click.option(
                "--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True
            )(wrapped)
        return group.command(name, epilog=f"Example:  {example}")(wrapped)

    return decorate


_AS_OF = click.option("--as-of", metavar="WHEN", help="A snapshot number, a tag, or a UTC time. [default: newest]")
_YES = click.option("--yes", is_flag=True, help="Needed where penstock.toml says protected = true.")


@command("land", example="penstock land yellow_trips 'data/*.csv.gz'")
@click.argument("source", required=False)
@click.argument("files", nargs=-1)
@click.option("--verbose", is_flag=True, help="A line for every file.")
def _land(lake: Lake, source: str | None, files: Sequence[str], form: str, *, verbose: bool) -> None:
    """Land FILES in SOURCE byte for byte; without FILES those of penstock.toml, without SOURCE all of them."""
    if source:
        _print_landed([_landed(lake, source, files or None, form)], form, verbose=verbose)
        return
    names = [name for name, declared in lake.settings.sources.items() if declared.files]
    if not names:
        raise RequestError("penstock.toml declares no files to land", hint="Name them: penstock land SOURCE FILES…")
    _land_all(lake, names, form, verbose=verbose)


def _land_all(lake: Lake, names: Sequence[str], form: str, *, verbose: bool) -> None:
    """Land sources that know nothing of each other: one that fails keeps no other from landing."""
    reports: list[LandReport] = []
    failed: list[tuple[str, Exception]] = []
    try:
        for name in names:
            try:
                reports.append(_landed(lake, name, None, form))
            except Exception as error:  # noqa: BLE001 - told when what landed is told
                failed.append((name, error))
    finally:  # also what landed until somebody interrupted it
        _exit_later(error for _, error in failed)
        _print_landed(reports, form, verbose=verbose)
        for name, failure in failed:
            if isinstance(failure, PenstockError):
                click.echo(f"error: {name}: {failure}", err=True)
    for _, failure in failed:
        if not isinstance(failure, PenstockError):
            raise failure
    context = click.get_current_context()
    context.exit(context.meta.get(VERDICT, 0))


def _exit_later(errors: Iterable[Exception]) -> None:
    """Note what errors exit with: 75 only if all are temporary."""
    codes = [error.exit_code if isinstance(error, PenstockError) else _BUG for error in errors]
    if codes:
        click.get_current_context().meta[VERDICT] = min(codes)


def _landed(lake: Lake, source: str, files: Sequence[str] | None, form: str) -> LandReport:
    with rendering.progress_bar(hidden=form != "table") as progress:
        return lake.land(source, files, progress=progress)


def _print_landed(reports: Sequence[LandReport], form: str, *, verbose: bool) -> None:
    if form == "json":
        rendering.print_json(reports)
    elif form == "csv":
        from lakehouse.land_report import FileReport

        rows = [asdict(file) for report in reports for file in report.files]
        rendering.print_rows(rows, form, columns=[field.name for field in fields(FileReport)])
    else:
        for report in reports:
            click.echo("\n".join(rendering.land_text(report, verbose=verbose)))


_SOURCE_COLUMNS = (
    "source", "files", "visible", "records", "malformed", "columns", "timezone", "on_change", "last_load",
)  # fmt: skip


@command("sources", example="penstock sources")
@_AS_OF
def _sources(lake: Lake, as_of: str | None, form: str) -> None:
    """List the sources and what has landed in them."""
    rows = [
        {
            "source": source.name,
            "files": len(source.landed),
            "visible": len(source.visible),
            "records": sum(file.records for file in source.landed),
            "malformed": sum(file.malformed for file in source.landed),
            "columns": len(source.schema.columns),
            "timezone": source.entry.timezone,
            "on_change": source.entry.on_change,
            "last_load": source.landed[-1].load_id if source.landed else None,
        }
        for source in lake.sources(as_of=as_of)
    ]
    empty = "No sources yet. Land something: penstock land SOURCE FILES…"
    rendering.print_rows(rows, form, empty=empty, columns=_SOURCE_COLUMNS)


@command("schema", example="penstock schema yellow_trips")
@click.argument("source")
@_AS_OF
def _schema(lake: Lake, source: str, as_of: str | None, form: str) -> None:
    """Show the columns of SOURCE and the types that they settled on."""
    columns = lake.source(source, as_of=as_of).schema.columns
    rendering.print_rows([{"column": column.name, "type": column.type} for column in columns], form)


@command("export-raw", example="penstock export-raw yellow_trips 01K0… -o exported")
@click.argument("source")
@click.argument("load")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Directory to write into.")
def _export_raw(lake: Lake, source: str, load: str, output: Path, form: str) -> None:
    """Write the files of a LOAD of SOURCE as they were, decompressed, checked against their hashes."""
    files = lake.export_raw(source, load, output)
    rendering.print_rows([{"path": f.path, "size": f.size, "sha256": f.sha256} for f in files], form)


@command("promote", example="penstock promote")
@click.option("--select", multiple=True, metavar="TABLE", help="Only this model; may be repeated.")
def _promote(lake: Lake, select: Sequence[str], form: str) -> None:
    """Run the models whose inputs changed; publish what passes its contract, quarantine the rest."""
    with rendering.progress_bar(hidden=form != "table", steps=True) as progress:
        report = lake.promote(select=select, progress=progress)
    if form == "table":
        click.echo("\n".join(rendering.promotion_text(report, lake.settings.paths.sql)))
    else:
        document = asdict(report)
        if form == "json":
            rendering.print_json(document)
        else:
            from lakehouse.promotion import TableReport

            rendering.print_rows(document["tables"], form, columns=[field.name for field in fields(TableReport)])


@command("quarantine", example="penstock quarantine trips")
@click.argument("table")
@click.option("--run", metavar="ID", help="What this execution rejected, also if it was stopped.")
@click.option("--rows", "shown", type=click.IntRange(min=0), default=0, help="Show so many of the rows themselves.")
@_AS_OF
def _quarantine(lake: Lake, table: str, *, run: str | None, shown: int, as_of: str | None, form: str) -> None:
    """Show which rows of TABLE were rejected, grouped by reason."""
    report = lake.quarantine(table, run=run, as_of=as_of)
    if shown and form == "table":
        click.echo(report.to_text(shown))
        return
    if shown:
        _print_result(report.rows, form, limit=shown)
        return
    rows = [
        {"column": g.column, "rule": g.rule, "state": g.state, "rows": g.rows, "example": g.example}
        for g in report.groups
    ]
    empty = f"No row of {report.table} is in quarantine."
    rendering.print_rows(rows, form, empty=empty, columns=("column", "rule", "state", "rows", "example"))


_ZONE_HELP = (
    "Zone of the session and of times in a table; CSV and JSON are always UTC. [default: the project's, or UTC]"
)


@command("sql", example='penstock sql "select count(*) from warehouse.trips" --as-of 3')
@click.argument("query", required=False)
@click.option("-f", "--file", type=click.File("rb"), help="Read the query from a file; - is stdin.")
@_AS_OF
@click.option("--timezone", metavar="ZONE", help=_ZONE_HELP)
@click.option("--limit", type=click.IntRange(min=1), default=40, show_default=True, help="Rows shown in a table.")
def _sql(
    lake: Lake, query: str | None, *, file: Any, as_of: str | None, timezone: str | None, limit: int, form: str
) -> None:
    """Run QUERY over the lake as one snapshot has it; without QUERY read it from stdin, or prompt on a terminal.

    The prompt takes statements over several lines and keeps a history; .help lists its commands.
    """
    from lakehouse.session.effects import session_notes

    if query is not None and file is not None:
        raise click.UsageError("Give a query, or a file with one (-f), not both.")
    if query is None and file is None and sys.stdin.isatty():
        _open_prompt(lake, as_of, timezone, limit, form)
        return
    text = query if query is not None and query != "-" else _query_of(file or sys.stdin.buffer)
    if query is None and file is None and not text.strip():
        raise click.UsageError("Give a query, or a file with one (-f); on a terminal, penstock sql opens a prompt.")
    notes = session_notes(text)
    _print_result(lake.sql(text, as_of=as_of, timezone=timezone), form, limit=limit)
    for note in notes:
        click.echo(f"note: {note}", err=True)


def _query_of(file: BinaryIO) -> str:
    """Return the text of a file or of stdin, whatever the locale says about them."""
    data = file.read()
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        place = getattr(file, "name", "<stdin>")
        raise RequestError(
            f"the query is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            where="stdin" if place in ("<stdin>", 0) or not isinstance(place, str) else place,
        ) from None


def _open_prompt(lake: Lake, as_of: str | None, timezone: str | None, limit: int, form: str) -> None:
    from lakehouse.prompt import open_prompt

    if form != "table":
        raise click.UsageError(f"The prompt prints tables: give a query for --format {form}.")
    open_prompt(lake, as_of=as_of, timezone=timezone, limit=limit)


@command("tables", example="penstock tables")
@_AS_OF
def _tables(lake: Lake, as_of: str | None, form: str) -> None:
    """List the tables and typed views."""
    rows = [_without_version(t) for t in lake.tables(as_of=as_of)]
    columns = ("name", "kind", "rows", "files", "bytes", "columns")
    rendering.print_rows(rows, form, empty="No tables yet.", columns=columns)


@command("history", example="penstock history trips")
@click.argument("table")
@click.option("--delta", is_flag=True, help="Show Delta versions, for other readers of the table.")
def _history(lake: Lake, table: str, form: str, *, delta: bool) -> None:
    """Show every state of TABLE, newest first."""
    rows = []
    for item in lake.history(table):
        row = asdict(item)
        version = row.pop("version")
        rows.append({**row, "delta_version": version} if delta else row)
    rendering.print_rows(rows, form)


@command("snapshots", example="penstock snapshots")
def _snapshots(lake: Lake, form: str) -> None:
    """List the snapshots, newest first."""
    tags: dict[int, list[str]] = {}
    for name, number in lake.tags().items():
        tags.setdefault(number, []).append(name)
    rows = [
        {
            "snapshot": entry.snapshot,
            "at": entry.at,
            "kind": entry.kind,
            "tags": ", ".join(tags.get(entry.snapshot, [])),
            "summary": entry.summary,
        }
        for entry in lake.snapshots()
    ]
    rendering.print_rows(rows, form)


@command("tag", example="penstock tag before-cleanup")
@click.argument("name", required=False)
@click.argument("as_of", required=False)
@click.option("--delete", is_flag=True, help="Delete the tag.")
@_YES
def _tag(lake: Lake, name: str | None, as_of: str | None, form: str, *, delete: bool, yes: bool) -> None:
    """Name the snapshot AS_OF (the newest by default) for ever; without NAME, list the tags."""
    if name is None and delete:
        raise click.UsageError("Name the tag to delete: penstock tag --delete NAME.")
    if name is None:
        rows = [{"tag": tag, "snapshot": number} for tag, number in sorted(lake.tags().items())]
        rendering.print_rows(rows, form, empty="No tags yet.", columns=("tag", "snapshot"))
    elif delete:
        _refuse_protected(lake, yes=yes)
        lake.delete_tag(name)
        rendering.print_rows([{"tag": name, "deleted": True}], form)
    else:
        rendering.print_rows([{"tag": name, "snapshot": lake.tag(name, as_of)}], form)


@command("rollback", example="penstock rollback 3")
@click.argument("as_of")
@click.option("--table", metavar="TABLE", help="Only this warehouse table.")
@_YES
def _rollback(lake: Lake, as_of: str, table: str | None, form: str, *, yes: bool) -> None:
    """Go back to the state AS_OF, in a new snapshot: nothing is lost, and it can be undone the same way."""
    _refuse_protected(lake, yes=yes)
    snapshot = lake.rollback(as_of, table=table)
    if form == "table":
        click.echo(f"Published as snapshot {snapshot.number}: {snapshot.entry.summary}")
    else:
        rendering.print_rows([{"snapshot": snapshot.number, "summary": snapshot.entry.summary}], form)


def _refuse_protected(lake: Lake, *, yes: bool) -> None:
    if lake.settings.lake.protected and not yes:
        raise RequestError("this lake is protected", where=lake.storage.uri, hint="If you mean it, add --yes.")


def _without_version(info: TableInfo) -> dict[str, Any]:
    """Return a table's facts without its Delta version, which is for other readers (``history --delta``)."""
    fields = asdict(info)
    del fields["version"]
    return fields


def _print_result(result: QueryResult, form: str, *, limit: int) -> None:
    out: BinaryIO = sys.stdout.buffer
    if form == "json":
        result.write_json(out)
    elif form == "csv":
        result.write_csv(out)
    else:
        click.echo(result.to_text(limit))
