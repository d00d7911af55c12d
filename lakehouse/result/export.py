"""Rows as JSON and CSV, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from lakehouse.result.intervals import interval_text
from lakehouse.result.text import unique_names

__all__ = ["json_lines", "python_values", "write_csv"]


def python_values(column: pa.Array, *, integer: bool) -> list[Any]:
    """Return an Arrow column as Python values: instants in UTC, whole decimals as int where that is what they are."""
    values: list[Any] = _python_typed(column).to_pylist()
    return [None if value is None else int(value) for value in values] if integer else values


def _python_typed(column: pa.Array) -> pa.Array:
    """Return a column whose values Python can hold: instants in UTC, microseconds instead of nanoseconds."""
    wanted = _python_type(column.type)
    return column if wanted == column.type else column.cast(wanted, safe=False)


def _python_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us" if kind.unit == "ns" else kind.unit, "UTC" if kind.tz else None)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_python_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_python_type(kind.key_type), _python_type(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_python_type(kind.value_type)))
    return kind


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

    plain = pa.schema([(name, _csv_type(field.type)) for name, field in zip(schema.names, schema, strict=True)])
    with csv.CSVWriter(out, plain) as writer:
        for batch in batches:
            columns = [
                _csv_column(column, field.type, kind)
                for column, field, kind in zip(batch.columns, plain, types, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=plain))


def _csv_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp(kind.unit, "UTC" if kind.tz else None)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_interval(kind):
        return pa.string()
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.string() if pa.types.is_null(kind) else kind


def _csv_column(column: pa.Array, wanted: pa.DataType, kind: str) -> pa.Array:
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
