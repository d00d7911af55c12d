"""Online answers: what can be asked and how, what is refused, and that values come back exactly."""

from __future__ import annotations

import datetime as dt
import gc
import math
import subprocess
import sys
import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

sys.path.append(str(Path(__file__).parent))

from online_lake import (
    AT,
    HOUR,
    NOON,
    STATE,
    SUMS,
    TIPS,
    TOWN,
    ZONE,
    ZONED,
    OnlineLake,
    everything,
    facts,
    hours,
    moment,
    typed,
)

from featurestore.definitions import Entity, Feature, FeatureService, FeatureView
from featurestore.response import OnlineFeatures, Stamp
from featurestore.store import FeatureStore
from lakehouse.errors import CatalogDamagedError, PenstockError, RequestError
from lakehouse.types import TableName


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> OnlineLake:
    """A lake with one generation; tests that change it take a fresh one."""
    lake = OnlineLake.built(tmp_path_factory.mktemp("served"))
    lake.store.materialize(at=NOON)
    return lake


@pytest.fixture
def fresh(tmp_path: Path) -> OnlineLake:
    lake = OnlineLake.built(tmp_path)
    lake.store.materialize(at=NOON)
    return lake


ZONE_1 = {
    "fare": Decimal("2.50"),
    "note": None,
    "rides_1h": 1,
    "rides_1d": 2,
    "paid_1d": Decimal("12.50"),
    "trips": 100,
}
ZONE_2 = {"fare": None, "note": None, "rides_1h": 0, "rides_1d": 0, "paid_1d": None, "trips": 100}


# -- what can be asked, and how -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "features",
    [
        "tips",
        "tips@1",
        TIPS,
        [STATE, SUMS, TOWN],
        (STATE, SUMS, TOWN),
        ["state:fare", "state:note", "sums:rides_1h", "sums:rides_1d", "sums:paid_1d", "town:trips"],
        ["state:fare", STATE[["note"]], SUMS, "town:trips"],
    ],
)
def test_every_way_to_ask(served: OnlineLake, features: Any):
    assert served.state(1, NOON, features) == ZONE_1
    assert served.state(2, NOON, features) == ZONE_2


def test_one_feature_and_one_view(served: OnlineLake):
    assert served.state(1, NOON, "state:fare") == {"fare": Decimal("2.50")}
    assert list(served.state(1, NOON, SUMS)) == ["rides_1h", "rides_1d", "paid_1d"]
    assert list(served.state(1, NOON, ["sums:paid_1d", "sums:rides_1h"])) == ["paid_1d", "rides_1h"]


@pytest.mark.parametrize("repeat", range(2))  # the second comes from what was compiled
def test_full_feature_names(served: OnlineLake, repeat: int):
    store = served.store
    for full, names in ((True, ["zone", "state__fare", "state__note"]), (False, ["zone", "fare", "note"])):
        answer = store.get_online_features([STATE], [{"zone": 1}], at=NOON, full_feature_names=full)
        assert list(answer.to_dict()) == names


def test_a_role_is_keyed_by_its_own_column(served: OnlineLake):
    there = STATE.on(zone="to_zone", prefix="to")
    answer = served.store.get_online_features([STATE, there], [{"zone": 2, "to_zone": 1}], at=NOON)
    assert answer.to_dict(statuses=True) == {
        "zone": [2], "to_zone": [1],
        "fare": [None], "fare__status": ["EXPIRED"], "note": [None], "note__status": ["EXPIRED"],
        "to__fare": [Decimal("2.50")], "to__fare__status": ["PRESENT"],
        "to__note": [None], "to__note__status": ["NULL"],
    }  # fmt: skip


def test_a_column_called_like_that_of_a_status_is_refused(served: OnlineLake):
    answer = served.store.get_online_features("tips", [{"zone": 1, "fare__status": "?"}], at=NOON)
    assert answer.to_dict()["fare__status"] == ["?"]
    for shown in (answer.to_dict, answer.to_arrow, answer.result):
        with pytest.raises(RequestError, match="two columns would be called 'fare__status'"):
            shown(statuses=True)


