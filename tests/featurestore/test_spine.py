"""Spines from every kind of frame; instants and keys, exact or refused."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.binding import BoundFeature, BoundView, Column
from featurestore.frames import check_select
from featurestore.request import Asked
from featurestore.spine import entities, read_spine, spine_keys
from lakehouse.errors import RequestError
from lakehouse.result import QueryResult

UTC = pa.timestamp("us", "UTC")
NOON = dt.datetime(2020, 3, 1, 12, tzinfo=dt.UTC)
MICROS = 1_583_064_000_000_000


def asked(*types: str, keys: tuple[str, ...] | None = None) -> Asked:
    columns = tuple(Column(f"k{place}", type_) for place, type_ in enumerate(types))
    view = BoundView(
        "sales", "select 1", columns, "at", None, (), (BoundFeature("x", "BIGINT"),), (), None, 0, False, True
    )
    return Asked(view, keys or tuple(column.name for column in columns), view.features, ("x",))


def spine(**columns: Any) -> Any:
    length = max((len(values) for values in columns.values()), default=1)
    return read_spine(pa.table({"event_timestamp": pa.array([NOON] * length, UTC), **columns}))


def keys(type_: str, values: pa.Array) -> list[Any]:
    return spine_keys(spine(k0=values), asked(type_)).column(0).to_pylist()


def local(*parts: int) -> dt.datetime:
    return dt.datetime(*parts)  # noqa: DTZ001 - what a clock shows


def refused(frame: Any, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read_spine(frame, **options)
    return str(caught.value)


# -- frames ---------------------------------------------------------------------------------------------------------

TABLE = pa.table({"event_timestamp": pa.array([NOON, None, NOON], UTC), "k0": [2, 1, 2], "note": ["a", None, "a"]})


class Streamed:
    """Something that only speaks the Arrow C stream, once."""

    def __init__(self) -> None:
        self.reader = TABLE.to_reader()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.reader.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "frame",
    [
        TABLE,
        TABLE.to_batches()[0],
        TABLE.to_reader(),
        Streamed(),
        pl.from_arrow(TABLE),
        pl.from_arrow(TABLE).lazy(),
        QueryResult.from_table(TABLE),
        TABLE.to_pydict(),
        TABLE.to_pylist(),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_every_frame_gives_the_same_spine(frame: Any) -> None:
    read = read_spine(frame)
    assert read.table.column_names == TABLE.column_names
    assert read.table.column("k0").to_pylist() == [2, 1, 2]
    assert read.table.column("note").to_pylist() == ["a", None, "a"]
    assert read.instants[[0, 2]].tolist() == [MICROS, MICROS]
    assert read.valid is not None
    assert read.valid.tolist() == [True, False, True]


def test_duckdb_relations_are_spines() -> None:
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'America/New_York'")
        relation = connection.sql("select timestamptz '2020-03-01 07:00:00' as event_timestamp, 1 as k0")
        assert read_spine(relation).instants.tolist() == [MICROS]


def test_pandas_frames_are_spines_without_their_index() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"event_timestamp": [NOON, NOON], "k0": [1.0, None]}, index=[7, 8])
    read = read_spine(frame)
    assert read.table.column_names == ["event_timestamp", "k0"]
    assert read.instants.tolist() == [MICROS, MICROS]
    assert spine_keys(read, asked("BIGINT")).column(0).to_pylist() == [1, None]


def test_rows_of_dicts_may_lack_columns() -> None:
    read = read_spine([{"event_timestamp": NOON}, {"event_timestamp": NOON, "k0": 3}])
    assert read.table.column("k0").to_pylist() == [None, 3]


@pytest.mark.parametrize("frame", ["spine.csv", 3, None, [1, 2], object()])
def test_what_is_no_table_is_refused(frame: Any) -> None:
    assert "a spine is a table" in refused(frame)


@pytest.mark.parametrize(
    "frame", [{"event_timestamp": NOON}, {"event_timestamp": [NOON], "k0": "abc"}, {"k0": [1, "a"]}]
)
def test_columns_that_are_none_are_named(frame: Any) -> None:
    message = refused(frame)
    assert "event_timestamp" in message or "k0" in message


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([b"a", 1], "bytes in row 0, int in row 1"),
        ([None, "a", 1], "str in row 1, int in row 2"),
        ([1, True], "int in row 0, bool in row 1"),
        ([2**53 + 1, 2.5], "int in row 0, float in row 1"),
        ([NOON, dt.date(2020, 1, 1)], "datetime in row 0, date in row 1"),
    ],
)
def test_columns_of_several_types_are_named_with_their_rows(values: list[Any], told: str) -> None:
    pd = pytest.importorskip("pandas")
    columns = {"event_timestamp": [NOON] * len(values), "k0": values}
    for frame in (columns, pd.DataFrame({**columns, "k0": pd.Series(values, dtype=object)})):
        assert refused(frame).startswith(f"the spine's column 'k0' holds values of several types: {told}")


@pytest.mark.parametrize("place", ["dict", "rows", "pandas", "other column"])
@pytest.mark.parametrize("timezone", [None, "Asia/Tokyo"])
@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([local(2020, 3, 1), None, NOON], "row 2 of the spine has a time in {!r} that has a zone, though those before"),
        (
            [NOON, NOON, local(2020, 3, 1)],
            "row 2 of the spine has a time in {!r} that has no zone, though those before",
        ),
        ([dt.date(2020, 3, 1), NOON], "row 1 of the spine has a time among the dates in {!r}"),
    ],
)
def test_times_are_all_of_one_kind(values: list[Any], told: str, timezone: str | None, place: str) -> None:
    name = "x" if place == "other column" else "event_timestamp"
    frame: Any = {"event_timestamp": [NOON] * len(values), name: values}
    if place == "rows":
        frame = [{name: value} for value in values]
    elif place == "pandas":
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame({name: pd.Series(values, dtype=object)})
    assert refused(frame, timezone=timezone).startswith(told.format(name))


@pytest.mark.parametrize("zone", ["UTC", None])
def test_nanoseconds_of_pandas_are_refused_wherever_they_hide(zone: str | None) -> None:
    pd = pytest.importorskip("pandas")
    values = [pd.Timestamp(1_583_064_000_000_000_000, tz=zone), pd.NaT, pd.Timestamp(999, tz=zone)]
    frames = [
        {"event_timestamp": values[::2]},
        {"event_timestamp": pd.Series(values, dtype=object)},
        {"event_timestamp": pl.Series([1000, None, 999]).cast(pl.Datetime("ns", zone))},
        pd.DataFrame({"event_timestamp": pd.Series(values, dtype=object)}),
        {"event_timestamp": [NOON] * 2, "x": [pd.Timedelta(0), pd.Timedelta(1)]},
    ]
    for frame in frames:
        assert "nanoseconds that are no whole microseconds" in refused(frame, timezone="UTC")
    whole = pd.DataFrame({"event_timestamp": pd.Series(values[:2], dtype=object)})
    assert read_spine(whole, timezone="UTC").instants[:1].tolist() == [MICROS]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (pl.Series([1], dtype=pl.Int128), "'k0' holds Int128 values that Arrow cannot hold"),
        (pl.Series([object()], dtype=pl.Object), "'k0' holds Object values that Arrow cannot hold"),
        ([1 + 2j], "'k0' holds complex values that Arrow cannot hold"),
        (np.array([1 + 2j]), "'k0' holds complex128 values that Arrow cannot hold"),
        ([2**63], "row 0 of the spine has an integer of more than 64 bits in 'k0'"),
        ([10**5000], "row 0 of the spine has an integer of more than 64 bits in 'k0'"),
        ({1}, "'k0' is a set, not a list of values"),
        (np.zeros((1, 1)), "'k0' is a ndarray, not a list of values"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_columns_that_arrow_cannot_hold_are_named(values: Any, told: str) -> None:
    assert told in refused({"event_timestamp": [NOON], "k0": values})
    if isinstance(values, pl.Series):
        assert told in refused(pl.DataFrame({"event_timestamp": [NOON], "k0": values}))


@pytest.mark.parametrize("zone", ["Mars/X", "localtime", "+5"])
@pytest.mark.parametrize("inside", [False, True])
def test_times_in_a_zone_that_is_none_are_refused(zone: str, inside: bool) -> None:
    times = pa.array([0], pa.timestamp("us", zone))
    column = pa.StructArray.from_arrays([times], ["at"]) if inside else times
    message = refused(pa.table({"event_timestamp": pa.array([NOON], UTC), "x": column}))
    assert message.startswith(f"the spine's column 'x': {zone!r} is not a time zone")


def test_a_single_column_is_no_table() -> None:
    for frame in (pl.Series([1]), pa.chunked_array([[1]])):
        assert f"a spine is a table, not a {type(frame).__name__}" in refused(frame)


def test_frames_that_cannot_be_computed_say_why_in_one_line() -> None:
    message = refused(pl.LazyFrame({"k0": [1]}).select("k1"))
    assert message == 'the spine\'s LazyFrame cannot be computed: unable to find column "k1"; valid columns: ["k0"]'
    with duckdb.connect() as connection:
        message = refused(connection.sql("select 'x'::int as k0"))
    assert message == "the spine's rows cannot be computed: Could not convert string 'x' to INT32"


def test_columns_of_unequal_length_are_refused() -> None:
    message = refused({"event_timestamp": [NOON], "k0": [1, 2]})
    assert message.startswith("the spine's columns 'event_timestamp' and 'k0' are of unequal length: 1 and 2")


def test_two_columns_of_one_name_are_refused() -> None:
    pd = pytest.importorskip("pandas")
    names = ["event_timestamp", "0", "0"]
    table = pa.table([pa.array([NOON], UTC), [1], [2]], names=names)
    frames = [table, pd.DataFrame([[NOON, 1, 2]], columns=names), {"event_timestamp": [NOON], "0": [1], 0: [2]}]
    for frame in frames:
        assert "two columns called '0'" in refused(frame)


def test_a_column_called_like_a_feature_is_refused() -> None:
    assert "called like a feature: 'K0'" in refused({"event_timestamp": [NOON], "K0": [1]}, known_features=["k0"])


# -- selects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "select 1",
        "-- a comment\nselect 1 ;",
        "(select 1)",
        "with a as (select 1) from a",
        "from a",
        "values (1)",
        "pivot a on b in (1, 2) using sum(c)",
    ],
)
def test_one_select_is_a_spine(query: str) -> None:
    check_select(query)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("", "a spine is a table or a SELECT, not ''"),
        ("spine.csv", "a spine is a table or a SELECT, not 'spine.csv'"),
        ("-- nothing", "a spine is a SELECT, not a comment"),
        ("-- c\ncopy (select 1) to 'x.csv'", "a spine is a SELECT, not COPY"),
        ("with a as (select 1) insert into b from a", "a spine is a SELECT, not INSERT"),
        ("explain select 1", "a spine is a SELECT, not EXPLAIN"),
        ("select 1; select 2", "a spine is a SELECT, not 2 statements: SELECT, SELECT"),
        ("select 1; attach 'x.db'", "a spine is a SELECT, not 2 statements: SELECT, ATTACH"),
        ("copy (pivot a on b using sum(c)) to 'x.csv'", "a PIVOT that looks for its values"),
        ("selec 1", 'the spine\'s SELECT cannot be read: syntax error at or near "selec"'),
    ],
)
def test_what_is_not_one_select_is_refused(query: str, told: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_select(query)
    assert told in caught.value.what
    assert "\n" not in caught.value.what


# -- which timestamp ------------------------------------------------------------------------------------------------


def test_the_timestamp_column_is_found() -> None:
    one, other = pa.array([NOON], UTC), pa.array([NOON + dt.timedelta(hours=1)], UTC)
    assert read_spine(pa.table({"a": one, "event_timestamp": other})).timestamp == "event_timestamp"
    assert read_spine(pa.table({"a": one, "event_timestamp": other}), timestamp="a").timestamp == "a"
    assert read_spine(pa.table({"k": [1], "b": one})).timestamp == "b"


def test_several_candidates_are_listed() -> None:
    one = pa.array([NOON], UTC)
    message = refused(pa.table({"a": one, "k": [1], "b": one}))
    assert "2 timestamp columns" in message
    assert "a, b" in message


def test_no_candidate_lists_the_columns() -> None:
    assert "k int64" in refused(pa.table({"k": [1]}))


def test_a_timestamp_column_that_is_not_there_has_near_matches() -> None:
    assert "Did you mean event_timestamp?" in refused(TABLE, timestamp="event_timestmp")
    assert "timestamp cannot be 5" in refused(TABLE, timestamp=5)


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (pa.array([dt.date(2020, 1, 1)]), "which moment of the day"),
        (pa.array(["2020-01-01"]), "Convert it to a timestamp"),
        (pa.array([1_583_064_000]), "A number has no unit"),
        (pa.array([True]), "Convert it to a timestamp"),
    ],
)
def test_what_is_no_timestamp_is_refused_with_its_type(values: pa.Array, hint: str) -> None:
    message = refused(pa.table({"event_timestamp": values}))
    assert str(values.type) in message
    assert hint in message


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["2020-03-01 12:00:00", "1/3/2020 12:00"], ": '1/3/2020 12:00' in row 1 is no time"),
        (["2020-03-01T12:00:00.123456789Z"], ": '2020-03-01T12:00:00.123456789Z' in row 0 is no time"),
        (["2020-03-01 12:00Z", None, "2020-03-01 12:00"], ": '2020-03-01 12:00' in row 2 has no zone, though those"),
        (["2020-03-01 12:00", "2020-03-01 12:00+01"], ": '2020-03-01 12:00+01' in row 1 has a zone, though those"),
        (["2020-03-01 12:00", None], "\n  Convert it to a timestamp first"),
    ],
)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_texts_that_keep_a_column_from_being_times_are_named(texts: list[str], told: str, kind: pa.DataType) -> None:
    message = refused(pa.table({"event_timestamp": pa.array(texts, kind)}))
    assert message.startswith(f"the spine's timestamp column 'event_timestamp' is of type {kind}{told}")
    assert "Convert it to a timestamp first" in message


# -- instants -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "+05:30"])
def test_units_and_zones_are_converted(unit: str, zone: str) -> None:
    times = pa.array([NOON], UTC).cast(pa.timestamp(unit, zone))
    assert read_spine(pa.table({"event_timestamp": times})).instants.tolist() == [MICROS]


def test_dictionaries_of_timestamps_are_timestamps() -> None:
    times = pa.array([NOON, NOON], UTC).dictionary_encode()
    assert read_spine(pa.table({"event_timestamp": times})).instants.tolist() == [MICROS, MICROS]


def test_nanoseconds_that_do_not_fit_are_refused_with_their_row() -> None:
    times = pa.array([1000, None, 1001, 1002], pa.timestamp("ns", "UTC"))
    assert "row 2 " in refused(pa.table({"event_timestamp": times}))


def test_seconds_too_far_away_are_refused_with_their_row() -> None:
    times = pa.array([0, 2**60], pa.timestamp("s", "UTC"))
    assert "row 1 " in refused(pa.table({"event_timestamp": times}))


def test_naive_times_need_a_zone() -> None:
    frame = {"event_timestamp": [local(2020, 3, 1, 7)]}
    assert "--timezone, in Python timezone=" in refused(frame)
    for zone in ("America/New_York", ZoneInfo("America/New_York")):
        read = read_spine(frame, timezone=zone)
        assert (read.instants.tolist(), read.timezone) == ([MICROS], "America/New_York")


def test_zoned_times_keep_their_zone_whatever_is_declared() -> None:
    assert read_spine({"event_timestamp": [NOON]}, timezone="Asia/Tokyo").instants.tolist() == [MICROS]


def test_an_unknown_zone_has_near_matches() -> None:
    assert "America/New_York" in refused({"event_timestamp": [local(2020, 3, 1)]}, timezone="America/New_Yrok")


@pytest.mark.parametrize("zone", [dt.UTC, 5, b"UTC"])
def test_a_zone_without_a_name_is_refused(zone: Any) -> None:
    assert f"timezone cannot be {zone!r}" in refused({"event_timestamp": [NOON]}, timezone=zone)


def test_ambiguous_local_times_are_the_earlier_instant() -> None:
    read = read_spine({"event_timestamp": [local(2020, 11, 1, 1, 30)]}, timezone="America/New_York")
    assert read.instants.tolist() == [int(dt.datetime(2020, 11, 1, 5, 30, tzinfo=dt.UTC).timestamp()) * 10**6]


def test_local_times_that_never_were_are_refused_with_their_rows() -> None:
    never = local(2020, 3, 8, 2, 30)
    message = refused({"event_timestamp": [None, never, NOON.replace(tzinfo=None), never]}, timezone="America/New_York")
    assert "2 times in 'event_timestamp' never occurred in America/New_York" in message
    assert "row 1, 3" in message


def test_local_times_out_of_all_calendars_are_refused() -> None:
    assert "row 0 " in refused(
        pa.table({"event_timestamp": pa.array([2**62], pa.timestamp("us"))}), timezone="America/New_York"
    )


@pytest.mark.parametrize("frame", [{"event_timestamp": [], "k0": []}, {"event_timestamp": [None, None], "k0": [1, 2]}])
def test_no_rows_and_no_instants_are_fine(frame: Any) -> None:
    read = read_spine(frame)
    assert len(read) == len(frame["k0"])
    assert len(entities(read, asked("BIGINT")).rows) == 0


# -- keys -----------------------------------------------------------------------------------------------------------

INTEGERS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
ARROW_INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@given(st.sampled_from(list(INTEGERS)), st.sampled_from(ARROW_INTEGERS), st.data())
@settings(max_examples=60, deadline=None)
def test_integers_of_any_width_are_the_same_integer_or_match_nothing(type_: str, arrow: pa.DataType, data: Any) -> None:
    low, high = (-(2 ** (arrow.bit_width - 1)), 2 ** (arrow.bit_width - 1) - 1)
    if pa.types.is_unsigned_integer(arrow):
        low, high = 0, 2**arrow.bit_width - 1
    edges = [v + d for bits in (7, 15, 31, 63) for v in (2**bits, -(2**bits)) for d in (-1, 0, 1)]
    pool = st.sampled_from([v for v in (0, *edges) if low <= v <= high])
    values = data.draw(st.lists(st.none() | pool, max_size=6))
    limit = 2 ** (INTEGERS[type_] - 1)
    expected = [v if v is not None and -limit <= v < limit else None for v in values]
    assert keys(type_, pa.array(values, arrow)) == expected


@pytest.mark.parametrize(
    ("type_", "values", "expected"),
    [
        ("TINYINT", pa.array([127, 300, None]), [127, None, None]),
        ("BIGINT", pa.array([1.0, None, float("nan"), -0.0]), [1, None, None, 0]),
        ("BIGINT", pa.array([Decimal("2.00"), Decimal("2.50"), None]), [2, None, None]),
        ("SMALLINT", pa.array([Decimal("1e30"), Decimal(-3)]), [None, -3]),
        ("BIGINT", pa.array([Decimal("0." + "0" * 37 + "1")]), [None]),
        ("DECIMAL(4,1)", pa.array([1, 999, 1000]), [Decimal("1.0"), Decimal("999.0"), None]),
        ("DECIMAL(4,1)", pa.array([Decimal("1.50"), Decimal("1.55")]), [Decimal("1.5"), None]),
        ("DECIMAL(38,38)", pa.array([0, 1], pa.uint64()), [Decimal("0E-38"), None]),
        ("DECIMAL(4,1)", pa.array([3.0, None]), [Decimal("3.0"), None]),
        ("VARCHAR", pa.array(["a", None]).dictionary_encode(), ["a", None]),
        ("VARCHAR", pa.array(["a\0", ""], pa.large_string()), ["a\0", ""]),
        ("VARCHAR", pa.array(["é" * 40], pa.string_view()), ["é" * 40]),
        ("VARCHAR", pa.chunked_array(pl.Series(["b", None, "a"], dtype=pl.Categorical)), ["b", None, "a"]),
        ("VARCHAR", pa.chunked_array(pl.Series(["b", None], dtype=pl.Enum(["a", "b"]))), ["b", None]),
        ("BLOB", pa.array([b"ab"], pa.binary(2)), [b"ab"]),
        ("BLOB", pa.array([b"ab"], pa.binary_view()), [b"ab"]),
        ("BOOLEAN", pa.array([True, None]), [True, None]),
        ("DATE", pa.array([dt.date(2020, 1, 1)], pa.date64()), [dt.date(2020, 1, 1)]),
        ("TIMESTAMP", pa.array([1001, 1000], pa.timestamp("ns")), [None, local(1970, 1, 1, 0, 0, 0, 1)]),
        ("TIMESTAMP WITH TIME ZONE", pa.array([NOON], pa.timestamp("s", "Asia/Tokyo")), [NOON]),
        ("BIGINT", pa.array([None, None], pa.null()), [None, None]),
        ("VARCHAR", pa.array([], pa.null()), []),
    ],
)
def test_keys_are_converted_exactly_or_match_nothing(type_: str, values: pa.Array, expected: list[Any]) -> None:
    assert keys(type_, values) == expected


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("BIGINT", pa.array(["1"])),
        ("VARCHAR", pa.array([1])),
        ("VARCHAR", pa.array([b"a"])),
        ("BLOB", pa.array(["a"])),
        ("BIGINT", pa.array([True])),
        ("BOOLEAN", pa.array([1])),
        ("DECIMAL(4,1)", pa.array(["1"])),
        ("DATE", pa.array([NOON], UTC)),
        ("TIMESTAMP", pa.array([NOON], UTC)),
        ("TIMESTAMP WITH TIME ZONE", pa.array([1], pa.timestamp("us"))),
    ],
)
def test_keys_of_another_kind_are_refused_with_both_types(type_: str, values: pa.Array) -> None:
    with pytest.raises(RequestError) as caught:
        keys(type_, values)
    assert str(values.type) in caught.value.what
    assert type_ in caught.value.what
    assert caught.value.where == "feature view 'sales'"


@pytest.mark.parametrize(
    ("type_", "values", "told"),
    [
        ("BIGINT", ["1", None, "01", "NA"], ", and '01' in row 2 is none"),
        ("BIGINT", pa.array(["NA"], pa.string_view()), ", and 'NA' in row 0 is none"),
        ("DECIMAL(4,1)", ["1.5", "1,5"], ", and '1,5' in row 1 is none"),
        ("DATE", ["2020-01-01", "2020-02-30"], ", and '2020-02-30' in row 1 is none"),
        ("BIGINT", ["1", "2"], ""),
        ("BOOLEAN", ["t"], ""),
    ],
)
def test_texts_that_keep_keys_from_being_of_their_type_are_named(type_: str, values: Any, told: str) -> None:
    with pytest.raises(RequestError) as caught:
        keys(type_, pa.array(values))
    assert caught.value.what.endswith(f"the join key is {type_}{told}")


@pytest.mark.parametrize("value", [1.5, 2.0**53, float("inf")])
def test_floating_point_keys_that_may_have_been_rounded_are_refused_with_their_row(value: float) -> None:
    with pytest.raises(RequestError, match="row 1"):
        keys("BIGINT", pa.array([1.0, value]))


def test_a_missing_key_has_near_matches() -> None:
    with pytest.raises(RequestError) as caught:
        spine_keys(spine(k00=[1]), asked("BIGINT"))
    assert "no column 'k0'" in caught.value.what
    assert "k00" in str(caught.value.hint)


def test_a_missing_key_of_a_role_says_so() -> None:
    with pytest.raises(RequestError, match="no column 'zone', which stands for its join key 'k0'"):
        spine_keys(spine(k0=[1]), asked("BIGINT", keys=("zone",)))


# -- entities -------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.none() | st.sampled_from(["a", "ab", ""]), st.none() | st.sampled_from(["b", "bc", "c"]))))
@settings(max_examples=60, deadline=None)
def test_each_key_has_one_code_and_nulls_have_none(rows: list[tuple[str | None, str | None]]) -> None:
    one, other = ([row[place] for row in rows] for place in (0, 1))
    frame = spine(k0=pa.array(one, pa.string()), k1=pa.array(other, pa.string()))
    found = entities(frame, asked("VARCHAR", "VARCHAR"))
    assert found.rows.tolist() == [place for place, row in enumerate(rows) if None not in row]
    listed = [tuple(key.values()) for key in found.keys.to_pylist()]
    assert len(set(listed)) == len(listed)
    assert [listed[code] for code in found.codes] == [rows[place] for place in found.rows]
    assert (found.instants == MICROS).all()


def test_without_join_keys_everybody_is_one() -> None:
    found = entities(spine(note=["a", "b"]), asked())
    assert found.codes.tolist() == [0, 0]
    assert found.rows.dtype == np.int64
