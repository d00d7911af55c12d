"""Immutable LMDB files mapped into this process, each once however many readers use it.

LMDB can't have a file open twice in a process and can't be carried through a fork; so open files are counted here,
and opened again in a forked child. Both are properties of the process, hence the module's state.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from featurestore.generations import REBUILD
from lakehouse.errors import CatalogDamagedError, StorageError

__all__ = ["Mapped", "acquire", "environment_path", "release", "verify"]

_Key = tuple[int, int]
_DESCRIPTORS = Path("/proc/self/fd")
_REMEMBERED = 10_000


class Mapped:
    """One open file.

    Attributes
    ----------
    get
        Returns the value of a key (bytes), or None.
    """

    __slots__ = ("_descriptor", "_environment", "_path", "_transaction", "get", "key", "users")

    def __init__(self, path: Path, descriptor: int, key: _Key) -> None:
        self.key = key
        self.users = 1
        self._path = path
        self._descriptor = descriptor
        self.get: Callable[[bytes], bytes | None]
        self.map()

    def map(self) -> None:
        """Open the file."""
        # No larger than the file: what lies beyond its end can't be read.
        size = os.fstat(self._descriptor).st_size
        try:
            self._environment = lmdb.open(
                environment_path(self._descriptor, self._path),
                subdir=False,
                readonly=True,
                lock=False,
                readahead=False,
                max_readers=1,
                map_size=size,
            )
            self._transaction = self._environment.begin()
        except lmdb.Error as error:
            raise CatalogDamagedError(
                "the file is damaged: it cannot be opened", where=str(self._path), hint=REBUILD
            ) from error
        self.get = self._transaction.get

    def keys(self) -> Any:
        """Return an iterator over all keys, in order."""
        return self._transaction.cursor().iternext(keys=True, values=False)

    def unmap(self) -> None:
        """Close the file but keep its descriptor, so that it can be mapped again even if its name is gone."""
        self._transaction.abort()
        self._environment.close()

    def close(self) -> None:
        """Close the file."""
        self.unmap()
        os.close(self._descriptor)


_lock = threading.Lock()
_open: dict[_Key, Mapped] = {}
_verified: dict[tuple[int, int, int, int], str] = {}


def acquire(path: Path, size: int, sha256: str) -> Mapped:
    """Return an open file after checking that it is what was written; give it back with `release`.

    Raises
    ------
    CatalogDamagedError
        If it is missing, or not of this size and SHA-256.
    """
    descriptor = _opened(path)
    try:
        _check(descriptor, path, size, sha256)
        state = os.fstat(descriptor)
        key = (state.st_dev, state.st_ino)
        with _lock:
            mapped = _open.get(key)
            if mapped is None:
                mapped = _open[key] = Mapped(path, descriptor, key)
                descriptor = -1
            else:
                mapped.users += 1
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return mapped


def release(mapped: Mapped) -> None:
    """Close a file when its last user lets go of it."""
    with _lock:
        mapped.users -= 1
        if mapped.users == 0:
            del _open[mapped.key]
            mapped.close()


def verify(path: Path, size: int, sha256: str, *, again: bool = False) -> None:
    """Check that a file is what was written, without opening it for lookups. Raises as `acquire`.

    Parameters
    ----------
    again
        Read it even if it was found to be right before and has the same time still.
    """
    descriptor = _opened(path)
    try:
        _check(descriptor, path, size, sha256, again=again)
    finally:
        os.close(descriptor)


def environment_path(descriptor: int, path: Path) -> str:
    """Return what LMDB opens: the open descriptor where the system has a name for it, so that nothing comes between."""
    return f"{_DESCRIPTORS}/{descriptor}" if _DESCRIPTORS.is_dir() else str(path)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise CatalogDamagedError("the file is missing", where=str(path), hint=REBUILD) from None
    except OSError as error:
        raise StorageError(f"cannot read here: {error.strerror or error}", where=str(path)) from error


def _check(descriptor: int, path: Path, size: int, sha256: str, *, again: bool = False) -> None:
    state = os.fstat(descriptor)
    if state.st_size != size:
        raise CatalogDamagedError(
            f"the file has {state.st_size:,} bytes where {size:,} were written", where=str(path), hint=REBUILD
        )
    mark = (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)
    if _verified.get(mark) == sha256 and not again:
        return
    with open(descriptor, "rb", closefd=False) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        _verified.pop(mark, None)
        raise CatalogDamagedError("the file is damaged: it does not match its hash", where=str(path), hint=REBUILD)
    if len(_verified) > _REMEMBERED:
        _verified.clear()
    _verified[mark] = sha256


def _after_fork() -> None:
    """Map everything again in a forked child."""
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()
    for mapped in _open.values():
        mapped.unmap()
        mapped.map()


os.register_at_fork(after_in_child=_after_fork)