def test_order_duplicates_and_other_columns_are_kept(served: OnlineLake):
    rows = {"zone": [2, 1, None, 1, 9], "trip": ["a", "b", "c", "b", None], "weight": [1.5, math.inf, -0.0, 2, 3]}
    by_column = served.store.get_online_features("tips", rows, at=NOON)
    by_row = served.store.get_online_features(
        "tips", [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)], at=NOON
    )
    by_arrow = served.store.get_online_features("tips", pa.table(rows), at=NOON)
    for answer in (by_column, by_row, by_arrow):
        found = answer.to_dict()
        assert {name: found[name] for name in rows} == rows
        assert found["rides_1d"] == [0, 2, 0, 2, 0]
        assert answer.statuses()["note"] == ["EXPIRED", "NULL", "NOT_FOUND", "NULL", "NOT_FOUND"]
        assert answer.statuses()["rides_1h"] == ["NOT_FOUND", "PRESENT", "NOT_FOUND", "PRESENT", "NOT_FOUND"]
        assert answer.statuses()["trips"] == ["PRESENT"] * 5
        assert len(answer) == 5
    assert list(by_row.to_dict()) == [*rows, *ZONE_1]


def test_no_rows(served: OnlineLake):
    for rows in ([], {"zone": []}, pa.table({"zone": pa.array([], pa.int64())})):
        answer = served.store.get_online_features("tips", rows, at=NOON)
        assert answer.to_dict() == {"zone": [], **{name: [] for name in ZONE_1}}
        assert len(answer) == answer.to_arrow().num_rows == 0
        assert answer.to_arrow().schema.field("fare").type == pa.decimal128(10, 2)


def test_a_store_that_is_dropped_closes_its_files_at_once(fresh: OnlineLake):
    from featurestore.online import mapped

    before = set(mapped._open)
    gc.disable()  # what only a collection frees, a busy server keeps for long
    try:
        store = FeatureStore(fresh.root / "lake")
        assert len(store.get_online_features("tips", [{"zone": 1}], at=NOON)) == 1
        assert set(mapped._open) > before
        del store
        assert set(mapped._open) == before
    finally:
        gc.enable()


def test_a_view_of_everybody_needs_no_keys(served: OnlineLake):
    for rows, count in (([{}], 1), ({}, 1), ([{}, {}, {}], 3), ([], 0)):
        answer = served.store.get_online_features(["town:trips"], rows, at=NOON)
        assert answer.to_dict() == {"trips": [100] * count}
        assert answer.to_arrow().num_rows == count
    answer = served.store.get_online_features(["town:trips"], [{"x": 1}, {"x": 2}], at=NOON)
    assert answer.to_dict() == {"x": [1, 2], "trips": [100, 100]}


def test_the_stamp_says_where_an_answer_comes_from(served: OnlineLake):
    manifest = served.store.online.current()
    assert manifest is not None
    answer = served.store.get_online_features("tips", [{"zone": 1}], at=moment(hours(1)))
    stamp = answer.stamp
    assert (stamp.generation, stamp.snapshot, stamp.at) == (manifest.id, 3, "2024-01-02T13:00:00.000000Z")
    assert stamp.as_dict() == {
        "generation": manifest.id,
        "snapshot": 3,
        "at": stamp.at,
        "age": pytest.approx(0, abs=10),
    }
    assert str(stamp) == answer.lines()[-1]
    assert str(stamp) in answer._repr_html_()
    assert repr(answer).splitlines()[0].split() == ["zone", "1"]
    assert served.store.get_online_features("tips", [{"zone": 1}]).stamp.instant >= AT


@pytest.mark.parametrize(
    "at", [NOON + dt.timedelta(hours=1), "2024-01-02T13:00:00Z", "2024-01-02 13:00:00", "2024-01-02T14:00:00+01:00"]
)
def test_an_instant_is_a_datetime_or_text(served: OnlineLake, at: Any):
    assert served.store.get_online_features("tips", [{"zone": 1}], at=at).stamp.instant == hours(1)


