"""Whether sources keep a past: what is refused, and what the plan says where that cannot be told."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the fixture module lies beside the tests

from definition_lake import ZONE, DefinitionLake

from featurestore.definitions import Aggregate, Entity, Feature, FeatureView
from lakehouse.errors import DefinitionError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = DefinitionLake(tmp_path_factory.mktemp("built"))
    lake.build()
    return lake.root


@pytest.fixture
def lake(built: Path, tmp_path: Path) -> DefinitionLake:
    """Return a copy of a promoted lake."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return DefinitionLake(tmp_path)


def refused(lake: DefinitionLake, view: FeatureView) -> str:
    with pytest.raises(DefinitionError) as caught:
        lake.plan_features([view])
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "words"),
    [("zone_status", "INSERT OR REPLACE overwrites"), ("warehouse.daily", "each full refresh replaces")],
)
def test_a_source_without_a_past_must_say_so(lake: DefinitionLake, table: str, words: str):
    column = "fare" if table == "zone_status" else "trips"
    view = FeatureView("status", table, [ZONE], [Feature(column)], event_timestamp="seen")
    message = refused(lake, view)
    assert words in message
    assert "its primary key (zone) is the entity's" in message
    assert 'history="current"' in message
    plan = lake.apply([replace(view, history="current")])
    assert any('accepted by history="current"' in text for text in plan.notes)


def status(source: str = "warehouse.zone_status", **changes) -> FeatureView:
    return FeatureView(**{
        "name": "status", "source": source, "entities": [ZONE], "features": [Feature("fare")], "event_timestamp": "seen",
    } | changes)  # fmt: skip


@pytest.mark.parametrize(
    "source",
    [
        "select * from warehouse.zone_status",
        "from warehouse.zone_status where fare > 1",
        "select zone, seen, fare from warehouse.zone_status group by all",
        "select distinct s.zone, seen, fare from warehouse.zone_status as s order by seen",
        "select zone, max(seen) as seen, sum(fare) as fare from warehouse.zone_status group by zone",
        "select * exclude (fare) replace (seen + interval 1 hour as seen), fare + 1 as fare from warehouse.zone_status",
        "with s as (select zone as z, seen, fare from warehouse.zone_status) select z as zone, seen, fare from s",
        "select * from (select zone, * exclude (zone) from warehouse.zone_status) where fare is not null",
        "select * from warehouse.zone_status qualify fare > avg(fare) over (partition by zone)",
    ],
)
def test_a_select_over_a_source_without_a_past_has_none_either(lake: DefinitionLake, source: str):
    message = refused(lake, status(source))
    assert "warehouse.zone_status keeps only the present: its primary key (zone) is the entity's" in message
    plan = lake.apply([status(source, history="current")])
    assert any('accepted by history="current"' in text for text in plan.notes)


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("select zone, max(seen) as seen, sum(fare) as fare from warehouse.trips group by zone", "GROUP BY"),
        ("select t.zone, max(seen) as seen, sum(fare) as fare from warehouse.trips t group by t.ZONE", "GROUP BY"),
        ("select k % 2 as zone, max(seen) as seen, sum(fare) as fare from warehouse.trips group by 1", "GROUP BY"),
        (
            "select k % 2 as zone, max(seen) as seen, sum(fare) as fare from (select * exclude (zone) from warehouse.trips) group by zone",
            "GROUP BY",
        ),
        ("from warehouse.trips qualify row_number() over (partition by zone order by k) = 1", "QUALIFY row_number()"),
        (
            "select zone, seen, fare from warehouse.trips qualify row_number() over (partition by zone order by k) = 1",
            "QUALIFY row_number() … = 1",
        ),
    ],
)
def test_a_select_that_takes_one_row_per_entity_has_no_past(lake: DefinitionLake, source: str, how: str):
    message = refused(lake, status(source))
    assert f"feature view 'status': its source keeps only the present: {how}" in message
    assert "leaves one row per entity\n  Keep its history: give the view all rows." in message
    plan = lake.apply([status(source, history="current")])
    assert any('accepted by history="current"' in text for text in plan.notes)


@pytest.mark.parametrize(
    "source",
    [
        "select zone, seen, sum(fare) as fare from warehouse.trips group by zone, seen",
        "select zone, max(seen) as seen, sum(fare) as fare from warehouse.trips group by zone, seen::date",
        "from warehouse.trips qualify row_number() over (partition by zone, seen order by k) = 1",
        "from warehouse.trips qualify row_number() over (partition by zone order by k) <= 2",
        "from warehouse.trips qualify row_number() over (partition by zone order by k) = 2 or fare > 0",
        "select zone, max(seen) as seen, sum(fare) as fare from warehouse.trips group by grouping sets ((zone), (k))",
    ],
)
def test_a_select_that_takes_more_may_have_a_past(lake: DefinitionLake, source: str):
    lake.apply([status(source)])


