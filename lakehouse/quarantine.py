"""Rejected rows: how they are kept, when a later row supersedes them, and the report about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from lakehouse.contracts import GateReport, key_sql
from lakehouse.delta import ColumnSchema, TableSchema
from lakehouse.errors import RequestError, UnknownTableError, near
from lakehouse.metadata import Executions
from lakehouse.plan import quarantine_table
from lakehouse.types import TableName, printable, quote_literal, utc_text

if TYPE_CHECKING:
    import duckdb

    from lakehouse.catalog import Snapshot
    from lakehouse.models import Model
    from lakehouse.result import QueryResult

__all__ = [
    "SCHEMA",
    "Origin",
    "QuarantineGroup",
    "QuarantineReport",
    "Reason",
    "quarantine_report",
    "reasons_of",
    "stage_rejected",
    "stage_superseded",
]

_LONG = 60  # as many characters of a value are shown
_REASONS = 'STRUCT("column" VARCHAR, "rule" VARCHAR, "value" VARCHAR)[]'

# A struct comparison would take nulls for the greatest values, so that no match would win.
_LATER = "good._text is not null and (good._load_seq, good._offset) > (bad._load_seq, bad._offset)"

SCHEMA = TableSchema(
    columns=(
        ColumnSchema("_record_id", "VARCHAR", comment="the record that the row was made of, if known"),
        ColumnSchema("_load_seq", "BIGINT", comment="the record's place in its source: which landed file"),
        ColumnSchema("_offset", "BIGINT", comment="the record's place in the file"),
        ColumnSchema("_key", "VARCHAR", comment="the row's primary key, if it has one"),
        ColumnSchema("_state", "VARCHAR", nullable=False, comment="open, or superseded by a later good row"),
        ColumnSchema("_reasons", _REASONS, comment="every rule that the row breaks"),
        ColumnSchema("_row", "VARCHAR", comment="the row as the query made it, JSON"),
        ColumnSchema("_execution", "VARCHAR", comment="the promotion that rejected it"),
        ColumnSchema("_model", "VARCHAR", comment="SHA-256 of the model file"),
        ColumnSchema("_at", "TIMESTAMP WITH TIME ZONE", comment="when, UTC"),
    ),
    # Values that broke the contract stay out of the log, which outlives an erasure.
    no_stats=("_key", "_reasons", "_row"),
)
"""The schema of every quarantine table."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which promotion rejected a row, and when (UTC text)."""

    execution: str
    at: str


class Reason(msgspec.Struct, frozen=True):
    """One rule that rows break: on which column, how many rows, and examples: record id, key and value of each."""

    rule: str
    column: str
    rows: int
    examples: list[list[str | None]]

    @property
    def name(self) -> str:
        """The column and the rule, for people."""
        return f"{self.column}: {self.rule}" if self.column else self.rule


@dataclass(frozen=True, slots=True)
class QuarantineGroup:
    """Rows that break one rule: which column, how many in which state, and one such value."""

    rule: str
    column: str | None
    state: str
    rows: int
    example: str | None


@dataclass(frozen=True)
class QuarantineReport:
    """What was rejected of one model's rows.

    Parameters
    ----------
    table
        The model's table.
    groups
        By rule, column and state, the largest first. A row that breaks several rules counts in several groups.
    rows
        The rejected rows themselves, in the order of their records.
    run
        The execution that the report is limited to, if any.
    """

    table: str
    groups: tuple[QuarantineGroup, ...]
    rows: QueryResult
    run: str | None = None

    def to_text(self, limit: int) -> str:
        """Return the first rows for people: why each was rejected, its values, and at last where it is from."""
        shown = [dict(zip(self.rows.columns, row, strict=True)) for row in islice(self.rows, limit + 1)]
        lines = [line for row in shown[:limit] for line in _row_text(row)]
        if len(shown) > limit:
            lines.append(f"… more rows than these {limit}")
        return "\n".join(lines) or f"No row of {self.table} is in quarantine."


def _row_text(row: dict[str, Any]) -> list[str]:
    """Return a rejected row's lines; of a run that was stopped there are only keys and values of examples."""
    if "_reasons" not in row:
        record = f", record {row['record_id']}" if row["record_id"] else ""
        return [_reason_text(row["column"], row["rule"], row["value"]), f"  key {_short(row['key'])}{record}"]
    values = json.loads(row["_row"], parse_int=str, parse_float=str)  # numbers with all their digits
    found = [f"{row['_state']} since {utc_text(row['_at'])}", f"run {row['_execution']}"]
    return [
        "; ".join(_reason_text(r["column"], r["rule"], r["value"]) for r in row["_reasons"]),
        "  " + ", ".join(f"{name} = {_short(value)}" for name, value in values.items()),
        "  " + ", ".join([*found, *([f"record {row['_record_id']}"] if row["_record_id"] else [])]),
    ]


def _reason_text(column: str | None, rule: str, value: str | None) -> str:
    """Return ``v is -1: check (v >= 0)``."""
    return f"{column} is {_short(value)}: {rule}" if column else rule