def test_windows_and_ttl_go_on_between_materializations(served: OnlineLake):
    def at(hour: float) -> list[str]:
        answer = served.store.get_online_features("tips", [{"zone": 1}], at=moment(hours(hour)))
        return [answer.statuses()["fare"][0], str(answer.to_dict()["rides_1d"][0]), answer.statuses()["rides_1h"][0]]

    assert at(23.5) == ["PRESENT", "1", "PRESENT"]  # the row of −0.5 h is exactly a day old
    assert at(23.5 + 1 / HOUR) == ["EXPIRED", "1", "PRESENT"]
    assert at(24 - 1 / HOUR) == ["EXPIRED", "1", "PRESENT"]  # the start of a day's window is rounded down to the hour
    assert at(24) == ["EXPIRED", "0", "NOT_FOUND"]


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"zome": 1}], r"no 'zone'\n  Did you mean|no 'zone'"),
        ([{}], "no 'zone'\n  None of the keys was given. Keys: zone"),
        ({}, "no 'zone'\n  None of the keys was given. Keys: zone"),
        ({"zone": [1], "trip": [1, 2]}, "differ in length"),
        ({"zone": 1}, "'zone' must be a list"),
        ({"zone": "12"}, "'zone' must be a list"),
        ({"zone": b"12"}, "'zone' must be a list"),
        ([{"zone": 1}, {"zone": 2, "trip": 3}], "row 2 differs .*'trip'"),
        ([{"zone": 1, "trip": 3}, {"zone": 2}], "row 2 differs .*'trip'"),
        ([{"zone": 1}, 2], "row 2 is no dict"),
        ([1], "row 1 is no dict"),
        ("zone=1", "a list of dicts"),
        (None, "a list of dicts"),
        (7, "a list of dicts"),
        ([{"zone": "1"}], "BIGINT"),
        ([{"zone": 1.5}], "BIGINT"),
        ([{"zone": True}], "BIGINT"),
        ([{"zone": [1]}], "BIGINT"),
        ([{"zone": NOON}], "BIGINT"),
        ([{"zone": 1, "fare": 3}], "two columns would be called 'fare'"),
        ([{"zone": 1, "FARE": 3}], "two columns would be called 'FARE'"),
    ],
)
def test_entity_rows_that_are_none(served: OnlineLake, rows: Any, message: str):
    for _ in range(2):
        with pytest.raises(RequestError, match=message) as error:
            served.store.get_online_features("tips", rows, at=NOON)
        if "two columns" in message:
            assert "--full-feature-names, in Python full_feature_names=True" in str(error.value)


def test_a_number_that_no_key_can_be_is_nobody(served: OnlineLake):
    for key in (2**63, -(2**70)):
        assert served.store.get_online_features("tips", [{"zone": key}], at=NOON).statuses()["fare"] == ["NOT_FOUND"]


def test_a_wrong_key_names_both_types(served: OnlineLake):
    with pytest.raises(RequestError) as error:
        served.store.get_online_features("tips", [{"zone": "1"}], at=NOON)
    assert "BIGINT" in str(error.value)
    assert "str" in str(error.value).lower()


def test_keys_are_converted_where_nothing_is_lost(served: OnlineLake):
    import numpy as np

    for key in (1, np.int64(1), np.uint8(1), Decimal(1)):
        try:
            assert served.state(key, NOON)["rides_1d"] == 2
        except RequestError as error:
            assert "BIGINT" in str(error)  # noqa: PT017 - refusing is as right as converting
            assert type(key).__name__ in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("tip", r"feature service 'tip'\n  Did you mean tips"),
        ("tips@2", r"Versions: tips@1"),
        ("state", r"It is a feature view: ask for its features, e.g. state:fare"),
        ("stale:fare", r"feature view 'stale'\n  Did you mean state"),
        (["state:fair"], r"no feature 'fair'\n  Did you mean fare"),
        (["sums:rides_1h", "state:nothing_like_it"], r"Features: fare, note"),
        (["tips"], r"by itself"),
        (["state"], r"state:fare"),
        ([], r"no features are asked for"),
        (3, r"names no features"),
        (["state:fare", "state:fare"], r"twice"),
        ([STATE, STATE.on(zone="to_zone")], r"two columns would be called|twice"),
        ([replace(TOWN, name="village")], r"feature view 'village'"),
        (FeatureService("tips", features=[STATE]), r"was changed since it was applied"),
    ],
)
def test_unknown_names_are_refused_with_near_ones(served: OnlineLake, features: Any, message: str):
    with pytest.raises(RequestError, match=message):
        served.store.get_online_features(features, [{"zone": 1, "to_zone": 1}], at=NOON)


def test_a_view_that_is_not_online_yet(fresh: OnlineLake):
    fresh.store.apply([*everything(), replace(TOWN, name="village")])
    fresh.store.materialize(at=NOON)
    assert fresh.state(1, NOON, ["village:trips"]) == {"trips": 100}
    fresh.store.apply([*everything(), replace(TOWN, name="hamlet")])
    with pytest.raises(RequestError, match="hamlet") as error:
        fresh.store.get_online_features(["hamlet:trips"], [{}], at=NOON)
    assert "penstock materialize" in str(error.value)


