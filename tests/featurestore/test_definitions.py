"""Definitions: their normal forms, what they answer, and every way in which one can be wrong."""

from __future__ import annotations

import datetime as dt
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.definitions import (
    Aggregate,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    Projection,
    canonical_duration,
    micros,
    projections,
)
from featurestore.durations import duration_text
from lakehouse.errors import DefinitionError

ZONE = Entity("zone", ["pickup_zone"])
TRIPS = Aggregate("trips", "count", ["1h", "1d", "7d"])
FARE = Aggregate("fare", "mean", ["1h", "7d"], column="fare")
HOUR, DAY = 3_600_000_000, 86_400_000_000


def a_view(**changes) -> FeatureView:
    given = {
        "name": "demand",
        "source": "warehouse.trips",
        "entities": [ZONE],
        "features": [TRIPS, FARE],
        "event_timestamp": "dropoff_at",
    }
    return FeatureView(**{**given, **changes})


def a_plain_view(**changes) -> FeatureView:
    return a_view(**{"features": [Feature("a"), Feature("b")], **changes})


def refused(make, *facts: str) -> DefinitionError:
    """The error of a definition that cannot be, which tells these facts."""
    with pytest.raises(DefinitionError) as caught:
        make()
    for fact in facts:
        assert fact in str(caught.value)
    return caught.value


# -- durations --------------------------------------------------------------------------------------------------------

UNITS = {"us": 1, "ms": 1000, "s": 10**6, "m": 60 * 10**6, "h": HOUR, "d": DAY, "w": 7 * DAY}
CENTURY = 36600 * DAY


@pytest.mark.parametrize(
    ("value", "canonical", "length"),
    [
        ("90s", "90s", 90 * 10**6),
        ("5m", "5m", 300 * 10**6),
        (" 1 h ", "1h", HOUR),
        ("007d", "7d", 7 * DAY),
        ("2w", "2w", 14 * DAY),
        ("250ms", "250ms", 250_000),
        ("1us", "1us", 1),
        ("0s", "0s", 0),
        ("0d", "0d", 0),
        ("60m", "60m", HOUR),
        ("36600d", "36600d", CENTURY),
        (dt.timedelta(0), "0s", 0),
        (dt.timedelta(days=14), "14d", 14 * DAY),
        (dt.timedelta(hours=36), "36h", 36 * HOUR),
        (dt.timedelta(minutes=90), "90m", 90 * 60 * 10**6),
        (dt.timedelta(milliseconds=1500), "1500ms", 1_500_000),
        (dt.timedelta(days=1, microseconds=1), "86400000001us", DAY + 1),
    ],
)
def test_durations_have_a_canonical_text(value, canonical, length):
    assert canonical_duration(value) == canonical
    assert micros(canonical) == length


@given(st.timedeltas(dt.timedelta(0), dt.timedelta(days=36600)))
def test_a_timedelta_loses_nothing(length: dt.timedelta):
    text = canonical_duration(length)
    assert dt.timedelta(microseconds=micros(text)) == length
    assert canonical_duration(text) == text


@given(st.integers(0, 5200), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " ", "  "]))
def test_text_keeps_its_unit(number: int, unit: str, space: str):
    text = canonical_duration(f"{space}{number}{space}{unit}")
    assert text == f"{number}{unit}"
    assert micros(text) == number * UNITS[unit]
    assert micros(duration_text(micros(text))) == micros(text)


@pytest.mark.parametrize(
    "value",
    [
        *("", "1", "h", "-1h", "1.5h", "1e3s", "1y", "1M", "1H", "1h30m", "٣h", "1h\n2h", "36601d", "9" * 16 + "s"),
        *(60, 1.5, None, True, b"1h", dt.timedelta(microseconds=-1), dt.timedelta(days=36601)),
    ],
    ids=repr,
)
def test_what_is_no_duration(value):
    refused(lambda: canonical_duration(value, what="ttl"), f"ttl: {value!r} is not a duration", "90s, 5m, 1h, 7d or 2w")


def test_micros_take_canonical_text_only():
    refused(lambda: micros("one hour"), "'one hour' is not a duration")


# -- entities -------------------------------------------------------------------------------------------------------


