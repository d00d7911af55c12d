"""Online stores: the contract for each, a model of them, and what can happen to files and processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis.strategies as st
import lmdb
import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from featurestore.generations import Manifest
from featurestore.online import OnlineStore, Reader
from featurestore.online.directory import Pointer
from featurestore.online.lmdb import LmdbStore
from featurestore.online.memory import MemoryStore
from featurestore.testing.online_store import OnlineStoreContract, generation, written
from lakehouse.errors import CatalogDamagedError, ConflictError, FormatTooNewError, RequestError, StorageError
from lakehouse.sealing import with_seal


class TestLmdb(OnlineStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[OnlineStore]:
        store = LmdbStore(tmp_path / "online")
        yield store
        store.close()


class TestMemory(OnlineStoreContract):
    @pytest.fixture
    def store(self) -> OnlineStore:
        return MemoryStore()


# --- a model


CONTENT = st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=4), max_size=5)
VIEWS = ("left", "right")


class StoreMachine(RuleBasedStateMachine):
    """A store against dictionaries: publish, reuse files, roll back, collect, read what was opened before."""

    make: Callable[[Path], OnlineStore]

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.store = self.new()
        self.content: dict[str, dict[str, dict[bytes, bytes]]] = {}  # by generation
        self.manifests: dict[str, Manifest] = {}
        self.order: list[str] = []  # oldest first
        self.current: str | None = None
        self.readers: list[tuple[str, Reader]] = []

    def new(self) -> OnlineStore:
        return LmdbStore(self.root)

    def teardown(self) -> None:
        if hasattr(self, "root"):
            for _, reader in self.readers:
                reader.close()
            self.store.close()
            shutil.rmtree(self.root)

    @rule(content=CONTENT, other=CONTENT, reuse=st.booleans(), newer=st.integers(-1, 1), force=st.booleans())
    def publish(self, content, other, reuse, newer, force) -> None:
        id_ = f"G{len(self.content)}"
        before = self.manifests[self.current] if self.current else None
        snapshot = before.snapshot + newer if before else 5
        reused = {"right": before.views["right"]} if before and reuse else {}
        new = {"left": content} | ({} if reused else {"right": other})
        manifest = generation(self.store, new, id_=id_, snapshot=snapshot, reused=reused)
        if before and newer < 0 and not force:
            with pytest.raises(RequestError):
                self.store.publish(manifest, expected=self.current)
            return
        self.store.publish(manifest, expected=self.current, force=force)
        if reused:
            new["right"] = self.content[self.current]["right"]
        self.content[id_] = new
        self.manifests[id_] = manifest
        if self.current:
            self.order.remove(self.current)
            self.order.append(self.current)
        self.order.append(id_)
        self.current = id_

    @rule(back=st.integers(0, 3))
    @precondition(lambda self: self.current is not None)
    def roll_back(self, back) -> None:
        if back == 0:
            place = self.order.index(self.current)
            if place == 0:
                with pytest.raises(RequestError):
                    self.store.rollback()
            else:
                self.current = self.order[place - 1]
                assert self.store.rollback() == self.manifests[self.current]
        else:
            self.current = self.order[-back % len(self.order)]
            assert self.store.rollback(self.current) == self.manifests[self.current]

    @rule(keep=st.integers(1, 3))
    def collect(self, keep) -> None:
        kept = {*self.order[-keep:], self.current}
        assert self.store.collect(keep) == [id_ for id_ in self.order if id_ not in kept]
        self.order = [id_ for id_ in self.order if id_ in kept]

    @rule()
    @precondition(lambda self: self.current is not None and len(self.readers) < 4)
    def open(self) -> None:
        self.readers.append((self.current, self.store.open(self.manifests[self.current])))

    @rule()
    @precondition(lambda self: self.readers)
    def close_reader(self) -> None:
        self.readers.pop(0)[1].close()

    @invariant()
    def the_store_is_what_the_model_says(self) -> None:
        if not hasattr(self, "order"):
            return
        assert self.store.current() == (self.manifests[self.current] if self.current else None)
        assert [manifest.id for manifest in self.store.generations()] == self.order[::-1]
        for id_, reader in self.readers:
            for view in VIEWS:
                expected = self.content[id_][view]
                keys = list(reader.keys(view))
                assert keys == sorted(expected)
                assert dict(zip(keys, reader.get_many(view, keys), strict=True)) == expected


class LmdbMachine(StoreMachine):
    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.new()
        assert self.store.check() == []

    @invariant()
    def no_file_is_left_over_after_collecting(self) -> None:
        if hasattr(self, "store"):
            assert not list(self.root.glob("**/.tmp-*"))


class MemoryMachine(StoreMachine):
    def new(self) -> OnlineStore:
        return MemoryStore()


SETTINGS = settings(
    max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLmdbMachine = LmdbMachine.TestCase
TestLmdbMachine.settings = SETTINGS
TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = SETTINGS


# --- files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "online"


@pytest.fixture
def store(root: Path) -> Iterator[LmdbStore]:
    store = LmdbStore(root)
    yield store
    store.close()


def publish(store: LmdbStore, *ids: str, content: bytes = b"") -> list[Manifest]:
    manifests = []
    for id_ in ids:
        value = content or id_.encode()
        manifests.append(generation(store, {"zone": {b"k": value}, "other": {b"k": b"o" + value}}, id_=id_))
        store.publish(manifests[-1], expected=store.current_id())
    return manifests


def value(store: LmdbStore, manifest: Manifest) -> bytes | memoryview | None:
    reader = store.open(manifest)
    try:
        return reader.get("zone", b"k")
    finally:
        reader.close()


def path_of(root: Path, manifest: Manifest, view: str = "zone") -> Path:
    return root / "views" / manifest.views[view].file


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def test_files_are_private_and_named_after_their_view(root: Path, store: LmdbStore) -> None:
    (first,) = publish(store, "A")
    modes = {(path.parent.name, stat.S_IMODE(path.stat().st_mode)) for path in root.rglob("*") if path.is_file()}
    # Views' files are mapped: whoever cuts one in place kills its readers, so nothing can do that by accident.
    assert modes == {("online", 0o600), ("generations", 0o600), ("views", 0o400)}
    assert path_of(root, first).name.startswith("zone-")
    assert sorted(path.name for path in root.iterdir()) == ["CURRENT", "LOCK", "generations", "views"]
    with pytest.raises(RequestError, match="name"):
        written(store, "../zone", {})


def test_a_file_is_as_large_as_its_content(root: Path, store: LmdbStore) -> None:
    content = {number.to_bytes(8): b"v" * 100 for number in range(1, 200_001)}
    first = generation(store, {"zone": content}, id_="A")
    store.publish(first, expected=None)
    assert path_of(root, first).stat().st_size == first.views["zone"].size < 1.3 * 200_000 * 108
    reader = store.open(first)
    assert reader.get_many("zone", list(content)) == list(content.values())
    reader.close()


def test_the_same_content_is_the_same_file(store: LmdbStore) -> None:
    content = {number.to_bytes(8): b"v" * number for number in range(1, 200)}
    assert len({written(store, "zone", content).sha256 for _ in range(2)}) == 1


@pytest.mark.parametrize("damage", ["cut", "longer", "flipped", "missing", "empty"])
def test_a_damaged_file_is_found_when_it_is_opened(root: Path, store: LmdbStore, damage: str) -> None:
    first, second = publish(store, "A", "B")
    assert value(store, second) == b"B"
    path = path_of(root, second)
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        flip(path, -100)
    else:
        data = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes({"cut": data[:-4096], "longer": data + b"x", "empty": b""}[damage])
    with pytest.raises(CatalogDamagedError) as raised:
        store.open(second)
    assert path.name in str(raised.value)
    assert "penstock materialize --full" in str(raised.value)
    assert "penstock online rollback A." in str(raised.value)
    assert [path.name in str(error) for error in store.check()] == [True]
    # The other view, and the other generation, go on.
    reader = store.open(second, ["other"])
    assert reader.get("other", b"k") == b"oB"
    reader.close()
    assert store.rollback() == first
    assert value(store, first) == b"A"
    with pytest.raises(CatalogDamagedError):
        store.rollback("B")
    assert store.current() == first


def test_the_way_out_of_a_file_that_all_share_is_to_build_it_again(root: Path, store: LmdbStore) -> None:
    (first,) = publish(store, "A")
    shared = {"other": first.views["other"]}
    store.publish(generation(store, {"zone": {b"k": b"B"}}, id_="B", reused=shared), expected="A")
    second = store.current()
    assert second is not None
    flip(path_of(root, second, "other"), -100)
    for ask in (lambda: store.open(second), lambda: store.open(first), store.rollback, lambda: store.rollback("B")):
        with pytest.raises(CatalogDamagedError) as raised:
            ask()
        assert "penstock materialize --full" in str(raised.value)
        assert "rollback" not in str(raised.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b'{"id":"B"}', b"null"])
def test_a_manifest_that_is_none_is_told_in_plain_words(root: Path, store: LmdbStore, content: bytes) -> None:
    publish(store, "A", "B")
    (root / "generations" / "B.json").write_bytes(content)
    with pytest.raises(CatalogDamagedError, match="generation B is damaged") as raised:
        LmdbStore(root).current()
    assert not re.search("codec|JSON|Object|byte", str(raised.value))


@pytest.mark.parametrize("place", [0, 3, 20, -20, -2])
def test_a_damaged_manifest_is_found(root: Path, store: LmdbStore, place: int) -> None:
    first, _ = publish(store, "A", "B")
    flip(root / "generations" / "B.json", place)
    fresh = LmdbStore(root)
    for ask in (fresh.current, lambda: fresh.rollback("B")):
        with pytest.raises((CatalogDamagedError, FormatTooNewError)) as raised:
            ask()
        assert "B" in str(raised.value)
    assert fresh.current_id() == "B"
    assert [manifest.id for manifest in fresh.generations()] == ["A"]
    assert len(fresh.check()) == 1
    with pytest.raises(CatalogDamagedError):
        fresh.publish(generation(fresh, {"zone": {}}, id_="C"), expected="B")
    assert fresh.rollback() == first
    fresh.collect(5)
    assert fresh.check() == []
    assert value(fresh, first) == b"A"
    fresh.close()


def test_a_missing_manifest_is_replaced_by_force(root: Path, store: LmdbStore) -> None:
    publish(store, "A", "B")
    (root / "generations" / "B.json").unlink()
    fresh = LmdbStore(root)
    with pytest.raises(CatalogDamagedError, match="B is missing"):
        fresh.current()
    third = generation(fresh, {"zone": {b"k": b"C"}}, id_="C")
    fresh.publish(third, expected="B", force=True)
    assert fresh.current() == third


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b'{"current":"A"}', b"\xff\xfe", "another", "nothing", "missing"]
)
def test_a_damaged_pointer_is_mended_by_name(root: Path, store: LmdbStore, content: bytes | str) -> None:
    first, second = publish(store, "A", "B")
    pointer = root / "CURRENT"
    if content == "another":
        pointer.write_bytes(pointer.read_bytes().replace(b'"current":"B"', b'"current":"A"'))
    elif content == "nothing":
        pointer.write_bytes(msgspec.json.encode(with_seal(Pointer("C", ("A", "B")))))
    elif content == "missing":
        pointer.unlink()
    else:
        pointer.write_bytes(content)
    fresh = LmdbStore(root)
    for ask in (fresh.current, fresh.current_id, fresh.rollback, lambda: fresh.collect(1)):
        with pytest.raises(CatalogDamagedError) as raised:
            ask()
        assert "CURRENT: the pointer " in str(raised.value)
        assert "penstock online rollback ID, where ID is one of B, A." in str(raised.value)
        assert not re.search("codec|JSON|Object|byte", str(raised.value))
    assert len(fresh.check()) == 1
    assert fresh.generations() == [second, first]
    assert fresh.rollback("A") == first
    assert store.current() == fresh.current() == first
    pointer.write_bytes(b"")
    third = generation(fresh, {"zone": {b"k": b"C"}}, id_="C")
    with pytest.raises(CatalogDamagedError):
        fresh.publish(third, expected=None)
    fresh.publish(third, expected=None, force=True)
    assert store.current() == third


def test_a_newer_pointer_is_refused(root: Path, store: LmdbStore) -> None:
    publish(store, "A")
    newer = Pointer("A", ("A",), min_reader=9)
    (root / "CURRENT").write_bytes(msgspec.json.encode(with_seal(newer)))
    with pytest.raises(FormatTooNewError, match=r"format 9.*format 1"):
        store.current()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = LmdbStore(tmp_path / "file" / "online")
    with pytest.raises(StorageError, match="online"):
        written(store, "zone", {})


def test_a_failed_write_leaves_nothing(root: Path, store: LmdbStore) -> None:
    def batches():
        yield pa.array([b"a"], pa.large_binary()), pa.array([b"v"], pa.large_binary())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write_batches("zone", batches())
    assert list((root / "views").iterdir()) == []


def test_current_notices_every_flip(root: Path, store: LmdbStore) -> None:
    writer = LmdbStore(root)
    for number in range(20):
        publish(writer, f"G{number}")
        assert store.current_id() == f"G{number}"
    for number in range(18, -1, -1):
        writer.rollback()
        assert store.current_id() == f"G{number}"
    writer.close()


def test_what_a_live_store_has_written_is_not_collected(root: Path, store: LmdbStore) -> None:
    other = LmdbStore(root)
    unpublished = generation(other, {"zone": {b"k": b"1"}}, id_="A")
    orphan = root / "views" / "zone-KILLED.lmdb"
    orphan.write_bytes(b"half")
    (root / "generations" / "KILLED.json").write_bytes(b"{}")
    (root / ".tmp-1").write_bytes(b"{}")
    assert store.collect(1) == []
    assert [path.name for path in (root / "views").iterdir()] == [unpublished.views["zone"].file]
    assert list((root / "generations").iterdir()) == []
    assert not (root / ".tmp-1").exists()
    other.publish(unpublished, expected=None)
    abandoned = written(other, "zone", {b"k": b"2"})
    other.close()
    store.collect(1)
    assert not (root / "views" / abandoned.file).exists()
    assert value(store, unpublished) == b"1"


def test_a_reader_that_is_dropped_is_closed(store: LmdbStore) -> None:
    from featurestore.online import mapped

    (first,) = publish(store, "A")
    before = set(mapped._open)
    reader = store.open(first)
    assert reader.get("zone", b"k") == b"A"
    assert set(mapped._open) > before
    del reader
    assert set(mapped._open) == before


def test_without_its_c_extension_lmdb_is_not_silently_slow(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        __module__ = "lmdb.cffi"

    monkeypatch.setattr(lmdb, "Environment", Slow)
    with pytest.warns(RuntimeWarning, match="C extension"):
        LmdbStore(root)


# --- processes


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_reader_survives_a_fork(store: LmdbStore) -> None:
    first, second = publish(store, "A", "B")
    readers = {"A": store.open(first), "B": store.open(second)}
    store.collect(1)  # A's files have no name any more
    child = os.fork()
    if child == 0:
        try:
            same = all(reader.get("zone", b"k") == id_.encode() for id_, reader in readers.items())
            same = same and list(readers["B"].keys("zone")) == [b"k"] and value(store, second) == b"B"
            os._exit(0 if same else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for id_, reader in readers.items():
        assert reader.get("zone", b"k") == id_.encode()
        reader.close()


WRITER = """
import os, signal, sys
from featurestore.online.lmdb import LmdbStore
from featurestore.testing.online_store import generation

