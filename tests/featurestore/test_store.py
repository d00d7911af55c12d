"""The façade: what users type, Feast users among them, from definitions to answers that agree."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

sys.path.append(str(Path(__file__).parent))

from online_lake import NOON, STATE, SUMS, TIPS, TOWN, OnlineLake, everything, facts, hours, moment

from featurestore import FeatureStore
from lakehouse.errors import DefinitionError, ProjectError, RequestError


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> OnlineLake:
    lake = OnlineLake.built(tmp_path_factory.mktemp("served"))
    lake.store.materialize(at=NOON)
    return lake


@pytest.fixture
def fresh(tmp_path: Path) -> OnlineLake:
    lake = OnlineLake.built(tmp_path)
    lake.store.materialize(at=NOON)
    return lake


# -- opening --------------------------------------------------------------------------------------------------------


def test_it_opens_where_it_is_told_to(served: OnlineLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = served.root / "lake"
    for store in (FeatureStore(place), FeatureStore(str(place)), FeatureStore(repo_path=place)):
        assert repr(store) == f"FeatureStore({str(place)!r})"
        assert list(store.definitions().views) == ["state", "sums", "town"]
    monkeypatch.chdir(place)
    assert list(FeatureStore().definitions().services) == ["tips"]
    with pytest.raises(ProjectError):
        FeatureStore(tmp_path / "nowhere")


def test_importing_it_costs_nothing():
    script = """
import sys
import featurestore, lakehouse
print(*(name for name in ("duckdb", "polars", "pyarrow", "numpy", "deltalake", "lmdb", "msgspec") if name in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


# -- a Feast user's script ------------------------------------------------------------------------------------------

FEAST_SCRIPT = """
from datetime import datetime

import pandas as pd
from featurestore import FeatureStore  # was: from feast import FeatureStore

store = FeatureStore(repo_path={repo!r})

entity_df = pd.DataFrame.from_dict(
    {{
        "zone": [1, 2, 1],
        "event_timestamp": [
            datetime(2024, 1, 2, 12, 0, 0),
            datetime(2024, 1, 2, 12, 0, 0),
            datetime(2024, 1, 2, 10, 0, 0),
        ],
        "label": [1, 0, 1],
    }}
)

training_df = store.get_historical_features(
    entity_df=entity_df,
    features=["state:fare", "sums:rides_1d", "sums:paid_1d"],
    timezone="UTC",  # new: naive times need a zone
).to_df()

print(list(training_df.columns))
print(training_df.to_csv(index=False))

feature_vector = store.get_online_features(
    features=["state:fare", "sums:rides_1d"],
    entity_rows=[{{"zone": 1}}, {{"zone": 2}}],
).to_dict()

print(feature_vector)
"""


def test_a_feast_script_runs_with_the_import_changed(tmp_path: Path):
    lake = OnlineLake.built(tmp_path)
    lake.store.materialize(at=NOON)
    script = FEAST_SCRIPT.format(repo=str(lake.root / "lake"))
    ran = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    columns, header, *rows, online = [line for line in ran.stdout.splitlines() if line]
    assert columns == "['zone', 'event_timestamp', 'label', 'fare', 'rides_1d', 'paid_1d']"
    assert header == "zone,event_timestamp,label,fare,rides_1d,paid_1d"
    assert rows == [
        "1,2024-01-02 12:00:00,1,2.50,2,12.50",
        "2,2024-01-02 12:00:00,0,,0,",
        "1,2024-01-02 10:00:00,1,10.00,1,10.00",
    ]
    # Online it is today: long after the windows, and everything has expired.
    assert online == "{'zone': [1, 2], 'fare': [None, None], 'rides_1d': [0, 0]}"


def test_a_pandas_spine_comes_back_as_it_was(served: OnlineLake):
    spine = pd.DataFrame(
        {
            "zone": pd.array([1, None, 2, 1], "Int64"),
            "event_timestamp": pd.to_datetime([NOON, NOON, NOON, NOON - dt.timedelta(hours=2)]),
            "note_of_mine": ["a", None, "c", "d"],
        },
        index=[7, 7, 3, 1],
    )
    before = spine.copy()
    frame = served.store.get_historical_features(spine, ["sums:rides_1d", "state:fare"]).to_df()
    pd.testing.assert_frame_equal(spine, before)
    assert list(frame.columns) == ["zone", "event_timestamp", "note_of_mine", "rides_1d", "fare"]
    assert frame["rides_1d"].tolist() == [2, 0, 0, 1]
    assert frame["fare"].tolist() == [Decimal("2.50"), None, None, Decimal("10.00")]
    assert frame["note_of_mine"].fillna("none").tolist() == ["a", "none", "c", "d"]


# -- offline and online ---------------------------------------------------------------------------------------------

ASKED = {"zone": [1, 2, 9, None, 1], "event_timestamp": [NOON, NOON, NOON, NOON, NOON]}


@pytest.mark.parametrize("features", ["tips", TIPS, ["state:note", "sums:paid_1d"], [STATE, TOWN]])
def test_offline_equals_online(served: OnlineLake, features: Any):
    offline = served.store.get_historical_features(ASKED, features)
    online = served.store.get_online_features(features, {"zone": ASKED["zone"]}, at=NOON)
    left, right = offline.to_arrow().drop_columns(["zone", "event_timestamp"]), online.to_arrow().drop_columns(["zone"])
    assert left.equals(right)
    assert offline.statuses().to_pydict() == online.statuses()


@pytest.mark.parametrize("made", [pl.DataFrame, pa.table, pd.DataFrame, dict, lambda rows: pa.table(rows).to_pylist()])
def test_spines_of_every_kind(served: OnlineLake, made: Any):
    job = served.store.get_historical_features(made({"zone": [1, 2], "event_timestamp": [NOON, NOON]}), "tips")
    assert job.to_polars()["rides_1d"].to_list() == [2, 0]


def test_a_spine_may_be_a_select(served: OnlineLake):
    query = "select zone, seen as event_timestamp from warehouse.facts order by seen"
    job = served.store.get_historical_features(query, "sums:rides_1d")
    assert job.to_arrow().column("rides_1d").to_pylist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("spine.csv", ["not 'spine.csv'", "read them first", "--spine FILE"]),
        ("", ["not ''"]),
        (" \n", ["a spine is a table or a SELECT"]),
        ("delete from warehouse.facts", ["a spine is a SELECT, not DELETE"]),
        ("-- c\ncopy (select 1 as zone) to 'x.csv'", ["a spine is a SELECT, not COPY"]),
        ("select 1 as zone; attach 'x.db'", ["a spine is a SELECT, not 2 statements: SELECT, ATTACH"]),
        ("Create table x as select 1", ["a spine is a SELECT, not CREATE"]),
    ],
)
def test_texts_that_are_no_spines(served: OnlineLake, query: str, words: list[str]):
    with pytest.raises(RequestError) as error:
        served.store.get_historical_features(query, "tips")
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("features", [pd.DataFrame({"x": range(1000)}), [pd.DataFrame({"x": range(1000)})], b"x" * 999])
def test_what_is_no_feature_is_not_shown_at_length(served: OnlineLake, features: Any):
    with pytest.raises(RequestError) as error:
        served.store.get_historical_features(ASKED, features)
    assert len(str(error.value)) < 300


