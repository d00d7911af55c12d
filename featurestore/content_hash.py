r"""A hash of what a table says, not of how it is stored.

Two tables have the same hash exactly if they have the same columns, in order, of the same types, with the same values
in the same rows. How they are cut into chunks, where buffers begin, what lies under nulls, and which of several
encodings of one type is used make no difference.

The format, version 1. All integers are 64 bits, little-endian; H is SHA-256; text is UTF-8 behind its length.

::

    hash(table)  = H("penstock.content 1\n", rows, number of columns, (name, node(column)) for each column)
    node(values) = H("node\0", type, number of slots, number of nulls, H(place of each null slot), payload)

Slots are counted from 0 over the whole column. The payload is made of the values that are not null, in order:

=====================  ================================================================================
null                   nothing
bool                   H(one byte each, 0 or 1)
numbers, times         H(each value as Arrow lays it out, little-endian); every NaN is the positive quiet NaN
                       without a payload, and -0.0 is not 0.0
decimals               H(each unscaled value, 16 bytes up to precision 38, else 32)
utf8, binary           H(length in bytes of each), H(the bytes of all)
fixed_size_binary      H(the bytes of all)
list                   H(length of each), node(items of all lists)
fixed_size_list        node(items of all lists)
map                    H(length of each), node(keys of all), node(values of all)
struct                 number of fields, (name, node(field)) for each field
=====================  ================================================================================

The type is spelled as in the left column, with its parameters: ``int8`` … ``uint64``, ``float16`` … ``float64``,
``decimal(10,2)``, ``date32``, ``date64``, ``time32[s]``, ``timestamp[us]``, ``timestamp[us, UTC]``, ``duration[ns]``,
``month_day_nano_interval``, ``fixed_size_binary[16]``, ``fixed_size_list[3]``.

These count as the same type: strings and binaries with 32-bit and 64-bit offsets and as views; lists likewise;
a dictionary or run-end encoding and its values' type; decimals of 32 to 256 bits with one precision and scale;
an extension type and its storage type. Whether a field may be null, what the items of a list are called, whether the
keys of a map are sorted, and metadata don't count.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from lakehouse.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["FORMAT", "ContentHash", "content_sha256", "family_of", "plain"]

FORMAT = 1
"""Version of the format; it goes into every hash."""

_BLOCK = 1 << 16  # rows that are looked at together: what is copied while hashing stays this small
_THREADS = 4
_NARROW = 38  # greatest precision of a decimal that 16 bytes hold
_NAN = {2: 0x7E00, 4: 0x7FC00000, 8: 0x7FF8000000000000}


def content_sha256(table: pa.Table) -> str:
    """Return the hash of a table's content, 64 hexadecimal digits.

    Rows are hashed in their order. Memory beyond the table is bounded, whatever its size.

    Raises
    ------
    RequestError
        If a column's type has no canonical form (unions, run-end encodings within others).
    """
    return ContentHash(table.schema).update(table).hexdigest()


class ContentHash:
    """The hash of a table that arrives in pieces.

    Parameters
    ----------
    schema
        Of all pieces.
    threads
        How many columns are hashed at the same time; None: as many as there are processors, at most four.

    Raises
    ------
    RequestError
        If a column's type has no canonical form (unions, run-end encodings within others).
    """

    def __init__(self, schema: pa.Schema, *, threads: int | None = None) -> None:
        self._schema = schema
        self._rows = 0
        self._nodes = [_node(field.type, field.name) for field in schema]
        self._threads = max(1, min(threads or os.cpu_count() or 1, _THREADS, len(self._nodes)))

    def update(self, rows: pa.Table | pa.RecordBatch) -> Self:
        """Add rows behind those that were added before."""
        if not rows.schema.equals(self._schema):
            raise ValueError(rows.schema)
        self._rows += rows.num_rows
        work = list(zip(self._nodes, rows.columns, strict=True))
        if self._threads == 1 or rows.num_rows < _BLOCK:
            for node, column in work:
                _add(node, column)
        else:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="penstock-hash") as pool:
                list(pool.map(lambda pair: _add(*pair), work))
        return self

    def hexdigest(self) -> str:
        """Return the hash of all rows so far; more may follow."""
        whole = hashlib.sha256(f"penstock.content {FORMAT}\n".encode())
        whole.update(_number(self._rows) + _number(len(self._nodes)))
        for field, node in zip(self._schema, self._nodes, strict=True):
            whole.update(_text(field.name) + node.digest())
        return whole.hexdigest()

    def columns(self) -> list[str]:
        """Return the hash of each column so far, in order: its type and values, not its name."""
        return [node.digest().hex() for node in self._nodes]


def _add(node: _Node, column: pa.Array | pa.ChunkedArray) -> None:
    for block in _blocks(column):
        node.update(block)


def _blocks(column: pa.Array | pa.ChunkedArray) -> Iterator[pa.Array]:
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    for chunk in chunks:
        for start in range(0, len(chunk), _BLOCK):
            yield chunk.slice(start, _BLOCK)


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _text(text: str) -> bytes:
    data = text.encode()
    return _number(len(data)) + data


# -- one column, or what is nested in it --------------------------------------------------------------------------


class _Node:
    """The running hash of values of one type."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._slots = 0
        self._nulls = 0
        self._places = hashlib.sha256()

    def update(self, values: pa.Array) -> None:
        import numpy as np
        import pyarrow.compute as pc

        values = plain(values)
        slots = len(values)
        if values.null_count:
            places = np.flatnonzero(pc.is_null(values).to_numpy(zero_copy_only=False)) + self._slots
            self._places.update(places.astype("<i8").data)
            self._nulls += len(places)
            # Not only smaller: what lies under nulls is gone, in children too.
            values = values.drop_null()
        self._slots += slots
        if len(values):
            self._add(values)

    def digest(self) -> bytes:
        counts = _number(self._slots) + _number(self._nulls)
        head = b"node\0" + _text(self._kind) + counts + self._places.digest()
        return hashlib.sha256(head + self._payload()).digest()

    def _add(self, values: pa.Array) -> None:
        """Hash values of which none is null."""

    def _payload(self) -> bytes:
        return b""


