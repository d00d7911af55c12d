"""The embedded store: one immutable LMDB file per view, mapped by any number of reader processes at once.

Files must never be changed in place: the system kills a process that reads what was cut off of a file that it has
mapped. So they are read-only from the start; replacing or deleting one is safe.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import msgspec

from featurestore.codec.buffers import as_binary
from featurestore.generations import (
    REBUILD,
    Manifest,
    ViewFile,
    check_succession,
    published_after,
    published_before,
    raced,
)
from featurestore.online import Batch, Written
from featurestore.online.directory import Directory, Pointer, sync_directory
from featurestore.online.loading import load
from featurestore.online.mapped import Mapped, acquire, release, verify
from lakehouse.errors import CatalogDamagedError, ConflictError, PenstockError, RequestError, StorageError, near
from lakehouse.types import new_ulid, utc_now

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LmdbReader", "LmdbStore"]

_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_SUFFIX = ".lmdb"


class LmdbStore:
    """Generations in a directory of this machine.

    Files have mode 0600, those of views 0400 once they are whole. The directory must be on a local disk whose file
    system knows flock and rename.

    Parameters
    ----------
    path
        The directory; made when something is written.
    failpoint
        Called with ``"written"``, ``"manifest"`` and ``"flipped"`` as publishing goes on; for tests that stop there.
    """

    def __init__(self, path: str | os.PathLike[str], *, failpoint: Callable[[str], None] = lambda _name: None) -> None:
        self._directory = Directory(path)
        self._failpoint = failpoint
        # Locked while this object lives: files that are built but not published yet.
        self._unpublished: dict[str, int] = {}
        self._finalizer = weakref.finalize(self, _close_all, self._unpublished)
        if lmdb.Environment.__module__ == "lmdb.cffi":
            warnings.warn(
                "lmdb runs without its C extension: lookups are many times slower; install a wheel of it",
                RuntimeWarning,
                stacklevel=2,
            )

    def __repr__(self) -> str:
        return f"LmdbStore({str(self._directory.path)!r})"

    # -- writing

    def write(self, name: str, keys: pa.LargeBinaryArray, values: pa.LargeBinaryArray) -> Written:
        """Build a file of keys and values. See `OnlineStore.write`."""
        return self.write_batches(name, [(keys, values)])

    def write_batches(self, name: str, batches: Iterable[Batch]) -> Written:
        """Build a file of keys and values. See `OnlineStore.write_batches`."""
        if not _NAME.match(name):
            raise RequestError(f"{name!r} can't be the name of a view's file")
        file = f"{name}-{new_ulid(utc_now())}{_SUFFIX}"
        path = self._directory.views / file
        with self._directory.locked():
            descriptor = self._create(path)
        try:
            load(descriptor, path, ((as_binary(keys), as_binary(values)) for keys, values in batches))
            size, sha256 = _sealed(descriptor, path)
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        self._unpublished[file] = descriptor
        self._failpoint("written")
        return Written(file, size, sha256)

    @staticmethod
    def _create(path: Path) -> int:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise StorageError(f"cannot write here: {error.strerror or error}", where=str(path)) from error
        return descriptor

    # -- generations

    def publish(self, manifest: Manifest, *, expected: str | None, force: bool = False) -> None:
        """Make a generation current. See `OnlineStore.publish`."""
        with self._directory.locked():
            pointer = self._pointer(mend=force)
            found = pointer.current or None if pointer else None
            if found != expected and (pointer is None or pointer.current):
                raise raced(expected, found)
            published = pointer.published if pointer else ()
            if manifest.id in published:
                raise RequestError(f"generation {manifest.id} was published before")
            if not force:
                check_succession(self._directory.current(), manifest)
            for view in manifest.views.values():
                self._check_present(view)
            if pointer is None:
                self._directory.begin()
            self._directory.put_manifest(manifest)
            self._failpoint("manifest")
            self._directory.flip(Pointer(manifest.id, published_after(published, found, manifest.id)))
            self._failpoint("flipped")
        for file in manifest.files & self._unpublished.keys():
            os.close(self._unpublished.pop(file))

    def current_id(self) -> str | None:
        """Return the id of the current generation. See `OnlineStore.current_id`."""
        pointer = self._directory.pointer()
        return None if pointer is None else pointer.current

    def current(self) -> Manifest | None:
        """Return the current generation. See `OnlineStore.current`."""
        return self._directory.current()

    def generations(self) -> list[Manifest]:
        """Return the published generations, newest first. See `OnlineStore.generations`."""
        pointer = self._pointer(mend=True)
        found = []
        for id_ in reversed(pointer.published if pointer else ()):
            with contextlib.suppress(CatalogDamagedError):
                found.append(self._directory.manifest(id_))
        return found

    def rollback(self, to: str | None = None) -> Manifest:
        """Make an earlier generation current again. See `OnlineStore.rollback`."""
        with self._directory.locked():
            pointer = self._pointer(mend=to is not None)
            if pointer is None:
                raise RequestError("there is no online generation yet", hint="Build one: penstock materialize")
            target = published_before(pointer.published, pointer.current) if to is None else to
            if target not in pointer.published:
                raise RequestError(
                    f"there is no generation {target}", hint=near(target, pointer.published, what="generations")
                )
            manifest = self._directory.manifest(target, fresh=True)
            for view in manifest.views.values():
                with self._advising(view):
                    verify(self._path(view), view.size, view.sha256)
            self._directory.flip(msgspec.structs.replace(pointer, current=target, sha256=""))
        return manifest

    def collect(self, keep: int) -> list[str]:
        """Delete old generations and orphans. See `OnlineStore.collect`."""
        if keep < 1:
            raise RequestError(f"{keep} generations can't be kept: at least 1")
        with self._directory.locked():
            pointer = self._directory.pointer()
            kept = self._kept(pointer, keep) if pointer else {}
            gone = [id_ for id_ in pointer.published if id_ not in kept] if pointer else []
            if pointer and gone:
                published = tuple(id_ for id_ in pointer.published if id_ in kept)
                self._directory.flip(Pointer(pointer.current, published))
            self._directory.forget(frozenset(kept))
            files = frozenset(file for manifest in kept.values() for file in manifest.files)
            for path in self._directory.views.glob(f"*{_SUFFIX}"):
                if path.name not in files:
                    _delete_unless_locked(path)
        return gone

    def check_file(self, view: ViewFile) -> None:
        """Check a view's file. See `OnlineStore.check_file`."""
        verify(self._path(view), view.size, view.sha256, again=True)

    def check(self) -> list[PenstockError]:
        """Return what is wrong. See `OnlineStore.check`."""
        try:
            pointer = self._directory.pointer()
        except PenstockError as error:
            return [error]
        problems: list[PenstockError] = []
        files: dict[str, ViewFile] = {}
        for id_ in pointer.published if pointer else ():
            try:
                files |= {view.file: view for view in self._directory.manifest(id_, fresh=True).views.values()}
            except PenstockError as error:
                problems.append(error)
        for view in files.values():
            try:
                verify(self._path(view), view.size, view.sha256)
            except PenstockError as error:
                problems.append(error)
        return problems

    # -- reading

    def open(self, manifest: Manifest, views: Iterable[str] | None = None) -> LmdbReader:
        """Open a generation for lookups. See `OnlineStore.open`."""
        files: dict[str, Mapped] = {}
        try:
            for name in manifest.views if views is None else views:
                view = _view(manifest, name)
                with self._advising(view):
                    files[name] = acquire(self._path(view), view.size, view.sha256)
        except BaseException as error:
            for mapped in files.values():
                release(mapped)
            if isinstance(error, CatalogDamagedError) and self._is_collected(manifest):
                raise ConflictError(
                    f"generation {manifest.id} was deleted meanwhile", hint="Ask for the current one again."
                ) from error
            raise
        return LmdbReader(manifest, files)

    def close(self) -> None:
        """Let go of what was written but not published. See `OnlineStore.close`."""
        _close_all(self._unpublished)

    @contextlib.contextmanager
    def _advising(self, view: ViewFile) -> Iterator[None]:
        """Add to the error of a damaged file the generation that has another one, if there is such a generation."""
        try:
            yield
        except CatalogDamagedError as error:
            others = [manifest.id for manifest in self.generations() if view.file not in manifest.files]
            to = (
                f" Or go back to a generation with another file: penstock online rollback {others[0]}."
                if others
                else ""
            )
            raise CatalogDamagedError(error.what, where=error.where, hint=REBUILD + to) from error

    def _is_collected(self, manifest: Manifest) -> bool:
        pointer = self._directory.pointer()
        return pointer is not None and manifest.id not in pointer.published

    def _pointer(self, *, mend: bool) -> Pointer | None:
        try:
            return self._directory.pointer()
        except CatalogDamagedError:
            if not mend:
                raise
            return self._directory.rebuilt()

    def _kept(self, pointer: Pointer, keep: int) -> dict[str, Manifest]:
        """Return the generations that stay. Of a damaged one nobody knows the files: it can't be kept."""
        kept = {}
        for id_ in dict.fromkeys((*pointer.published[-keep:], pointer.current)):
            try:
                kept[id_] = self._directory.manifest(id_)
            except CatalogDamagedError:
                if id_ == pointer.current:
                    raise
        return kept

    def _path(self, view: ViewFile) -> Path:
        return self._directory.views / view.file

    def _check_present(self, view: ViewFile) -> None:
        path = self._path(view)
        size = path.stat().st_size if path.exists() else None
        if size != view.size:
            what = "is missing" if size is None else f"has {size:,} bytes where {view.size:,} were written"
            raise CatalogDamagedError(f"the file {what}", where=str(path), hint=REBUILD)


