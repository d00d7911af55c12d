"""From a table's files and schema to the DuckDB SQL that reads them, and which files a predicate can skip.

DuckDB's own Parquet reader does the reading; this module only writes the text. Names of files go in as structs, so
that glob characters in them stay what they are.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from lakehouse.delta import ColumnSchema, DataFile, TableSchema
from lakehouse.storage import Storage
from lakehouse.types import quote, quote_literal

__all__ = ["Operator", "Predicate", "prune", "scan_sql"]

Operator: TypeAlias = Literal["=", "<", "<=", ">", ">=", "in", "is null", "is not null"]

# A branch of a UNION ALL costs DuckDB about a millisecond; a join on the file index costs more once, but only once.
_BRANCHES = 32
# Delta statistics are cut here by other writers too, so a maximum this long may be too small.
_STATS_TEXT_LENGTH = 64
_STATS_STEP = dt.timedelta(milliseconds=1)
_EXACT = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT"})

_Key: TypeAlias = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition on one column that every row which matters fulfils.

    Parameters
    ----------
    column
        The column, spelled as in the schema.
    op
        The comparison. As in SQL, a null fulfils only ``is null``.
    values
        Python values: one for a comparison, any number for ``in``, none for the null tests. Numbers for numeric
        columns (a float means that DuckDB compares as DOUBLE), text for VARCHAR, naive times or dates for DATE and
        TIMESTAMP, zoned times for TIMESTAMP WITH TIME ZONE. Values of another kind skip nothing.
    """

    column: str
    op: Operator
    values: tuple[Any, ...] = ()


# -- text of a scan ---------------------------------------------------------------------------------------------------


def scan_sql(
    storage: Storage,
    table_path: str,
    schema: TableSchema,
    files: Sequence[DataFile],
    *,
    hidden: bool = False,
    exact: bool = False,
) -> str:
    """Return a SELECT over the files: the schema's columns in order, with exactly its types.

    Columns that a file lacks read as null, narrower types of older files are widened, partition columns come from
    the log. Rows come in the order of the files within each partition.

    Parameters
    ----------
    table_path
        The table's directory, relative to the lake's root.
    hidden
        Include hidden columns.
    exact
        The caller has seen that each file has all the stored columns with exactly these types: DuckDB then reads in
        half the time where a join leaves few rows, as it pushes no filter of a join into a read with a given schema.
    """
    shown = tuple(column for column in schema.columns if hidden or not column.hidden)
    if not files:
        nothing = ", ".join(f"cast(null as {column.type}) as {quote(column.name)}" for column in shown)
        return f"select {nothing} where false"
    scan = _Scan(storage, table_path, schema, shown, exact)
    partitions: dict[tuple[str | None, ...], list[DataFile]] = {}
    for file in files:
        key = tuple(file.partition.get(name) for name in schema.partition_by)
        partitions.setdefault(key, []).append(file)
    if len(partitions) > _BRANCHES and not any(column.name.lower() == "file_index" for column in scan.stored):
        return scan.joined(files)
    return "\nunion all\n".join(scan.branch(key, group) for key, group in partitions.items())


