"""CSV: every byte of the file in a tile, a verdict for every record, string columns of the records that are sound.

Import it when landing starts, not before: it brings numpy and pyarrow.

A record is sound if it has the expected number of fields, is UTF-8 without NUL bytes, has no text behind a closing
quote and ends. Everything else lands as a malformed record with its reason. Filler is what is no record: a byte order
mark, the header, empty lines (also in a file of one column, where an empty line could pass for an empty value). A
header that is malformed, whatever its number of fields, is a malformed record: it says in vain what columns are called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.formats.csv_bits import CR, LF, Marks
from lakehouse.formats.csv_chunks import Chunk, chunks, first_record
from lakehouse.formats.csv_faults import settle
from lakehouse.formats.csv_structure import BOM, Fault, Structure, line_ends, positions, scan
from lakehouse.formats.csv_utf8 import invalid_positions
from lakehouse.formats.dialect import Dialect, column_names, renamed, sniff, split_fields

__all__ = [
    "Chunk",
    "Dialect",
    "Tiles",
    "chunks",
    "column_names",
    "first_record",
    "read_chunk",
    "renamed",
    "sniff",
    "split_fields",
]

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tiles of a chunk in file order; all arrays but ``fields`` have one value per tile.

    Parameters
    ----------
    is_record
        False for filler.
    line
        1-based physical line number of the tile's first byte.
    offset
        Position of the tile in the decompressed file.
    length
        Bytes of the tile; tiles have neither gaps nor overlaps.
    body_start, body_length
        The record inside its tile: without line end and byte order mark.
    ok
        True for sound records and for filler.
    error
        ``pa.string()``, null where ok: ``line 12, offset 345: 17 fields, expected 18``. Offsets are in the file.
    payload
        ``pa.binary()`` over the chunk's own memory.
    fields
        Per column a ``pa.string()`` array with one value per sound record, in order. An unquoted empty field is null, a
        quoted one is ``''``.
    header_error
        What is wrong with the header, if it is here and malformed.
    """

    is_record: Bools
    line: Ints
    offset: Ints
    length: Ints
    body_start: Ints
    body_length: Ints
    ok: Bools
    error: pa.StringArray
    payload: pa.BinaryArray
    fields: list[pa.StringArray]
    header_error: str | None = None


@dataclass(frozen=True, slots=True)
class _Source:
    """A chunk and what was found in it; the first record starts at ``base``."""

    chunk: Chunk
    data: Bytes
    marks: Marks
    base: int
    faults: tuple[Fault, ...]
    found: Structure


@dataclass(frozen=True, slots=True)
class _Layout:
    """Tiles by position in the chunk; ``counts`` are fields per tile, ``fault`` the tile of each fault.

    The header, if it is here, is the tile ``header``, and for now a record; else that is -1.
    """

    start: Positions
    end: Positions
    body_start: Positions
    body_end: Positions
    counts: Ints
    is_record: Bools
    fault: Ints
    header: int


def read_chunk(chunk: Chunk, dialect: Dialect, width: int) -> Tiles:
    """Return the tiles of a chunk.

    Takes about six times the chunk's size of memory for usual fields (three or more bytes each). Safe in threads.

    Parameters
    ----------
    chunk
        From `chunks`. Made by hand, it must hold whole records.
    dialect
        The file's.
    width
        The number of columns, 1 or more.
    """
    source = _structure(chunk, dialect)
    layout = _layout(source, dialect)
    line = _line_numbers(source, layout)
    findings = [
        _utf16(source, layout),
        _endless(source, layout),
        _nul(source, layout),
        _not_utf8(source, layout),
        _text_after_quote(source, layout),
        _ragged(layout, width),
    ]
    chosen, details = _first_finding(layout.start.size, findings)
    offset = layout.start.astype(np.int64) + chunk.offset
    ok = chosen < 0
    error = _error_texts(chosen, details, line, offset)
    if layout.header >= 0:
        layout.is_record[layout.header] = not ok[layout.header]
    return Tiles(
        is_record=layout.is_record,
        line=line,
        offset=offset,
        length=(layout.end - layout.start).astype(np.int64),
        body_start=(layout.body_start - layout.start).astype(np.int64),
        body_length=(layout.body_end - layout.body_start).astype(np.int64),
        ok=ok,
        error=error,
        payload=_payload(chunk, layout),
        fields=_fields(source, layout, ok & layout.is_record, width),
        header_error=error[layout.header].as_py() if layout.header >= 0 else None,
    )


