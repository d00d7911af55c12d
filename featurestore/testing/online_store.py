"""What every online store must do: subclass `OnlineStoreContract`, give it a store, and let pytest collect it."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from featurestore.binding import BoundFeature, BoundView, Column
from featurestore.generations import Manifest, ViewFile
from featurestore.online import OnlineStore, Written
from lakehouse.errors import CatalogDamagedError, ConflictError, RequestError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["OnlineStoreContract", "generation", "written"]


def written(store: OnlineStore, name: str, content: Mapping[bytes, bytes]) -> Written:
    """Write a file of a store."""
    return store.write(name, _binary(list(content)), _binary(list(content.values())))


def generation(
    store: OnlineStore,
    content: Mapping[str, Mapping[bytes, bytes]],
    *,
    id_: str,
    snapshot: int = 1,
    lake: str = "lake",
    reused: Mapping[str, ViewFile] | None = None,
) -> Manifest:
    """Write files, and return a manifest of them that is not published yet.

    Parameters
    ----------
    content
        Per view its keys and values.
    reused
        Views whose files are taken from an earlier generation.
    """
    views = dict(reused or {})
    for name, rows in content.items():
        file, size, sha256 = written(store, name, rows)
        views[name] = ViewFile(_bound(name), file, size, sha256, len(rows))
    return Manifest.sealed(
        id=id_, lake=lake, snapshot=snapshot, at=0, built_at="2026-01-01T00:00:00.000000Z", views=views
    )


class OnlineStoreContract:
    """The rules of `featurestore.online.OnlineStore`. Override `store` to return a new, empty store."""

    @pytest.fixture
    def store(self) -> OnlineStore | Iterator[OnlineStore]:
        """Return (or yield) a new, empty store."""
        raise NotImplementedError

    def test_an_empty_store_has_nothing(self, store: OnlineStore) -> None:
        """No current generation is an answer, not an error."""
        assert store.current() is None
        assert store.current_id() is None
        assert store.generations() == []
        assert store.collect(1) == []
        assert store.check() == []
        with pytest.raises(RequestError, match="no online generation"):
            store.rollback()

    def test_what_is_published_is_read(self, store: OnlineStore) -> None:
        """All keys come back with their values, and no others."""
        content = {b"\x00b": b"two", b"\x00a": b"one", b"\x00": b"", b"\x01" + b"x" * 499: b"v" * 100_000}
        first = generation(store, {"left": content, "right": {b"\x00a": b"other"}}, id_="A")
        assert store.current() is None
        store.publish(first, expected=None)
        assert store.current() == first
        assert store.current_id() == "A"
        reader = store.open(first)
        assert {key: bytes(reader.get("left", key) or b"") for key in content} == content
        assert reader.get("right", b"\x00a") == b"other"
        assert reader.get("right", b"\x00b") is None
        assert reader.get("right", b"") is None
        assert reader.get("right", b"x" * 1000) is None
        keys = [b"\x00b", None, b"\x00zz", b"\x00a", b"\x00a", b"", b"x" * 1000]
        assert reader.get_many("left", keys) == [b"two", None, None, b"one", b"one", None, None]
        assert list(reader.keys("left")) == sorted(content)
        assert reader.manifest == first
        reader.close()
        reader.close()

    def test_unknown_views_are_named(self, store: OnlineStore) -> None:
        """A view that is not there is an error that lists what is near."""
        store.publish(generation(store, {"zone": {b"\x00": b"v"}, "driver": {}}, id_="A"), expected=None)
        current = store.current()
        assert current is not None
        reader = store.open(current, ["zone"])
        for view in ("zones", "driver"):
            with pytest.raises(RequestError, match=view):
                reader.get(view, b"\x00")
            with pytest.raises(RequestError, match=view):
                reader.get_many(view, [b"\x00"])
        with pytest.raises(RequestError) as raised:
            store.open(current, ["zones"])
        assert "Did you mean zone?" in str(raised.value)
        assert reader.get("zone", b"\x00") == b"v"
        reader.close()
        with pytest.raises(RequestError, match="closed"):
            reader.get("zone", b"\x00")

    def test_an_empty_view_is_a_view(self, store: OnlineStore) -> None:
        """No entities: nothing is found, nothing fails."""
        first = generation(store, {"zone": {}}, id_="A")
        store.publish(first, expected=None)
        reader = store.open(first)
        assert reader.get("zone", b"\x00") is None
        assert list(reader.keys("zone")) == []
        reader.close()

    @pytest.mark.parametrize("batches", [[[b"b", b"a"], [b"d", b"c"]], [[b"c", b"d"], [b"a", b"b"]], [[], [b"a"]]])
    def test_batches_come_in_any_order(self, store: OnlineStore, batches: list[list[bytes]]) -> None:
        """Sorting is the store's business."""
        keys = [key for batch in batches for key in batch]
        file = store.write_batches("zone", ((_binary(batch), _binary(batch)) for batch in batches))
        first = Manifest.sealed(
            id="A", lake="l", snapshot=1, at=0, built_at="", views={"zone": ViewFile(_bound("zone"), *file, len(keys))}
        )
        store.publish(first, expected=None)
        reader = store.open(first)
        assert list(reader.keys("zone")) == sorted(keys)
        assert reader.get_many("zone", keys) == keys
        reader.close()

    @pytest.mark.parametrize(
        "batches", [[[b"a", b"b", b"a"]], [[b"a", b"b"], [b"b", b"c"]], [[b"b", b"c"], [b"a", b"c"]]]
    )
    def test_a_key_appears_once(self, store: OnlineStore, batches: list[list[bytes]]) -> None:
        """In one batch or in two."""
        with pytest.raises(RequestError, match="twice"):
            store.write_batches("zone", ((_binary(batch), _binary(batch)) for batch in batches))

    @pytest.mark.parametrize("keys", [[b""], [b"x" * 600], [None]])
    def test_keys_that_cannot_be_are_refused(self, store: OnlineStore, keys: list[bytes | None]) -> None:
        """Empty, too long, null."""
        with pytest.raises(RequestError):
            store.write("zone", _binary(keys), _binary([b"v"]))

    def test_keys_and_values_belong_together(self, store: OnlineStore) -> None:
        """One value per key."""
        with pytest.raises(RequestError, match="2 keys stand beside 1 values"):
            store.write("zone", _binary([b"a", b"b"]), _binary([b"v"]))

    def test_an_open_reader_stays_where_it_is(self, store: OnlineStore) -> None:
        """Neither a flip, nor a rollback, nor deletion touches what a reader has open."""
        first = generation(store, {"zone": {b"k": b"1"}}, id_="A")
        store.publish(first, expected=None)
        reader = store.open(first)
        second = generation(store, {"zone": {b"k": b"2"}}, id_="B", snapshot=2)
        store.publish(second, expected="A")
        assert store.collect(1) == ["A"]
        assert reader.get("zone", b"k") == b"1"
        with closing(store.open(second)) as other:
            assert other.get("zone", b"k") == b"2"
        assert list(reader.keys("zone")) == [b"k"]
        reader.close()
        with pytest.raises((ConflictError, CatalogDamagedError)):
            store.open(first)

    def test_two_readers_of_one_generation(self, store: OnlineStore) -> None:
        """Closing one leaves the other open; unchanged views share their file."""
        first = generation(store, {"zone": {b"k": b"1"}, "fixed": {b"k": b"f"}}, id_="A")
        store.publish(first, expected=None)
        second = generation(store, {"zone": {b"k": b"2"}}, id_="B", snapshot=2, reused={"fixed": first.views["fixed"]})
        store.publish(second, expected="A")
        readers = [store.open(first), store.open(second), store.open(second)]
        readers.pop(1).close()
        assert [reader.get("fixed", b"k") for reader in readers] == [b"f", b"f"]
        assert [reader.get("zone", b"k") for reader in readers] == [b"1", b"2"]
        for reader in readers:
            reader.close()
        assert store.collect(1) == ["A"]
        with closing(store.open(second)) as reader:
            assert reader.get("fixed", b"k") == b"f"

    def test_publishing_compares_and_swaps(self, store: OnlineStore) -> None:
        """Whoever did not see the current generation does not replace it."""
        first = generation(store, {"zone": {b"k": b"1"}}, id_="A")
        store.publish(first, expected=None)
        second = generation(store, {"zone": {b"k": b"2"}}, id_="B")
        for expected in (None, "C"):
            with pytest.raises(ConflictError, match="A"):
                store.publish(second, expected=expected)
            with pytest.raises(ConflictError):
                store.publish(second, expected=expected, force=True)
        assert store.current() == first
        store.publish(second, expected="A")
        with pytest.raises(RequestError, match="before"):
            store.publish(first, expected="B")
        assert [manifest.id for manifest in store.generations()] == ["B", "A"]

    def test_of_many_writers_one_wins(self, store: OnlineStore) -> None:
        """All at once, all from the same state."""
        manifests = [generation(store, {"zone": {b"k": bytes([n])}}, id_=f"G{n}") for n in range(4)]
        barrier = threading.Barrier(len(manifests))
        failures: list[ConflictError] = []

        def publish(manifest: Manifest) -> None:
            barrier.wait()
            try:
                store.publish(manifest, expected=None)
            except ConflictError as error:
                failures.append(error)

        threads = [threading.Thread(target=publish, args=(manifest,)) for manifest in manifests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failures) == len(manifests) - 1
        assert len(store.generations()) == 1

    def test_an_older_snapshot_does_not_follow(self, store: OnlineStore) -> None:
        """Unless it is forced; nor another lake's."""
        store.publish(generation(store, {"zone": {}}, id_="A", snapshot=7), expected=None)
        older = generation(store, {"zone": {}}, id_="B", snapshot=6)
        with pytest.raises(RequestError, match=r"snapshot 7.*snapshot 6"):
            store.publish(older, expected="A")
        other = generation(store, {"zone": {}}, id_="C", snapshot=9, lake="other")
        with pytest.raises(RequestError, match="other"):
            store.publish(other, expected="A")
        store.publish(generation(store, {"zone": {}}, id_="D", snapshot=7), expected="A")
        store.publish(older, expected="D", force=True)
        store.publish(other, expected="B", force=True)
        assert [manifest.id for manifest in store.generations()] == ["C", "B", "D", "A"]

    def test_a_manifest_without_its_file_is_refused(self, store: OnlineStore) -> None:
        """What is published can be read."""
        first = generation(store, {"zone": {b"k": b"1"}}, id_="A")
        lost = ViewFile(_bound("zone"), "zone-LOST", 1, "", 0)
        with pytest.raises(CatalogDamagedError, match="missing"):
            store.publish(
                Manifest.sealed(id="B", lake="lake", snapshot=1, at=0, built_at="", views={"zone": lost}), expected=None
            )
        with pytest.raises(CatalogDamagedError, match="missing"):
            store.check_file(lost)
        assert store.current() is None
        store.publish(first, expected=None)
        store.check_file(first.views["zone"])

    def test_rolling_back(self, store: OnlineStore) -> None:
        """Step by step, by name, and forward again; what is published next follows what was current."""
        manifests = {}
        for number, id_ in enumerate("ABC"):
            manifests[id_] = generation(store, {"zone": {b"k": id_.encode()}}, id_=id_, snapshot=number)
            store.publish(manifests[id_], expected=store.current_id())
        assert store.rollback().id == "B"
        assert store.current() == manifests["B"]
        assert store.rollback() == manifests["A"]
        with pytest.raises(RequestError, match="before A") as raised:
            store.rollback()
        assert "penstock online rollback ID, where ID is one of C, B." in str(raised.value)
        with pytest.raises(RequestError, match="no generation X"):
            store.rollback("X")
        assert store.rollback("C").id == "C"
        assert store.rollback("A").id == "A"
        store.publish(generation(store, {"zone": {}}, id_="D", snapshot=9), expected="A")
        assert [manifest.id for manifest in store.generations()] == ["D", "A", "C", "B"]
        assert store.rollback().id == "A"
        with closing(store.open(manifests["A"])) as reader:
            assert reader.get("zone", b"k") == b"A"

    def test_there_is_no_way_back_from_the_only_one(self, store: OnlineStore) -> None:
        """And that is said."""
        store.publish(generation(store, {"zone": {}}, id_="A"), expected=None)
        with pytest.raises(RequestError, match="before A\n  It is the only one: penstock materialize"):
            store.rollback()

    def test_collecting_keeps_the_newest_and_the_current(self, store: OnlineStore) -> None:
        """And what is written but not published yet."""
        for id_ in "ABCD":
            store.publish(generation(store, {"zone": {b"k": id_.encode()}}, id_=id_), expected=store.current_id())
        store.rollback("A")
        unpublished = generation(store, {"zone": {b"k": b"E"}}, id_="E")
        with pytest.raises(RequestError, match="at least 1"):
            store.collect(0)
        assert store.collect(2) == ["B"]
        assert store.collect(2) == []
        assert [manifest.id for manifest in store.generations()] == ["D", "C", "A"]
        store.publish(unpublished, expected="A")
        assert store.collect(1) == ["C", "D", "A"]
        assert store.check() == []
        with pytest.raises(RequestError, match="no generation A"):
            store.rollback("A")
        with closing(store.open(unpublished)) as reader:
            assert reader.get("zone", b"k") == b"E"

    def test_threads_share_a_reader(self, store: OnlineStore) -> None:
        """Lookups at the same time."""
        content = {number.to_bytes(4): number.to_bytes(4) * 9 for number in range(1, 2000)}
        first = generation(store, {"zone": content}, id_="A")
        store.publish(first, expected=None)
        reader = store.open(first)
        wrong: list[bytes] = []

        def look() -> None:
            wrong.extend(key for key, value in content.items() if reader.get("zone", key) != value)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        reader.close()


def _binary(values: list[bytes | None] | list[bytes]) -> pa.LargeBinaryArray:
    import pyarrow as pa

    return pa.array(values, pa.large_binary())


def _bound(name: str) -> BoundView:
    return BoundView(
        name=name,
        source="select 1",
        keys=(Column("k", "BIGINT"),),
        event_timestamp="ts",
        created_timestamp=None,
        tie_breaker=(),
        features=(BoundFeature("f", "BIGINT"),),
        inputs=(Column("f", "BIGINT"),),
        ttl=None,
        delay=0,
        closed_left=False,
        online=True,
    )