def test_an_offline_view_is_not_served(fresh: OnlineLake):
    fresh.store.apply([*everything(), replace(TOWN, name="village", online=False)])
    fresh.store.materialize(at=NOON)
    for ask in (
        lambda: fresh.store.get_online_features(["village:trips"], [{}], at=NOON),
        lambda: fresh.store.key_types(["village:trips"]),
        lambda: fresh.store.verify(["village:trips"]),
    ):
        with pytest.raises(RequestError, match=r"feature view 'village': it is not online.*\n.*penstock historical"):
            ask()


def test_before_the_generation_nothing_is_known(served: OnlineLake):
    with pytest.raises(RequestError) as error:
        served.store.get_online_features("tips", [{"zone": 1}], at=moment(AT - 1))
    assert "2024-01-02T12:00:00.000000Z" in str(error.value)
    assert "2024-01-02T11:59:59.999999Z" in str(error.value)
    assert "--at" in str(error.value)


@pytest.mark.parametrize("at", [NOON.replace(tzinfo=None), "noon", 1.5, object(), "0001-01-01T00:00:00+14:00"])
def test_an_instant_that_is_none(served: OnlineLake, at: Any):
    with pytest.raises(RequestError):
        served.store.get_online_features("tips", [{"zone": 1}], at=at)


@pytest.mark.parametrize("at", ["2024-01-02T12:00:00.0000001Z", "2024-01-02 12:00:00.123456789+00:00"])
def test_an_instant_finer_than_microseconds_is_refused(served: OnlineLake, at: str):
    pd = pytest.importorskip("pandas")
    for given in (at, pd.Timestamp(at)):
        with pytest.raises(RequestError, match="microsecond") as error:
            served.store.get_online_features("tips", [{"zone": 1}], at=given)
        assert at.partition(".")[2].rstrip("Z").partition("+")[0] in str(error.value)
    exact = "2024-01-02T12:00:00.100000000Z"
    for given in (exact, pd.Timestamp(exact)):
        assert served.store.get_online_features("tips", [{"zone": 1}], at=given).stamp.instant == AT + 100_000


@pytest.mark.parametrize("at", [AT, True, 0])
def test_an_instant_is_no_number(served: OnlineLake, at: Any):
    for ask in (
        lambda: served.store.get_online_features("tips", [{"zone": 1}], at=at),
        lambda: served.another().materialize(at=at),
    ):
        with pytest.raises(RequestError, match="at must be a datetime or text") as error:
            ask()
        assert type(at).__name__ in str(error.value)


def test_without_a_generation(tmp_path: Path):
    lake = OnlineLake.built(tmp_path)
    for ask in (
        lambda: lake.store.get_online_features("tips", [{"zone": 1}]),
        lambda: lake.store.key_types("tips"),
        lambda: lake.store.verify("tips"),
        lake.store.online.rollback,
    ):
        with pytest.raises(RequestError, match="no online generation yet") as error:
            ask()
        assert "penstock materialize" in str(error.value)


# -- values ---------------------------------------------------------------------------------------------------------

EXACT: dict[str, list[Any]] = {
    "BIGINT": [2**53 + 1, -(2**63), 2**63 - 1],
    "SMALLINT": [-32768, 32767, 0],
    "DOUBLE": [math.nan, -0.0, math.inf],
    "FLOAT": [-0.0, math.nan, 1.5],
    "DECIMAL(38,10)": [Decimal("1234567890123456789012345678.0123456789"), Decimal("-0.0000000001"), Decimal("0E-10")],
    "DECIMAL(4,1)": [Decimal("999.9"), Decimal("-0.1"), Decimal("0.0")],
    "BOOLEAN": [True, False, True],
    "VARCHAR": ["", "naïve 🚕\0", "x" * 5_000],
    "BLOB": [b"", b"\x00\xff", b"1" * 5_000],
    "DATE": [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2024, 2, 29)],
    "TIMESTAMP": [
        *map(dt.datetime.fromisoformat, ("1969-12-31T23:59:59.999999", "2024-03-10T02:30:00", "0001-01-01T00:00:00")),
    ],
    ZONED: [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(1900, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC), NOON],
}


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> OnlineLake:
    lake = OnlineLake(tmp_path_factory.mktemp("exact"))
    types = {"zone": "BIGINT", "seen": ZONED, **{f"c{place}": type_ for place, type_ in enumerate(EXACT)}}
    columns: dict[str, Any] = {"zone": [1, 2, 3, 4], "seen": [AT - 1] * 4}
    columns |= {f"c{place}": [*values, None] for place, values in enumerate(EXACT.values())}
    table = TableName("warehouse", "wide")
    lake.put(types, [typed(types, columns)], table)
    view = FeatureView(
        "wide", source="warehouse.wide", entities=[ZONE], event_timestamp="seen",
        features=[Feature(f"c{place}") for place in range(len(EXACT))],
    )  # fmt: skip
    lake.store.apply([view])
    lake.store.materialize(at=NOON)
    return lake


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return repr(left) == repr(right)
    return type(left) is type(right) and bool(left == right) and str(left) == str(right)


