"""Lookups in plain views: in bulk they say what they say one by one, at every instant."""

from __future__ import annotations

import itertools
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.binding import BoundFeature, BoundView, Column
from featurestore.codec import RowCodec, pack_sections
from featurestore.plain_lookup import PlainLookup
from featurestore.request import Asked
from featurestore.statuses import EXPIRED, NOT_FOUND, PRESENT
from lakehouse.errors import CatalogDamagedError, RequestError

ZONED = "TIMESTAMP WITH TIME ZONE"
TYPES = ("BIGINT", "VARCHAR", "DECIMAL(10,2)", ZONED)
STAMPS = st.lists(st.integers(0, 20), max_size=4, unique=True).map(sorted)


def bound(ttl: int | None = None) -> BoundView:
    features = tuple(BoundFeature(name, type_) for name, type_ in zip("nvdt", TYPES, strict=True))
    return BoundView(
        name="facts",
        source="select 1",
        keys=(Column("zone", "BIGINT"),),
        event_timestamp="seen",
        created_timestamp=None,
        tie_breaker=(),
        features=features,
        inputs=(),
        ttl=ttl,
        delay=0,
        closed_left=False,
        online=True,
    )


def lookup(view: BoundView, *names: str) -> PlainLookup:
    features = tuple(view.feature(name) for name in names or view.feature_names)
    return PlainLookup(Asked(view, ("zone",), features, tuple(feature.name for feature in features)))


def packed(entities: list[list[int]]) -> list[bytes]:
    """Return values of entities with rows of these stamps; a row's event is a little earlier, its values tell it."""
    stamps = list(itertools.chain.from_iterable(entities))
    numbers = list(range(len(stamps)))
    columns = [
        pa.array([stamp - number % 3 for number, stamp in enumerate(stamps)], pa.int64()),
        pa.array([None if number % 5 == 4 else number for number in numbers], pa.int64()),
        pa.array([None if number % 7 == 6 else f"v{number}" * (number % 4) for number in numbers], pa.string()),
        pa.array([Decimal(number) for number in numbers], pa.decimal128(10, 2)),
        pa.array(numbers, pa.timestamp("us", "UTC")),
    ]
    rows = RowCodec(("BIGINT", *TYPES)).encode(columns)
    offsets = np.cumsum([0, *map(len, entities)])
    return pack_sections([(offsets, np.array(stamps, np.int64), rows)]).to_pylist()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.none() | STAMPS, max_size=6),
    st.integers(-1, 25),
    st.none() | st.integers(1, 5),
    st.permutations("nvdt"),
    st.integers(1, 4),
)
def test_bulk_is_the_same_as_one_by_one(
    entities: list[list[int] | None], instant: int, ttl: int | None, names: list[str], asked: int
):
    values = iter(packed([stamps for stamps in entities if stamps is not None]))
    found = [None if stamps is None else next(values) for stamps in entities]
    one = lookup(bound(ttl), *names[:asked])
    answers = [one.answer(each, instant) for each in found]
    arrays, codes = one.arrays(found, instant)
    assert [code for _, code in answers] == list(codes)
    assert [list(row) for row, _ in answers] == [
        list(row) for row in zip(*map(pa.Array.to_pylist, arrays), strict=True)
    ]
    assert {code for _, code in answers} <= {PRESENT, EXPIRED, NOT_FOUND}
    for stamps, (_, code) in zip(entities, answers, strict=True):
        assert (code == NOT_FOUND) == (not any(stamp <= instant for stamp in stamps or ()))


@pytest.mark.parametrize("instant", [2**63 - 1, 0, -(2**63)])
def test_extreme_instants_do_not_wrap(instant: int):
    one = lookup(bound(ttl=2**62))
    found = packed([[-(2**63) + 5], [2**63 - 1], [0]])
    answers = [one.answer(each, instant) for each in found]
    arrays, codes = one.arrays(found, instant)
    assert [code for _, code in answers] == list(codes)
    assert [row[0] for row, _ in answers] == arrays[0].to_pylist()


def test_a_time_that_python_has_not_is_given_as_arrow():
    codec = RowCodec(("BIGINT", *TYPES))
    far = 200_000 * 365 * 86_400_000_000
    columns = [pa.array([0]), pa.array([1]), pa.array(["a"]), pa.array([None], pa.decimal128(10, 2))]
    rows = codec.encode([*columns, pa.array([far], pa.timestamp("us", "UTC"))])
    found = pack_sections([(np.array([0, 1]), np.array([0]), rows)]).to_pylist()
    one = lookup(bound())
    with pytest.raises(RequestError, match="years 1 to 9999"):
        [one.answer(each, 1) for each in found]
    assert one.arrays(found, 1)[0][3].cast(pa.int64()).to_pylist() == [far]
    # Whoever doesn't ask for it isn't told either.
    assert [lookup(bound(), "v").answer(each, 1) for each in found] == [(("a",), PRESENT)]


@pytest.mark.parametrize("bulk", [False, True])
def test_damage_is_noticed(bulk: bool):
    (whole,) = packed([[1]])
    one = lookup(bound())
    for found in (whole[:-1], whole + b"\0", b"\2" + whole[1:], b""):
        with pytest.raises(CatalogDamagedError):
            one.arrays([found], 5) if bulk else one.answer(found, 5)