def test_an_entity_is_identified_by_its_name_unless_told():
    assert Entity("zone").join_keys == ("zone",)
    assert Entity("zone", []).join_keys == ("zone",)
    assert Entity("trip", ["zone", "hack license"]).join_keys == ("zone", "hack license")
    assert Entity("zone", ["z"], tags={"b": "2", "a": "1"}) == Entity("zone", ("z",), tags={"a": "1", "b": "2"})
    assert list(Entity("zone", tags={"b": "2", "a": "1"}).tags) == ["a", "b"]
    assert Entity("zone") != Entity("zone", ["z"])


def test_definitions_are_frozen():
    with pytest.raises(FrozenInstanceError):
        ZONE.name = "other"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        a_view().ttl = "1h"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["", "1zone", "pick-up", "a b", "zöne", "zone\n", None, 5])
def test_names_are_letters_digits_and_underscores(name):
    for make in (
        lambda: Entity(name),
        lambda: Feature(name),
        lambda: Aggregate(name, "count", ["1h"]),
        lambda: a_view(name=name),
        lambda: FeatureService(name, ["demand:a"]),
    ):
        refused(make, f"{name!r} is not a name", "Letters (A–Z, a–z), digits and underscores")
    if name is not None:
        refused(lambda: a_view().on(prefix=name), f"{name!r} is not a name", "the prefix")


@pytest.mark.parametrize("keys", ["zone", [""], [5], {"zone"}, None, 5])
def test_join_keys_are_a_list_of_names(keys):
    refused(lambda: Entity("zone", keys), "entity 'zone'", "join_keys must be a list of names")


def test_a_join_key_is_named_once():
    refused(lambda: Entity("zone", ["z", "Z"]), "entity 'zone'", "the join key 'Z' is named twice")
    refused(lambda: a_view(entities=[ZONE, Entity("other", ["PICKUP_zone"])]), "join key 'PICKUP_zone' is named twice")


@pytest.mark.parametrize("tags", [None, "a", {"a": 1}, {1: "a"}, [("a", "b")]])
def test_tags_map_text_to_text(tags):
    for make in (
        lambda: Entity("zone", tags=tags),
        lambda: a_view(tags=tags),
        lambda: FeatureService("s", ["demand:a"], tags=tags),
    ):
        refused(make, "tags must map text to text")


# -- features and aggregates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["", "  ", 5, int])
def test_a_dtype_is_text(dtype):
    refused(lambda: Feature("fare", dtype), "feature 'fare'", "dtype must be a type as SQL spells it")


def test_features_say_their_names():
    assert Feature("fare", " bigint ").feature_names == ("fare",)
    assert Feature("fare", " bigint ") == Feature("fare", "bigint")
    assert TRIPS.feature_names == ("trips_1h", "trips_1d", "trips_7d")
    assert Aggregate("n", "count", [dt.timedelta(hours=48), " 60 m"]).feature_names == ("n_2d", "n_60m")


def test_aggregates_have_a_normal_form():
    given = Aggregate("n", "count", [dt.timedelta(hours=1), "07d"], hop=dt.timedelta(minutes=20))
    assert given == Aggregate("n", "count", ("1h", "7d"), hop="20m")
    assert given.windows == ("1h", "7d")
    assert given.hop == "20m"


@pytest.mark.parametrize(
    ("window", "hop"),
    [
        ("5m", "5m"),
        ("11h", "5m"),
        ("715m", "5m"),
        ("12h", "1h"),
        ("13h", "1h"),
        ("1d", "1h"),
        ("11d", "1h"),
        ("287h", "1h"),
        ("12d", "1d"),
        ("288h", "1d"),
        ("30d", "1d"),
        ("52w", "1d"),
    ],
)
def test_the_default_hop_follows_the_length_of_the_window(window, hop):
    assert Aggregate("n", "count", [window]).hop_of(window) == hop


def test_a_given_hop_holds_for_all_windows():
    aggregate = Aggregate("n", "count", ["10s", "1h", "30d"], hop="10s")
    assert [aggregate.hop_of(window) for window in aggregate.windows] == ["10s"] * 3
    exact = Aggregate("n", "count", ["1us", "7m"], hop=None)
    assert [exact.hop_of(window) for window in exact.windows] == [None, None]


