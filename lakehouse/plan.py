"""What has to run, how, and why: everything that can be wrong with a promotion is found here, before data is read."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lakehouse.catalog import Catalog, Snapshot
from lakehouse.delta import ColumnSchema, TableSchema
from lakehouse.entries import ModelEntry
from lakehouse.errors import ModelError, ProjectError, QueryError, RequestError, near
from lakehouse.markup import html_table
from lakehouse.model_files import check_sql_directory, model_files
from lakehouse.settings import Paths, Settings
from lakehouse.sources import read_source
from lakehouse.types import TableName, plural
from lakehouse.watermarks import Arrivals, arrivals, changed, watermark

if TYPE_CHECKING:
    from lakehouse.models import Contract, Model, Models, Shape
    from lakehouse.session import Session

__all__ = ["Mode", "Plan", "Step", "contract_schema", "make_plan", "needs_no_source", "quarantine_table"]

Mode = Literal["full", "incremental", "nothing to do"]

_PROVENANCE = (
    ColumnSchema("_record_id", "VARCHAR", hidden=True),
    ColumnSchema("_load_seq", "BIGINT", hidden=True),
    ColumnSchema("_offset", "BIGINT", hidden=True),
)
_LINE = re.compile(r"^LINE (\d+): ", re.MULTILINE)
_UNCHANGED = "nothing changed"


@dataclass(frozen=True, slots=True)
class Step:
    """What a promotion does with one model.

    Parameters
    ----------
    table
        The model's table.
    mode
        ``full`` replaces its content, ``incremental`` reads only what has newly landed.
    reason
        Why, in plain words.
    reads
        The tables and sources that the query reads or the contract references, by name.
    loads
        How many loads it reads.
    rows_to_read
        Rows of its inputs that it reads; None if one of them is yet to run, so that nobody knows.
    yet_to_run
        The tables among its inputs that the same promotion makes anew before it.
    schema_changes
        How the table's columns change, one text each.
    breaking
        Whether readers of the table may break on them.
    warnings
        What may surprise.
    model, shape, query
        What runs: the query has its provenance spliced in if it is row-wise.
    only_landed
        The ``_load_seq`` that an incremental step reads of its driving source.
    """

    table: str
    mode: Mode
    reason: str
    reads: tuple[str, ...] = ()
    loads: int = 0
    rows_to_read: int | None = 0
    yet_to_run: tuple[str, ...] = ()
    schema_changes: tuple[str, ...] = ()
    breaking: bool = False
    warnings: tuple[str, ...] = ()
    model: Model | None = field(default=None, repr=False)
    shape: Shape | None = field(default=None, repr=False)
    query: str = field(default="", repr=False)
    only_landed: frozenset[int] | None = None

    @property
    def runs(self) -> bool:
        """Whether there is something to do."""
        return self.mode != "nothing to do"

    @property
    def name(self) -> TableName:
        """The table's name, in its two parts."""
        return TableName.parse(self.table)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a promotion would do.

    Parameters
    ----------
    snapshot
        The state that it starts from.
    steps
        One per model, each after those that it reads.
    components
        The steps that run, by connected part of the graph: each part is published at once.
    removed
        Tables whose model is gone; they stay as they are.
    """

    snapshot: Snapshot
    steps: tuple[Step, ...]
    components: tuple[tuple[Step, ...], ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not any(step.runs for step in self.steps)

    def _repr_html_(self) -> str:
        rows = [
            (str(step.table), step.mode, step.reason, step.rows_to_read if step.runs else None, step.schema_changes)
            for step in self.steps
        ]
        heads = ("table", "mode", "why", "rows to read", "schema changes")
        notes = [f"{step.table}: {text}" for step in self.steps for text in step.warnings]
        return html_table(heads, rows, notes=notes)


def make_plan(catalog: Catalog, settings: Settings, *, select: Sequence[str] = ()) -> Plan:
    """Return what `lakehouse.promotion.promote` would do now.

    Parameters
    ----------
    select
        Tables to run, with everything that they need; all if empty.

    Raises
    ------
    ModelError
        If a model is wrong: its SQL, its types, its annotations, or a source it reads that has not landed.
    RequestError
        If ``select`` names a table without a model.
    SettingsError
        If the settings name a directory of models that is not there.
    """
    if settings.is_project:
        check_sql_directory(settings.paths.sql, settings.project / Paths().sql)
    if not catalog.exists and needs_no_source(settings):
        hint = "A model here needs no source: penstock promote makes the lake. Or land something first: penstock land."
        raise ProjectError("there is no lake here yet", where=catalog.storage.uri, hint=hint)
    snapshot = catalog.latest()
    if not select and (quick := _nothing_changed(snapshot, settings.paths.sql)) is not None:
        return quick
    from lakehouse.models import load_models

    models = load_models(settings.paths.sql)
    chosen = _chosen(models, select)
    with contextlib.closing(_Planner(snapshot, settings, models)) as planner:
        steps = tuple(planner.step(model) for model in models.order() if model.table in chosen)
    running = {step.table: step for step in steps if step.runs}
    parts = (tuple(running[str(m.table)] for m in part if str(m.table) in running) for part in models.components())
    removed = tuple(name for name in snapshot.entry.models if TableName.parse(name) not in models.by_table)
    return Plan(snapshot, steps, tuple(part for part in parts if part), removed)


def needs_no_source(settings: Settings) -> bool:
    """Return whether a project has a model that can run before anything has landed: it makes its rows itself."""
    from lakehouse.models import load_models

    models = load_models(settings.paths.sql).by_table.values() if settings.is_project else ()
    return any(not model.needs for model in models)


def quarantine_table(table: TableName) -> TableName:
    """Return the name of the table that holds a model's rejected rows."""
    return TableName("quarantine", table.name)


