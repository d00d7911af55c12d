"""Which Arrow types a table of the lake can hold and give back exactly, and how.

Delta knows fewer types than Arrow. Where it has one that holds the same values, a column is stored in that and turned
back when it is read; where it has none, or a value does not fit, the column is refused by name. Nothing is ever
rounded, cut or replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lakehouse.delta import ColumnSchema
from lakehouse.errors import RequestError
from lakehouse.result.text import type_name
from lakehouse.types import quote

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["column_schemas", "restored", "stored", "stored_schema"]

_DECIMAL_DIGITS = 38
_HINTS = {
    "time": "Convert them to text, or to an integer of microseconds.",
    "duration": "Convert them to an integer of microseconds.",
    "halffloat": "Convert them to float32.",
    "null": "Give them a type: an empty column inside others has none.",
    "decimal": "Convert them to decimals of at most 38 digits, or to text.",
    "interval": "Convert them to integers or to text.",
}


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns under which a table of that schema is stored.

    Unsigned integers are stored in the next wider signed ones (uint64 as decimal(20,0)), instants of any zone and
    unit as microseconds in UTC, dictionaries as their values, a column without any type as text.

    Raises
    ------
    RequestError
        If names are empty or repeat, or a column is of a type that can't be stored exactly; all such are named.
    """
    import pyarrow as pa

    _check_names(schema.names)
    refused = {field.name: (field.type, reason) for field in schema if (reason := _refusal(field.type)) is not None}
    if refused:
        listed = ", ".join(f"{name!r} ({kind})" for name, (kind, _) in refused.items())
        reasons = list(dict.fromkeys(reason for _, reason in refused.values()))
        raise RequestError(
            f"{'a column has' if len(refused) == 1 else 'columns have'} a type that a stored table can't hold "
            f"exactly: {listed}",
            hint=" ".join(reasons) + " Or leave them out of the spine.",
        )
    return pa.schema([pa.field(field.name, _stored_type(field.type)) for field in schema])


def column_schemas(schema: pa.Schema) -> tuple[ColumnSchema, ...]:
    """Return stored columns as the catalog describes them."""
    return tuple(ColumnSchema(field.name, _spelled(field.type)) for field in schema)


def stored(batch: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows under the schema that `stored_schema` gave for them.

    Raises
    ------
    RequestError
        If a value has no exact equal there: an instant with nanoseconds, or one beyond what microseconds reach.
    """
    import pyarrow as pa

    columns = []
    for name, column, field in zip(batch.schema.names, batch.columns, schema, strict=True):
        try:
            columns.append(_decoded(column).cast(field.type))
        except pa.ArrowInvalid:  # its message shows the value, which has no place in records of executions
            raise RequestError(
                f"column {name!r} has a value that a stored table can't hold exactly: it is {column.type}, which is "
                f"stored as {field.type}",
                hint="Instants are held to the microsecond: round the column in a way that suits what it means, or "
                "leave it out of the spine.",
            ) from None
    return pa.Table.from_arrays(columns, schema=schema)


def restored(rows: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """Return stored rows under the schema that they had before."""
    import pyarrow as pa

    columns = [_restored(column, field.type) for column, field in zip(rows.columns, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema)


def _restored(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    import pyarrow as pa

    if pa.types.is_null(kind):
        return pa.nulls(len(column))
    if not pa.types.is_dictionary(kind):
        return column.cast(kind)
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([_restored(chunk, kind) for chunk in column.chunks], kind)
    coded = column.cast(kind.value_type).dictionary_encode()
    indices = coded.indices.cast(kind.index_type)
    return pa.DictionaryArray.from_arrays(indices, coded.dictionary, ordered=kind.ordered)


def _decoded(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _check_names(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if not name:
            raise RequestError("a column without a name can't be stored", hint="Name it.")
        if name.lower() in seen:
            raise RequestError(
                f"columns {seen[name.lower()]!r} and {name!r} can't be stored together: tables don't tell their "
                "names apart",
                hint="Rename one of them.",
            )
        seen[name.lower()] = name


def _refusal(kind: pa.DataType) -> str | None:
    """Return what to do about a type that can't be stored; None if it can."""
    import pyarrow as pa

    wanted = _stored_type(kind)
    if wanted is None:
        return next((hint for word, hint in _HINTS.items() if word in str(kind)), "Convert them to a simple type.")
    try:
        _restored(_decoded(pa.array([], kind)).cast(wanted), kind)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return "Convert them to a simple type."
    return None


def _stored_type(kind: pa.DataType, *, nested: bool = False) -> pa.DataType | None:
    """Return the type that a column of a type is stored in; None if there is no exact one."""
    import pyarrow as pa

    types = pa.types
    if types.is_null(kind) and not nested:
        return pa.string()
    if types.is_dictionary(kind) and not nested:
        return _stored_type(kind.value_type)
    if types.is_nested(kind):
        return _stored_nested(kind)
    if types.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if types.is_decimal(kind):
        fits = 0 <= kind.scale <= kind.precision <= _DECIMAL_DIGITS
        return pa.decimal128(kind.precision, kind.scale) if fits else None
    return _plain_types().get(kind) or (pa.binary() if types.is_fixed_size_binary(kind) else None)


def _plain_types() -> dict[Any, Any]:
    import pyarrow as pa

    same = [pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.date32()]
    text, data = (pa.string(), pa.large_string(), pa.string_view()), (pa.binary(), pa.large_binary(), pa.binary_view())
    return {
        **{kind: kind for kind in same},
        **dict.fromkeys(text, pa.string()),
        **dict.fromkeys(data, pa.binary()),
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.decimal128(20, 0),
        pa.date64(): pa.date32(),
    }


def _stored_nested(kind: pa.DataType) -> pa.DataType | None:
    import pyarrow as pa

    types = pa.types
    if types.is_map(kind):
        parts = [_stored_type(kind.key_type, nested=True), _stored_type(kind.item_type, nested=True)]
        return pa.map_(*parts) if all(parts) else None
    if types.is_struct(kind):
        fields = [(field.name, _stored_type(field.type, nested=True)) for field in kind]
        names = {name.lower() for name, _ in fields}
        whole = fields and all(part for _, part in fields) and len(names) == len(fields) and "" not in names
        return pa.struct(fields) if whole else None
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        item = _stored_type(kind.value_type, nested=True)
        return pa.list_(pa.field("element", item)) if item else None
    return None


def _spelled(kind: pa.DataType) -> str:
    """Return how DuckDB spells a stored type."""
    import pyarrow as pa

    types = pa.types
    if types.is_map(kind):
        return f"MAP({_spelled(kind.key_type)}, {_spelled(kind.item_type)})"
    if types.is_struct(kind):
        return f"STRUCT({', '.join(f'{quote(field.name)} {_spelled(field.type)}' for field in kind)})"
    if types.is_list(kind):
        return f"{_spelled(kind.value_type)}[]"
    return type_name(kind)