@pytest.mark.parametrize(
    ("how", "facts"),
    [
        ({"function": "avg"}, ["there is no function 'avg'", "count, max, mean, min, sum"]),
        ({"function": "coun"}, ["there is no function 'coun'", "Did you mean count"]),
        ({"function": None}, ["there is no function None"]),
        ({"function": "sum"}, ["sum needs a column"]),
        ({"function": "mean"}, ["mean needs a column"]),
        ({"function": "min"}, ["min needs a column"]),
        ({"function": "max"}, ["max needs a column"]),
        ({"column": ""}, ["column must name a column of the source, not ''"]),
        ({"column": 5}, ["column must name a column of the source, not 5"]),
        ({"windows": []}, ["windows must be a list of durations"]),
        ({"windows": "1h"}, ["windows must be a list of durations"]),
        ({"windows": dt.timedelta(hours=1)}, ["windows must be a list of durations"]),
        ({"windows": 5}, ["windows must be a list of durations"]),
        ({"windows": {"1h", "2h"}}, ["windows must be a list of durations"]),
        ({"windows": ["1h", "soon"]}, ["windows: 'soon' is not a duration", "90s, 5m"]),
        ({"windows": ["1h", "01h"]}, ["the window '1h' is named twice"]),
        ({"windows": ["0s"]}, ["a window of length 0 holds nothing"]),
        ({"windows": ["299s"]}, ["the window 299s is shorter than 5 minutes and needs a hop"]),
        ({"windows": ["7m"]}, ["the window 7m is not a multiple of its hop 5m"]),
        ({"windows": ["721m"]}, ["the window 721m is not a multiple of its hop 1h"]),
        ({"windows": ["289h"]}, ["the window 289h is not a multiple of its hop 1d"]),
        ({"windows": ["1h", "25m"], "hop": "10m"}, ["the window 25m is not a multiple of its hop 10m"]),
        ({"windows": ["1h"], "hop": "2h"}, ["the window 1h is not a multiple of its hop 2h"]),
        ({"hop": "0s"}, ["a hop of length 0", "hop=None gives exact starts"]),
        ({"hop": "soon"}, ["hop: 'soon' is not a duration"]),
        ({"hop": 5}, ["hop: 5 is not a duration"]),
    ],
)
def test_wrong_aggregates_are_refused(how, facts):
    given = {"name": "n", "function": "count", "windows": ["1h"]}
    refused(lambda: Aggregate(**{**given, **how}), "aggregate 'n'", *facts)


# -- views ------------------------------------------------------------------------------------------------------------


def test_a_view_knows_its_columns_and_features():
    view = a_view(entities=[Entity("zone", ["z", "borough"]), Entity("vendor")])
    assert view.where == "feature view 'demand'"
    assert view.join_keys == ("z", "borough", "vendor")
    assert view.feature_names == ("trips_1h", "trips_1d", "trips_7d", "fare_1h", "fare_7d")
    assert view.is_aggregate
    assert view.aggregates == (TRIPS, FARE)
    plain = a_plain_view()
    assert not plain.is_aggregate
    assert plain.aggregates == ()
    assert a_plain_view(entities=[]).join_keys == ()