def test_as_of_takes_the_data_and_the_definitions_of_a_snapshot(fresh: OnlineLake):
    store = fresh.store
    fresh.append(facts((1, -0.1, None, "5.00", "late")))
    store.apply([replace(SUMS, name="more"), *everything()])
    asked = {"zone": [1], "event_timestamp": [NOON]}

    def rides(features: Any, **options: Any) -> list[Any]:
        return store.get_historical_features(asked, features, **options).to_arrow().column("rides_1d").to_pylist()

    assert (rides("sums:rides_1d"), rides("sums:rides_1d", as_of=3)) == ([3], [2])
    with pytest.raises(RequestError, match="'more'"):
        rides("more:rides_1d", as_of=3)
    assert rides("more:rides_1d", as_of=3, definitions="latest") == [2]


@pytest.mark.parametrize("definitions", ["foo", "PINNED", None, 3])
def test_definitions_are_pinned_or_latest(served: OnlineLake, definitions: Any):
    with pytest.raises(RequestError, match="definitions cannot be") as error:
        served.store.get_historical_features(ASKED, "tips", definitions=definitions)
    assert "pinned takes" in str(error.value)
    assert "latest the newest" in str(error.value)


def test_names_and_roles_are_the_same_on_both_sides(served: OnlineLake):
    asked = {"zone": [1], "to_zone": [2], "event_timestamp": [NOON]}
    features = [STATE, STATE.on(zone="to_zone", prefix="to"), TOWN]
    for full in (False, True):
        offline = served.store.get_historical_features(asked, features, full_feature_names=full).statuses().column_names
        online = served.store.get_online_features(
            features, [{"zone": 1, "to_zone": 2}], at=NOON, full_feature_names=full
        ).statuses()
        assert offline == list(online)


