"""Keys whose byte order is the order of the values, column by column, and in which every column says where it ends.

A marker byte comes first: 0 before the plain form, 1 before the SHA-256 of it when the key would otherwise exceed
500 bytes (LMDB takes 511). Integers, decimals, dates and times are big-endian with the sign bit flipped; text and
blobs have each zero byte followed by 255 and end with two zero bytes, so that ("a", "bc") is never ("ab", "c").
"""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import itertools
import math
import operator
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

from featurestore.codec.buffers import as_binary, binary_parts, column, fixed_values, is_null, join, slices
from featurestore.codec.layouts import EPOCH, EPOCH_DATE, EPOCH_UTC, EXACT, Layout, layout
from lakehouse.errors import CatalogDamagedError, RequestError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["LONGEST", "KeyCodec"]

LONGEST = 500
"""Bytes of the longest key, marker included."""

_PLAIN, _HASHED = b"\x00", b"\x01"
_END = b"\x00\x00"
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
_SURE = 2**53  # from here on a double may stand for more than one integer
_DIGITS = 40  # more than any integer or decimal here has
_MICROSECOND = dt.timedelta(microseconds=1)

One = Callable[[Any], bytes | None]


class KeyCodec:
    """Turns the values of join keys into keys of a store.

    Parameters
    ----------
    types
        As DuckDB spells them, in the order of the join keys; none for one row for everybody.

    Attributes
    ----------
    encode_one
        ``encode_one(values)`` returns the key of single values, the same bytes as `encode`. It returns None if no row
        can have the key: a value is None, an integer beyond the type's range, or a decimal that the type can't hold
        exactly. It raises `RequestError` if a value is of another type than its key: values are compared exactly, and
        never converted from text.

    Raises
    ------
    RequestError
        If one is FLOAT or DOUBLE: these identify nothing.
    """

    def __init__(self, types: Sequence[str]) -> None:
        self.types = tuple(types)
        self._layouts = tuple(layout(type_) for type_ in self.types)
        for known in self._layouts:
            if known.code in "fd":
                raise RequestError(f"a key can't be of type {known.type}: floating-point numbers identify nothing")
        self._ones = tuple(_one(known) for known in self._layouts)
        single = len(self._layouts) == 1 and _is_integer(self._layouts[0])
        self.encode_one: Callable[[Sequence[Any]], bytes | None] = (
            self._integer_encoder() if single else self._encode_any
        )

    def __repr__(self) -> str:
        return f"KeyCodec({list(self.types)!r})"

    def encode(self, columns: Sequence[pa.Array], rows: int | None = None) -> pa.LargeBinaryArray:
        """Return one key per row; null where any of its values is null, or can't be a value of the key's type.

        Parameters
        ----------
        columns
            One per join key, of the codec's types; for integers any integer type.
        rows
            How many keys; needed only when there are no columns.

        Raises
        ------
        RequestError
            If a column is of another type.
        """
        import numpy as np

        if len(columns) != len(self.types):
            raise self._miscounted(len(columns))
        if not columns:
            count = rows or 0
            return slices(np.zeros(count, np.uint8), np.arange(count + 1))
        arrays = [_key_column(array, known) for array, known in zip(columns, self._layouts, strict=True)]
        pieces: list[Any] = []
        run: list[tuple[pa.Array, Layout]] = []
        for array, known in zip(arrays, self._layouts, strict=True):
            if known.variable:
                pieces += [_fixed_run(run, len(array), _END if pieces else _PLAIN), _escaped(array)]
                run = []
            else:
                run.append((array, known))
        pieces.append(_fixed_run(run, len(arrays[0]), _END if pieces else _PLAIN))
        return _shortened(join(pieces))

    def _encode_any(self, values: Sequence[Any]) -> bytes | None:
        if len(values) != len(self._ones):
            raise self._miscounted(len(values))
        key = _PLAIN
        for one, value in zip(self._ones, values, strict=True):
            part = None if value is None else one(value)
            if part is None:
                return None
            key += part
        return key if len(key) <= LONGEST else _HASHED + hashlib.sha256(key[1:]).digest()

    def _integer_encoder(self) -> Callable[[Sequence[Any]], bytes | None]:
        """Return the short way for the most common kind of key, one integer; whatever is special goes the long way."""
        size = self._layouts[0].size
        bias = 1 << (8 * size - 1)
        pack = struct.Struct(f">x{_UNSIGNED[size]}").pack
        general = self._encode_any

        def encode_one(values: Sequence[Any]) -> bytes | None:
            if len(values) == 1:
                value = values[0]
                if type(value) is int and -bias <= value < bias:
                    return pack(value + bias)
            return general(values)

        return encode_one

    def decode(self, key: bytes | memoryview) -> tuple[Any, ...] | None:
        """Return the values of a key; None for one that is a hash.

        Raises
        ------
        CatalogDamagedError
            If the bytes are no key of these types.
        """
        key = bytes(key)
        if key[:1] == _HASHED and len(key) == 1 + hashlib.sha256().digest_size:
            return None
        if key[:1] != _PLAIN or len(key) > LONGEST:
            raise _damaged(key)
        values, at = [], 1
        for known in self._layouts:
            if known.variable:
                value, at = _unescaped(key, at)
                values.append(_text(value, key) if known.variable == "text" else value)
                continue
            part = key[at : at + known.size]
            if len(part) != known.size:
                raise _damaged(key)
            values.append(_value(part, known, key))
            at += known.size
        if at != len(key):
            raise _damaged(key)
        return tuple(values)

    def _miscounted(self, given: int) -> RequestError:
        return RequestError(f"{given} key values were given where {len(self.types)} are needed")


