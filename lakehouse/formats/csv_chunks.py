"""Cut a CSV stream into chunks of whole records: the serial part of landing, so it looks at as little as it can."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from lakehouse.errors import SettingsError
from lakehouse.formats import dialect as dialects
from lakehouse.formats.csv_bits import Marks, bit_at, blocks
from lakehouse.formats.csv_faults import body, settle
from lakehouse.formats.csv_structure import BOM, Fault, count_lines, looks_like_utf16
from lakehouse.formats.dialect import Dialect

__all__ = ["Chunk", "chunks", "first_record"]

Bytes = npt.NDArray[np.uint8]

_LARGEST = 1 << 30  # positions inside a chunk are 32-bit
_FEW = 64  # quoted fields with line ends in a row, before the exact way is taken
_NOT_BLANK = re.compile(rb"[^\r\n]")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole records of a file.

    Parameters
    ----------
    data
        The bytes.
    offset
        Position of the first byte in the decompressed file.
    line
        1-based physical line number of the first byte.
    first
        No record came before: a byte order mark (at offset 0) and the header are here. Always the first chunk alone,
        unless a file starts with more blank lines than fit into memory.
    last
        The file ends with this chunk.
    faults
        Records that have no end of their own, ascending; found while cutting.
    utf16
        The file looks like UTF-16; its quotes mean nothing.
    """

    data: bytes | memoryview
    offset: int
    line: int
    first: bool
    last: bool
    faults: tuple[Fault, ...] = ()
    utf16: bool = False


def first_record(source: bytes | Chunk, dialect: Dialect) -> bytes | None:
    """Return the first record that is not blank, without byte order mark and line end; None if there is none.

    Parameters
    ----------
    source
        The first chunk, or the first bytes of a file. Text that looks like UTF-16 has no record to go by.
    dialect
        The file's.
    """
    if isinstance(source, bytes):
        return dialects.first_record(source, dialect)
    if source.utf16:
        return None
    data = bytes(source.data)
    base = len(BOM) if source.offset == 0 and data.startswith(BOM) else 0
    start = _NOT_BLANK.search(data, base)
    if start is not None and source.faults and source.faults[0].start == start.start():
        return body(data[start.start() : source.faults[0].end])
    return None if start is None else dialects.first_record(data[start.start() :], dialect)


def chunks(
    stream: BinaryIO, dialect: Dialect, *, chunk_bytes: int = 16 << 20, max_record_bytes: int = 16 << 20
) -> Iterator[Chunk]:
    """Yield the file in chunks that end where records end, in file order.

    The tiles that `read_chunk` makes of them do not depend on ``chunk_bytes``.

    Parameters
    ----------
    stream
        The decompressed file, at its start.
    dialect
        The file's.
    chunk_bytes
        How much to read at a time. At most ``chunk_bytes + max_record_bytes`` and a few bytes are held.
    max_record_bytes
        The largest record, without its line end; what is longer becomes malformed tiles.

    Raises
    ------
    SettingsError
        If a size is less than 1 or both together exceed 1 GiB.
    """
    if min(chunk_bytes, max_record_bytes) < 1 or chunk_bytes + max_record_bytes > _LARGEST:
        raise SettingsError(
            f"chunk_bytes = {chunk_bytes} with max_record_bytes = {max_record_bytes} can't be",
            hint="Both are at least 1, and together at most 1 GiB.",
        )
    held, offset, line, first, torn, final = b"", 0, 1, True, False, False
    marks = dialect.marks
    ahead = stream.read(1)
    while not final:
        # After a fruitless read the next one doubles what is held, so that long records cost linear time.
        wanted = max(chunk_bytes, min(len(held), max_record_bytes + 2 - len(held)))
        data = b"".join([held, ahead, *_read(stream, wanted - len(ahead))])
        ahead = stream.read(1)
        final = not ahead
        if offset == 0 and looks_like_utf16(data):
            marks = Marks(dialect.marks.delimiter, None)
        base = len(BOM) if offset == 0 and data.startswith(BOM) else 0
        plain = None if torn else _plain_cut(data, base, marks, final=final, limit=max_record_bytes)
        if plain is None:
            array = np.frombuffer(data, np.uint8)
            cut, faults, torn_after = settle(array, marks, final=final, limit=max_record_bytes, base=base, torn=torn)
        else:
            cut, faults, torn_after = plain, [], False
        blank = first and _NOT_BLANK.search(memoryview(data)[:cut], base) is None
        if not final and (cut <= base or (blank and len(data) <= max_record_bytes)):
            held = data
            continue
        if not cut:
            return
        torn = torn_after
        view = memoryview(data)[:cut]
        yield Chunk(view, offset, line, first, final, tuple(faults), marks.quote is None)
        line += count_lines(np.frombuffer(view, np.uint8), has_cr=b"\r" in data)
        offset += cut
        first = blank
        held = data[cut:]


def _read(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (part := stream.read(size)):
        size -= len(part)
        yield part


def _plain_cut(data: bytes, base: int, marks: Marks, *, final: bool, limit: int) -> int | None:
    """Return how many bytes are whole records if there are no faults for sure, else None."""
    inside = _inside(data, base, marks)
    size = len(data)
    if inside is None or (final and inside.at(size - 1)):
        return None
    cut = _last_end(data, base, size, inside, final=final)
    if cut is None or (size - cut if final else size - cut - 1) > limit:
        return None
    # From line end to line end in the longest strides that the limit allows: no record is longer than a stride.
    position = base
    while cut - position > limit:
        end = _last_end(data, position, position + limit, inside, final=True)
        if end is None or end == position:
            return None
        position = end
    return size if final else cut


@dataclass(frozen=True, slots=True)
class _Inside:
    """Which bytes are inside quotes, one bit per byte; no bits: none is."""

    quote: bytes
    bits: npt.NDArray[np.uint64]

    def at(self, position: int) -> bool:
        return self.bits.size > 0 and bit_at(self.bits, position)


def _inside(data: bytes, base: int, marks: Marks) -> _Inside | None:
    """Return what is inside quotes if they open and close in turn, else None."""
    if marks.quote is None or marks.quote not in data:
        return _Inside(b"", np.empty(0, np.uint64))
    bits = []
    for block in blocks(np.frombuffer(data, np.uint8), marks, base):
        if block is None:
            return None
        bits.append(block.inside)
    return _Inside(bytes([marks.quote]), np.concatenate(bits))


def _last_end(data: bytes, start: int, stop: int, inside: _Inside, *, final: bool) -> int | None:
    """Return the last end of a record in ``[start, stop]``, ``start`` if there is none, None if it takes too long."""
    has_cr = data.find(b"\r", start, stop) >= 0
    for _ in range(_FEW):
        at = data.rfind(b"\n", start, stop)
        if has_cr:
            at = max(at, data.rfind(b"\r", max(at, start), stop))
        if at < 0:
            return start
        if inside.at(at):
            stop = data.rfind(inside.quote, 0, at)
        elif data[at : at + 1] == b"\r" and (data[at + 1 : at + 2] == b"\n" or (at + 1 == len(data) and not final)):
            stop = at
        else:
            return at + 1
    return None
