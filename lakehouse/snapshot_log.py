"""The files of the snapshot log: appended by put-if-absent, never changed, and never silently stepped over.

Beside the entries lies a mark, the highest number known to be published. It decides nothing and need not be there;
but it is what tells a log that ends here from one whose newest entry was deleted.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Iterator

import msgspec

from lakehouse.entries import FORMAT, Entry, entry_path, sealed, unsealed
from lakehouse.errors import CatalogDamagedError, ProjectError, StorageError, UnknownSnapshotError
from lakehouse.storage import Storage
from lakehouse.types import utc_text

__all__ = ["LAKE_FILE", "SnapshotLog"]

LAKE_FILE = "_catalog/lake.json"
"""Says that there is a lake; written after its first entry."""

_FOLDER = "_catalog/log"
_MARK = "_catalog/head.json"
_ENTRY_NAME = re.compile(r"(0|[1-9][0-9]{0,17})\.json\Z")


class _Mark(msgspec.Struct, frozen=True):
    format: int
    snapshot: int


class SnapshotLog:
    """The entries of one lake.

    Parameters
    ----------
    storage
        The lake's root.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def numbers(self) -> list[int]:
        """Return the numbers of all entries, ascending; a file of another name than ours is none."""
        found = (_ENTRY_NAME.match(name) for name in self._storage.list(_FOLDER))
        return sorted(int(match[1]) for match in found if match)

    # -- reading ------------------------------------------------------------------------------------------------

    def newest(self) -> Entry:
        """Return the newest entry.

        Raises
        ------
        ProjectError
            If there is no lake here.
        CatalogDamagedError
            If the newest entry is damaged or missing: never a silent step back to an older one.
        """
        numbers, top = self._extent()
        if top is None:
            raise ProjectError(
                "there is no lake here yet",
                where=self._storage.uri,
                hint="Land something first: penstock land SOURCE FILES…",
            )
        try:
            return self.read(top)
        except CatalogDamagedError as error:
            raise CatalogDamagedError(error.what, where=error.where, hint=self._way_out(numbers)) from error

    def _way_out(self, numbers: list[int]) -> str:
        """Return what can be done about a newest entry that cannot be read; giving it up is the user's own act."""
        good = next((n for n in reversed(numbers) if self._is_readable(n)), None)
        if good is None:
            return "No snapshot can be read. Restore the catalog from a copy."
        lost = [entry_path(number) for number in numbers if number > good]
        lost += [_MARK] if (self._marked() or 0) > good else []
        *others, last = lost
        deleted = f"{', '.join(others)} and {last}" if others else last
        return (
            f"The newest good snapshot is {good}; read it with --as-of {good}. Restore the file from a copy to go on "
            f"writing; if it is lost for good, delete {deleted} to go on from snapshot {good}."
        )

    def read(self, number: int) -> Entry:
        """Return one entry, checked.

        Raises
        ------
        UnknownSnapshotError
            If no snapshot of that number was ever published.
        CatalogDamagedError
            If its entry is damaged or missing.
        """
        place = entry_path(number)
        hint = "Other snapshots can still be read by their number, --as-of N. Restore the file from a copy."
        try:
            return unsealed(self._storage.read(place), number, place)
        except FileNotFoundError:
            numbers, top = self._extent()
            if top is not None and 0 <= number <= top:
                raise CatalogDamagedError(
                    f"the entry of snapshot {number} is missing", where=place, hint=hint
                ) from None
            known = f"Snapshots: {numbers[0]} to {numbers[-1]}." if numbers else "There are no snapshots yet."
            raise UnknownSnapshotError(f"there is no snapshot {number}", hint=known) from None
        except CatalogDamagedError as error:
            raise CatalogDamagedError(error.what, where=error.where, hint=hint) from error

    def walk(self, entry: Entry) -> Iterator[Entry]:
        """Yield an entry and all that it was built on, newest first.

        Raises
        ------
        CatalogDamagedError
            At an entry that is damaged, missing, or not the one that its successor names.
        """
        yield entry
        while entry.parent is not None:
            parent = self.read(entry.parent)
            if parent.sha256 != entry.parent_sha256:
                raise CatalogDamagedError(
                    f"snapshot {parent.snapshot} is not the one that snapshot {entry.snapshot} was built on",
                    where=entry_path(parent.snapshot),
                    hint="The file comes from another history of the lake. Restore the right one from a copy.",
                )
            entry = parent
            yield entry

    def at(self, instant: dt.datetime) -> Entry:
        """Return the greatest entry that was published at or before an instant.

        Raises
        ------
        UnknownSnapshotError
            If the instant lies before the first entry.
        CatalogDamagedError
            If an entry that cannot be read may be the answer; elsewhere damage does not matter.
        """
        _, top = self._extent()
        unsure: CatalogDamagedError | None = None
        first: Entry | None = None
        for number in range(-1 if top is None else top, -1, -1):
            try:
                first = self.read(number)
            except CatalogDamagedError as error:
                unsure = unsure or error
                continue
            if first.instant <= instant:
                if unsure is not None and first.instant < instant:  # times ascend: after an equal one, all are later
                    raise unsure
                return first
            unsure = None
        if unsure is not None:
            raise unsure
        hint = f"The lake begins at {first.at}." if first else "There are no snapshots yet."
        raise UnknownSnapshotError(f"{utc_text(instant)} lies before the first snapshot", hint=hint)

    def first_with(self, table: str, source: str | None, after: int) -> int | None:
        """Return the first entry after another that has a stored table, or a source; None if none has.

        Made for hints, so it passes over what cannot be read.
        """
        for number in self.numbers():
            if number > after and self._is_readable(number):
                entry = self.read(number)
                if table in entry.tables or source in entry.sources:
                    return number
        return None

    # -- writing ------------------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> bool:
        """Create the entry's file, or return False if another process published that number first."""
        return self._storage.put_if_absent(entry_path(entry.snapshot), sealed(entry))

    def mark(self, number: int) -> None:
        """Note that a snapshot was published, unless a higher one is noted; the publish itself is done before."""
        if (self._marked() or 0) < number:
            with contextlib.suppress(OSError, StorageError):
                self._storage.replace(_MARK, msgspec.json.encode(_Mark(FORMAT, number)))

    # -- the mark -----------------------------------------------------------------------------------------------

    def _extent(self) -> tuple[list[int], int | None]:
        """Return the numbers of the entries that are there, and the highest that was ever published, if any was."""
        # The mark first: its entry was there before it, so a publish between the two looks never seems a loss.
        marked = self._marked()
        numbers = self.numbers()
        if not numbers and marked is None and self._storage.exists(LAKE_FILE):
            marked = 0
        return numbers, max([*numbers[-1:], *([] if marked is None else [marked])], default=None)

    def _marked(self) -> int | None:
        try:
            return msgspec.json.decode(self._storage.read(_MARK), type=_Mark).snapshot
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _is_readable(self, number: int) -> bool:
        try:
            self.read(number)
        except (CatalogDamagedError, UnknownSnapshotError):
            return False
        return True
