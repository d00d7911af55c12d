"""The spine: the rows that features are asked for, read from whatever frame they come in, and checked.

Nothing is sorted, dropped or converted in the spine itself: its columns go into the answer as they are. What the
engines need of it are instants, keys, and a dense code per entity.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.frames import TOO_FINE, as_table, no_micros
from featurestore.keys import as_key, first_odd_text, is_text, plain
from featurestore.request import Asked
from lakehouse.errors import PenstockError, RequestError, near
from lakehouse.types import plural
from lakehouse.zones import as_timezone, to_utc

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DEFAULT_TIMESTAMP", "Entities", "Spine", "entities", "read_spine", "spine_keys"]

DEFAULT_TIMESTAMP = "event_timestamp"

_PER_UNIT = {"s": 1_000_000, "ms": 1_000}
_NANOS = 1_000
_MAX = 2**63 - 1
# Years 1 to 9999: what clocks of time zones are defined for.
_FIRST_LOCAL, _LAST_LOCAL = -62_135_596_800_000_000, 253_402_300_799_999_999
_SHOWN_ROWS = 5
_EXAMPLES = "2024-01-31T12:00:00Z, or 2024-01-31 12:00:00 without a zone"


@dataclass(frozen=True, slots=True)
class Spine:
    """What is asked about.

    Parameters
    ----------
    table
        The rows as given.
    timestamp
        The column that says when each row asks.
    instants
        That column as int64 µs since 1970 UTC; arbitrary where null.
    valid
        Where it is not null; None if nowhere.
    timezone
        The zone that was given for times without one.
    ambiguous
        How many of its local times occur twice; the earlier instant was taken.
    """

    table: pa.Table
    timestamp: str
    instants: NDArray[np.int64]
    valid: NDArray[np.bool_] | None
    timezone: str | None = None
    ambiguous: int = 0

    def __len__(self) -> int:
        return len(self.instants)


@dataclass(frozen=True, slots=True)
class Entities:
    """Which spine rows can have an answer, and about whom.

    Parameters
    ----------
    rows
        Places of the spine rows that have a key and an instant, ascending.
    codes
        For each of them the place of its key in ``keys``.
    instants
        For each of them its instant, µs.
    keys
        Each key that occurs, once; columns named as the view's join keys.
    impossible
        Columns of the spine with values that cannot be of their join key's type: column, that type, number of rows.
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    instants: NDArray[np.int64]
    keys: pa.Table
    impossible: tuple[tuple[str, str, int], ...] = ()


# -- reading --------------------------------------------------------------------------------------------------------


def read_spine(
    frame: Any,
    *,
    timestamp: str | None = None,
    timezone: str | zoneinfo.ZoneInfo | None = None,
    known_features: Collection[str] = (),
) -> Spine:
    """Return a frame as a spine.

    Parameters
    ----------
    frame
        pandas, polars, pyarrow or DuckDB, a query's result, anything that exports an Arrow stream, a dict of lists,
        or a list of dicts. Read once. A pandas index is left out.
    timestamp
        Name of the timestamp column; otherwise ``event_timestamp``, otherwise the only column of a timestamp type.
    timezone
        Zone of timestamps without one, by its IANA name; of two readings with the same clock time the earlier is meant.
    known_features
        Names that the answer will give to features.

    Raises
    ------
    RequestError
        If it is no table, two columns have one name, a column is called like a feature or its values have no exact
        equals in Arrow, the timestamp column cannot be told or is no timestamp, or its values have no exact instant
        in µs.
    """
    zone = _zone_name(timezone)
    table = as_table(frame)
    names = table.column_names
    if twice := {name for name in names if names.count(name) > 1}:
        raise RequestError(f"the spine has two columns called {min(twice)!r}", hint="Rename one of them.")
    taken = {name.lower() for name in known_features}
    if clash := [name for name in names if name.lower() in taken]:
        raise RequestError(f"the spine has a column called like a feature: {clash[0]!r}", hint="Rename it.")
    name = timestamp if timestamp is not None else _timestamp_name(table)
    if not isinstance(name, str):
        raise RequestError(f"timestamp cannot be {name!r}", hint="Name the column with the instants.")
    if name not in names:
        raise RequestError(f"the spine has no column {name!r}", hint=near(name, names, what="columns"))
    instants, valid, ambiguous = _instants(table.column(name), name, zone)
    return Spine(table, name, instants, valid, zone, ambiguous)


