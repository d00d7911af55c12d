"""A small project of files for the tests of commands: trips by zone, two feature views, one of everybody, a service."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from featurestore.cli import cli

PROJECT = '[sources.trips]\nfiles = "data/*.csv"\ntimezone = "UTC"\n'
TRIPS = """\
trip,zone,seen,fare,tip,paid
1,007,2024-01-01 00:10:00,10.50,1.25,true
2,007,2024-01-01 02:00:00,20.00,,false
3,048,2024-01-01 03:00:00,5.25,0.75,true
4,132,2023-12-01 00:00:00,7.00,0.10,true
"""
MODEL = """\
create table warehouse.trips (
  trip bigint primary key, zone varchar not null, seen timestamptz not null,
  fare decimal(10,2) not null, tip decimal(10,2), paid boolean not null
);
insert or replace into warehouse.trips select trip, zone, seen, fare, tip, paid from lake.trips;
"""
FEATURES = '''\
from featurestore import Aggregate, Entity, Feature, FeatureService, FeatureView

zone = Entity("zone", description="a taxi zone", owner="city")
demand = FeatureView(
    "demand", source="warehouse.trips", entities=[zone], event_timestamp="seen",
    features=[
        Aggregate("trips", "count", windows=["1h", "1d"]),
        Aggregate("fare", "mean", column="fare", windows=["1d"], description="mean fare"),
    ],
    owner="city", description="how busy", tags={"tier": "gold"},
)
last = FeatureView(
    "last_trip",
    source="""
        select zone, seen, fare as last_fare, tip as last_tip, paid  -- the last one counts
        from warehouse.trips
    """,
    entities=[zone], event_timestamp="seen", ttl="7d",
    features=[Feature("last_fare", "decimal(10,2)"), Feature("last_tip"), Feature("paid")],
)
city = FeatureView(
    "city", source="select seen, count(*) over (order by seen, trip) as city_trips from warehouse.trips",
    entities=[], event_timestamp="seen", features=[Feature("city_trips")],
)
tips = FeatureService("tips", features=[demand, last.on(zone="to_zone", prefix="to"), city], owner="science")
'''
AT = "2024-01-01T03:00:00Z"
LATER = "2024-01-01T04:00:00Z"
SPINE = "select zone, zone as to_zone, seen as event_timestamp from warehouse.trips"


def made(root: Path, *commands: list[str], model: str = MODEL, features: str = FEATURES) -> Path:
    """Write the project's files, and run commands there."""
    for name, text in {
        "penstock.toml": PROJECT, "data/a.csv": TRIPS, "sql/warehouse/trips.sql": model, "features.py": features,
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for command in commands:
        run(*command, "--project", str(root))
    return root


def run(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(cli, arguments, input=stdin, catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result