class LmdbReader:
    """One generation, mapped. See `featurestore.online.Reader`."""

    def __init__(self, manifest: Manifest, files: dict[str, Mapped]) -> None:
        self.manifest = manifest
        self._files = files
        # Whoever drops a reader without closing it has closed it too; atexit has nothing to give back.
        self._finalizer = weakref.finalize(self, _release_all, files)
        self._finalizer.atexit = False

    def get(self, view: str, key: bytes) -> bytes | None:
        """Return the value of a key. See `Reader.get`."""
        try:
            return self._files[view].get(key)
        except KeyError:
            raise self._unknown(view) from None
        except lmdb.BadValsizeError:
            return None  # no key is empty, or as long as this

    def get_many(self, view: str, keys: Sequence[bytes | None]) -> list[bytes | memoryview | None]:
        """Return the values of keys in their order. See `Reader.get_many`."""
        get = self._file(view).get
        try:
            return [None if key is None else get(key) for key in keys]
        except lmdb.BadValsizeError:
            return [None if key is None else self.get(view, key) for key in keys]

    def keys(self, view: str) -> Iterator[bytes]:
        """Return all keys in order. See `Reader.keys`."""
        yield from self._file(view).keys()

    def close(self) -> None:
        """Let go of the files. See `Reader.close`."""
        self._finalizer()

    def _file(self, view: str) -> Mapped:
        try:
            return self._files[view]
        except KeyError:
            raise self._unknown(view) from None

    def _unknown(self, view: str) -> RequestError:
        if not self._finalizer.alive:
            return RequestError(f"the reader of generation {self.manifest.id} is closed")
        return _unknown_view(self.manifest, view)


def _view(manifest: Manifest, name: str) -> ViewFile:
    try:
        return manifest.views[name]
    except KeyError:
        raise _unknown_view(manifest, name) from None


def _unknown_view(manifest: Manifest, name: str) -> RequestError:
    return RequestError(
        f"generation {manifest.id} has no view {name!r}", hint=near(name, manifest.views, what="online views")
    )


def _release_all(files: dict[str, Mapped]) -> None:
    while files:
        release(files.popitem()[1])


def _close_all(descriptors: dict[str, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


def _sealed(descriptor: int, path: Path) -> tuple[int, str]:
    """Make a finished file read-only and durable, and return its size and SHA-256."""
    try:
        os.fchmod(descriptor, 0o400)
        os.fsync(descriptor)
        sync_directory(path.parent)
        os.lseek(descriptor, 0, os.SEEK_SET)
        with open(descriptor, "rb", closefd=False) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return os.fstat(descriptor).st_size, sha256
    except OSError as error:
        raise StorageError(f"cannot write here: {error.strerror or error}", where=str(path)) from error


def _delete_unless_locked(path: Path) -> None:
    """Delete a file, unless a live process is still building it: the lock of a killed one is gone with it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)
