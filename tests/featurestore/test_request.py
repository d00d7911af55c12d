"""Requests: which features of which views, under which names; what is unknown, and what would clash."""

from __future__ import annotations

import pytest

from featurestore.binding import BoundFeature, BoundView, Column
from featurestore.definitions import Projection
from featurestore.request import Asked, resolve
from lakehouse.errors import RequestError


def a_view(name: str, keys: str, features: str) -> BoundView:
    return BoundView(
        name=name,
        source=f"select * from {name}",
        keys=tuple(Column(key, "BIGINT") for key in keys.split()),
        event_timestamp="e",
        created_timestamp=None,
        tie_breaker=(),
        features=tuple(BoundFeature(feature, "BIGINT") for feature in features.split()),
        inputs=tuple(Column(feature, "BIGINT") for feature in features.split()),
        ttl=None,
        delay=0,
        closed_left=False,
        online=True,
    )


DEMAND, WEATHER = a_view("demand", "zone borough", "trips fare tip"), a_view("weather", "", "rain trips")
VIEWS = {"demand": DEMAND, "weather": WEATHER}


def names(*projections: Projection, **how) -> list[str]:
    return [name for asked in resolve(projections, VIEWS, **how) for name in asked.names]


def refused(*facts: str, projections, **how) -> None:
    with pytest.raises(RequestError) as caught:
        resolve(projections, VIEWS, **how)
    for fact in facts:
        assert fact in str(caught.value)


def test_a_view_gives_all_its_features_in_order():
    assert resolve([Projection("demand")], VIEWS) == (
        Asked(DEMAND, ("zone", "borough"), DEMAND.features, ("trips", "fare", "tip")),
    )
    assert resolve([], VIEWS) == ()


def test_a_part_comes_in_the_order_wanted():
    (asked,) = resolve([Projection("demand", ("tip", "trips"))], VIEWS)
    assert asked.features == (BoundFeature("tip", "BIGINT"), BoundFeature("trips", "BIGINT"))
    assert asked.names == ("tip", "trips")


def test_a_role_reads_its_keys_elsewhere_in_the_views_order():
    roles = [
        Projection("demand", ("tip",), {"borough": "to_borough", "zone": "to"}, "to"),
        Projection("demand", ("tip",)),
    ]
    to, here = resolve([*roles[:1], Projection("demand", ("tip",), {"zone": "from"}, "from")], VIEWS)
    assert to.keys == ("to", "to_borough")
    assert here.keys == ("from", "borough")
    assert names(*roles) == ["to__tip", "tip"]
    assert resolve([Projection("weather", ("rain",), {}, "w")], VIEWS)[0].keys == ()


def test_full_names_say_the_view_but_a_prefix_is_kept():
    asked = [Projection("demand", ("trips",)), Projection("weather"), Projection("demand", ("tip",), {}, "to")]
    assert names(*asked, full_feature_names=True) == ["demand__trips", "weather__rain", "weather__trips", "to__tip"]


def test_what_comes_out_is_in_the_order_of_what_was_asked():
    asked = [Projection("weather", ("rain",)), Projection("demand", ("trips",)), Projection("demand", ("fare",))]
    assert names(*asked) == ["rain", "trips", "fare"]


@pytest.mark.parametrize(
    ("projection", "facts"),
    [
        (Projection("demands"), ["there is no feature view 'demands'", "Did you mean demand?"]),
        (Projection("x"), ["there is no feature view 'x'", "Feature views: demand, weather."]),
        (Projection("demand", ("trip",)), ["feature view 'demand'", "there is no feature 'trip'", "Did you mean trips or tip?"]),
        (Projection("demand", ("rain",)), ["there is no feature 'rain'", "fare"]),
        (Projection("demand", ("Trips",)), ["there is no feature 'Trips'", "Did you mean trips"]),
        (Projection("demand", None, {"zones": "z"}), ["feature view 'demand'", "there is no join key 'zones'", "Did you mean zone?"]),
        (Projection("weather", None, {"zone": "z"}), ["there is no join key 'zone'", "There are no join keys"]),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named_with_what_is_near(projection, facts):
    refused(*facts, projections=[projection])


def test_a_clash_names_both():
    refused(
        "two columns would be called 'trips': demand:trips and weather:trips",
        "full_feature_names=True",
        projections=[Projection("demand"), Projection("weather")],
    )
    refused(
        "two columns would be called 'trips': the column 'Trips' of the spine and demand:trips",
        "rename the spine's column",
        projections=[Projection("demand")],
        taken=["zone", "Trips"],
    )
    refused(
        "two columns would be called 'to__tip': demand:tip is asked for twice",
        "Leave one out, or give each role a prefix of its own",
        projections=[Projection("demand", ("tip",), {"zone": zone}, "to") for zone in ("a", "b")],
    )
    refused(
        "two columns would be called 'Demand__tip': demand:tip is asked for twice",  # files know no case
        projections=[Projection("demand", ("tip",)), Projection("demand", ("tip",), {}, "Demand")],
        full_feature_names=True,
    )


def test_the_ways_out_of_a_clash_work():
    both = [Projection("demand"), Projection("weather")]
    assert "weather__trips" in names(*both, full_feature_names=True)
    assert "w__trips" in names(both[0], Projection("weather", None, {}, "w"))
    assert names(Projection("demand"), taken=["zone", "borough", "trips_of_the_spine"]) == ["trips", "fare", "tip"]