def _structure(chunk: Chunk, dialect: Dialect) -> _Source:
    data = np.frombuffer(chunk.data, np.uint8)
    base = len(BOM) if chunk.offset == 0 and bytes(chunk.data[: len(BOM)]) == BOM else 0
    marks = Marks(dialect.marks.delimiter, None) if chunk.utf16 else dialect.marks
    faults = chunk.faults
    found = scan(data, marks, base=base, faults=faults)
    if not faults and found.open_at_end:  # a chunk made by hand
        faults = tuple(settle(data, marks, final=True, limit=data.size, base=base)[1])
        found = scan(data, marks, base=base, faults=faults)
    return _Source(chunk, data, marks, base, faults, found)


def _payload(chunk: Chunk, layout: _Layout) -> pa.BinaryArray:
    bounds = np.concatenate([np.zeros(1, np.int32), layout.end])
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(chunk.data)]
    return pa.BinaryArray.from_buffers(pa.binary(), layout.end.size, buffers)


def _layout(source: _Source, dialect: Dialect) -> _Layout:
    data, found, base = source.data, source.found, source.base
    last = np.flatnonzero(found.kind != source.marks.delimiter)
    at = found.at[last]
    end = np.minimum(at + 1, np.int32(data.size))
    start = np.concatenate([np.zeros(1, np.int32), end])[: end.size]
    counts = np.diff(last, prepend=-1)
    # A fault's separator stands for its last byte, whatever that is, so its line end is looked up.
    fault = np.searchsorted(end, np.array([item.end for item in source.faults], np.int32))
    at[fault] += ~np.isin(data[end[fault] - 1], (LF, CR))
    body_end = at - _after_cr(data, at, start)
    body_start = start.copy()
    if base:
        own = not dialect.header or not end.size
        if own:
            start, end, body_start, body_end = (
                np.concatenate([np.array([first], np.int32), rest])
                for first, rest in ((0, start), (base, end), (base, body_start), (base, body_end))
            )
            start[1:2] = body_start[1:2] = base
            counts, fault = np.concatenate([np.ones(1, np.int64), counts]), fault + 1
        body_start[0] = base
    is_record = body_end > body_start
    header = -1
    if source.chunk.first and dialect.header and not source.chunk.utf16 and is_record.any():
        header = int(is_record.argmax())
    return _Layout(start, end, body_start, body_end, counts, is_record, fault, header)


def _after_cr(data: Bytes, at: Positions, start: Positions) -> Bools:
    r"""Return where the line end is ``\r\n``."""
    feed = data[np.minimum(at, data.size - 1)] == LF
    feed &= at < data.size
    feed &= at > start
    crlf: Bools = feed & (data[np.maximum(at - 1, 0)] == CR)
    return crlf


def _line_numbers(source: _Source, layout: _Layout) -> Ints:
    first = source.chunk.line
    if source.found.folded:
        return first + np.searchsorted(line_ends(source.data), layout.start).astype(np.int64)
    line = first + np.arange(layout.start.size, dtype=np.int64)
    if source.base and layout.end[0] == source.base:
        line[1:] -= 1  # the byte order mark is a tile, but no line
    return line


# Verdicts. Each finding is a pair: ascending tiles, and for each the reason. The first finding about a tile counts.
_Finding = tuple[Ints, Any]
_NONE = np.empty(0, np.int64)


def _finding(tiles: Ints, *parts: Any) -> _Finding:
    """Return reasons joined from constant texts and integer arrays."""
    if not tiles.size:
        return tiles, pa.array([], pa.string())
    if not any(isinstance(part, np.ndarray) for part in parts):
        return tiles, pa.repeat(pa.scalar("".join(parts)), tiles.size)
    return tiles, _joined(*parts)


