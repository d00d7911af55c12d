"""Packed rows, keys and sections: exact both ways, bulk and single alike, and safe against foreign bytes."""

# ruff: noqa: DTZ001, DTZ901 - the type TIMESTAMP has no zone

from __future__ import annotations

import bisect
import datetime as dt
import decimal
import math
import struct
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from featurestore.codec import (
    KeyCodec,
    RowCodec,
    Sections,
    arrow_type,
    only_row,
    pack_sections,
    unpack_sections,
)
from lakehouse.delta import ColumnSchema, arrow_schema
from lakehouse.errors import CatalogDamagedError, RequestError

TSTZ = "TIMESTAMP WITH TIME ZONE"
Decimal = decimal.Decimal
EXACT = decimal.Context(prec=64)
UTC = dt.UTC


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    limit = 10**precision - 1
    edges = st.sampled_from([0, 1, -1, limit, -limit])
    return (edges | st.integers(-limit, limit)).map(lambda n: Decimal(n).scaleb(-scale, EXACT))


def integers(bits: int) -> st.SearchStrategy[int]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.sampled_from([low, high, 0, -1, 2**53 + 1 if bits == 64 else 1]) | st.integers(low, high)


TEXT = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["", "\0", "a\0", "a\0\0b", "\U0010ffff"])
BLOBS = st.binary(max_size=6) | st.sampled_from([b"", b"\0", b"\xff", b"\0\xff", b"\0\0"])
NAIVE = st.datetimes() | st.sampled_from([dt.datetime.min, dt.datetime.max, dt.datetime(1969, 12, 31, 23, 59, 59)])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BOOLEAN": st.booleans(),
    "TINYINT": integers(8),
    "SMALLINT": integers(16),
    "INTEGER": integers(32),
    "BIGINT": integers(64),
    "FLOAT": st.floats(width=32),
    "DOUBLE": st.floats(),
    "DECIMAL(1,0)": decimals(1, 0),
    "DECIMAL(9,2)": decimals(9, 2),
    "DECIMAL(18,18)": decimals(18, 18),
    "DECIMAL(19,3)": decimals(19, 3),
    "DECIMAL(38,6)": decimals(38, 6),
    "DECIMAL(38,38)": decimals(38, 38),
    "VARCHAR": TEXT,
    "BLOB": BLOBS,
    "DATE": st.dates() | st.sampled_from([dt.date.min, dt.date.max, dt.date(1969, 12, 31)]),
    "TIMESTAMP": NAIVE,
    TSTZ: NAIVE.map(lambda instant: instant.replace(tzinfo=UTC)),
}
KEYS = {type_: values for type_, values in VALUES.items() if type_ not in ("FLOAT", "DOUBLE")}


def same(left: Any, right: Any) -> bool:
    """Equal and of one type; −0.0 is not 0.0, NaN is NaN."""
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack("<d", left) == struct.pack("<d", right) or (math.isnan(left) and math.isnan(right))
    if isinstance(left, Decimal) and isinstance(right, Decimal):
        return left.as_tuple() == right.as_tuple()
    return type(left) is type(right) and left == right


@st.composite
def tables(
    draw: st.DrawFn, values: dict[str, st.SearchStrategy[Any]] = VALUES, most: int = 12
) -> tuple[list[str], list[tuple[Any, ...]]]:
    types = draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=most))
    row = st.tuples(*(st.none() | values[type_] for type_ in types))
    return types, draw(st.lists(row, max_size=5))


def columns(types: list[str], rows: list[tuple[Any, ...]]) -> list[pa.Array]:
    return [pa.array([row[place] for row in rows], arrow_type(type_)) for place, type_ in enumerate(types)]


# --- types


def test_types_are_those_of_the_lake() -> None:
    schema = arrow_schema(tuple(ColumnSchema(f"c{place}", type_) for place, type_ in enumerate(VALUES)))
    assert [field.type for field in schema] == [arrow_type(type_) for type_ in VALUES]


@pytest.mark.parametrize(
    "type_", ["HUGEINT", "INTEGER[]", "bigint", "DECIMAL(39,0)", "DECIMAL(3,4)", "DECIMAL(0,0)", ""]
)
def test_other_types_are_refused(type_: str) -> None:
    for make in (arrow_type, lambda type_: RowCodec([type_]), lambda type_: KeyCodec([type_])):
        with pytest.raises(RequestError, match="no type that features can have"):
            make(type_)


# --- rows


