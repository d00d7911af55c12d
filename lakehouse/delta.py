"""One Delta table: its schema, its files at a version, and commits that are built on a given version.

Penstock writes data files itself (they were checked by its own gate) and commits only the actions, so no cast of
the Delta library ever touches a value.
"""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from lakehouse import delta_log
from lakehouse.errors import CatalogDamagedError, ForeignCommitError
from lakehouse.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

__all__ = [
    "ColumnSchema",
    "CommitRacedError",
    "DataFile",
    "TableSchema",
    "arrow_schema",
    "commit",
    "damaged_log",
    "files_at",
    "measure",
]

PUBLISH_KEY = "penstock.publish"

# Without these an ordinary commit would one day delete the log of versions that snapshots still name.
_PROPERTIES = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
_STATS_TEXT_LENGTH = 64


class ColumnSchema(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column of a table.

    Parameters
    ----------
    name
        As users type it.
    type
        As DuckDB spells it, e.g. ``DECIMAL(18,6)`` or ``TIMESTAMP WITH TIME ZONE``.
    nullable
        Whether nulls are allowed.
    comment
        One line for people.
    hidden
        Stored, but not part of ``select *``.
    """

    name: str
    type: str
    nullable: bool = True
    comment: str = ""
    hidden: bool = False


class TableSchema(msgspec.Struct, frozen=True, omit_defaults=True):
    """A table's columns in order, its partition columns, and the columns kept out of the log's statistics."""

    columns: tuple[ColumnSchema, ...]
    partition_by: tuple[str, ...] = ()
    no_stats: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All column names, hidden ones too."""
        return [column.name for column in self.columns]


class DataFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One Parquet file of a table, as the log knows it.

    Parameters
    ----------
    path
        Relative to the table's directory.
    size
        Bytes.
    rows
        Number of rows.
    partition
        Values of the partition columns as Delta writes them: text, or None for null.
    stats
        Per column: ``minValues``, ``maxValues``, ``nullCount``. Timestamps are cut to milliseconds and strings to 64
        characters, so a maximum may be up to one millisecond too small.
    """

    path: str
    size: int
    rows: int
    partition: dict[str, str | None] = {}
    stats: dict[str, dict[str, Any]] = {}


class CommitRacedError(Exception):
    """Another writer committed to the Delta table first. Internal: publishing re-reads the catalog and goes on."""


@functools.lru_cache(maxsize=256)
def arrow_schema(columns: tuple[ColumnSchema, ...]) -> pa.Schema:
    """Return the Arrow schema that DuckDB gives columns of these types."""
    import duckdb
    import pyarrow as pa

    from lakehouse.types import quote

    connection = duckdb.connect()
    try:
        connection.execute("set TimeZone = 'UTC'")
        exprs = ", ".join(f"cast(null as {column.type}) as {quote(column.name)}" for column in columns)
        schema = connection.sql(f"select {exprs} limit 0").to_arrow_table().schema
    finally:
        connection.close()
    return pa.schema([field.with_nullable(column.nullable) for field, column in zip(schema, columns, strict=True)])


def measure(
    storage: Storage,
    table_path: str,
    file_path: str,
    schema: TableSchema,
    partition: Mapping[str, str | None] | None = None,
) -> DataFile:
    """Return a finished Parquet file as the log shall know it, with statistics from its footer."""
    import pyarrow.parquet as pq

    address = storage.address(f"{table_path}/{file_path}")
    if storage.is_local:
        metadata = pq.read_metadata(address)
    else:
        with storage.open_read(f"{table_path}/{file_path}") as file:
            metadata = pq.read_metadata(file)
    return DataFile(
        path=file_path,
        size=storage.size(f"{table_path}/{file_path}"),
        rows=metadata.num_rows,
        partition=dict(partition or {}),
        stats=_footer_stats(metadata, frozenset(schema.no_stats)),
    )


def _footer_stats(metadata: Any, excluded: frozenset[str]) -> dict[str, dict[str, Any]]:
    """Merge the row groups' statistics of top-level columns; a column without complete ones is left out."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    broken: set[str] = set()
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            chunk = row_group.column(index)
            name = chunk.path_in_schema
            if name in excluded or metadata.schema.column(index).max_repetition_level:
                continue
            statistics = chunk.statistics
            if statistics is None or not statistics.has_null_count:
                broken.add(name)
                continue
            nulls[name] = nulls.get(name, 0) + statistics.null_count
            bounds = _bounds(statistics)
            if bounds is None:
                if statistics.null_count < chunk.num_values:
                    broken.add(name)
                continue
            low[name] = min(low.get(name, bounds[0]), bounds[0])
            high[name] = max(high.get(name, bounds[1]), bounds[1])
    top = set(metadata.schema.to_arrow_schema().names)
    low_out: dict[str, Any] = {}
    high_out: dict[str, Any] = {}
    for name in low.keys() & top - broken:
        lower, upper = _log_value(low[name]), _log_value(high[name])
        if isinstance(upper, str) and isinstance(high[name], str) and len(high[name]) > _STATS_TEXT_LENGTH:
            continue  # a cut maximum would be too small
        if lower is not None and upper is not None:
            low_out[name], high_out[name] = lower, upper
    return {
        "minValues": low_out,
        "maxValues": high_out,
        "nullCount": {name: count for name, count in nulls.items() if name in top and name not in broken},
    }


def _bounds(statistics: Any) -> tuple[Any, Any] | None:
    """Return the least and greatest value, or None where there are none or Python has none like them."""
    try:
        return (statistics.min, statistics.max) if statistics.has_min_max else None
    except OverflowError:
        return None  # infinite timestamps, and those beyond the year 9999


def _log_value(value: Any) -> Any:
    """Return a statistic as the Delta log spells it, or None where it has no exact spelling there."""
    spelled: Any
    match value:
        case bool() | bytes():
            spelled = None
        case float():
            spelled = value if math.isfinite(value) else None
        case str():
            spelled = value[:_STATS_TEXT_LENGTH]
        case dt.datetime():
            millis = value.isoformat(sep="T", timespec="milliseconds")
            spelled = millis[:23] + ("Z" if value.tzinfo else "")
        case dt.date():
            spelled = value.isoformat()
        case int() | decimal.Decimal():
            spelled = value
        case _:
            spelled = None
    return spelled


def files_at(storage: Storage, table_path: str, version: int) -> list[DataFile]:
    """Return the files of a table at a Delta version, by path.

    Raises
    ------
    CatalogDamagedError
        If the version cannot be opened.
    """
    return _files(_open(storage, table_path, version))


def _open(storage: Storage, table_path: str, version: int | None = None) -> DeltaTable:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        return DeltaTable(storage.address(table_path), version=version)
    except (DeltaError, TableNotFoundError, OSError) as error:
        # What the library says is meant for its authors.
        what = delta_log.fault(storage, table_path, version) or "its Delta log cannot be read"
        raise damaged_log(what, where=table_path) from error


def damaged_log(what: str, *, where: str) -> CatalogDamagedError:
    """Return the error about a table whose log is not what it should be, with the ways on."""
    return CatalogDamagedError(
        what,
        where=where,
        hint="Restore the file from a copy. Earlier snapshots may still be whole: penstock snapshots, then --as-of N.",
    )


def _files(table: DeltaTable) -> list[DataFile]:
    import pyarrow as pa

    actions = pa.table(table.get_add_actions(flatten=False)).to_pylist()
    files = []
    for action in actions:
        stats = {
            "minValues": _known(action.get("min")),
            "maxValues": _known(action.get("max")),
            "nullCount": _known(action.get("null_count")),
        }
        files.append(
            DataFile(
                path=action["path"],
                size=action["size_bytes"],
                rows=action["num_records"] or 0,
                partition={key: _partition_text(value) for key, value in (action.get("partition") or {}).items()},
                stats=stats,
            )
        )
    return sorted(files, key=lambda file: file.path)


def _known(values: Mapping[str, Any] | None) -> dict[str, Any]:
    spelled = {key: value if isinstance(value, str) else _log_value(value) for key, value in (values or {}).items()}
    return {key: value for key, value in spelled.items() if value is not None}


def _partition_text(value: Any) -> str | None:
    return None if value is None else value.isoformat() if isinstance(value, dt.date) else str(value)


def commit(
    storage: Storage,
    table_path: str,
    schema: TableSchema,
    *,
    mapped: int | None,
    files: Sequence[DataFile],
    info: Mapping[str, str],
    now: dt.datetime,
    supersede_foreign: bool = False,
) -> int:
    """Make ``files`` the whole content of the table, in a commit built on the mapped version, and return its version.

    Whatever lies in the log beyond the mapped version are commits that never got a catalog entry; the actions are
    the difference between the head's files and the wanted ones, so those commits are superseded, never adopted.

    Parameters
    ----------
    mapped
        The Delta version that the catalog maps the table to; None for a table that the catalog does not know.
    files
        The files that the table shall have afterwards.
    info
        Goes into the commit info; must hold `PUBLISH_KEY`.
    supersede_foreign
        Undo commits of others too; only for a user who asked for it.

    Raises
    ------
    CommitRacedError
        If another writer committed between our look at the head and our commit.
    ForeignCommitError
        If somebody who is not Penstock changed data beyond the mapped version.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import CommitFailedError

    address = storage.prepare(f"{table_path}/_delta_log/0").removesuffix("/_delta_log/0")
    if not DeltaTable.is_deltatable(address):
        if mapped is not None:
            what = delta_log.fault(storage, table_path, mapped) or "its Delta log cannot be read"
            raise damaged_log(what, where=table_path)
        _create(address, schema, info)
    table = _open(storage, table_path)
    if mapped is not None and table.version() < mapped:
        what = delta_log.fault(storage, table_path, mapped) or f"its Delta log ends before version {mapped}"
        raise damaged_log(what, where=table_path)
    if not supersede_foreign:
        _refuse_foreign(storage, table_path, table, mapped)
    if _differs(table, schema):
        table = _reset_schema(storage, table_path, table, schema, info)
    head = {file.path: file for file in _files(table)}
    wanted = {file.path: file for file in files}
    actions = [*_removals(head, wanted, now), *_additions(head, wanted, now)]
    base = table.version()
    if not actions:
        return base
    try:
        table.create_write_transaction(
            actions,
            mode="append",
            schema=table.schema(),
            partition_by=list(schema.partition_by),
            commit_properties=_properties(info),
        )
    except CommitFailedError as error:
        raise CommitRacedError(table_path) from error
    return base + 1  # without retries a commit lands on the next version or not at all


def _properties(info: Mapping[str, str]) -> Any:
    from deltalake import CommitProperties

    # A retry inside deltalake would rebase our removes over commits that we have not seen.
    return CommitProperties(custom_metadata=dict(info), max_commit_retries=0)


def _create(address: str, schema: TableSchema, info: Mapping[str, str]) -> None:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    shown = [name for name in schema.names if name not in schema.no_stats and name not in schema.partition_by]
    configuration = dict(_PROPERTIES)
    if schema.no_stats:
        # Names with commas or dots would need escapes that readers disagree about.
        configuration["delta.dataSkippingStatsColumns"] = ",".join(name for name in shown if name.isidentifier())
    try:
        DeltaTable.create(
            address,
            arrow_schema(schema.columns),
            mode="error",
            partition_by=list(schema.partition_by),
            configuration=configuration,
            commit_properties=_properties(info),
        )
    except DeltaError as error:
        if not DeltaTable.is_deltatable(address):
            raise
        raise CommitRacedError(address) from error


def _differs(table: DeltaTable, schema: TableSchema) -> bool:
    from deltalake import Schema

    return table.schema() != Schema.from_arrow(arrow_schema(schema.columns))


def _reset_schema(
    storage: Storage, table_path: str, table: DeltaTable, schema: TableSchema, info: Mapping[str, str]
) -> DeltaTable:
    """Overwrite with no files and the new schema; the append that follows re-adds what shall stay."""
    from deltalake.exceptions import CommitFailedError

    try:
        if "timestampNtz" in _features(schema, table):
            from deltalake import TableFeatures

            table.alter.add_feature(
                TableFeatures.TimestampWithoutTimezone,
                allow_protocol_versions_increase=True,
                commit_properties=_properties(info),
            )
            table = _open(storage, table_path)
        table.create_write_transaction(
            [],
            mode="overwrite",
            schema=arrow_schema(schema.columns),
            partition_by=list(schema.partition_by),
            commit_properties=_properties(info),
        )
    except CommitFailedError as error:
        raise CommitRacedError(table_path) from error
    return _open(storage, table_path)


def _features(schema: TableSchema, table: DeltaTable) -> set[str]:
    """Return the protocol features that a schema needs and the table does not have yet."""
    needed = {"timestampNtz"} if any("timestamp[us]" in str(f.type) for f in arrow_schema(schema.columns)) else set()
    return needed - set(table.protocol().writer_features or [])


def _removals(head: Mapping[str, DataFile], wanted: Mapping[str, DataFile], now: dt.datetime) -> list[Any]:
    from deltalake.transaction import RemoveAction

    stamp = int(now.timestamp() * 1000)
    return [
        RemoveAction(file.path, True, stamp, file.size, file.partition)
        for path, file in head.items()
        if path not in wanted
    ]


def _additions(head: Mapping[str, DataFile], wanted: Mapping[str, DataFile], now: dt.datetime) -> list[Any]:
    from deltalake.transaction import AddAction

    stamp = int(now.timestamp() * 1000)
    encoder = msgspec.json.Encoder(decimal_format="number")
    return [
        AddAction(
            path=file.path,
            size=file.size,
            partition_values=file.partition,
            modification_time=stamp,
            data_change=True,
            stats=encoder.encode({"numRecords": file.rows, **file.stats}).decode(),
        )
        for path, file in wanted.items()
        if path not in head
    ]


def _refuse_foreign(storage: Storage, table_path: str, table: DeltaTable, mapped: int | None) -> None:
    """Stop where a commit without a publish id changed data: it is somebody else's and never undone silently."""
    first = 0 if mapped is None else mapped + 1
    for version in range(first, table.version() + 1):
        try:
            actions = delta_log.actions(storage, table_path, version)
        except ValueError:
            what = f"somebody else wrote Delta version {version} of this table, and it cannot be read"
            raise damaged_log(what, where=table_path) from None
        ours = any(PUBLISH_KEY in action.get("commitInfo", {}) for action in actions)
        changed = any(
            action[kind].get("dataChange", True) for action in actions for kind in ("add", "remove") if kind in action
        )
        if not ours and changed:
            raise ForeignCommitError(
                f"somebody else changed this table: Delta version {version} was not written by Penstock",
                where=table_path,
            )
