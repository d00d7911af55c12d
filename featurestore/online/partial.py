"""A generation some of whose files are damaged: the other views go on answering."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from featurestore.generations import Manifest
from featurestore.online import OnlineStore, Reader
from lakehouse.errors import CatalogDamagedError

__all__ = ["open_readable"]


def open_readable(store: OnlineStore, manifest: Manifest) -> Reader:
    """Open a generation for lookups in the views that can be read; asking another one says what is wrong with it.

    Raises
    ------
    ConflictError
        If the generation was collected meanwhile: ask for the current one again.
    """
    try:
        return store.open(manifest)
    except CatalogDamagedError:
        pass
    damages: dict[str, CatalogDamagedError] = {}
    readers: dict[str, Reader] = {}
    try:
        for view in manifest.views:
            try:
                readers[view] = store.open(manifest, [view])
            except CatalogDamagedError as error:
                damages[view] = error
        return _PartialReader(store.open(manifest, []), readers, damages)
    except BaseException:
        for reader in readers.values():
            reader.close()
        raise


class _PartialReader:
    """A generation, each of its views by itself. See `featurestore.online.Reader`.

    Parameters
    ----------
    nothing
        A reader of none of its views.
    readers
        Those of the views that can be read.
    damages
        What is wrong with the others.
    """

    def __init__(
        self, nothing: Reader, readers: Mapping[str, Reader], damages: Mapping[str, CatalogDamagedError]
    ) -> None:
        self.manifest: Manifest = nothing.manifest
        self._nothing = nothing
        self._readers = readers
        self._damages = damages

    def get(self, view: str, key: bytes) -> bytes | memoryview | None:
        """Return the value of a key. See `Reader.get`."""
        return self._reader(view).get(view, key)

    def get_many(self, view: str, keys: Sequence[bytes | None]) -> list[bytes | memoryview | None]:
        """Return the values of keys in their order. See `Reader.get_many`."""
        return self._reader(view).get_many(view, keys)

    def keys(self, view: str) -> Iterator[bytes]:
        """Return all keys in order. See `Reader.keys`."""
        return self._reader(view).keys(view)

    def close(self) -> None:
        """Let go of the files. See `Reader.close`."""
        for reader in (self._nothing, *self._readers.values()):
            reader.close()

    def _reader(self, view: str) -> Reader:
        damage = self._damages.get(view)
        if damage is not None:
            # One of its own for each lookup: raised again and again, an error gathers the traces of all.
            raise CatalogDamagedError(damage.what, where=damage.where, hint=damage.hint)
        return self._readers.get(view, self._nothing)
