"""Tags: names for snapshots, which never move to another one by themselves."""

from __future__ import annotations

import re

import msgspec

from lakehouse.errors import CatalogDamagedError, RequestError, UnknownSnapshotError, near
from lakehouse.storage import Storage
from lakehouse.types import Clock, utc_now, utc_text

__all__ = ["Tag", "Tags"]

FORMAT = 1
_FOLDER = "_catalog/refs"
_BEGINS = re.compile(r"[A-Za-z]")
_STRANGE = re.compile(r"[^A-Za-z0-9_.-]")
_LENGTH = 200  # file systems end at 255 bytes


class Tag(msgspec.Struct, frozen=True):
    """A name for a snapshot.

    Parameters
    ----------
    name
        Unique in the lake.
    snapshot
        The number of the snapshot.
    at
        When it was tagged, UTC.
    """

    format: int
    name: str
    snapshot: int
    at: str


class Tags:
    """The tags of one lake.

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

    def snapshots(self) -> dict[str, int]:
        """Return the snapshot number of every tag, by name.

        Raises
        ------
        CatalogDamagedError
            If a tag cannot be read.
        """
        names = [name.removesuffix(".json") for name in self.storage.list(_FOLDER)]
        return {name: self._read(name).snapshot for name in names}

    def tag(self, name: str, snapshot: int) -> None:
        """Name a snapshot; naming it so again changes nothing.

        Raises
        ------
        RequestError
            If the name is none for a tag, or names another snapshot already.
        """
        if (refused := _refused(name)) is not None:
            hint = "A tag begins with a letter of A to Z or a to z; letters, digits, - _ . may follow."
            raise RequestError(refused, hint=hint)
        data = msgspec.json.encode(Tag(FORMAT, name, snapshot, utc_text(self.clock())))
        if not self.storage.put_if_absent(_path(name), data) and (known := self._read(name).snapshot) != snapshot:
            raise RequestError(
                f"tag {name!r} names snapshot {known} already",
                hint=f"Delete it first (penstock tag --delete {name}) or take another name.",
            )

    def delete(self, name: str) -> None:
        """Give a name up.

        Raises
        ------
        UnknownSnapshotError
            If there is no such tag; near matches are listed.
        """
        known = self.snapshots()
        if name not in known:
            raise UnknownSnapshotError(f"there is no tag {name!r}", hint=near(name, known, what="tags"))
        self.storage.delete(_path(name))

    def _read(self, name: str) -> Tag:
        try:
            return msgspec.json.decode(self.storage.read(_path(name)), type=Tag)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise CatalogDamagedError(
                "the tag cannot be read", where=_path(name), hint="Delete the file and tag again."
            ) from None


def _refused(name: str) -> str | None:
    """Return why a text can be no tag, None if it can."""
    if not name:
        return "a tag needs a name"
    if name[0].isdigit():
        return f"{name!r} cannot be a tag: it must not look like a number or a time"
    if strange := _STRANGE.search(name):
        return f"{strange[0]!r} cannot be in a tag"
    if not _BEGINS.match(name):
        return f"{name!r} cannot be a tag: it must begin with a letter"
    if len(name) > _LENGTH:
        return f"a tag has at most {_LENGTH} characters, and this one has {len(name)}"
    return None


def _path(name: str) -> str:
    return f"{_FOLDER}/{name}.json"
