"""Definitions in the catalog: what apply does, what plan says, and what both refuse before anything is written."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

sys.path.append(str(Path(__file__).parent))  # the fixture module lies beside the tests

from definition_lake import ALL, DEMAND, LAST, TIPS, TRIPS, ZONE, DefinitionLake

from featurestore.acceptance import bound_views, read_definitions
from featurestore.definitions import Aggregate, Entity, Feature, FeatureService, FeatureView, Projection
from featurestore.registry import apply_definitions, features_list, features_show
from lakehouse.catalog import Change
from lakehouse.errors import ConflictError, DefinitionError, FormatTooNewError, PenstockError, RequestError
from lakehouse.metadata import Executions


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = DefinitionLake(tmp_path_factory.mktemp("built"))
    lake.build()
    return lake.root


@pytest.fixture(scope="module")
def applied_once(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("applied")
    shutil.copytree(built, root, dirs_exist_ok=True)
    DefinitionLake(root).apply()
    return root


@pytest.fixture
def fresh(built: Path, tmp_path: Path) -> DefinitionLake:
    """Return a copy of a promoted lake: a lake can be moved as a whole."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return DefinitionLake(tmp_path)


@pytest.fixture
def lake(applied_once: Path, tmp_path: Path) -> DefinitionLake:
    """Return a copy of a lake with the definitions of `definition_lake`."""
    shutil.copytree(applied_once, tmp_path, dirs_exist_ok=True)
    return DefinitionLake(tmp_path)


def a_view(**changes) -> FeatureView:
    return replace(DEMAND, **changes)


def everything(demand: FeatureView = DEMAND, last: FeatureView = LAST) -> list:
    """Return the definitions with a changed view, and the service made anew of it."""
    return [demand, last, replace(TIPS, features=[demand, last.on(zone="to_zone", prefix="to")])]


def refused(lake: DefinitionLake, objects, kind=DefinitionError, **options) -> str:
    """Return the message of a refusal, having checked that nothing was written."""
    before = lake.catalog.latest().number
    with pytest.raises(kind) as caught:
        lake.apply(objects, **options)
    assert lake.catalog.latest().number == before
    return str(caught.value)


# -- apply --------------------------------------------------------------------------------------------------------


def test_the_first_apply_is_one_snapshot_and_the_second_none(fresh: DefinitionLake):
    before = fresh.catalog.latest()
    assert read_definitions(before).views == {}
    plan = fresh.apply()
    entry = fresh.catalog.latest().entry
    assert (plan.snapshot, entry.snapshot, entry.kind) == (before.number + 1, before.number + 1, "apply")
    assert entry.summary == "added entity zone, feature view demand, feature view last_trip, feature service tips"
    assert Executions(fresh.storage).get(plan.execution).state == "COMPLETE"
    assert entry.execution == plan.execution
    again = fresh.apply()
    assert (again.empty, again.snapshot, fresh.catalog.latest().number) == (True, None, plan.snapshot)
    assert "nothing to do" in str(again)


def test_what_was_applied_comes_back(lake: DefinitionLake):
    found = lake.definitions
    assert found.entities == {"zone": ZONE}
    assert {name: view.definition for name, view in found.views.items()} == {"demand": DEMAND, "last_trip": LAST}
    assert found.views["demand"].bound.feature("fare_1d").type == "DOUBLE"
    assert found.views["demand"].upstream.keys() == {"warehouse.trips"}
    assert found.views["last_trip"].upstream.keys() == {"warehouse.trips"}
    assert found.service("tips").definition == TIPS
    assert found.sha256 == lake.catalog.latest().entry.definitions


def test_the_hash_follows_from_the_definitions_alone(fresh: DefinitionLake, lake: DefinitionLake):
    fresh.apply([TIPS])  # brings views and entities along, whatever the order
    assert fresh.catalog.latest().entry.definitions == lake.catalog.latest().entry.definitions


def test_a_plan_writes_nothing(fresh: DefinitionLake):
    before = {path for path in fresh.root.rglob("*") if path.is_file()}
    plan = fresh.plan_features()
    assert not plan.empty
    assert plan.snapshot is None
    assert {path for path in fresh.root.rglob("*") if path.is_file()} == before


