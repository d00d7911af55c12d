"""The rows of a view's source: SQL with bounds on their times, so that whole files are skipped, and what is skipped."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.binding import TIMESTAMPTZ, BoundView, Column, unreadable
from lakehouse.delta import ColumnSchema, arrow_schema
from lakehouse.errors import RequestError
from lakehouse.scan import Operator, Predicate, prune, scan_sql
from lakehouse.types import TableName, quote, quote_literal

if TYPE_CHECKING:
    from lakehouse.delta import DataFile, TableSchema
    from lakehouse.session import Session

__all__ = ["Files", "Span", "check_source", "files_read", "rows_sql", "source_table", "undated_sql"]

_WHOLE_TABLE = re.compile(r'select \* from ("\w+"\."\w+")\Z')
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# Rows per file from which on a look into the footers pays.
_MANY_ROWS = 50_000
# Years 1 to 9999, µs: what literals can spell.
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999


@dataclass(frozen=True, slots=True)
class Span:
    """Event timestamps from ``low`` to ``high``, both included, µs; None is unbounded."""

    low: int | None = None
    high: int | None = None

    def joined(self, other: Span) -> Span:
        """Return the least span that holds both; one whose end is before its beginning holds nothing."""
        if self.low is not None and self.high is not None and self.high < self.low:
            return other
        low = None if self.low is None or other.low is None else min(self.low, other.low)
        high = None if self.high is None or other.high is None else max(self.high, other.high)
        return Span(low, high)

    @property
    def comparisons(self) -> list[tuple[Operator, dt.datetime]]:
        """What can be spelled of it: comparisons that every row within fulfils."""
        found: list[tuple[Operator, dt.datetime]] = []
        if self.low is not None and self.low >= _FIRST:
            found.append((">=", _moment(min(self.low, _LAST))))
        if self.high is not None and self.high <= _LAST:
            found.append(("<=", _moment(max(self.high, _FIRST))))
        return found


@dataclass(frozen=True, slots=True)
class Files:
    """How many files of the lake are read, and how many are skipped by their statistics."""

    read: int
    skipped: int


def _moment(micros: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=micros)


def check_source(session: Session, view: BoundView) -> None:
    """Refuse a source that is not what the view was bound to.

    Raises
    ------
    RequestError
        If it cannot be read at all, or one of the view's columns is gone or has another type, with both types.
    """
    where, hint = f"feature view {view.name!r}", "Adapt the definition, and run penstock apply."
    try:
        found = {name.lower(): type_ for name, type_ in session.describe(view.source)}
    except RequestError as error:
        raise RequestError(
            unreadable(error.what), where=where, hint=f"{error.hint} {hint}" if error.hint else hint
        ) from error
    for column in _columns(view):
        type_ = found.get(column.name.lower())
        if type_ is None:
            raise RequestError(f"the source has no column {column.name!r} any more", where=where, hint=hint)
        if type_ != column.type:
            raise RequestError(
                f"the source's column {column.name!r} is of type {type_} now, not {column.type}", where=where, hint=hint
            )


def _columns(view: BoundView) -> list[Column]:
    times = [name for name in (view.event_timestamp, view.created_timestamp) if name]
    return [*view.keys, *(Column(name, TIMESTAMPTZ) for name in times), *view.tie_breaker, *view.inputs]


def rows_sql(session: Session, view: BoundView, columns: Sequence[str], span: Span) -> str:
    """Return a SELECT of columns of the source's rows, to run on the session's connection.

    Rows outside of the span may be among them, and rows without an event timestamp. What the SELECT needs is made in
    the session.
    """
    names = list(dict.fromkeys(columns))
    listed = ", ".join(quote(name) for name in names) or "1"
    exact = _exact_scan(session, view, span)
    if exact is not None:
        return f"select {listed} from ({exact}) s{_where(view, span)}"
    return session.prepare(f"select {listed} from {_from(view)}{_where(view, span)}")


def _exact_scan(session: Session, view: BoundView, span: Span) -> str | None:
    """Return a scan of a plain table's files that lets joins filter early, if they all have the table's very columns.

    Looks into the files' footers, so only where there are rows enough to be worth it.
    """
    name = source_table(view)
    snapshot = session.snapshot
    if name is None or name not in snapshot.tables or not snapshot.storage.is_local:
        return None
    schema = snapshot.schema(name)
    files = _kept(snapshot.files(name), schema, view, span)
    if schema.partition_by or sum(file.rows for file in files) < _MANY_ROWS * len(files) or not files:
        return None
    path = snapshot.table(name).path
    addresses = [snapshot.storage.address(f"{path}/{file.path}") for file in files]
    if not all(_has_exactly(address, schema.columns) for address in addresses):
        return None
    return scan_sql(snapshot.storage, path, schema, files, exact=True)


@functools.lru_cache(maxsize=4096)
def _has_exactly(address: str, columns: tuple[ColumnSchema, ...]) -> bool:
    """Return whether a Parquet file has these columns with these types; data files of the lake never change."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_schema(address)
    except (OSError, pa.ArrowException):
        return False  # whoever reads it on the common path says what is wrong
    wanted = arrow_schema(columns)
    types = {field.name: field.type for field in found}
    return len(types) == len(found) and all(types.get(field.name) == field.type for field in wanted)