class _Fixed(_Node):
    """Values of one width; floats with one NaN."""

    def __init__(self, kind: str, width: int, *, floating: bool = False) -> None:
        super().__init__(kind)
        self._width = width
        self._floating = floating
        self._values = hashlib.sha256()

    def _add(self, values: pa.Array) -> None:
        import numpy as np

        if self._width == 0:
            return
        start, end = values.offset * self._width, (values.offset + len(values)) * self._width
        raw = memoryview(values.buffers()[1])[start:end]
        if self._floating:
            floats = np.frombuffer(raw, dtype=f"<f{self._width}")
            nans = np.isnan(floats)
            if nans.any():
                bits = floats.view(f"<u{self._width}").copy()
                bits[nans] = _NAN[self._width]
                raw = bits.data
        self._values.update(raw)

    def _payload(self) -> bytes:
        return self._values.digest()


class _Booleans(_Node):
    def __init__(self) -> None:
        super().__init__("bool")
        self._values = hashlib.sha256()

    def _add(self, values: pa.Array) -> None:
        self._values.update(values.to_numpy(zero_copy_only=False).astype("u1").data)

    def _payload(self) -> bytes:
        return self._values.digest()


class _Bytes(_Node):
    """Text and binaries."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self._lengths = hashlib.sha256()
        self._values = hashlib.sha256()

    def _add(self, values: pa.Array) -> None:
        import numpy as np

        offsets = _offsets(values)
        self._lengths.update(np.diff(offsets).astype("<i8", copy=False).data)
        data = values.buffers()[2]
        if data is not None:
            self._values.update(memoryview(data)[int(offsets[0]) : int(offsets[-1])])

    def _payload(self) -> bytes:
        return self._lengths.digest() + self._values.digest()


class _Lists(_Node):
    def __init__(self, kind: str, items: _Node, *, fixed: bool = False) -> None:
        super().__init__(kind)
        self._items = items
        self._fixed = fixed
        self._lengths = hashlib.sha256()

    def _add(self, values: pa.Array) -> None:
        import pyarrow.compute as pc

        if not self._fixed:
            self._lengths.update(pc.list_value_length(values).to_numpy().astype("<i8", copy=False).data)
        _add(self._items, values.flatten())

    def _payload(self) -> bytes:
        lengths = b"" if self._fixed else self._lengths.digest()
        return lengths + self._items.digest()


class _Maps(_Node):
    def __init__(self, keys: _Node, items: _Node) -> None:
        super().__init__("map")
        self._keys = keys
        self._items = items
        self._lengths = hashlib.sha256()

    def _add(self, values: pa.Array) -> None:
        import numpy as np

        offsets = values.offsets.to_numpy().astype("<i8")
        self._lengths.update(np.diff(offsets).data)
        start, length = int(offsets[0]), int(offsets[-1] - offsets[0])  # keys and items are those of the whole buffer
        _add(self._keys, values.keys.slice(start, length))
        _add(self._items, values.items.slice(start, length))

    def _payload(self) -> bytes:
        return self._lengths.digest() + self._keys.digest() + self._items.digest()


class _Structs(_Node):
    def __init__(self, names: list[str], fields: list[_Node]) -> None:
        super().__init__("struct")
        self._names = names
        self._fields = fields

    def _add(self, values: pa.Array) -> None:
        for node, child in zip(self._fields, values.flatten(), strict=True):
            _add(node, child)

    def _payload(self) -> bytes:
        fields = (_text(name) + node.digest() for name, node in zip(self._names, self._fields, strict=True))
        return _number(len(self._names)) + b"".join(fields)


def _offsets(values: pa.Array) -> np.ndarray[Any, Any]:
    """Return the offsets of a binary array, one more than it has values."""
    import numpy as np
    import pyarrow as pa

    wide = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
    offsets = np.frombuffer(values.buffers()[1], dtype="<i8" if wide else "<i4")
    return offsets[values.offset : values.offset + len(values) + 1]


# -- types --------------------------------------------------------------------------------------------------------


def plain(values: pa.Array) -> pa.Array:
    """Return values in the one encoding of their type that the hash reads; within others, encodings stay."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    while not kind.equals(_decoded(kind)):
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        elif pa.types.is_dictionary(kind):
            values = values.dictionary_decode()
        else:
            values = pc.run_end_decode(values)
        kind = values.type
    wanted = _one_width(kind)
    return values if kind.equals(wanted) else values.cast(wanted)


