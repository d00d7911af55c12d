"""Text columns in their types: every value exactly as it is written, or a misfit that `rest` keeps as text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakehouse import grammar
from lakehouse.grammar import Mask, Values
from lakehouse.zones import as_timezone, to_utc

__all__ = ["Converted", "arrow_type", "convert", "rest"]

_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)\Z")


@dataclass(frozen=True, slots=True)
class Converted:
    """A text column in its type.

    Parameters
    ----------
    values
        Same rows, same order; null where the text is null or a misfit. Arrow type as `arrow_type` says.
    misfit
        Bool per row: a text that is no value of the type; None if there is none.
    ambiguous
        Local times that occur twice, taken as the earlier instant.
    missing
        Local times that never occur in the declared zone; they are misfits.
    """

    values: pa.Array
    misfit: NDArray[np.bool_] | None
    ambiguous: int = 0
    missing: int = 0


def arrow_type(column_type: str) -> pa.DataType:
    """Return the Arrow type of a column type; a column of type ``unknown`` is a null string column.

    Raises
    ------
    ValueError
        If there is no such column type.
    """
    decimal = _DECIMAL.match(column_type)
    if decimal:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    types = {
        "unknown": pa.string(),
        "varchar": pa.string(),
        "boolean": pa.bool_(),
        "bigint": pa.int64(),
        "double": pa.float64(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", tz="UTC"),
    }
    if column_type not in types:
        raise ValueError(column_type)
    return types[column_type]


def convert(values: pa.StringArray, type: str, *, timezone: str | None = None) -> Converted:  # noqa: A002 - a column's type
    """Return the values in a column type: each exactly as it is written, or as a misfit.

    Parameters
    ----------
    values
        Texts as found; null stays null.
    type
        A type that `Observed.type` returns. ``bigint`` texts belong to a decimal column and, like decimals, to a
        double column; decimal texts don't belong to a bigint column.
    timezone
        IANA name of the zone in which a ``timestamptz`` column's texts without an offset are meant; without one they
        are misfits. Twice-occurring local times are taken as the earlier instant.

    Raises
    ------
    SettingsError
        If the zone is unknown.
    ValueError
        If there is no such type.
    """
    target = arrow_type(type)
    if type == "varchar":
        return Converted(values, None)
    if type == "unknown":
        given = values.is_valid().to_numpy(zero_copy_only=False)
        return Converted(pa.nulls(len(values), target), given if given.any() else None)
    strings = values.drop_null() if values.null_count else values
    ambiguous = missing = 0
    if type == "timestamptz":
        parsed, ambiguous, missing = _instants(strings, timezone)
    else:
        parsed = _parse(strings, target)
    array, misfit = _assembled(values, parsed, target)
    return Converted(array, misfit, ambiguous, missing)


def _parse(strings: pa.StringArray, target: pa.DataType) -> Values:
    if pa.types.is_decimal(target):
        return grammar.as_decimals(strings, target.precision, target.scale)
    if pa.types.is_timestamp(target):
        return grammar.as_timestamps(strings, zoned=False)
    readers: dict[pa.DataType, Callable[[pa.StringArray], Values]] = {
        pa.bool_(): grammar.as_booleans,
        pa.int64(): grammar.as_integers,
        pa.float64(): grammar.as_doubles,
        pa.date32(): grammar.as_dates,
    }
    return readers[target](strings)


def _instants(strings: pa.StringArray, timezone: str | None) -> tuple[Values, int, int]:
    """Return UTC instants, and how many local times were ambiguous and missing."""
    if timezone is None:
        return grammar.as_timestamps(strings, zoned=True), 0, 0
    as_timezone(timezone)  # an unknown zone is an error even where no value needs it
    # One kind is the rule; the first value says which to try first.
    first_zoned = bool(len(strings)) and bool(grammar.matches(strings.slice(0, 1), grammar.ZONED)[0])
    found, ok = grammar.as_timestamps(strings, zoned=first_zoned)
    if ok is None:
        return ((found, None), 0, 0) if first_zoned else _from_local(found, timezone)
    other, other_ok = grammar.scatter(grammar.as_timestamps(strings.filter(pa.array(~ok)), zoned=not first_zoned), ~ok)
    other_ok = ~ok if other_ok is None else other_ok
    local, is_local, zoned, is_zoned = (other, other_ok, found, ok) if first_zoned else (found, ok, other, other_ok)
    (utc, exists), ambiguous, missing = _from_local(local[is_local], timezone)
    utc, converted = grammar.scatter((utc, exists), is_local)
    utc[is_zoned] = zoned[is_zoned]
    return (utc, None if converted is None else converted | is_zoned), ambiguous, missing


def _from_local(local: NDArray[np.int64], timezone: str) -> tuple[Values, int, int]:
    instants = to_utc(local, timezone)
    exists = None if instants.missing is None else ~instants.missing
    ok = grammar.both(exists, grammar.within_calendar(instants.utc))
    ambiguous = 0 if instants.ambiguous is None else int(np.count_nonzero(instants.ambiguous))
    return (instants.utc, ok), ambiguous, 0 if instants.missing is None else int(np.count_nonzero(instants.missing))


def _assembled(
    values: pa.StringArray, parsed: Values, target: pa.DataType
) -> tuple[pa.Array, NDArray[np.bool_] | None]:
    """Return the parsed values of the non-null rows as an array of all rows, and the misfits among them."""
    data, fits = parsed
    given: Mask = values.is_valid().to_numpy(zero_copy_only=False) if values.null_count else None
    data, present = grammar.scatter((data, fits), given)
    misfit = None
    if fits is not None and present is not None and not fits.all():
        misfit = ~present if given is None else given & ~present
    if data.dtype == np.bool_:
        return pa.array(data, mask=None if present is None else ~present), misfit
    validity = None if present is None else pa.py_buffer(np.packbits(present, bitorder="little"))
    buffer = pa.py_buffer(np.ascontiguousarray(data))
    return pa.Array.from_buffers(target, len(values), [validity, buffer]), misfit


def rest(columns: Sequence[tuple[str, pa.StringArray, NDArray[np.bool_]]], rows: int) -> pa.StringArray:
    """Return ``_rest``: per row a JSON object of the texts that don't fit their columns, null where all fit.

    Parameters
    ----------
    columns
        Name, texts as found and misfit mask of each column, in the order that the keys shall have.
    rows
        The number of rows.
    """
    concerned = np.zeros(rows, dtype=np.bool_)
    for _, _, misfit in columns:
        concerned |= misfit
    count = np.count_nonzero(concerned)
    if not count:
        return pa.nulls(rows, pa.string())
    picked = pa.array(concerned)
    members = []
    for name, texts, misfit in columns:
        if misfit.any():
            shown = pc.if_else(pa.array(misfit[concerned]), texts.filter(picked), None)
            key = json.dumps(name, ensure_ascii=False)
            members.append(pc.binary_join_element_wise(f'{key}: "', _escaped(shown), '"', ""))
    joined = pc.binary_join_element_wise(*members, ", ", null_handling="skip")
    objects = pc.binary_join_element_wise("{", joined, "}", "")
    places = np.cumsum(concerned) - 1
    return objects.take(pa.array(places, mask=~concerned))


def _escaped(texts: pa.StringArray) -> pa.StringArray:
    r"""Return the texts as they stand between the quotes of a JSON string; all but ``" \`` and controls as they are."""
    present = np.bincount(grammar.view(texts)[1], minlength=128)
    for byte in (ord("\\"), *range(32), ord('"')):  # the backslash first: the others bring new ones in
        if present[byte]:
            texts = pc.replace_substring(texts, pattern=chr(byte), replacement=json.dumps(chr(byte))[1:-1])
    return texts
