"""Sums near the limit of 38 digits, online: what fits is exact, what doesn't is refused by name, nothing else is."""

from __future__ import annotations

import datetime as dt
import sys
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from online_lake import NOON, OnlineLake, hours

from featurestore.definitions import Aggregate, Entity, FeatureView
from featurestore.testing.histories import arrow_table
from lakehouse.errors import PenstockError, RequestError

TYPES = {"zone": "BIGINT", "seen": "TIMESTAMP WITH TIME ZONE", "v": "DECIMAL(38,0)", "w": "DECIMAL(38,10)"}
BIG = Decimal(6 * 10**37)
NEAR = Decimal(10**38 - 1)
MINUS = Decimal(1 - 10**38)


def shifted(value: Decimal) -> Decimal:
    """Return a value with ten digits after the point instead of none; arithmetic would round it."""
    return Decimal(value.as_tuple()._replace(exponent=-10))


def lake_of(root: Path, *rows: tuple[int, float, Decimal | None], features: list[Aggregate]) -> OnlineLake:
    """Return a lake with a view ``sums`` of events: zone, hours after noon, value."""
    lake = OnlineLake(root)
    columns = {
        "zone": [row[0] for row in rows],
        "seen": [hours(row[1]) for row in rows],
        "v": [row[2] for row in rows],
        "w": [None if row[2] is None else shifted(row[2]) for row in rows],
    }
    lake.put(TYPES, [arrow_table(TYPES, columns)])
    lake.store.apply([FeatureView("sums", "warehouse.facts", [Entity("zone")], features, "seen")])
    return lake


def everything_of(lake: OnlineLake) -> list[str]:
    return [f"sums:{name}" for name in lake.store.definitions().views["sums"].bound.feature_names]


def agreed(lake: OnlineLake, zone: int, *instants: dt.datetime) -> list[dict[str, object]]:
    """Return the answers of a zone online, after making sure that they are those of offline."""
    answers = []
    asked = everything_of(lake)
    for at in instants:
        spine = {"zone": [zone], "event_timestamp": [at]}
        offline = lake.store.get_historical_features(spine, asked).to_arrow().drop_columns(list(spine)).to_pylist()
        online = lake.store.get_online_features(asked, [{"zone": zone}], at=at).to_dict()
        assert {name: values[0] for name, values in online.items() if name != "zone"} == offline[0]
        answers.append(offline[0])
    return answers


def test_a_sum_takes_in_its_own_windows_only(tmp_path: Path):
    """Two events of which no window of the sum holds both, in a view whose count has a longer one of the same hop."""
    lake = lake_of(
        tmp_path, (1, -49, BIG), (1, -1, BIG), (2, -1, BIG), (2, -49, None),
        features=[
            Aggregate("s", "sum", column="v", windows=["6h", "1d"], hop="1h"),
            Aggregate("c", "count", windows=["7d"], hop="1h"),
            Aggregate("n", "count", column="v", windows=["1d"], hop="1h"),
            Aggregate("low", "min", column="v", windows=["1d"], hop="1h"),
        ],
    )  # fmt: skip
    lake.store.materialize(at=NOON)
    first, later = agreed(lake, 1, NOON, NOON + dt.timedelta(hours=30))
    assert first == {"s_6h": BIG, "s_1d": BIG, "c_7d": 2, "n_1d": 1, "low_1d": BIG}
    assert later == {"s_6h": None, "s_1d": None, "c_7d": 2, "n_1d": 0, "low_1d": None}
    assert agreed(lake, 2, NOON)[0]["c_7d"] == 2
    assert lake.store.verify(everything_of(lake)).same


