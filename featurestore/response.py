"""What an online lookup returns: values, statuses, and the stamp of the generation that they come from."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featurestore.instants import micros_text
from featurestore.statuses import NOT_FOUND, STATUSES
from lakehouse.types import Clock, parse_instant, utc_text

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from lakehouse.result import QueryResult

__all__ = ["OnlineFeatures", "Stamp"]

_SHOWN = 20


class Stamp:
    """Where an answer comes from.

    Parameters
    ----------
    generation
        Id of the online generation.
    snapshot
        The snapshot of the lake that it was built from.
    instant
        The instant of the answer, µs since 1970.
    built_at
        When the generation was built, UTC text.
    clock
        Returns the present instant.
    """

    __slots__ = ("_clock", "built_at", "generation", "instant", "snapshot")

    def __init__(self, generation: str, snapshot: int, instant: int, built_at: str, clock: Clock) -> None:
        self.generation = generation
        self.snapshot = snapshot
        self.instant = instant
        self.built_at = built_at
        self._clock = clock

    @property
    def at(self) -> str:
        """The instant of the answer, UTC text."""
        return micros_text(self.instant)

    @property
    def age(self) -> float:
        """Seconds since the generation was built."""
        return max(0.0, (self._clock() - parse_instant(self.built_at)).total_seconds())

    def as_dict(self) -> dict[str, Any]:
        """Return the stamp's facts."""
        return {"generation": self.generation, "snapshot": self.snapshot, "at": self.at, "age": round(self.age, 3)}

    def __str__(self) -> str:
        return f"generation {self.generation} of snapshot {self.snapshot}, {self.age:,.0f} s old, as of {self.at}"

    __repr__ = __str__


class OnlineFeatures:
    """Features of entities, one row for each entity asked for, in that order.

    Parameters
    ----------
    entities
        The asked columns.
    types
        The features' columns, each with its type as DuckDB spells it.
    values, statuses
        Feature by feature, row by row.
    stamp
        Where they come from.
    """

    def __init__(
        self,
        entities: Mapping[str, Sequence[Any]],
        types: Mapping[str, str],
        values: Sequence[Sequence[Any]],
        statuses: Sequence[Sequence[int]],
        stamp: Stamp,
    ) -> None:
        self._entities = entities
        self._types = types
        self._values = values
        self._statuses = statuses
        self.stamp = stamp

    def to_dict(self, *, statuses: bool = False) -> dict[str, list[Any]]:
        """Return the asked columns and the features, each as a list of Python values.

        Parameters
        ----------
        statuses
            Add a column ``<feature>__status`` behind every feature.
        """
        columns = {name: list(values) for name, values in self._entities.items()}
        for name, values, codes in zip(self._types, self._values, self._statuses, strict=True):
            columns[name] = list(values)
            if statuses:
                columns[f"{name}__status"] = [STATUSES[code] for code in codes]
        return columns

    def statuses(self) -> dict[str, list[str]]:
        """Return ``PRESENT``, ``NULL``, ``EXPIRED`` or ``NOT_FOUND`` for every value."""
        return {
            name: [STATUSES[code] for code in codes] for name, codes in zip(self._types, self._statuses, strict=True)
        }

    def to_arrow(self, *, statuses: bool = False) -> pa.Table:
        """Return the asked columns and the features as an Arrow table, features with exactly their types."""
        import pyarrow as pa

        from featurestore.codec import arrow_type

        columns: dict[str, Any] = {name: pa.array(list(values)) for name, values in self._entities.items()}
        for (name, type_), values, codes in zip(self._types.items(), self._values, self._statuses, strict=True):
            columns[name] = pa.array(values, arrow_type(type_))
            if statuses:
                columns[f"{name}__status"] = pa.array([STATUSES[code] for code in codes], pa.string())
        return pa.table(columns)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the rows to any consumer of the Arrow C stream."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_polars(self, *, statuses: bool = False) -> pl.DataFrame:
        """Return the asked columns and the features as a polars DataFrame."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow(statuses=statuses))
        return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()

    def to_df(self, *, statuses: bool = False) -> pd.DataFrame:
        """Return the asked columns and the features as a pandas DataFrame.

        Raises
        ------
        RequestError
            If pandas is not installed.
        """
        return self.result(statuses=statuses).to_pandas()

    to_pandas = to_df

    def __len__(self) -> int:
        return len(self._values[0]) if self._values else 0

    def result(self, *, statuses: bool = False) -> QueryResult:
        """Return the rows with all the ways out that a query's result has."""
        from lakehouse.result import QueryResult

        return QueryResult.from_table(self.to_arrow(statuses=statuses))

    def lines(self) -> list[str]:
        """Return the answer as text: one line per feature, one column per entity, and the stamp."""
        shown = min(len(self), _SHOWN)
        heads = [[name, *map(_text, values[:shown])] for name, values in self._entities.items()]
        rows = [
            [name, *(_cell(value, code) for value, code in zip(values[:shown], codes[:shown], strict=True))]
            for name, values, codes in zip(self._types, self._values, self._statuses, strict=True)
        ]
        widths = [max(len(row[place]) for row in (*heads, *rows)) for place in range(shown + 1)]
        ruled = ["─" * width for width in widths]
        lines = [_aligned(row, widths) for row in (*heads, ruled, *rows)]
        if len(self) > shown:
            lines.append(f"… and {len(self) - shown:,} more entities")
        return [*lines, str(self.stamp)]

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return f"{self.result()._repr_html_()}<p><small>{html.escape(str(self.stamp))}</small></p>"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *values = cells
    return "  ".join([name.ljust(widths[0]), *(v.rjust(width) for v, width in zip(values, widths[1:], strict=True))])


def _cell(value: Any, code: int) -> str:
    """Return a value; its status where it says more."""
    if value is None:
        return STATUSES[code]
    return f"{_text(value)} ({STATUSES[code]})" if code == NOT_FOUND else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return utc_text(value)
    return "null" if value is None else str(value)