def test_values_come_back_exactly(exact: OnlineLake):
    view = exact.store.definitions().views["wide"].definition
    answer = exact.store.get_online_features([view], {"zone": [1, 2, 3, 4, 5]}, at=NOON)
    found, arrow, frame = answer.to_dict(), answer.to_arrow(), answer.to_polars()
    for place, (type_, values) in enumerate(EXACT.items()):
        name = f"c{place}"
        for way in (found[name], arrow.column(name).to_pylist(), frame.get_column(name).to_list()):
            shown = [value.astimezone(dt.UTC) if type_ == ZONED and value else value for value in way]
            assert all(map(same, shown, [*values, None, None])), (type_, way)
        assert answer.statuses()[name] == ["PRESENT"] * 3 + ["NULL", "NOT_FOUND"]
    offline = exact.store.get_historical_features({"zone": [1, 2, 3, 4, 5], "t": [NOON] * 5}, [view]).to_arrow()
    for name in [field.name for field in offline.schema if field.name not in ("zone", "t")]:
        assert arrow.schema.field(name).type == offline.schema.field(name).type
        assert (
            arrow.column(name)
            .cast(pa.binary() if pa.types.is_binary(arrow.column(name).type) else arrow.column(name).type)
            .to_pylist()
            .__repr__()
            == offline.column(name).to_pylist().__repr__()
        )


def test_long_texts_are_cut_where_people_read_them(exact: OnlineLake):
    answer = exact.store.get_online_features(["wide:c7"], {"zone": [3], "mine": ["y" * 99]}, at=NOON)
    assert max(map(len, answer.lines()[:-1])) < 60
    assert "x" * 39 + "…" in repr(answer)
    assert answer.to_dict()["c7"] == ["x" * 5_000]


@pytest.mark.parametrize(("entities", "said"), [(21, "… and 1 more entity"), (22, "… and 2 more entities")])
def test_what_is_not_shown_is_counted(served: OnlineLake, entities: int, said: str):
    answer = served.store.get_online_features(["state:fare"], [{"zone": 1}] * entities, at=NOON)
    assert answer.lines()[-2] == said


def test_what_people_read_has_no_control_characters(keyed: OnlineLake):
    answer = keyed.store.get_online_features(["by_name:f"], {"name": ["a\nb\x1b[31m"], "\x07": ["ü\ud800"]}, at=NOON)
    assert [line.split() for line in answer.lines()[:2]] == [
        ["name", r"a\nb\x1b[31m"],
        [r"\x07", r"ü\ud800"],
    ]  # fmt: skip
    assert all(line.isprintable() for line in answer.lines())


def test_features_of_everybody_have_no_head(served: OnlineLake):
    answer = served.store.get_online_features(["town:trips"], [{}], at=NOON)
    assert answer.lines()[:-1] == ["trips  100"]


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (1_753, "29 min"), (7_199, "120 min"), (7_200, "2 h"),
     (172_799, "48 h"), (172_800, "2 days"), (1e8, "1,157 days")],
)  # fmt: skip
def test_an_age_is_told_in_its_unit(seconds: float, age: str):
    stamp = Stamp("A", 3, AT, "2024-01-02T12:00:00.000000Z", lambda: NOON + dt.timedelta(seconds=seconds))
    assert str(stamp) == f"generation A of snapshot 3, {age} old, as of 2024-01-02T12:00:00.000000Z"