def contract_schema(contract: Contract, *, row_wise: bool, pii: Collection[str] = ()) -> TableSchema:
    """Return the stored schema of a contract; row-wise models keep each row's provenance in hidden columns."""
    columns = [ColumnSchema(c.name, c.type, c.nullable, c.comment or "") for c in contract.columns]
    personal = {name.lower() for name in pii}
    return TableSchema(
        columns=(*columns, *(_PROVENANCE if row_wise else ())),
        no_stats=tuple(column.name for column in columns if column.name.lower() in personal),
    )


def _chosen(models: Models, select: Sequence[str]) -> set[TableName]:
    """Return the selected tables with everything that they need."""
    if not select:
        return set(models.by_table)
    waiting = [TableName.parse(name, default_schema="warehouse") for name in select]
    for name in waiting:
        if name not in models.by_table:
            known = [str(table) for table in models.by_table]
            raise RequestError(f"no model makes {name}", hint=near(str(name), known, what="models"))
    found: set[TableName] = set()
    while waiting:
        name = waiting.pop()
        if name in models.by_table and name not in found:
            found.add(name)
            waiting.extend(models.by_table[name].needs)
    return found


# -- nothing to do ----------------------------------------------------------------------------------------------


def _nothing_changed(snapshot: Snapshot, sql: Path) -> Plan | None:
    """Return the plan if no model file and no input changed, found without parsing a model; else None."""
    models = snapshot.entry.models
    files = [file.read_bytes() for file in model_files(sql)]
    if sorted(hashlib.sha256(data).hexdigest() for data in files) != sorted(m.sha256 for m in models.values()):
        return None
    steps = []
    for table, model in models.items():
        reads = _reads(table, model)
        if _own_change(snapshot, TableName.parse(table), model):
            return None
        if any(changed(snapshot, TableName.parse(name), model.read[name]) for name in reads):
            return None
        steps.append(Step(table, "nothing to do", _UNCHANGED, reads))
    return Plan(snapshot, tuple(steps))


