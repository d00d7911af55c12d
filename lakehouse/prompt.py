"""The prompt of ``penstock sql``: statements over several lines, and commands that begin with a dot.

`Prompt` is the conversation and knows no terminal; `open_prompt` holds it on one.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lakehouse.errors import PenstockError, RequestError, near
from lakehouse.terminal import Terminal, history_file
from lakehouse.types import AsOf, TableName, plural, quote

if TYPE_CHECKING:
    from lakehouse.catalog import Snapshot
    from lakehouse.lake import Lake
    from lakehouse.result import QueryResult

__all__ = ["Prompt", "open_prompt", "split"]

_T = TypeVar("_T")

_COMMANDS = {
    ".tables": ("", "list the tables and typed views"),
    ".schema": ("[TABLE]", "show the columns of a table, or of all"),
    ".as-of": ("[WHEN]", "read a snapshot number, a tag or a UTC time; without WHEN the newest"),
    ".help": ("", "show this"),
    ".quit": ("", "leave (so does Ctrl-D)"),
}
_BARE = {"quit": ".quit", "exit": ".quit", "help": ".help"}
"""What people type before they have seen ``.help``."""

_PATIENCE = 0.05
"""Seconds after which a running query is looked after: whether it is to be stopped, and stops."""

_NO_RESULT = ["Success"]
"""The columns of what DuckDB returns for SET and its like."""


# -- statements -----------------------------------------------------------------------------------------------------

_OPENER = re.compile(r"""(?<![\w$])[eE]'|'|"|--|/\*|(?<![\w$])\$(?:[A-Za-z_]\w*)?\$|;""")
_ESCAPED = re.compile(r"(?:[^'\\]|\\.)*'", re.DOTALL)
_COMMENT_SIGN = re.compile(r"/\*|\*/")
_BLANK = re.compile(r"(?:\s++|--[^\n]*+|/\*(?:(?!\*/|/\*).)*+\*/)*+\Z", re.DOTALL)  # possessive: never tried twice


def split(text: str) -> tuple[list[str], str]:
    """Return the statements that a ``;`` ends, without it, and what comes after the last one.

    A semicolon in a string, a quoted name, a comment or a dollar-quoted text ends nothing. A rest of blanks and
    comments is returned as ``""``.
    """
    statements: list[str] = []
    start = at = 0
    while opener := _OPENER.search(text, at):
        if opener[0] == ";":
            statements.append(text[start : opener.start()].strip())
            start = at = opener.end()
        elif (end := _end(text, opener)) is not None:
            at = end
        else:
            break
    rest = text[start:]
    return [statement for statement in statements if statement], "" if _BLANK.match(rest) else rest


def _end(text: str, opener: re.Match[str]) -> int | None:
    """Return where the string, name or comment that opens here is over, or None if it is not."""
    sign, after = opener[0], opener.end()
    if sign == "--":
        line_end = text.find("\n", after)
        return len(text) if line_end < 0 else line_end
    if sign == "/*":
        depth = 1
        for mark in _COMMENT_SIGN.finditer(text, after):
            depth += 1 if mark[0] == "/*" else -1
            if not depth:
                return mark.end()
        return None
    if sign in ("e'", "E'"):
        closed = _ESCAPED.match(text, after)
        return closed.end() if closed else None
    found = text.find(sign, after)  # a doubled quote opens again at once
    return None if found < 0 else found + len(sign)


# -- the conversation -----------------------------------------------------------------------------------------------


class _Leave(Exception):  # noqa: N818 - no error: the way out of the loop
    pass


