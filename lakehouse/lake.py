"""The `Lake` façade: what users of Python type. It only delegates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.catalog import Catalog, Snapshot
from lakehouse.entries import Entry
from lakehouse.errors import RequestError, UnknownTableError, near
from lakehouse.settings import PROJECT_FILE, Settings, SourceSettings, bare_settings, find_project, load_settings
from lakehouse.storage import Storage
from lakehouse.types import AsOf, Clock, TableName, utc_now

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from lakehouse.export import ExportedFile
    from lakehouse.land_report import LandReport
    from lakehouse.landing import Progress
    from lakehouse.plan import Plan
    from lakehouse.promotion import PromotionReport
    from lakehouse.quarantine import QuarantineReport
    from lakehouse.result import QueryResult
    from lakehouse.session import Session
    from lakehouse.sources import Source

__all__ = ["HistoryItem", "Lake", "TableInfo"]


@dataclass(frozen=True, slots=True)
class TableInfo:
    """One table or view as a snapshot has it.

    Parameters
    ----------
    kind
        ``table``, or ``view`` for the typed view of a source; a view has no files and no Delta version.
    """

    name: str
    kind: str
    rows: int
    files: int
    bytes: int
    version: int | None
    columns: int


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One state of a table: the snapshot that published it, and its Delta version."""

    snapshot: int
    at: str
    kind: str
    version: int
    rows: int
    files: int
    bytes: int
    summary: str


