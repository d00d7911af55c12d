"""Rows as JSON and CSV, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakehouse.result.intervals import interval_text
from lakehouse.result.text import unique_names
from lakehouse.result.values import beyond_python, is_bignum, python_values, told

__all__ = ["json_lines", "write_csv"]


def json_lines(batch: pa.RecordBatch, types: Sequence[str]) -> Iterator[bytes]:
    """Yield each row of a batch as one line of JSON, without the line end."""
    encoder = _encoder()
    names = unique_names(batch.schema.names)
    columns = [
        _spellable(python_values(column, integer=kind in ("HUGEINT", "UHUGEINT")), column.type)
        for column, kind in zip(batch.columns, types, strict=True)
    ]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    yield from encoder.encode_lines(rows).splitlines()


def _encoder() -> msgspec.json.Encoder:
    return msgspec.json.Encoder(decimal_format="number", enc_hook=_spell)


def _spell(value: Any) -> Any:
    return int(value) if hasattr(value, "__index__") else str(value)


def _spellable(values: list[Any], kind: pa.DataType) -> list[Any]:
    """Spell NaN, infinities and intervals, also inside nested values, where the type allows any."""
    return [_spelled(value) for value in values] if _needs_spelling(kind) else values


def _needs_spelling(kind: pa.DataType) -> bool:
    own = pa.types.is_floating(kind) or pa.types.is_interval(kind)
    return own or any(_needs_spelling(kind.field(i).type) for i in range(kind.num_fields))


def _spelled(value: Any) -> Any:
    match value:
        case float() if value != value:  # noqa: PLR0124 - what NaN is
            return "NaN"
        case float() if value in (float("inf"), float("-inf")):
            return "Infinity" if value > 0 else "-Infinity"
        case pa.MonthDayNano():
            return interval_text(value)
        case dict():
            return {key: _spelled(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_spelled(inner) for inner in value]
    return value


def write_csv(batches: Iterable[pa.RecordBatch], schema: pa.Schema, types: Sequence[str], out: BinaryIO) -> None:
    """Write batches as CSV with a header."""
    from pyarrow import csv

    wanted = [_csv_type(field.type) for field in schema]
    header = True
    for batch in batches:
        columns = [_csv_column(*each) for each in zip(batch.columns, wanted, types, strict=True)]
        # Columns that hold a date beyond Arrow's own spelling are text in this batch, so each batch has its schema.
        plain = pa.RecordBatch.from_arrays(columns, names=schema.names)
        csv.write_csv(plain, out, csv.WriteOptions(include_header=header))
        header = False
    if header:
        nothing = [pa.array([], kind) for kind in wanted]
        csv.write_csv(pa.RecordBatch.from_arrays(nothing, names=schema.names), out)


def _csv_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp(kind.unit, "UTC" if kind.tz else None)
    texts = (pa.types.is_nested, pa.types.is_binary, pa.types.is_interval, pa.types.is_null, is_bignum)
    if any(is_text(kind) for is_text in texts):
        return pa.string()
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _csv_column(column: pa.Array, wanted: pa.DataType, kind: str) -> pa.Array:
    beyond = beyond_python(column)
    if beyond is not None:
        return _csv_dates(column.cast(wanted), beyond)
    if column.type == wanted:
        return column
    if wanted != pa.string() or pa.types.is_dictionary(column.type) or pa.types.is_null(column.type):
        return column.cast(wanted)
    encoder = _encoder()
    values = _spellable(python_values(column, integer=kind in ("HUGEINT", "UHUGEINT")), column.type)
    texts = [None if value is None else encoder.encode(value).decode() for value in values]
    if pa.types.is_binary(column.type) or pa.types.is_interval(column.type):
        texts = [text and text[1:-1] for text in texts]  # neither base64 nor an interval needs quotes
    return pa.array(texts, pa.string())


def _csv_dates(column: pa.Array, beyond: NDArray[np.bool_]) -> pa.Array:
    """Return dates or times as text: Arrow's spelling, and DuckDB's of those that Arrow cannot spell."""
    mask = pa.array(beyond)
    texts = pc.if_else(mask, pa.scalar(None, column.type), column).cast(pa.string())
    return pc.replace_with_mask(texts, mask, pa.array(told(column.filter(mask)), pa.string()))