def test_instants_of_the_first_years_have_four_digits():
    assert Stamp("A", 3, -62_135_596_800_000_000, "", lambda: NOON).at == "0001-01-01T00:00:00.000000Z"


def test_every_way_out_has_the_same_columns(exact: OnlineLake):
    answer = exact.store.get_online_features(["wide:c0", "wide:c4"], {"zone": [1, 4], "tag": ["a", "b"]}, at=NOON)
    names = ["zone", "tag", "c0", "c0__status", "c4", "c4__status"]
    assert list(answer.to_dict(statuses=True)) == names
    assert answer.to_arrow(statuses=True).column_names == names
    assert answer.to_polars(statuses=True).columns == names
    assert list(answer.to_df(statuses=True).columns) == names
    assert pa.table(answer).column_names == ["zone", "tag", "c0", "c4"]
    assert isinstance(pl.DataFrame(answer), pl.DataFrame)
    frame = answer.to_df()  # c0 is null for zone 4
    assert (frame["c0"][0], str(frame["c0"].dtype)) == (2**53 + 1, "Int64")
    assert list(frame["c4"]) == [EXACT["DECIMAL(38,10)"][0], None]
    assert answer.to_pandas().equals(frame)


def test_what_arrow_cannot_hold_is_a_clear_error(served: OnlineLake):
    answer = served.store.get_online_features("tips", {"zone": [1, 2], "odd": [1, "text"]}, at=NOON)
    assert answer.to_dict()["odd"] == [1, "text"]
    with pytest.raises(RequestError, match="'odd'"):
        answer.to_arrow()


@pytest.mark.parametrize("odd", ["\ud800", {1}, 2**200, Decimal("NaN"), Decimal("1e90"), object()], ids=repr)
def test_what_arrow_cannot_hold_is_no_raw_error(served: OnlineLake, odd: Any):
    answer = served.store.get_online_features("tips", {"zone": [1, 2], "odd": [odd, Decimal("0.5")]}, at=NOON)
    assert answer.to_dict()["odd"][0] is odd
    for shown in (answer.to_arrow, answer.to_polars, answer.to_df, answer.result):
        with pytest.raises(RequestError, match="the values of entity_rows in 'odd' do not fit one Arrow column\n"):
            shown()


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: {"a": value}])
def test_decimals_that_polars_cannot_hold(served: OnlineLake, wrap: Any):
    rows = {"zone": [1, 2], "odd": [wrap(Decimal("1.5")), wrap(Decimal("1.5" + "0" * 42))]}
    answer = served.store.get_online_features("tips", rows, at=NOON)
    assert answer.to_arrow().column("odd").to_pylist() == rows["odd"]
    for shown in (answer.to_polars, answer.result().to_polars):
        with pytest.raises(RequestError, match="'odd' need more than the 38 digits that polars has"):
            shown()


# -- join keys ------------------------------------------------------------------------------------------------------

KEYS: dict[str, tuple[str, Any]] = {
    "small": ("SMALLINT", 7),
    "whole": ("BIGINT", 7),
    "price": ("DECIMAL(10,2)", Decimal("1.50")),
    "name": ("VARCHAR", "a"),
    "blob": ("BLOB", b"a"),
    "day": ("DATE", dt.date(2024, 1, 1)),
    "local": ("TIMESTAMP", dt.datetime.fromisoformat("2024-01-01")),
    "time": (ZONED, NOON),
    "yes": ("BOOLEAN", True),
}
LONG = "x" * 5_000


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> OnlineLake:
    lake = OnlineLake(tmp_path_factory.mktemp("keyed"))
    types = {"seen": ZONED, "f": "BIGINT", **{name: type_ for name, (type_, _) in KEYS.items()}}
    columns: dict[str, Any] = {"seen": [AT - 1], "f": [5], **{name: [value] for name, (_, value) in KEYS.items()}}
    table = TableName("warehouse", "keyed")
    lake.put(types, [typed(types, columns)], table)
    lake.store.apply([
        FeatureView(
            f"by_{name}", source="warehouse.keyed", entities=[Entity(name)], event_timestamp="seen",
            features=[Feature("f")],
        )
        for name in KEYS
    ])  # fmt: skip
    lake.store.materialize(at=NOON)
    return lake


def ask(lake: OnlineLake, name: str, keys: list[Any]) -> OnlineFeatures:
    return lake.store.get_online_features([f"by_{name}:f"], {name: keys}, at=NOON)


