"""What every answer of the feature store must be, row by row, as plainly as it can be said.

Loops and whole numbers; no arrays, no SQL. Every engine and store equals it, cell for cell, offline and
online: an online answer at t (not before the generation's instant) is the offline answer at t on the generation's
snapshot.

Times are µs since 1970 UTC. History rows are dicts of Python values as `rows_of` reads them from Arrow.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import pyarrow as pa

from featurestore.binding import BoundFeature, BoundView, Windowed
from featurestore.statuses import STATUSES

PRESENT, NULL, EXPIRED, NOT_FOUND = "PRESENT", "NULL", "EXPIRED", "NOT_FOUND"

INFINITE = 2**63 - 1
"""The event timestamp "infinity"; its negative is "-infinity"."""

Row = Mapping[str, Any]
SpineRow = tuple[tuple[Any, ...], int | None]
"""The values of the join keys in the view's order, and the instant."""


class Cell(NamedTuple):
    """One value of an answer, and how it came about."""

    value: Any
    status: str


class SumOverflow(ArithmeticError):  # noqa: N818 - what happened, not what failed
    """A sum has more than 38 digits."""


# -- the answer -----------------------------------------------------------------------------------------------------


def answers(
    view: BoundView,
    rows: Sequence[Row],
    spine: Iterable[SpineRow],
    *,
    features: Sequence[str] | None = None,
    corrections: str = "known",
) -> list[list[Cell]]:
    """Return one list of cells per spine row, in order: the features asked for, or all."""
    wanted = [view.feature(name) for name in features or view.feature_names]
    answer = aggregated if view.is_aggregate else looked_up
    return [answer(view, rows, asked, wanted, corrections) for asked in spine]


def looked_up(
    view: BoundView, rows: Sequence[Row], asked: SpineRow, wanted: Sequence[BoundFeature], corrections: str
) -> list[Cell]:
    """Return the cells of one spine row where rows of the source are feature values."""
    candidates = visible(view, rows, asked, corrections)
    t = asked[1]
    if t is None or not candidates:
        return [Cell(None, NOT_FOUND) for _ in wanted]
    winner = max(candidates, key=lambda row: rank(view, row))
    if view.ttl is not None and (t - view.delay) - event(view, winner) > view.ttl:
        return [Cell(None, EXPIRED) for _ in wanted]
    values = [winner[feature.name] for feature in wanted]
    return [Cell(value, NULL if value is None else PRESENT) for value in values]


def aggregated(
    view: BoundView, rows: Sequence[Row], asked: SpineRow, wanted: Sequence[BoundFeature], corrections: str
) -> list[Cell]:
    """Return the cells of one spine row where rows of the source are events."""
    candidates = visible(view, rows, asked, corrections)
    t = asked[1]
    found = any(within(view, windowed_of(feature), candidates, t) for feature in view.features)
    cells = []
    for feature in wanted:
        value = aggregate(view, feature, within(view, windowed_of(feature), candidates, t))
        cells.append(Cell(value, NOT_FOUND if not found else NULL if value is None else PRESENT))
    return cells


# -- which rows -----------------------------------------------------------------------------------------------------


def visible(view: BoundView, rows: Sequence[Row], asked: SpineRow, corrections: str) -> list[Row]:
    """Return the rows of a spine row's key that are known at its instant, whatever their age."""
    key, t = asked
    if t is None or any(part is None for part in key):
        return []
    instant = t - view.delay
    found = []
    for row in rows:
        if tuple(row[column.name] for column in view.keys) != key or is_excluded(view, row):
            continue
        happened = event(view, row) < instant if view.closed_left else event(view, row) <= instant
        if happened and (corrections == "latest" or view.created_timestamp is None or created(view, row) <= t):
            found.append(row)
    return found


def within(view: BoundView, windowed: Windowed, candidates: Sequence[Row], t: int | None) -> list[Row]:
    """Return the events of a window at t, among those that are visible then."""
    if t is None:
        return []
    start = window_start(t - view.delay, windowed.window, windowed.hop)
    if view.closed_left:
        return [row for row in candidates if event(view, row) >= start]
    return [row for row in candidates if event(view, row) > start]


def window_start(instant: int, window: int, hop: int | None) -> int:
    """Return where a window begins: rounded down to its hop, if it has one."""
    start = instant - window
    return start if hop is None else start // hop * hop


def is_excluded(view: BoundView, row: Row) -> bool:
    """Return whether a row has no time at which it happened."""
    happened = micros_of(row[view.event_timestamp])
    return happened is None or abs(happened) >= INFINITE


def excluded(view: BoundView, rows: Sequence[Row]) -> int:
    """Return how many rows have no time at which they happened."""
    return sum(is_excluded(view, row) for row in rows)


def event(view: BoundView, row: Row) -> int:
    """Return when a row happened."""
    happened = micros_of(row[view.event_timestamp])
    if happened is None:
        raise ValueError("rows without an event timestamp are excluded")
    return happened


def created(view: BoundView, row: Row) -> int:
    """Return when a row was written: when it happened, where nobody says."""
    written = None if view.created_timestamp is None else micros_of(row[view.created_timestamp])
    return event(view, row) if written is None else written


# -- order ----------------------------------------------------------------------------------------------------------


def rank(view: BoundView, row: Row) -> list[Any]:
    """Return what decides between two candidates: the greater wins."""
    ties = [row[column.name] for column in view.tie_breaker]
    features = [row[feature.name] for feature in view.features]
    return [event(view, row), created(view, row), *(order(value) for value in (*ties, *features))]