def _joined(*parts: Any) -> Any:
    texts = [pa.array(part).cast(pa.string()) if isinstance(part, np.ndarray) else part for part in parts]
    return pc.binary_join_element_wise(*texts, "")


def _first_finding(size: int, findings: list[_Finding]) -> tuple[Positions, Any]:
    """Return per tile the index of its reason, -1 if it is sound, and the reasons."""
    chosen = np.full(size, -1, np.int32)
    total = sum(tiles.size for tiles, _ in findings)
    for tiles, _ in reversed(findings):
        total -= tiles.size
        chosen[tiles] = np.arange(total, total + tiles.size, dtype=np.int32)
    return chosen, pa.chunked_array([reasons for _, reasons in findings], pa.string())


def _error_texts(chosen: Positions, details: Any, line: Ints, offset: Ints) -> pa.StringArray:
    bad = np.flatnonzero(chosen >= 0)
    if not bad.size:
        return pa.nulls(chosen.size, pa.string())
    reasons = details.combine_chunks().take(pa.array(chosen[bad]))
    texts = pc.binary_join_element_wise(_joined("line ", line[bad], ", offset ", offset[bad], ": "), reasons, "")
    place = np.cumsum(chosen >= 0) - 1
    return texts.take(pa.array(place, mask=chosen < 0))


def _utf16(source: _Source, layout: _Layout) -> _Finding:
    return _finding(np.flatnonzero(layout.is_record) if source.chunk.utf16 else _NONE, "looks like UTF-16")


def _endless(source: _Source, layout: _Layout) -> _Finding:
    faults = source.faults
    if not faults:
        return _finding(_NONE, "")
    quotes = np.array([-1 if fault.quote is None else fault.quote for fault in faults], np.int32)
    lines = source.chunk.line + np.searchsorted(line_ends(source.data), quotes)
    reasons = [
        f"longer than {fault.limit} bytes"
        if fault.quote is None
        else f"quote opened at line {line} is never closed" + (f" within {fault.limit} bytes" if fault.limit else "")
        for fault, line in zip(faults, lines.tolist(), strict=True)
    ]
    keep = layout.is_record[layout.fault]
    return layout.fault[keep], pa.array(reasons, pa.string()).filter(pa.array(keep))


def _by_position(layout: _Layout, at: npt.NDArray[Any]) -> tuple[Ints, npt.NDArray[Any]]:
    """Return the records that hold one of the ascending positions, and for each the first."""
    tiles, index = np.unique(np.searchsorted(layout.end, at, side="right"), return_index=True)
    keep = layout.is_record[tiles]
    return tiles[keep], at[index[keep]]


def _nul(source: _Source, layout: _Layout) -> _Finding:
    data = source.data
    if not data.size or data.min() > 0:
        return _finding(_NONE, "")
    tiles, at = _by_position(layout, positions(data, (0,))[0])
    return _finding(tiles, "NUL byte at offset ", at + np.int64(source.chunk.offset))


def _not_utf8(source: _Source, layout: _Layout) -> _Finding:
    tiles, at = _by_position(layout, invalid_positions(source.data))
    return _finding(tiles, "invalid UTF-8 at offset ", at + np.int64(source.chunk.offset))


def _text_after_quote(source: _Source, layout: _Layout) -> _Finding:
    found = source.found
    tiles, at = _by_position(layout, found.wrong)
    if not tiles.size:
        return _finding(_NONE, "")
    field = np.searchsorted(found.at, at) - np.searchsorted(found.at, layout.start[tiles]) + 1
    return _finding(tiles, "text after a closing quote, field ", field)


def _ragged(layout: _Layout, width: int) -> _Finding:
    tiles = np.flatnonzero((layout.counts != width) & layout.is_record)
    tiles = tiles[tiles != layout.header]
    if not tiles.size:
        return _finding(_NONE, "")
    counts = layout.counts[tiles]
    reasons = pc.binary_join_element_wise(
        pa.array(counts).cast(pa.string()),
        pc.if_else(pa.array(counts == 1), " field", " fields"),
        f", expected {width}",
        "",
    )
    return tiles, reasons


# Fields.