def arrow_key(name: str) -> pa.DataType:
    return typed({name: KEYS[name][0]}, {name: []}).schema.field(name).type


@pytest.mark.parametrize("name", KEYS)
def test_a_key_column_has_the_type_of_the_key_whatever_is_asked(keyed: OnlineLake, name: str):
    value = KEYS[name][1]
    for keys in ([], [None], [value], [None, value, value]):
        answer = ask(keyed, name, keys)
        assert answer.to_dict() == {name: keys, "f": [key and 5 for key in keys]}
        assert answer.to_arrow().schema.field(name).type == arrow_key(name)
        assert answer.to_arrow().column(name).to_pylist() == keys
        assert answer.to_polars().get_column(name).to_list() == keys


@pytest.mark.parametrize(
    ("name", "keys", "held"),
    [
        ("small", [7, 2**15], [7, None]),
        ("whole", [7, 2**63], [7, None]),
        ("whole", [2**63], [None]),
        ("whole", [2**200, Decimal(7)], [None, 7]),
        ("whole", [7, 7.0, math.nan, Decimal("7.0"), Decimal("7.5")], [7, 7, None, 7, None]),
        ("price", [Decimal("1.5"), Decimal("1.5" + "0" * 42)], [Decimal("1.50")] * 2),
        ("price", [Decimal("1e40"), Decimal("1.5"), 2], [None, Decimal("1.50"), Decimal("2.00")]),
        ("price", [Decimal("NaN"), Decimal("1.505"), math.nan], [None] * 3),
        ("price", [2.0, Decimal("1.5")], [Decimal("2.00"), Decimal("1.50")]),
        ("name", ["\ud800", "a", LONG], [None, "a", LONG]),
        ("name", ["\ud800"], [None]),
        ("time", [dt.datetime(2024, 1, 2, 13, tzinfo=dt.timezone(dt.timedelta(hours=1)))], [NOON]),
    ],
)
def test_a_key_that_its_type_cannot_hold_is_null_and_nobody(keyed: OnlineLake, name: str, keys: Any, held: Any):
    answer = ask(keyed, name, keys)
    known = KEYS[name][1]
    assert str(answer.to_dict()[name]) == str(keys)
    assert answer.statuses()["f"] == ["PRESENT" if value == known else "NOT_FOUND" for value in held]
    assert answer.to_arrow().schema.field(name).type == arrow_key(name)
    assert answer.to_arrow().column(name).to_pylist() == held
    assert answer.to_polars().get_column(name).to_list() == held
    assert len(answer.to_df()) == len(keys)


def test_a_column_that_is_keys_of_two_types_comes_as_it_is(keyed: OnlineLake):
    features = [*keyed.store.definitions().projections(["by_whole:f"])]
    role = keyed.store.definitions().views["by_small"].definition.on(small="whole", prefix="small")
    answer = keyed.store.get_online_features([*features, role], {"whole": [7, 2**15]}, at=NOON)
    assert answer.to_dict() == {"whole": [7, 2**15], "f": [5, None], "small__f": [5, None]}
    assert answer.to_arrow().schema.field("whole").type == pa.int64()


def test_a_missing_value_of_pandas_is_null(keyed: OnlineLake):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"whole": pd.array([7, None], "Int64"), "other": pd.array([None, "a"], "string")})
    times = pd.DataFrame({"time": [pd.Timestamp(NOON), pd.NaT]})
    for name, rows, other in (("whole", frame, {"other": [None, "a"]}), ("time", times, {})):
        key = KEYS[name][1]
        for records in (rows.to_dict("records"), rows.to_dict("list")):
            answer = keyed.store.get_online_features([f"by_{name}:f"], records, at=NOON)
            for found in (answer.to_dict(), answer.to_arrow().to_pydict()):
                assert found == {name: [key, None], **other, "f": [5, None]}
        for _ in range(2):  # the second by the short way for one row
            single = keyed.store.get_online_features([f"by_{name}:f"], rows.to_dict("records")[1:], at=NOON)
            assert single.to_dict()[name] == [None]


# -- flips, damage, threads -----------------------------------------------------------------------------------------


