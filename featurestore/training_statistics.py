"""A few numbers about each column of a training set; values only where they may be told."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from featurestore.training_manifest import ColumnStatistics

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["column_statistics"]


def column_statistics(
    table: pa.Table, hashes: Sequence[str], *, private: Collection[str] = ()
) -> tuple[ColumnStatistics, ...]:
    """Return the statistics of a table's columns, in order.

    Parameters
    ----------
    hashes
        The content hash of each column.
    private
        Columns of whose values nothing is told.
    """
    return tuple(
        _statistics(field.name, column, digest, private=field.name in private)
        for field, column, digest in zip(table.schema, table.columns, hashes, strict=True)
    )


def _statistics(name: str, column: pa.ChunkedArray, digest: str, *, private: bool) -> ColumnStatistics:
    import pyarrow as pa

    kind = str(column.type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    known: dict[str, Any] = {"private": True} if private else {**_numbers(column), **_range(column)}
    return ColumnStatistics(name, kind, column.null_count, digest, **known)


def _numbers(column: pa.ChunkedArray) -> dict[str, Any]:
    """Return mean and number of NaNs of a column of numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    floating = pa.types.is_floating(kind)
    if not (floating or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        return {}
    # Doubles from the start: sums of integers would overflow.
    numbers = column.cast(pa.float64(), safe=False)
    nans = pc.is_nan(numbers) if floating else None
    if nans is not None:
        numbers = numbers.filter(pc.invert(nans))
    mean = pc.mean(numbers).as_py()
    return {"mean": _told(mean), "nans": (pc.sum(nans).as_py() or 0) if nans is not None else 0}


def _range(column: pa.ChunkedArray) -> dict[str, Any]:
    """Return least and greatest of a column of numbers, dates or instants."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    ordered = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_date, pa.types.is_timestamp)
    if not any(is_kind(kind) for is_kind in ordered):
        return {}
    if pa.types.is_floating(kind):
        column = column.filter(pc.invert(pc.is_nan(column)))
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    found = pc.min_max(column)
    as_text = not (pa.types.is_integer(kind) or pa.types.is_floating(kind))
    low, high = (found[end].cast(pa.string()).as_py() if as_text else found[end].as_py() for end in ("min", "max"))
    return {"min": _told(low), "max": _told(high)}


def _told(value: Any) -> Any:
    """Return a number as JSON can say it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "Infinity" if value > 0 else "-Infinity" if value < 0 else "NaN"
    return value