@settings(max_examples=200, deadline=None)
@given(tables())
@example((["DOUBLE"] * 70, [tuple([None] * 69 + [1.5]), (1.5,) * 70]))
@example((["VARCHAR"] * 9, [("a",) * 9, (None,) * 9]))
def test_rows_come_back_exactly(table: tuple[list[str], list[tuple[Any, ...]]]) -> None:
    types, rows = table
    codec = RowCodec(types)
    packed = codec.encode(columns(types, rows))
    assert packed.type == pa.large_binary()
    for value, row in zip(packed.to_pylist(), rows, strict=True):
        framed = b"before" + value + b"after"
        for decoded in (
            codec.decode(value),
            codec.decode(memoryview(framed), 6, 6 + len(value)),
            codec.decode(framed, 6, 6 + len(value)),
        ):
            assert all(map(same, decoded, row)), (decoded, row)
    for type_, array, expected in zip(types, codec.decode_many(packed), columns(types, rows), strict=True):
        array.validate(full=True)
        assert array.type == arrow_type(type_)
        assert all(map(same, array.to_pylist(), expected.to_pylist()))


@settings(max_examples=50, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_some_columns_of_a_row(table: tuple[list[str], list[tuple[Any, ...]]], chance: Any) -> None:
    types, rows = table
    codec = RowCodec(types)
    positions = chance.sample(range(len(types)), chance.randint(0, len(types)))
    decode = codec.decoder(positions)
    for value, row in zip(codec.encode(columns(types, rows)).to_pylist(), rows, strict=True):
        assert all(map(same, decode(value), [row[place] for place in positions]))
        assert len(decode(value)) == len(positions)


@settings(max_examples=50, deadline=None)
@given(tables(), st.integers(0, 5), st.integers(0, 5))
def test_slices_and_chunks_are_what_they_hold(table: Any, start: int, length: int) -> None:
    types, rows = table
    codec = RowCodec(types)
    whole = columns(types, rows)
    packed = codec.encode([array.slice(start, length) for array in whole])
    assert packed.to_pylist() == codec.encode(whole).slice(start, length).to_pylist()
    chunked = codec.encode([pa.chunked_array([array.slice(0, start), array.slice(start)]) for array in whole])
    assert chunked.to_pylist() == codec.encode(whole).to_pylist()
    for left, right in zip(codec.decode_many(codec.encode(whole).slice(start, length)), whole, strict=True):
        assert all(map(same, left.to_pylist(), right.slice(start, length).to_pylist()))


def test_equal_rows_are_equal_bytes() -> None:
    codec = RowCodec(["DOUBLE", "FLOAT", "BIGINT", "DECIMAL(38,0)"])
    quiet, signed = struct.pack("<Q", 0x7FF8000000000000), struct.pack("<Q", 0xFFF0000000000001)
    nans = pa.Array.from_buffers(pa.float64(), 2, [None, pa.py_buffer(quiet + signed)])
    floats = pa.Array.from_buffers(pa.float32(), 2, [None, pa.py_buffer(struct.pack("<II", 0x7FC00000, 0xFF800001))])
    # What stands under a null must not show.
    hidden = pa.Array.from_buffers(pa.int64(), 2, [pa.py_buffer(b"\x00"), pa.py_buffer(struct.pack("<qq", 1, 2))])
    wide = pa.Array.from_buffers(pa.decimal128(38, 0), 2, [pa.py_buffer(b"\x00"), pa.py_buffer(bytes(range(32)))])
    first, second = codec.encode([nans, floats, hidden, wide]).to_pylist()
    assert first == second


def test_times_beyond_python_are_named_but_kept_in_bulk() -> None:
    far = {"DATE": pa.date32(), "TIMESTAMP": pa.timestamp("us"), TSTZ: pa.timestamp("us", "UTC")}
    for type_, arrow in far.items():
        integer = pa.int32() if type_ == "DATE" else pa.int64()
        most = 2**31 - 1 if type_ == "DATE" else 2**63 - 1
        array = pa.array([most, -most, None], integer).cast(arrow)
        codec = RowCodec([type_])
        packed = codec.encode([array])
        assert codec.decode_many(packed)[0].cast(integer).equals(array.cast(integer))
        with pytest.raises(RequestError, match=f"{most}.*9999"):
            codec.decode(packed[0].as_py())
        assert codec.decode(packed[2].as_py()) == (None,)


def test_a_column_of_another_type_is_refused() -> None:
    with pytest.raises(RequestError, match=r"column 2 .* int32, not int64"):
        RowCodec(["BIGINT", "BIGINT"]).encode([pa.array([1]), pa.array([1], pa.int32())])
    for array in (
        pa.array(["a"]),
        pa.array(["a"], pa.large_string()),
        pa.array(["a"]).dictionary_encode(),
        pa.array(["a"], pa.string_view()),
    ):
        assert RowCodec(["VARCHAR"]).decode(RowCodec(["VARCHAR"]).encode([array])[0].as_py()) == ("a",)
    with pytest.raises(RequestError, match="binary, not string"):
        RowCodec(["VARCHAR"]).encode([pa.array([b"a"])])


# --- keys


@settings(max_examples=200, deadline=None)
@given(tables(KEYS, most=4))
def test_keys_are_the_same_in_bulk_and_singly(table: tuple[list[str], list[tuple[Any, ...]]]) -> None:
    types, rows = table
    codec = KeyCodec(types)
    keys = codec.encode(columns(types, rows)).to_pylist()
    for key, row in zip(keys, rows, strict=True):
        assert codec.encode_one(row) == key
        assert (key is None) == (None in row)
        if key is not None:
            assert len(key) <= 500
            assert all(map(same, codec.decode(key) or (), row))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_byte_order_is_value_order(data: st.DataObject) -> None:
    types = data.draw(st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=3))
    row = st.tuples(*(KEYS[type_] for type_ in types))
    left, right = data.draw(row), data.draw(row)
    codec = KeyCodec(types)
    order = [tuple(value.encode() if isinstance(value, str) else value for value in values) for values in (left, right)]
    keys = codec.encode_one(left), codec.encode_one(right)
    assert (keys[0] < keys[1]) == (order[0] < order[1])
    assert (keys[0] == keys[1]) == (order[0] == order[1])


