"""Instants as the feature store counts them: µs since 1970, UTC."""

from __future__ import annotations

import datetime as dt

from lakehouse.errors import RequestError
from lakehouse.types import parse_instant, utc_text

__all__ = ["instant_micros", "micros_text"]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def instant_micros(at: dt.datetime | str, what: str = "at") -> int:
    """Return an instant as µs since 1970; text without a zone is UTC.

    Raises
    ------
    RequestError
        If a datetime has no zone, text is no time, or either is finer than a microsecond.
    """
    instant = parse_instant(at) if isinstance(at, str) else at
    if not isinstance(instant, dt.datetime):
        raise RequestError(
            f"{what} must be a datetime or text, not {type(instant).__name__}", hint="Write it as 2026-11-23T15:04:05Z."
        )
    if getattr(instant, "nanosecond", 0):  # of pandas
        raise RequestError(f"{what} {instant}: microseconds are the finest that there are", hint="Round it.")
    if instant.tzinfo is None:
        raise RequestError(f"{what} {instant}: a time without a zone", hint="Give it one, e.g. tzinfo=datetime.UTC.")
    return (instant - _EPOCH) // _MICROSECOND


def micros_text(instant: int) -> str:
    """Return µs since 1970 as text, in UTC."""
    try:
        return utc_text(_EPOCH + instant * _MICROSECOND)
    except OverflowError:
        return f"{instant} µs"