def test_past_snapshots_keep_their_definitions(lake: DefinitionLake):
    first = lake.catalog.latest().number
    lake.apply([a_view(delay="10m"), LAST])
    lake.promote()
    assert read_definitions(lake.catalog.snapshot(first)).views["demand"].definition == DEMAND
    lake.catalog.roll_back(lake.catalog.snapshot(first))
    assert lake.definitions.views["demand"].definition == DEMAND


def test_the_loser_of_two_applies_is_told_to_run_again(fresh: DefinitionLake):
    raced = []

    def other(point: str) -> None:
        if point == "staged" and not raced:
            raced.append(DefinitionLake(fresh.root).apply([ZONE]))

    racing = DefinitionLake(fresh.root, failpoint=other)
    with pytest.raises(ConflictError) as caught:
        apply_definitions(racing.catalog, racing.settings, ALL)
    assert caught.value.exit_code == 75
    assert "feature definitions" in str(caught.value)
    assert fresh.definitions.views == {}
    failed = next(e for e in Executions(fresh.storage).list() if e.state == "FAILED")
    assert (failed.kind, failed.error.partition(":")[0]) == ("apply", "ConflictError")
    assert len(fresh.apply().differences) == 4


def test_a_promotion_meanwhile_is_let_pass(fresh: DefinitionLake):
    def other(point: str) -> None:
        if point == "staged" and fresh.catalog.latest().number == before:
            DefinitionLake(fresh.root).land("trips", {"k": "BIGINT", "v": "BIGINT", "z": "BIGINT"}, ("b", [(9, 9, 9)]))

    before = fresh.catalog.latest().number
    racing = DefinitionLake(fresh.root, failpoint=other)
    assert apply_definitions(racing.catalog, racing.settings, ALL).snapshot == before + 2


# -- what plan says -----------------------------------------------------------------------------------------------


def test_changes_are_told_field_by_field(lake: DefinitionLake):
    changed = a_view(
        delay="10m",
        owner="town",
        features=[
            Aggregate("trips", "count", windows=["1h", "7d"]),
            Aggregate("fare", "mean", column="fare", windows=["1d"], hop="1d", description="mean fare, USD"),
        ],
    )
    plan = lake.plan_features(everything(changed))
    (view,) = (d for d in plan.differences if d.name == "demand")
    assert (view.action, view.details) == (
        "change",
        (
            "delay: 0s → 10m",
            "owner: city → town",
            "feature trips_7d added (count(*) over 7d, hop 1h, BIGINT)",
            "feature fare_1d: mean(fare) over 1d, hop 1h, DOUBLE → mean(fare) over 1d, hop 1d, DOUBLE",
            "feature trips_1d removed",
            "description of fare",
        ),
    )
    (service,) = (d for d in plan.differences if d.kind == "feature service")
    assert (service.action, service.version) == ("change", "version 2")
    assert service.details == (
        "demand:trips_7d added",
        "demand:trips_1d removed",
        "feature view demand means something else",
    )
    assert any("becomes version 2" in text for text in plan.consequences)


def test_a_change_in_words_only_is_no_new_version(lake: DefinitionLake):
    before = lake.definitions
    demand, last, service = everything(a_view(description="how busy"))
    plan = lake.apply([demand, last, replace(service, description="for tips")])
    assert [d.details for d in plan.differences if d.action == "change"] == [
        ("description: none → how busy",),
        ("description: none → for tips",),
    ]
    after = lake.definitions
    assert after.views["demand"].version == before.views["demand"].version
    assert [v.version for v in after.services["tips"]] == [1]
    assert after.service("tips").definition.description == "for tips"


@pytest.mark.parametrize(
    "change",
    [
        {"ttl": "8d"},
        {"delay": "1s"},
        {"closed": "left"},
        {"tie_breaker": ["fare"]},
        {"created_timestamp": "seen"},
        {"source": "select zone, seen, fare, paid from warehouse.trips where paid"},
    ],
)
def test_whatever_changes_answers_is_a_new_version(lake: DefinitionLake, change):
    before = lake.definitions.views["last_trip"].version
    base = lake.catalog.latest().number
    plan = lake.apply(everything(last=replace(LAST, **change)))
    assert lake.definitions.views["last_trip"].version != before
    assert [v.version for v in lake.definitions.services["tips"]] == [1, 2]
    assert list(plan.consequences) == [
        "feature service tips becomes version 2",
        f"tips@1 can be asked for only as of snapshot {base} or earlier: feature view last_trip means something else",
    ]
    with pytest.raises(RequestError, match="does not mean what it meant"):
        lake.definitions.projections("tips@1")
    assert read_definitions(lake.catalog.snapshot(base)).projections("tips@1")