def test_composite_keys_are_never_confused() -> None:
    codec = KeyCodec(["VARCHAR", "VARCHAR"])
    pairs = [
        ("a", "bc"),
        ("ab", "c"),
        ("abc", ""),
        ("", "abc"),
        ("a\0", "b"),
        ("a", "\0b"),
        ("a\0\0", ""),
        ("a", "\0\0"),
    ]
    assert len({codec.encode_one(pair) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize("length", [490, 496, 497, 498, 499, 5000])
def test_long_keys_are_hashed(length: int) -> None:
    codec = KeyCodec(["VARCHAR", "BOOLEAN"])
    rows: list[tuple[Any, ...]] = [("é" + "x" * (length - 2), True), ("short", False), (None, True)]
    keys = codec.encode(columns(list(codec.types), rows)).to_pylist()
    assert keys == [codec.encode_one(row) for row in rows]
    assert codec.decode(keys[0]) == (None if length > 496 else rows[0])
    assert len(keys[0]) == (33 if length > 496 else length + 4)


def test_no_columns_at_all() -> None:
    codec = KeyCodec([])
    assert codec.encode_one(()) == b"\0"
    assert codec.encode([], rows=2).to_pylist() == [b"\0", b"\0"]
    assert codec.decode(b"\0") == ()


WRONG: list[tuple[str, Any]] = [
    ("BIGINT", "1"), ("BIGINT", 1.5), ("BIGINT", float(2**53)), ("BIGINT", float("inf")), ("BIGINT", True), ("BIGINT", b"1"), ("INTEGER", dt.date(2020, 1, 1)),
    ("DECIMAL(9,2)", "1.00"), ("DECIMAL(9,2)", 1.5), ("DECIMAL(9,2)", False), ("BOOLEAN", 1), ("BOOLEAN", "true"), ("VARCHAR", 1), ("VARCHAR", b"a"),
    ("BLOB", "a"), ("DATE", "2020-01-01"), ("DATE", dt.datetime(2020, 1, 1)), ("TIMESTAMP", dt.date(2020, 1, 1)),
    ("TIMESTAMP", dt.datetime(2020, 1, 1, tzinfo=UTC)), (TSTZ, dt.datetime(2020, 1, 1)), (TSTZ, 0),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "value"), WRONG)
def test_a_value_of_another_type_is_an_error_that_names_both(type_: str, value: Any) -> None:
    with pytest.raises(RequestError) as raised:
        KeyCodec([type_]).encode_one((value,))
    assert type_ in str(raised.value)
    assert type(value).__name__ in str(raised.value)


NONE: list[tuple[str, Any]] = [
    ("TINYINT", 128), ("TINYINT", -129), ("BIGINT", 2**63), ("BIGINT", 10**400), ("BIGINT", Decimal("1.5")),
    ("BIGINT", Decimal("NaN")), ("BIGINT", Decimal("Infinity")), ("BIGINT", Decimal("1E+999999")), ("BIGINT", Decimal("1E-999999")),
    ("DECIMAL(3,1)", Decimal("0.25")), ("DECIMAL(3,1)", Decimal(100)), ("DECIMAL(3,1)", 100), ("DECIMAL(3,1)", -100),
    ("DECIMAL(38,2)", Decimal("1E+999999")), ("VARCHAR", "\ud800"), ("BIGINT", None),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "value"), NONE)