def _reads(table: str, model: ModelEntry) -> tuple[str, ...]:
    own = {table, str(quarantine_table(TableName.parse(table)))}
    return tuple(name for name in model.read if name not in own)


def _own_change(snapshot: Snapshot, table: TableName, model: ModelEntry) -> TableName | None:
    """Return which of a model's own tables is not as the model left it: rolled back alone, for instance."""
    own = (table, quarantine_table(table))
    return next((name for name in own if watermark(snapshot, name) != model.read.get(str(name))), None)


# -- one model --------------------------------------------------------------------------------------------------


@dataclass
class _Planner:
    """Decides model after model, each after those it needs."""

    snapshot: Snapshot
    settings: Settings
    models: Models
    running: set[TableName] = field(default_factory=set)
    _session: Session | None = None

    def close(self) -> None:
        """Close the connection that queries were bound on."""
        if self._session is not None:
            self._session.close()

    def step(self, model: Model) -> Step:
        """Return what has to be done with a model, having checked that it can be."""
        table, reads = str(model.table), tuple(str(name) for name in model.needs)
        reason, arrived = self._why(model)
        orphans = self._reads_without_model(model)
        if reason is None:
            return Step(table, "nothing to do", _UNCHANGED, reads, warnings=orphans, model=model)
        self._refuse_missing(model)
        shape = _shape(model, self._columns(model))
        why_full = reason if arrived is None else _why_full(model, shape, arrived)
        only = None if why_full or arrived is None else frozenset(file.seq for file in arrived.files)
        schema = contract_schema(model.contract, row_wise=shape.row_wise, pii=model.annotations.pii)
        query, warnings = self._bind(model, shape)
        changes, breaking = _schema_changes(self._stored_schema(model.table), schema)
        yet_to_run = tuple(str(name) for name in model.reads if name in self.running)
        self.running.add(model.table)
        return Step(
            table=table,
            mode="full" if only is None else "incremental",
            reason=why_full or reason,
            reads=reads,
            loads=self._loads(model, only),
            rows_to_read=None if yet_to_run else self._rows(model, only),
            yet_to_run=yet_to_run,
            schema_changes=changes,
            breaking=breaking,
            warnings=(*warnings, *orphans),
            model=model,
            shape=shape,
            query=query,
            only_landed=only,
        )

    def _why(self, model: Model) -> tuple[str | None, Arrivals | None]:  # noqa: PLR0911 - one reason per line
        """Return why a model has to run (None: it hasn't), and what has arrived if nothing but that is the reason."""
        entry = self.snapshot.entry.models.get(str(model.table))
        if entry is None or str(model.table) not in self.snapshot.entry.tables:
            return "first run", None
        if entry.sha256 != model.sha256:
            return "the model changed", None
        own = _own_change(self.snapshot, model.table, entry)
        if own is not None:
            return f"{own} is not as the model left it (rolled back?)", None
        since = model.annotations.since
        for name in model.needs:
            if name in self.running:
                return f"{name} runs too", None
            if name != since and changed(self.snapshot, name, entry.read.get(str(name), {})):
                return f"{name} changed", None
        if since is None or not changed(self.snapshot, since, entry.read.get(str(since), {})):
            return None, None
        if since.name not in self.snapshot.entry.sources:
            return f"{since} changed", None
        arrived = arrivals(read_source(self.snapshot, since.name), entry.read[str(since)])
        return f"{plural(len(arrived.files), 'new file')} in {since}", arrived

    def _reads_without_model(self, model: Model) -> tuple[str, ...]:
        """Return a warning for each table that a model reads and that nothing fills any more."""
        return tuple(
            f"it reads {name}, whose model is gone: that table stays as it is for ever"
            for name in model.reads
            if str(name) in self.snapshot.entry.models and name not in self.models.by_table
        )

    def _refuse_missing(self, model: Model) -> None:
        """Refuse inputs that are nowhere; what runs before this model will be there."""
        entry = self.snapshot.entry
        for name in model.needs:
            there = entry.sources if name.schema == "lake" else entry.tables
            if name in self.running or (name.name if name.schema == "lake" else str(name)) in there:
                continue
            if name.schema == "lake":
                known = [f"lake.{source}" for source in entry.sources]
                hint = f"penstock land {name.name} FILES…" + (
                    f"\n  {near(str(name), known, what='sources')}" if known else ""
                )
                what = f"nothing has landed in {name.name} yet"
            else:
                hint = near(str(name), self._readable(model, name.schema), what="what models read")
                what = f"there is no table {name}"
            raise ModelError(what, file=model.file, line=_line_of(model, name), hint=hint)

    def _readable(self, model: Model, schema: str) -> list[str]:
        """Return what a model may read: sources, other tables of the warehouse, and those of a schema that it named."""
        stored = [TableName.parse(name) for name in self.snapshot.entry.tables]
        tables = {*self.models.by_table, *(table for table in stored if table.schema in ("warehouse", schema))}
        return [*(f"lake.{source}" for source in self.snapshot.entry.sources), *map(str, tables - {model.table})]

    def _bind(self, model: Model, shape: Shape) -> tuple[str, tuple[str, ...]]:
        """Have DuckDB bind the query over its inputs' schemas; return the query to run, and warnings."""
        from lakehouse.models import PROVENANCE, check_columns, with_provenance

        query, described = model.query, self._described(model, model.query)
        if shape.row_wise and shape.driving_alias is not None:
            query = with_provenance(model.query, shape.driving_alias)
            described = self._described(model, query)[: -len(PROVENANCE)]
        check = check_columns(model, described)
        if check.errors:
            first, *others = check.errors
            what = "; ".join(error.what for error in (first, *others))
            raise ModelError(what, file=model.file, line=first.line, hint=first.hint)
        return query, check.warnings

    def _columns(self, model: Model) -> set[str]:
        """Return the names, in lower case, of the columns of all that a model reads."""
        tables = (self._described(model, f"select * from {table.sql}") for table in model.reads)
        return {name.lower() for described in tables for name, _ in described}

    def _described(self, model: Model, query: str) -> list[tuple[str, str]]:
        session = self._bound()
        try:
            return session.describe(query)
        except RequestError as error:
            raise _in_file(error, session, model, query) from None

    def _bound(self) -> Session:
        """Return the session that queries are bound on: all models' tables are there, empty, as contracts say."""
        if self._session is None:
            from lakehouse.session import Session

            schemas = {t: contract_schema(m.contract, row_wise=False) for t, m in self.models.by_table.items()}
            overlay = {table: (schema, ()) for table, schema in schemas.items()}
            self._session = Session(self.snapshot, memory=self.settings.resources.memory, threads=1, overlay=overlay)
        return self._session

    def _stored_schema(self, table: TableName) -> TableSchema | None:
        return self.snapshot.schema(table) if str(table) in self.snapshot.entry.tables else None

    def _loads(self, model: Model, only: frozenset[int] | None) -> int:
        return len(
            {
                (name, file.file.load_id)
                for name in model.reads
                if name.schema == "lake"
                for file in read_source(self.snapshot, name.name).visible
                if only is None or name != model.annotations.since or file.seq in only
            }
        )

    def _rows(self, model: Model, only: frozenset[int] | None) -> int:
        """Return how many rows of its inputs a model will read, all of them being what they are now."""
        rows = 0
        for name in model.reads:
            if name.schema == "lake":
                kept = only if name == model.annotations.since else None
                shown = read_source(self.snapshot, name.name).visible
                rows += sum(f.file.records - f.file.malformed for f in shown if kept is None or f.seq in kept)
            elif str(name) in self.snapshot.entry.tables:
                rows += self.snapshot.table(name).rows
        return rows


