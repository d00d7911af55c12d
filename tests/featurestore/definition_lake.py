"""A small promoted lake for the tests of definitions: trips by zone, an upsert keyed by zone, a daily refresh."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "lakehouse"))

from promotion_lake import PromotionLake

from featurestore.acceptance import read_definitions
from featurestore.definitions import Aggregate, Entity, Feature, FeatureService, FeatureView
from featurestore.registry import Definitions, apply_definitions, plan_definitions
from lakehouse.session import Session

COLUMNS = {"k": "BIGINT", "v": "BIGINT", "z": "BIGINT"}
TRIPS = """\
create table warehouse.trips (
  k    integer primary key,
  zone integer not null,
  seen timestamptz not null,
  fare decimal(10,2) not null,
  paid boolean not null
);
insert or replace into warehouse.trips
select k, z as zone, to_timestamp(k * 3600) as seen, v / 100 as fare, v > 0 as paid
from lake.trips; -- @since load(lake.trips)
"""
STATUS = """\
create table warehouse.zone_status (zone integer primary key, seen timestamptz not null, fare decimal(10,2) not null);
insert or replace into warehouse.zone_status
select z as zone, to_timestamp(k * 3600) as seen, v / 100 as fare
from lake.trips qualify row_number() over (partition by z order by k desc) = 1;
"""
DAILY = """\
create table warehouse.daily (zone integer primary key, seen timestamptz not null, trips bigint not null);
truncate warehouse.daily;
insert into warehouse.daily select zone, max(seen) as seen, count(*) as trips from warehouse.trips group by zone;
"""

ZONE = Entity("zone", description="a taxi zone", owner="city")
DEMAND = FeatureView(
    "demand",
    source="warehouse.trips",
    entities=[ZONE],
    event_timestamp="seen",
    features=[
        Aggregate("trips", "count", windows=["1h", "1d"]),
        Aggregate("fare", "mean", column="fare", windows=["1d"], description="mean fare"),
    ],
    owner="city",
)
LAST = FeatureView(
    "last_trip",
    source="select zone, seen, fare, paid from warehouse.trips -- all of them",
    entities=[ZONE],
    event_timestamp="seen",
    features=[Feature("fare", "decimal(10,2)"), Feature("paid")],
    ttl="7d",
)
TIPS = FeatureService("tips", features=[DEMAND, LAST.on(zone="to_zone", prefix="to")], owner="science")
ALL = [ZONE, DEMAND, LAST, TIPS]


class DefinitionLake(PromotionLake):
    """A promotion lake whose features can be applied."""

    def build(self) -> None:
        self.model("trips", TRIPS)
        self.model("zone_status", STATUS)
        self.model("daily", DAILY)
        self.land("trips", COLUMNS, ("a", [(1, 250, 1), (2, 300, 1), (3, 100, 2)]))
        self.promote()

    def plan_features(self, objects=None, **options):
        return plan_definitions(self.catalog.latest(), self.settings, ALL if objects is None else objects, **options)

    def apply(self, objects=None, **options):
        return apply_definitions(self.catalog, self.settings, ALL if objects is None else objects, **options)

    @property
    def definitions(self) -> Definitions:
        return read_definitions(self.catalog.latest())

    def session(self) -> Session:
        return Session(self.catalog.latest(), memory="500MB", threads=1)
