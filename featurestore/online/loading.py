"""Filling a new LMDB file: sorted, appended, in transactions of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb

from featurestore.codec.buffers import binary_parts
from featurestore.online.mapped import environment_path
from lakehouse.errors import RequestError, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["in_order", "load"]

_LONGEST_KEY = 511
_CHUNK_ROWS = 100_000
_CHUNK_BYTES = 64 << 20
_FIRST_MAP = 4 << 20
_WORD = 8

_Batch = tuple["pa.LargeBinaryArray", "pa.LargeBinaryArray"]


def load(descriptor: int, path: Path, batches: Iterable[_Batch]) -> None:
    """Fill an empty file that is open for writing.

    Raises
    ------
    RequestError
        If a key appears twice, is null or of no fitting length.
    StorageError
        If the file can't be written.
    """
    try:
        # meminit stays on: without it the file would hold whatever this process had in memory before.
        with lmdb.open(
            environment_path(descriptor, path),
            subdir=False,
            lock=False,
            map_size=_FIRST_MAP,
            max_readers=1,
            sync=False,
            metasync=False,
            readahead=False,
        ) as environment:
            last = b""
            for keys, values in batches:
                for chunk in _chunks(*in_order(keys, values)):
                    last = _put(environment, *chunk, last)
            environment.sync(True)
    except (lmdb.Error, OSError) as error:
        raise StorageError(f"cannot write here: {error}", where=str(path)) from error


def in_order(keys: pa.LargeBinaryArray, values: pa.LargeBinaryArray) -> _Batch:
    """Return keys and values sorted by the keys' bytes.

    Raises
    ------
    RequestError
        If a key appears twice, is null or of no fitting length.
    """
    import numpy as np
    import pyarrow.compute as pc

    if len(keys) != len(values) or keys.null_count or values.null_count:
        raise RequestError(f"{len(keys)} keys stand beside {len(values)} values, or some are null")
    lengths = np.diff(binary_parts(keys)[1])
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= _LONGEST_KEY:
        raise RequestError(f"a key has {int(lengths.min())} or {int(lengths.max())} bytes; 1 to {_LONGEST_KEY} fit")
    if pc.all(pc.less(keys[:-1], keys[1:])).as_py() is not False:
        return keys, values
    order = _order(keys)
    keys, values = keys.take(order), values.take(order)
    twice = pc.index(pc.equal(keys[:-1], keys[1:]), True).as_py()
    if twice >= 0:
        raise _twice(keys[twice].as_py())
    return keys, values


def _order(keys: pa.LargeBinaryArray) -> Any:
    """Return the places of keys in the order of their bytes."""
    import numpy as np
    import pyarrow.compute as pc

    data, offsets = binary_parts(keys)
    width = int(offsets[1] - offsets[0])
    if width > _WORD + 1 or (np.diff(offsets) != width).any():
        return pc.array_sort_indices(keys)
    # Keys of one integer are a marker and its bytes: comparing numbers is nine times faster than comparing bytes.
    rows = data[offsets[0] : offsets[-1]].reshape(-1, width)
    if width > _WORD:
        if (rows[:, 0] != rows[0, 0]).any():
            return pc.array_sort_indices(keys)
        rows = rows[:, 1:]
    words = np.zeros((len(rows), _WORD), np.uint8)
    words[:, : rows.shape[1]] = rows
    return np.argsort(words.reshape(-1).view(">u8").astype(np.uint64))


def _chunks(keys: pa.LargeBinaryArray, values: pa.LargeBinaryArray) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Cut a batch into parts of at most so many rows, and so many bytes unless one row alone has more."""
    import numpy as np

    _, offsets = binary_parts(values)
    start = 0
    while start < len(keys):
        fitting = int(np.searchsorted(offsets, offsets[start] + _CHUNK_BYTES, "right")) - 1
        stop = min(max(fitting, start + 1), start + _CHUNK_ROWS, len(keys))
        yield keys[start:stop].to_pylist(), values[start:stop].to_pylist()
        start = stop


def _put(environment: Any, keys: list[bytes], values: list[bytes], last: bytes) -> bytes:
    """Add sorted rows, and return the greatest key so far."""
    append = keys[0] > last
    while True:
        try:
            with environment.begin(write=True) as transaction:
                rows = zip(keys, values, strict=True)
                _, added = transaction.cursor().putmulti(rows, dupdata=False, overwrite=False, append=append)
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
        else:
            break
    if added != len(keys):
        raise RequestError(f"{len(keys) - added} keys appear twice")
    return max(last, keys[-1])


def _twice(key: bytes) -> RequestError:
    return RequestError(f"the key {key[:40]!r} appears twice")