def test_values_that_no_row_can_have(type_: str, value: Any) -> None:
    assert KeyCodec([type_]).encode_one((value,)) is None
    assert KeyCodec(["VARCHAR", type_]).encode_one(("a", value)) is None


def test_equal_numbers_are_one_key() -> None:
    whole = KeyCodec(["INTEGER"])
    for value in (7, Decimal(7), Decimal("7.000"), Decimal("0.7E1"), np.int64(7), np.uint8(7)):
        assert whole.encode_one((value,)) == whole.encode_one((7,))
    exact = KeyCodec(["DECIMAL(9,2)"])
    for other in (Decimal("7.00"), Decimal(7), 7, np.int16(7), Decimal("7.0000000")):
        assert exact.encode_one((other,)) == exact.encode_one((Decimal("7.00"),))
    assert exact.encode_one((Decimal("-0.00"),)) == exact.encode_one((0,)) == exact.encode_one((Decimal("0E-999999"),))
    assert KeyCodec(["BOOLEAN"]).encode_one((np.bool_(True),)) == KeyCodec(["BOOLEAN"]).encode_one((True,))
    other_zone = dt.datetime(2020, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert KeyCodec([TSTZ]).encode_one((other_zone,)) == KeyCodec([TSTZ]).encode_one(
        (dt.datetime(2020, 1, 1, tzinfo=UTC),)
    )


@pytest.mark.parametrize("given_", [pa.int8(), pa.uint8(), pa.int16(), pa.uint32(), pa.int64(), pa.uint64()])
@pytest.mark.parametrize("type_", ["TINYINT", "INTEGER", "BIGINT"])
def test_integers_of_other_widths(given_: pa.DataType, type_: str) -> None:
    bits = given_.bit_width
    low, high = (0, 2**bits - 1) if str(given_).startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    values = [low, high, 1, None, 127]
    codec = KeyCodec([type_])
    assert codec.encode([pa.array(values, given_)]).to_pylist() == [codec.encode_one((value,)) for value in values]


def test_keys_are_refused_by_type_and_number() -> None:
    for type_ in ("FLOAT", "DOUBLE"):
        with pytest.raises(RequestError, match="identify nothing"):
            KeyCodec([type_])
    with pytest.raises(RequestError, match=r"BIGINT.* string, not int64"):
        KeyCodec(["BIGINT"]).encode([pa.array(["1"])])
    for types in (["BIGINT"], ["BIGINT", "VARCHAR"], []):
        with pytest.raises(RequestError, match="3 key values"):
            KeyCodec(types).encode_one((1, 2, 3))
        with pytest.raises(RequestError, match="3 key values"):
            KeyCodec(types).encode([pa.array([1])] * 3)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(sorted(KEYS)), max_size=3), st.binary(max_size=40))
def test_foreign_bytes_are_no_key(types: list[str], data: bytes) -> None:
    for key in (data, b"\0" + data):
        try:
            values = KeyCodec(types).decode(key)
        except (CatalogDamagedError, RequestError):
            continue
        assert values is None or len(values) == len(types)


# --- sections


@st.composite
def packed(draw: st.DrawFn) -> list[tuple[list[int], list[int], list[bytes]]]:
    entities = draw(st.integers(1, 4))
    sections = []
    for _ in range(draw(st.integers(1, 3))):
        counts = draw(st.lists(st.integers(0, 3), min_size=entities, max_size=entities))
        rows = sum(counts)
        stamps = draw(st.lists(integers(64), min_size=rows, max_size=rows))
        sections.append((counts, stamps, draw(st.lists(st.binary(max_size=5), min_size=rows, max_size=rows))))
    return sections


def arrays(sections: list[tuple[list[int], list[int], list[bytes]]]) -> list[Any]:
    return [
        (np.cumsum([0, *counts]), np.array(stamps, np.int64), pa.array(rows, pa.large_binary()))
        for counts, stamps, rows in sections
    ]


