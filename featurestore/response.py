"""What an online lookup returns: values, statuses, and the stamp of the generation that they come from."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featurestore.instants import micros_text
from featurestore.statuses import STATUSES
from lakehouse.types import Clock, parse_instant

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

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
        from lakehouse.result import QueryResult

        return QueryResult.from_table(self.to_arrow(statuses=statuses)).to_pandas()

    to_pandas = to_df

    def __len__(self) -> int:
        return len(self._values[0]) if self._values else 0

    def __repr__(self) -> str:
        from lakehouse.result import QueryResult

        return f"{QueryResult.from_table(self.to_arrow()).to_text(_SHOWN)}\n{self.stamp}"

    def _repr_html_(self) -> str:
        from lakehouse.result import QueryResult

        table = QueryResult.from_table(self.to_arrow())._repr_html_()
        return f"{table}<p><small>{html.escape(str(self.stamp))}</small></p>"
