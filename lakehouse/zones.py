"""Time zones: local clock readings to instants.

Two rules, the same everywhere: a reading that occurs twice (clocks go back) means the *earlier* instant, a reading
that never occurs (clocks go forward) means none. Neither DuckDB (takes the later, shifts the missing) nor Arrow's
kernels (know no daylight saving after 2037) keep them, so the changes of a zone come from `zoneinfo`: found once per
zone and year, then looked up for whole columns.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lakehouse.errors import SettingsError, near

__all__ = ["Instants", "as_timezone", "to_utc"]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAY = 86_400
_SECOND = 1_000_000  # µs
_MEAN_YEAR = 31_556_952 * _SECOND  # of the Gregorian calendar, µs
_LAST_YEAR = 9999
_FEW_YEARS = 10
_STEP = 2 * _DAY


@dataclass(frozen=True, slots=True)
class Instants:
    """The instants that a column of local readings names.

    Parameters
    ----------
    utc
        int64 µs since 1970 in UTC; arbitrary where missing.
    missing
        Bool per reading: this reading never occurs; None if all do.
    ambiguous
        Bool per reading: it occurs twice and ``utc`` has the earlier; None if there is no such reading.
    """

    utc: NDArray[np.int64]
    missing: NDArray[np.bool_] | None
    ambiguous: NDArray[np.bool_] | None


def as_timezone(name: str) -> zoneinfo.ZoneInfo:
    """Return the zone with this IANA name, e.g. ``America/New_York``.

    Raises
    ------
    SettingsError
        If there is no such zone, with the nearest names; or if this machine has no time zone database.
    """
    # These two mean something else on every machine, or count leap seconds: no names of the IANA database.
    if name != "localtime" and not name.startswith(("right/", "posix/")):
        try:
            return zoneinfo.ZoneInfo(name)
        except (KeyError, ValueError, OSError):  # not there, not a name, a directory
            pass
    known = zoneinfo.available_timezones()
    if not known:
        raise SettingsError("this machine has no time zone database", hint="Install one: pip install tzdata.")
    raise SettingsError(f"{name!r} is not a time zone", hint=near(name, known, what="time zones"))


def to_utc(local: NDArray[np.int64], timezone: str) -> Instants:
    """Return the instants of local readings.

    Parameters
    ----------
    local
        Readings of a local clock in years 1 to 9999, µs since 1970-01-01 00:00 of that clock.
    timezone
        IANA name of the clock's zone.

    Raises
    ------
    SettingsError
        If the zone is unknown (and there is a reading).
    """
    if not len(local):
        return Instants(local, None, None)
    breaks, offsets, kinds = _breaks(timezone, tuple(_years(local)))
    if not len(breaks):
        return Instants(local - offsets[0], None, None)
    state = np.searchsorted(breaks, local, side="right")
    seen = np.bincount(state, minlength=len(kinds)) > 0
    missing = kinds[state] == _MISSING if seen[kinds == _MISSING].any() else None
    ambiguous = kinds[state] == _AMBIGUOUS if seen[kinds == _AMBIGUOUS].any() else None
    return Instants(local - offsets[state], missing, ambiguous)


_PLAIN, _MISSING, _AMBIGUOUS = 0, 1, 2


def _years(local: NDArray[np.int64]) -> Sequence[int]:
    """Return the years of the readings with a margin, ascending, and perhaps some more."""
    first, last = int(local.min()) // _MEAN_YEAR + 1968, int(local.max()) // _MEAN_YEAR + 1972
    if last - first > _FEW_YEARS:  # births of a century, a sentinel such as 9999-12-31: only what is there
        present = np.flatnonzero(np.bincount(local // _MEAN_YEAR + 1970))
        years = sorted({int(year) + margin for year in present for margin in (-2, -1, 0, 1, 2)})
    else:
        years = list(range(first, last + 1))
    return [year for year in years if 1 <= year <= _LAST_YEAR]


@lru_cache(maxsize=64)
def _breaks(timezone: str, years: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    """Return the local readings (µs) at which the rule changes, and offset (µs) and kind between any two of them.

    Each change of the offset opens a window of readings that are missing (offset grew) or ambiguous (it shrank). In
    the window the offset before the change counts: it gives the earlier of two instants.
    """
    breaks: list[int] = []
    offset, _ = _changes(timezone, years[0])
    offsets, kinds = [offset], [_PLAIN]
    for year in years:
        at_start, changes = _changes(timezone, year)
        # After years that were left out the offset may differ; no reading lies near this seam, see _years.
        for instant, after in ((_new_year(year), at_start), *changes):
            if after != offset:
                breaks += [instant + min(offset, after), instant + max(offset, after)]
                offsets += [offset, after]
                kinds += [_MISSING if after > offset else _AMBIGUOUS, _PLAIN]
                offset = after
    return (
        np.array(breaks, dtype=np.int64) * _SECOND,
        np.array(offsets, dtype=np.int64) * _SECOND,
        np.array(kinds, dtype=np.int8),
    )


@lru_cache(maxsize=2**15)
def _changes(timezone: str, year: int) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return the offset (s) at the start of a UTC year, and instant (s since 1970) and new offset of its changes.

    Looks every other day and halves the span in which the offset differs. No zone has ever changed twice within two
    days (a test asks the database), so no change is overlooked.
    """
    zone = as_timezone(timezone)

    def offset_at(instant: int) -> int:
        shift = (_EPOCH + dt.timedelta(seconds=instant)).astimezone(zone).utcoffset()
        return 0 if shift is None else int(shift.total_seconds())

    # Local time must stay within datetime's years: the outermost days of the calendar count as their neighbours.
    first = _new_year(year) + (_DAY if year == 1 else 0)
    last = _new_year(year + 1) if year < _LAST_YEAR else _new_year(year) + 364 * _DAY
    changes = []
    at_start = before = offset_at(first)
    for day in range(first, last, _STEP):
        low, high = day, min(day + _STEP, last)
        after = offset_at(high)
        if after == before:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset_at(middle) == before else (low, middle)
        changes.append((high, after))
        before = after
    return at_start, tuple(changes)


def _new_year(year: int) -> int:
    return (dt.date(year, 1, 1).toordinal() - _EPOCH.toordinal()) * _DAY