class Prompt:
    """A conversation with a lake.

    Statements may go on over several lines and end with ``;``. An error is printed, and the conversation goes on;
    Ctrl-C (`KeyboardInterrupt`) drops what was typed or stops the query that runs; the end of the input leaves.
    Unless told a snapshot, every statement reads what is the newest by then.

    Parameters
    ----------
    read
        Shows its argument and returns the next line without its end. Raises EOFError at the end of the input.
    write
        Prints results.
    say
        Prints everything else.
    remember
        Told every statement and command, for a history.
    as_of
        The snapshot to begin with.
    timezone
        IANA zone of the session; None for the project's, or UTC.
    limit
        Greatest number of rows shown of a result; no more than that are read.
    clock
        Returns seconds; only differences count.
    """

    def __init__(
        self,
        lake: Lake,
        *,
        read: Callable[[str], str],
        write: Callable[[str], None],
        say: Callable[[str], None],
        remember: Callable[[str], None] = lambda _: None,
        as_of: AsOf = None,
        timezone: str | None = None,
        limit: int = 40,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lake = lake
        self._read = read
        self._write = write
        self._say = say
        self._remember = remember
        self._as_of = as_of
        self._timezone = timezone
        self._limit = limit
        self._clock = clock
        self._typed = ""
        self._seen: int | None = None
        self._columns: tuple[int, dict[str, list[str]]] = (-1, {})

    def run(self) -> None:
        """Read and answer until the user leaves.

        Raises
        ------
        PenstockError
            If there is no lake, or no such snapshot, to begin with.
        """
        snapshot = self._lake.catalog.resolve(self._as_of)
        self._seen = snapshot.number
        self._say(
            f"Snapshot {snapshot.number} of {self._lake.storage.uri}. A statement ends with ; "
            "and .help lists the commands."
        )
        while True:
            try:
                line = self._read(self._label())
            except EOFError:
                self._say("")
                return
            except KeyboardInterrupt:
                self._typed = ""
                self._say("")
                continue
            except UnicodeDecodeError:
                self._say("error: this is not UTF-8")
                continue
            try:
                self._take(line)
            except _Leave:
                return
            except KeyboardInterrupt:
                self._typed = ""
                self._say("\nstopped")  # below the ^C that the terminal shows

    def _label(self) -> str:
        label = "penstock> " if self._as_of is None else f"penstock@{self._as_of}> "
        return "...> ".rjust(len(label)) if self._typed else label

    def _take(self, line: str) -> None:
        """Answer a line, or keep it until its statement is complete."""
        if not self._typed:
            text = line.strip()
            text = _BARE.get(text.rstrip("; ").lower(), text)
            if text.startswith("."):
                self._guarded(lambda: self._command(text))
                self._remember(text)  # not reached by .quit, which nobody wants to find on top
                return
        statements, self._typed = split(f"{self._typed}{line}\n")
        for statement in statements:
            self._remember(f"{statement};")
            self._guarded(lambda statement=statement: self._execute(statement))  # type: ignore[misc]

    def _guarded(self, work: Callable[[], None]) -> None:
        """Print what goes wrong, and go on."""
        try:
            work()
        except PenstockError as error:
            self._say(f"error: {error}")
        except (_Leave, BrokenPipeError):
            raise
        except OSError as error:
            self._say(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}")
        except Exception as error:
            if os.environ.get("PENSTOCK_DEBUG"):
                raise
            self._say(f"error: {type(error).__name__}: {error}")
            self._say("  This is a bug in Penstock. Set PENSTOCK_DEBUG=1 to see where.")

    # -- statements -------------------------------------------------------------------------------------------------

    def _execute(self, statement: str) -> None:
        from lakehouse.session.effects import made_here

        started = self._clock()
        result, rows = _interruptible(lambda: self._fetched(statement), self._lake.interrupt)
        seconds = f"{self._clock() - started:.3f} s"
        shown = plural(rows, "row") if rows <= self._limit else f"the first {plural(self._limit, 'row')}"
        if result.columns in ([], _NO_RESULT):
            shown = "done"
        else:
            self._write(result.to_text(self._limit))
        self._say(f"{shown}, {seconds}")
        if (made := made_here(statement)) is not None:
            self._say(f"{made} lasts as long as this session; nothing of the lake changed.")
        self._notice(result.snapshot)

    def _fetched(self, statement: str) -> tuple[QueryResult, int]:
        """Return the rows that are shown and one more, in memory, and their number."""
        import pyarrow as pa

        from lakehouse.result import QueryResult

        result = self._sql(statement)
        kept: list[pa.RecordBatch] = []
        rows = 0
        with closing(_batches(result)) as batches:
            for batch in batches:
                kept.append(batch.slice(0, self._limit + 1 - rows))
                rows += kept[-1].num_rows
                if rows > self._limit:
                    break
        table = pa.Table.from_batches(kept, result.schema)
        return QueryResult.from_table(table, types=result.types, snapshot=result.snapshot), rows

    def _sql(self, query: str) -> QueryResult:
        return self._lake.sql(query, as_of=self._as_of, timezone=self._timezone)

    def _notice(self, snapshot: int | None) -> None:
        """Say when somebody has published: the same question may now have another answer."""
        if self._as_of is None and snapshot is not None and snapshot != self._seen:
            self._say(
                f"This was snapshot {snapshot}, the newest now; settings and temporary tables begin anew with it."
            )
            self._seen = snapshot

    # -- commands ---------------------------------------------------------------------------------------------------

    def _command(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        argument = argument.strip().rstrip(";").strip()
        answers: dict[str, Callable[[str], None]] = {
            ".tables": self._tables,
            ".schema": self._schema,
            ".as-of": self._move,
            ".help": self._help,
            ".quit": self._quit,
        }
        name = name.rstrip(";").lower()
        if name not in answers:
            raise RequestError(f"there is no command {name}", hint=near(name, answers, what="commands"))
        if argument and not _COMMANDS[name][0]:
            raise RequestError(f"{name} takes no argument")
        answers[name](argument)

    def _tables(self, _: str) -> None:
        infos = self._lake.tables(as_of=self._as_of)
        rows = [{"table": i.name, "kind": i.kind, "rows": i.rows, "columns": i.columns} for i in infos]
        self._list(rows, "No tables yet. Land something: penstock land SOURCE FILES…")

    def _schema(self, argument: str) -> None:
        if argument:
            columns = self._described(TableName.parse(argument.replace('"', ""), default_schema="warehouse"))
            self._list([{"column": name, "type": type_} for name, type_ in columns], "It has no columns.")
            return
        rows = [
            {"table": info.name, "column": name, "type": type_}
            for info in self._lake.tables(as_of=self._as_of)
            for name, type_ in self._described(TableName.parse(info.name))
        ]
        self._list(rows, "No tables yet.")

    def _described(self, table: TableName) -> Iterable[tuple[str, str]]:
        result = self._sql(f"select * from {table.sql} limit 0")
        return zip(result.columns, result.types, strict=True)

    def _list(self, rows: list[dict[str, Any]], empty: str) -> None:
        import pyarrow as pa

        from lakehouse.result import QueryResult

        if rows:
            self._write(QueryResult.from_table(pa.Table.from_pylist(rows)).to_text(len(rows)))
        else:
            self._say(empty)

    def _move(self, argument: str) -> None:
        snapshot = self._lake.catalog.resolve(argument or None)
        self._as_of, self._seen = argument or None, snapshot.number
        self._say(f"Reading snapshot {snapshot.number}{'' if argument else ', the newest'}.")

    def _help(self, _: str) -> None:
        self._say("A statement may go on over several lines and ends with ; — Ctrl-C cancels it, also while it runs.")
        for name, (argument, what) in _COMMANDS.items():
            self._say(f"  {f'{name} {argument}'.rstrip():<16} {what}")

    def _quit(self, _: str) -> None:
        raise _Leave

    # -- completion -------------------------------------------------------------------------------------------------

    def complete(self, line: str, word: str) -> list[str]:
        """Return what a word may become, in order: commands, tags, tables, columns.

        Parameters
        ----------
        line
            The line up to the cursor, the word included.
        word
            The beginning of the word: from the last blank, bracket, quote or operator on, dots included.
        """
        before = line[: len(line) - len(word)]
        if not self._typed and line.startswith("."):
            if not before.strip():
                return [f"{name} " for name in _COMMANDS if name.startswith(word)]
            if before.strip() == ".as-of":
                return [tag for tag in sorted(self._lake.tags()) if tag.startswith(word)]
        snapshot = self._lake.catalog.resolve(self._as_of)
        columns = self._columns_by_table(snapshot)
        found = _beginning(columns, word)
        if not before.startswith(".schema"):
            found += self._matching_columns(columns, f"{self._typed}{line}", before, word)
        return list(dict.fromkeys(found))

    def _matching_columns(self, columns: dict[str, list[str]], text: str, before: str, word: str) -> list[str]:
        """Return the columns that a word may mean: of the tables that the statement names, else of all."""
        head, dot, tail = word.rpartition(".")
        if dot and head.lower() in {table.partition(".")[0] for table in columns}:
            return []  # warehouse.… is a table
        mentioned = [table for table in columns if re.search(rf"(?<![\w.]){re.escape(table)}\b", text, re.IGNORECASE)]
        names = {name for table in mentioned or columns for name in columns[table]}
        prefix = f"{head}." if dot else ""
        return [f"{prefix}{name}" for name in _beginning(names, tail, opened=before.endswith('"'))]

    def _columns_by_table(self, snapshot: Snapshot) -> dict[str, list[str]]:
        """Return the columns of the tables and typed views, from the catalog alone."""
        if self._columns[0] != snapshot.number:
            from lakehouse.sources import read_source

            found = {
                str(table): [column.name for column in snapshot.schema(table).columns if not column.hidden]
                for table in snapshot.tables
            }
            for source in snapshot.entry.sources:
                found[f"lake.{source}"] = [column.name for column in read_source(snapshot, source).schema.columns]
            self._columns = (snapshot.number, dict(sorted(found.items())))
        return self._columns[1]


def _beginning(names: Iterable[str], word: str, *, opened: bool = False) -> list[str]:
    """Return the names that begin with a word, quoted where SQL asks for it; ``opened``: the quote stands already."""
    found = sorted(name for name in names if name.lower().startswith(word.lower()))
    if opened:
        return [quote(name)[1:] for name in found]
    return [name if re.fullmatch(r"[A-Za-z_][\w.]*", name) else quote(name) for name in found]


def _batches(result: QueryResult) -> Any:
    return result.batches()


def _interruptible(work: Callable[[], _T], stop: Callable[[], None]) -> _T:
    """Do work in a thread, so that Ctrl-C can stop it: DuckDB looks at signals rarely, at its own flag often.

    Raises
    ------
    KeyboardInterrupt
        If it was stopped; it has ended by then.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()  # signals go to the main thread only
    outcome: list[_T] = []
    failure: list[BaseException] = []
    done = threading.Event()
    stopped = False

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            failure.append(error)
        finally:
            done.set()

    def note(*_: object) -> None:
        nonlocal stopped
        stopped = True

    # An exception could strike where the thread is not looked after yet; a mark waits until it is looked at.
    before = signal.signal(signal.SIGINT, note)
    try:
        thread = threading.Thread(target=run, name="penstock-query")
        thread.start()
        while not done.wait(_PATIENCE):
            if stopped:
                stop()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    if stopped:
        raise KeyboardInterrupt
    if failure:
        raise failure[0]
    return outcome[0]


# -- the terminal -----------------------------------------------------------------------------------------------------


def open_prompt(lake: Lake, *, as_of: AsOf = None, timezone: str | None = None, limit: int = 40) -> None:
    """Hold a `Prompt` on this process's terminal."""
    terminal = Terminal(history_file())
    prompt = Prompt(
        lake,
        read=terminal.read,
        write=click.echo,
        say=lambda text: click.echo(text, err=True),
        remember=terminal.remember,
        as_of=as_of,
        timezone=timezone,
        limit=limit,
    )
    terminal.complete_with(prompt.complete)
    prompt.run()
