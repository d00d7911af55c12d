"""The hash of a table's content: the same for every layout, another for every other content."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import struct
from decimal import Decimal

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings

from featurestore.content_hash import ContentHash, content_sha256
from lakehouse.errors import RequestError

# -- the documented format, one value at a time --------------------------------------------------------------------


def h(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def u64(number):
    return number.to_bytes(8, "little")


def text(value):
    return u64(len(value.encode())) + value.encode()


def reference(table):
    columns = b"".join(
        text(field.name) + node(field.type, column.to_pylist())
        for field, column in zip(table.schema, table.columns, strict=True)
    )
    return h(b"penstock.content 1\n", u64(table.num_rows), u64(table.num_columns), columns).hex()


def node(kind, values):
    nulls = [place for place, value in enumerate(values) if value is None]
    spelled, payload = described(kind, [value for value in values if value is not None])
    return h(b"node\0", text(spelled), u64(len(values)), u64(len(nulls)), h(*map(u64, nulls)), payload)


def described(kind, values):  # noqa: C901, PLR0911, PLR0912 - one line per type
    if isinstance(kind, pa.DictionaryType):
        return described(kind.value_type, values)
    if kind in (pa.string(), pa.large_string(), pa.string_view()):
        return "utf8", h(*(u64(len(v.encode())) for v in values)) + h(*(v.encode() for v in values))
    if kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        return "binary", h(*(u64(len(v)) for v in values)) + h(*values)
    if pa.types.is_boolean(kind):
        return "bool", h(*(bytes([v]) for v in values))
    if pa.types.is_null(kind):
        return "null", b""
    if pa.types.is_floating(kind):
        size = kind.bit_width // 8
        nan = {2: b"\0\x7e", 4: b"\0\0\xc0\x7f", 8: b"\0\0\0\0\0\0\xf8\x7f"}[size]
        code = {2: "<e", 4: "<f", 8: "<d"}[size]
        return f"float{size * 8}", h(*(nan if math.isnan(v) else struct.pack(code, v) for v in values))
    if pa.types.is_integer(kind):
        return str(kind), h(*(v.to_bytes(kind.bit_width // 8, "little", signed=str(kind)[0] == "i") for v in values))
    if pa.types.is_decimal(kind):
        unscaled = (int(v.scaleb(kind.scale)) for v in values)
        size = 16 if kind.precision <= 38 else 32
        return f"decimal({kind.precision},{kind.scale})", h(
            *(v.to_bytes(size, "little", signed=True) for v in unscaled)
        )
    if pa.types.is_date32(kind):
        return "date32", h(*((v - dt.date(1970, 1, 1)).days.to_bytes(4, "little", signed=True) for v in values))
    if pa.types.is_timestamp(kind):
        epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC if kind.tz else None)
        micros = ((v - epoch) // dt.timedelta(microseconds=1) for v in values)
        spelled = f"timestamp[{kind.unit}{f', {kind.tz}' if kind.tz else ''}]"
        return spelled, h(*(v.to_bytes(8, "little", signed=True) for v in micros))
    if pa.types.is_map(kind):
        keys, items = [k for v in values for k, _ in v], [i for v in values for _, i in v]
        return "map", h(*(u64(len(v)) for v in values)) + node(kind.key_type, keys) + node(kind.item_type, items)
    if pa.types.is_fixed_size_list(kind):
        return f"fixed_size_list[{kind.list_size}]", node(kind.value_type, [i for v in values for i in v])
    if pa.types.is_struct(kind):
        fields = (text(field.name) + node(field.type, [v[field.name] for v in values]) for field in kind)
        return "struct", u64(kind.num_fields) + b"".join(fields)
    return "list", h(*(u64(len(v)) for v in values)) + node(kind.value_type, [i for v in values for i in v])


# -- generated columns ---------------------------------------------------------------------------------------------

FLOATS = st.sampled_from([0.0, -0.0, 1.5, -2.0, math.nan, math.inf, -math.inf])
TEXTS = st.sampled_from(["", "a", "b", "ab", "ß", "a longer text than a view holds inline"])
LEAVES = {
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-128, 127),
    pa.uint16(): st.integers(0, 2**16 - 1),
    pa.int64(): st.sampled_from([0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)]),
    pa.uint64(): st.sampled_from([0, 2**64 - 1]),
    pa.float16(): FLOATS,
    pa.float32(): FLOATS,
    pa.float64(): FLOATS,
    pa.decimal128(10, 2): st.sampled_from([Decimal("0.00"), Decimal("-1.25"), Decimal("12345678.90")]),
    pa.decimal256(40, 1): st.sampled_from([Decimal("0.0"), Decimal("-0.1")]),
    pa.string(): TEXTS,
    pa.binary(): TEXTS.map(str.encode),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
    pa.timestamp("us", "UTC"): st.datetimes(timezones=st.just(dt.UTC)),
    pa.null(): st.none(),
}


def nest(children):
    """Types and values one level deeper."""

    def deeper(child):
        kind, values = child
        values = st.none() | values
        return st.sampled_from(
            [
                (pa.list_(kind), st.lists(values, max_size=3)),
                (pa.list_(kind, 2), st.lists(values, min_size=2, max_size=2)),
                (pa.struct([("x", kind), ("y", pa.string())]), st.fixed_dictionaries({"x": values, "y": TEXTS})),
                (pa.map_(pa.string(), kind), st.lists(st.tuples(TEXTS, values), max_size=3)),
            ]
        )

    return children.flatmap(deeper)


TYPES = st.recursive(st.sampled_from(list(LEAVES.items())), nest, max_leaves=2)


@st.composite
def columns(draw):
    kind, values = draw(TYPES)
    return pa.array(draw(st.lists(st.none() | values, max_size=8)), kind)


ENCODINGS = {
    pa.string(): [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
    pa.binary(): [pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.large_binary())],
    pa.decimal128(10, 2): [pa.decimal64(10, 2), pa.decimal256(10, 2)],
}


@st.composite
def layouts(draw, array):
    """The same content laid out otherwise."""
    kind = array.type
    if kind in ENCODINGS and draw(st.booleans()):
        array = array.cast(draw(st.sampled_from(ENCODINGS[kind])))
    elif pa.types.is_list(kind) and draw(st.booleans()):
        array = array.cast(pa.large_list(pa.field("element", kind.value_type)))
    if draw(st.booleans()):  # a slice of something longer
        array = pa.concat_arrays([array[:1], array, array[-1:]]).slice(min(1, len(array)), len(array))
    cut = draw(st.integers(0, len(array)))
    return pa.chunked_array([array[:cut], array[cut:]]) if draw(st.booleans()) else pa.chunked_array([array])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_layout_has_the_hash_that_the_documentation_describes(data):
    array = data.draw(columns())
    table = pa.table({"c": array})
    expected = reference(table)
    assert content_sha256(table) == expected
    assert content_sha256(pa.table({"c": data.draw(layouts(array))})) == expected


def cells(value):
    """A value as something that only equals itself: NaN equals NaN, −0.0 does not equal 0.0."""
    match value:
        case float():
            return "nan" if math.isnan(value) else struct.pack("<d", value)
        case list() | tuple():
            return tuple(map(cells, value))
        case dict():
            return tuple((key, cells(item)) for key, item in value.items())
    return value


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_other_cell_makes_another_hash(data):
    kind, values = data.draw(TYPES)
    rows = data.draw(st.lists(st.none() | values, min_size=1, max_size=6))
    place = data.draw(st.integers(0, len(rows) - 1))
    changed = [*rows[:place], data.draw(st.none() | values), *rows[place + 1 :]]
    before, after = pa.array(rows, kind), pa.array(changed, kind)
    same = cells(before.to_pylist()) == cells(after.to_pylist())
    assert (content_sha256(pa.table({"c": before})) == content_sha256(pa.table({"c": after}))) == same


# -- single rules --------------------------------------------------------------------------------------------------


def sha(values, kind=None):
    return content_sha256(pa.table({"c": pa.array(values, kind)}))


def test_hash_of_a_known_table_never_changes():
    table = pa.table(
        {
            "zone": pa.array([132, None, 48], pa.int32()),
            "tip": pa.array([Decimal("1.25"), Decimal("0.00"), None], pa.decimal128(18, 2)),
            "name": ["JFK", "", None],
        }
    )
    assert content_sha256(table) == "b99c760636b73ea9b689c60c147192650f8e4567b7f83af6132daf6e57905054"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.int32(), pa.int64()),
        (pa.int64(), pa.uint64()),
        (pa.string(), pa.binary()),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us"), pa.timestamp("ms")),
        (pa.decimal128(10, 2), pa.decimal128(11, 2)),
        (pa.decimal128(10, 2), pa.decimal128(10, 3)),
        (pa.list_(pa.int8()), pa.list_(pa.int16())),
        (pa.null(), pa.int8()),
        (pa.time64("us"), pa.time64("ns")),
    ],
)
def test_other_types_have_other_hashes_even_without_values(one, other):
    assert sha([], one) != sha([], other)
    assert sha([None], one) != sha([None], other)


def test_names_order_and_rows_count():
    base = pa.table({"a": [1, 2], "b": [1, 2]})
    others = [
        pa.table({"b": [1, 2], "a": [1, 2]}).rename_columns(["b", "a"]),
        pa.table({"a": [2, 1], "b": [1, 2]}),
        pa.table({"a": [1, 2]}),
        pa.table({"a": [1], "b": [1]}),
        pa.table({"a": [1, 2], "B": [1, 2]}),
        pa.table({}),
    ]
    assert len({content_sha256(table) for table in [base, *others]}) == len(others) + 1


def test_neighbouring_texts_are_not_confused():
    assert sha(["a", "bc"]) != sha(["ab", "c"])
    assert sha([["a"], ["b", "c"]]) != sha([["a", "b"], ["c"]])
    assert sha(["", None]) != sha([None, ""])


def test_what_lies_under_nulls_does_not_count():
    mask = np.array([False, True, False])
    one, other = pa.array(np.array([1, 7, 3]), mask=mask), pa.array(np.array([1, 8, 3]), mask=mask)
    assert one.buffers()[1].to_pybytes() != other.buffers()[1].to_pybytes()
    assert content_sha256(pa.table({"c": one})) == content_sha256(pa.table({"c": other})) == sha([1, None, 3])
    child = pa.array(["x", "hidden", "z"])
    masked = pa.StructArray.from_arrays([child], ["s"], mask=pa.array([False, True, False]))
    assert content_sha256(pa.table({"c": masked})) == sha([{"s": "x"}, None, {"s": "z"}])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 3, 4]), pa.array([1, 8, 9, 4]), mask=pa.array(mask))
    assert content_sha256(pa.table({"c": lists})) == sha([[1], None, [4]])


def test_a_validity_buffer_without_nulls_does_not_count():
    full = pa.array([1, 2, 3])
    buffers = [pa.py_buffer(b"\xff"), full.buffers()[1]]
    assert content_sha256(pa.table({"c": pa.Array.from_buffers(pa.int64(), 3, buffers)})) == sha([1, 2, 3])


def test_all_nans_are_one_and_both_zeros_are_two():
    bits = np.array([0x7FF8000000000001, 0xFFF0000000000001], dtype="<u8").view("<f8")
    assert sha(bits) == sha([math.nan, math.nan], pa.float64())
    assert sha([0.0]) != sha([-0.0])


def test_encodings_of_one_type_are_one():
    words = ["x", None, "y", "x"]
    null_inside = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 0]), pa.array(["x", None, "y"]))
    runs = pc.run_end_encode(pa.array(words))
    hashes = {content_sha256(pa.table({"c": c})) for c in (pa.array(words), null_inside, runs)}
    assert len(hashes) == 1
    uuids = pa.array([b"0" * 16, None], pa.uuid())
    assert content_sha256(pa.table({"c": uuids})) == sha([b"0" * 16, None], pa.binary(16))
    views = pa.array([[1], None, [2, 3]], pa.list_view(pa.int64()))
    assert content_sha256(pa.table({"c": views})) == sha([[1], None, [2, 3]])


def test_nullability_names_of_items_and_metadata_do_not_count():
    plain = pa.schema([pa.field("a", pa.list_(pa.field("item", pa.int8())))])
    other = pa.schema([pa.field("a", pa.list_(pa.field("x", pa.int8(), False)), False, {"k": "v"})], {"m": "v"})
    hashes = [content_sha256(pa.table({"a": [[1]]}, schema=schema)) for schema in (plain, other)]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("kind", [pa.binary(0), pa.list_(pa.int8(), 0), pa.struct([])])
def test_values_without_content_are_counted(kind):
    value = {} if pa.types.is_struct(kind) else b"" if kind == pa.binary(0) else []
    assert sha([value, None], kind) != sha([value], kind) != sha([None], kind)


def test_unions_are_refused_by_name():
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    with pytest.raises(RequestError, match=r"'odd'.*sparse_union"):
        content_sha256(pa.table({"odd": union}))
    runs = pa.list_(pa.run_end_encoded(pa.int32(), pa.int8()))
    with pytest.raises(RequestError, match=r"'odd'.*run_end"):
        ContentHash(pa.schema([("odd", runs)]))


def test_pieces_of_any_size_give_the_hash_of_the_whole():
    rows = 200_000  # more than one block
    values = np.arange(rows)
    table = pa.table(
        {
            "i": pa.array(values, mask=values % 7 == 0),
            "s": pa.array(values % 1000).cast(pa.string()),
            "f": np.where(values % 11 == 0, np.nan, values / 3),
            "l": pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype="i4")), pa.array(values)),
        }
    )
    whole = ContentHash(table.schema).update(table)
    pieces = ContentHash(table.schema, threads=1)
    for batch in table.to_batches(max_chunksize=33_333):
        pieces.update(batch)
    assert pieces.hexdigest() == whole.hexdigest() == content_sha256(table)
    assert pieces.columns() == whole.columns()
    with pytest.raises(ValueError):
        pieces.update(table.drop_columns("i"))
