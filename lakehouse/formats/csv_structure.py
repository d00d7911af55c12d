r"""Where CSV's separators are: positions of delimiters and line ends outside quotes, without a step per byte.

A line ends at ``\n``, ``\r\n`` or a lone ``\r``, mixed as they come. A quote opens a quoted field only as the first
byte of a field; any other quote outside is content. Whether a byte is inside quotes depends on all quotes before it:
first it is assumed that quotes alternate (opening, closing), which bit arithmetic proves or refutes; refuted, the
state machine runs over the quotes alone, in blocks whose transition maps are composed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lakehouse.formats.csv_bits import BLOCK, CR, LF, Block, Marks, bit_at, blocks, bytes_at

__all__ = [
    "BOM",
    "INSIDE",
    "Fault",
    "Quotes",
    "Structure",
    "count_lines",
    "line_ends",
    "looks_like_utf16",
    "positions",
    "scan",
    "scan_exactly",
]

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int32]

BOM = b"\xef\xbb\xbf"
# State after a quote: it was content, it opened (or is the second of a pair), it closed (or is the first of a pair).
LITERAL, INSIDE, CLOSED = 0, 1, 2


class Fault(NamedTuple):
    """Bytes ``[start, end)`` that are one malformed tile whatever they hold; relative to the chunk.

    ``quote`` is the position of the quote that is never closed, None for a piece of an overlong record. ``limit`` is
    the record size in bytes that was exceeded, None if the file ended.
    """

    start: int
    end: int
    quote: int | None
    limit: int | None


def _no_positions() -> Positions:
    return np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class Quotes:
    """Positions of the quotes and the state after each."""

    at: Positions
    after: Bytes

    def inside_at_end(self) -> bool:
        """Whether the text ends inside a quoted field."""
        return bool(self.after.size) and int(self.after[-1]) == INSIDE


@dataclass(frozen=True, slots=True)
class Structure:
    r"""Separators outside quotes, and what there is to say about quotes; all positions ascend.

    Parameters
    ----------
    at, kind
        The position of each delimiter and line end (of ``\r\n`` that of the ``\n``), and its byte. A record that the
        end of the data ends has a line end at ``len(data)``.
    folded
        There are line ends that end no record.
    quoted
        There are quotes.
    open_at_end
        The data ends inside a quoted field.
    wrong
        Closing quotes that text follows.
    seconds
        The second quotes of pairs inside quoted fields.
    """

    at: Positions
    kind: Bytes
    folded: bool = False
    quoted: bool = False
    open_at_end: bool = False
    wrong: Positions = field(default_factory=_no_positions)
    seconds: Positions = field(default_factory=_no_positions)


def looks_like_utf16(head: bytes) -> bool:
    """Return whether text starts with a byte order mark of UTF-16 (or of little-endian UTF-32)."""
    return head[:2] in (b"\xff\xfe", b"\xfe\xff")


def positions(data: Bytes, values: Iterable[int]) -> tuple[Positions, Bytes]:
    """Return the ascending positions of the bytes that equal one of ``values``, and those bytes."""
    first, *others = values
    found, kinds = [], []
    for start in range(0, data.size, BLOCK):
        block = data[start : start + BLOCK]
        mask = block == first
        for value in others:
            mask |= block == value
        index = np.flatnonzero(mask)
        kinds.append(block[index])
        index += start
        found.append(index.astype(np.int32))
    if len(found) == 1:
        return found[0], kinds[0]
    return np.concatenate(found or [np.empty(0, np.int32)]), np.concatenate(kinds or [np.empty(0, np.uint8)])


def _count(data: Bytes, value: int) -> int:
    return sum(int(np.count_nonzero(data[s : s + BLOCK] == value)) for s in range(0, data.size, BLOCK))


def count_lines(data: Bytes, *, has_cr: bool) -> int:
    """Return the number of line ends, inside quotes or not."""
    lines = _count(data, LF)
    if has_cr:
        at, _ = positions(data, (CR,))
        lines += at.size - int(np.count_nonzero(data[np.minimum(at + 1, data.size - 1)] == LF))
    return lines


def _lone_cr(data: Bytes, *, final: bool) -> Positions:
    at, _ = positions(data, (CR,))
    if at.size and at[-1] == data.size - 1 and not final:
        at = at[:-1]  # a \n may follow
    following = np.minimum(at + 1, data.size - 1)
    lone: Positions = at[data[following] != LF]
    return lone


def line_ends(data: Bytes) -> Positions:
    r"""Return the positions of all line ends, inside quotes or not; of ``\r\n`` that of the ``\n``."""
    at, _ = positions(data, (LF,))
    return np.sort(np.concatenate([at, _lone_cr(data, final=True)]))


def _merge(at: Positions, kind: Bytes, more: Positions, more_kind: Bytes) -> tuple[Positions, Bytes]:
    at, kind = np.concatenate([at, more]), np.concatenate([kind, more_kind])
    order = np.argsort(at, kind="stable")
    return at[order], kind[order]


def scan(data: Bytes, marks: Marks, *, base: int = 0, faults: Sequence[Fault] = (), final: bool = True) -> Structure:
    r"""Return the separators of data whose byte ``base`` starts a record.

    Parameters
    ----------
    data
        The bytes; before ``base`` there is at most a byte order mark.
    marks
        Delimiter and quote.
    base
        Where the first record starts.
    faults
        Spans that are tiles already; the structure has one line end in each, at its last byte.
    final
        False: more bytes follow, so the last record gets no end and a ``\r`` in the last place is none yet.
    """
    found = None
    if marks.quote is None or not _occurs(data, marks.quote):
        at, kind = _unquoted(data, marks._replace(quote=None), faults, final=final)
        found = Structure(at, kind, folded=bool(faults))
    elif not faults:
        found = _alternating(data, marks, base, final=final)
    if found is None:
        found, _ = scan_exactly(data, marks, base=base, faults=faults, final=final)
    if final and data.size > base and not _ended(found, data, marks):
        at, kind = np.append(found.at, np.int32(data.size)), np.append(found.kind, np.uint8(LF))
        return replace(found, at=at, kind=kind)
    return found


def _ended(found: Structure, data: Bytes, marks: Marks) -> bool:
    return bool(found.at.size) and found.at[-1] == data.size - 1 and found.kind[-1] != marks.delimiter


def _occurs(data: Bytes, value: int) -> bool:
    return any((data[start : start + BLOCK] == value).any() for start in range(0, data.size, BLOCK))


def _unquoted(
    data: Bytes, marks: Marks, faults: Sequence[Fault], *, final: bool, delimiters: bool = True
) -> tuple[Positions, Bytes]:
    """Return separators as if quotes had no meaning; with ``marks.quote`` the quotes are among them."""
    values = [LF] + [marks.delimiter] * delimiters + [marks.quote or 0] * (marks.quote is not None)
    at, kind = positions(data, values)
    crs = _count(data, CR)
    if crs and crs != _crlf_count(data, at, kind):
        lone = _lone_cr(data, final=final)
        at, kind = _merge(at, kind, lone, np.full(lone.size, CR, np.uint8))
    if faults:
        spans = np.array([(fault.start, fault.end) for fault in faults], np.int32)
        at, kind = _without_spans(at, kind, spans)
        if marks.quote is None:
            return _with_span_ends(at, kind, spans)
    return at, kind


def _alternating(data: Bytes, marks: Marks, base: int, *, final: bool) -> Structure | None:
    """Return the structure if quotes open and close in turn, else None."""
    at: list[Positions] = []
    kind: list[Bytes] = []
    wrong: list[Positions] = []
    seconds: list[Positions] = []
    folded, block = False, None
    for block in blocks(data, marks, base, final=final):
        if block is None:
            return None
        index = bytes_at(block.separators & ~block.inside, block.data.size)
        kind.append(block.data[index])
        at.append(_placed(index, block))
        folded = folded or bool((block.ends & block.inside).any())
        for bits, places in ((block.wrong, wrong), (block.seconds, seconds)):
            if bits.any():
                places.append(_placed(bytes_at(bits, block.data.size), block))
    open_at_end = block is not None and bit_at(block.inside, block.data.size - 1)
    return Structure(
        at=np.concatenate(at),
        kind=np.concatenate(kind),
        folded=folded,
        quoted=True,
        open_at_end=open_at_end,
        wrong=np.concatenate([_no_positions(), *wrong]),
        seconds=np.concatenate([_no_positions(), *seconds]),
    )


def _placed(index: npt.NDArray[np.int64], block: Block) -> Positions:
    index += block.start
    return index.astype(np.int32)


def scan_exactly(
    data: Bytes,
    marks: Marks,
    *,
    base: int = 0,
    faults: Sequence[Fault] = (),
    final: bool = True,
    delimiters: bool = True,
) -> tuple[Structure, Quotes]:
    """Return the structure, without an end at the end of the data, and the state after each quote.

    ``delimiters = False`` leaves these out, for who looks for records only.
    """
    at, kind = _unquoted(data, marks, faults, final=final, delimiters=delimiters)
    quotes, at, kind, folded = _outside(data, marks, base, at, kind)
    if faults and marks.quote is not None:
        at, kind = _with_span_ends(at, kind, np.array([(fault.start, fault.end) for fault in faults], np.int32))
    following = data[np.minimum(quotes.at + 1, data.size - 1)]
    edge = np.isin(following, (marks.delimiter, LF, CR, marks.quote or 0)) | (quotes.at + 1 == data.size)
    second = (quotes.after == INSIDE) & (data[quotes.at - 1] == marks.quote) & (quotes.at > base)
    found = Structure(
        at=at,
        kind=kind,
        folded=folded or bool(faults),
        quoted=bool(quotes.at.size),
        open_at_end=quotes.inside_at_end(),
        wrong=quotes.at[(quotes.after == CLOSED) & ~edge],
        seconds=quotes.at[second],
    )
    return found, quotes


def _with_span_ends(at: Positions, kind: Bytes, spans: Positions) -> tuple[Positions, Bytes]:
    return _merge(at, kind, spans[:, 1] - np.int32(1), np.full(len(spans), LF, np.uint8))


def _crlf_count(data: Bytes, at: Positions, kind: Bytes) -> int:
    feeds = at[kind == LF]
    return int(np.count_nonzero(data[np.maximum(feeds - 1, 0)] == CR))


def _without_spans(at: Positions, kind: Bytes, spans: Positions) -> tuple[Positions, Bytes]:
    # A span starts where a record would and ends where one does, so quotes outside see no difference.
    edges = np.zeros(at.size + 1, np.int32)
    np.add.at(edges, np.searchsorted(at, spans[:, 0]), 1)
    np.add.at(edges, np.searchsorted(at, spans[:, 1]), -1)
    keep = np.cumsum(edges[:-1]) == 0
    return at[keep], kind[keep]


def _outside(data: Bytes, marks: Marks, base: int, at: Positions, kind: Bytes) -> tuple[Quotes, Positions, Bytes, bool]:
    """Return the quotes, the separators outside them, and whether a line end is inside."""
    index = np.flatnonzero(kind == marks.quote)
    quotes = Quotes(at[index], _states(data, at[index], marks, base))
    if not index.size:
        return quotes, at, kind, False
    keep = np.ones(at.size, np.bool_)
    keep[index] = False
    # Separators that follow an opening quote directly in the list are inside; runs are as long as the list says.
    runs = np.diff(np.append(index, at.size))
    inner = np.flatnonzero((quotes.after == INSIDE) & (runs > 1))
    if not inner.size:
        return quotes, at[keep], kind[keep], False
    inside = np.zeros(at.size, np.bool_)
    inside[index[0] :] = np.repeat(quotes.after == INSIDE, runs)
    keep &= ~inside
    inside[index] = False
    return quotes, at[keep], kind[keep], bool(np.any(kind[inside] != marks.delimiter))


def _transition(literal: int, inside: int, closed: int) -> int:
    """Pack a map of the three states into six bits."""
    return literal | inside << 2 | closed << 4


_IDENTITY = _transition(LITERAL, INSIDE, CLOSED)
_AT_FIELD_START = _transition(INSIDE, CLOSED, INSIDE)
_AFTER_QUOTE = _transition(LITERAL, CLOSED, INSIDE)
_AFTER_TEXT = _transition(LITERAL, CLOSED, LITERAL)


@cache
def _composition() -> Bytes:
    """Return the table of ``second after first`` at ``first * 64 + second``."""
    codes = np.arange(64, dtype=np.int64)
    first, second = np.repeat(codes, 64), np.tile(codes, 64)
    table = np.zeros(64 * 64, np.int64)
    for state in (LITERAL, INSIDE, CLOSED):
        middle = (first >> 2 * state) & 3
        table |= ((second >> 2 * middle) & 3) << 2 * state
    return table.astype(np.uint8)


def _states(data: Bytes, at: Positions, marks: Marks, base: int) -> Bytes:
    """Return the state after each quote, by composing transition maps of three states."""
    if not at.size or marks.quote is None:
        return np.empty(0, np.uint8)
    by_previous = np.full(256, _AFTER_TEXT, np.uint8)
    by_previous[[marks.delimiter, LF, CR]] = _AT_FIELD_START
    by_previous[marks.quote] = _AFTER_QUOTE
    maps = by_previous[data[at - 1]]
    if at[0] == base:
        maps[0] = _AT_FIELD_START
    # Row j of `steps` is the j-th quote of every block, so one gather advances all blocks by a quote.
    length = int(np.ceil(np.sqrt(at.size)))
    count = -(-at.size // length)
    padded = np.full(count * length, _IDENTITY, np.uint8)
    padded[: at.size] = maps
    steps = np.ascontiguousarray(padded.reshape(count, length).T)
    table = _composition()
    for j in range(1, length):
        steps[j] = table[(steps[j - 1].astype(np.uint16) << 6) | steps[j]]
    state, starts = LITERAL, np.empty(count, np.uint8)
    for block, whole in enumerate(steps[-1].tolist()):
        starts[block] = 2 * state
        state = (whole >> 2 * state) & 3
    after: Bytes = (steps >> starts) & np.uint8(3)
    return after.T.reshape(-1)[: at.size].copy()