@dataclass(frozen=True, slots=True)
class _Scan:
    """What all branches of one scan share."""

    storage: Storage
    table_path: str
    schema: TableSchema
    shown: tuple[ColumnSchema, ...]
    exact: bool

    @property
    def stored(self) -> list[ColumnSchema]:
        """The columns that the files themselves hold."""
        return [column for column in self.schema.columns if column.name not in self.schema.partition_by]

    def branch(self, key: Sequence[str | None], files: Sequence[DataFile]) -> str:
        """Return the SELECT over the files of one partition: its values are constants."""
        partition = dict(zip(self.schema.partition_by, key, strict=True))
        columns = [
            f"{_partition_constant(column, partition[column.name])} as {quote(column.name)}"
            if column.name in partition
            else self._stored_column(column, files)
            for column in self.shown
        ]
        return f"select {', '.join(columns)} from {self._reader(files)}"

    def joined(self, files: Sequence[DataFile]) -> str:
        """Return one SELECT over all files that finds the partition values by the place of the file."""
        by_name = {column.name: column for column in self.schema.columns}
        keys = [by_name[name] for name in self.schema.partition_by]
        rows = [
            f"({', '.join([str(place), *(_partition_constant(key, file.partition.get(key.name)) for key in keys)])})"
            for place, file in enumerate(files)
        ]
        columns = [
            f"p.{quote(column.name)}" if column in keys else self._stored_column(column, files) for column in self.shown
        ]
        names = ", ".join(["file_place", *(quote(key.name) for key in keys)])
        return (
            f"select {', '.join(columns)} from {self._reader(files)} f\n"
            f"join (values {', '.join(rows)}) p({names}) on f.file_index = p.file_place"
        )

    @staticmethod
    def _stored_column(column: ColumnSchema, files: Sequence[DataFile]) -> str:
        """Return the column, hidden from DuckDB's own use of Parquet statistics where that would lose rows.

        Most writers leave NaN out of the statistics, and DuckDB then skips row groups for ``x > 5`` although NaN is
        greater. A CASE passes no statistics on. Files whose log has no maximum for the column have none either.
        """
        name = quote(column.name)
        floating = column.type in ("FLOAT", "DOUBLE")
        if floating and any(column.name in file.stats.get("maxValues", {}) for file in files):
            return f"case when {name} is null then null else {name} end as {name}"
        return name

    def _reader(self, files: Sequence[DataFile]) -> str:
        paths = ", ".join(
            f"{{filename: {quote_literal(self.storage.address(f'{self.table_path}/{file.path}'))}}}" for file in files
        )
        if self.exact:
            return f"read_parquet([{paths}], hive_partitioning = false)"
        fields = ", ".join(
            f"{quote_literal(column.name)}: {{name: {quote_literal(column.name)}, type: {quote_literal(column.type)}, "
            "default_value: null}"
            for column in self.stored
        )
        return f"read_parquet([{paths}], schema = MAP {{{fields}}})"


def _partition_constant(column: ColumnSchema, text: str | None) -> str:
    if text is None:
        return f"cast(null as {column.type})"
    if column.type == "TIMESTAMP WITH TIME ZONE" and not _has_zone(text):
        text += "+00"  # Delta writes UTC without saying so; the session's zone must not matter
    return f"cast({quote_literal(text)} as {column.type})"


def _has_zone(text: str) -> bool:
    return text.endswith("Z") or "+" in text or "-" in text[11:]


# -- which files can match --------------------------------------------------------------------------------------------


def prune(files: Sequence[DataFile], schema: TableSchema, predicates: Sequence[Predicate]) -> list[DataFile]:
    """Return the files that may hold a row which fulfils all predicates, in their order.

    Judges by partition values and by the log's statistics; a file without statistics may match. Never drops a file
    with a matching row.
    """
    types = {column.name: column.type for column in schema.columns}
    known = [predicate for predicate in predicates if predicate.column in types]
    return [file for file in files if all(_may_match(file, schema, types[p.column], p) for p in known)]


def _may_match(file: DataFile, schema: TableSchema, column_type: str, predicate: Predicate) -> bool:
    if predicate.column in schema.partition_by:
        return _partition_matches(file.partition.get(predicate.column), column_type, predicate)
    nulls = file.stats.get("nullCount", {}).get(predicate.column)
    if predicate.op == "is null":
        return nulls is None or nulls > 0
    if file.rows == 0 or (nulls is not None and nulls >= file.rows):
        return False
    if predicate.op == "is not null":
        return True
    low = file.stats.get("minValues", {}).get(predicate.column)
    high = file.stats.get("maxValues", {}).get(predicate.column)
    return any(_range_matches(low, high, column_type, predicate.op, value) for value in predicate.values)


def _partition_matches(text: str | None, column_type: str, predicate: Predicate) -> bool:
    if predicate.op in ("is null", "is not null"):
        return (text is None) == (predicate.op == "is null")
    if text is None:
        return False
    typed = _partition_value(text, column_type)
    # A partition is a file whose smallest and greatest value are the same, and exact.
    return any(
        _within(_key(column_type, typed), _key(column_type, typed), predicate.op, _key(column_type, value))
        for value in predicate.values
    )


def _partition_value(text: str, column_type: str) -> Any:
    """Return a partition's value where its text has one sure meaning, else None, which matches everything."""
    try:
        if column_type == "VARCHAR":
            return text
        if column_type in ("DATE", "TIMESTAMP"):
            return dt.datetime.fromisoformat(text)
        if column_type == "TIMESTAMP WITH TIME ZONE":
            instant = dt.datetime.fromisoformat(text)
            return instant if instant.tzinfo else instant.replace(tzinfo=dt.UTC)
        if _is_exact(column_type):
            return Decimal(text)
    except (ValueError, ArithmeticError):
        return None
    return None