def _shape(model: Model, columns: Collection[str]) -> Shape:
    """Return the query's shape, refusing ``@since`` where two loads can't be run one after the other."""
    from lakehouse.models import shape

    found = shape(model.query, columns)
    since = model.annotations.since
    if since is None:
        return found
    why = None
    if model.strategy != "upsert":
        why = "the model is a full refresh: write INSERT OR REPLACE"
    elif not found.distributive:
        why = found.why_not_distributive
    elif found.driving != since:
        why = f"each row comes from a record of {found.driving}: name that one"
    if why is not None:
        raise ModelError(
            f"@since load({since}) is not possible: {why}",
            file=model.file,
            line=model.query_line,
            hint="Remove @since to have the table rebuilt whenever its inputs change.",
        )
    return found


def _why_full(model: Model, shape: Shape, arrived: Arrivals) -> str | None:
    """Return why reading only what has arrived would not do, or None if it does."""
    if arrived.why_not is not None:
        return arrived.why_not
    if not shape.row_wise or not shape.distributive:
        return shape.why_not_distributive
    if any(set(columns) != set(model.contract.primary_key) for columns in model.contract.unique):
        return "UNIQUE besides the primary key looks at all rows"
    if arrived.columns:
        return _why_columns_matter(model, shape, arrived.columns)
    return None