@settings(max_examples=150, deadline=None)
@given(packed())
def test_sections_come_back(sections: list[tuple[list[int], list[int], list[bytes]]]) -> None:
    values = pack_sections(arrays(sections))
    for entity, value in enumerate(values.to_pylist()):
        opened = Sections(value)
        assert len(opened) == len(sections)
        for number, (counts, stamps, rows) in enumerate(sections):
            start, stop = sum(counts[:entity]), sum(counts[: entity + 1])
            assert opened.count(number) == stop - start
            assert list(opened.stamps(number)) == stamps[start:stop]
            found = [opened.row(number, place) for place in range(opened.count(number))]
            assert [value[left:right] for left, right in found] == rows[start:stop]
            for place in (-1, opened.count(number)):
                with pytest.raises(IndexError):
                    opened.row(number, place)
        short = only_row(value)
        if len(sections) == 1 and opened.count(0) == 1:
            assert short == (opened.stamps(0)[0], *opened.row(0, 0))
        else:
            assert short is None
    for found, (offsets, stamps, rows) in zip(unpack_sections(values), arrays(sections), strict=True):
        assert found.offsets.tolist() == offsets.tolist()
        assert found.stamps.tolist() == stamps.tolist()
        assert found.rows.to_pylist() == rows.to_pylist()
    for found, (counts, _, rows) in zip(unpack_sections(values.slice(1)), sections, strict=False):
        assert found.rows.to_pylist() == rows[counts[0] :]


def test_stamps_can_be_searched() -> None:
    (value,) = pack_sections([(np.array([0, 3]), np.array([-5, 0, 5]), pa.array([b"a", b"b", b""]))]).to_pylist()
    for buffer in (value, memoryview(value)):
        assert bisect.bisect_right(Sections(buffer).stamps(0), 1) == 2
        assert Sections(buffer).stamps(0).format == "q"


def test_no_entities_at_all() -> None:
    empty = (np.array([0]), np.array([], np.int64), pa.array([], pa.large_binary()))
    values = pack_sections([empty, empty])
    assert len(values) == 0
    assert unpack_sections(values) == []


@pytest.mark.parametrize(
    ("offsets", "stamps", "rows"),
    [([0, 2], [1], [b""]), ([1, 1], [1], [b""]), ([0, 1], [1], []), ([0, 1], [1], [None]), ([0, 2, 1], [1], [b""])],
)
def test_sections_that_do_not_fit_are_refused(offsets: Any, stamps: Any, rows: Any) -> None:
    with pytest.raises(RequestError):
        pack_sections([(np.array(offsets), np.array(stamps), pa.array(rows, pa.large_binary()))])


def test_sections_are_of_the_same_entities() -> None:
    one = (np.array([0, 1]), np.array([1]), pa.array([b""], pa.large_binary()))
    two = (np.array([0, 1, 1]), np.array([1]), pa.array([b""], pa.large_binary()))
    with pytest.raises(RequestError, match="same entities"):
        pack_sections([one, two])
    for number in (0, 256):
        with pytest.raises(RequestError, match="1 to 255"):
            pack_sections([one] * number)


# --- foreign bytes