@pytest.mark.parametrize("hop", ["1h", "1d"])
def test_what_cancels_out_is_no_overflow(tmp_path: Path, hop: str):
    """The sum fits, though not that of any two of its parts, and no start of a window comes between them."""
    values = [NEAR, NEAR, MINUS, MINUS, Decimal(1), MINUS, NEAR]
    rows = [(zone, -0.1 * place - zone, value) for zone in (1, 2) for place, value in enumerate(values)]
    lake = lake_of(
        tmp_path, *rows, features=[Aggregate(n, "sum", column=n, windows=["2d"], hop=hop) for n in ("v", "w")]
    )  # fmt: skip
    at = dt.datetime(2024, 1, 3, tzinfo=dt.UTC)
    lake.at(hours(12)).store.materialize(at=at)
    assert agreed(lake, 1, at) == [{"v_2d": Decimal(1), "w_2d": shifted(Decimal(1))}]
    assert lake.store.verify(everything_of(lake)).same


def test_alternating_values_are_summed_exactly(tmp_path: Path):
    """From each hour on the sum fits; only on the way to it some do not."""
    rows = [(1, -place - 0.5, NEAR if place % 2 == 0 else MINUS) for place in range(40)]
    lake = lake_of(
        tmp_path, *rows,
        features=[Aggregate(n, "sum", column=n, windows=["1h", "2h", "1d"], hop="1h") for n in ("v", "w")],
    )  # fmt: skip
    lake.store.materialize(at=NOON)
    now, later = agreed(lake, 1, NOON, NOON + dt.timedelta(hours=23))
    assert [now["v_1h"], now["v_2h"], now["v_1d"]] == [NEAR, 0, 0]
    assert now["w_1h"] == later["w_1d"] == shifted(NEAR)
    assert lake.store.verify(everything_of(lake)).same


def test_a_window_that_overflows_is_named_with_the_way_out(tmp_path: Path):
    lake = lake_of(
        tmp_path, (1, -3, BIG), (1, -1, BIG),
        features=[
            Aggregate("fine", "sum", column="v", windows=["1h"], hop="1h"),
            Aggregate("paid", "sum", column="w", windows=["1h", "6h", "1d"], hop="1h"),
            Aggregate("c", "count", windows=["7d"], hop="1h"),
        ],
    )  # fmt: skip
    with pytest.raises(RequestError, match="more than 38 digits") as error:
        lake.store.materialize(at=NOON)
    text = str(error.value)
    assert "'sums'" in text
    assert "'w'" in text
    assert "paid_1d" in text
    assert "fine" not in text
    assert "DuckDB" not in text
    assert "Overflow in" not in text
    assert "SELECT as the source" in text
    assert "online=False" in text


def test_a_source_that_fails_is_not_blamed_on_a_sum(tmp_path: Path):
    lake = lake_of(tmp_path, (1, -3, BIG), (1, -1, None), features=[Aggregate("c", "count", windows=["1d"])])
    source = "select zone, seen, case when v is null then 0 else v * 10 end::decimal(38,0) as v from warehouse.facts"
    sums = [Aggregate("s", "sum", column="v", windows=["1d"])]
    lake.store.apply([FeatureView("sums", source, [Entity("zone")], sums, "seen")])
    with pytest.raises(PenstockError) as error:
        lake.store.materialize(at=NOON)
    assert "s_1d" not in str(error.value)


def test_events_to_come_may_overflow_a_sum_but_no_mean(tmp_path: Path):
    lake = lake_of(
        tmp_path, (1, -1, BIG), (1, 1, BIG),
        features=[Aggregate("s", "sum", column="v", windows=["1d"]), Aggregate("m", "mean", column="w", windows=["1d"])],
    )  # fmt: skip
    lake.store.materialize(at=NOON)
    later = NOON + dt.timedelta(hours=1)
    with pytest.raises(RequestError, match="more than 38 digits") as error:
        lake.store.get_online_features(["sums:s_1d"], [{"zone": 1}], at=later)
    text = str(error.value)
    assert "'sums'" in text
    assert "'s_1d'" in text
    assert "SELECT as the source" in text
    online = lake.store.get_online_features(["sums:m_1d"], [{"zone": 1}], at=later).to_dict()["m_1d"]
    spine = {"zone": [1], "event_timestamp": [later]}
    assert online == lake.store.get_historical_features(spine, ["sums:m_1d"]).to_arrow().column("m_1d").to_pylist()
    assert online == [6e27]