def _range_matches(low: Any, high: Any, column_type: str, op: Operator, value: Any) -> bool:
    sought = _key(column_type, value)
    if sought is None:
        return True
    lower, upper = _lower_bound(column_type, low), _upper_bound(column_type, high)
    if column_type in ("FLOAT", "DOUBLE"):
        lower, upper = _loosened(lower, upper, relative=1e-6 if column_type == "FLOAT" else 1e-14)
        if op in (">", ">="):
            upper = None  # NaN is greater than everything, and statistics do not count it
    elif isinstance(value, float):
        lower, upper = _loosened(lower, upper, relative=1e-14)  # DuckDB compares as DOUBLE, which rounds
    return _within(lower, upper, op, sought)


def _within(lower: _Key | None, upper: _Key | None, op: Operator, sought: _Key | None) -> bool:
    """Return whether some value between the bounds (None: unknown) may stand in that relation to the sought one."""
    if sought is None:
        return True
    kind, value = sought
    low = lower[1] if lower and lower[0] == kind else None
    high = upper[1] if upper and upper[0] == kind else None
    not_above = low is None or (low < value if op == "<" else low <= value)
    not_below = high is None or (high > value if op == ">" else high >= value)
    match op:
        case "<" | "<=":
            return not_above
        case ">" | ">=":
            return not_below
        case _:
            return not_above and not_below


def _lower_bound(column_type: str, value: Any) -> _Key | None:
    key = _key(column_type, _parsed(column_type, value))
    return _shifted(key, -_STATS_STEP)


def _upper_bound(column_type: str, value: Any) -> _Key | None:
    if isinstance(value, str) and column_type == "VARCHAR" and len(value) >= _STATS_TEXT_LENGTH:
        return None
    key = _key(column_type, _parsed(column_type, value))
    return _shifted(key, _STATS_STEP)


def _parsed(column_type: str, value: Any) -> Any:
    """Return a statistic as a Python value: the log spells times as text, in UTC where they have a zone."""
    if not isinstance(value, str) or column_type == "VARCHAR":
        return value
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    if column_type == "TIMESTAMP WITH TIME ZONE" and moment.tzinfo is None:
        return moment.replace(tzinfo=dt.UTC)
    return moment


def _shifted(key: _Key | None, step: dt.timedelta) -> _Key | None:
    if key is None or not isinstance(key[1], dt.datetime):
        return key
    try:
        return key[0], key[1] + step
    except OverflowError:
        return None


def _loosened(lower: _Key | None, upper: _Key | None, *, relative: float) -> tuple[_Key | None, _Key | None]:
    """Widen bounds by more than any rounding between DECIMAL, FLOAT and DOUBLE can move a value."""

    def moved(key: _Key | None, sign: int) -> _Key | None:
        if key is None:
            return None
        try:
            value = float(key[1])
        except OverflowError:
            return None
        return key[0], value + sign * (abs(value) * relative + 1e-44)

    return moved(lower, -1), moved(upper, 1)


def _is_exact(column_type: str) -> bool:
    return column_type in _EXACT or column_type.startswith("DECIMAL")


def _key(column_type: str, value: Any) -> _Key | None:
    """Return a value with its kind, so that only comparable ones are compared; None where nothing is sure."""
    match value:
        case bool():
            return None
        case int() | float() | Decimal():
            numeric = _is_exact(column_type) or column_type in ("FLOAT", "DOUBLE")
            return ("number", value) if numeric and not math.isnan(value) else None
        case str():
            return ("text", value) if column_type == "VARCHAR" else None
        case dt.datetime():
            return _moment_key(column_type, value)
        case dt.date():
            return _moment_key(column_type, dt.datetime.combine(value, dt.time()))
    return None


def _moment_key(column_type: str, value: dt.datetime) -> _Key | None:
    if value.tzinfo is None:
        return ("local", value) if column_type in ("DATE", "TIMESTAMP") else None
    return ("instant", value.astimezone(dt.UTC)) if column_type == "TIMESTAMP WITH TIME ZONE" else None
