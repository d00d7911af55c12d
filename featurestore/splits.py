"""Cutting a training set by time: the past to learn from, the future to be judged by.

A part begins at an instant: rows before the first cutoff train, rows from it on validate or test. Rows of one instant
are never on two sides, so what is learnt can't have seen any row that is judged, nor one of the same moment.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurestore.training_manifest import FORMAT, SplitRecord
from lakehouse.errors import RequestError
from lakehouse.types import parse_instant, plural, utc_text

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.result import QueryResult

__all__ = ["At", "Cutoffs", "Split", "cut", "parts", "record", "record_text", "time_cutoffs"]

At = dt.datetime | str
"""An instant: a datetime with a zone, or ISO 8601 text (UTC if it has no zone)."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICRO = dt.timedelta(microseconds=1)
_DEFAULT_TEST = 0.2
_SIDES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """The first instants of the parts, UTC; None where there is no such part.

    A row at t is in the test part if t ≥ ``test``, else in the validation part if t ≥ ``validation``, else it trains.
    """

    validation: dt.datetime | None
    test: dt.datetime | None


@dataclass(frozen=True)
class Split:
    """The parts of a training set. Each has its rows in the order of the set; every row is in exactly one.

    Parameters
    ----------
    train, validation, test
        Read them as any result: ``.to_arrow()``, ``.to_polars()``, ``.to_pandas()``.
    cutoffs
        Where the parts begin.
    rows
        The rows of each part.
    """

    train: QueryResult
    validation: QueryResult
    test: QueryResult
    cutoffs: Cutoffs
    rows: dict[str, int]

    def __repr__(self) -> str:
        counts = ", ".join(f"{side} {self.rows[side]:,}" for side in _SIDES)
        begin = (("validation", self.cutoffs.validation), ("test", self.cutoffs.test))
        starts = "".join(f"; {side} from {utc_text(at)} on" for side, at in begin if at is not None)
        return f"Split({counts} rows{starts})"


# -- where to cut ---------------------------------------------------------------------------------------------------


def parts(
    instants: NDArray[np.int64],
    *,
    test: float | None = None,
    validation: float = 0.0,
    at: At | Sequence[At] | None = None,
) -> tuple[Cutoffs, dict[str, str]]:
    """Return where to cut, and what was asked for, as it is recorded.

    Parameters
    ----------
    instants
        Of the rows, µs since 1970 UTC.
    test, validation
        Fractions of the rows; ``test`` is 0.2 if nothing is said. See `time_cutoffs`.
    at
        The first instant of the test part, or a pair: the first instants of the validation and of the test part.
        Parts may then be empty.

    Raises
    ------
    RequestError
        If what is asked for can't be.
    """
    if at is None:
        share = _DEFAULT_TEST if test is None else test
        cutoffs = time_cutoffs(instants, test=share, validation=validation)
        return cutoffs, {"test": str(share), "validation": str(validation)}
    if test is not None or validation:
        raise RequestError("a split is asked for by fractions or by instants, not both", hint="Leave one of them out.")
    given: Sequence[At] = at if isinstance(at, Sequence) and not isinstance(at, str) else [at]
    moments = [_instant(one) for one in given]
    match moments:
        case [first]:
            return Cutoffs(None, first), {}
        case [first, second] if first < second:
            return Cutoffs(first, second), {}
    raise RequestError(
        "at= takes the instant at which the test part begins, or two ascending ones: where validation and test begin"
    )