def test_key_types_are_those_of_the_columns_that_are_needed(served: OnlineLake):
    assert served.store.key_types("tips") == {"zone": "BIGINT"}
    assert served.store.key_types([STATE, STATE.on(zone="to", prefix="to")]) == {"zone": "BIGINT", "to": "BIGINT"}
    assert served.store.key_types("town:trips") == {}


# -- definitions and their users ------------------------------------------------------------------------------------


def test_a_view_that_is_served_is_not_removed(fresh: OnlineLake):
    current = fresh.store.online.current_id()
    with pytest.raises(RequestError, match=f"online generation {current}") as error:
        fresh.store.apply([SUMS, STATE], prune=True)
    assert "set online=False for it, penstock apply, penstock materialize, remove it there" in str(error.value)
    fresh.store.apply([replace(TOWN, online=False), SUMS, STATE], prune=True)
    fresh.store.materialize(at=NOON)
    fresh.store.apply([SUMS, STATE], prune=True)
    assert list(fresh.store.definitions().views) == ["state", "sums"]
    assert list(fresh.store.definitions(as_of=3).views) == ["state", "sums", "town"]


def test_definitions_can_be_repaired_while_the_generation_is_damaged(fresh: OnlineLake):
    (path,) = (fresh.directory / "generations").iterdir()
    path.write_bytes(b"{}")
    store = fresh.another()
    store.apply(everything(replace(STATE, ttl="2h")))
    with pytest.raises(RequestError, match="damaged"):
        store.apply([SUMS, STATE], prune=True)


def test_plan_changes_nothing(fresh: OnlineLake):
    plan = fresh.store.plan(everything(replace(STATE, ttl="2h")))
    assert not plan.empty
    assert fresh.store.definitions().views["state"].definition.ttl == STATE.ttl
    with pytest.raises(DefinitionError, match="nothing"):
        fresh.store.plan([replace(STATE, event_timestamp="nothing")])


# -- training sets --------------------------------------------------------------------------------------------------


def test_training_sets(fresh: OnlineLake):
    store = fresh.store
    assert store.training_sets() == []
    saved = store.get_historical_features(ASKED, "tips").save("mine")
    assert [row["name"] for row in store.training_sets()] == ["mine"]
    fresh.append(facts((1, -0.1, None, "5.00", "late")))
    store.materialize(at=NOON)
    assert store.training_set("mine").reproduce().same
    assert store.get_historical_features(ASKED, "tips").save("mine").version == saved.version + 1
    with pytest.raises(RequestError, match="mine"):
        store.training_set("mein")


def test_a_training_set_does_not_need_its_views_to_be_applied(fresh: OnlineLake):
    store = fresh.store
    store.get_historical_features(ASKED, "tips").save("mine")
    store.apply([replace(view, online=False) for view in (STATE, SUMS, TOWN)], prune=True)
    store.materialize(at=NOON)
    plan = store.apply([], prune=True)
    assert "training set mine@1 was made with feature view sums, and keeps its definition" in plan.consequences
    assert not store.definitions().views
    assert store.training_set("mine").reproduce().same
    assert fresh.another().training_set("mine").reproduce().same


def test_a_single_definition_needs_no_list(served: OnlineLake):
    changed = replace(SUMS, description="words")
    assert served.store.plan(changed).summary == "changed feature view sums"


# -- the whole life of a generation ---------------------------------------------------------------------------------


def test_from_one_generation_to_the_next_and_back(fresh: OnlineLake):
    store = fresh.store
    asked = [{"zone": 1}]

    def answers() -> tuple[Any, ...]:
        answer = store.get_online_features("tips", asked, at=moment(hours(1)))
        offline = store.get_historical_features(
            {"zone": [1], "t": [NOON + dt.timedelta(hours=1)]}, "tips", as_of=answer.stamp.snapshot
        ).to_arrow()
        assert answer.to_arrow().drop_columns(["zone"]).equals(offline.drop_columns(["zone", "t"]))
        assert store.verify("tips").same
        return tuple(values[0] for values in answer.to_dict().values())

    first = answers()
    fresh.append(facts((1, -0.75, None, "1.00", "late"), (1, 0.5, 0.75, "9.00", "future")))
    store.materialize(at=NOON)
    second = answers()
    fresh.compact(reverse=True)
    store.materialize(at=NOON)
    assert answers() == second != first
    store.online.rollback()
    assert answers() == second
    store.online.rollback()
    assert answers() == first
    assert store.materialize(at=NOON).published
    assert answers() == second