def _fields(source: _Source, layout: _Layout, sound: Bools, width: int) -> list[pa.StringArray]:
    found = source.found
    rows = int(np.count_nonzero(sound))
    if not rows:
        return [pa.array([], pa.string()) for _ in range(width)]
    opened = _opened(source) if found.quoted else None
    # A byte order mark that is a tile of its own has no separator.
    skip = int(np.sum(layout.counts)) - found.at.size
    if rows == sound.size:
        ends, quoted_ends = found.at, opened
        body_start, body_end = layout.body_start, layout.body_end
    else:
        own = np.repeat(sound[skip:], layout.counts[skip:])
        ends, quoted_ends = found.at[own], opened if opened is None else opened[own]
        body_start, body_end = layout.body_start[sound], layout.body_end[sound]
    by_column = ends.reshape(rows, width).T.copy()  # a row per column
    by_column[-1] = body_end
    pairs = _pairs(source, ends, rows)
    quoted_by_column = None if quoted_ends is None else quoted_ends.reshape(rows, width).T.copy()
    buffer = pa.py_buffer(source.chunk.data)
    every_other = pa.array(np.arange(0, 2 * rows, 2, dtype=np.int64))
    columns = []
    for number in range(width):
        # Fields alternate with what is between them, so one offset array describes both; every other value is a field.
        bounds = np.empty(2 * rows + 1, np.int32)
        start, end = bounds[0:-1:2], bounds[1::2]
        if number == 0:
            start[:] = body_start
        else:
            np.add(by_column[number - 1], 1, out=start)
        end[:] = by_column[number]
        quoted = None if quoted_by_column is None else quoted_by_column[number]
        if quoted is not None and quoted.any():
            start += quoted
            end -= quoted
        bounds[-1] = bounds[-2]
        column = _column(buffer, bounds, quoted, every_other)
        if number in pairs:
            column = _without_pairs(column, pairs[number], chr(source.marks.quote or 0))
        columns.append(column)
    return columns


def _opened(source: _Source) -> Bools:
    """Return for each separator whether the field that it ends is quoted."""
    at, quote = source.found.at, np.uint8(source.marks.quote or 0)
    opened = np.empty(at.size, np.bool_)
    opened[0] = source.data[source.base] == quote
    # A field that is empty at the end of the data has no first byte; the last byte, a delimiter, does for it.
    np.equal(source.data.take(at[:-1] + 1, mode="clip"), quote, out=opened[1:])
    return opened


def _column(buffer: Any, bounds: Positions, quoted: Bools | None, every_other: Any) -> pa.StringArray:
    """Return every other string of those that ``bounds`` bound, null where one is empty and not quoted."""
    rows = bounds.size // 2
    both = pa.BinaryArray.from_buffers(pa.binary(), 2 * rows, [None, pa.py_buffer(bounds), buffer])
    _, offsets, content = pc.take(both, every_other, boundscheck=False).buffers()
    valid = bounds[1::2] > bounds[0:-1:2]
    if quoted is not None:
        valid |= quoted
    nulls = rows - int(np.count_nonzero(valid))
    bitmap = pa.py_buffer(np.packbits(valid, bitorder="little")) if nulls else None
    return pa.StringArray.from_buffers(rows, offsets, content, bitmap, nulls)


def _pairs(source: _Source, ends: Positions, rows: int) -> dict[int, Bools]:
    """Return, per column that has doubled quotes inside quotes, the rows that have them."""
    found = source.found
    second = found.seconds
    if not second.size:
        return {}
    width = ends.size // rows
    own_end = found.at[np.searchsorted(found.at, second)]
    field = np.minimum(np.searchsorted(ends, own_end), ends.size - 1)
    row, column = np.divmod(field[ends[field] == own_end], width)
    pairs = {}
    for number in np.unique(column).tolist():
        pairs[number] = np.zeros(rows, np.bool_)
        pairs[number][row[column == number]] = True
    return pairs


def _without_pairs(column: pa.StringArray, rows: Bools, quote: str) -> pa.StringArray:
    """Return the column with doubled quotes made one in the given rows, where quotes come in pairs only."""
    mask = pa.array(rows)
    return pc.replace_with_mask(column, mask, pc.replace_substring(column.filter(mask), quote * 2, quote))
