"""Promotion: run the models whose inputs changed, and publish what passes its contract.

All tables of a connected part of the graph, their quarantine tables and what their models have read appear in one
publish, or nothing of them does.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from lakehouse.catalog import Catalog, Change, Snapshot
from lakehouse.entries import ModelEntry
from lakehouse.errors import GateError, PenstockError, StorageError
from lakehouse.markup import html_table
from lakehouse.metadata import Executions
from lakehouse.plan import Mode, Plan, Step, make_plan, needs_no_source, quarantine_table
from lakehouse.settings import Settings
from lakehouse.sources import Source, read_source
from lakehouse.types import TableName, utc_text
from lakehouse.watermarks import Watermark, of_staged, watermark

if TYPE_CHECKING:
    from lakehouse.building import Build, Built

__all__ = ["Plan", "Progress", "PromotionReport", "Step", "TableReport", "plan", "promote"]

Progress = Callable[[int, int, str], None]
"""Called with the number of models done, of all models, and the table that is built next."""


@dataclass(frozen=True, slots=True)
class TableReport:
    """What a promotion did with one model.

    Counts are of rows since the last rebuild: what the table holds now adds up to what was read for it. ``query_rows``
    = ``good`` + ``quarantined`` + ``replaced`` always; for row-wise models also ``landed`` = ``malformed`` +
    ``hidden`` + ``filtered`` + ``quarantined`` + ``replaced`` + ``good``, else these four are None.

    Parameters
    ----------
    read
        The tables and sources that the model depends on.
    landed
        All records of the driving source.
    malformed, hidden
        Records of visible files that are no records of their format; records of files that are not visible.
    filtered
        Well-formed visible records of which the query makes no row.
    quarantined
        Rows in the quarantine table, open and superseded.
    replaced
        Rows that lost their key to another row.
    by_reason
        Rows that this run rejected, by rule; a row that breaks several rules counts under each.
    rows
        The table's rows now.
    warnings
        What the plan warned of, and what the data showed in this run.
    """

    table: str
    mode: Mode
    reason: str
    read: tuple[str, ...]
    landed: int | None
    malformed: int | None
    hidden: int | None
    filtered: int | None
    quarantined: int
    replaced: int
    good: int
    query_rows: int
    by_reason: Mapping[str, int]
    rows: int
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PromotionReport:
    """What a promotion did.

    Parameters
    ----------
    snapshot
        The last snapshot that it published; None if there was nothing to do.
    execution
        Its execution; None if there was nothing to do.
    """

    snapshot: int | None
    execution: str | None
    tables: tuple[TableReport, ...]
    seconds: float

    def _repr_html_(self) -> str:
        fates = ("landed", "malformed", "hidden", "filtered", "quarantined", "replaced", "good", "rows")
        rows = [(table.table, table.mode, *(getattr(table, fate) for fate in fates)) for table in self.tables]
        title = "nothing to do" if self.snapshot is None else f"published as snapshot {self.snapshot}"
        notes = [f"{table.table}: {text}" for table in self.tables for text in table.warnings]
        return html_table(("table", "mode", *fates), rows, title=title, notes=notes)


def plan(catalog: Catalog, settings: Settings, *, select: Sequence[str] = ()) -> Plan:
    """Return what `promote` would do, and why. See `lakehouse.plan.make_plan`."""
    return make_plan(catalog, settings, select=select)


def promote(
    catalog: Catalog, settings: Settings, *, select: Sequence[str] = (), progress: Progress | None = None
) -> PromotionReport:
    """Run the models whose inputs changed, and publish each connected part of the graph at once.

    A part that fails keeps no other from being published; then the first error is raised, and its hint names what
    failed, what was skipped with it, and what was published all the same.

    Parameters
    ----------
    select
        Tables to run, with everything that they need; all if empty.

    Raises
    ------
    ModelError
        If a model is wrong, or fails on a value.
    GateError
        If more rows break a contract than its model allows. Nothing of that part of the graph was published; the
        execution keeps the reasons with examples.
    ConflictError
        If another process published one of the tables meanwhile.
    """
    started = time.monotonic()
    if not catalog.exists and needs_no_source(settings):
        catalog.create()
    todo = make_plan(catalog, settings, select=select)
    if todo.is_empty:
        tables = tuple(_unchanged(todo.snapshot, step) for step in todo.steps)
        return PromotionReport(None, None, tables, time.monotonic() - started)
    executions = Executions(catalog.storage, catalog.clock)
    execution = executions.start("promote", {"select": list(select), "snapshot": todo.snapshot.number})
    run = _Promotion(catalog, settings, todo, execution, progress or (lambda _done, _all, _table: None))
    try:
        run.all_parts()
    except BaseException as error:
        run.failures.append(_Failure((), None, error))
        raise
    finally:
        number = run.published_number
        rows = {name: report.good for name, report in run.reports.items()}
        if run.failures:
            told, details = run.for_the_records()
            executions.finish(execution, "FAILED", snapshot=number, counts=rows, error=told, details=details)
        else:
            executions.finish(execution, "COMPLETE", snapshot=number, counts=rows)
    if run.failures:
        raise run.first_error()
    tables = tuple(run.reports.get(step.table) or _unchanged(todo.snapshot, step) for step in todo.steps)
    return PromotionReport(number, execution, tables, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a part of the graph was not published.

    Parameters
    ----------
    tables
        The part; empty if it was the whole run that was stopped.
    culprit
        The table whose model failed; None if all were built.
    """

    tables: tuple[str, ...]
    culprit: str | None
    error: BaseException

    @property
    def failed(self) -> str:
        return self.culprit or ", ".join(self.tables)

    @property
    def told(self) -> str:
        error = self.error
        return error.what if isinstance(error, PenstockError) else f"{type(error).__name__}: {error}"