def test_a_version_whose_views_stay_can_still_be_asked_for(lake: DefinitionLake):
    plan = lake.apply([FeatureService("tips", ["demand:trips_1h"])])
    assert list(plan.consequences) == ["feature service tips becomes version 2; tips@1 can still be asked for"]
    assert len(lake.definitions.projections("tips@1")) == 2
    # What an older version does not take may change.
    more = a_view(features=[*DEMAND.features, Aggregate("top", "max", column="fare", windows=["1d"])])
    assert list(lake.apply([more]).consequences) == []
    base = lake.catalog.latest().number
    plan = lake.apply([replace(LAST, ttl="8d")])
    assert list(plan.consequences) == [
        f"tips@1 can be asked for only as of snapshot {base} or earlier: feature view last_trip means something else"
    ]
    plan = lake.apply([replace(LAST, ttl="9d")])  # said once
    assert list(plan.consequences) == []


def test_spelling_is_no_new_version(lake: DefinitionLake):
    before = lake.definitions.views["last_trip"].version
    spelled = replace(LAST, ttl="168h", features=[Feature("fare", "NUMERIC(10, 2)"), Feature("paid", "bool")])
    assert not lake.apply(everything(last=spelled)).empty
    assert lake.definitions.views["last_trip"].version == before
    assert lake.definitions.views["last_trip"].definition == spelled


def test_a_service_that_takes_less_says_nothing_about_its_views(lake: DefinitionLake):
    plan = lake.plan_features([FeatureService("tips", ["demand:trips_1h"])])
    (service,) = (d for d in plan.differences if d.action == "change")
    assert "demand:trips_1d removed" in service.details
    assert not [text for text in service.details if "means something else" in text]


def test_a_changed_model_changes_the_meaning_of_what_stands_on_it(lake: DefinitionLake):
    daily = FeatureView(
        "daily", "warehouse.daily", [ZONE], [Feature("trips")], event_timestamp="seen", history="current"
    )
    lake.apply([*ALL, daily])
    old = lake.definitions
    assert old.views["daily"].upstream.keys() == {"warehouse.daily", "warehouse.trips"}
    lake.model("trips", TRIPS.replace("v > 0", "v > 1"))
    plan = lake.plan_features([*ALL, daily])
    assert plan.empty
    assert any("penstock promote will change the meaning of daily, demand, last_trip" in text for text in plan.notes)
    lake.promote()
    plan = lake.plan_features(
        [*ALL, daily], users=lambda view, _version: ["training set tips 1"] if view == "demand" else []
    )
    assert not plan.empty
    details = {d.name: d.details for d in plan.differences if d.action == "change"}
    assert details["daily"] == ("the model of warehouse.trips changed",)
    assert "feature view demand means something else" in details["tips"]
    lost = (
        f"tips@1 can be asked for only as of snapshot {lake.catalog.latest().number - 1} or earlier: "
        "feature views demand, last_trip mean something else"
    )
    assert list(plan.consequences) == [
        "feature view daily: the model of warehouse.trips changed, so these change meaning: trips",
        "feature view demand: the model of warehouse.trips changed, so these change meaning: trips_1h, trips_1d, fare_1d",
        "training set tips 1 was made of the former meaning of feature view demand",
        "feature view last_trip: the model of warehouse.trips changed, so these change meaning: fare, paid",
        "feature service tips becomes version 2",
        lost,
    ]
    lake.apply([*ALL, daily])
    assert lake.plan_features([*ALL, daily]).empty
    assert lake.definitions.views["daily"].version != old.views["daily"].version
    with pytest.raises(RequestError, match="does not mean what it meant"):
        lake.definitions.projections("tips@1")


def test_new_data_changes_nothing(lake: DefinitionLake):
    lake.land("trips", {"k": "BIGINT", "v": "BIGINT", "z": "BIGINT"}, ("b", [(7, 9, 9)]))
    lake.promote()
    assert lake.plan_features().empty