def _damaged(key: bytes) -> CatalogDamagedError:
    return CatalogDamagedError(
        f"{key[:40]!r} is no key of these types", hint="Build it again: penstock materialize --full."
    )


def _is_integer(known: Layout) -> bool:
    return known.code in "bhiq" and not known.precision and known.convert is None


# --- single values


def _one(known: Layout) -> One:
    """Return what encodes one value of a type: None if the type can't hold it."""
    if known.precision:
        return _one_decimal(known)
    simple: dict[str, One] = {"BOOLEAN": _one_boolean, "VARCHAR": _one_text, "BLOB": _one_blob, "DATE": _one_date}
    if known.type in simple:
        return simple[known.type]
    return _one_time(known) if known.type.startswith("TIMESTAMP") else _one_integer(known)


def _wrong(value: object, known_type: str, hint: str | None = None) -> RequestError:
    return RequestError(
        f"a key of type {known_type} can't be looked up by {value!r:.80}, which is of type {type(value).__name__}",
        hint=hint,
    )


def _one_boolean(value: object) -> bytes:
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):  # NumPy's too, without importing it
        return b"\x01" if value else b"\x00"
    raise _wrong(value, "BOOLEAN", "Give True or False.")


def _one_text(value: object) -> bytes | None:
    if not isinstance(value, str):
        raise _wrong(value, "VARCHAR", "Give text (str).")
    try:
        return value.encode().replace(b"\x00", b"\x00\xff") + _END
    except UnicodeEncodeError:
        return None


def _one_blob(value: object) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise _wrong(value, "BLOB", "Give bytes.")
    return bytes(value).replace(b"\x00", b"\x00\xff") + _END


def _one_date(value: object) -> bytes:
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        raise _wrong(value, "DATE", "Give a datetime.date.")
    return (value.toordinal() - EPOCH_DATE + 2**31).to_bytes(4)


