"""Manifests: sealed, whole or refused."""

from __future__ import annotations

import dataclasses
import hashlib

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from featurestore.binding import BoundFeature, BoundView, Column, Windowed
from featurestore.generations import FORMAT, Manifest, ViewFile, check_succession, published_after
from lakehouse.errors import CatalogDamagedError, FormatTooNewError, RequestError
from lakehouse.sealing import with_seal

VIEW = BoundView(
    name="zone",
    source="select * from warehouse.trips",
    keys=(Column("zone", "INTEGER"), Column("name", "VARCHAR")),
    event_timestamp="dropoff_at",
    created_timestamp="loaded_at",
    tie_breaker=(Column("id", "BIGINT"),),
    features=(
        BoundFeature("trips_1h", "BIGINT", Windowed("count", None, 3_600_000_000, 300_000_000)),
        BoundFeature("last", "DECIMAL(38,6)"),
    ),
    inputs=(Column("fare", "DECIMAL(9,2)"),),
    ttl=2**62,
    delay=5,
    closed_left=True,
    online=True,
)
MANIFEST = Manifest.sealed(
    id="01J00000000000000000000000",
    lake="01J00000000000000000000001",
    snapshot=12,
    at=-(2**63),
    built_at="2026-11-23T15:04:05.123456Z",
    views={
        "zone": ViewFile(VIEW, "zone-01J.lmdb", 4096, "ab" * 32, 17, 3, {"warehouse.trips": "x/y"}),
        "wide": ViewFile(dataclasses.replace(VIEW, name="wide", keys=(), ttl=None), "wide-01J.lmdb", 1, "", 0),
    },
    definitions="cd" * 32,
    execution="01J00000000000000000000002",
)
DATA = MANIFEST.to_bytes()


def read(data: bytes) -> Manifest:
    return Manifest.from_bytes(data, MANIFEST.id, "generations/x.json")


def test_a_manifest_comes_back() -> None:
    again = read(DATA)
    assert again == MANIFEST
    assert again.views["zone"].view == VIEW
    assert again.views["zone"].view.is_aggregate
    assert again.files == {"zone-01J.lmdb", "wide-01J.lmdb"}


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DATA) * 8 - 1))
def test_a_flipped_bit_is_found(bit: int) -> None:
    data = bytearray(DATA)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises((CatalogDamagedError, FormatTooNewError)):
        read(bytes(data))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(DATA) - 1))
def test_a_cut_is_found(length: int) -> None:
    with pytest.raises(CatalogDamagedError, match="generations/x") as raised:
        read(DATA[:length])
    assert "penstock materialize --full" in str(raised.value)


@pytest.mark.parametrize("data", [b"null", b"[]", b"{}", b'{"min_reader": "x"}', b"[" * 100_000, b"\xff", b"1e999"])
def test_other_content_is_found(data: bytes) -> None:
    with pytest.raises(CatalogDamagedError):
        read(data)


def test_another_generation_is_found() -> None:
    with pytest.raises(CatalogDamagedError):
        Manifest.from_bytes(DATA, "01J00000000000000000000009", "x")


def test_a_newer_format_is_refused_by_number() -> None:
    newer = msgspec.json.encode({"min_reader": FORMAT + 1, "something": "else"})
    with pytest.raises(FormatTooNewError, match=f"format {FORMAT + 1}.*format {FORMAT}"):
        read(newer)


def test_a_newer_writer_may_add_fields() -> None:
    fields = msgspec.json.decode(DATA) | {"format": FORMAT + 1, "new": {"a": [1]}}
    del fields["sha256"]
    digest = hashlib.sha256(msgspec.json.encode(fields, order="deterministic")).hexdigest()
    manifest = read(msgspec.json.encode(fields | {"sha256": digest}))
    assert manifest.format == FORMAT + 1
    assert manifest.views == MANIFEST.views


@pytest.mark.parametrize("name", ["../zone", "", ".tmp", "a/b", "a\n", "a\0"])
def test_names_stay_in_their_directory(name: str) -> None:
    file = msgspec.structs.replace(MANIFEST.views["zone"], file=name)
    fields = {"lake": "l", "snapshot": 1, "at": 0, "built_at": ""}
    with pytest.raises(RequestError):
        Manifest.sealed(id="A", views={"zone": file}, **fields)
    with pytest.raises(RequestError):
        Manifest.sealed(id=name, views={}, **fields)
    forged = msgspec.structs.replace(MANIFEST, views={"zone": file})
    with pytest.raises(CatalogDamagedError):
        read(with_seal(forged).to_bytes())


def test_a_generation_follows_its_own_lake_and_no_newer_snapshot() -> None:
    check_succession(None, MANIFEST)
    check_succession(MANIFEST, MANIFEST)
    with pytest.raises(RequestError, match=r"snapshot 13.*snapshot 12"):
        check_succession(msgspec.structs.replace(MANIFEST, snapshot=13), MANIFEST)
    with pytest.raises(RequestError, match="lake"):
        check_succession(msgspec.structs.replace(MANIFEST, lake="other"), MANIFEST)


def test_what_was_rolled_back_is_no_longer_the_step_before() -> None:
    assert published_after((), None, "A") == ("A",)
    assert published_after(("A", "B", "C"), "C", "D") == ("A", "B", "C", "D")
    assert published_after(("A", "B", "C"), "A", "D") == ("B", "C", "A", "D")
