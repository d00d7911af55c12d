"""Packed rows: a bitmap of nulls, a fixed section, and the bytes of text and blobs, all little-endian.

The bitmap has one bit per column, set for null; it takes 1, 2, 4 or a multiple of 8 bytes. The fixed section holds
every column at its width: 1 to 8 bytes, 16 for decimals of more than 18 digits, and for text and blobs the end of
their bytes within the variable section (32 bits). Where a value is null, zeros stand. Equal rows are equal bytes;
there is only one NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from featurestore.codec.buffers import as_binary, binary_parts, column, fixed_values, is_null, join, slices, validity
from featurestore.codec.decoding import Decode, damaged, row_decoder
from featurestore.codec.layouts import Layout, arrow_type, layout
from lakehouse.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["RowCodec"]

_LONGEST = 2**32 - 1
_ARROW_LONGEST = 2**31 - 1


class RowCodec:
    """Packs and unpacks rows of columns of given types.

    Parameters
    ----------
    types
        As DuckDB spells them, in the order of the columns.

    Attributes
    ----------
    decode
        ``decode(buffer, start=0, end=None)`` returns one row as Python values: int, float, bool, str, bytes, Decimal,
        date, naive datetime for TIMESTAMP, aware UTC datetime for TIMESTAMP WITH TIME ZONE, None for null. It raises
        `CatalogDamagedError` if the bytes are no such row, `RequestError` for a time that Python has no value for.
    """

    def __init__(self, types: Sequence[str]) -> None:
        self.types = tuple(types)
        self._layouts = tuple(layout(type_) for type_ in self.types)
        self._bitmap = _bitmap_size(len(self.types))
        self._size = self._bitmap + sum(known.size for known in self._layouts)
        self._variable = tuple(place for place, known in enumerate(self._layouts) if known.variable)
        self.decode: Decode = self.decoder(range(len(self.types)))

    def __repr__(self) -> str:
        return f"RowCodec({list(self.types)!r})"

    def decoder(self, positions: Sequence[int]) -> Decode:
        """Return a function like `decode` that returns only the columns at some positions, in that order.

        Compile it once: what is not asked for is skipped without being looked at.
        """
        return row_decoder(self._layouts, self._bitmap, positions)

    def encode(self, columns: Sequence[pa.Array], rows: int | None = None) -> pa.LargeBinaryArray:
        """Return the packed rows of columns of equal length.

        Parameters
        ----------
        columns
            One per type.
        rows
            How many rows; needed only when there are no columns.

        Raises
        ------
        RequestError
            If a column is of another type than the codec's, or a row is longer than 4 GiB.
        """
        arrays = [
            column(array, known, f"column {place + 1}")
            for place, (array, known) in enumerate(zip(columns, self._layouts, strict=True))
        ]
        fixed = self._fixed_section(arrays, len(arrays[0]) if arrays else rows or 0)
        import numpy as np

        heads = slices(fixed, np.arange(len(fixed) + 1, dtype=np.int64) * self._size)
        if not self._variable:
            return heads
        texts = [
            arrays[place].fill_null(b"") if arrays[place].null_count else arrays[place] for place in self._variable
        ]
        return join([heads, *texts])

    def decode_many(self, rows: pa.LargeBinaryArray) -> list[pa.Array]:
        """Return the columns of packed rows, of exactly the types that `arrow_type` gives.

        Raises
        ------
        CatalogDamagedError
            If a row is not of this codec.
        RequestError
            If one column's text exceeds 2 GiB: decode fewer rows at a time.
        """
        import numpy as np

        rows = as_binary(rows)
        if rows.null_count:
            raise RequestError("a packed row is null")
        data, offsets = binary_parts(rows)
        pieces = slices(data, offsets)
        lengths = np.diff(offsets)
        if self._variable:
            ends = self._ends(data, offsets, lengths)
            # Cut the data into fixed section, first text, second text, … of every row.
            begin = offsets[:-1, None]
            cuts = np.concatenate([begin, begin + self._size, begin + self._size + ends[:, :-1]], axis=1)
            pieces = slices(data, np.append(cuts.reshape(-1), offsets[-1]))
        elif (lengths != self._size).any():
            raise damaged()
        step = len(self._variable) + 1
        fixed = _every(pieces, 0, step) if self._variable else pieces
        records = self._records(fixed)
        variable = iter(_every(pieces, 1 + place, step) for place in range(len(self._variable)))
        nulls = self._nulls(records)
        return [
            _text_column(known, next(variable), nulls[place])
            if known.variable
            else _fixed_column(known, records[str(place)], nulls[place])
            for place, known in enumerate(self._layouts)
        ]

    def _dtype(self) -> np.dtype[Any]:
        import numpy as np

        formats = [(np.uint64, (2,)) if known.wide else known.dtype for known in self._layouts]
        places, offset = [], self._bitmap
        for known in self._layouts:
            places.append(offset)
            offset += known.size
        names = [str(place) for place in range(len(self._layouts))]
        return np.dtype({
            "names": [*names, "nulls"],
            "formats": [*formats, (np.uint8, (self._bitmap,))],
            "offsets": [*places, 0],
            "itemsize": self._size,
        })  # fmt: skip

    def _fixed_section(self, arrays: Sequence[pa.Array], rows: int) -> npt.NDArray[Any]:
        import numpy as np

        records = np.zeros(rows, self._dtype())
        end = np.zeros(len(records), np.int64)
        for place, (array, known) in enumerate(zip(arrays, self._layouts, strict=True)):
            field = records[str(place)]
            if known.variable:
                end += _lengths(array)
                field[:] = end if not len(end) or end.max() <= _LONGEST else _too_long(end)
            else:
                field[:] = fixed_values(array, known)
                if known.code in "fd":
                    field[np.isnan(field)] = np.nan
            if array.null_count:
                nulls = is_null(array)
                records["nulls"][:, place // 8] |= nulls.astype(np.uint8) << (place % 8)
                if not known.variable:
                    field[nulls] = 0
        return records

    def _records(self, fixed: pa.LargeBinaryArray) -> npt.NDArray[Any]:
        import numpy as np

        data, offsets = binary_parts(fixed)
        return np.frombuffer(data[offsets[0] : offsets[-1]], self._dtype())

    def _nulls(self, records: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return one row per column, one column per row."""
        import numpy as np

        bits = np.unpackbits(np.ascontiguousarray(records["nulls"]), axis=1, bitorder="little")
        if bits[:, len(self.types) :].any():
            raise damaged()
        return bits[:, : len(self.types)].T.astype(np.bool_)

    def _ends(
        self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return the ends of the variable columns, one row each, checked."""
        import numpy as np

        if (lengths < self._size).any():
            raise damaged()
        dtype = self._dtype().fields
        ends = np.zeros((len(lengths), len(self._variable)), np.int64)
        for number, place in enumerate(self._variable):
            start = offsets[:-1] + (dtype[str(place)][1] if dtype else 0)
            for byte in range(4):
                ends[:, number] |= data[start + byte].astype(np.int64) << (8 * byte)
        if (np.diff(ends, axis=1, prepend=0) < 0).any() or (ends[:, -1] != lengths - self._size).any():
            raise damaged()
        return ends


def _too_long(ends: npt.NDArray[np.int64]) -> Any:
    raise RequestError(f"the text of one row has {int(ends.max()):,} bytes; the limit is {_LONGEST:,}")


def _bitmap_size(columns: int) -> int:
    size = max(1, -(-columns // 8))
    return next((known for known in (1, 2, 4, 8) if size <= known), -(-size // 8) * 8)


def _lengths(array: pa.LargeBinaryArray) -> npt.NDArray[np.int64]:
    import numpy as np

    lengths = np.diff(binary_parts(array)[1])
    return np.where(is_null(array), 0, lengths) if array.null_count else lengths


def _every(pieces: pa.LargeBinaryArray, first: int, step: int) -> pa.LargeBinaryArray:
    import numpy as np

    return pieces.take(np.arange(first, len(pieces), step))


def _text_column(known: Layout, values: pa.LargeBinaryArray, nulls: npt.NDArray[np.bool_]) -> pa.Array:
    import pyarrow as pa

    _, offsets = binary_parts(values)
    if offsets[-1] - offsets[0] > _ARROW_LONGEST:
        raise RequestError("more than 2 GiB of text in one column", hint="Decode fewer rows at a time.")
    type_ = arrow_type(known.type)
    try:
        # By way of binary, so that the text is checked to be UTF-8.
        array = values.cast(pa.binary()).cast(type_)
    except pa.ArrowInvalid:
        raise damaged() from None
    _, ends, data = array.buffers()
    return pa.Array.from_buffers(type_, len(array), [validity(nulls), ends, data], offset=array.offset)


def _fixed_column(known: Layout, field: npt.NDArray[Any], nulls: npt.NDArray[np.bool_]) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    if known.type == "BOOLEAN":
        values: npt.NDArray[Any] = np.packbits(field != 0, bitorder="little")
    elif known.precision and not known.wide:
        values = np.stack([field, field >> 63], axis=1)
    else:
        values = np.ascontiguousarray(field)
    return pa.Array.from_buffers(arrow_type(known.type), len(field), [validity(nulls), pa.py_buffer(values)])
