"""Where bytes stop being UTF-8: every place at once, where a decoder names the first only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["invalid_positions"]

_ASCII = 0x80


def invalid_positions(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return ascending positions of bytes that no valid UTF-8 sequence holds.

    Of a broken sequence that begins well the first byte is among them, so the first position in any stretch of text is
    the one where a strict decoder would stop. Stretches are to be cut at ASCII bytes.
    """
    if not data.size or data.max() < _ASCII or _is_valid(data):
        return np.empty(0, np.int64)
    at = np.flatnonzero(data >= _ASCII)
    value = data[at]
    following = np.zeros(256, np.int64)  # continuation bytes after a first byte; -1: no such byte in UTF-8
    following[0xC2:0xE0], following[0xE0:0xF0], following[0xF0:0xF5] = 1, 2, 3
    following[0xC0:0xC2] = following[0xF5:] = -1
    lowest, highest = np.full(256, 0x80, np.uint8), np.full(256, 0xBF, np.uint8)  # of the second byte
    lowest[0xE0], lowest[0xF0] = 0xA0, 0x90  # overlong
    highest[0xED], highest[0xF4] = 0x9F, 0x8F  # surrogates, beyond U+10FFFF
    is_first = value >= 0xC0  # noqa: PLR2004 - 0x80 to 0xBF are continuation bytes
    index = np.arange(at.size)
    own_first = np.maximum.accumulate(np.where(is_first, index, -1))
    # A first byte is sound if the next `following` entries are its unbroken continuation and the second is in range.
    needed = following[value]
    last = np.minimum(index + needed, at.size - 1)
    sound = is_first & (needed > 0) & (index + needed < at.size)
    sound &= (own_first[last] == index) & (at[last] - at == needed)
    second = value[np.minimum(index + 1, at.size - 1)]
    sound &= (second >= lowest[value]) & (second <= highest[value])
    first = np.maximum(own_first, 0)
    held = (own_first >= 0) & sound[first] & (index - first <= needed[first])
    invalid: npt.NDArray[np.int64] = at[~held]
    return invalid


def _is_valid(data: npt.NDArray[np.uint8]) -> bool:
    bounds = np.array([0, data.size], np.int32)
    text = pa.StringArray.from_buffers(1, pa.py_buffer(bounds), pa.py_buffer(data))
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
