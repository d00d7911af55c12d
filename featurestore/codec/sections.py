"""Packed values: everything that one entity has in one view, as sections of stamped rows.

A value is a format byte and the number of sections; then per section the number of its rows (32 bits), their stamps
(64 bits each, what they mean is the writer's business), their ends within the section (32 bits each), and the rows
themselves. All little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from featurestore.codec.buffers import as_binary, binary_parts, join, slices
from lakehouse.errors import CatalogDamagedError, RequestError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["FORMAT", "Section", "Sections", "only_row", "pack_sections", "unpack_sections"]

FORMAT = 1

_HEAD = struct.Struct("<BB")
_COUNT = struct.Struct("<I")
_ONE = struct.Struct("<BBIqI")  # the whole of a value with one section of one row, but the row
_PER_ROW = 12
_ONE_ROW: list[tuple[int, int]] = [(1, _HEAD.size + _COUNT.size)]  # per section: its rows, where its stamps start
_LONGEST = 2**32 - 1
_MOST_SECTIONS = 255

Buffer = bytes | memoryview


class Section(NamedTuple):
    """One section of many entities.

    Parameters
    ----------
    offsets
        int64, one more than entities: entity i has the rows from ``offsets[i]`` up to ``offsets[i + 1]``.
    stamps
        int64, one per row.
    rows
        Packed rows.
    """

    offsets: npt.NDArray[np.int64]
    stamps: npt.NDArray[np.int64]
    rows: pa.LargeBinaryArray


def only_row(buffer: Buffer) -> tuple[int, int, int] | None:
    """Return (stamp, start, end) of the row of a value that has one section with one row; None for any other value.

    Start and end are places in the buffer. This is the short way of an online lookup; `Sections` reads everything.

    Raises
    ------
    CatalogDamagedError
        If the value looks like one of these but is of another length.
    """
    try:
        format_, sections, count, stamp, length = _ONE.unpack_from(buffer)
    except struct.error:
        return None
    if format_ != FORMAT or sections != 1 or count != 1:
        return None
    if _ONE.size + length != len(buffer):
        raise _damaged()
    return stamp, _ONE.size, _ONE.size + length


class Sections:
    """One entity's packed value, opened: its bounds are checked, nothing is copied.

    Parameters
    ----------
    buffer
        The value.

    Raises
    ------
    CatalogDamagedError
        If the bytes are no packed value of this format.
    """

    __slots__ = ("_places", "buffer")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self._places = _ONE_ROW
        size = len(buffer)
        if only_row(buffer) is not None:
            return
        self._places = []
        try:
            format_, sections = _HEAD.unpack_from(buffer)
            if format_ != FORMAT:
                raise _damaged()
            at = _HEAD.size
            for _ in range(sections):
                (count,) = _COUNT.unpack_from(buffer, at)
                at += _COUNT.size
                self._places.append((count, at))
                at += _PER_ROW * count
                if count:
                    # The last end is the length of all rows; it lies just before them.
                    at += _COUNT.unpack_from(buffer, at - _COUNT.size)[0]
        except struct.error:
            raise _damaged() from None
        if at != size:
            raise _damaged()

    def __len__(self) -> int:
        return len(self._places)

    def count(self, section: int) -> int:
        """Return the number of rows of a section."""
        return self._places[section][0]

    def stamps(self, section: int) -> memoryview:
        """Return the stamps of a section's rows, as a view of signed 64-bit integers."""
        count, at = self._places[section]
        return memoryview(self.buffer)[at : at + 8 * count].cast("q")

    def row(self, section: int, number: int) -> tuple[int, int]:
        """Return where in the buffer a row starts and ends.

        Raises
        ------
        CatalogDamagedError
            If the bounds are not in order.
        IndexError
            If there is no such row.
        """
        count, at = self._places[section]
        if not 0 <= number < count:
            raise IndexError(number)
        if self._places is _ONE_ROW:
            return _ONE.size, len(self.buffer)
        ends = at + 8 * count
        base = at + _PER_ROW * count
        (end,) = _COUNT.unpack_from(self.buffer, ends + 4 * number)
        start = _COUNT.unpack_from(self.buffer, ends + 4 * number - 4)[0] if number else 0
        if start > end or end > _COUNT.unpack_from(self.buffer, base - 4)[0]:
            raise _damaged()
        return base + start, base + end


def pack_sections(
    sections: Sequence[Section | tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], pa.LargeBinaryArray]],
) -> pa.LargeBinaryArray:
    """Return one packed value per entity, in the order of the offsets.

    Parameters
    ----------
    sections
        One to 255, all of the same entities.

    Raises
    ------
    RequestError
        If offsets, stamps and rows do not fit together, or an entity's rows in a section exceed 4 GiB.
    """
    import numpy as np

    if not 1 <= len(sections) <= _MOST_SECTIONS:
        raise RequestError(f"a value has 1 to {_MOST_SECTIONS} sections, not {len(sections)}")
    pieces: list[pa.LargeBinaryArray] = []
    entities = len(sections[0][0]) - 1
    for number, section in enumerate(sections):
        offsets, stamps, rows = np.asarray(section[0], np.int64), np.ascontiguousarray(section[1], "<i8"), section[2]
        rows = as_binary(rows)
        _check(offsets, len(stamps), rows, entities)
        data, places = binary_parts(rows)
        counts = np.diff(offsets)
        starts = places[offsets]
        if (np.diff(starts) > _LONGEST).any():
            raise RequestError(f"the rows of one entity have more than {_LONGEST:,} bytes")
        ends = (places[1:] - np.repeat(starts[:-1], counts)).astype("<u4")
        pieces += [_heads(counts, len(sections) if number == 0 else None), slices(stamps, offsets * 8)]
        pieces += [slices(ends, offsets * 4), slices(data, starts)]
    return join(pieces)