def stop(name):
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

store = LmdbStore(sys.argv[1], failpoint=stop)
rows = {n.to_bytes(4): b"new" for n in range(1, 1000)}
manifest = generation(store, {"zone": rows | {b"k": b"B"}}, id_="B")
store.publish(manifest, expected="A")
"""


@pytest.mark.parametrize(("point", "current"), [("written", None), ("manifest", None), ("flipped", "B")])
def test_the_first_writer_may_be_killed_anywhere(root: Path, store: LmdbStore, point: str, current: str | None) -> None:
    code = WRITER.replace('expected="A"', "expected=None")
    done = subprocess.run([sys.executable, "-c", code, root, point], check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.current_id() == current
    assert [manifest.id for manifest in store.generations()] == [current] * (current is not None)
    publish(store, "C")
    assert store.current_id() == "C"
    store.collect(1)
    assert store.check() == []
    assert {path.stem for path in (root / "generations").iterdir()} == {"C"}


@pytest.mark.parametrize(("point", "current"), [("written", "A"), ("manifest", "A"), ("flipped", "B")])
def test_a_writer_may_be_killed_anywhere(root: Path, store: LmdbStore, point: str, current: str) -> None:
    (first,) = publish(store, "A")
    reader = store.open(first)
    done = subprocess.run([sys.executable, "-c", WRITER, root, point], check=False)
    assert done.returncode == -signal.SIGKILL
    found = store.current()
    assert found is not None
    assert found.id == current
    assert value(store, found) == current.encode()
    assert [manifest.id for manifest in store.generations()] == (["A"] if current == "A" else ["B", "A"])
    assert reader.get("zone", b"k") == b"A"
    reader.close()
    store.collect(1)
    assert store.check() == []
    assert {path.name for path in (root / "views").iterdir()} == found.files
    assert {path.stem for path in (root / "generations").iterdir()} == {current}
    publish(store, "C")
    assert store.current_id() == "C"


LOOP = """
import sys
from featurestore.online.lmdb import LmdbStore
from featurestore.testing.online_store import generation
from lakehouse.errors import ConflictError

