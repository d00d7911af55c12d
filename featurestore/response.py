"""What an online lookup returns: values, statuses, and the stamp of the generation that they come from."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from featurestore.codec import KeyCodec, arrow_type
from featurestore.instants import micros_text
from featurestore.request import status_names
from featurestore.statuses import NOT_FOUND, NULL, PRESENT, STATUSES
from lakehouse.errors import RequestError
from lakehouse.types import Clock, parse_instant, printable, utc_text

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray

    from featurestore.online import Reader
    from lakehouse.result import QueryResult

__all__ = ["Answer", "Found", "Lookup", "OnlineFeatures", "Stamp"]

Answer = tuple[Sequence[Any], int]
"""One entity's values of one view, and how they came about: `PRESENT` where null values are to count as `NULL`."""

Found = Sequence[Any]
"""What a lookup keeps of what it read, entity by entity; only the lookup knows what that is."""

_SHOWN = 20
_CELL = 40  # characters


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
        return f"generation {self.generation} of snapshot {self.snapshot}, {_age(self.age)} old, as of {self.at}"

    __repr__ = __str__


class Lookup(Protocol):
    """Reads and answers features of one view, compiled for a request."""

    @property
    def names(self) -> Sequence[str]:
        """The answer's columns."""
        ...

    @property
    def types(self) -> Sequence[str]:
        """Their types, as DuckDB spells them."""
        ...

    def read(self, reader: Reader, keys: Sequence[bytes | None], instant: int) -> Found:
        """Return what is stored of the entities with these keys, as far as an answer at an instant (µs) needs it."""
        ...

    def answer(self, found: Any, instant: int) -> Answer:
        """Return the answer of one entity, from what was read of it."""
        ...

    def arrays(self, found: Found, instant: int) -> tuple[list[pa.Array], Sequence[int] | NDArray[np.uint8]]:
        """Return the features as Arrow arrays of exactly their types, and how each entity's came about."""
        ...