def test_plans_are_text_html_and_json(lake: DefinitionLake):
    evil = a_view(description="<script>")
    plan = lake.plan_features(everything(evil))
    assert "~ feature view demand" in str(plan)
    assert "description: none → <script>" in str(plan)
    assert "<script>" not in plan._repr_html_()
    assert "&lt;script&gt;" in plan._repr_html_()
    assert json.loads(json.dumps(plan.to_dict()))["empty"] is False


# -- removal ------------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_kept_unless_pruned(lake: DefinitionLake):
    plan = lake.apply([DEMAND])
    assert plan.empty
    assert "= feature view last_trip: kept, not in features.py; --prune removes it" in plan.lines()
    assert "last_trip" in lake.definitions.views
    service = FeatureService("tips", [DEMAND])
    plan = lake.apply([DEMAND, service], prune=True)
    assert [(d.name, d.action) for d in plan.differences if d.action != "unchanged"] == [
        ("last_trip", "remove"),
        ("tips", "change"),
    ]
    assert lake.definitions.views.keys() == {"demand"}
    lake.apply([], prune=True)
    assert not lake.definitions.views
    assert not lake.definitions.entities
    assert not lake.definitions.services


def test_a_view_in_use_is_not_removed(lake: DefinitionLake):
    def holders(view: str) -> list[str]:
        return ["the current generation"] if view == "last_trip" else []

    message = refused(lake, [DEMAND], RequestError, prune=True, holders=holders)
    assert "feature view 'last_trip': it cannot be removed: " in message
    assert "the current generation uses it" in message
    way = (
        "in this order: set online=False for it, penstock apply, penstock materialize, remove it there, penstock apply"
    )
    assert way in message
    lake.apply([replace(LAST, online=False), DEMAND], prune=True)
    message = refused(lake, [DEMAND], RequestError, prune=True, holders=holders)
    assert "in this order: penstock materialize, remove it there, penstock apply --prune" in message


def test_numbers_of_services_never_come_back(lake: DefinitionLake):
    less = FeatureService("tips", ["demand:trips_1h"])
    lake.apply([less])
    base = lake.catalog.latest()
    lake.apply([DEMAND], prune=True)
    with pytest.raises(RequestError) as caught:
        lake.definitions.projections("tips")
    assert "It was removed; its last version was tips@2." in str(caught.value)
    with pytest.raises(RequestError, match="there is no feature service 'tips'"):
        features_show(lake.definitions, "tips@1")
    lake.apply([replace(DEMAND, description="other words")])
    assert "version 3" in str(lake.apply([less]))
    assert [version.ref for version in lake.definitions.services["tips"]] == ["tips@3"]
    assert lake.definitions.retired == {}
    with pytest.raises(RequestError, match="there is no version '2'"):
        lake.definitions.projections("tips@2")
    assert read_definitions(base).projections("tips@2")


def test_other_join_keys_are_told(lake: DefinitionLake):
    entity = replace(ZONE, join_keys=["paid"])
    plan = lake.plan_features([replace(DEMAND, entities=[entity])], prune=True)
    (details,) = (difference.details for difference in plan.differences if difference.name == "demand")
    assert details[0] == "join keys: zone → paid"


def test_what_was_made_with_a_removed_view_is_told(lake: DefinitionLake):
    plan = lake.apply(
        [], prune=True, users=lambda view, _version: ["training set tips@3"] if view == "last_trip" else []
    )
    assert list(plan.consequences) == [
        "training set tips@3 was made with feature view last_trip, and keeps its definition"
    ]


def test_much_that_was_made_is_one_line(lake: DefinitionLake):
    sets = [f"training set tips@{number}" for number in range(1, 51)]
    changed = [a_view(delay="1s"), LAST]
    assert (
        "training set tips@48, training set tips@49, training set tips@50 and 47 more were made of the former"
        in str(
            lake.plan_features(everything(changed[0]), users=lambda view, _version: sets if view == "demand" else [])
        )
    )
    plan = lake.plan_features(
        [DEMAND, FeatureService("tips", [DEMAND])], prune=True, users=lambda _view, _version: sets[:2]
    )
    assert plan.consequences[0] == (
        "training set tips@1, training set tips@2 were made with feature view last_trip, and keep its definition"
    )