def undated_sql(session: Session, view: BoundView) -> str:
    """Return a SELECT of the number of rows that have no event timestamp, or an infinite one."""
    time = quote(view.event_timestamp)
    return session.prepare(f"select count(*) from {_from(view)} where not coalesce(isfinite({time}), false)")


def files_read(session: Session, view: BoundView, span: Span) -> Files:
    """Return how many files of the source's tables `rows_sql` reads and skips, as far as the lake's log tells.

    A SELECT as the source reads whole tables, as far as the log tells.
    """
    table = source_table(view)
    if table is None:
        return Files(sum(len(_files(session, name)) for name in _tables(session, view)), 0)
    files = _files(session, table)
    if table not in session.snapshot.tables:
        return Files(len(files), 0)
    kept = _kept(files, session.snapshot.schema(table), view, span)
    return Files(len(kept), len(files) - len(kept))


def _kept(files: Sequence[DataFile], schema: TableSchema, view: BoundView, span: Span) -> list[DataFile]:
    names = {column.name.lower(): column.name for column in schema.columns}
    column = names.get(view.event_timestamp.lower(), view.event_timestamp)
    return prune(files, schema, [Predicate(column, op, (moment,)) for op, moment in span.comparisons])


def _from(view: BoundView) -> str:
    whole = _WHOLE_TABLE.match(view.source)
    # A SELECT on the table itself: its conditions then choose files. The line end closes a comment.
    return whole[1] if whole else f"({view.source}\n) s"


def _where(view: BoundView, span: Span) -> str:
    conditions = [
        f"{quote(view.event_timestamp)} {op} timestamptz {quote_literal(_spelled(moment))}"
        for op, moment in span.comparisons
    ]
    return f" where {' and '.join(conditions)}" if conditions else ""


def _spelled(moment: dt.datetime) -> str:
    return f"{moment.replace(tzinfo=None).isoformat(sep=' ', timespec='microseconds')}+00"


def source_table(view: BoundView) -> TableName | None:
    """Return the table that a view's source is, all of it; None if the source is another SELECT."""
    whole = _WHOLE_TABLE.match(view.source)
    return TableName.parse(whole[1].replace('"', "")) if whole else None


def _tables(session: Session, view: BoundView) -> list[TableName]:
    from lakehouse.session.statement import parse

    statement = parse(session.connection.cursor(), view.source)
    paths = {use.path[-2:] for use in statement.uses if len(use.path) > 1} if statement else set()
    return sorted(TableName(schema.lower(), name.lower()) for schema, name in paths)


def _files(session: Session, table: TableName) -> Sequence[DataFile]:
    from lakehouse.sources import twin_table

    stored = twin_table(table.name) if table.schema == "lake" else table
    return session.snapshot.files(stored) if stored in session.snapshot.tables else ()
