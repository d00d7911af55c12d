r"""Quotes that open and close in turn, 64 bytes per step: one bit per byte, whether it is inside quotes.

The running parity of the quotes says what is inside, if each quote that would open stands where a quote opens: at the
start of a field or behind a closing quote (the two are a pair then). Well-formed files are so, and more: an
apostrophe in plain text is no quote, and text behind a closing quote changes nothing. Where it is not so, nothing
found here holds and the exact way of `csv_structure` is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "CR", "LF", "Block", "Marks", "bit_at", "blocks", "bytes_at"]

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

LF, CR = 10, 13
BLOCK = 1 << 18  # a multiple of 64; the masks of one block stay in the cache


class Marks(NamedTuple):
    """The bytes with a meaning; ``quote = None``: none has (text that is no CSV is cut at line ends alone)."""

    delimiter: int
    quote: int | None


class Block(NamedTuple):
    """Some of the bytes from ``start``, one bit per byte, the lowest first.

    ``inside`` is set from each opening quote up to the byte before the closing one; ``ends`` are line ends (of a line
    end of two bytes the second), ``separators`` these and delimiters, inside or not; ``wrong`` are closing quotes that
    text follows; ``seconds`` the second quotes of pairs.
    """

    start: int
    data: Bytes
    inside: Words
    ends: Words
    separators: Words
    wrong: Words
    seconds: Words


def blocks(data: Bytes, marks: Marks, base: int, *, final: bool = True) -> Iterator[Block | None]:
    """Yield the data block by block; None, as the last, if the quotes do not open and close in turn.

    Parameters
    ----------
    data
        The bytes.
    marks
        Delimiter and quote, which must not be None.
    base
        Where the first record starts.
    final
        False: more bytes follow, so a carriage return in the last place may be half a line end.
    """
    size, quote = data.size, -1 if marks.quote is None else marks.quote
    edges = {marks.delimiter, LF, CR, quote}
    parity = False
    for start in range(0, size, BLOCK):
        part = data[start : start + BLOCK]
        stop = start + part.size
        before = int(data[start - 1]) if start else -1
        after = int(data[stop]) if stop < size else -1
        quotes, feeds, returns = _words(part == quote), _words(part == LF), _words(part == CR)
        delimiters = _words(part == marks.delimiter)
        any_edge = quotes | feeds | returns | delimiters
        inside = _running_parity(quotes, parity)
        parity = bit_at(inside, part.size - 1)
        may_open = _shifted_up(any_edge, before in edges)
        if start <= base < stop:
            may_open[(base - start) >> 6] |= np.uint64(1 << ((base - start) & 63))
        opening = quotes & inside
        if (opening & ~may_open).any():
            yield None
            return
        if returns.any():
            feed_follows = _shifted_down(feeds, part.size, after == LF or (after < 0 and not final))
            ends = feeds | (returns & ~feed_follows)
        else:
            ends = feeds
        yield Block(
            start=start,
            data=part,
            inside=inside,
            ends=ends,
            separators=ends | delimiters,
            wrong=quotes & ~inside & ~_shifted_down(any_edge, part.size, after < 0 or after in edges),
            seconds=opening & _shifted_up(quotes, before == quote),
        )


def bytes_at(bits: Words, size: int) -> npt.NDArray[np.int64]:
    """Return the positions of the bits that are set, of the first ``size``."""
    return np.flatnonzero(np.unpackbits(bits.view(np.uint8), count=size, bitorder="little").view(np.bool_))


def _words(mask: npt.NDArray[np.bool_]) -> Words:
    packed = np.packbits(mask, bitorder="little")
    if packed.size % 8:
        packed = np.concatenate([packed, np.zeros(-packed.size % 8, np.uint8)])
    return packed.view("<u8")


def bit_at(words: Words, index: int) -> bool:
    """Return one bit."""
    return bool((int(words[index >> 6]) >> (index & 63)) & 1)


def _running_parity(bits: Words, odd: bool) -> Words:
    """Return for each bit whether an odd number of bits is set up to it, ``odd`` saying so for all before."""
    parity = bits.copy()
    for step in (1, 2, 4, 8, 16, 32):
        parity ^= parity << np.uint64(step)
    whole = parity >> np.uint64(63)
    carried = np.bitwise_xor.accumulate(whole) ^ whole ^ np.uint64(odd)
    parity ^= np.uint64(0) - carried  # all ones where the words before are odd
    return parity


def _shifted_up(bits: Words, lowest: bool) -> Words:
    """Return bits whose bit i is bit i - 1 of the given ones."""
    shifted = bits << np.uint64(1)
    shifted[1:] |= bits[:-1] >> np.uint64(63)
    shifted[0] |= np.uint64(lowest)
    return shifted


def _shifted_down(bits: Words, size: int, highest: bool) -> Words:
    """Return bits whose bit i is bit i + 1 of the given ones; the last of ``size`` is given."""
    shifted = bits >> np.uint64(1)
    shifted[:-1] |= bits[1:] << np.uint64(63)
    shifted[(size - 1) >> 6] |= np.uint64(int(highest) << ((size - 1) & 63))
    return shifted