@dataclass
class _Promotion:
    """One run over the parts of the graph, what it has published so far, and what failed."""

    catalog: Catalog
    settings: Settings
    plan: Plan
    execution: str
    progress: Progress
    reports: dict[str, TableReport] = field(default_factory=dict)
    published: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    failures: list[_Failure] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    rejected: dict[str, Any] = field(default_factory=dict)
    _done: int = 0
    _building: str | None = None

    @property
    def published_number(self) -> int | None:
        return self.published[-1][0] if self.published else None

    def all_parts(self) -> None:
        """Build and publish every part that can be; one that fails is remembered, and the others go on."""
        for steps in self.plan.components:
            tables = tuple(step.table for step in steps)
            if self.failures and isinstance(self.failures[-1].error, StorageError):
                self.skipped += tables  # it would refuse the others too
                continue
            started, self._building = self._done, None
            try:
                with self.catalog.storage.writing():
                    self.component(steps)
            except Exception as error:  # noqa: BLE001 - raised again when the others are done
                self.failures.append(_Failure(tables, self._building, error))
                if self._building is not None:
                    self.skipped += [table for table in tables if table != self._building]
                self._done = started + len(tables)

    def first_error(self) -> BaseException:
        """Return the first failure's error; its hint names what else there is to know about the run."""
        error = self.failures[0].error
        outcome = self._outcome()
        if isinstance(error, PenstockError) and outcome:
            error.hint = "\n  ".join([*([error.hint] if error.hint else []), *outcome])
        return error

    def _outcome(self) -> list[str]:
        """Return what failed, was skipped and was published, a line each; nothing if that is one table alone."""
        first, *others = self.failures
        if not others and not self.skipped and not self.published:
            return []
        more = [f"{failure.failed}: {failure.told.splitlines()[0]}" for failure in others]
        lines = [f"Failed: {'; '.join([first.failed, *more])}."] if first.tables else []
        lines += [f"Skipped: {', '.join(self.skipped)}."] if self.skipped else []
        return lines + ([f"Published: {self._told_published()}."] if self.published else [])

    def _told_published(self) -> str:
        return "; ".join(f"{', '.join(tables)} (snapshot {number})" for number, tables in self.published)

    def for_the_records(self) -> tuple[str, dict[str, Any]]:
        """Return a line and details that say the same without a value, since records are kept for ever."""
        failed = {failure.failed: _without_values(failure.error) for failure in self.failures if failure.tables}
        parts = [_without_values(self.failures[0].error)]
        if len(failed) > 1 or self.skipped or self.published:
            parts += [f"failed: {', '.join(failed)}"] if failed else []
            parts += [f"skipped: {', '.join(self.skipped)}"] if self.skipped else []
            parts += [f"published: {self._told_published()}"] if self.published else []
        published = {table: number for number, tables in self.published for table in tables}
        details = {"rejected": self.rejected, "failed": failed, "skipped": self.skipped, "published": published}
        return "; ".join(parts), {name: value for name, value in details.items() if value}

    def component(self, steps: Sequence[Step]) -> None:
        """Build and publish one connected part of the graph."""
        from lakehouse.building import Build

        with tempfile.TemporaryDirectory(prefix="penstock-") as spill:
            resources = self.settings.resources
            at = utc_text(self.catalog.clock())
            build = Build(self.plan.snapshot, self.execution, at, resources.memory, resources.threads, spill)
            try:
                built = [self._build(build, step) for step in steps]
                self._building = None
                models, reports = self._accounts(built)
            except BaseException:
                self._discard(build)
                raise
            tables = {name: change for each in built for name, change in each.changes.items()}
            # From here on the files may stand in a Delta log, if only in a commit that nobody reads: they stay.
            snapshot = self.catalog.publish(
                self.plan.snapshot,
                Change("promote", _summary(steps), execution=self.execution, tables=tables, models=models),
            )
        self.published.append((snapshot.number, tuple(step.table for step in steps)))
        self.reports.update(reports)

    def _build(self, build: Build, step: Step) -> Built:
        self._building = step.table
        total = sum(len(part) for part in self.plan.components)
        self.progress(self._done, total, step.table)
        try:
            built = build.run(step)
        except GateError as error:
            self._keep_reasons(build, step, error)
            raise
        self._done += 1
        self.progress(self._done, total, step.table)
        return built

    def _keep_reasons(self, build: Build, step: Step, error: GateError) -> None:
        self.rejected[step.table] = msgspec.to_builtins(build.reasons)
        error.hint = f"{error.hint} See them: penstock quarantine {step.name.name} --run {self.execution}"

    def _discard(self, build: Build) -> None:
        """Delete what was written for a part that won't be published; what can't be deleted is harmless."""
        for path in build.written:
            with contextlib.suppress(OSError, StorageError):
                self.catalog.storage.delete(path)

    def _accounts(self, built: Sequence[Built]) -> tuple[dict[str, ModelEntry], dict[str, TableReport]]:
        """Return the models' new entries and the reports, the counts checked."""
        staged = {name: content for each in built for name, content in each.files.items()}
        models, reports = {}, {}
        for each in built:
            if each.step.model is None:
                continue
            own = (each.step.name, quarantine_table(each.step.name))
            read = {str(name): self._mark(name, staged) for name in (*each.step.model.needs, *own)}
            counts = _counts(self.plan.snapshot, each)
            models[each.step.table] = ModelEntry(each.step.model.sha256, read, counts, each.step.model.meaning)
            reports[each.step.table] = _report(each.step, counts, each.by_reason, each.seconds, each.warnings)
        return models, reports

    def _mark(self, name: TableName, staged: Mapping[TableName, Any]) -> Watermark:
        if name in staged:
            return of_staged(*staged[name])
        return watermark(self.plan.snapshot, name) or {}


