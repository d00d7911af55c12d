"""A query's answer that can be read any number of times, batch by batch, by anything that speaks Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from lakehouse.errors import PenstockError, QueryError, RequestError
from lakehouse.result.text import Preview, as_html, as_text, type_name, unique_names
from lakehouse.types import quote

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

__all__ = ["QueryResult"]

_SHOWN = 20
_INTEGERS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")


class QueryResult:
    """The rows that a query returns at one snapshot.

    Nothing is kept in memory: every method, and every consumer of the Arrow stream, opens a fresh reader, so a result
    can be read again and again, and a result that is larger than memory can be read batch by batch. (DuckDB opens
    a stream several times per scan, and takes a spent one for an empty one.)

    Parameters
    ----------
    open_reader
        Returns a fresh reader over all rows.
    schema
        The columns; names may repeat.
    types
        The columns' types as DuckDB spells them; derived from the schema if not given.
    snapshot
        The number of the snapshot that was read, if one was.
    blame
        Says what else than the query made a reader fail; None if it was the query.
    """

    def __init__(
        self,
        open_reader: Callable[[], pa.RecordBatchReader],
        schema: pa.Schema,
        *,
        types: Sequence[str] | None = None,
        snapshot: int | None = None,
        blame: Callable[[BaseException], PenstockError | None] = lambda _: None,
    ) -> None:
        self._open = open_reader
        self.schema = schema
        self.types = list(types) if types is not None else [type_name(field.type) for field in schema]
        self.snapshot = snapshot
        self._blame = blame

    @classmethod
    def from_table(
        cls, table: pa.Table, *, types: Sequence[str] | None = None, snapshot: int | None = None
    ) -> QueryResult:
        """Return a result over rows that are in memory already."""
        return cls(table.to_reader, table.schema, types=types, snapshot=snapshot)

    @property
    def columns(self) -> list[str]:
        """The columns' names, in order."""
        return list(self.schema.names)

    # -- Arrow and frames -------------------------------------------------------------------------------------------

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export all rows to any consumer of the Arrow C stream; each call starts from the first row."""
        return self._open().__arrow_c_stream__(requested_schema)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as record batches; memory holds one at a time.

        Raises
        ------
        QueryError
            If a value makes the query fail while it runs.
        """
        import pyarrow as pa

        reader = self._open()
        try:
            yield from reader
        except (OSError, pa.ArrowInvalid) as error:
            raise (self._blame(error) or query_error(error)) from None
        finally:
            reader.close()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows as tuples of Python values, as `fetchall` returns them."""
        for batch in self.batches():
            yield from self._rows(batch)

    def to_arrow(self) -> pa.Table:
        """Return all rows as an Arrow table."""
        import pyarrow as pa

        return pa.Table.from_batches(self.batches(), self.schema)

    def to_polars(self) -> pl.DataFrame:
        """Return all rows as a polars DataFrame; repeated column names get ``_1`` and so on.

        Raises
        ------
        RequestError
            If a column has decimals of more digits than polars has.
        """
        import polars as pl

        table = self._uniquely_named()
        for field in table.schema:
            if "decimal256(" in str(field.type):  # also within lists and structs
                raise RequestError(
                    f"the values of {field.name!r} need more than the 38 digits that polars has",
                    hint="Give them fewer digits, leave the column out, or take to_arrow().",
                )
        frame = pl.from_arrow(table)
        return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()

    def to_pandas(self) -> pd.DataFrame:
        """Return all rows as a pandas DataFrame.

        Integers that are null somewhere become pandas' nullable integers: as floating-point numbers they would lose
        digits. Decimals become Python objects.

        Raises
        ------
        RequestError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise RequestError("pandas is not installed", hint="pip install pandas") from None
        import pyarrow as pa

        table = self._uniquely_named()
        frame = table.to_pandas()
        nullable = {getattr(pa, name.lower())(): getattr(pd, f"{name}Dtype")() for name in _INTEGERS}
        for name, column in zip(table.column_names, table.columns, strict=True):
            if column.null_count and column.type in nullable:
                frame[name] = column.to_pandas(types_mapper=nullable.get)
        return frame

    def _uniquely_named(self) -> pa.Table:
        return self.to_arrow().rename_columns(unique_names(self.schema.names))

    # -- Python values ----------------------------------------------------------------------------------------------

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows as tuples of Python values.

        Decimals are `decimal.Decimal`, TIMESTAMP WITH TIME ZONE is an aware UTC datetime whatever the session's zone,
        HUGEINT is `int`, structs are dicts, maps are lists of pairs, nanoseconds are cut to microseconds.

        Raises
        ------
        QueryError
            If a date or time is none that Python has: ``infinity``, a year before 1 or after 9999, ``24:00:00``.
        """
        return list(self)

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the first row, or None if there is none."""
        return next(iter(self), None)

    def _rows(self, batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
        from lakehouse.result.values import python_values

        columns = [
            python_values(column, integer=kind in ("HUGEINT", "UHUGEINT"), odd=partial(_refuse, name))
            for name, column, kind in zip(self.columns, batch.columns, self.types, strict=True)
        ]
        return zip(*columns, strict=True)

    def _shown(self, batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
        """Return rows for people: instants in the session's zone, text for what Python has no value for."""
        from lakehouse.result.values import local_values, python_values

        columns = [
            local_values(column)
            if getattr(column.type, "tz", None)
            else python_values(column, integer=kind in ("HUGEINT", "UHUGEINT"))
            for column, kind in zip(batch.columns, self.types, strict=True)
        ]
        return zip(*columns, strict=True)

    # -- for people ---------------------------------------------------------------------------------------------------

    def _preview(self, limit: int) -> Preview:
        rows: list[tuple[Any, ...]] = []
        for batch in self.batches():
            rows.extend(self._shown(batch.slice(0, limit + 1 - len(rows))))
            if len(rows) > limit:
                break
        return Preview(self.schema, self.types, rows[:limit], more=len(rows) > limit)

    def to_text(self, limit: int = _SHOWN, *, width: int | None = None) -> str:
        """Return the first rows as an aligned table that fits the terminal.

        Parameters
        ----------
        limit
            Greatest number of rows.
        width
            Greatest number of characters in a line; the terminal's if not given.
        """
        if self.columns == ["explain_key", "explain_value"]:
            return "\n".join(str(value) for _, value in self.fetchall())
        return as_text(self._preview(limit), width=width)

    def show(self, limit: int = _SHOWN) -> None:
        """Print the first rows as an aligned table."""
        print(self.to_text(limit))

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return as_html(self._preview(_SHOWN))

    # -- files --------------------------------------------------------------------------------------------------------

    def to_json_rows(self) -> Iterator[bytes]:
        """Yield each row as one line of JSON.

        Integers and decimals are exact JSON numbers; NaN and the infinities, for which JSON has none, are the texts
        ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``; times are ISO 8601, zoned ones in UTC with Z, and DuckDB's text
        (``"infinity"``, ``"20000-01-01"``) where the year is not one of 1 to 9999; bytes are base64.
        Repeated column names get ``_1`` and so on.
        """
        from lakehouse.result.export import json_lines

        for batch in self.batches():
            yield from json_lines(batch, self.types)

    def write_json(self, out: BinaryIO) -> None:
        """Write all rows as one JSON array, a row per line, spelled as by `to_json_rows`."""
        separator = b"[\n"
        for line in self.to_json_rows():
            out.write(separator + line)
            separator = b",\n"
        out.write(b"\n]\n" if separator == b",\n" else b"[]\n")

    def write_csv(self, out: BinaryIO) -> None:
        """Write all rows as CSV with a header, in UTF-8.

        Null is an unquoted empty field, text is always quoted; bytes are base64, nested values are JSON, zoned times
        are UTC with Z. Dates beyond the years 1 to 9999 are DuckDB's text (``"infinity"``), quoted.
        """
        from lakehouse.result.export import write_csv

        write_csv(self.batches(), self.schema, self.types, out)


def _refuse(name: str, text: str) -> Any:
    raise QueryError(
        f"column {name} holds {text}, and Python has no such date or time",
        hint=f"Ask for it as text, CAST({quote(name)} AS VARCHAR), or read the rows by to_arrow().",
    )


def query_error(error: BaseException) -> QueryError:
    """Return DuckDB's message as our error: its sentences, and the line of the query with the caret below it."""
    return QueryError("\n".join(line for line in str(error).strip().splitlines() if line.strip()))