TWO = Entity("pair", join_keys=["zone", "paid"])
AGAIN = "select * from s where fare < 0"
PAIR = """select zone, seen, fare, zone > 1 as paid from warehouse.zone_status"""


@pytest.mark.parametrize("source", [PAIR, f"select * from ({PAIR})"])
def test_more_join_keys_than_the_primary_key_are_no_past(lake: DefinitionLake, source: str):
    assert "keeps only the present" in refused(lake, status(source, entities=[TWO]))


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("warehouse.zone_status", {"entities": []}),
        (
            "warehouse.zone_status",
            {"entities": [Entity("fare")], "features": [Aggregate("n", "count", windows=["1d"])]},
        ),
        ("select zone + 0 as zone, seen, fare from warehouse.zone_status", {}),
        ("select zone, seen, fare from warehouse.zone_status union all by name select zone, seen, fare from lake_", {}),
        ("select s.* from warehouse.zone_status s join range(2) r on r.range = s.zone", {}),
        ("select zone, unnest([seen]) as seen, fare from warehouse.zone_status", {}),
        (f"with recursive s as (select * from warehouse.zone_status union all {AGAIN}) select * from s", {}),
    ],
)
def test_where_it_cannot_be_told_the_plan_says_what_is_kept(lake: DefinitionLake, source: str, changes: dict):
    source = source.replace("lake_", "warehouse.zone_status")
    told = (
        "warehouse.zone_status keeps only the newest row per zone: where one comes again with other values, status no "
        "longer sees the former ones"
    )
    view = status(source, **changes)
    assert lake.plan_features([view]).notes == (told,)
    assert lake.apply([view]).notes == (told,)
    assert lake.plan_features([view]).notes == ()  # said once
    assert lake.plan_features([replace(view, description="words")]).notes == ()
    assert lake.plan_features([replace(view, delay="1h")]).notes == (told,)
    assert lake.plan_features([replace(view, delay="1h", history="current")]).notes == ()


def test_nothing_is_said_of_tables_that_have_a_row_per_landed_record(lake: DefinitionLake):
    lake.model(
        "records",
        "create table warehouse.records (id varchar primary key, zone integer, seen timestamptz, fare decimal(10,2));\n"
        "insert or replace into warehouse.records\n"
        "select _record_id as id, z as zone, to_timestamp(k * 3600) as seen, v / 100 as fare from lake.trips;\n",
    )
    lake.model(
        "handed_on",
        "create table warehouse.handed_on (k varchar primary key, zone integer, seen timestamptz, fare decimal(10,2));\n"
        "truncate warehouse.handed_on;\n"
        "insert into warehouse.handed_on select id as k, zone, seen, fare from warehouse.records where fare > 0;\n",
    )
    lake.promote()
    assert lake.plan_features([status("warehouse.records")]).notes == ()
    assert lake.plan_features([status("warehouse.handed_on")]).notes == ()


def test_all_tables_that_are_joined_are_told(lake: DefinitionLake):
    source = "select t.zone, t.seen, s.fare from warehouse.trips t join warehouse.zone_status s using (zone)"
    plan = lake.plan_features([status(source), status(source, name="again")])
    assert [note.partition(":")[0] for note in plan.notes] == [
        "warehouse.trips keeps only the newest row per k",
        "warehouse.zone_status keeps only the newest row per zone",
    ]
    assert all("again, status no longer see the" in note for note in plan.notes)


@pytest.mark.parametrize(
    "source",
    [
        "warehouse.hourly",
        "select zone, hour + interval 1 hour as hour, fare from warehouse.hourly where fare > 0",
        "select * from (select zone, (hour at time zone 'UTC')::date::timestamptz as hour, fare from warehouse.hourly) x",
    ],
)
def test_a_key_with_the_event_in_it_has_a_past(lake: DefinitionLake, source: str):
    lake.model(
        "hourly",
        "create table warehouse.hourly (zone integer, hour timestamptz, fare decimal(38,2), primary key (zone, hour));\n"
        "truncate warehouse.hourly;\n"
        "insert into warehouse.hourly select zone, date_trunc('hour', seen) as hour, sum(fare) as fare "
        "from warehouse.trips group by all;\n",
    )
    lake.promote()
    assert lake.apply([status(source, event_timestamp="hour")]).notes == ()
    for last in (
        "select zone, max(hour) as hour, sum(fare) as fare from warehouse.hourly group by zone",
        "select * from warehouse.hourly qualify row_number() over (partition by zone order by hour desc) = 1",
    ):
        assert "leaves one row per entity" in refused(lake, status(last, event_timestamp="hour"))