class OnlineFeatures:
    """Features of entities, one row for each entity asked for, in that order.

    What was read is kept, and decoded when it is asked for, in Python or as Arrow.

    Parameters
    ----------
    entities
        The asked columns.
    rows
        How many entities there are.
    lookups
        What answers, view by view.
    found
        What each of them read.
    key_types
        The type of each asked column that is a join key, as DuckDB spells it.
    instant
        The instant of the answer, µs since 1970.
    stamped
        Makes the stamp of an instant.
    """

    __slots__ = ("_decoded", "_entities", "_found", "_instant", "_key_types", "_lookups", "_rows", "_stamped")

    def __init__(
        self,
        entities: Mapping[str, Sequence[Any]],
        rows: int,
        lookups: Sequence[Lookup],
        found: Sequence[Found],
        *,
        key_types: Mapping[str, str],
        instant: int,
        stamped: Callable[[int], Stamp],
    ) -> None:
        self._entities = entities
        self._rows = rows
        self._lookups = lookups
        self._found = found
        self._key_types = key_types
        self._instant = instant
        self._stamped = stamped
        self._decoded: list[Sequence[Answer]] | None = None

    @property
    def stamp(self) -> Stamp:
        """Where the answer comes from."""
        return self._stamped(self._instant)

    def _answers(self) -> list[Sequence[Answer]]:
        """Return the answers of each lookup; decoded once."""
        if self._decoded is None:
            instant, pairs = self._instant, zip(self._lookups, self._found, strict=True)
            self._decoded = [[lookup.answer(one, instant) for one in found] for lookup, found in pairs]
        return self._decoded

    def _columns(self) -> Iterator[tuple[str, list[Any], list[int]]]:
        """Yield the features, each with its values and their statuses."""
        for lookup, answers in zip(self._lookups, self._answers(), strict=True):
            for place, name in enumerate(lookup.names):
                values = [answer[0][place] for answer in answers]
                codes = [answer[1] for answer in answers]
                if None in values:
                    codes = [_of_value(value, code) for value, code in zip(values, codes, strict=True)]
                yield name, values, codes

    def to_dict(self, *, statuses: bool = False) -> dict[str, list[Any]]:
        """Return the asked columns and the features, each as a list of Python values.

        Parameters
        ----------
        statuses
            Add a column ``<feature>__status`` behind every feature.

        Raises
        ------
        RequestError
            If a time lies beyond the years that Python has, or another column is called like that of a status.
        """
        columns = {name: list(values) for name, values in self._entities.items()}
        if statuses:
            self._check_statuses()
        if self._rows == 1 and not statuses:  # the usual request of a server
            for lookup, [one] in zip(self._lookups, self._found, strict=True):
                row = lookup.answer(one, self._instant)[0]
                for name, value in zip(lookup.names, row):  # noqa: B905 - checking costs as much as a read
                    columns[name] = [value]
            return columns
        for name, values, codes in self._columns():
            columns[name] = values
            if statuses:
                columns[f"{name}__status"] = [STATUSES[code] for code in codes]
        return columns

    def _check_statuses(self) -> None:
        status_names([name for lookup in self._lookups for name in lookup.names], self._entities)

    def statuses(self) -> dict[str, list[str]]:
        """Return ``PRESENT``, ``NULL``, ``EXPIRED`` or ``NOT_FOUND`` for every value."""
        return {name: [STATUSES[code] for code in codes] for name, _, codes in self._columns()}

    def to_arrow(self, *, statuses: bool = False) -> pa.Table:
        """Return the asked columns and the features as an Arrow table, features and join keys with exactly their types.

        A key that its type cannot hold, and that matches nothing therefore, is null.

        Raises
        ------
        RequestError
            If the values of an asked column that is no key do not fit one Arrow type.
        """
        import pyarrow as pa

        if statuses:
            self._check_statuses()
        columns: dict[str, Any] = {
            name: _key_array(values, self._key_types[name]) if name in self._key_types else _asked_array(name, values)
            for name, values in self._entities.items()
        }
        for lookup, found in zip(self._lookups, self._found, strict=True):
            arrays, codes = lookup.arrays(found, self._instant)
            for name, array in zip(lookup.names, arrays, strict=True):
                columns[name] = array
                if statuses:
                    columns[f"{name}__status"] = _status_texts(array, codes)
        return pa.table(columns)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the rows to any consumer of the Arrow C stream."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_polars(self, *, statuses: bool = False) -> pl.DataFrame:
        """Return the asked columns and the features as a polars DataFrame; otherwise like `to_arrow`.

        Raises
        ------
        RequestError
            If the decimals of an asked column need more than the 38 digits that polars has.
        """
        return self.result(statuses=statuses).to_polars()

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
        return self._rows

    def result(self, *, statuses: bool = False) -> QueryResult:
        """Return the rows with all the ways out that a query's result has."""
        from lakehouse.result import QueryResult

        return QueryResult.from_table(self.to_arrow(statuses=statuses))

    def lines(self) -> list[str]:
        """Return the answer as text: one line per feature, one column per entity, and the stamp."""
        shown = min(len(self), _SHOWN)
        heads = [[printable(name), *map(_text, values[:shown])] for name, values in self._entities.items()]
        rows = [
            [name, *(_cell(value, code) for value, code in zip(values[:shown], codes[:shown], strict=True))]
            for name, values, codes in self._columns()
        ]
        widths = [max(len(row[place]) for row in (*heads, *rows)) for place in range(shown + 1)]
        ruled = [["─" * width for width in widths]] if heads else []
        lines = [_aligned(row, widths) for row in (*heads, *ruled, *rows)]
        if len(self) > shown:
            more = len(self) - shown
            lines.append(f"… and {more:,} more {'entity' if more == 1 else 'entities'}")
        return [*lines, str(self.stamp)]

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return f"{self.result()._repr_html_()}<p><small>{html.escape(str(self.stamp))}</small></p>"


def _age(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def _key_array(values: Sequence[Any], type_: str) -> pa.Array:
    """Return a column of join keys as they were looked up: in the key's type, null where that can't hold the value."""
    import pyarrow as pa

    kind = arrow_type(type_)
    try:
        return pa.array(list(values), kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        # Some are nobody's, or numbers of a kind that Arrow doesn't convert: one by one.
        codec = KeyCodec([type_])
        return pa.array([_looked_up(value, codec) for value in values], kind)


def _looked_up(value: Any, codec: KeyCodec) -> Any:
    key = codec.encode_one([value])
    if key is None:
        return None
    decoded = codec.decode(key)
    return value if decoded is None else decoded[0]  # long text is its own key, of which only a hash is stored


def _asked_array(name: str, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(list(values))
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise RequestError(
            f"the values of entity_rows in {name!r} do not fit one Arrow column",
            hint="Leave the column out, give its values one type that Arrow has, or take to_dict().",
        ) from None


def _of_value(value: Any, code: int) -> int:
    """Return a value's status, given how its row came about."""
    return NULL if value is None and code == PRESENT else code


def _status_texts(array: pa.Array, codes: Sequence[int] | NDArray[np.uint8]) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    codes = np.asarray(codes, np.uint8)
    if array.null_count:
        nulls = array.is_null().to_numpy(zero_copy_only=False)
        codes = np.where(nulls & (codes == PRESENT), np.uint8(NULL), codes)
    return pa.array(STATUSES, pa.string()).take(pa.array(codes))


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
    text = printable("null" if value is None else f"{value:f}" if isinstance(value, Decimal) else str(value))
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"
