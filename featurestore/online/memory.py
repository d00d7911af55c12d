"""A store in this process's memory, for tests: the same rules, nothing kept."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

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
from featurestore.online.loading import in_order
from lakehouse.errors import CatalogDamagedError, PenstockError, RequestError, near

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MemoryReader", "MemoryStore"]


class MemoryStore:
    """Generations in memory.

    Parameters
    ----------
    failpoint
        Called with ``"written"``, ``"manifest"`` and ``"flipped"`` as publishing goes on.
    """

    def __init__(self, *, failpoint: Callable[[str], None] = lambda _name: None) -> None:
        self._failpoint = failpoint
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._files: dict[str, dict[bytes, bytes]] = {}
        self._unpublished: set[str] = set()
        self._manifests: dict[str, Manifest] = {}
        self._published: tuple[str, ...] = ()
        self._current: str | None = None

    def write(self, name: str, keys: pa.LargeBinaryArray, values: pa.LargeBinaryArray) -> Written:
        """Build a file of keys and values. See `OnlineStore.write`."""
        return self.write_batches(name, [(keys, values)])

    def write_batches(self, name: str, batches: Iterable[Batch]) -> Written:
        """Build a file of keys and values. See `OnlineStore.write_batches`."""
        found: dict[bytes, bytes] = {}
        rows = 0
        for batch in batches:
            keys, values = in_order(*map(as_binary, batch))
            found.update(zip(keys.to_pylist(), values.to_pylist(), strict=True))
            rows += len(keys)
        if rows != len(found):
            raise RequestError(f"{rows - len(found)} keys appear twice")
        content = dict(sorted(found.items()))
        digest = hashlib.sha256()
        for part in itertools.chain.from_iterable(content.items()):
            digest.update(len(part).to_bytes(8) + part)
        with self._lock:
            file = f"{name}-{next(self._numbers)}"
            self._files[file] = content
            self._unpublished.add(file)
        self._failpoint("written")
        return Written(file, sum(len(key) + len(value) for key, value in content.items()), digest.hexdigest())

    def publish(self, manifest: Manifest, *, expected: str | None, force: bool = False) -> None:
        """Make a generation current. See `OnlineStore.publish`."""
        with self._lock:
            if self._current != expected:
                raise raced(expected, self._current)
            if manifest.id in self._published:
                raise RequestError(f"generation {manifest.id} was published before")
            if not force:
                check_succession(self.current(), manifest)
            for view in manifest.views.values():
                self._content(view)
            self._manifests[manifest.id] = manifest
            self._failpoint("manifest")
            self._published = published_after(self._published, self._current, manifest.id)
            self._current = manifest.id
            self._failpoint("flipped")
            self._unpublished -= manifest.files

    def current_id(self) -> str | None:
        """Return the id of the current generation. See `OnlineStore.current_id`."""
        return self._current

    def current(self) -> Manifest | None:
        """Return the current generation. See `OnlineStore.current`."""
        with self._lock:
            return None if self._current is None else self._manifests[self._current]

    def generations(self) -> list[Manifest]:
        """Return the published generations, newest first. See `OnlineStore.generations`."""
        with self._lock:
            return [self._manifests[id_] for id_ in reversed(self._published)]

    def open(self, manifest: Manifest, views: Iterable[str] | None = None) -> MemoryReader:
        """Open a generation for lookups. See `OnlineStore.open`."""
        content = {}
        with self._lock:
            for name in manifest.views if views is None else views:
                if name not in manifest.views:
                    raise _unknown_view(manifest, name)
                content[name] = self._content(manifest.views[name])
        return MemoryReader(manifest, content)

    def _content(self, view: ViewFile) -> dict[bytes, bytes]:
        try:
            return self._files[view.file]
        except KeyError:
            raise CatalogDamagedError("the file is missing", where=view.file, hint=REBUILD) from None

    def rollback(self, to: str | None = None) -> Manifest:
        """Make an earlier generation current again. See `OnlineStore.rollback`."""
        with self._lock:
            if self._current is None:
                raise RequestError("there is no online generation yet", hint="Build one: penstock materialize")
            if to is None:
                to = published_before(self._published, self._current)
            if to not in self._published:
                raise RequestError(f"there is no generation {to}", hint=near(to, self._published, what="generations"))
            self._current = to
            return self._manifests[to]

    def collect(self, keep: int) -> list[str]:
        """Delete old generations and orphans. See `OnlineStore.collect`."""
        if keep < 1:
            raise RequestError(f"{keep} generations can't be kept: at least 1")
        with self._lock:
            kept = {*self._published[-keep:], self._current}
            gone = [id_ for id_ in self._published if id_ not in kept]
            self._published = tuple(id_ for id_ in self._published if id_ in kept)
            self._manifests = {id_: self._manifests[id_] for id_ in self._published}
            files = self._unpublished.union(*(manifest.files for manifest in self._manifests.values()))
            self._files = {file: content for file, content in self._files.items() if file in files}
        return gone

    def check_file(self, view: ViewFile) -> None:
        """Check that a view's file is there. See `OnlineStore.check_file`."""
        with self._lock:
            self._content(view)

    def check(self) -> list[PenstockError]:
        """Return nothing: memory is as it was written. See `OnlineStore.check`."""
        return []

    def close(self) -> None:
        """Let go of what was written but not published. See `OnlineStore.close`."""
        self._unpublished.clear()


class MemoryReader:
    """One generation. See `featurestore.online.Reader`."""

    def __init__(self, manifest: Manifest, content: Mapping[str, Mapping[bytes, bytes]]) -> None:
        self.manifest = manifest
        self._content: Mapping[str, Mapping[bytes, bytes]] | None = content

    def get(self, view: str, key: bytes) -> bytes | None:
        """Return the value of a key. See `Reader.get`."""
        return self._view(view).get(key)

    def get_many(self, view: str, keys: Sequence[bytes | None]) -> list[bytes | memoryview | None]:
        """Return the values of keys in their order. See `Reader.get_many`."""
        content = self._view(view)
        return [None if key is None else content.get(key) for key in keys]

    def keys(self, view: str) -> Iterator[bytes]:
        """Return all keys in order. See `Reader.keys`."""
        yield from self._view(view)

    def close(self) -> None:
        """Let go of the generation. See `Reader.close`."""
        self._content = None

    def _view(self, name: str) -> Mapping[bytes, bytes]:
        if self._content is None:
            raise RequestError(f"the reader of generation {self.manifest.id} is closed")
        try:
            return self._content[name]
        except KeyError:
            raise _unknown_view(self.manifest, name) from None


def _unknown_view(manifest: Manifest, name: str) -> RequestError:
    return RequestError(
        f"generation {manifest.id} has no view {name!r}", hint=near(name, manifest.views, what="online views")
    )