# -- the timestamp --------------------------------------------------------------------------------------------------


def _timestamp_name(table: pa.Table) -> str:
    import pyarrow as pa

    if DEFAULT_TIMESTAMP in table.column_names:
        return DEFAULT_TIMESTAMP
    candidates = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    if len(candidates) == 1:
        return str(candidates[0])
    if not candidates:
        raise RequestError(
            "the spine has no timestamp column",
            hint=f"Columns: {', '.join(f'{field.name} {field.type}' for field in table.schema) or 'none'}. Each row "
            "needs the instant as of which it asks; --timestamp, in Python timestamp=, names its column.",
        )
    raise RequestError(
        f"the spine has {len(candidates)} timestamp columns and none is called {DEFAULT_TIMESTAMP}",
        hint=f"Say which it is: --timestamp, in Python timestamp=; one of {', '.join(candidates)}.",
    )


def _instants(
    column: pa.ChunkedArray, name: str, timezone: str | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None, int]:
    """Return the instants of a column, where they are not null, and how many local times occur twice."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column), np.int64), np.zeros(len(column), np.bool_) if len(column) else None, 0
    if not pa.types.is_timestamp(kind):
        raise _no_timestamp(column, name)
    raw = column.cast(pa.int64()).fill_null(0).to_numpy().astype(np.int64, copy=False)
    valid = column.is_valid().to_numpy() if column.null_count else None
    instants, ambiguous = _micros(raw, kind.unit, name), 0
    if kind.tz is None:
        if timezone is None:
            raise RequestError(
                f"the times in {name!r} have no zone",
                hint="Say which clock they come from, e.g. UTC or America/New_York: --timezone, in Python timezone=.",
            )
        instants, ambiguous = _zoned(instants, valid, name, timezone)
    return instants, valid, ambiguous


def _no_timestamp(column: pa.ChunkedArray, name: str) -> RequestError:
    import pyarrow as pa

    kind = column.type
    shown = _odd_time(column) if is_text(kind) else ""
    if pa.types.is_date(kind):
        hint = "A date is no instant: cast it to a timestamp, and decide which moment of the day is meant."
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        hint = "A number has no unit: convert it to a timestamp first."
    else:
        hint = "Convert it to a timestamp first: in SQL with …::timestamptz, in pandas with to_datetime(…, utc=True)."
        if shown:
            hint = f"In files write it as {_EXAMPLES}, at most six digits behind the second. {hint}"
    return RequestError(f"the spine's timestamp column {name!r} is of type {kind}{shown}", hint=hint)


def _odd_time(texts: pa.ChunkedArray) -> str:
    """Return which is the first of texts that keeps them from all being times of one kind, "" if they are."""
    from lakehouse.grammar import LOCAL, ZONED

    if odd := first_odd_text(texts, f"{LOCAL}|{ZONED}"):
        return f": {odd[1]!r} in row {odd[0]} is no time"
    zoned, unzoned = first_odd_text(texts, LOCAL), first_odd_text(texts, ZONED)
    if zoned is None or unzoned is None:
        return ""
    if zoned < unzoned:
        return f": {unzoned[1]!r} in row {unzoned[0]} has no zone, though those before it do"
    return f": {zoned[1]!r} in row {zoned[0]} has a zone, though those before it don't"


def _zone_name(timezone: str | dt.tzinfo | None) -> str | None:
    if isinstance(timezone, zoneinfo.ZoneInfo):
        timezone = timezone.key
    if timezone is None:
        return None
    if not isinstance(timezone, str):
        raise RequestError(
            f"timezone cannot be {timezone!r}", hint='Name it as the IANA does, e.g. "UTC" or "America/New_York".'
        )
    try:
        as_timezone(timezone)
    except PenstockError as error:
        raise RequestError(error.what, hint=error.hint) from None
    return timezone


def _micros(raw: NDArray[np.int64], unit: str, name: str) -> NDArray[np.int64]:
    if unit == "us":
        return raw
    if unit == "ns":
        instants = raw // _NANOS
        bad = instants * _NANOS != raw
        what = TOO_FINE
    else:
        per = _PER_UNIT[unit]
        bad = (raw > _MAX // per) | (raw < -(_MAX // per))
        instants = np.where(bad, 0, raw) * per
        what = "a time too far away for microseconds"
    if bad.any():
        raise no_micros(int(np.argmax(bad)), name, what)
    return instants


def _zoned(
    local: NDArray[np.int64], valid: NDArray[np.bool_] | None, name: str, timezone: str
) -> tuple[NDArray[np.int64], int]:
    """Return the instants of local times, and how many of these occur twice."""
    rows = np.arange(len(local)) if valid is None else np.flatnonzero(valid)
    readings = local[rows]
    outside = (readings < _FIRST_LOCAL) | (readings > _LAST_LOCAL)
    if outside.any():
        raise RequestError(
            f"row {int(rows[np.argmax(outside)])} of the spine has a time outside of the years 1 to 9999 in {name!r}"
        )
    found = to_utc(readings, timezone)
    if found.missing is not None and found.missing.any():
        missing = rows[found.missing]
        shown = ", ".join(str(row) for row in missing[:_SHOWN_ROWS]) + (", …" if len(missing) > _SHOWN_ROWS else "")
        raise RequestError(
            f"{plural(len(missing), 'time')} in {name!r} never occurred in {timezone}: the clocks went forward "
            f"(row {shown})",
            hint="Correct them, or give times with a zone.",
        )
    instants = local.copy()
    instants[rows] = found.utc
    return instants, 0 if found.ambiguous is None else int(found.ambiguous.sum())


# -- keys -----------------------------------------------------------------------------------------------------------


def spine_keys(spine: Spine, asked: Asked) -> pa.Table:
    """Return the spine's keys in the types of a view's join keys, row for row, named as the join keys.

    A key that is null, or cannot be of the join key's type, is null: it matches nothing.

    Raises
    ------
    RequestError
        If a column is missing (near matches are listed), or of a kind that the join key is not (with both types).
    """
    import pyarrow as pa

    columns = {}
    for key, name in zip(asked.view.keys, asked.keys, strict=True):
        role = "" if key.name == name else f", which stands for its join key {key.name!r}"
        if name not in spine.table.column_names:
            raise RequestError(
                f"the spine has no column {name!r}{role}",
                where=f"feature view {asked.view.name!r}",
                hint=near(name, spine.table.column_names, what="columns of the spine"),
            )
        try:
            columns[key.name] = as_key(spine.table.column(name), key.type, what=f"the spine's column {name!r}{role}")
        except RequestError as error:
            raise RequestError(error.what, where=f"feature view {asked.view.name!r}", hint=error.hint) from None
    return pa.table(columns)


def entities(spine: Spine, asked: Asked) -> Entities:
    """Return the spine's rows that can have an answer from a view, with a dense code per key.

    Raises
    ------
    RequestError
        As `spine_keys`.
    """
    keys = spine_keys(spine, asked)
    usable = np.ones(len(spine), np.bool_) if spine.valid is None else spine.valid.copy()
    for column in keys.columns:
        if column.null_count:
            usable &= column.is_valid().to_numpy()
    rows = np.flatnonzero(usable)
    codes = np.zeros(len(rows), np.int64)
    first = rows[:1]
    for column in keys.columns:
        own = column.combine_chunks().take(rows).dictionary_encode()
        mixed = codes * max(len(own.dictionary), 1) + own.indices.to_numpy()
        # Dense again after each column, so that the product stays small.
        _, places, codes = np.unique(mixed, return_index=True, return_inverse=True)
        first = rows[places]
    distinct = keys.take(first) if keys.num_columns else keys
    return Entities(rows, codes, spine.instants[rows], distinct, tuple(_impossible(spine, asked, keys)))


def _impossible(spine: Spine, asked: Asked, keys: pa.Table) -> Iterator[tuple[str, str, int]]:
    """Yield the columns with values that became null because they cannot be of the key's type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for key, name, column in zip(asked.view.keys, asked.keys, keys.columns, strict=True):
        given = plain(spine.table.column(name))
        missing = given.null_count
        if pa.types.is_floating(given.type):  # what pandas makes of a gap
            missing = pc.sum(pc.is_null(given, nan_is_null=True)).as_py() or 0
        if column.null_count > missing:
            yield name, key.type, column.null_count - missing