# -- counts -----------------------------------------------------------------------------------------------------


def _counts(snapshot: Snapshot, built: Built) -> dict[str, int]:
    """Return the model's counts since its last rebuild.

    Raises
    ------
    PenstockError
        If they don't add up: rows were lost or doubled by us, so nothing may be published.
    """
    step = built.step
    before: Mapping[str, int] = {}
    if step.mode == "incremental":
        before = snapshot.entry.models[step.table].counts
    rows = {name: sum(file.rows for file in files) for name, (_, files) in built.files.items()}
    counts = {
        "query_rows": before.get("query_rows", 0) + built.query_rows,
        "good": rows[step.name],
        "quarantined": rows[quarantine_table(step.name)],
        "replaced": before.get("replaced", 0) + built.replaced,
    }
    if counts["query_rows"] != counts["good"] + counts["quarantined"] + counts["replaced"]:
        raise _unbalanced(step, counts)
    if step.shape is None or not step.shape.row_wise or step.shape.driving is None:
        return counts
    counts |= _landed(read_source(snapshot, step.shape.driving.name))
    counts["filtered"] = counts["landed"] - counts["malformed"] - counts["hidden"] - counts["query_rows"]
    if counts["filtered"] < 0:
        raise _unbalanced(step, counts)
    return counts


def _landed(source: Source) -> dict[str, int]:
    shown = {file.seq for file in source.visible}
    files = [(seq in shown, file) for seq, file in enumerate(source.landed) if not file.alias]
    return {
        "landed": sum(file.records for _, file in files),
        "malformed": sum(file.malformed for visible, file in files if visible),
        "hidden": sum(file.records for visible, file in files if not visible),
    }


def _unbalanced(step: Step, counts: Mapping[str, int]) -> PenstockError:
    told = ", ".join(f"{name} {rows:,}" for name, rows in counts.items())
    return PenstockError(
        f"the counts do not add up: {told}",
        where=step.table,
        hint="This is a fault of Penstock. Nothing was published; please report it with the model file.",
    )


def _unchanged(snapshot: Snapshot, step: Step) -> TableReport:
    return _report(step, snapshot.entry.models[step.table].counts, {}, 0.0)


def _report(
    step: Step,
    counts: Mapping[str, int],
    by_reason: Mapping[str, int],
    seconds: float,
    warnings: tuple[str, ...] = (),
) -> TableReport:
    return TableReport(
        table=step.table,
        mode=step.mode,
        reason=step.reason,
        read=step.reads,
        landed=counts.get("landed"),
        malformed=counts.get("malformed"),
        hidden=counts.get("hidden"),
        filtered=counts.get("filtered"),
        quarantined=counts["quarantined"],
        replaced=counts["replaced"],
        good=counts["good"],
        query_rows=counts["query_rows"],
        by_reason=dict(by_reason),
        rows=counts["good"],
        seconds=seconds,
        warnings=(*step.warnings, *warnings),
    )


# -- words ------------------------------------------------------------------------------------------------------


def _summary(steps: Sequence[Step]) -> str:
    return ", ".join(f"{step.table} ({step.mode}: {step.reason})" for step in steps)


def _without_values(error: BaseException) -> str:
    """Return a line for the records, which are kept for ever: DuckDB's messages may show values."""
    kind = type(error).__name__
    if isinstance(error, PenstockError):
        shown = error.where if error.__class__.__name__ in ("ModelError", "QueryError") else error.what
        return f"{kind}: {shown}"
    return kind
