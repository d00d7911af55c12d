"""Records that don't end: a quote that is never closed, a line without bound. Each gets a definite end.

The rules depend on where a record starts and on the size limit alone, never on how the file was cut for reading:

- A record may have ``limit`` bytes without its line end. One that is inside quotes there, or at the end of the file,
  has a quote that is never closed: the tile ends with the line on which that quote stands; the next line starts anew.
- Otherwise, or if that line doesn't end within the limit either, the tile ends after ``limit`` bytes, and the rest up
  to the next line end follows in pieces of at most ``limit`` bytes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lakehouse.formats.csv_bits import CR, LF, Marks
from lakehouse.formats.csv_structure import INSIDE, Fault, Quotes, scan_exactly

__all__ = ["body", "settle"]

Bytes = npt.NDArray[np.uint8]

_LEAST_WINDOW = 4096


def body(tile: bytes) -> bytes:
    """Return a tile without its line end, if it has one."""
    if tile.endswith(b"\r\n"):
        return tile[:-2]
    return tile[:-1] if tile.endswith((b"\n", b"\r")) else tile


def settle(
    data: Bytes, marks: Marks, *, final: bool, limit: int, base: int = 0, torn: bool = False
) -> tuple[int, list[Fault], bool]:
    """Return how many bytes are whole records, the faults in them, and whether the last fault is cut off its line.

    Parameters
    ----------
    data
        Bytes whose byte ``base`` starts a record, or continues a cut one if ``torn``.
    marks
        Delimiter and quote.
    final
        Whether the file ends here.
    limit
        The largest record in bytes, without its line end.
    base, torn
        See ``data``.

    Notes
    -----
    Takes one pass per fault over a few multiples of ``limit``. Two faults can't be closer than that on average: behind
    a quote that is not closed within the limit, quotes come in pairs only.
    """
    faults: list[Fault] = []
    start, width = base, data.size
    while start < data.size:
        if torn:
            piece = _next_piece(data, start, final, limit)
            if piece is None:
                return start, faults, True
            fault, torn = piece
        else:
            stop = min(data.size, start + width)
            record, quotes = _first_endless(data[start:stop], marks, final and stop == data.size, limit)
            record += start
            if quotes is None:
                if stop == data.size:
                    return record, faults, False
                start, width = record, 2 * width
                continue
            quotes = Quotes(quotes.at + np.int32(start), quotes.after)
            fault, torn = _close(data, record, quotes, marks.quote, limit)
        faults.append(fault)
        start, width = fault.end, max(_LEAST_WINDOW, 2 * (limit + 2))
    return data.size, faults, torn


def _first_endless(window: Bytes, marks: Marks, final: bool, limit: int) -> tuple[int, Quotes | None]:
    """Return where the first endless record starts and the window's quotes; or where the rest starts and None."""
    found, quotes = scan_exactly(window, marks, final=False, delimiters=False)
    at = found.at
    starts = np.concatenate([np.zeros(1, np.int32), at + 1])
    crlf = (found.kind == LF) & (at > 0) & (window[at - 1] == CR)
    long = np.flatnonzero(at - crlf - starts[:-1] > limit)
    if long.size:
        return int(starts[long[0]]), quotes
    rest = int(starts[-1])
    size = window.size - rest
    if final:
        open_quote = quotes.inside_at_end() and int(quotes.at[-1]) >= rest
        lone_cr = bool(size) and not open_quote and int(window[-1]) == CR
        return (rest, quotes) if open_quote or size - lone_cr > limit else (window.size, None)
    return (rest, quotes) if size >= limit + 2 else (rest, None)


def _close(data: Bytes, record: int, quotes: Quotes, quote_byte: int | None, limit: int) -> tuple[Fault, bool]:
    """Return the tile that an endless record becomes."""
    stop = min(record + limit, data.size)
    count = int(np.searchsorted(quotes.at, stop))
    if count and quotes.after[count - 1] == INSIDE and quotes.at[count - 1] >= record:
        at = quotes.at[:count]
        # The second of a pair leads inside too, but opens nothing.
        opened = (quotes.after[:count] == INSIDE) & ((at == record) | (data[at - 1] != quote_byte))
        quote = int(at[np.flatnonzero(opened)[-1]])
        exceeded = limit if stop < data.size else None
        end = _line_end(data, quote, stop)
        if end is not None or stop == data.size:
            return Fault(record, data.size if end is None else end, quote, exceeded), False
    return Fault(record, stop, None, limit), True


def _next_piece(data: Bytes, start: int, final: bool, limit: int) -> tuple[Fault, bool] | None:
    """Return the next piece of a cut line and whether the line goes on, or None while that is unknown."""
    end = _line_end(data, start, start + limit)
    whole = end is not None and (final or end < data.size or data[end - 1] == LF)
    if end is not None and whole:
        return Fault(start, end, None, limit), False
    if final and data.size - start <= limit:
        return Fault(start, data.size, None, limit), False
    if end is None and data.size - start > limit:
        return Fault(start, start + limit, None, limit), True
    return None


def _line_end(data: Bytes, start: int, stop: int) -> int | None:
    """Return the end of the line whose line end starts in ``[start, stop]``."""
    window = data[start : stop + 1]
    ends = np.flatnonzero((window == LF) | (window == CR))
    if not ends.size:
        return None
    end = start + int(ends[0]) + 1
    return end + 1 if data[end - 1] == CR and end < data.size and data[end] == LF else end
