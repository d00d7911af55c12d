"""Pins: who needs which snapshot, so that its files are kept when old ones are cleaned away."""

from __future__ import annotations

import datetime as dt
import re

import msgspec

from lakehouse.errors import CatalogDamagedError, RequestError
from lakehouse.storage import Storage
from lakehouse.types import Clock, utc_now, utc_text

__all__ = ["Pin", "Pins"]

FORMAT = 1
_FOLDER = "_catalog/pins"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\Z")


class Pin(msgspec.Struct, frozen=True):
    """One claim on a snapshot.

    Parameters
    ----------
    name
        Unique in the lake, e.g. ``training.tips@3``.
    snapshot
        The number of the snapshot that is needed.
    reason
        One line for people.
    at
        When it was pinned, UTC.
    keep_until
        UTC; None keeps for ever.
    tables
        The only tables of the snapshot that are needed; none named: all.
    """

    format: int
    name: str
    snapshot: int
    reason: str
    at: str
    keep_until: str | None = None
    tables: tuple[str, ...] = ()


class Pins:
    """The pins of one lake.

    Parameters
    ----------
    storage
        The lake's root.
    clock
        Returns the present instant, zoned UTC.
    """

    def __init__(self, storage: Storage, clock: Clock = utc_now) -> None:
        self.storage = storage
        self.clock = clock

    def pin(
        self,
        name: str,
        snapshot: int,
        reason: str,
        *,
        keep_until: dt.datetime | None = None,
        tables: tuple[str, ...] = (),
    ) -> bool:
        """Pin a snapshot, or return False if the name is taken already: a pin never changes.

        Raises
        ------
        RequestError
            If the name can't be a file's.
        """
        until = utc_text(keep_until) if keep_until else None
        pin = Pin(FORMAT, name, snapshot, reason, utc_text(self.clock()), until, tables)
        return self.storage.put_if_absent(_path(name), msgspec.json.encode(pin))

    def unpin(self, name: str) -> None:
        """Give a pin up; one that is not there is given up already."""
        self.storage.delete(_path(name))

    def list(self) -> list[Pin]:
        """Return all pins, by name.

        Raises
        ------
        CatalogDamagedError
            If one cannot be read: nothing may be cleaned away on a guess.
        """
        return [self._read(f"{_FOLDER}/{name}") for name in self.storage.list(_FOLDER) if name.endswith(".json")]

    def _read(self, place: str) -> Pin:
        try:
            return msgspec.json.decode(self.storage.read(place), type=Pin)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CatalogDamagedError(
                f"the pin cannot be read: {error}", where=place, hint="Delete the file if nobody needs its snapshot."
            ) from None


def _path(name: str) -> str:
    if not _NAME.match(name):
        raise RequestError(f"{name!r} cannot be a pin's name", hint="Letters, digits, - _ . @.")
    return f"{_FOLDER}/{name}.json"
