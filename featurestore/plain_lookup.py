"""Online answers of plain views: which row of an entity's packed value answers at an instant, one by one or in bulk.

Both ways follow the same rules: `PlainLookup.answer` in Python, `PlainLookup.arrays` vectorised.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from featurestore.codec import RowCodec, Sections, only_row, unpack_sections
from featurestore.layout import PlainLayout
from featurestore.request import Asked
from featurestore.response import Answer
from featurestore.statuses import EXPIRED, NOT_FOUND, PRESENT

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from featurestore.online import Reader

__all__ = ["PlainLookup"]

_EARLIEST = -(2**63)

Buffer = bytes | memoryview


class PlainLookup:
    """Features that a row of the source holds, compiled for one request.

    Parameters
    ----------
    asked
        Features of a plain view.
    """

    def __init__(self, asked: Asked) -> None:
        layout = PlainLayout(asked.view)
        self.names = asked.names
        self.types = tuple(feature.type for feature in asked.features)
        self._view = asked.view.name
        self._codec = RowCodec(layout.types)
        self._places = tuple(layout.places[feature.name] for feature in asked.features)
        # The event timestamp comes first in a row; it is needed where values expire.
        self._latest = None if asked.view.ttl is None else asked.view.ttl + asked.view.delay
        self._decode = self._codec.decoder(self._places if self._latest is None else (0, *self._places))
        nothing = (None,) * len(self._places)
        self._not_found: Answer = (nothing, NOT_FOUND)
        self._expired: Answer = (nothing, EXPIRED)

    def read(self, reader: Reader, keys: Sequence[bytes | None], instant: int) -> Sequence[Buffer | None]:  # noqa: ARG002
        """Return the packed values, untouched. See `featurestore.response.Lookup`."""
        if len(keys) == 1:  # the usual request of a server
            return [None if keys[0] is None else reader.get(self._view, keys[0])]
        return reader.get_many(self._view, keys)

    def answer(self, packed: Buffer | None, instant: int) -> Answer:
        """Return the answer of one entity. See `featurestore.response.Lookup`."""
        if packed is None:
            return self._not_found
        chosen = only_row(packed) or _row_at(packed, instant)
        if chosen is None or chosen[0] > instant:
            return self._not_found
        row = self._decode(packed, chosen[1], chosen[2])
        if self._latest is None:
            return row, PRESENT
        return self._expired if instant - row[0] > self._latest else (row[1:], PRESENT)

    def arrays(self, found: Sequence[Buffer | None], instant: int) -> tuple[list[pa.Array], NDArray[np.uint8]]:
        """Return the features as Arrow arrays. See `featurestore.response.Lookup`."""
        import numpy as np
        import pyarrow as pa

        packed = pa.array(found, pa.large_binary())
        rows, chosen = _rows_at(packed, instant)
        columns = self._codec.decode_many(rows)
        codes = np.full(len(packed), NOT_FOUND, np.uint8)
        codes[chosen] = PRESENT
        if self._latest is not None and len(chosen):
            # The earliest event that still lives, as a number of 64 bits.
            alive = columns[0].to_numpy(zero_copy_only=False) >= max(instant - self._latest, _EARLIEST)
            codes[chosen[~alive]] = EXPIRED
        answered = codes == PRESENT
        if answered.all():
            return [columns[place] for place in self._places], codes
        # Which row is whose; null where there is none, or it has expired.
        of = np.zeros(len(packed), np.int64)
        of[chosen] = np.arange(len(chosen))
        order = pa.array(of, mask=~answered)
        return [columns[place].take(order) for place in self._places], codes


def _row_at(packed: Buffer, instant: int) -> tuple[int, int, int] | None:
    """Return stamp, start and end of the row that answers at the instant, in a value with any number of rows."""
    sections = Sections(packed)
    stamps = sections.stamps(0)
    place = bisect_right(stamps, instant) - 1
    return None if place < 0 else (stamps[place], *sections.row(0, place))


def _rows_at(values: pa.LargeBinaryArray, instant: int) -> tuple[pa.LargeBinaryArray, NDArray[np.int64]]:
    """Return the rows that answer at the instant, and the places of the values that have one."""
    import numpy as np

    present = np.arange(len(values))
    if values.null_count:
        present = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        values = values.drop_null()
    if not len(values):
        return values, present
    section = unpack_sections(values)[0]
    # Stamps ascend within an entity: as many of its rows are visible as there are stamps up to the instant.
    visible = np.concatenate([[0], np.cumsum(section.stamps <= instant)])
    counts = np.diff(visible[section.offsets])
    chosen = counts > 0
    if len(section.rows) == len(values) and chosen.all():
        return section.rows, present
    return section.rows.take((section.offsets[:-1] + counts - 1)[chosen]), present[chosen]
