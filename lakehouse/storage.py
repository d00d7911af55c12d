"""One root URI, and the few operations that the lake needs from whatever holds it.

Everything above addresses objects by paths relative to the root, with ``/`` between the parts. The three
libraries that also open these objects by themselves (fsspec, deltalake, DuckDB) get their spelling of the
address here and nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lakehouse.errors import StorageError

__all__ = ["Storage", "locate", "refusal"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_CHAIN = re.compile(r"[A-Za-z0-9]+::[A-Za-z][A-Za-z0-9+.-]*://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def locate(text: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """Return the file system that a path or URI names, and the path in it.

    Raises
    ------
    ImportError
        If nothing that is installed opens such URIs.
    ValueError
        If nothing at all is known to open such URIs.
    """
    if text.startswith("file://") or not (_SCHEME.match(text) or _CHAIN.match(text)):
        # Not by fsspec's own reading, to which :: in a path is a chain of file systems.
        fs = LocalFileSystem()
        return fs, str(fs._strip_protocol(text))  # noqa: SLF001 - what url_to_fs calls
    fs, path = fsspec.core.url_to_fs(text, **dict(options or {}))
    return fs, cast(str, path)


def refusal(error: BaseException, where: str) -> StorageError | None:
    """Return the one clear error about a storage that is full or must not be written to; None for other errors.

    Parameters
    ----------
    error
        What the system said, or a library whose message quotes the system.
    where
        What could not be written.
    """
    told = getattr(error, "errno", None)
    codes = (*_FULL, *_FORBIDDEN)
    code = told if told in codes else next((code for code in codes if os.strerror(code) in str(error)), None)
    if code is None:
        return None
    hint = "Make room, then run the command again." if code in _FULL else "Reading works without the right to write."
    return StorageError(f"cannot write here: {os.strerror(code)}", where=where, hint=hint)


def _refused(error: OSError, where: str) -> StorageError:
    return refusal(error, where) or StorageError(f"cannot write here: {error.strerror or error}", where=where)


def _unopened(uri: str, error: Exception) -> StorageError:
    """Return the error about a URI that needs a package, or has a scheme that nothing knows."""
    if isinstance(error, ImportError):
        advice = str(error).partition("\n")[0].rstrip(".")
        return StorageError("a package that opens this is not installed", where=uri, hint=f"{advice}.")
    return StorageError(f"cannot be opened: {error}", where=uri, hint="Name a directory, or a URI that fsspec knows.")


def _refuse_file(root: str) -> None:
    """Stop if the way to the root leads through a file."""
    for path in (root, *map(str, Path(root).parents)):
        if os.path.isfile(path):  # noqa: PTH113 - Path's own raises where the name is too long
            hint = "[lake] uri in penstock.toml names a directory; it is made where there is none."
            raise StorageError("this is a file: no lake can lie here", where=path, hint=hint)
        if os.path.exists(path):  # noqa: PTH110 - the same
            return


class Storage:
    """Objects under one root URI.

    Parameters
    ----------
    uri
        A directory, or any URI that fsspec knows.
    options
        Options of the fsspec file system.

    Raises
    ------
    StorageError
        If nothing that is installed opens such URIs, or a file lies where the directory should be.
    """

    def __init__(self, uri: str | Path, options: Mapping[str, Any] | None = None) -> None:
        try:
            self._fs, root = locate(str(uri), options)
        except (ImportError, ValueError) as error:
            raise _unopened(str(uri), error) from error
        self._root = root.rstrip("/")
        self.is_local = isinstance(self._fs, LocalFileSystem)
        if self.is_local:
            _refuse_file(self._root)
        self.uri = self._root if self.is_local else self._fs.unstrip_protocol(self._root)

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    def path(self, relative: str) -> str:
        """Return the file system's path of an object, refusing paths that leave the root."""
        parts = relative.split("/")
        if relative.startswith("/") or ".." in parts:
            raise StorageError(f"{relative!r} lies outside the lake", where=self.uri)
        return f"{self._root}/{relative}" if relative else self._root

    def address(self, relative: str) -> str:
        """Return what deltalake and DuckDB open: a plain path on local disk, else a URI."""
        path = self.path(relative)
        return path if self.is_local else self._fs.unstrip_protocol(path)

    def read(self, relative: str) -> bytes:
        """Return an object's bytes.

        Raises
        ------
        FileNotFoundError
            If there is no such object.
        """
        return cast(bytes, self._fs.cat_file(self.path(relative)))

    def size(self, relative: str) -> int:
        """Return an object's size in bytes."""
        return cast(int, self._fs.size(self.path(relative)))

    def open_read(self, relative: str) -> BinaryIO:
        """Open an object for reading."""
        return cast(BinaryIO, self._fs.open(self.path(relative), "rb"))

    def open_write(self, relative: str) -> BinaryIO:
        """Open a new object for writing; its directories are made."""
        self._make_parent(relative)
        return cast(BinaryIO, self._fs.open(self.path(relative), "wb"))

    def put_if_absent(self, relative: str, data: bytes) -> bool:
        """Create an object whole, or return False if it exists already.

        The lake's only primitive for mutual exclusion: of any number of writers exactly one gets True, and nobody
        ever sees part of the object. Durable on return.
        """
        self._make_parent(relative)
        if self.is_local:
            return _link_new_file(Path(self.path(relative)), data)
        try:
            self._fs.pipe_file(self.path(relative), data, mode="create")
        except FileExistsError:
            return False
        return True

    def replace(self, relative: str, data: bytes) -> None:
        """Put an object in the place of what may be there; readers see the old or the new one, whole.

        Not flushed: a machine that stops may be left with the old one.
        """
        self._make_parent(relative)
        if not self.is_local:
            self._fs.pipe_file(self.path(relative), data)
            return
        target = Path(self.path(relative))
        temporary = target.with_name(f".tmp-{secrets.token_hex(8)}")
        try:
            temporary.write_bytes(data)
            temporary.replace(target)
        except OSError as error:
            raise _refused(error, str(target.parent)) from error
        finally:
            with contextlib.suppress(OSError):  # the first error is the one to report
                temporary.unlink()

    def exists(self, relative: str) -> bool:
        """Return whether an object (or directory) is there."""
        return cast(bool, self._fs.exists(self.path(relative)))

    def list(self, relative: str) -> list[str]:
        """Return the names directly under a path, sorted; empty if there is none."""
        path = self.path(relative)
        if self.is_local:
            try:
                return sorted(entry.name for entry in os.scandir(path) if not entry.name.startswith(".tmp-"))
            except FileNotFoundError:
                return []
        try:
            return sorted(name.rstrip("/").rpartition("/")[2] for name in self._fs.ls(path, detail=False))
        except FileNotFoundError:
            return []

    def delete(self, relative: str) -> None:
        """Delete one object; deleting one that is not there is done already."""
        try:
            self._fs.rm_file(self.path(relative))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _refused(error, self.path(relative)) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Say in one clear error that the storage is full or must not be written to, whichever library found out."""
        try:
            yield
        except OSError as error:
            refused = refusal(error, self.uri)
            if refused is None:
                raise
            raise refused from error

    def delete_tree(self, relative: str) -> None:
        """Delete everything under a path."""
        if self._fs.exists(self.path(relative)):
            self._fs.rm(self.path(relative), recursive=True)

    def prepare(self, relative: str) -> str:
        """Return an object's address after making its directory, for a library that writes the object itself."""
        self._make_parent(relative)
        return self.address(relative)

    def _make_parent(self, relative: str) -> None:
        parent = self.path(relative).rpartition("/")[0]
        try:
            self._fs.makedirs(parent, exist_ok=True)
        except OSError as error:
            raise _refused(error, parent) from error


def _link_new_file(target: Path, data: bytes) -> bool:
    """Write beside the target, flush, then link: link(2) fails if the name exists, on every local file system."""
    temporary = target.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        _sync_directory(target.parent)
    except OSError as error:
        raise _refused(error, str(target.parent)) from error
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink()
    return True


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
