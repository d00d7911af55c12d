"""Input files: which ones a pattern names, their bytes as received, and their bytes decompressed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.implementations.local import LocalFileSystem

from lakehouse.errors import InputError, near
from lakehouse.file_names import FileNames, utf8
from lakehouse.storage import locate

__all__ = ["Fingerprint", "InputFile", "expand"]

_BLOCK = 1 << 20

_MAGIC: dict[bytes, str] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
}
_ENDINGS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
_PACKAGES = {"smbclient": "smbprotocol", "libarchive": "libarchive-c"}  # where they are not called as their modules
_NOT_REGULAR = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Hashes and sizes (bytes) of a file as received (``stored``) and decompressed, and its state when it was read."""

    stored_sha256: str
    stored_size: int
    sha256: str
    size: int
    state: str


@dataclass(slots=True)
class InputFile:
    """One file that shall land.

    Parameters
    ----------
    uri
        Its identity, see `FileNames`: its path in the project, ``file://`` with the absolute path, or the URI as fsspec
        spells it.
    """

    uri: str
    _fs: Any
    _path: str
    _kept: bytes | None = None

    @property
    def name(self) -> str:
        """The last part of the URI."""
        return self.uri.rpartition("/")[2]

    @property
    def stored_size(self) -> int:
        """Bytes as received."""
        return cast(int, self._fs.size(self._path))

    @property
    def state(self) -> str:
        """Changes when the file is written to."""
        return cast(str, self._fs.ukey(self._path))

    def is_same(self, other: InputFile) -> bool:
        """Return whether another input, of the same name, is the same file."""
        if self._path == other._path or not isinstance(self._fs, LocalFileSystem):
            return True
        return os.path.samefile(self._path, other._path)  # noqa: PTH121 - fsspec's paths are text

    @property
    def kept(self) -> int:
        """Decompressed bytes held in memory."""
        return len(self._kept) if self._kept is not None else 0

    def fingerprint(self, on_bytes: Callable[[int], None] = lambda _: None, *, keep: int = 0) -> Fingerprint:
        """Read the file once and return its hashes.

        Parameters
        ----------
        on_bytes
            Told the size of every block read.
        keep
            Hold on to the decompressed bytes of a compressed file if they are at most so many, so that they need not
            be decompressed again.

        Raises
        ------
        InputError
            If the file cannot be read, or a compressed stream is broken.
        """
        state = self.state
        stored = _HashingReader(self._open_stored(), on_bytes)
        content, size, kept = hashlib.sha256(), 0, bytearray()
        stream = cast(BinaryIO, stored)
        with stored, self._blame():
            compression = _compression(stream)
            self._refuse_stub(compression, stream)
            reader = _decompressed(stream, compression)
            while block := reader.read(_BLOCK):
                content.update(block)
                size += len(block)
                if compression and size <= keep:
                    kept += block
            stored.drain()
        if compression and size <= keep:
            self._kept = bytes(kept)
        return Fingerprint(stored.hexdigest(), stored.size, content.hexdigest(), size, state)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the decompressed bytes for reading.

        Raises
        ------
        InputError
            While the block runs: if the file cannot be read, or a compressed stream is broken.
        """
        if self._kept is not None:
            yield io.BytesIO(self._kept)
            return
        with self._open_stored() as stored, self._blame():
            yield _decompressed(stored, _compression(stored))

    def forget(self) -> None:
        """Let go of bytes kept in memory."""
        self._kept = None

    def _open_stored(self) -> BinaryIO:
        with self._blame():
            return cast(BinaryIO, self._fs.open(self._path, "rb"))

    def _refuse_stub(self, compression: str | None, stored: BinaryIO) -> None:
        """Stop at a file called ``….gz`` that was cut before it says that it is one; otherwise only content counts."""
        claimed = _ENDINGS.get(os.path.splitext(self.name)[1].lower())  # noqa: PTH122 - it may be a URI
        if compression is not None or claimed is None:
            return
        magic = next(magic for magic, name in _MAGIC.items() if name == claimed)
        head = stored.read(len(magic))
        stored.seek(0)
        if len(head) < len(magic) and magic.startswith(head):
            raise EOFError

    @contextmanager
    def _blame(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            # What the system refuses has a number; what a decompressor refuses has none.
            if isinstance(error, OSError) and error.errno is not None:
                raise InputError(f"cannot be read: {error.strerror or error}", where=self.uri) from error
            raise _broken(error, self.uri) from error


def expand(inputs: Iterable[str | Path], project: Path | None = None) -> list[InputFile]:
    """Return the files that paths, URIs and glob patterns name, each once, by their names.

    Parameters
    ----------
    project
        The project's directory, by which files inside are named; None if there is none.

    Raises
    ------
    InputError
        If a name matches nothing, or names a directory or something else that is no regular file.
    """
    names = FileNames(project)
    files: dict[str, InputFile] = {}
    for text in inputs:
        with _reaching(utf8(str(text))):
            found = _matches(str(text), names)
        for file in found:
            if not files.setdefault(file.uri, file).is_same(file):
                raise InputError("two files have this name, as it can be written in UTF-8", where=file.uri)
    return [files[uri] for uri in sorted(files)]


@contextmanager
def _reaching(where: str) -> Iterator[None]:
    """Say in our words what keeps an address from being looked at."""
    try:
        yield
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or ""
        install = f"pip install {_PACKAGES.get(missing, missing)}, or s" if missing else "S"
        raise InputError(
            "a package that opens this is not installed",
            where=where,
            hint=f"{install}ave the file here by other means and name that.",
        ) from error
    except OSError as error:
        reason = f": {error.strerror}" if error.errno is not None and error.strerror else ""
        hint = "Try again, or save the file here by other means and name that." if "://" in where else None
        raise InputError(f"cannot be reached{reason}", where=where, hint=hint) from error


def _matches(text: str, names: FileNames) -> list[InputFile]:
    where = utf8(text)
    try:
        fs, path = locate(text)
    except ValueError as error:
        raise InputError(
            "cannot be opened: no such kind of address is known",
            where=where,
            hint="Name a path, or a URI that fsspec knows.",
        ) from error
    if fs.isdir(path):
        raise InputError("is a directory", where=where, hint=f"Name its files, e.g. {where.rstrip('/')}/*.csv")
    if fs.exists(path):
        return [_input(fs, path, names)]
    if isinstance(fs, LocalFileSystem) and os.path.islink(path):  # noqa: PTH114 - fsspec's paths are text
        return [_input(fs, path, names)]  # it says where the link leads
    found = [match for match in fs.glob(path) if not fs.isdir(match)] if set("*?[") & set(path) else []
    if not found:
        parent, _, name = path.rpartition("/")
        siblings = [entry.rpartition("/")[2] for entry in fs.ls(parent, detail=False)] if fs.isdir(parent) else []
        what = "no file matches" if set("*?[") & set(path) else "there is no such file"
        hint = near(name, siblings, what="files there") if siblings else "Its directory does not exist or is empty."
        raise InputError(what, where=where, hint=utf8(hint))
    return [_input(fs, match, names) for match in found]


def _input(fs: Any, path: str, names: FileNames) -> InputFile:
    if not isinstance(fs, LocalFileSystem):
        return InputFile(fs.unstrip_protocol(path), fs, path)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - fsspec's paths are text
    except OSError as error:
        link = f"It is a link to {utf8(os.readlink(path))}." if os.path.islink(path) else None  # noqa: PTH114, PTH115
        raise InputError(f"cannot be read: {error.strerror}", where=utf8(path), hint=link) from error
    if not stat.S_ISREG(mode):
        what = _NOT_REGULAR.get(stat.S_IFMT(mode), "something else")
        raise InputError(
            f"is not a regular file: it is {what}",
            where=utf8(path),
            hint="A landing reads a file more than once: save what comes from there in one, and land that.",
        )
    return InputFile(names.of_path(path), fs, path)


def _broken(error: Exception, uri: str) -> InputError:
    """Return in our words why a compressed file cannot be decompressed."""
    what, hint = "the compressed file is damaged", "Fetch the file again, then run the command again."
    if isinstance(error, EOFError) or "Truncated" in str(error):
        what = "the compressed file is cut short"
    elif "Not a gzipped file" in str(error) or "Unknown frame descriptor" in str(error):  # it began as one
        what = "the compressed file has other bytes after its end"
        hint = (
            "Fetch it again; or, if all is there before them, decompress that (gzip -dc, zstd -dc) and name the result."
        )
    return InputError(what, where=uri, hint=f"Nothing of this load has landed. {hint}")


def _compression(stored: BinaryIO) -> str | None:
    head = stored.read(6)
    stored.seek(0)
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def _decompressed(stored: BinaryIO, compression: str | None) -> BinaryIO:
    match compression:
        case "gzip":
            return cast(BinaryIO, gzip.GzipFile(fileobj=stored))
        case "bz2":
            return cast(BinaryIO, bz2.BZ2File(stored))
        case "xz":
            return cast(BinaryIO, lzma.LZMAFile(stored))
        case "zstd":
            import pyarrow as pa

            return cast(BinaryIO, pa.CompressedInputStream(stored, "zstd"))
    return stored


class _HashingReader(io.RawIOBase):
    """Passes a stream on and hashes what has been read for the first time."""

    def __init__(self, stream: BinaryIO, on_bytes: Callable[[int], None]) -> None:
        self._stream = stream
        self._on_bytes = on_bytes
        self._hash = hashlib.sha256()
        self._position = 0
        self.size = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = self._stream.seek(offset, whence)
        return self._position

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        start, self._position = self._position, self._position + len(data)
        if self._position > self.size:
            fresh = data[self.size - start :] if start < self.size else data
            self._hash.update(fresh)
            self._on_bytes(len(fresh))
            self.size = self._position
        return data

    def drain(self) -> None:
        while self.read(_BLOCK):
            pass

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def close(self) -> None:
        self._stream.close()
        super().close()