def test_a_new_view_is_told_with_all_that_answers_follow_from(fresh: DefinitionLake):
    view = replace(LAST, created_timestamp="seen", delay="1m", closed="left", tie_breaker=["paid"], online=False)
    (new,) = (d for d in fresh.plan_features([view]).differences if d.kind == "feature view")
    assert new.details == (
        "source: select zone, seen, fare, paid from warehouse.trips -- all of them",
        "join keys: zone",
        "event timestamp: seen",
        "created timestamp: seen",
        "ttl: 7d",
        "delay: 1m",
        "closed: left",
        "tie breaker: paid",
        "online: no",
        "feature fare: DECIMAL(10,2)",
        "feature paid: BOOLEAN",
    )


def test_versions_that_are_lost_with_a_view_are_told(lake: DefinitionLake):
    lake.apply([FeatureService("tips", ["demand:trips_1h"])])
    base = lake.catalog.latest().number
    service = FeatureService("tips", ["demand:trips_1h"])
    for change in (lake.plan_features, lake.apply):
        plan = change([DEMAND, service], prune=True)
        assert list(plan.consequences) == [
            f"tips@1 can be asked for only as of snapshot {base} or earlier: feature view last_trip is gone"
        ]
    with pytest.raises(RequestError, match="feature view 'last_trip' is gone"):
        lake.definitions.projections("tips@1")
    assert read_definitions(lake.catalog.snapshot(base)).projections("tips@1")


def test_a_service_that_stays_keeps_its_views(lake: DefinitionLake):
    by_name = FeatureService("tips", ["demand:trips_1h", "last_trip:fare"])
    lake.apply([by_name])  # views that were applied before need not be given
    message = refused(lake, [DEMAND, by_name], prune=True)
    assert "feature service 'tips'" in message
    assert "it takes features of feature view 'last_trip', which is not in features.py any more" in message
    assert "apply without --prune" in message


def test_a_removed_feature_that_a_kept_service_uses_is_refused(lake: DefinitionLake):
    lake.apply([FeatureService("tips", ["demand:trips_1d"])])
    fewer = a_view(features=[Aggregate("trips", "count", windows=["1h"])])
    message = refused(lake, [fewer])
    assert "feature service 'tips'" in message
    assert "there is no feature 'trips_1d'" in message


def test_a_changed_entity_reaches_views_that_were_not_given(lake: DefinitionLake):
    plan = lake.plan_features([replace(ZONE, description="new words")])
    assert [d.name for d in plan.differences if d.action == "change"] == ["zone"]
    assert "no column 'pickup'" in refused(lake, [Entity("zone", join_keys=["pickup"])])


def test_a_kept_view_that_broke_stands_in_nobodys_way(lake: DefinitionLake):
    lake.apply([replace(TIPS, features=[DEMAND])])
    lake.model("trips", TRIPS.replace("paid boolean", "cash boolean").replace("as paid", "as cash"))
    lake.promote()
    plan = lake.apply([replace(DEMAND, delay="1s")])
    assert plan.snapshot is not None
    assert any("'last_trip' is kept, but does not work" in text for text in plan.notes)
    assert "cannot be read" in refused(lake, [LAST])


# -- what apply refuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "warehouse.tripz"}, ["there is no table warehouse.tripz", "warehouse.trips"]),
        ({"source": "a.b.c"}, ["the source: 'a.b.c' is no table", "warehouse.trips"]),
        ({"source": 'warehouse."trips"'}, ["is no table"]),
        ({"source": "select *, rowid from warehouse.trips"}, ["the source cannot be read: Referenced column", "rowid"]),
        ({"source": "select * from tripz"}, ["the table tripz has no schema"]),
        ({"event_timestamp": "seem"}, ["no column 'seem'", "Did you mean seen?"]),
        ({"event_timestamp": "fare"}, ["of type DECIMAL(10,2)"]),
        ({"entities": [Entity("zone", join_keys=["zona"])]}, ["no column 'zona'", "Did you mean zone?"]),
        ({"features": [Aggregate("m", "mean", column="paid", windows=["1d"])]}, ["mean of a BOOLEAN"]),
        ({"features": [Feature("fare", "double")]}, ["declared as DOUBLE"]),
        ({"push": True}, ["push does not work yet"]),
        ({"source": "select * from warehouse.trips AT (VERSION => 1)"}, ["AT"]),
        ({"source": "select *, now() as n from warehouse.trips"}, ["now() would give other rows on another day"]),
        (
            {"source": "select zone, seen, fare from warehouse.trips where user is not null"},
            ["user() would give other rows on another day", 'If it is a column, write it in quotes: "user".'],
        ),
        ({"source": "select * from warehouse.trips using sample 10%"}, ["SAMPLE"]),
        ({"source": "select * from read_csv('/etc/passwd')"}, ["read_csv() in FROM", "reads the lake only"]),
        ({"source": "select * from '/etc/passwd'"}, ["is a file"]),
        ({"source": "select * from system.snapshots"}, ["no table of the lake"]),
        ({"source": "copy (select 1) to '/tmp/x'"}, ["only SELECT"]),
        ({"source": "select 1; select 2"}, ["one query is expected"]),
        ({"source": "select * form warehouse.trips"}, ["syntax error"]),
        ({"source": "select * from warehouse.trips where k = ?"}, ["parameters"]),
        ({"description": 5}, ["description: expected str, got int"]),
        ({"online": 1}, ["online: expected bool, got int"]),
    ],
)
def test_wrong_views_are_refused(lake: DefinitionLake, change, words):
    message = refused(lake, [a_view(**change)])
    assert "feature view 'demand'" in message
    for word in words:
        assert word in message


