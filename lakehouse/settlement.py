"""Which type each column of a source has, and how one load may settle it.

A column's type is settled by the first load that brings it values, from *all* values of that load; afterwards it
is stable. While the load runs, the first chunk's type is provisional. Should a later chunk need another one, the
column is noted here, and the twin of this load is written again with the final types: rare, so the common case
reads the data once.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lakehouse.sources import TWIN_PROVENANCE, UNKNOWN, SourceColumn, SourceSchema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from lakehouse.inference import Converted

__all__ = ["Settlement"]

_UNSAFE = re.compile(r"[^A-Za-z0-9_\-]")  # Delta refuses some of these in names without column mapping


@dataclass(slots=True)
class _Column:
    """A column while a load runs; ``settled`` if an earlier load gave it its type."""

    name: str
    field: str
    type: str
    settled: bool
    dirty: bool = False
    widens: bool = False
    misfits: int = 0
    ambiguous: int = 0
    missing: int = 0


@dataclass(slots=True)
class Settlement:
    """The columns of a source during one load. Safe to use from several threads.

    Parameters
    ----------
    schema
        The source's columns before the load.
    timezone
        IANA zone of local times, if declared.
    """

    schema: SourceSchema
    timezone: str | None
    _columns: list[_Column] = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._columns = [_Column(c.name, c.field, c.type, c.type != UNKNOWN) for c in self.schema.columns]

    def places(self, names: Sequence[str]) -> list[int]:
        """Return the index of each named column, adding those that are new. Names compare case-insensitively."""
        with self._lock:
            known = {column.name.lower(): index for index, column in enumerate(self._columns)}
            for name in names:
                if name.lower() not in known:
                    known[name.lower()] = len(self._columns)
                    self._columns.append(_Column(name, self._field(name), UNKNOWN, settled=False))
            return [known[name.lower()] for name in names]

    def convert(self, index: int, values: pa.StringArray) -> tuple[pa.Array | None, np.ndarray | None]:
        """Return a chunk of a column in its type, and which rows misfit; the array is None while no value was seen."""
        from lakehouse import inference

        column = self._columns[index]
        if values.null_count == len(values) and column.type == UNKNOWN:
            return None, None
        with self._lock:
            if column.type == UNKNOWN:
                column.type = inference.observe(values).type(timezone=self.timezone)
        converted = inference.convert(values, column.type, timezone=self.timezone)
        if converted.misfit is not None or converted.ambiguous:
            self._note(column, values, converted)
        return converted.values, converted.misfit

    def typed(self) -> list[tuple[int, str, str]]:
        """Return index, twin field and type of the columns that have a type by now."""
        return [(i, column.field, column.type) for i, column in enumerate(self._columns) if column.type != UNKNOWN]

    def name(self, index: int) -> str:
        """Return the user's name of a column."""
        return self._columns[index].name

    @property
    def result(self) -> SourceSchema:
        """The columns as they stand."""
        return SourceSchema(tuple(SourceColumn(c.name, c.field, c.type) for c in self._columns))

    @property
    def misfits(self) -> dict[str, int]:
        """Values per column that went to ``_rest``."""
        return {column.name: column.misfits for column in self._columns if column.misfits}

    @property
    def ambiguous(self) -> int:
        """Local times that occur twice; the earlier instant was taken."""
        return sum(column.ambiguous for column in self._columns)

    @property
    def missing(self) -> int:
        """Local times that never were (the clocks went forward)."""
        return sum(column.missing for column in self._columns)

    @property
    def unsettled(self) -> list[int]:
        """Indexes of columns whose provisional type did not hold for the whole load."""
        return [index for index, column in enumerate(self._columns) if column.dirty]

    @property
    def widening(self) -> list[int]:
        """Indexes of settled bigint columns that met decimals."""
        return [index for index, column in enumerate(self._columns) if column.widens]

    def final(self, types: Mapping[int, str]) -> Settlement:
        """Return a settlement in which some columns have other types and no column moves any more."""
        final = Settlement(self.result, self.timezone)
        for index, column in enumerate(final._columns):  # the same class
            column.settled = True
            column.type = types.get(index, column.type)
        return final

    def _field(self, name: str) -> str:
        taken = {column.field.lower() for column in self._columns} | set(TWIN_PROVENANCE)
        stem = _UNSAFE.sub("_", name) if name.isascii() else f"column_{len(self._columns) + 1}"
        candidate, number = stem, 2
        while candidate.lower() in taken:
            candidate, number = f"{stem}_{number}", number + 1
        return candidate

    def _note(self, column: _Column, values: pa.StringArray, converted: Converted) -> None:
        import numpy as np
        import pyarrow as pa

        from lakehouse import inference

        count, widens = 0, False
        if converted.misfit is not None:
            count = int(np.count_nonzero(converted.misfit))
            if column.settled and column.type == "bigint":
                widens = inference.observe(values.filter(pa.array(converted.misfit))).decimal
        with self._lock:
            column.misfits += count
            column.ambiguous += converted.ambiguous
            column.missing += converted.missing
            # A local time that never was misfits in any type of time: it is no reason for another type.
            column.dirty |= not column.settled and count > converted.missing
            column.widens |= widens
