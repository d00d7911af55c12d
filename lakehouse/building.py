"""Build one model's next state: run its query, pass its contract, write the files. Nothing is visible yet.

A full build replaces all files. An incremental one reads only what has newly landed and writes on copy: a file is
rewritten only if it holds a row whose key came again with a later record, all others stay.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from lakehouse.catalog import Snapshot, TableChange
from lakehouse.contracts import GateReport, gate
from lakehouse.delta import DataFile, TableSchema, measure
from lakehouse.errors import GateError, ModelError, StorageError
from lakehouse.plan import Step, contract_schema, quarantine_table
from lakehouse.quarantine import SCHEMA as QUARANTINE
from lakehouse.quarantine import Origin, Reason, reasons_of, stage_rejected, stage_superseded
from lakehouse.scan import Predicate, prune, scan_sql
from lakehouse.session import Session
from lakehouse.storage import refusal
from lakehouse.types import TableName, plural, quote, quote_literal

if TYPE_CHECKING:
    import duckdb

    from lakehouse.models import Contract, Model, Shape

__all__ = ["Build", "Built", "Overlay"]

Overlay = dict[TableName, tuple[TableSchema, Sequence[DataFile]]]

_PATH = re.compile(r"""["'\\](/[^"'\\]+)["'\\]""")
_FILE_ROWS = 4_000_000
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Built:
    """A model's next state: files that are written, and what a publish has to do with them.

    Parameters
    ----------
    files
        The tables' whole content afterwards.
    changes
        What the publish does to the model's table and to its quarantine table.
    query_rows
        Rows that the query made in this run.
    replaced
        Rows of this run, or of the table, that lost their key to another row.
    by_reason
        Rows that this run rejected, by column and rule.
    warnings
        What the data showed, in sentences.
    """

    step: Step
    files: Overlay
    changes: Mapping[TableName, TableChange]
    query_rows: int
    replaced: int
    by_reason: Mapping[str, int]
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass
class Build:
    """Builds models of one promotion.

    Parameters
    ----------
    snapshot
        What is read.
    execution, at
        The promotion and its time, UTC text: they go into every rejected row.
    memory, threads, temp_directory
        Limits of DuckDB, and where it spills.
    overlay
        Tables that were built before, in place of those of the snapshot.
    written
        Paths of all files written so far, relative to the lake.
    reasons
        Why the last model's gate rejected rows.
    """

    snapshot: Snapshot
    execution: str
    at: str
    memory: str | None
    threads: int | None
    temp_directory: str
    overlay: Overlay = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    reasons: Sequence[Reason] = ()

    def run(self, step: Step) -> Built:
        """Return a model's next state.

        Raises
        ------
        GateError
            If too many rows break the contract, or any where the model says ``@on_violation fail``.
        ModelError
            If the query fails on a value, or yields a record twice.
        """
        if step.model is None or step.shape is None:
            raise ValueError(step)
        started = time.monotonic()
        only = {}
        if step.only_landed is not None and step.shape.driving is not None:
            only = {step.shape.driving.name: step.only_landed}
        with Session(
            self.snapshot,
            memory=self.memory,
            threads=self.threads,
            temp_directory=self.temp_directory,
            overlay=self.overlay,
            only_landed=only,
        ) as session:
            run = _Run(self, step, step.model, step.shape, session)
            with run.blaming_the_lake():
                report = run.gate()
                self.reasons = reasons_of(report)
                _refuse_violations(step.model, report, self.reasons)
                tables, replaced = run.write(report)
                warnings = tuple(run.untyped())
        files: Overlay = {name: (change.schema, kept) for name, (change, kept) in tables.items()}
        self.overlay.update(files)
        changes = {name: change for name, (change, _) in tables.items()}
        by_reason = {reason.name: reason.rows for reason in self.reasons}
        seconds = time.monotonic() - started
        return Built(step, files, changes, report.query_rows, replaced, by_reason, seconds, warnings)


def _refuse_violations(model: Model, report: GateReport, reasons: Sequence[Reason]) -> None:
    """Stop where more rows broke the contract than the model allows."""
    fails = model.annotations.on_violation == "fail"
    allowed = Fraction(0) if fails else model.annotations.max_quarantine
    if not report.quarantined or Fraction(report.quarantined, report.query_rows) <= allowed:
        return
    limit = "@on_violation fail allows none" if fails else f"@max_quarantine allows {float(allowed * 100):.4g} %"
    most = ", ".join(f"{reason.name} ({reason.rows:,})" for reason in reasons[:_NAMED])
    raise GateError(
        f"{report.quarantined:,} of {plural(report.query_rows, 'row')} break the contract of {model.table}; {limit}",
        where=model.file,
        hint=f"Most often: {most}.",
    )


def _refusal(error: Exception, lake: str) -> StorageError | None:
    """Return the error about a full or forbidden disk: the lake's, or the one that DuckDB spills to."""
    named = _PATH.search(str(error))
    return refusal(error, named[1] if named else lake)