def time_cutoffs(instants: NDArray[np.int64], *, test: float, validation: float) -> Cutoffs:
    """Return the cutoffs that give the later parts at least their fractions of the rows.

    With n rows in the order of time, the test part begins at the instant of row n - ⌈test · n⌉ (counted from 0), the
    validation part at that of row n - ⌈(test + validation) · n⌉. Rows of exactly a cutoff are in the part that begins
    there, so ties make the later part greater than asked for, never smaller. Fractions are taken as they are written:
    0.2 of 5 rows is one row.

    Raises
    ------
    RequestError
        If the fractions leave nothing to learn from, or so many rows are of one instant that a part would be empty.
    """
    shares = {"test": _fraction("test", test), "validation": _fraction("validation", validation)}
    if not 0 < sum(shares.values()) < 1:
        left = "leave nothing to learn from" if any(shares.values()) else "split nothing off"
        raise RequestError(f"test={test} and validation={validation} {left}", hint="Their sum is between 0 and 1.")
    if not len(instants):
        raise RequestError("a training set without rows can't be split")
    ordered = np.sort(instants)
    starts: dict[str, int] = {}
    share = Fraction(0)
    for side in ("test", "validation"):
        share += shares[side]
        if shares[side]:
            starts[side] = int(ordered[len(ordered) - math.ceil(share * len(ordered))])
    _refuse_empty(ordered, starts)
    return Cutoffs(*(_moment(starts.get(side)) for side in ("validation", "test")))


def _fraction(name: str, value: float) -> Fraction:
    try:
        share = Fraction(str(value))
    except ValueError:
        share = Fraction(-1)
    if not 0 <= share < 1:
        raise RequestError(f"{name}={value} is no fraction of the rows", hint="Such as 0.2: from 0 on, below 1.")
    return share


def _refuse_empty(ordered: NDArray[np.int64], starts: dict[str, int]) -> None:
    bounds = [starts[side] for side in ("validation", "test") if side in starts]
    if ordered[0] < bounds[0] and len(set(bounds)) == len(bounds):
        return
    empty = "train" if ordered[0] >= bounds[0] else "validation"
    distinct = plural(len(np.unique(ordered)), "instant")
    raise RequestError(
        f"the {empty} part would be empty: {plural(len(ordered), 'row')} at {distinct}, and rows of one instant stay "
        "together",
        hint="Ask for other fractions, or say where to cut: at=….",
    )


def _moment(micros: int | None) -> dt.datetime | None:
    if micros is None:
        return None
    try:
        return _EPOCH + micros * _MICRO
    except OverflowError:
        raise RequestError(
            "the cutoff would lie outside of the years 1 to 9999", hint="Say where to cut: at=…."
        ) from None


def _instant(value: At) -> dt.datetime:
    if isinstance(value, str):
        return parse_instant(value)
    if not isinstance(value, dt.datetime):
        raise RequestError(f"at={value!r} is no instant", hint="Give a datetime with a zone, or ISO 8601 text.")
    if value.tzinfo is None:
        raise RequestError(f"at={value}: a time without a zone", hint="Give it one, e.g. tzinfo=datetime.UTC.")
    return value.astimezone(dt.UTC)


# -- cutting --------------------------------------------------------------------------------------------------------


def cut(table: pa.Table, instants: NDArray[np.int64], cutoffs: Cutoffs) -> Split:
    """Return the parts of a table.

    Parameters
    ----------
    instants
        Of the table's rows, µs since 1970 UTC.
    """
    import pyarrow as pa

    from lakehouse.result import QueryResult

    side = np.zeros(len(instants), np.uint8)
    for number, start in ((1, cutoffs.validation), (2, cutoffs.test)):
        if start is not None:
            side[instants >= (start - _EPOCH) // _MICRO] = number
    tables = [table.filter(pa.array(side == number)) for number in range(len(_SIDES))]
    rows = {name: part.num_rows for name, part in zip(_SIDES, tables, strict=True)}
    train, validation, test = (QueryResult.from_table(part) for part in tables)
    return Split(train, validation, test, cutoffs, rows)


def record(split: Split, asked: dict[str, str]) -> SplitRecord:
    """Return what is kept of a split beside the manifest."""
    validation, test = (None if at is None else utc_text(at) for at in (split.cutoffs.validation, split.cutoffs.test))
    return SplitRecord(FORMAT, FORMAT, "time", validation, test, asked, split.rows)


def record_text(kept: SplitRecord) -> str:
    """Return one line about a split for people."""
    counts = ", ".join(f"{side} {kept.rows[side]:,}" for side in _SIDES if side != "validation" or kept.rows[side])
    starts = (("validation", kept.validation_from), ("test", kept.test_from))
    begin = ", ".join(f"{side} from {at}" for side, at in starts if at is not None)
    return f"by {kept.kind}: {counts} rows; {begin}"