def test_sources_may_use_ctes_and_pure_functions(lake: DefinitionLake):
    source = "with t as (select * from warehouse.trips) select t.* from t join range(3) r on r.range = t.k % 3"
    lake.apply([a_view(source=source)])
    assert lake.definitions.views["demand"].upstream.keys() == {"warehouse.trips"}


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (["demnd:trips_1h"], ["no feature view 'demnd'", "Did you mean demand?"]),
        (["demand:trips_2h"], ["no feature 'trips_2h'", "feature view 'demand'"]),
        ([LAST, "demand:fare_1d", LAST[["fare"]]], ["two columns would be called 'fare'", "view.on(prefix=…)"]),
        ([LAST, Projection("last_trip", ["fare"], {"zona": "x"}, "p")], ["no join key 'zona'"]),
        # Its rows would have to bring a column that is called like a feature: nobody could ever ask for it.
        ([LAST, DEMAND.on(zone="Fare", prefix="w")], ["two columns would be called 'fare'", "last_trip:fare"]),
        ([LAST.on(zone="w__trips_1h"), DEMAND.on(prefix="w")], ["two columns would be called 'w__trips_1h'"]),
    ],
)
def test_wrong_services_are_refused(lake: DefinitionLake, features, words):
    message = refused(lake, [FeatureService("tips", features)])
    assert message.startswith("feature service 'tips'")
    for word in words:
        assert word in message


def test_a_key_called_like_a_feature_takes_a_prefix(lake: DefinitionLake):
    lake.apply([FeatureService("tips", [LAST.on(prefix="last"), DEMAND.on(zone="fare")])])
    assert lake.definitions.service("tips").version == 2


def test_a_model_that_never_ran_is_told(lake: DefinitionLake):
    lake.model("later", "create table warehouse.later (z integer);\ntruncate warehouse.later;\n"
               "insert into warehouse.later select zone as z from warehouse.trips;\n")  # fmt: skip
    message = refused(lake, [a_view(source="warehouse.later")])
    assert "no table warehouse.later yet" in message
    assert "penstock promote" in message


def test_two_of_one_name_are_refused(lake: DefinitionLake):
    message = refused(lake, [a_view(delay="1s"), TIPS])
    assert "feature view 'demand': there are two different ones" in message
    assert "objects[0] and the one in feature service 'tips'" in message
    assert "entity 'zone'" in refused(lake, [replace(ZONE, owner="x"), DEMAND])


@pytest.mark.parametrize("objects", ["tips", [1], [DEMAND, "x"], None])
def test_only_definitions_are_applied(lake: DefinitionLake, objects):
    with pytest.raises(DefinitionError, match="definition"):
        apply_definitions(lake.catalog, lake.settings, objects)


# -- formats ------------------------------------------------------------------------------------------------------


def rewritten(lake: DefinitionLake, **fields) -> None:
    """Publish the present definitions in another form."""
    base = lake.catalog.latest()
    document = {**msgspec.json.decode(lake.catalog.object(base.entry.definitions)), **fields}
    sha256 = lake.catalog.put_object(msgspec.json.encode(document))
    lake.catalog.publish(base, Change("apply", "by another version", definitions=sha256))


