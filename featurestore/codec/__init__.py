"""How keys and feature values become bytes, and back.

Three layers, each usable by itself: `RowCodec` packs the values of one row, `KeyCodec` turns the values of join keys
into a key whose byte order is the order of the values, and sections put everything that one entity has in one view
into a single value. Bulk work is vectorised over Arrow arrays; single values take only the standard library.
"""

from __future__ import annotations

from featurestore.codec.keys import KeyCodec
from featurestore.codec.layouts import arrow_type
from featurestore.codec.rows import RowCodec
from featurestore.codec.sections import Sections, only_row, pack_sections, unpack_sections

__all__ = ["KeyCodec", "RowCodec", "Sections", "arrow_type", "only_row", "pack_sections", "unpack_sections"]
