"""Features of New York's taxi trips: what can be known at pick-up about how generous the card tip will be."""

from featurestore import Aggregate, Entity, Feature, FeatureService, FeatureView

zone = Entity("zone", join_keys=["pickup_zone"], description="one of the city's 265 taxi zones")

# A trip is known when it ends, and is asked for when the next one begins. closed="left": a trip of no duration ends the
# moment it begins, and must not be part of what was known then.
zone_demand = FeatureView(
    "zone_demand",
    entities=[zone],
    source="warehouse.trips",
    event_timestamp="dropoff_at",
    closed="left",
    features=[
        Aggregate("trips", "count", windows=["1h", "1d", "7d"]),
        Aggregate("fare", "mean", column="fare", windows=["1d", "7d"]),
        Aggregate("longest", "max", column="distance", windows=["7d"]),
    ],
    description="how busy a zone is",
    owner="city-data",
)

zone_tips = FeatureView(
    "zone_tips",
    entities=[zone],
    source="""
        select pickup_zone, dropoff_at, tip, (tip / fare)::decimal(12,4) as rate
        from warehouse.trips where payment_type = 1 and fare > 0
    """,
    event_timestamp="dropoff_at",
    closed="left",
    features=[
        Aggregate("card_trips", "count", windows=["7d"]),
        Aggregate("tips", "sum", column="tip", windows=["7d"]),
        Aggregate("tip_rate", "mean", column="rate", windows=["1d", "7d"]),
    ],
    description="how a zone's passengers tip by card",
    owner="city-data",
)

# A day's figures are known when it is over; no entity: one row for everybody.
city_day = FeatureView(
    "city_day",
    entities=[],
    source="""
        select (day + 1)::timestamp at time zone 'America/New_York' as day_end,
               trips as city_trips, (tips / fares)::decimal(9,4) as city_tip_share
        from warehouse.daily_trips
    """,
    event_timestamp="day_end",
    ttl="2d",
    features=[Feature("city_trips", "bigint"), Feature("city_tip_share", "decimal(9,4)")],
    description="the day before, city-wide",
    owner="city-data",
)

tips = FeatureService(
    "tips",
    features=[
        zone_demand,
        zone_tips,
        zone_demand.on(pickup_zone="dropoff_zone", prefix="dropoff")[["trips_1d", "trips_7d"]],
        city_day,
    ],
    description="will the tip be more than a fifth of the fare?",
    owner="city-data",
)