def test_the_next_call_sees_a_flip(fresh: OnlineLake):
    store = fresh.store
    first = store.get_online_features("tips", [{"zone": 1}], at=NOON)
    fresh.append(facts((1, -0.1, None, "8.00", "new")))
    fresh.another().materialize(at=NOON)
    second = store.get_online_features("tips", [{"zone": 1}], at=NOON)
    assert (first.to_dict()["note"], second.to_dict()["note"]) == ([None], ["new"])
    assert (first.stamp.snapshot, second.stamp.snapshot) == (3, 4)
    fresh.another().online.rollback()
    third = store.get_online_features("tips", [{"zone": 1}], at=NOON)
    assert (third.to_dict(), third.stamp.generation) == (first.to_dict(), first.stamp.generation)


def test_a_flip_brings_the_definitions_of_its_snapshot(fresh: OnlineLake):
    store = fresh.store
    assert list(store.get_online_features("tips", [{"zone": 1}], at=NOON).statuses()) == list(ZONE_1)
    fresh.store.apply(everything(replace(STATE, features=[Feature("note")])))
    assert list(store.get_online_features("tips", [{"zone": 1}], at=NOON).statuses()) == list(ZONE_1)
    fresh.another().materialize(at=NOON)
    now = store.get_online_features("tips", [{"zone": 1}], at=NOON)
    assert list(now.statuses()) == [name for name in ZONE_1 if name != "fare"]
    with pytest.raises(RequestError, match="tips@1"):
        store.get_online_features("tips@1", [{"zone": 1}], at=NOON)


@pytest.mark.parametrize("damage", ["cut short", "flipped byte", "missing"])
def test_a_damaged_file_is_an_error_and_rollback_serves_the_older_one(fresh: OnlineLake, damage: str):
    fresh.append(facts((1, -0.1, None, "8.00", "new")))
    fresh.store.materialize(at=NOON)
    path = fresh.directory / "views" / fresh.files["state"]
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        place = len(content) // 2
        path.chmod(0o600)
        path.write_bytes(content[:-100] if damage == "cut short" else content[:place] + b"\xa5" + content[place + 1 :])
    reader = fresh.another()
    for _ in range(2):
        with pytest.raises(CatalogDamagedError) as error:
            reader.get_online_features("tips", [{"zone": 1}], at=NOON)
        assert str(path) in str(error.value)
        assert "penstock online rollback" in str(error.value)
    fresh.another().online.rollback()
    assert reader.get_online_features("tips", [{"zone": 1}], at=NOON).to_dict()["note"] == [None]


def test_threads_go_on_through_flips(fresh: OnlineLake):
    """Every answer is of one snapshot, whichever thread saw the flip first."""
    errors: list[BaseException] = []
    seen: set[tuple[int, str | None, int]] = set()
    done = threading.Event()

    def hammer() -> None:
        try:
            while not done.is_set():
                answer = fresh.store.get_online_features("tips", {"zone": [1, 1]}, at=NOON)
                found = answer.to_dict()
                assert found["note"][0] == found["note"][1]
                seen.add((answer.stamp.snapshot, found["note"][0], found["rides_1d"][0]))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test reports it
            errors.append(error)

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    writer = fresh.another()
    for number in range(2):
        fresh.append(facts((1, -0.1, None, f"{number}.00", str(number))))
        writer.materialize(at=NOON)
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert seen <= {(3, None, 2), *((4 + number, str(number), 3 + number) for number in range(2))}
    fresh.store.online.close()


# -- imports --------------------------------------------------------------------------------------------------------

HEAVY = ("duckdb", "polars", "deltalake", "pandas", "sqlglot", "rich", "starlette", "uvicorn", "http.server")


@pytest.mark.parametrize("features", ['["state:fare", "sums:rides_1d", "town:trips"]', '"tips"'])
def test_a_lookup_imports_no_heavy_library(served: OnlineLake, features: str):
    script = f"""
import sys
from featurestore import FeatureStore
store = FeatureStore({str(served.root / "lake")!r})
answer = store.get_online_features({features}, [{{"zone": 1}}], at="2024-01-02T12:00:00Z")
assert answer.to_dict()["rides_1d"] == [2], answer
print(*(name for name in {HEAVY!r} if name in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=served.root)
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "", "")


def test_errors_of_lookups_are_of_one_family(served: OnlineLake):
    for rows in ([{"zone": object()}], [{"zone": math.inf}], [{1: 2}], {"zone": [{}]}, [{"zone": 1, None: 2}]):
        with pytest.raises(PenstockError):
            served.store.get_online_features("tips", rows, at=NOON)