def order(value: Any) -> tuple[Any, ...]:
    """Return the place of a value among those of its type: null lowest, NaN highest, −0.0 below 0.0, text by bytes."""
    if value is None:
        return (0,)
    if isinstance(value, float):
        return (2,) if math.isnan(value) else (1, value, math.copysign(1.0, value))
    return (1, value.encode()) if isinstance(value, str) else (1, value)


# -- aggregates -----------------------------------------------------------------------------------------------------


def windowed_of(feature: BoundFeature) -> Windowed:
    """Return how a feature of a view of aggregates is computed."""
    if feature.windowed is None:
        raise ValueError(f"{feature.name} is no aggregate")
    return feature.windowed


def aggregate(view: BoundView, feature: BoundFeature, events: Sequence[Row]) -> Any:
    """Return the value of an aggregate over the events of its window."""
    windowed = windowed_of(feature)
    if windowed.column is None:
        return len(events)
    column = next(column for column in view.inputs if column.name == windowed.column)
    values = [row[windowed.column] for row in events if row[windowed.column] is not None]
    if windowed.function == "count":
        return len(values)
    if not values:
        return None
    return {"sum": total, "mean": mean, "min": least, "max": greatest}[windowed.function](values, scale_of(column.type))


def total(values: Sequence[Any], scale: int) -> Decimal:
    """Return the exact sum as decimal(38, scale)."""
    digits = sum(unscaled(value, scale) for value in values)
    if abs(digits) >= 10**38:
        raise SumOverflow(f"{digits} e-{scale}")
    return Decimal((int(digits < 0), tuple(int(digit) for digit in str(abs(digits))), -scale))


def mean(values: Sequence[Any], scale: int) -> float:
    """Return the double nearest to the exact mean."""
    return sum(unscaled(value, scale) for value in values) / (len(values) * 10**scale)


def least(values: Sequence[Any], _: int) -> Any:
    """Return the first value in order."""
    return min(values, key=order)


def greatest(values: Sequence[Any], _: int) -> Any:
    """Return the last value in order."""
    return max(values, key=order)


def unscaled(value: Any, scale: int) -> int:
    """Return an integer, or a decimal as a count of its last digit."""
    exact = Fraction(value) * 10**scale
    if exact.denominator != 1:
        raise ValueError(f"{value!r} has more than {scale} decimal places")
    return exact.numerator


def scale_of(duckdb_type: str) -> int:
    """Return how many digits of a type lie behind the point."""
    return int(duckdb_type.partition(",")[2].rstrip(")") or 0) if duckdb_type.startswith("DECIMAL") else 0


# -- reading, and comparing -----------------------------------------------------------------------------------------


def micros_of(value: Any) -> int | None:
    """Return an instant in µs: integers are that already."""
    if value is None or isinstance(value, int):
        return value
    if value.tzinfo is None:
        raise ValueError(f"{value} has no zone")
    return (value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def rows_of(*tables: pa.Table) -> list[Row]:
    """Return the rows of Arrow tables; times that Python cannot hold (infinite ones) are integers, in µs."""
    return [row for table in tables for row in _rows(table)]


def _rows(table: pa.Table) -> list[Row]:
    columns = [python_values(column) for column in table.columns]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def python_values(column: Any) -> list[Any]:
    """Return the values of an Arrow array as Python ones; times that Python cannot hold are integers, in µs."""
    return [_python(scalar) for scalar in column]


def _python(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        return scalar.value


def spine_of(spine: pa.Table, keys: Sequence[str], timestamp: str) -> list[SpineRow]:
    """Return a spine's rows as `answers` takes them."""
    return [(tuple(row[key] for key in keys), micros_of(row[timestamp])) for row in rows_of(spine)]


def cells_of(columns: Sequence[Any], statuses: Sequence[Sequence[int]]) -> list[list[Cell]]:
    """Return an engine's answer, a column and status codes per feature, as one list of cells per spine row."""
    features = [
        [Cell(value, STATUSES[code]) for value, code in zip(python_values(column), codes, strict=True)]
        for column, codes in zip(columns, statuses, strict=True)
    ]
    return [list(row) for row in zip(*features, strict=True)]


def same(a: Any, b: Any) -> bool:
    """Return whether two values are one, to the last bit: NaN is NaN, −0.0 is not 0.0, 1 is neither 1.0 nor true."""
    if a is None or b is None:
        return a is b
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1.0, a) == math.copysign(1.0, b))
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    if isinstance(a, dt.datetime):
        return (a.tzinfo is None) == (b.tzinfo is None) and a == b
    return bool(a == b)


def differences(
    expected: Sequence[Sequence[Cell]], got: Sequence[Sequence[Cell]], spine: Sequence[SpineRow]
) -> list[str]:
    """Return a line for each cell that differs, for messages of tests; empty where the answers are one."""
    if len(expected) != len(got):
        return [f"{len(got)} rows instead of {len(expected)}"]
    lines = []
    for number, (left, right, asked) in enumerate(zip(expected, got, spine, strict=True)):
        if len(left) != len(right):
            lines.append(f"row {number} {asked}: {len(right)} features instead of {len(left)}")
            continue
        for place, (a, b) in enumerate(zip(left, right, strict=True)):
            if not (same(a[0], b[0]) and a[1] == b[1]):
                lines.append(f"row {number} {asked}, feature {place}: {tuple(b)} instead of {tuple(a)}")
    return lines