def test_views_have_a_normal_form():
    given = a_plain_view(
        source="  select * from warehouse.trips ;\n", delay=dt.timedelta(minutes=7), ttl="07d", tie_breaker=["x", "y"]
    )
    same = a_plain_view(source="select * from warehouse.trips", delay="7m", ttl="7d", tie_breaker=("x", "y"))
    assert given == same
    assert (given.source, given.delay, given.ttl) == ("select * from warehouse.trips", "7m", "7d")
    assert given.entities == (ZONE,)
    assert a_plain_view().ttl is None
    assert a_plain_view().delay == "0s"
    assert replace(given, ttl="8d") != given
    assert a_plain_view(features=[Feature("b"), Feature("a")]) != a_plain_view()  # the order decides ties


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"source": ""}, ["source must be a table or a SELECT"]),
        ({"source": "  \n"}, ["source must be a table or a SELECT"]),
        ({"source": None}, ["source must be a table or a SELECT"]),
        ({"event_timestamp": ""}, ["event_timestamp must name a column"]),
        ({"event_timestamp": None}, ["event_timestamp must name a column"]),
        ({"created_timestamp": ""}, ["created_timestamp must name a column of the source, not ''"]),
        ({"created_timestamp": 5}, ["created_timestamp must name a column of the source, not 5"]),
        ({"valid_to": True}, ["valid_to must name a column"]),
        ({"deleted": ""}, ["deleted must name a column"]),
        ({"entities": ZONE}, ["entities must be a list of Entity"]),
        ({"entities": "zone"}, ["entities must be a list of Entity"]),
        ({"entities": ["zone"]}, ["entities: 'zone' is no Entity"]),
        ({"features": Feature("a")}, ["features must be a list of Feature or Aggregate"]),
        ({"features": ["a"]}, ["features: 'a' is no Feature or Aggregate"]),
        ({"features": []}, ["a view needs at least one feature"]),
        ({"features": [Feature("a"), TRIPS]}, ["either features or aggregates, not both", "make two views of it"]),
        ({"features": [Feature("a"), Feature("A")]}, ["the feature 'A' is named twice"]),
        ({"features": [TRIPS, Aggregate("trips", "count", ["1d"], "x")]}, ["the feature 'trips_1d' is named twice"]),
        ({"features": [Feature("pickup_zone")]}, ["pickup_zone is a join key and a feature"]),
        ({"features": [Feature("Pickup_Zone")]}, ["Pickup_Zone is a join key and a feature"]),
        ({"closed": "both"}, ["closed is 'right' or 'left', not 'both'"]),
        ({"history": "some"}, ["history is 'full' or 'current', not 'some'"]),
        ({"delay": "later"}, ["delay: 'later' is not a duration"]),
        ({"delay": dt.timedelta(seconds=-1)}, ["delay:", "is not a duration"]),
        ({"ttl": "long", "features": [Feature("a")]}, ["ttl: 'long' is not a duration"]),
        ({"ttl": "-1h", "features": [Feature("a")]}, ["ttl: '-1h' is not a duration"]),
        ({"ttl": "0d", "features": [Feature("a")]}, ["a TTL of 0 serves nothing", "None never expires"]),
        ({"ttl": "1h"}, ["a view of aggregates takes no ttl", "Its windows say"]),
        ({"tie_breaker": ["x"]}, ["a view of aggregates takes no tie_breaker"]),
        ({"tie_breaker": "x"}, ["tie_breaker must be a list of names, not 'x'"]),
        ({"tie_breaker": ["x", "X"], "features": [Feature("a")]}, ["the tie_breaker 'X' is named twice"]),
        ({"features": [Aggregate("n", "count", ["1h"], hop=None)]}, ["aggregate 'n' has hop=None", "offline only"]),
    ],
)
def test_wrong_views_are_refused(changes, facts):
    refused(lambda: a_view(**changes), "feature view 'demand'", *facts)


def test_exact_starts_are_for_views_that_are_not_online():
    assert a_view(features=[Aggregate("n", "count", ["1h"], hop=None)], online=False).feature_names == ("n_1h",)


# -- parts and roles --------------------------------------------------------------------------------------------------


def test_a_role_reads_its_keys_from_other_columns():
    view = a_view(entities=[Entity("zone", ["zone", "borough"])])
    role = view.on(zone="dropoff_zone", prefix="dropoff")
    assert role == Projection("demand", None, {"zone": "dropoff_zone"}, "dropoff")
    assert role[["trips_1d", "fare_1h"]] == Projection(
        "demand", ("trips_1d", "fare_1h"), {"zone": "dropoff_zone"}, "dropoff"
    )
    assert view.on() == Projection("demand")
    assert view.on(zone="z", borough="b") == view.on(borough="b", zone="z")
    assert view.on(zone="x", borough="x").join_keys == {"zone": "x", "borough": "x"}


def test_a_part_takes_a_role_too():
    view = a_view(entities=[Entity("zone", ["zone", "borough"])])
    role = view[["trips_1h"]].on(zone="to", prefix="to")
    assert role == view.on(zone="to", prefix="to")[["trips_1h"]]
    assert role.definition == view
    assert role.on(borough="b") == Projection("demand", ("trips_1h",), {"zone": "to", "borough": "b"}, "to")
    assert Projection("demand", ("x",)).on(any_key="k") == Projection("demand", ("x",), {"any_key": "k"})


def test_part_of_a_view_keeps_the_order_wanted():
    assert a_view()[["trips_7d", "trips_1h"]] == Projection("demand", ("trips_7d", "trips_1h"))
    assert a_view()["trips_1h"] == Projection("demand", ("trips_1h",))
    assert a_view()[("trips_1h",)] == a_view()["trips_1h"]
    assert Projection("demand")[["anything"]] == Projection("demand", ("anything",))  # only the store knows that view


def test_a_projection_remembers_its_view_and_equals_one_that_does_not():
    view = a_view()
    for projection in (view.on(), view["trips_1h"], view.on(pickup_zone="z")[["trips_1h"]]):
        assert projection.definition == view
        assert projection == replace(projection)
    assert Projection("demand").definition is None


