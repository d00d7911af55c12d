"""A DuckDB connection over one pinned snapshot: tables become views when a query asks for them."""

from __future__ import annotations

import re
import threading
import zoneinfo
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import duckdb

from lakehouse.catalog import Snapshot
from lakehouse.damage import Opened, find_damage
from lakehouse.delta import ColumnSchema, DataFile, TableSchema
from lakehouse.errors import CatalogDamagedError, PenstockError, QueryError, RequestError, UnknownTableError, near
from lakehouse.result import QueryResult
from lakehouse.result.query_result import query_error
from lakehouse.scan import Predicate, prune, scan_sql
from lakehouse.session import system
from lakehouse.session.effects import refuse_changes, refuse_writes
from lakehouse.session.statement import At, Comparison, Statement, TableUse, check_text, parse, predicates
from lakehouse.session.streaming import stream, type_names
from lakehouse.sources import Source, read_source, twin_table, view_sql
from lakehouse.types import AsOf, TableName, parse_instant, quote, quote_literal

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Session"]

_BATCH_ROWS = 65_536
# Texts that are kept for queries that come again: so many, and none longer than that.
_KEPT_TEXTS = 256
_KEPT_LENGTH = 10_000
_NO_TABLE = re.compile(r'Table with name "?([^"\s]+?)"? does not exist')
_STATELESS = frozenset({duckdb.StatementType.EXPLAIN, duckdb.StatementType.COPY})
_TWIN_TYPES = {"_file": "INTEGER", "_line": "BIGINT", "_offset": "BIGINT"}


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What to run for a query, once the views that it needs are made.

    Parameters
    ----------
    select
        Whether it is one SELECT, which can run anew for each reader.
    own
        Whether the user's own text would mean the same with all views made, so that DuckDB may complain about it.
    """

    text: str
    select: bool
    own: bool


class Session:
    """SQL over one snapshot.

    Every table of the snapshot is a view, ``lake.<source>`` is the typed view of a source, and nothing that others
    publish meanwhile is seen. ``table AT (VERSION => n)`` reads one table at another snapshot.

    Parameters
    ----------
    snapshot
        What is read.
    memory
        DuckDB's memory limit, e.g. ``"4GB"``.
    threads
        Number of threads.
    timezone
        The session's time zone; UTC if not given.
    temp_directory
        Where DuckDB spills.
    overlay
        Stored tables that are replaced or added by files which no snapshot has yet. Their paths are relative to
        ``<schema>/<name>``.
    only_landed
        Per source, the ``_load_seq`` of the landed files that ``lake.<source>`` shows; other sources show all.
    resolve
        Finds the snapshots that AT names; the catalog's if not given.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        memory: str | None = None,
        threads: int | None = None,
        timezone: str | None = None,
        temp_directory: str | None = None,
        overlay: Mapping[TableName, tuple[TableSchema, Sequence[DataFile]]] | None = None,
        only_landed: Mapping[str, Collection[int]] | None = None,
        resolve: Callable[[AsOf], Snapshot] | None = None,
    ) -> None:
        self.snapshot = snapshot
        self._overlay = dict(overlay or {})
        self._only_landed = dict(only_landed or {})
        self._resolve = resolve or snapshot.catalog.resolve
        if timezone and not timezone.isprintable():
            raise _no_zone(timezone)
        self._utc = timezone is None or timezone.upper() in ("UTC", "ETC/UTC")
        self._lock = threading.RLock()
        self._made: set[tuple[str, str]] = set()
        self._schemas: set[str] = set()
        self._pruned: dict[tuple[int, TableName, tuple[str, ...]], str] = {}
        self._texts: dict[str, _Prepared] = {}
        self._opened: dict[tuple[int, TableName], Opened] = {}
        # A query after SET or CREATE TEMP TABLE needs the connection that holds their effect.
        self._stateful = False
        settings = {"memory_limit": memory, "threads": threads, "temp_directory": temp_directory}
        try:
            self.connection = duckdb.connect(config={k: v for k, v in settings.items() if v is not None})
            # Cursors inherit global settings only.
            self.connection.execute(f"set global TimeZone = {quote_literal(timezone or 'UTC')}")
            self._newest = self.connection  # where the newest query runs: what interrupt() stops
        except duckdb.NotImplementedException:  # of the zone
            raise _no_zone(str(timezone)) from None
        except duckdb.Error as error:
            raise query_error(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; results of this session can't be read afterwards."""
        self._newest = self.connection
        self.connection.close()

    def interrupt(self) -> None:
        """Stop the newest query, if it runs in another thread; whoever waits for it gets a QueryError."""
        for connection in (self._newest, self.connection):
            connection.interrupt()

    # -- queries ------------------------------------------------------------------------------------------------------

    def sql(self, query: str) -> QueryResult:
        """Return the result of a query.

        A SELECT runs anew each time the result is read. Any other statement runs once, at once; after one that
        changes the session (SET, CREATE TEMP TABLE) SELECTs are run at once too, and their rows kept in memory.

        Raises
        ------
        UnknownTableError
            If a table does not exist at this snapshot; near matches are listed.
        QueryError
            If DuckDB refuses the query, with DuckDB's message; or if it would change a view of the lake.
        """
        prepared = self._prepared(query)
        if not prepared.select or self._stateful:
            return self._run_once(prepared.text)
        reader, types = self._explained(prepared, query)
        first = [reader]

        def open_reader() -> pa.RecordBatchReader:
            # The list's pop is atomic: the reader that told us the schema serves the first who reads.
            return first.pop() if first else self._reader(prepared.text)[0]

        number = self.snapshot.number
        return QueryResult(open_reader, reader.schema, types=types, snapshot=number, blame=self.damage)

    def damage(self, error: BaseException, *names: TableName) -> CatalogDamagedError | None:
        """Return which data file of the lake made DuckDB fail; None if it was not one.

        Parameters
        ----------
        names
            Stored tables that were read beside those of this session's queries.
        """
        return find_damage(str(error), [*self._opened.values(), *((self.snapshot, name) for name in names)])

    def describe(self, query: str) -> list[tuple[str, str]]:
        """Return the columns of a query's result, as name and DuckDB type, without running it."""
        text = self._prepared(query).text
        try:
            relation = self.connection.cursor().sql(text)
        except duckdb.Error as error:
            raise self._translated(error) from None
        return list(zip(relation.columns, type_names(relation.types), strict=True))

    def prepare(self, query: str) -> str:
        """Make the views that a query needs, and return the SQL to run on `connection`.

        The text is the query's own unless it reads another snapshot, or its conditions let whole files be skipped.
        """
        return self._prepared(query).text

    def require(self, *names: TableName) -> None:
        """Make the views of these tables.

        Raises
        ------
        UnknownTableError
            If one does not exist at this snapshot.
        """
        for name in names:
            self._make(name.schema, name.name, lambda name=name: self._table_sql(self.snapshot, name, ()))  # type: ignore[misc]

    def require_all(self) -> None:
        """Make the views of all tables of this snapshot."""
        self.require(*self.tables)

    @property
    def tables(self) -> list[TableName]:
        """All tables and views of this snapshot, by name."""
        return sorted(self._names(self.snapshot))

    def tables_of(self, query: str) -> list[TableName]:
        """Return the tables and views of the lake that a SELECT reads at this snapshot, by name.

        Raises
        ------
        UnknownTableError
            If a table does not exist at this snapshot.
        QueryError
            If it does not parse.
        """
        check_text(query)
        try:
            statement = parse(self.connection.cursor(), query)
        except duckdb.Error as error:
            raise query_error(error) from None
        if statement is None:
            return []
        return sorted({name for use in statement.uses if (name := self._lake_name(use, statement)) is not None})

    # -- preparing ----------------------------------------------------------------------------------------------------

    def _prepared(self, query: str) -> _Prepared:
        known = self._texts.get(query)
        if known is None:
            check_text(query)
            known, lasting = self._made_ready(query)
            if lasting and len(query) <= _KEPT_LENGTH:
                with self._lock:
                    while len(self._texts) >= _KEPT_TEXTS:
                        del self._texts[next(iter(self._texts))]
                    self._texts[query] = known
        return known

    def _made_ready(self, query: str) -> tuple[_Prepared, bool]:
        """Make the views that a query needs; return what to run, and whether that holds for as long as the session."""
        statement = self._parsed(query)
        if statement is None or statement.lists_tables:
            self.require_all()
        if statement is None:
            refuse_changes(query, {name.schema for name in self._names(self.snapshot)})
            if self.snapshot.storage.is_local:
                refuse_writes(query, self.snapshot.storage.uri)
            return _Prepared(query, select=False, own=True), False
        names = [self._lake_name(use, statement) for use in statement.uses]
        changed = [self._point(use, name, statement) for use, name in zip(statement.uses, names, strict=True)]
        text = statement.render(self.connection.cursor()) if any(changed) or statement.rewritten else query
        own = not any(use.at for use in statement.uses)
        # Tables of the lake stay what they are; the user's own come and go, and so do tags.
        return _Prepared(text, select=True, own=own), own and None not in names

    def _parsed(self, query: str) -> Statement | None:
        cursor = self.connection.cursor()
        try:
            statement = parse(cursor, query)
            if statement is None and not cursor.extract_statements(query):
                raise QueryError("there is no statement in this query")
        except duckdb.Error as error:
            raise query_error(error) from None
        finally:
            cursor.close()
        return statement

    def _point(self, use: TableUse, name: TableName | None, statement: Statement) -> bool:
        """Make the view that one mention of a table needs; return whether the mention had to be changed."""
        if name is None:
            if use.at is not None:
                raise QueryError(f"AT needs a table of the lake, and {'.'.join(use.path)} is none")
            return False
        snapshot = self.snapshot if use.at is None else self._as_of(use.at)
        kept, all_files = self._kept(snapshot, name, use.comparisons)
        if use.at is None and kept == all_files and name.schema != system.SCHEMA:
            self.require(name)
            return False
        schema = self._view_schema(snapshot, name, use, kept if kept != all_files else None)
        self._make(schema, name.name, lambda: self._table_sql(snapshot, name, use.comparisons))
        new = ("memory", schema) if schema == system.SCHEMA else (schema,)
        statement.rename_columns((name.schema, name.name), (*new, name.name))
        use.rename((*new, name.name))
        return True

    def _view_schema(self, snapshot: Snapshot, name: TableName, use: TableUse, kept: Sequence[str] | None) -> str:
        """Return the schema of a view that will never mean anything else, so that results stay repeatable."""
        if name.schema == system.SCHEMA and use.at is None:
            return name.schema
        if kept is None:
            return f"{name.schema}@{snapshot.number}"
        own = -1 if use.at is None else snapshot.number  # only the pinned snapshot has an overlay
        key = (own, name, tuple(kept))
        with self._lock:
            return self._pruned.setdefault(key, f"{name.schema}@{snapshot.number}#{len(self._pruned)}")

    def _lake_name(self, use: TableUse, statement: Statement) -> TableName | None:
        """Return the lake's table that a mention means, or None if DuckDB shall find it."""
        path = use.path[1:] if len(use.path) == 3 and use.path[0].lower() == "memory" else use.path  # noqa: PLR2004
        if len(path) == 1:
            self._refuse_unknown_bare(path[0], statement)
            return None
        if len(path) != 2:  # noqa: PLR2004 - schema and table
            return None
        name = TableName(path[0].lower(), path[1].lower())
        names = self._names(self.snapshot)
        if name in names or use.at is not None:
            return name
        if name.schema in {known.schema for known in names} and not self._duckdb_has(name.name, name.schema):
            raise self._unknown(str(name), self.snapshot)
        return None

    def _refuse_unknown_bare(self, table: str, statement: Statement) -> None:
        if table.lower() in statement.ctes or not table.isidentifier() or self._duckdb_has(table.lower(), None):
            return
        raise self._unknown(table, self.snapshot)

    def _duckdb_has(self, table: str, schema: str | None) -> bool:
        # Cursors don't see temporary tables and registered objects: ask, and from now on run, on the connection itself.
        found = self.connection.execute(
            "select 1 from (select schema_name s, view_name n from duckdb_views() union all "
            "select schema_name, table_name from duckdb_tables()) where lower(n) = ? and (? is null or lower(s) = ?)",
            [table, schema, schema],
        ).fetchall()
        self._stateful |= bool(found)
        return bool(found)

    def _unknown(self, name: str, snapshot: Snapshot) -> UnknownTableError:
        known = [str(table) for table in self._names(snapshot)]
        schema, _, table = name.lower().rpartition(".")
        return snapshot.absent(f"table {name}", TableName(schema, table), known)

    def _as_of(self, at: At) -> Snapshot:
        return self._resolve(parse_instant(at.value) if at.unit == "TIMESTAMP" else at.value)

    # -- views --------------------------------------------------------------------------------------------------------

    def _make(self, schema: str, name: str, select: Callable[[], str]) -> None:
        with self._lock:
            if (schema, name) in self._made:
                return
            text = select()
            if schema not in self._schemas:
                self._rows(f"create schema if not exists memory.{quote(schema)}")
                self._schemas.add(schema)
            self._rows(f"create view memory.{quote(schema)}.{quote(name)} as {text}")
            self._made.add((schema, name))

    def _names(self, snapshot: Snapshot) -> set[TableName]:
        names = {*snapshot.tables, *(TableName("lake", source) for source in snapshot.entry.sources)}
        names |= {TableName(system.SCHEMA, view) for view in system.VIEWS}
        return names | set(self._overlay) if snapshot is self.snapshot else names

    def _table_sql(self, snapshot: Snapshot, name: TableName, comparisons: Sequence[Comparison]) -> str:
        """Return the SELECT behind a table's view, over the files that the comparisons leave."""
        if name not in self._names(snapshot):
            raise self._unknown(str(name), snapshot)
        if name.schema == system.SCHEMA:
            return system.view(snapshot, name.name)
        if name.schema == "lake":
            return self._source_sql(snapshot, name.name, comparisons)
        path, schema, files = self._stored(snapshot, name)
        return scan_sql(snapshot.storage, path, schema, prune(files, schema, self._predicates(comparisons, schema)))

    def _kept(
        self, snapshot: Snapshot, name: TableName, comparisons: Sequence[Comparison]
    ) -> tuple[list[str], list[str]]:
        """Return the paths of the files that a table's view reads under comparisons, and without them."""
        if not comparisons or name.schema == system.SCHEMA or name not in self._names(snapshot):
            return [], []
        if name.schema != "lake":
            _, schema, files = self._stored(snapshot, name)
            kept: Iterable[DataFile] = prune(files, schema, self._predicates(comparisons, schema))
        else:
            _, schema, files = self._twin(snapshot, read_source(snapshot, name.name))
            kept = prune(files, schema, self._twin_predicates(snapshot, name.name, schema, comparisons))
        return [file.path for file in kept], [file.path for file in files]

    def _stored(self, snapshot: Snapshot, name: TableName) -> tuple[str, TableSchema, Sequence[DataFile]]:
        self._opened[snapshot.number, name] = (snapshot, name)
        if snapshot is self.snapshot and name in self._overlay:  # which keeps files of the snapshot
            known = snapshot.entry.tables.get(str(name))
            return known.path if known else f"{name.schema}/{name.name}", *self._overlay[name]
        return snapshot.table(name).path, snapshot.schema(name), snapshot.files(name)

    def _source_sql(self, snapshot: Snapshot, name: str, comparisons: Sequence[Comparison]) -> str:
        source = read_source(snapshot, name)
        path, schema, files = self._twin(snapshot, source)
        wanted = self._twin_predicates(snapshot, name, schema, comparisons)
        scan = scan_sql(snapshot.storage, path, schema, prune(files, schema, wanted), hidden=True)
        return view_sql(source, f"({scan})", only=self._only(snapshot, name))

    def _twin(self, snapshot: Snapshot, source: Source) -> tuple[str, TableSchema, Sequence[DataFile]]:
        """Return the typed twin with just the files that hold visible loads; one without files if there is none."""
        name = twin_table(source.name)
        if name not in self._names(snapshot):
            return "", _typed_nothing(source), ()
        path, schema, files = self._stored(snapshot, name)
        only = self._only(snapshot, source.name)
        loads = {shown.file.load_id for shown in source.visible if only is None or shown.seq in only}
        return path, schema, prune(files, schema, [Predicate("_load_id", "in", tuple(sorted(loads)))])

    def _only(self, snapshot: Snapshot, source: str) -> Collection[int] | None:
        return self._only_landed.get(source) if snapshot is self.snapshot else None

    def _predicates(self, comparisons: Sequence[Comparison], schema: TableSchema) -> list[Predicate]:
        return predicates(comparisons, schema, utc=self._utc)

    def _twin_predicates(
        self, snapshot: Snapshot, name: str, schema: TableSchema, comparisons: Sequence[Comparison]
    ) -> list[Predicate]:
        fields = {column.name.lower(): column.field for column in read_source(snapshot, name).schema.typed}
        own = [
            Comparison(fields[c.column.lower()], c.op, c.literals) for c in comparisons if c.column.lower() in fields
        ]
        return self._predicates(own, schema)

    # -- running ------------------------------------------------------------------------------------------------------

    def _rows(self, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        cursor = self.connection.cursor()
        try:
            return cursor.execute(text, list(values)).fetchall()
        except duckdb.Error as error:
            raise self._translated(error) from None
        finally:
            cursor.close()

    def _reader(self, text: str) -> tuple[pa.RecordBatchReader, list[str]]:
        """Return a fresh reader over a query's rows, and the columns' DuckDB types."""
        try:
            self._newest = self.connection.cursor()
            reader, types = stream(self._newest, text, _BATCH_ROWS)
        except duckdb.Error as error:
            raise self._translated(error) from None
        return _with_utc(reader), types

    def _explained(self, prepared: _Prepared, query: str) -> tuple[pa.RecordBatchReader, list[str]]:
        """Return a reader; where DuckDB refuses our version of a query, let it complain about the user's own."""
        try:
            return self._reader(prepared.text)
        except QueryError:
            if prepared.text == query or not prepared.own:
                raise
            self.require_all()
            return self._reader(query)

    def _run_once(self, text: str) -> QueryResult:
        with self._lock:
            try:
                kinds = [statement.type for statement in self.connection.extract_statements(text)]
                self._stateful |= not {*_STATELESS, duckdb.StatementType.SELECT}.issuperset(kinds)
                relation = self.connection.sql(text)
                if relation is None:
                    return self._nothing()
                types = type_names(relation.types)
                table = _with_utc(relation.to_arrow_reader(_BATCH_ROWS)).read_all()
            except duckdb.Error as error:
                raise self._translated(error) from None
        if kinds[-1] == duckdb.StatementType.CREATE and not table.num_rows:
            return self._nothing()  # DuckDB has a column of counts, and no count in it
        return QueryResult.from_table(table, types=types, snapshot=self.snapshot.number)

    def _nothing(self) -> QueryResult:
        import pyarrow as pa

        return QueryResult.from_table(pa.table({}), snapshot=self.snapshot.number)

    def _translated(self, error: duckdb.Error) -> PenstockError:
        missing = _NO_TABLE.search(str(error))
        if isinstance(error, duckdb.CatalogException) and missing:
            return self._unknown(missing.group(1), self.snapshot)
        return self.damage(error) or query_error(error)


def _no_zone(timezone: str) -> RequestError:
    return RequestError(
        f"{timezone!r} is not a time zone", hint=near(timezone, zoneinfo.available_timezones(), what="time zones")
    )


def _typed_nothing(source: Source) -> TableSchema:
    from lakehouse.sources import TWIN_PROVENANCE

    provenance = [ColumnSchema(name, _TWIN_TYPES.get(name, "VARCHAR")) for name in TWIN_PROVENANCE]
    return TableSchema((*provenance, *(ColumnSchema(column.field, column.type) for column in source.schema.typed)))


def _with_utc(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Spell the zone ``UTC``: DuckDB says ``Etc/UTC``, which frame libraries take for another one."""
    import pyarrow as pa

    if "Etc/UTC" not in str(reader.schema):
        return reader
    return reader.cast(pa.schema([field.with_type(_utc_type(field.type)) for field in reader.schema]))


def _utc_type(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_timestamp(kind) and kind.tz == "Etc/UTC":
        return pa.timestamp(kind.unit, "UTC")
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_utc_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_utc_type(kind.key_type), _utc_type(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_utc_type(kind.value_type)))
    return kind