@dataclass
class _Run:
    """One model on one connection."""

    build: Build
    step: Step
    model: Model
    shape: Shape
    session: Session

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        return self.session.connection

    @property
    def contract(self) -> Contract:
        return self.model.contract

    @property
    def schema(self) -> TableSchema:
        return contract_schema(self.contract, row_wise=self.shape.row_wise, pii=self.model.annotations.pii)

    @contextlib.contextmanager
    def blaming_the_lake(self) -> Iterator[None]:
        """Say which file of the lake it was where DuckDB fails for one that is missing or damaged."""
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            own = (self.model.table, quarantine_table(self.model.table))
            found = self.session.damage(error, *own) or _refusal(error, self.build.snapshot.storage.uri)
            if found is None:
                raise
            raise found from None

    def untyped(self) -> Iterator[str]:
        """Yield what the query saw as null though there was a value, unless it looks at ``_rest`` itself.

        The gate judges the query's rows, and there such a value is gone.
        """
        if "_rest" in self.step.query:
            return
        for table in self.model.reads:
            if table.schema == "lake":
                kept = self.session.prepare(f"select count(*) from {table.sql} where _rest is not null")
                ((records,),) = self.connection.execute(kept).fetchall()
                if records:
                    have = "has" if records == 1 else "have"
                    yield (
                        f"{plural(records, 'record')} of {table} {have} values that are not of their column's type: "
                        "null here, kept in _rest "
                        f'(penstock sql "select _record_id, _rest from {table} where _rest is not null")'
                    )

    # -- the query and its gate -------------------------------------------------------------------------------------

    def gate(self) -> GateReport:
        """Run the query into a temporary table, and divide its rows by the contract."""
        self._stage()
        parents = [reference.table for reference in self.contract.references]
        self.session.require(*parents)
        return gate(
            self.connection,
            self.contract,
            "_staged",
            strategy=self.model.strategy,
            parents={table: table.sql for table in parents},
            order_by=self.model.annotations.order_by,
            into="_gate",
            pii=self.model.annotations.pii,
        )

    def _stage(self) -> None:
        import duckdb

        from lakehouse.models import said

        try:
            self.connection.execute(f"create temp table _staged as\n{self.session.prepare(self.step.query)}\n")
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException) or self.session.damage(error) is not None:
                raise
            # DuckDB's message shows the value; it goes to the user's terminal and nowhere else.
            own = re.search(r"\berror\s*\(", self.step.query, re.IGNORECASE)  # the model's author wants it to fail
            raise ModelError(
                f"the query failed on a value: {said(str(error))[0]}",
                file=self.model.file,
                line=self.model.query_line,
                hint=None if own else "try(…) gives null instead, which the contract can judge.",
            ) from None
        if self.shape.row_wise:
            self._refuse_repeated()

    def _refuse_repeated(self) -> None:
        repeated = self.connection.execute(
            "select _record_id, count(*) from _staged group by all having count(*) > 1 order by all limit 1"
        ).fetchall()
        for record, times in repeated:
            raise ModelError(
                f"the query makes {times} rows of the record {record}",
                file=self.model.file,
                line=self.model.query_line,
                hint="A join multiplies rows: join on a unique key of the other side, or aggregate it first.",
            )

    # -- files ------------------------------------------------------------------------------------------------------

    def write(self, report: GateReport) -> tuple[dict[TableName, tuple[TableChange, list[DataFile]]], int]:
        """Write the good and the rejected rows; return both tables' changes and content, and the replaced rows."""
        origin = Origin(self.build.execution, self.build.at)
        stage_rejected(self.connection, "_gate", self.model, origin, row_wise=self.shape.row_wise)
        table, quarantine = self.model.table, quarantine_table(self.model.table)
        order = "_load_seq, _offset" if self.shape.row_wise else ", ".join(map(quote, self.contract.primary_key))
        if self.step.mode == "full":
            good = self._copy(table, self.schema, "_gate_good", order)
            bad = self._copy(quarantine, QUARANTINE, "_rejected", "_load_seq, _offset, _key, _row")
            return {
                table: (TableChange(self.schema, tuple(good), remove=None), good),
                quarantine: (TableChange(QUARANTINE, tuple(bad), remove=None), bad),
            }, report.replaced
        return {
            quarantine: self._merged(quarantine, QUARANTINE, "_rejected", "_load_seq, _offset", self._supersede()),
            table: self._merged(table, self.schema, "_gate_good", order, self._replace()),
        }, report.replaced + self._rows("_met")

    def _copy(self, table: TableName, schema: TableSchema, relation: str, order: str) -> list[DataFile]:
        """Write a temporary table's rows as files of a stored table, and return them; no rows make no file."""
        columns = ", ".join(f"cast({quote(c.name)} as {c.type}) as {quote(c.name)}" for c in schema.columns)
        ((end,),) = self.connection.execute(f"select coalesce(max(rowid) + 1, 0) from {relation}").fetchall()
        files = []
        for start in range(0, end, _FILE_ROWS):
            part = f" where rowid >= {start} and rowid < {start + _FILE_ROWS}" if end > _FILE_ROWS else ""
            text = f"select {columns} from {relation}{part}{f' order by {order}' if order else ''}"
            files.append(self._write(table, schema, text))
        return [file for file in files if file.rows]

    def _write(self, table: TableName, schema: TableSchema, query: str) -> DataFile:
        storage = self.build.snapshot.storage
        folder = self._folder(table)
        name = f"part-{self.build.execution}-{len(self.build.written)}.parquet"
        self.build.written.append(f"{folder}/{name}")
        target = quote_literal(storage.prepare(f"{folder}/{name}"))
        self.connection.execute(f"copy ({query}) to {target} (format parquet, compression zstd)")
        return measure(storage, folder, name, schema)

    def _folder(self, table: TableName) -> str:
        known = self.build.snapshot.entry.tables.get(str(table))
        return known.path if known else f"{table.schema}/{table.name}"

    def _rows(self, relation: str) -> int:
        ((rows,),) = self.connection.execute(f"select count(*) from {relation}").fetchall()
        return int(rows)

    # -- incremental ------------------------------------------------------------------------------------------------

    def _replace(self) -> dict[str, str]:
        """Find the stored rows whose key came again; return a query of what stays, per file that loses rows.

        The later record wins, whichever side it is on.
        """
        key = ", ".join(map(quote, self.contract.primary_key))
        columns = ", ".join(f"old.{quote(name)}" for name in self.contract.primary_key)
        files = self._candidates()
        self.connection.execute(
            f"create temp table _met as select old._file, {columns}, "
            "(new._load_seq, new._offset) > (old._load_seq, old._offset) as _lost "
            f"from ({self._with_file(self.model.table, self.schema, files)}) old join _gate_good new using ({key})"
        )
        self.connection.execute(f"delete from _gate_good where ({key}) in (select ({key}) from _met where not _lost)")
        return {
            files[index].path: f"select * from ({self._scan(self.model.table, self.schema, [files[index]])}) "
            f"anti join (select * from _met where _lost) using ({key})"
            for index in self._touched("_met where _lost")
        }

    def _supersede(self) -> dict[str, str]:
        """Find the open rejected rows whose key now has a later good row; return queries that mark them so."""
        quarantine = quarantine_table(self.model.table)
        files = list(self.build.snapshot.files(quarantine))
        stage_superseded(self.connection, self._with_file(quarantine, QUARANTINE, files), "_gate_good", self.model)
        marked = (
            "select * replace (case when _record_id in (select _record_id from _superseded) then 'superseded' "
            "else _state end as _state) from "
        )
        return {
            files[index].path: f"{marked} ({self._scan(quarantine, QUARANTINE, [files[index]])})"
            for index in self._touched("_superseded")
        }

    def _merged(
        self, table: TableName, schema: TableSchema, relation: str, order: str, rewritten: Mapping[str, str]
    ) -> tuple[TableChange, list[DataFile]]:
        """Write new rows and rewritten files; return the table's change and its files afterwards."""
        kept = [file for file in self.build.snapshot.files(table) if file.path not in rewritten]
        written = [self._write(table, schema, f"{query} order by {order}") for query in rewritten.values()]
        added = [*(file for file in written if file.rows), *self._copy(table, schema, relation, order)]
        return TableChange(schema, tuple(added), remove=frozenset(rewritten)), [*kept, *added]

    def _candidates(self) -> list[DataFile]:
        """Return the stored files that can hold a key of the new rows, by the log's statistics."""
        files = list(self.build.snapshot.files(self.model.table))
        first = next(c for c in self.schema.columns if c.name == self.contract.primary_key[0])
        if "TIME ZONE" in first.type:
            return files  # DuckDB gives its values through pytz only
        name = quote(first.name)
        ((low, high),) = self.connection.execute(f"select min({name}), max({name}) from _gate_good").fetchall()
        if low is None:
            return []
        return prune(files, self.schema, [Predicate(first.name, ">=", (low,)), Predicate(first.name, "<=", (high,))])

    def _scan(self, table: TableName, schema: TableSchema, files: Sequence[DataFile]) -> str:
        return scan_sql(self.build.snapshot.storage, self._folder(table), schema, files, hidden=True)

    def _with_file(self, table: TableName, schema: TableSchema, files: Sequence[DataFile]) -> str:
        """Return a SELECT over files with each row's place in the list as ``_file``."""
        scans = [f"select {i} as _file, * from ({self._scan(table, schema, [f])})" for i, f in enumerate(files)]
        return " union all ".join(scans) or f"select 0 as _file, * from ({self._scan(table, schema, [])})"

    def _touched(self, found: str) -> list[int]:
        rows = self.connection.execute(f"select distinct _file from {found} order by 1").fetchall()
        return [int(index) for (index,) in rows]