def unpack_sections(values: pa.LargeBinaryArray) -> list[Section]:
    """Return the sections of packed values, the inverse of `pack_sections`; an empty list for no values at all.

    Raises
    ------
    CatalogDamagedError
        If a value is no packed value, or has not as many sections as the others.
    """
    import numpy as np

    values = as_binary(values)
    if values.null_count:
        raise RequestError("a packed value is null")
    data, offsets = binary_parts(values)
    starts, stops = offsets[:-1], offsets[1:]
    if not len(starts):
        return []
    single = _only_rows(data, starts, stops)
    if single is not None:
        return [single]
    if (stops - starts < _HEAD.size).any() or (data[starts] != FORMAT).any():
        raise _damaged()
    number = int(data[starts[0] + 1])
    if (data[starts + 1] != number).any():
        raise _damaged()
    at, bounds, counts = starts + _HEAD.size, [starts], []
    for _ in range(number):
        count = _numbers_at(data, at, stops)
        stamps = at + _COUNT.size
        ends = stamps + 8 * count
        rows = ends + 4 * count
        if (rows > stops).any():
            raise _damaged()
        length = np.where(count > 0, _numbers_at(data, np.where(count > 0, rows - 4, at), stops), 0)
        bounds += [stamps, ends, rows]
        counts.append(count)
        at = rows + length
        if (at > stops).any():
            raise _damaged()
        bounds.append(at)
    if (at != stops).any():
        raise _damaged()
    # Cut the data at all bounds: head, then stamps, ends, rows and (the next) head, over and over.
    cuts = np.stack(bounds[:-1], axis=1).reshape(-1)
    pieces, step = slices(data, np.append(cuts, offsets[-1])), 4 * number
    return [_section(pieces, 4 * place, step, count) for place, count in enumerate(counts)]


def _only_rows(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> Section | None:
    """Return the section of values that have one section with one row each, as `only_row`; None if one is another."""
    import numpy as np

    size = _ONE.size
    if (stops - starts < size).any():
        return None
    heads = data[starts[:, None] + np.arange(size)].view(
        [("format", "u1"), ("sections", "u1"), ("count", "<u4"), ("stamp", "<i8"), ("length", "<u4")]
    )[:, 0]
    if (heads["format"] != FORMAT).any() or (heads["sections"] != 1).any() or (heads["count"] != 1).any():
        return None
    if (starts + size + heads["length"] != stops).any():
        raise _damaged()
    pieces = slices(data, np.append(np.stack([starts, starts + size], axis=1).reshape(-1), stops[-1]))
    rows = pieces.take(np.arange(1, len(pieces), 2))
    return Section(np.arange(len(starts) + 1), np.ascontiguousarray(heads["stamp"]), rows)


def _section(pieces: pa.LargeBinaryArray, first: int, step: int, counts: npt.NDArray[np.int64]) -> Section:
    import numpy as np

    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    stamps = _flat(pieces, first + 1, step).view("<i8")
    ends = _flat(pieces, first + 2, step).view("<u4").astype(np.int64)
    rows = pieces.take(np.arange(first + 3, len(pieces), step))
    data, starts = binary_parts(rows)
    places = np.concatenate([starts[:1], ends + np.repeat(starts[:-1], counts)])
    if (np.diff(places) < 0).any():
        raise _damaged()
    return Section(offsets, stamps, slices(data, places))


def _flat(pieces: pa.LargeBinaryArray, first: int, step: int) -> npt.NDArray[np.uint8]:
    import numpy as np

    data, offsets = binary_parts(pieces.take(np.arange(first, len(pieces), step)))
    return np.ascontiguousarray(data[offsets[0] : offsets[-1]])


def _heads(counts: npt.NDArray[np.int64], sections: int | None) -> pa.LargeBinaryArray:
    """Return what stands before a section's stamps; before the first one also the value's head."""
    import numpy as np

    dtype = np.dtype([("format", "u1"), ("sections", "u1"), ("count", "<u4")] if sections else [("count", "<u4")])
    heads = np.zeros(len(counts), dtype)
    heads["count"] = counts
    if sections:
        heads["format"], heads["sections"] = FORMAT, sections
    return slices(heads, np.arange(len(counts) + 1, dtype=np.int64) * dtype.itemsize)


def _check(offsets: npt.NDArray[np.int64], stamps: int, rows: pa.LargeBinaryArray, entities: int) -> None:
    import numpy as np

    if len(offsets) != entities + 1 or entities < 0:
        raise RequestError("the sections are not of the same entities")
    if offsets[0] != 0 or offsets[-1] != stamps or (np.diff(offsets) < 0).any():
        raise RequestError("the offsets do not run from 0 to the number of stamps")
    if len(rows) != stamps or rows.null_count:
        raise RequestError(f"{stamps} stamps stand beside {len(rows)} rows, or a row is null")


def _numbers_at(
    data: npt.NDArray[np.uint8], at: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the unsigned 32-bit integers at some places, which must end before the stops."""
    import numpy as np

    if (at + 4 > stops).any():
        raise _damaged()
    numbers = np.zeros(len(at), np.int64)
    for byte in range(4):
        numbers |= data[at + byte].astype(np.int64) << (8 * byte)
    return numbers


def _damaged() -> CatalogDamagedError:
    return CatalogDamagedError(
        "a packed value is not what its format says", hint="Build it again: penstock materialize --full."
    )