def _one_time(known: Layout) -> One:
    zoned = known.type != "TIMESTAMP"

    def one(value: object) -> bytes:
        if not isinstance(value, dt.datetime):
            raise _wrong(value, known.type, "Give a datetime.datetime.")
        if (value.utcoffset() is not None) != zoned:
            what = "a time with a zone" if zoned else "a time without a zone"
            raise _wrong(value, known.type, f"This key is {what}: the given one is the other kind.")
        return ((value - (EPOCH_UTC if zoned else EPOCH)) // _MICROSECOND + 2**63).to_bytes(8)

    return one


def _unscaled(value: object, known: Layout) -> int | None:
    """Return a number times ten to the type's scale; None for a decimal that is then not whole, or far too large."""
    if isinstance(value, decimal.Decimal):
        if not value.is_finite() or not -known.scale <= value.adjusted() <= _DIGITS:
            return 0 if value == 0 else None
        sign, digits, exponent = value.as_tuple()
        number, exponent = int("".join(map(str, digits))), int(exponent) + known.scale
        if exponent < 0:
            number, rest = divmod(number, 10**-exponent)
            if rest:
                return None
        return (-number if sign else number) * int(10 ** max(exponent, 0))
    if isinstance(value, float):  # as pandas makes of integers with gaps; the spine of a retrieval takes them too
        if math.isnan(value):
            return None
        if value.is_integer() and abs(value) < _SURE:
            return int(value) * int(10**known.scale)
    elif not isinstance(value, bool):
        try:
            return operator.index(cast(SupportsIndex, value)) * int(10**known.scale)
        except TypeError:
            pass
    raise _wrong(value, known.type, "Give an integer (int) or a decimal.Decimal.")


def _one_integer(known: Layout) -> One:
    size, bias = known.size, 1 << (8 * known.size - 1)

    def one(value: object) -> bytes | None:
        number = value if type(value) is int else _unscaled(value, known)
        return None if number is None or not -bias <= number < bias else (number + bias).to_bytes(size)

    return one


def _one_decimal(known: Layout) -> One:
    size, bias, limit = known.size, 1 << (8 * known.size - 1), 10**known.precision

    def one(value: object) -> bytes | None:
        number = _unscaled(value, known)
        return None if number is None or not -limit < number < limit else (number + bias).to_bytes(size)

    return one


def _value(part: bytes, known: Layout, key: bytes) -> Any:
    number = int.from_bytes(part)
    if known.type == "BOOLEAN":
        if number > 1:
            raise _damaged(key)
        return bool(number)
    number -= 1 << (8 * known.size - 1)
    if known.precision:
        return decimal.Decimal(number).scaleb(-known.scale, EXACT)
    return number if known.convert is None else known.convert(number)


def _unescaped(key: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes that start at a place of a key, and where the next column starts."""
    value = b""
    while True:
        zero = key.find(b"\x00", at)
        following = key[zero + 1 : zero + 2]
        if zero < 0 or following not in (b"\x00", b"\xff"):
            raise _damaged(key)
        value += key[at:zero]
        at = zero + 2
        if following == b"\x00":
            return value, at
        value += b"\x00"


def _text(value: bytes, key: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _damaged(key) from None


# --- columns


def _key_column(array: Any, known: Layout) -> pa.Array:
    """Return a column of the codec's type, integers of other widths converted; null where out of range."""
    import numpy as np
    import pyarrow as pa

    what = f"the key of type {known.type}"
    if not _is_integer(known) or not pa.types.is_integer(array.type):
        return column(array, known, what)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    dtype = np.dtype(known.dtype)
    if values.dtype == dtype:
        return array
    bounds = np.iinfo(dtype)
    nulls = is_null(array) | (values < bounds.min) | (values > bounds.max)
    return pa.array(np.where(nulls, 0, values).astype(dtype), mask=nulls)


def _fixed_run(run: Sequence[tuple[pa.Array, Layout]], rows: int, lead: bytes) -> pa.LargeBinaryArray:
    """Return neighbouring columns of fixed width as bytes, after zeros: the marker, or the end of the text before."""
    import numpy as np

    formats: list[Any] = []
    for _, known in run:
        formats.append((">u8", (2,)) if known.wide else f">u{known.size}")
    sizes = [known.size for _, known in run]
    places = list(itertools.accumulate(sizes, initial=len(lead)))
    dtype = np.dtype({
        "names": [str(number) for number in range(len(run))],
        "formats": formats,
        "offsets": places[:-1],
        "itemsize": places[-1],
    })  # fmt: skip
    records = np.zeros(rows, dtype)
    nulls = np.zeros(rows, np.bool_)
    for number, (array, known) in enumerate(run):
        records[str(number)] = _ordered(fixed_values(array, known), known)
        nulls |= is_null(array)
    data = records.view(np.uint8) if rows else np.empty(0, np.uint8)
    return slices(data, np.arange(rows + 1, dtype=np.int64) * places[-1], nulls)


def _ordered(values: npt.NDArray[Any], known: Layout) -> npt.NDArray[Any]:
    """Return unsigned integers in the order of the values."""
    import numpy as np

    if known.wide:
        return np.stack([values[:, 1] ^ np.uint64(1 << 63), values[:, 0]], axis=1)
    if known.type == "BOOLEAN":
        return values
    unsigned = np.ascontiguousarray(values).view(f"u{known.size}")
    flipped: npt.NDArray[Any] = unsigned ^ unsigned.dtype.type(1 << (8 * known.size - 1))
    return flipped


def _escaped(array: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    import pyarrow.compute as pc

    data, offsets = binary_parts(array)
    if (data[offsets[0] : offsets[-1]] == 0).any():
        return as_binary(pc.replace_substring(array, pattern=b"\x00", replacement=b"\x00\xff"))
    return array


def _shortened(keys: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """Replace keys that are too long by their hashes; the only step that costs Python time, and per long key only."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    _, offsets = binary_parts(keys)
    long = (np.diff(offsets) > LONGEST) & ~is_null(keys)
    if not long.any():
        return keys
    chosen = keys.take(pa.array(np.flatnonzero(long)))
    hashed = [_HASHED + hashlib.sha256(key.as_buffer()[1:]).digest() for key in chosen]
    return pc.replace_with_mask(keys, pa.array(long), pa.array(hashed, pa.large_binary()))