store, name = LmdbStore(sys.argv[1]), sys.argv[2]
published = 0
while published < 15:
    id_ = f"{name}{published}"
    current = store.current()
    manifest = generation(store, {view: {b"k": id_.encode()} for view in ("zone", "other")}, id_=id_,
                          snapshot=1 + (current.snapshot if current else 0))
    try:
        store.publish(manifest, expected=current.id if current else None)
    except ConflictError:
        continue
    published += 1
    store.collect(3)
"""


def test_writers_and_readers_of_many_processes(root: Path, store: LmdbStore) -> None:
    code = textwrap.dedent(LOOP)
    writers = [subprocess.Popen([sys.executable, "-c", code, root, name]) for name in ("P", "Q")]
    seen: list[int] = []
    done = threading.Event()
    try:
        while not done.is_set():
            if all(writer.poll() is not None for writer in writers):
                done.set()
            current = store.current()
            if current is None:
                continue
            try:
                reader = store.open(current)
            except ConflictError:
                continue
            answers = {reader.get(view, b"k") for view in ("zone", "other")}
            reader.close()
            assert answers == {current.id.encode()}
            seen.append(current.snapshot)
    finally:
        for writer in writers:
            writer.wait()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == sorted(seen)
    assert seen[-1] == 30
    assert store.check() == []
    assert len(store.generations()) == 3