TYPES = ["BIGINT", "VARCHAR", "DECIMAL(38,6)", "BLOB", "BOOLEAN", TSTZ]
CODEC = RowCodec(TYPES)
WHOLE = CODEC.encode(columns(TYPES, [(1, "text", Decimal("1.5"), b"blob", True, dt.datetime(2020, 1, 1, tzinfo=UTC)), (None,) * 6])).to_pylist()  # fmt: skip
VALUE: bytes = pack_sections(
    [
        (np.array([0, 2]), np.array([1, 2]), pa.array(WHOLE, pa.large_binary())),
        (np.array([0, 1]), np.array([3]), pa.array([WHOLE[0]], pa.large_binary())),
    ]
)[0].as_py()
SHORT: bytes = pack_sections([(np.array([0, 1]), np.array([3]), pa.array([WHOLE[0]], pa.large_binary()))])[0].as_py()


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    kind = data.draw(st.sampled_from(["random", "flip", "cut", "grow", "number"]))
    if kind == "random":
        return data.draw(st.binary(max_size=60))
    place = data.draw(st.integers(0, len(whole) - 1))
    if kind == "cut":
        return whole[:place]
    if kind == "grow":
        return whole + data.draw(st.binary(min_size=1, max_size=9))
    if kind == "number":
        return (
            whole[:place]
            + data.draw(st.sampled_from([b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0" * 4]))
            + whole[place + 4 :]
        )
    flipped = bytearray(whole)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(flipped)


def attempt(ask: Callable[[], Any]) -> Any:
    """Return an answer or the error: anything but an error of ours is a bug."""
    try:
        return ask()
    except (CatalogDamagedError, RequestError) as error:
        return error


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_foreign_bytes_are_no_row(data: st.DataObject) -> None:
    value = damaged(data, data.draw(st.sampled_from(WHOLE)))
    singly = attempt(lambda: CODEC.decode(value))
    bulk = attempt(lambda: CODEC.decode_many(pa.array([value], pa.large_binary())))
    # Both find the same damage (Python has fewer times than Arrow).
    assert isinstance(singly, CatalogDamagedError) == isinstance(bulk, CatalogDamagedError)
    if isinstance(bulk, list):
        for array in bulk:
            if not pa.types.is_decimal(array.type):
                array.validate(full=True)
    fixed = RowCodec(["BIGINT", "BOOLEAN", "DOUBLE"])
    attempt(lambda: fixed.decode(value))
    attempt(lambda: fixed.decode_many(pa.array([value], pa.large_binary())))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_foreign_bytes_are_no_sections(data: st.DataObject) -> None:
    value = damaged(data, data.draw(st.sampled_from([VALUE, SHORT])))
    short = attempt(lambda: only_row(value))
    if isinstance(short, tuple):
        assert 0 <= short[1] <= short[2] == len(value)
    opened = attempt(lambda: Sections(value))
    rows: list[bytes] | None = []
    if isinstance(opened, Sections):
        for section in range(len(opened)):
            assert len(opened.stamps(section)) == opened.count(section)
            for number in range(opened.count(section)):
                bounds = attempt(lambda section=section, number=number: opened.row(section, number))
                if isinstance(bounds, tuple):
                    assert 0 <= bounds[0] <= bounds[1] <= len(value)
                    attempt(lambda bounds=bounds: CODEC.decode(value, *bounds))
                    if rows is not None:
                        rows.append(value[slice(*bounds)])
                else:
                    rows = None
    else:
        rows = None
    bulk = attempt(lambda: unpack_sections(pa.array([value], pa.large_binary())))
    if isinstance(bulk, list):
        assert rows == [row for section in bulk for row in section.rows.to_pylist()]
    else:
        assert rows is None


def test_no_value_asks_for_more_memory_than_it_has() -> None:
    huge = b"\x01\x01" + b"\xff" * 4 + b"\0" * 12
    for ask in (lambda: Sections(huge), lambda: unpack_sections(pa.array([huge], pa.large_binary()))):
        with pytest.raises(CatalogDamagedError):
            ask()


def test_values_of_another_format_are_refused() -> None:
    for value in (b"", b"\x02\x00", b"\x00", b"\x01"):
        with pytest.raises(CatalogDamagedError):
            Sections(value)
        with pytest.raises(CatalogDamagedError):
            unpack_sections(pa.array([value], pa.large_binary()))


def test_the_bytes_are_those_of_format_1() -> None:
    """Written down, so that a change of them is seen: files live longer than code."""
    assert RowCodec(["INTEGER", "VARCHAR", "BOOLEAN"]).encode(
        [pa.array([1, None], pa.int32()), pa.array(["hé", None]), pa.array([True, None])]
    ).to_pylist() == [bytes.fromhex("00 01000000 03000000 01 68c3a9"), bytes.fromhex("07 00000000 00000000 00")]
    assert KeyCodec(["INTEGER", "VARCHAR", "DECIMAL(38,0)"]).encode_one((-1, "a\0", 1)) == bytes.fromhex(
        "00 7fffffff 6100ff0000 80000000000000000000000000000001"
    )
    assert pack_sections([(np.array([0, 1]), np.array([-2]), pa.array([b"row"]))]).to_pylist() == [
        bytes.fromhex("01 01 01000000 feffffffffffffff 03000000 726f77")
    ]


@pytest.mark.parametrize("type_", ["INTEGER", "BIGINT", "DECIMAL(9,2)"])
def test_whole_floating_point_numbers_are_the_integers_that_pandas_made_them_of(type_: str):
    codec = KeyCodec([type_])
    assert codec.encode_one([132.0]) == codec.encode_one([132])
    assert codec.encode_one([-0.0]) == codec.encode_one([0])
    assert codec.encode_one([float("nan")]) is None
