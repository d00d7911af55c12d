"""The stored form of definitions: it comes back whole, and equal definitions have equal bytes."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.applied import AppliedView, Definitions, ServiceVersion, view_version
from featurestore.binding import BoundFeature, BoundView, Column, Windowed
from featurestore.definitions import Aggregate, Entity, Feature, FeatureService, FeatureView, Projection
from featurestore.documents import FORMAT, checked, decode, encode
from lakehouse.errors import CatalogDamagedError, DefinitionError, FormatTooNewError

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TAGS = st.dictionaries(TEXTS, TEXTS, max_size=3)
DURATIONS = st.sampled_from(["90s", "5m", "1h", "7d", "2w", "250ms"])
PROSE: dict[str, Any] = {"description": TEXTS, "owner": TEXTS, "tags": TAGS}

ENTITIES = st.builds(
    Entity, NAMES.map(lambda n: f"e_{n}"), st.lists(NAMES.map(lambda n: f"k_{n}"), max_size=2, unique=True), **PROSE
)
FEATURES = st.builds(Feature, NAMES, st.none() | st.sampled_from(["bigint", "decimal(10,2)"]), TEXTS)
AGGREGATES = st.builds(
    Aggregate,
    NAMES,
    st.sampled_from(["count", "sum", "mean", "min", "max"]),
    st.lists(st.sampled_from(["1h", "1d", "7d"]), min_size=1, unique=True),
    NAMES,
    st.sampled_from(["auto", "1h", None]),
    TEXTS,
) | st.builds(Aggregate, NAMES, st.just("count"), st.just(["5m"]))
PROJECTIONS = st.builds(
    Projection,
    NAMES,
    st.none() | st.lists(NAMES, min_size=1, max_size=3, unique=True),
    st.dictionaries(NAMES, TEXTS, max_size=2),
    st.none() | NAMES,
)
SERVICES = st.builds(FeatureService, NAMES, st.lists(PROJECTIONS, min_size=1, max_size=3), **PROSE)
COLUMNS = st.builds(Column, TEXTS, st.sampled_from(["BIGINT", "VARCHAR", "DECIMAL(10,2)"]))
WINDOWED = st.builds(Windowed, st.just("sum"), st.none() | TEXTS, st.integers(1, 2**53), st.none() | st.integers(1))
BOUND = st.builds(
    BoundView,
    name=NAMES,
    source=TEXTS,
    keys=st.lists(COLUMNS, max_size=2).map(tuple),
    event_timestamp=TEXTS,
    created_timestamp=st.none() | TEXTS,
    tie_breaker=st.lists(COLUMNS, max_size=2).map(tuple),
    features=st.lists(st.builds(BoundFeature, NAMES, TEXTS, st.none() | WINDOWED), min_size=1, max_size=3).map(tuple),
    inputs=st.lists(COLUMNS, max_size=2).map(tuple),
    ttl=st.none() | st.integers(1, 2**53),
    delay=st.integers(0, 2**53),
    closed_left=st.booleans(),
    online=st.booleans(),
)
HASHES = st.dictionaries(TEXTS, TEXTS, max_size=2)


@st.composite
def views(draw: st.DrawFn) -> FeatureView:
    """Draw a view of either kind, with every field."""
    unique = {"unique_by": lambda entity: entity.name}
    entities = draw(st.lists(ENTITIES, max_size=2, **unique))
    taken = [key for entity in entities for key in entity.join_keys]
    aggregates = draw(st.booleans())
    features = draw(
        st.lists(AGGREGATES if aggregates else FEATURES, min_size=1, max_size=3, unique_by=lambda feature: feature.name)
    )
    names = [name for feature in features for name in feature.feature_names]
    if len(set(taken)) < len(taken) or len(set(names)) < len(names):
        entities, features = entities[:1], features[:1]
    exact = any(isinstance(feature, Aggregate) and feature.hop is None for feature in features)
    return FeatureView(
        name=draw(NAMES),
        source=draw(st.sampled_from(["warehouse.t", "select *\nfrom warehouse.t;  ", "trips"])),
        entities=entities,
        features=features,
        event_timestamp=draw(NAMES),
        created_timestamp=draw(st.none() | NAMES),
        ttl=None if aggregates else draw(st.none() | DURATIONS),
        delay=draw(DURATIONS),
        closed=draw(st.sampled_from(["right", "left"])),
        tie_breaker=() if aggregates else draw(st.lists(NAMES, max_size=2, unique=True)),
        history=draw(st.sampled_from(["full", "current"])),
        online=not exact and draw(st.booleans()),
        valid_to=draw(st.none() | NAMES),
        deleted=draw(st.none() | NAMES),
        push=draw(st.booleans()),
        **{name: draw(strategy) for name, strategy in PROSE.items()},
    )


@st.composite
def all_definitions(draw: st.DrawFn) -> Definitions:
    drawn = draw(st.lists(views(), max_size=3, unique_by=lambda view: view.name))
    entities = {entity.name: entity for entity in draw(st.lists(ENTITIES, max_size=2))}
    entities |= {entity.name: entity for view in drawn for entity in view.entities}
    applied = {}
    for view in drawn:
        same = FeatureView(**{**vars(view), "entities": [entities[entity.name] for entity in view.entities]})
        bound, upstream = draw(BOUND), draw(HASHES)
        applied[view.name] = AppliedView(same, bound, upstream, view_version(bound, upstream))
    services = {}
    for service in draw(st.lists(SERVICES, max_size=2, unique_by=lambda service: service.name)):
        numbers = range(1, draw(st.integers(1, 3)) + 1)
        taken = tuple(draw(st.lists(PROJECTIONS, max_size=2)))
        services[service.name] = tuple(ServiceVersion(n, service, taken, draw(HASHES)) for n in numbers)
    return Definitions(entities, applied, services)


def built(definitions: Definitions) -> Definitions | None:
    """Return definitions as they come back."""
    return decode(encode(definitions), place="here")


@settings(max_examples=60, deadline=None)
@given(all_definitions())
def test_definitions_come_back_as_they_were(definitions: Definitions):
    found = built(definitions)
    assert found == definitions
    assert encode(found) == encode(definitions)


@settings(max_examples=30, deadline=None)
@given(all_definitions(), st.randoms(use_true_random=False))
def test_the_order_of_saying_changes_no_byte(definitions: Definitions, random):
    def shuffled(mapping):
        items = list(mapping.items())
        random.shuffle(items)
        return dict(items)

    again = Definitions(
        shuffled(definitions.entities), shuffled(definitions.views), shuffled(definitions.services), "a hash"
    )
    assert encode(again) == encode(definitions)


@settings(max_examples=60, deadline=None)
@given(views(), st.sampled_from(["online", "push", "delay", "source", "description", "tags", "history", "features"]))
def test_every_field_counts(view: FeatureView, name: str):
    changed = {
        "online": not view.online, "push": not view.push, "delay": "77s", "source": "another", "description": "\0",
        "tags": {"\0": ""}, "history": "full" if view.history == "current" else "current",
        "features": [Feature("another_one", description="x")],
    }  # fmt: skip
    plain = {"features": [Feature("f")], "ttl": None}
    one = FeatureView(**{**vars(view), **plain})
    other = FeatureView(**{**vars(view), **plain, name: changed[name]})
    assert checked(one) != checked(other)


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        (Entity("zone", description=7), ["entity 'zone'", "description: expected str, got int"]),
        (FeatureService("tips", ["v:f"], owner=None), ["feature service 'tips'", "owner: expected str"]),
        (FeatureView("v", "t", [], [Feature("f", description=b"")], "at"), ["features[0].description"]),
        (Entity("zone", description="\ud800"), ["cannot be stored"]),
    ],
)
def test_what_cannot_be_stored_is_refused(definition, words):
    with pytest.raises(DefinitionError) as caught:
        checked(definition)
    for word in words:
        assert word in str(caught.value)


def test_newer_forms_are_refused_with_both_numbers():
    document = {**msgspec.json.decode(encode(Definitions())), "format": FORMAT + 3, "min_reader": FORMAT + 2}
    with pytest.raises(FormatTooNewError) as caught:
        decode(msgspec.json.encode(document), place="there")
    assert f"format {FORMAT + 2}" in str(caught.value)
    assert f"format {FORMAT}" in str(caught.value)
    document["min_reader"] = FORMAT
    assert decode(msgspec.json.encode({**document, "more": 1}), place="there") == Definitions()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40) | st.recursive(
    st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["format", "min_reader", "entities", "views", "services"]), inner)
).map(msgspec.json.encode))  # fmt: skip
def test_bytes_that_are_no_definitions_are_damage(data: bytes):
    with contextlib.suppress(CatalogDamagedError, FormatTooNewError):
        decode(data, place="there")