def test_a_newer_format_is_refused_with_both_numbers(lake: DefinitionLake):
    rewritten(lake, format=3, min_reader=2)
    with pytest.raises(FormatTooNewError, match=r"reader of format 2, this Penstock reads format 1"):
        read_definitions(lake.catalog.latest())


def test_a_newer_format_that_can_be_read_is_not_written_over(lake: DefinitionLake):
    rewritten(lake, format=3, something="new")
    assert lake.definitions.views["demand"].definition == DEMAND
    with pytest.raises(FormatTooNewError, match=r"in format 3, this Penstock writes format 1"):
        lake.apply([replace(DEMAND, delay="1s")])


# -- lookups ------------------------------------------------------------------------------------------------------


def test_services_are_found_by_name_and_version(lake: DefinitionLake):
    lake.apply([FeatureService("tips", ["demand:trips_1h"])])
    found = lake.definitions
    assert (found.service("tips").ref, found.service("tips@1").ref) == ("tips@2", "tips@1")
    for ref, words in {"tipz": "Did you mean tips", "tips@3": r"tips@1, tips@2", "demand": "feature view"}.items():
        with pytest.raises(RequestError) as caught:
            found.service(ref)
        assert words in str(caught.value)


def test_what_is_asked_for_becomes_projections_with_every_feature(lake: DefinitionLake):
    found = lake.definitions
    whole = Projection("demand", ("trips_1h", "trips_1d", "fare_1d"))
    role = Projection("last_trip", ("fare", "paid"), {"zone": "to_zone"}, "to")
    assert found.projections("tips") == (whole, role)
    assert found.projections(TIPS) == (whole, role)
    assert found.projections(found.service("tips@1")) == (whole, role)
    assert found.projections(DEMAND) == (whole,)
    assert found.projections(a_view(description="other", owner="words", online=False)) == (whole,)
    assert found.projections("demand:trips_1d") == (Projection("demand", ("trips_1d",)),)
    assert found.projections(["demand:trips_1d", "demand:trips_1h", LAST[["paid"]]]) == (
        Projection("demand", ("trips_1d", "trips_1h")),
        Projection("last_trip", ("paid",)),
    )


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ("nothing", "there is no feature service"),
        ("demand", "ask for its features, e.g. demand:trips_1h."),
        (["demand"], "Name its features, e.g. demand:trips_1h."),
        (["tips"], "a service by itself"),
        ([TIPS], "a service by itself"),
        (["demand:trips"], "trips_1h"),
        (["dmand:trips_1h"], "Did you mean demand?"),
        ([], "no features"),
        (7, "names no features"),
        ([7], "is no feature"),
        (FeatureService("tips", ["demand:trips_1h"]), "was changed since it was applied"),
        (FeatureService("new", ["demand:trips_1h"]), "there is no feature service 'new'"),
        (a_view(name="unapplied"), "there is no feature view 'unapplied'"),
        (a_view(delay="1h"), "feature view 'demand' was changed since it was applied"),
        ([a_view(closed="left").on(zone="to_zone")], "ask for what was applied: demand:trips_1h."),
        ([replace(LAST, ttl="1d")[["paid"]]], "feature view 'last_trip' was changed since it was applied"),
        (replace(TIPS, features=everything(a_view(delay="1h"))[-1].features), "feature view 'demand' was changed"),
    ],
)
def test_wrong_requests_say_what_there_is(lake: DefinitionLake, features, words):
    with pytest.raises(RequestError) as caught:
        lake.definitions.projections(features)
    assert words in str(caught.value)


def test_a_version_of_a_service_takes_what_it_took(lake: DefinitionLake):
    before = lake.definitions.projections("tips@1")
    more = a_view(features=[*DEMAND.features, Aggregate("most", "max", column="fare", windows=["1d"])])
    lake.apply(everything(more))
    found = lake.definitions
    assert found.projections("tips@1") == before
    assert found.projections("tips")[0].features == ("trips_1h", "trips_1d", "fare_1d", "most_1d")
    lake.apply(everything(a_view(delay="1m")))
    with pytest.raises(RequestError) as caught:
        lake.definitions.projections("tips@1")
    assert "tips@1 cannot be answered: feature view 'demand' does not mean what it meant then" in str(caught.value)
    assert "Ask for tips@3" in str(caught.value)