@pytest.mark.parametrize(
    ("take", "facts"),
    [
        (lambda v: v.on(pickup_zones="z"), ["there is no join key 'pickup_zones'", "Did you mean pickup_zone?"]),
        (lambda v: v["trips_1h"].on(pickup_zones="z"), ["there is no join key 'pickup_zones'", "pickup_zone?"]),
        (lambda v: v["trips_1h"].on(prefix="7"), ["'7' is not a name"]),
        (lambda v: v.on(pickup_zone=5), ["pickup_zone must be the name of a column, not 5"]),
        (lambda v: v[["trips_1m"]], ["there is no feature 'trips_1m'", "Did you mean trips_1"]),
        (lambda v: v["trips"], ["there is no feature 'trips'"]),
        (lambda v: v.on(prefix="p")[["trips_1h", "nothing"]], ["there is no feature 'nothing'"]),
        (lambda v: v[[]], ["no features are taken"]),
        (lambda v: v.on()[()], ["no features are taken"]),
        (lambda v: v[5], ["features must be a list of names, not 5"]),
        (lambda v: v[[5]], ["features must be a list of names"]),
        (lambda v: v[{"trips_1h"}], ["features must be a list of names"]),
        (lambda v: v[["trips_1h", "trips_1h"]], ["the feature 'trips_1h' is named twice"]),
    ],
)
def test_wrong_parts_and_roles_are_refused(take, facts):
    refused(lambda: take(a_view()), "'demand'", *facts)


def test_a_view_without_keys_has_no_roles():
    refused(lambda: a_view(entities=[]).on(zone="z"), "there is no join key 'zone'", "There are no join keys yet")
    assert a_view(entities=[]).on(prefix="all") == Projection("demand", prefix="all")


# -- services and lists ---------------------------------------------------------------------------------------------


def test_a_service_takes_views_roles_parts_and_names():
    view = a_view()
    service = FeatureService("tips", [view, view.on(pickup_zone="z", prefix="p"), view["fare_1h"], "other:x"])
    assert service.projections == (
        Projection("demand"),
        Projection("demand", None, {"pickup_zone": "z"}, "p"),
        Projection("demand", ("fare_1h",)),
        Projection("other", ("x",)),
    )
    assert service.features == service.projections
    assert service == FeatureService("tips", service.projections)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a:x"], [("a", ("x",))]),
        (["a:x", "a:y"], [("a", ("x", "y"))]),
        (["a:y", "a:x", "b:x", "a:z"], [("a", ("y", "x")), ("b", ("x",)), ("a", ("z",))]),
        ([], []),
    ],
)
def test_names_that_follow_each_other_are_taken_together(names, expected):
    assert projections(names) == tuple(Projection(view, features) for view, features in expected)


def test_a_name_after_a_part_of_the_same_view_stays_its_own():
    view = a_view()
    assert projections([view["fare_1h"], "demand:trips_1h"]) == (
        Projection("demand", ("fare_1h",)),
        Projection("demand", ("trips_1h",)),
    )
    assert projections([view, "demand:trips_1h"]) == (Projection("demand"), Projection("demand", ("trips_1h",)))


@pytest.mark.parametrize(
    ("features", "facts"),
    [
        ([], ["features must be a list"]),
        ("demand:a", ["features must be a list"]),
        (None, ["features must be a list"]),
        (5, ["features must be a list"]),
        (Projection("demand"), ["features must be a list"]),
        (["demand"], ["'demand' names no feature", "Write it as view:feature"]),
        (["demand:"], ["'demand:' names no feature"]),
        ([":a"], ["':a' names no feature"]),
        (["demand:a:b"], ["'demand:a:b' names no feature"]),
        (["demand: a"], ["'demand: a' names no feature"]),
        ([5], ["5 is no feature", "view.on(…)"]),
        ([Feature("a")], ["Feature(name='a'", "is no feature"]),
        (["demand:a", "demand:a"], ["the feature 'a' is named twice"]),
    ],
)
def test_wrong_services_are_refused(features, facts):
    refused(lambda: FeatureService("tips", features), "feature service 'tips'", *facts)


def test_a_view_itself_is_no_list_of_features():
    refused(lambda: FeatureService("tips", a_view()), "features must be a list of feature views, roles or names")
