"""Arrow arrays as NumPy views of their buffers, and back; nothing is copied that need not be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featurestore.codec.layouts import Layout, arrow_type
from lakehouse.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["as_binary", "binary_parts", "column", "is_null", "join", "slices", "validity"]


def as_binary(array: Any) -> pa.LargeBinaryArray:
    """Return text or bytes of any Arrow kind as one large binary array."""
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.type == pa.large_binary():
        return array
    if array.type == pa.string() or array.type == pa.string_view() or pa.types.is_dictionary(array.type):
        array = array.cast(pa.large_string())
    return array.cast(pa.large_binary())


def binary_parts(array: pa.LargeBinaryArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return an array's bytes, and its offsets into them (one more than values)."""
    import numpy as np

    _, offsets, data = array.buffers()
    if offsets is None or len(array) == 0:
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    ends = np.frombuffer(offsets, np.int64, len(array) + 1, array.offset * 8)
    return (np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)), ends


def slices(
    data: Any, offsets: npt.NDArray[np.int64], nulls: npt.NDArray[np.bool_] | None = None
) -> pa.LargeBinaryArray:
    """Return a binary array over any contiguous buffer; value i lies between offsets i and i + 1."""
    import numpy as np
    import pyarrow as pa

    offsets = np.ascontiguousarray(offsets, np.int64)
    count = len(offsets) - 1
    valid = None if nulls is None else validity(nulls)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), count, [valid, pa.py_buffer(offsets), pa.py_buffer(data)]
    )


def validity(nulls: npt.NDArray[Any]) -> pa.Buffer | None:
    """Return Arrow's validity bitmap, or None if nothing is null."""
    import numpy as np
    import pyarrow as pa

    if not nulls.any():
        return None
    return pa.py_buffer(np.packbits(nulls == 0, bitorder="little"))


def is_null(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Return which values are null."""
    import numpy as np

    if array.null_count == 0:
        return np.zeros(len(array), np.bool_)
    found: npt.NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
    return found


def join(pieces: list[Any]) -> pa.LargeBinaryArray:
    """Return the pieces of each row put together; null where one is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(pieces) == 1:
        return pieces[0]
    return pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.large_binary()))


def column(array: Any, known: Layout, what: str) -> pa.Array:
    """Return a column as one array of exactly the Arrow type of its layout (text and blobs: large binary).

    Raises
    ------
    RequestError
        If it is of another type.
    """
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    expected = arrow_type(known.type)
    if known.variable:
        kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        texts = (pa.string(), pa.large_string(), pa.string_view())
        blobs = (pa.binary(), pa.large_binary(), pa.binary_view())
        if kind in (texts if known.variable == "text" else blobs):
            return as_binary(array)
    elif array.type == expected:
        return array
    raise RequestError(f"{what} is of the Arrow type {array.type}, not {expected} ({known.type})")


def fixed_values(array: pa.Array, known: Layout) -> npt.NDArray[Any]:
    """Return the raw values of a column of fixed width; two unsigned 64-bit words each for wide decimals.

    What stands where a value is null is undefined.
    """
    import numpy as np
    import pyarrow as pa

    if known.type == "BOOLEAN":
        array = array.cast(pa.uint8())
    count, offset = len(array), array.offset
    data = array.buffers()[1]
    if not known.precision:
        dtype = np.dtype(known.dtype)
        if data is None or count == 0:
            return np.empty(0, dtype)
        return np.frombuffer(data, dtype, count, offset * dtype.itemsize)
    if data is None or count == 0:
        return np.empty((0, 2), np.uint64) if known.wide else np.empty(0, np.int64)
    words = np.frombuffer(data, "<u8", 2 * count, offset * 16).reshape(count, 2)
    if known.wide:
        return words
    low: npt.NDArray[np.int64] = words[:, 0].view("<i8")
    return low
