"""Documents of the lake that say which format they are written in, and that a hash of their own seals.

A document names the oldest reader that understands it. A newer writer may add fields that this reader doesn't know;
the hash is over what the file says, so that such a document still is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from lakehouse.errors import CatalogDamagedError, FormatTooNewError

__all__ = ["content_digest", "decoded", "unsealed", "with_seal"]

_Document = TypeVar("_Document")
_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_SEAL = "sha256"


def content_digest(fields: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document: of all its fields but ``sha256``."""
    rest = {key: value for key, value in fields.items() if key != _SEAL}
    return hashlib.sha256(msgspec.json.encode(rest, order="deterministic")).hexdigest()


def with_seal(document: _Struct) -> _Struct:
    """Return a document with its ``sha256`` filled in."""
    return msgspec.structs.replace(document, sha256=content_digest(msgspec.to_builtins(document)))


def decoded(
    data: bytes,
    kind: type[_Document],
    *,
    reads: int,
    what: str,
    where: str,
    hint: str | None = None,
    least: str = "min_reader",
) -> tuple[_Document, dict[str, Any]]:
    """Return a document, and its fields as they stand in the file.

    Parameters
    ----------
    reads
        The format that this Penstock reads.
    what
        How an error calls the document: ``snapshot 3``.
    where
        Its place.
    hint
        What to do when it is damaged.
    least
        The field that says which format a reader must know.

    Raises
    ------
    FormatTooNewError
        If a newer Penstock wrote it in a form that this one cannot read.
    CatalogDamagedError
        If it is no such document.
    """
    try:
        head = msgspec.json.decode(data)
        needed = head.get(least) if isinstance(head, dict) else None
        if isinstance(needed, int) and needed > reads:
            raise FormatTooNewError(
                f"{what} needs a reader of format {needed}, this Penstock reads format {reads}",
                where=where,
                hint="Install a newer Penstock.",
            )
        return msgspec.convert(head, kind), head
    # RecursionError: brackets without end; ValueError: bytes that are no UTF-8.
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise CatalogDamagedError(f"{what} is damaged: it cannot be read", where=where, hint=hint) from error


def unsealed(
    data: bytes, kind: type[_Document], *, reads: int, what: str, where: str, hint: str | None = None
) -> _Document:
    """Return a document that is what its hash says; parameters as for `decoded`.

    Raises
    ------
    FormatTooNewError
        If a newer Penstock wrote it in a form that this one cannot read.
    CatalogDamagedError
        If it is no such document, or not the one that was written.
    """
    document, head = decoded(data, kind, reads=reads, what=what, where=where, hint=hint)
    if head.get(_SEAL) != content_digest(head):
        raise CatalogDamagedError(f"{what} is damaged: its content does not match its hash", where=where, hint=hint)
    return document
