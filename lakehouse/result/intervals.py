"""Intervals as DuckDB prints them: ``1 year 2 months -3 days 04:05:06.5``."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

__all__ = ["interval_text", "with_texts"]


def interval_text(interval: pa.MonthDayNano) -> str:
    """Return an interval as DuckDB casts it to VARCHAR."""
    months, days, nanoseconds = interval
    years, months = int(months / 12), months - 12 * int(months / 12)  # both keep the sign
    parts = [
        f"{n} {unit}{'' if abs(n) == 1 else 's'}"
        for n, unit in ((years, "year"), (months, "month"), (days, "day"))
        if n
    ]
    if nanoseconds or not parts:
        seconds, micros = divmod(abs(nanoseconds) // 1000, 1_000_000)
        fraction = f".{micros:06}".rstrip("0") if micros else ""
        sign = "-" if nanoseconds < 0 else ""
        parts.append(f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{fraction}")
    return " ".join(parts)


def with_texts(value: Any) -> Any:
    """Return a Python value with all intervals in it, also nested ones, as text."""
    match value:
        case pa.MonthDayNano():
            return interval_text(value)
        case dict():
            return {key: with_texts(inner) for key, inner in value.items()}
        case list() | tuple():
            return [with_texts(inner) for inner in value]
    return value