def test_plain_features_before_those_asked_for_decide_between_rows_of_one_instant(lake: DefinitionLake):
    service = FeatureService("paid", ["last_trip:paid"])
    first = replace(LAST, features=[Feature("paid"), Feature("zone", None)], entities=[])
    lake.apply([first, service], prune=True)
    lake.apply([replace(first, features=[Feature("paid"), Feature("fare")]), service])
    assert lake.definitions.service("paid").version == 1
    lake.apply([replace(first, features=[Feature("fare"), Feature("paid")]), service])
    assert lake.definitions.service("paid").version == 2


def test_nothing_applied_yet(fresh: DefinitionLake):
    with pytest.raises(RequestError, match="penstock apply"):
        fresh.definitions.projections("tips")
    assert features_list(fresh.definitions) == []
    with pytest.raises(RequestError, match="penstock apply"):
        features_show(fresh.definitions, "demand")


# -- binding again ------------------------------------------------------------------------------------------------


def test_views_bind_again_as_they_were(lake: DefinitionLake):
    with lake.session() as session:
        found = bound_views(lake.definitions, session)
        assert found == lake.definitions.bound
        assert bound_views(lake.definitions, session, ["demand"]).keys() == {"demand"}
        with pytest.raises(RequestError, match="Did you mean demand"):
            bound_views(lake.definitions, session, ["demnd"])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("fare decimal(10,2)", "fare decimal(12,2)", ["column 'fare'", "DECIMAL(10,2)", "is DECIMAL(12,2)"]),
        ("zone integer", "zone bigint", ["column 'zone'", "INTEGER", "is BIGINT"]),
        ("seen timestamptz", "seen date", ["column 'seen'", "TIMESTAMP WITH TIME ZONE", "is DATE"]),
        ("seen timestamptz", "seenat timestamptz", ["column 'seen'", "TIMESTAMP WITH TIME ZONE", "is gone"]),
    ],
)
def test_a_column_that_changed_since_the_apply_is_refused(lake: DefinitionLake, old: str, new: str, words):
    text = TRIPS.replace(old, new).replace("as seen", "as seenat" if "seenat " in new else "as seen")
    lake.model("daily", "create table warehouse.daily (z integer);\ntruncate warehouse.daily;\n"
               "insert into warehouse.daily select k as z from warehouse.trips;\n")  # fmt: skip
    lake.model(
        "trips", text.replace("to_timestamp(k * 3600)", "to_timestamp(k * 3600)::date") if "date" in new else text
    )
    lake.promote()
    with lake.session() as session, pytest.raises(RequestError) as caught:
        bound_views(lake.definitions, session, ["demand"])
    message = str(caught.value)
    for word in ("feature view 'demand'", "penstock apply", *words):
        assert word in message


def test_a_table_that_vanished_is_refused(lake: DefinitionLake):
    definitions = lake.definitions
    with DefinitionLake(lake.root).session() as session:
        session.snapshot = lake.catalog.snapshot(0)
        with pytest.raises(RequestError) as caught:
            bound_views(definitions, session, ["demand"])
    assert "feature view 'demand': the source cannot be read at snapshot 0" in str(caught.value)
    assert "there is no table warehouse.trips" in str(caught.value)


# -- lists --------------------------------------------------------------------------------------------------------


def test_lists_and_shows(lake: DefinitionLake):
    rows = features_list(lake.definitions)
    assert [(r["kind"], r["name"], r["keys"], r["features"], r["used_by"]) for r in rows] == [
        ("entity", "zone", ["zone"], None, ["demand", "last_trip"]),
        ("feature view", "demand", ["zone"], 3, ["tips@1"]),
        ("feature view", "last_trip", ["zone"], 2, ["tips@1"]),
        ("feature service", "tips", ["zone", "to_zone"], 5, []),
    ]
    view = features_show(lake.definitions, "demand")
    assert view["features"][2] == {
        "feature": "fare_1d",
        "type": "DOUBLE",
        "function": "mean",
        "column": "fare",
        "window": "1d",
        "hop": "1h",
        "description": "mean fare",
    }
    service = features_show(lake.definitions, "tips@1")
    assert service["features"][3] == {
        "column": "to__fare",
        "feature": "last_trip:fare",
        "type": "DECIMAL(10,2)",
        "join_keys": {"zone": "to_zone"},
    }
    json.dumps([rows, view, service, features_show(lake.definitions, "zone")])
    with pytest.raises(PenstockError, match="Did you mean demand"):
        features_show(lake.definitions, "demnd")