class Lake:
    """A lake: raw files, enforced tables, and every past state of them.

    Parameters
    ----------
    path
        A directory with ``penstock.toml`` (or one below it), or a lake's own directory or URI, which then has no
        models and no declared sources.
    env
        Name of an ``[env.NAME]`` section that overlays the settings.
    clock
        Returns the present instant.

    Raises
    ------
    ProjectError
        If there is neither a project nor a lake.
    """

    def __init__(self, path: str | Path = ".", *, env: str | None = None, clock: Clock = utc_now) -> None:
        self.settings: Settings = _settings(path, env)
        self.storage = Storage(self.settings.lake.uri)
        self.catalog = Catalog(self.storage, clock=clock)
        self._open: tuple[tuple[int, str | None], Session] | None = None

    def __repr__(self) -> str:
        return f"Lake({self.storage.uri!r})"

    # -- writing ------------------------------------------------------------------------------------------------

    def land(
        self,
        source: str,
        inputs: str | Path | Iterable[str | Path] | None = None,
        *,
        progress: Progress | None = None,
    ) -> LandReport:
        """Land files in a source, byte for byte; what has landed already is skipped. See `lakehouse.landing.land`.

        Parameters
        ----------
        inputs
            Paths, URIs or glob patterns; None takes those that ``penstock.toml`` declares.
        """
        from lakehouse.landing import land

        declared = self.settings.sources.get(source, SourceSettings())
        if inputs is None:
            if not declared.files:
                raise RequestError(
                    f"penstock.toml declares no files for {source!r}", hint=f"Name them: penstock land {source} FILES…"
                )
            inputs = declared.files
        paths = [inputs] if isinstance(inputs, str | Path) else list(inputs)
        return land(
            self.catalog,
            source,
            paths,
            declared,
            threads=self._threads,
            project=self.settings.project if self.settings.is_project else None,
            progress=progress,
        )

    def plan(self, *, select: Sequence[str] = ()) -> Plan:
        """Return what `promote` would do, and why. See `lakehouse.plan`."""
        from lakehouse.promotion import plan

        return plan(self.catalog, self.settings, select=select)

    def promote(
        self, *, select: Sequence[str] = (), progress: Callable[[int, int, str], None] | None = None
    ) -> PromotionReport:
        """Run the models whose inputs changed and publish what passes its contract. See `lakehouse.promotion`."""
        from lakehouse.promotion import promote

        return promote(self.catalog, self.settings, select=select, progress=progress)

    def tag(self, name: str, as_of: AsOf = None) -> int:
        """Name a snapshot for ever, and return its number."""
        number = self.catalog.resolve(as_of).number
        self.catalog.tag(_text(name, "a tag's name"), number)
        return number

    def delete_tag(self, name: str) -> None:
        """Delete a tag."""
        self.catalog.delete_tag(name)

    def rollback(self, as_of: AsOf, *, table: str | None = None) -> Snapshot:
        """Publish a new snapshot that repeats an older state: of everything, or of one warehouse table."""
        name = None if table is None else _table_name(table)
        with self.storage.writing():
            return self.catalog.roll_back(self.catalog.resolve(as_of), table=name)

    # -- reading ------------------------------------------------------------------------------------------------

    def sql(self, query: str, *, as_of: AsOf = None, timezone: str | None = None) -> QueryResult:
        """Run SQL over the lake as one snapshot has it. See `lakehouse.session.Session`.

        Parameters
        ----------
        as_of
            A snapshot number, a tag, or an instant; None for the newest.
        timezone
            IANA zone of the session; None for the project's, or UTC.
        """
        return self._session(as_of, timezone).sql(_text(query, "a query"))

    def interrupt(self) -> None:
        """Stop the query that another thread runs by `sql`; it ends with a QueryError."""
        if self._open is not None:
            self._open[1].interrupt()

    def table(self, name: str, *, as_of: AsOf = None) -> QueryResult:
        """Return a whole table, lazily."""
        return self.sql(f"select * from {_table_name(name).sql}", as_of=as_of)

    def connect(self, *, as_of: AsOf = None) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection in which every table of the snapshot is a view."""
        session = self._session(as_of, None)
        self._open = None  # what the user does with the connection stays out of later queries
        session.require_all()
        return session.connection

    def scan(self, name: str, *, as_of: AsOf = None) -> pl.LazyFrame:
        """Return a table as a polars LazyFrame."""
        import polars as pl

        return pl.LazyFrame(self.table(name, as_of=as_of).to_arrow())

    def snapshots(self) -> list[Entry]:
        """Return all snapshots, newest first."""
        return list(self.catalog.entries())

    def tags(self) -> dict[str, int]:
        """Return the snapshot number of every tag."""
        return self.catalog.tags()

    def tables(self, *, as_of: AsOf = None) -> list[TableInfo]:
        """Return the tables and typed views of a snapshot, by name."""
        snapshot = self.catalog.resolve(as_of)
        infos = [_table_info(snapshot, name) for name in snapshot.tables]
        views = [_view_info(snapshot, name) for name in snapshot.entry.sources]
        return sorted([*infos, *views], key=lambda info: info.name)

    def history(self, table: str) -> list[HistoryItem]:
        """Return every state that a table has had, newest first.

        Raises
        ------
        UnknownTableError
            If no snapshot ever had the table.
        """
        name = str(_table_name(table))
        entries = list(self.catalog.entries())
        items = [
            HistoryItem(entry.snapshot, entry.at, entry.kind, t.version, t.rows, t.files, t.bytes, entry.summary)
            for entry, older in zip(entries, [*entries[1:], None], strict=True)
            if (t := entry.tables.get(name)) is not None and (older is None or older.tables.get(name) != t)
        ]
        if not items:
            known = {known for entry in entries for known in entry.tables}
            raise UnknownTableError(f"there has never been a table {name}", hint=near(name, known, what="tables"))
        return items

    def source(self, name: str, *, as_of: AsOf = None) -> Source:
        """Return what has landed in a source, and its columns."""
        from lakehouse.sources import read_source

        return read_source(self.catalog.resolve(as_of), name)

    def sources(self, *, as_of: AsOf = None) -> list[Source]:
        """Return all sources, by name."""
        from lakehouse.sources import read_source

        snapshot = self.catalog.resolve(as_of)
        return [read_source(snapshot, name) for name in snapshot.entry.sources]

    def export_raw(self, source: str, load_id: str, output: str | Path) -> list[ExportedFile]:
        """Write the files of a load as they were (decompressed), checked against their hashes."""
        from lakehouse.export import export_raw

        return export_raw(self.catalog.latest(), source, load_id, Path(output))

    def quarantine(self, table: str, *, run: str | None = None, as_of: AsOf = None) -> QuarantineReport:
        """Return which rows of a model were rejected, and why. See `lakehouse.quarantine`."""
        from lakehouse.quarantine import quarantine_report

        return quarantine_report(self.catalog.resolve(as_of), _table_name(table), run=run)

    # -- how ----------------------------------------------------------------------------------------------------

    @property
    def _threads(self) -> int:
        return self.settings.resources.threads or 1

    def _session(self, as_of: AsOf, timezone: str | None) -> Session:
        """Return a session over a snapshot; the last one is kept, so that a series of queries opens logs once."""
        from lakehouse.session import Session

        snapshot = self.catalog.resolve(as_of)
        zone = timezone or self.settings.sql.timezone
        if self._open is None or self._open[0] != (snapshot.number, zone):
            resources = self.settings.resources
            session = Session(snapshot, memory=resources.memory, threads=resources.threads, timezone=zone)
            self._open = ((snapshot.number, zone), session)
        return self._open[1]


def _text(value: object, what: str) -> str:
    """Return what a caller gave if it is text: Python lets anything through."""
    if not isinstance(value, str):
        raise RequestError(f"{what} is text, and this is {value!r}", hint=f"Give a str, not {type(value).__name__}.")
    return value


def _table_name(name: str) -> TableName:
    return TableName.parse(_text(name, "a table's name"), default_schema="warehouse")


def _settings(path: str | Path, env: str | None) -> Settings:
    """Return a project's settings, or bare ones for a lake without a project."""
    if "://" in str(path) or (not (Path(path) / PROJECT_FILE).exists() and (Path(path) / "_catalog").is_dir()):
        return bare_settings(path)
    return load_settings(find_project(path), env=env)


def _table_info(snapshot: Snapshot, name: TableName) -> TableInfo:
    entry = snapshot.table(name)
    columns = sum(not column.hidden for column in snapshot.schema(name).columns)
    return TableInfo(str(name), "table", entry.rows, entry.files, entry.bytes, entry.version, columns)


def _view_info(snapshot: Snapshot, name: str) -> TableInfo:
    from lakehouse.sources import read_source

    source = read_source(snapshot, name)
    rows = sum(file.file.records - file.file.malformed for file in source.visible)
    return TableInfo(f"lake.{name}", "view", rows, 0, 0, None, len(source.schema.columns))
