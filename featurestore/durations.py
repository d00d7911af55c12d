"""Lengths of time as users write them: ``"90s"``, ``"1h"``, ``"7d"``."""

from __future__ import annotations

import datetime as dt
import re

from lakehouse.errors import DefinitionError

__all__ = ["Duration", "canonical_duration", "duration_text", "micros"]

Duration = str | dt.timedelta
"""``"90s"``, ``"5m"``, ``"1h"``, ``"7d"``, ``"2w"`` (also ``ms`` and ``us``), or a `datetime.timedelta`."""

_DURATION = re.compile(r"([0-9]{1,18})\s*(us|ms|s|m|h|d|w)\Z")
_MICROS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_LONGEST = 100 * 366 * _MICROS["d"]


def canonical_duration(value: Duration, *, what: str = "a duration") -> str:
    """Return a duration as text: text as it is spelled, a timedelta in the greatest unit that divides it.

    Raises
    ------
    DefinitionError
        If it is no duration, or negative, or longer than a hundred years.
    """
    if isinstance(value, dt.timedelta):
        text = duration_text(value // dt.timedelta(microseconds=1)) if value else "0s"
    else:
        text = value.strip() if isinstance(value, str) else ""
    match = _DURATION.match(text)
    if match is None or int(match[1]) * _MICROS[match[2]] > _LONGEST:
        raise DefinitionError(
            f"{what}: {value!r} is not a duration", hint="Write it as 90s, 5m, 1h, 7d or 2w; at most a hundred years."
        )
    return f"{int(match[1])}{match[2]}"


def micros(duration: str) -> int:
    """Return the µs of a canonical duration."""
    match = _DURATION.match(duration)
    if match is None:
        raise DefinitionError(f"{duration!r} is not a duration")
    return int(match[1]) * _MICROS[match[2]]


def duration_text(micros: int) -> str:
    """Return µs in the greatest unit up to days that divides them: ``90m``, ``7d``."""
    unit = next(unit for unit in ("d", "h", "m", "s", "ms", "us") if micros % _MICROS[unit] == 0)
    return f"{micros // _MICROS[unit]}{unit}"