def _decoded(kind: pa.DataType) -> pa.DataType:
    """Return the type beneath an extension type, a dictionary or a run-end encoding."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return kind.value_type
    return kind


def _one_width(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_decimal(kind):
        return (pa.decimal128 if kind.precision <= _NARROW else pa.decimal256)(kind.precision, kind.scale)
    return kind


_FAMILIES = {
    "null": ("null",),
    "bool": ("boolean",),
    "utf8": ("string", "large_string", "string_view"),
    "binary": ("binary", "large_binary", "binary_view"),
    "list": ("list", "large_list", "list_view", "large_list_view"),
    "fixed_size_list": ("fixed_size_list",),
    "map": ("map",),
    "struct": ("struct",),
    "floating": ("floating",),
    "decimal": ("decimal",),
    "timestamp": ("timestamp",),
    "date": ("date",),
    "fixed": ("primitive", "fixed_size_binary", "interval"),
}
"""Families of types, each with the predicates of `pyarrow.types` that tell its members; the first that fits counts."""


def family_of(kind: pa.DataType) -> str | None:
    """Return how the hash treats a type in its one encoding; None if it can't."""
    import pyarrow as pa

    for family, predicates in _FAMILIES.items():
        if any(getattr(pa.types, f"is_{predicate}")(kind) for predicate in predicates):
            return family
    return None


def _node(kind: pa.DataType, column: str, *, nested: bool = False) -> _Node:
    """Return the hash of a type's values, with those of what it nests."""
    import pyarrow as pa

    if nested and pa.types.is_run_end_encoded(kind):
        raise _refusal(kind, column)  # pyarrow can't take them out of lists with nulls
    beneath = _decoded(kind)
    if not kind.equals(beneath):
        return _node(beneath, column, nested=nested)

    family = family_of(kind)
    if family is None:
        raise _refusal(kind, column)
    children = [_node(child, column, nested=True) for child in _children(kind, family)]
    match family:
        case "list":
            return _Lists("list", *children)
        case "fixed_size_list":
            return _Lists(f"fixed_size_list[{kind.list_size}]", *children, fixed=True)
        case "map":
            return _Maps(*children)
        case "struct":
            return _Structs([field.name for field in kind], children)
    return _leaf(kind, family)


def _children(kind: pa.DataType, family: str) -> list[pa.DataType]:
    match family:
        case "list" | "fixed_size_list":
            return [kind.value_type]
        case "map":
            return [kind.key_type, kind.item_type]
        case "struct":
            return [field.type for field in kind]
    return []


def _leaf(kind: pa.DataType, family: str) -> _Node:
    match family:
        case "null":
            return _Node("null")
        case "bool":
            return _Booleans()
        case "utf8" | "binary":
            return _Bytes(family)
    return _fixed(kind, family)


def _fixed(kind: pa.DataType, family: str) -> _Node:
    width = kind.bit_width // 8
    match family:
        case "floating":
            return _Fixed(f"float{kind.bit_width}", width, floating=True)
        case "decimal":
            return _Fixed(f"decimal({kind.precision},{kind.scale})", 16 if kind.precision <= _NARROW else 32)
        case "timestamp":
            return _Fixed(f"timestamp[{kind.unit}{'' if kind.tz is None else f', {kind.tz}'}]", width)
        case "date":
            return _Fixed(f"date{kind.bit_width}", width)
    return _Fixed(str(kind), width)  # int8 … uint64, time32[s], duration[us], fixed_size_binary[3]


def _refusal(kind: pa.DataType, column: str) -> RequestError:
    return RequestError(
        f"column {column!r} holds values of type {kind}, which have no canonical form to be hashed",
        hint="Convert the column, e.g. to text or to a struct.",
    )