def _why_columns_matter(model: Model, shape: Shape, columns: Sequence[str]) -> str | None:
    """Return why new columns change what the query makes of old rows, or None if they don't."""
    from lakehouse.models.queries import nodes, parse_query, scratch

    added = {column.lower() for column in columns}
    whole = {(shape.driving_alias or "").lower()}
    connection = scratch()
    try:
        tree = parse_query(connection, model.query)
    finally:
        connection.close()
    for node in nodes(tree):
        if node.get("class") == "STAR":
            return f"{shape.driving} has new columns, and the query takes all columns (*)"
        names = [name.lower() for name in node.get("column_names", [])] if node.get("class") == "COLUMN_REF" else []
        if names and (names[-1] in added or (len(names) == 1 and names[0] in whole)):
            return f"{shape.driving} has new columns, and the query names {names[-1]}"
    return None


def _schema_changes(old: TableSchema | None, new: TableSchema) -> tuple[tuple[str, ...], bool]:
    """Return how a table's visible columns change, and whether its readers may break on it."""
    if old is None:
        return (), False
    before = {column.name: column for column in old.columns if not column.hidden}
    after = {column.name: column for column in new.columns if not column.hidden}
    changes = [f"added: {name} {column.type}" for name, column in after.items() if name not in before]
    breaking = [f"removed: {name} {column.type}" for name, column in before.items() if name not in after]
    for name in before.keys() & after.keys():
        was, is_now = before[name], after[name]
        if was.type != is_now.type:
            breaking.append(f"retyped: {name} {was.type} → {is_now.type}")
        if was.nullable != is_now.nullable:
            (breaking if is_now.nullable else changes).append(
                f"{name} {'may be null now' if is_now.nullable else 'is never null now'}"
            )
    return tuple(sorted([*changes, *breaking])), bool(breaking)


# -- places in model files --------------------------------------------------------------------------------------


def _line_of(model: Model, name: TableName) -> int:
    """Return the line of the query that names a table, as far as can be told."""
    for number, line in enumerate(model.query.splitlines()):
        if name.name in line.lower():
            return model.query_line + number
    return model.query_line


def _in_file(error: RequestError, session: Session, model: Model, query: str) -> ModelError:
    """Return an error about a query as one about the model's file, in our words and with the line."""
    import duckdb

    from lakehouse.models import said

    line, (what, hint) = model.query_line, (error.what, error.hint)
    try:
        session.connection.execute(f"explain {query}")
    except duckdb.Error as told:  # the same once more, but with the line
        place = _LINE.search(str(told))
        line += int(place[1]) - 1 if place else 0
        if isinstance(error, QueryError):
            what, hint = said(str(told))
    return ModelError(what, file=model.file, line=line, hint=hint)
