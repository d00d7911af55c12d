"""Where generations live and are read from: the small interface that every online store has.

A store knows nothing of features: it keeps immutable files of keys and values, manifests, and one pointer to the
current generation. `featurestore.testing.online_store` has the contract suite that every implementation passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from featurestore.generations import Manifest, ViewFile
from lakehouse.errors import PenstockError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Batch", "OnlineStore", "Reader", "Written"]

Batch = tuple["pa.LargeBinaryArray", "pa.LargeBinaryArray"]
"""Keys and values of equal length, without nulls; keys have 1 to 500 bytes."""


class Written(NamedTuple):
    """A finished file: the store's name of it, its bytes, and their SHA-256."""

    file: str
    size: int
    sha256: str


class Reader(Protocol):
    """One generation, held open: whatever becomes current meanwhile, its answers stay the same.

    Lookups may come from several threads at once, and after a fork; `close` must not meet a lookup.
    """

    @property
    def manifest(self) -> Manifest:
        """The generation."""
        ...

    def get(self, view: str, key: bytes) -> bytes | memoryview | None:
        """Return the value of a key; None if there is none.

        Raises
        ------
        RequestError
            If the generation has no such view (or it was not opened).
        """
        ...

    def get_many(self, view: str, keys: Sequence[bytes | None]) -> list[bytes | memoryview | None]:
        """Return the values of keys in their order; None for those that are not there, and for None."""
        ...

    def keys(self, view: str) -> Iterator[bytes]:
        """Return all keys of a view, in the order of their bytes."""
        ...

    def close(self) -> None:
        """Let go of the generation. Closing twice is closing once."""
        ...


class OnlineStore(Protocol):
    """Immutable files, manifests, and a pointer that flips."""

    def write(self, name: str, keys: pa.LargeBinaryArray, values: pa.LargeBinaryArray) -> Written:
        """Build a file of keys and values beside the live ones; `write_batches` with one batch."""
        ...

    def write_batches(self, name: str, batches: Iterable[Batch]) -> Written:
        """Build a file of keys and values beside the live ones.

        Nobody sees it before a manifest that names it is published. Until then it is safe from `collect`, as long as
        this store object lives and is not closed.

        Parameters
        ----------
        name
            The view: letters, digits and underscores. The file's name begins with it.
        batches
            Their keys need not be sorted, but it is fastest, and takes memory for one batch only, when the batches
            follow one another in key order.

        Raises
        ------
        RequestError
            If a key appears twice, is null or of no fitting length.
        StorageError
            If the file can't be written.
        """
        ...

    def publish(self, manifest: Manifest, *, expected: str | None, force: bool = False) -> None:
        """Make a generation current, all at once and durably.

        Parameters
        ----------
        manifest
            Its files were written before, by this store object or for an earlier generation.
        expected
            The id of the generation that the caller found current; None if there was none.
        force
            Take an older snapshot, or another lake, and don't mind a current generation that is damaged.

        Raises
        ------
        ConflictError
            If another generation than expected is current.
        RequestError
            If the snapshot is older than the current generation's, or the lake another one; or if a generation of
            this id exists already.
        CatalogDamagedError
            If a file of it is missing or of the wrong size, or the current generation is damaged (without force).
        """
        ...

    def current_id(self) -> str | None:
        """Return the id of the current generation, even of a damaged one; None if there is none."""
        ...

    def current(self) -> Manifest | None:
        """Return the current generation; None if there is none. Cheap when nothing has changed.

        Raises
        ------
        CatalogDamagedError
            If its manifest or the pointer is not what was written, or missing.
        """
        ...

    def generations(self) -> list[Manifest]:
        """Return all published generations that can be read, newest first; what `collect` deleted is gone.

        Where the pointer is damaged or missing, these are all generations that there are.
        """
        ...

    def open(self, manifest: Manifest, views: Iterable[str] | None = None) -> Reader:
        """Open a generation, or some of its views, for lookups.

        Every file is checked against its SHA-256, once per process.

        Raises
        ------
        CatalogDamagedError
            If a file of these views is missing or not what its SHA-256 says.
        ConflictError
            If the generation was collected meanwhile: ask for the current one again.
        RequestError
            If there is no such view.
        """
        ...

    def rollback(self, to: str | None = None) -> Manifest:
        """Make an earlier published generation current again, and return it.

        Parameters
        ----------
        to
            Its id; None takes the one before the current one.

        Raises
        ------
        RequestError
            If there is no such generation.
        CatalogDamagedError
            If it is damaged; the current one stays.
        """
        ...

    def collect(self, keep: int) -> list[str]:
        """Delete all generations but the newest ones and the current one, and files that no generation has.

        Readers that have a deleted generation open go on reading it. What a live process is building stays.

        Parameters
        ----------
        keep
            How many; at least 1.

        Returns
        -------
        list of str
            Ids of the generations that are gone, oldest first.
        """
        ...

    def check_file(self, view: ViewFile) -> None:
        """Check that a view's file is what was written, by reading all of it.

        Raises
        ------
        CatalogDamagedError
            If it is missing or not what its SHA-256 says.
        """
        ...

    def check(self) -> list[PenstockError]:
        """Return what is wrong with the pointer, the published generations and their files, each an error to show."""
        ...

    def close(self) -> None:
        """Let go of files that were written but not published: `collect` may delete them."""
        ...
