"""The decoder of packed rows for online lookups: a function written for the columns that are asked.

A lookup decodes a few dozen values within microseconds; a loop over a description of the columns would take longer
than the values. So the function is put together as Python source, once per request, as `dataclasses` does with
``__init__``. The source holds nothing but places, sizes and names made here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from featurestore.codec.layouts import Layout
from lakehouse.errors import CatalogDamagedError

__all__ = ["Decode", "damaged", "row_decoder"]

Decode = Callable[..., tuple[Any, ...]]
"""Called with a buffer, and optionally where the row starts and ends in it."""

_BITMAP_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}

_SOURCE = """\
def decode(buffer, start=0, end=None):
    stop = len(buffer) if end is None else end
    try:
        ({fields}) = unpack(buffer, start)
        at = base = start + {size}
{texts}
    except (struct_error, UnicodeDecodeError):
        raise damaged() from None
    if at != stop:
        raise damaged()
    if bitmap != {nothing}:
        return with_nulls(bitmap, [{values}])
    return ({values})
"""

_TEXT = """\
        end_{place} += base
        if not at <= end_{place} <= stop:
            raise damaged()
{text}
        at = end_{place}"""


def damaged() -> CatalogDamagedError:
    """Return the error of bytes that are no row."""
    return CatalogDamagedError(
        "a packed row is not what its types say", hint="Build it again: penstock materialize --full."
    )


def row_decoder(layouts: Sequence[Layout], bitmap: int, positions: Sequence[int]) -> Decode:
    """Return a function that decodes the columns at some positions of a row, in that order.

    Parameters
    ----------
    layouts
        Of all columns of the row. Those not asked for are skipped; of texts and blobs only the bounds are looked at.
    bitmap
        Bytes of the bitmap of nulls.
    """
    asked = frozenset(positions)
    code, fields, texts = "<" + _BITMAP_CODES.get(bitmap, f"{bitmap}s"), ["bitmap"], []
    names: dict[str, Any] = {"struct_error": struct.error, "damaged": damaged}
    for place, known in enumerate(layouts):
        names[f"convert_{place}"] = known.convert
        if known.variable:
            text = f"        value_{place} = convert_{place}(buffer[at:end_{place}])" if place in asked else ""
            texts.append(_TEXT.format(place=place, text=text))
        if known.variable or place in asked:
            code += known.code
            fields.append(f"end_{place}" if known.variable else f"value_{place}")
        else:
            code += f"{known.size}x"
    names["unpack"] = struct.Struct(code).unpack_from
    names["with_nulls"] = _with_nulls(len(layouts), positions)
    source = _SOURCE.format(
        fields="".join(f"{field}, " for field in fields),
        size=bitmap + sum(known.size for known in layouts),
        texts="\n".join(texts),
        nothing=0 if bitmap in _BITMAP_CODES else bytes(bitmap),
        values="".join(f"{_value(place, layouts[place])}, " for place in positions),
    )
    exec(source, names)  # noqa: S102 - see above: nothing of a user's is in it
    decode: Decode = names["decode"]
    return decode


def _value(place: int, known: Layout) -> str:
    return f"value_{place}" if known.variable or known.convert is None else f"convert_{place}(value_{place})"


def _with_nulls(columns: int, positions: Sequence[int]) -> Callable[[int | bytes, list[Any]], tuple[Any, ...]]:
    """Return what puts None where the bitmap says so."""
    slots = [(1 << place, slot) for slot, place in enumerate(positions)]

    def with_nulls(bits: int | bytes, values: list[Any]) -> tuple[Any, ...]:
        nulls = bits if isinstance(bits, int) else int.from_bytes(bits, "little")
        if nulls >> columns:
            raise damaged()
        for bit, slot in slots:
            if nulls & bit:
                values[slot] = None
        return tuple(values)

    return with_nulls