def _short(value: Any) -> str:
    """Return a value on one line; what is nested as JSON, and of a long text the beginning."""
    if value is None:
        return "null"
    text = printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return (f"{text[:_LONG]}…" if len(text) > _LONG else text) or "''"


def stage_rejected(
    connection: duckdb.DuckDBPyConnection, gate: str, model: Model, origin: Origin, *, row_wise: bool
) -> None:
    """Make the temporary table ``_rejected``: the rows of ``<gate>_bad`` as the quarantine table keeps them.

    Without provenance no row is later than another, so nothing is superseded.
    """
    ordered = row_wise and bool(model.contract.primary_key)
    state = f"case when {_LATER} then 'superseded' else 'open' end" if ordered else "'open'"
    connection.execute(
        f"create temp table _rejected as select bad._record_id, bad._load_seq, bad._offset, bad._key, "
        f"{state} as _state, "
        f"bad._reasons, bad._row, {quote_literal(origin.execution)} as _execution, "
        f"{quote_literal(model.sha256)} as _model, timestamptz {quote_literal(origin.at)} as _at "
        f"from {gate}_bad bad{_winners(f'{gate}_good', model) if ordered else ''}"
    )


def stage_superseded(connection: duckdb.DuckDBPyConnection, stored: str, good: str, model: Model) -> None:
    """Make the temporary table ``_superseded``: open stored rows that have a later good row with their key.

    Parameters
    ----------
    stored
        A SELECT over the quarantine table's rows with the place of their file as ``_file``.
    good
        The table of newly promoted rows.
    """
    connection.execute(
        f"create temp table _superseded as select bad._file, bad._record_id from ({stored}) bad"
        f"{_winners(good, model)} where bad._state = 'open' and {_LATER}"
    )


def reasons_of(report: GateReport) -> list[Reason]:
    """Return the rules that rows broke, the most frequent first, with examples."""
    found = [
        Reason(rule, column, rows, [[e.record_id, e.key, e.value] for e in report.examples.get((rule, column), ())])
        for (rule, column), rows in report.by_reason.items()
    ]
    return sorted(found, key=lambda reason: (-reason.rows, reason.name))


def _winners(good: str, model: Model) -> str:
    """Return a join of each rejected row with the good row of its key."""
    key = key_sql(model.contract, "g", pii=model.annotations.pii)
    return f" left join (select *, {key} as _text from {good} g) good on good._text = bad._key"


# -- the report -------------------------------------------------------------------------------------------------


def quarantine_report(snapshot: Snapshot, table: TableName, *, run: str | None = None) -> QuarantineReport:
    """Return which rows of a model were rejected, and why.

    Parameters
    ----------
    run
        Only what this execution rejected; for one that failed, what it would have rejected (examples).

    Raises
    ------
    UnknownTableError
        If the table has no quarantine.
    RequestError
        If there is no such execution, or it did not reject rows of this table.
    """
    if run is not None:
        execution = Executions(snapshot.storage, snapshot.catalog.clock).get(run)
        kept = execution.details.get("rejected", {}).get(str(table))
        if execution.state == "FAILED" and str(table) not in execution.details.get("published", ()):
            return _failed_report(table, run, kept)
    return _stored_report(snapshot, table, run)


def _stored_report(snapshot: Snapshot, table: TableName, run: str | None) -> QuarantineReport:
    from lakehouse.session import Session

    name = quarantine_table(table)
    if str(name) not in snapshot.entry.tables:
        known = [f"warehouse.{t.name}" for t in snapshot.tables if t.schema == "quarantine"]
        raise UnknownTableError(
            f"{table} has no quarantine at snapshot {snapshot.number}",
            hint=near(str(table), known, what="promoted tables"),
        )
    session = Session(snapshot)
    chosen = f"select * from {name.sql}" + (f" where _execution = {quote_literal(run)}" if run else "")
    groups = session.sql(
        'select r."rule", r."column", _state, count(*), min(r."value") '
        f"from (select _state, unnest(_reasons) as r from ({chosen}) rejected) reasons group by 1, 2, 3 "
        "order by 4 desc, 1, 2, 3"
    ).fetchall()
    rows = session.sql(f"{chosen} order by _load_seq, _offset, _key")
    return QuarantineReport(str(table), tuple(QuarantineGroup(*group) for group in groups), rows, run)


def _failed_report(table: TableName, run: str, kept: Any) -> QuarantineReport:
    import pyarrow as pa

    from lakehouse.result import QueryResult

    if kept is None:
        raise RequestError(
            f"execution {run} kept no rejected rows of {table}",
            hint="Only a promotion that its gate stopped keeps them; see penstock plan.",
        )
    reasons = msgspec.convert(kept, list[Reason])
    groups = []
    for reason in reasons:
        first = reason.examples[0][-1] if reason.examples else None
        groups.append(QuarantineGroup(reason.rule, reason.column, "rejected", reason.rows, first))
    flat = [(r.rule, r.column, *example) for r in reasons for example in r.examples]
    columns = ("rule", "column", "record_id", "key", "value")
    rows = pa.table({name: pa.array([row[i] for row in flat], pa.string()) for i, name in enumerate(columns)})
    return QuarantineReport(str(table), tuple(groups), QueryResult.from_table(rows), run)
