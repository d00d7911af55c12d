"""The point-in-time join of views whose rows are feature values: which row wins at which instant.

A row is a candidate from the instant on at which it is visible, and the greatest candidate wins: by event timestamp,
created timestamp, tie breakers, and all features in the order of definition. The kernel here finds the winner's
times; rows that tie in both are told apart by SQL, among the few rows that are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featurestore.binding import BoundView, Column
from featurestore.slots import Slots
from lakehouse.types import quote

__all__ = [
    "Corrections",
    "Winners",
    "Winning",
    "created_micros",
    "event_micros",
    "is_dated",
    "order_columns",
    "order_terms",
    "visible_from",
    "visible_from_micros",
]

Corrections = Literal["known", "latest"]

_MIN, _MAX = -(2**63), 2**63 - 1
_FLOATS = ("FLOAT", "DOUBLE")


# -- in SQL ---------------------------------------------------------------------------------------------------------


def is_dated(view: BoundView, table: str = "s") -> str:
    """Return the condition that a row of the source has an event timestamp; others are excluded."""
    return f"isfinite({table}.{quote(view.event_timestamp)})"


def event_micros(view: BoundView, table: str = "s") -> str:
    """Return a row's event timestamp as BIGINT µs since 1970 UTC; only for rows that have one."""
    return f"epoch_us({table}.{quote(view.event_timestamp)})"


def created_micros(view: BoundView, table: str = "s") -> str:
    """Return when a row was written, as BIGINT µs since 1970 UTC: a null counts as the event timestamp."""
    if view.created_timestamp is None:
        return event_micros(view, table)
    created = f"{table}.{quote(view.created_timestamp)}"
    return (
        f"case when isfinite({created}) then epoch_us({created}) when {created} = 'infinity' then {_MAX} "
        f"when {created} = '-infinity' then {-_MAX} else {event_micros(view, table)} end"
    )


def visible_from(view: BoundView, table: str = "s", *, corrections: Corrections = "known") -> str:
    """Return the first instant at which a row is visible, as BIGINT µs since 1970 UTC.

    That is max(event timestamp + delay, one µs later where closed left; created timestamp if there is one), or the
    greatest BIGINT where the sum is greater.
    """
    shift = view.delay + view.closed_left
    event = event_micros(view, table)
    known = f"least({event}::hugeint + {shift}, {_MAX})::bigint" if shift else event
    if view.created_timestamp is None or corrections == "latest":
        return known
    return f"greatest({known}, {created_micros(view, table)})"


def order_columns(view: BoundView) -> tuple[Column, ...]:
    """Return the columns that decide between rows of the same times, most significant first, without repeats."""
    features = (Column(feature.name, feature.type) for feature in view.features)
    return tuple({column.name: column for column in (*view.tie_breaker, *features)}.values())


def order_terms(view: BoundView, table: str = "s", *, times: bool = True) -> list[str]:
    """Return the terms of the ORDER BY that puts the winner first among an entity's visible rows.

    Parameters
    ----------
    times
        Begin with the event and created timestamp; False where these are equal anyway.
    """
    terms = []
    if times:
        terms.append(f"{event_micros(view, table)} desc")
        if view.created_timestamp is not None:
            terms.append(f"{created_micros(view, table)} desc")
    for column in order_columns(view):
        name = f"{table}.{quote(column.name)}"
        terms.append(f"{name} desc nulls last")
        if column.type in _FLOATS:  # to DuckDB −0.0 equals 0.0; NaN is the greatest, and only one
            terms.append(f"({name} = 0 and signbit({name}))")
    return terms


# -- the kernel -----------------------------------------------------------------------------------------------------


def visible_from_micros(
    view: BoundView, event: NDArray[np.int64], created: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Return what `visible_from` means for times in µs; ``created`` is None where it does not matter."""
    shift = view.delay + view.closed_left
    known: NDArray[np.int64] = np.minimum(event, _MAX - shift) + shift
    return known if created is None else np.maximum(known, created)


class Winners:
    """The winner's times at each slot, whatever the order in which the rows come.

    A row is filed at the first slot from which on it is visible; what is greatest among a slot and all earlier ones
    of its entity wins there.

    Parameters
    ----------
    slots
        The instants that are asked for, per entity.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._event = np.full(len(slots), _MIN, np.int64)
        self._created = np.full(len(slots), _MIN, np.int64)
        self._rows = np.zeros(len(slots), np.int64)

    def add(
        self,
        codes: NDArray[np.int64],
        visible: NDArray[np.int64],
        event: NDArray[np.int64],
        created: NDArray[np.int64] | None,
    ) -> None:
        """File rows of these entities, with the instants from which on they are visible; all in µs."""
        places = self._slots.find(codes, visible)
        filed = places >= 0
        places = places[filed]
        equal = self._raise(self._event, places, event[filed], self._created)
        places = places[equal]
        if created is not None:
            equal = self._raise(self._created, places, created[filed][equal])
            places = places[equal]
        np.add.at(self._rows, places, 1)

    def _raise(
        self,
        greatest: NDArray[np.int64],
        places: NDArray[np.int64],
        values: NDArray[np.int64],
        lesser: NDArray[np.int64] | None = None,
    ) -> NDArray[np.bool_]:
        """Raise slots to these values, forget what they had where they rise; return which values are greatest now."""
        before = greatest[places]
        np.maximum.at(greatest, places, values)
        now = greatest[places]
        risen = places[now > before]
        self._rows[risen] = 0
        if lesser is not None:
            lesser[risen] = _MIN
        return np.asarray(now == values)

    def at_slots(self) -> Winning:
        """Return who wins at each slot, as of the rows that have come."""
        codes = self._slots.codes
        order = np.lexsort((self._created, self._event, self._rows > 0, codes))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        # Ranks of later entities are greater than all of earlier ones, so that the maximum stays within one.
        filed = order[np.maximum.accumulate(rank)] if len(order) else order
        return Winning(filed, self._rows[filed] > 0, self._event[filed], self._created[filed], self._rows[filed])


@dataclass(frozen=True, slots=True)
class Winning:
    """Who wins, at some places.

    Parameters
    ----------
    filed
        The slot under which the winner is filed: the same wherever it is the same row.
    found
        Whether there is a winner.
    event, created
        Its times, µs; created is arbitrary for views without.
    rows
        How many rows have both.
    """

    filed: NDArray[np.int64]
    found: NDArray[np.bool_]
    event: NDArray[np.int64]
    created: NDArray[np.int64]
    rows: NDArray[np.int64]

    def differs(self, other: Winning) -> NDArray[np.bool_]:
        """Return where another row wins than in another case."""
        same = (self.event == other.event) & (self.created == other.created)
        return np.asarray((self.found != other.found) | (self.found & ~same))

    def take(self, places: NDArray[np.int64]) -> Winning:
        """Return the same for some of the places, in this order."""
        return Winning(
            self.filed[places], self.found[places], self.event[places], self.created[places], self.rows[places]
        )
