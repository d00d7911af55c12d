"""The directory of a store on local disk: its lock, its manifests, and the pointer to the current generation.

::

    LOCK                       held (flock) while anything changes
    CURRENT                    the pointer: replaced whole, by rename
    generations/<id>.json      manifests
    views/<view>-<ulid>.lmdb   immutable files, see `featurestore.online.lmdb`

The pointer also lists what was published, in order: a manifest whose writer was killed before the flip is not in the
list, and so was never published. An empty pointer comes before the first manifest, so that a pointer that is missing
beside manifests was lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec

from featurestore.generations import AGAIN, FORMAT, REBUILD, Manifest
from lakehouse.errors import CatalogDamagedError, PenstockError, StorageError
from lakehouse.sealing import unsealed, with_seal

__all__ = ["Directory", "Pointer", "sync_directory"]

_TEMPORARY = ".tmp-"
_REMEMBERED = 32  # manifests; a server sees new ones for as long as it runs
_Mark = tuple[int, int, int]


class Pointer(msgspec.Struct, frozen=True):
    """Which generation is current, and which were published, oldest first."""

    current: str
    published: tuple[str, ...]
    min_reader: int = FORMAT
    sha256: str = ""


class Directory:
    """Manifests and pointer under one path. Readers need no lock; whoever changes anything holds `locked`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.views = self.path / "views"
        self._generations = self.path / "generations"
        self._pointer_path = self.path / "CURRENT"
        self._pointer_name = str(self._pointer_path)  # a Path would be turned into text at every look
        self._pointer: tuple[_Mark, Pointer | None] | None = None
        self._manifests: dict[str, Manifest] = {}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory if need be, and keep all other processes and threads from changing it.

        Raises
        ------
        StorageError
            If the directory can't be made or written to.
        """
        with _storage(self.path):
            for directory in (self.path, self.views, self._generations):
                directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / "LOCK", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def pointer(self) -> Pointer | None:
        """Return the pointer, None if nothing was published yet; one `stat` when it has not changed.

        Raises
        ------
        CatalogDamagedError
            If its content is not what was written, or it is missing though there are generations.
        """
        try:
            state = os.stat(self._pointer_name)  # noqa: PTH116 - this runs before every lookup
        except FileNotFoundError:
            self._check_unpublished()
            return None
        known = self._pointer
        if known is not None and known[0] == (state.st_ino, state.st_mtime_ns, state.st_size):
            return known[1]
        try:
            with self._pointer_path.open("rb") as file:
                state = os.fstat(file.fileno())
                pointer = self._parsed(file.read())
        except FileNotFoundError:
            self._check_unpublished()
            return None
        self._pointer = ((state.st_ino, state.st_mtime_ns, state.st_size), pointer)
        return pointer

    def _check_unpublished(self) -> None:
        """Make sure that nothing was published yet."""
        # The second look is for a writer that has just begun.
        if self.rebuilt().published and not self._pointer_path.exists():
            raise self._lost("the pointer to the generation that is served is missing, though there are generations")

    def _parsed(self, data: bytes) -> Pointer | None:
        try:
            pointer = unsealed(data, Pointer, reads=FORMAT, what="the pointer", where=str(self._pointer_path))
        except CatalogDamagedError as error:
            raise self._lost(error.what) from error
        if pointer.current in pointer.published:
            return pointer
        if pointer.current or pointer.published:
            raise self._lost("the pointer is damaged: it points to nothing")
        return None

    def _lost(self, what: str) -> CatalogDamagedError:
        known = ", ".join(reversed(self.rebuilt().published))
        back = (
            f" Or name a generation to go to: penstock online rollback ID, where ID is one of {known}." if known else ""
        )
        return CatalogDamagedError(what, where=str(self._pointer_path), hint=REBUILD + back)

    def current(self) -> Manifest | None:
        """Return the current generation.

        Raises
        ------
        CatalogDamagedError
            If its manifest is missing or damaged.
        """
        pointer = self.pointer()
        while pointer is not None:
            try:
                return self.manifest(pointer.current)
            except CatalogDamagedError:
                again = self.pointer()
                if again == pointer:
                    raise
                pointer = again  # it flipped and was collected between the two reads
        return None

    def manifest(self, id_: str, *, fresh: bool = False) -> Manifest:
        """Return a generation's manifest; a fresh one is read again even if it was read before.

        Raises
        ------
        CatalogDamagedError
            If it is missing or damaged.
        """
        known = None if fresh else self._manifests.get(id_)
        if known is not None:
            return known
        path = self._manifest_path(id_)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise CatalogDamagedError(f"generation {id_} is missing", where=str(path), hint=AGAIN) from None
        except OSError as error:
            raise StorageError(f"cannot read here: {error.strerror or error}", where=str(path)) from error
        manifest = Manifest.from_bytes(data, id_, str(path))
        if len(self._manifests) >= _REMEMBERED:
            self._manifests.clear()
        self._manifests[id_] = manifest
        return manifest

    def put_manifest(self, manifest: Manifest) -> None:
        """Write a manifest, durably. Nobody looks at it before the pointer lists it."""
        _write(self._manifest_path(manifest.id), manifest.to_bytes())

    def begin(self) -> None:
        """Write an empty pointer, before the first manifest."""
        self.flip(Pointer("", ()))

    def flip(self, pointer: Pointer) -> None:
        """Replace the pointer, durably."""
        sealed = with_seal(pointer)
        try:
            before = self._pointer_path.stat().st_mtime_ns
        except FileNotFoundError:
            before = 0
        # Inode numbers are used again and clocks tick slowly: a time of its own tells every pointer from the last.
        _write(self._pointer_path, msgspec.json.encode(sealed), after=before)

    def rebuilt(self) -> Pointer:
        """Return what can be said without the pointer: all manifests that can be read, by id; none is current."""
        return Pointer("", tuple(id_ for id_ in self.stored() if self._readable(id_)))

    def stored(self) -> list[str]:
        """Return the ids of all manifest files, published or not, sorted."""
        return sorted(path.stem for path in self._generations.glob("*.json") if not path.name.startswith(_TEMPORARY))

    def forget(self, kept: frozenset[str]) -> None:
        """Delete all other manifests, and what killed writers left half-written."""
        for id_ in self.stored():
            if id_ not in kept:
                self._manifests.pop(id_, None)
                with _storage(self.path):
                    self._manifest_path(id_).unlink(missing_ok=True)
        for directory in (self.path, self._generations):
            for path in directory.glob(f"{_TEMPORARY}*"):
                path.unlink(missing_ok=True)

    def _readable(self, id_: str) -> bool:
        try:
            self.manifest(id_, fresh=True)
        except PenstockError:
            return False
        return True

    def _manifest_path(self, id_: str) -> Path:
        return self._generations / f"{id_}.json"


@contextlib.contextmanager
def _storage(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write here: {error.strerror or error}", where=str(place)) from error


def _write(path: Path, data: bytes, *, after: int | None = None) -> None:
    """Put a file in its place whole and durably, with a modification time later than ``after`` (ns)."""
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
    with _storage(path.parent):
        try:
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor with its own mode
                file.write(data)
                file.flush()
                if after is not None:
                    modified = max(os.fstat(descriptor).st_mtime_ns, after + 1)
                    os.utime(descriptor, ns=(modified, modified))
                os.fsync(descriptor)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
