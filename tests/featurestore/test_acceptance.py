"""What a view means is accepted by an apply: a model that changes upstream is never answered under the old meaning."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # the project lies beside the tests

from feature_project import AT, FEATURES, LATER, MODEL, SPINE, made, run

from featurestore import FeatureStore, documents
from lakehouse.catalog import Change
from lakehouse.errors import RequestError

CHANGED = MODEL.replace("fare, tip, paid from", "fare * 2 as fare, tip, paid from")
ASKED = {"zone": ["007"], "event_timestamp": [dt.datetime(2024, 1, 1, 3, tzinfo=dt.UTC)]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose snapshots are: 1 landed, 2 promoted, 3 applied."""
    commands = (["land"], ["promote"], ["apply"], ["materialize", "--at", AT])
    return made(tmp_path_factory.mktemp("project"), *commands)


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(built, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def changed(model: str = CHANGED) -> int:
    """Promote another model, and return the snapshot."""
    Path("sql/warehouse/trips.sql").write_text(model)
    run("promote")
    return FeatureStore().lake.catalog.latest().number


def fare(**options: Any) -> float:
    (value,) = FeatureStore().get_historical_features(ASKED, "demand:fare_1d", **options).to_arrow().column("fare_1d")
    return value.as_py()


@pytest.mark.parametrize(
    "command",
    [
        ["historical", "tips", "--spine", SPINE],
        ["historical", "demand:trips_1h", "--spine", SPINE, "--save", "other"],
        ["materialize", "--at", LATER],
    ],
)
def test_another_meaning_is_refused_until_it_is_applied(project: Path, command: list[str]):
    number = changed()
    last = number - 1
    message = run(*command, code=1).stderr
    assert (
        f"': at snapshot {number} it means something else than when it was applied: the model of "
        f"warehouse.trips changed\n  Accept the new meaning: penstock apply. Or read as of snapshot {last}, where it "
        f"still held: --as-of {last}, in Python as_of={last}.\n" in message
    )
    assert FeatureStore().lake.catalog.latest().number == number
    run(*command, "--as-of", str(last))
    run("apply")
    run(*command)


def test_a_past_snapshot_whose_meaning_was_never_applied_names_its_neighbours(project: Path):
    number = changed()
    run("apply")
    with pytest.raises(RequestError, match=f"at snapshot {number} it means something else") as error:
        fare(as_of=number)
    assert error.value.hint == (
        f"Read as of snapshot {number + 1}, where definitions were applied again: --as-of {number + 1}, in Python "
        f"as_of={number + 1}. Or read as of snapshot {number - 1}, where it still held: --as-of {number - 1}, in "
        f"Python as_of={number - 1}."
    )
    assert (fare(as_of=number - 1), fare(as_of=number + 1), fare()) == (15.25, 30.5, 30.5)


def test_the_generation_that_is_there_goes_on(project: Path):
    changed()
    assert "15.25" in run("online", "get", "demand:fare_1d", "zone=007", "--at", AT).stdout
    run("verify", "tips")


def test_a_plan_names_the_last_snapshot_with_the_old_meaning(project: Path):
    number = changed()
    text = run("plan").stdout
    assert f"tips@1 can be asked for only as of snapshot {number - 1} or earlier" in text
    run("apply")
    run("historical", "tips@1", "--spine", SPINE, "--as-of", str(number - 1))


@pytest.mark.parametrize(
    "model", [f"-- Every trip.\n{MODEL}", MODEL.replace("select", "SELECT\n "), f"-- @owner me\n{MODEL}"]
)
def test_comments_and_layout_are_no_other_meaning(project: Path, model: str):
    before = FeatureStore().definitions().views["demand"].version
    Path("sql/warehouse/trips.sql").write_text(model)
    assert "will change the meaning" not in run("plan").stdout
    changed(model)
    assert fare() == 15.25
    assert "nothing to do" in run("apply").stdout
    assert FeatureStore().definitions().views["demand"].version == before


def test_new_definitions_on_old_data_mean_what_the_models_of_then_made(project: Path):
    number = changed()
    run("apply")
    store = FeatureStore()
    assert (fare(as_of=number - 1, definitions="latest"), fare(definitions="latest")) == (15.25, 30.5)
    versions = [store.definitions(as_of=n).views["demand"].version for n in (number - 1, number + 1)]
    for as_of, version in ((number - 1, versions[0]), (number, versions[1]), (None, versions[1])):
        job = store.get_historical_features(ASKED, "demand:fare_1d", as_of=as_of, definitions="latest")
        saved = job.save("tried")
        assert saved.manifest.views == {"demand": version}
        assert saved.reproduce().same


def test_latest_definitions_are_no_way_around(project: Path):
    changed()
    with pytest.raises(RequestError, match="means something else"):
        fare(definitions="latest")


def test_what_older_lakes_recorded_of_a_model_still_holds(project: Path):
    # Before entries knew meanings, the hash of the file stood for it: in the entry, and in the view.
    store = FeatureStore()
    catalog, known = store.lake.catalog, store.definitions()
    file = hashlib.sha256(MODEL.encode()).hexdigest()
    views = {
        name: replace(view, upstream={"warehouse.trips": file}, version="0" * 64) for name, view in known.views.items()
    }
    document = documents.encode(replace(known, views=views, services={}))
    catalog.publish(catalog.latest(), Change("apply", "as it was", definitions=catalog.put_object(document)))
    assert fare() == 15.25
    run("apply")
    assert FeatureStore().definitions().views["demand"].upstream == {"warehouse.trips": file}
    changed()
    assert "the model of warehouse.trips changed" in run("plan").stdout


# -- what another snapshot has ------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["tips", "demand:trips_1h"])
def test_what_was_applied_later_or_removed_is_told(project: Path, asked: str):
    command = ["historical", asked, "--spine", SPINE]
    message = run(*command, "--as-of", "1", code=1).stderr
    assert "It was applied after snapshot 1: take --as-of 3, in Python as_of=3." in message
    assert "yet" not in message
    Path("features.py").write_text("")
    way = (
        "in this order: set online=False for it, penstock apply, penstock materialize, remove it there, penstock apply"
    )
    assert way in run("apply", "--prune", code=1).stderr
    Path("features.py").write_text(FEATURES.replace("entities=", "online=False, entities="))
    run("apply")
    run("materialize", "--at", AT)
    Path("features.py").write_text("")
    run("apply", "--prune")
    message = run(*command, code=1).stderr
    assert "The last that has it is snapshot 4: --as-of 4, in Python as_of=4.\n" in message
    assert "yet" not in message
    run(*command, "--as-of", "4")


def test_damage_of_the_past_hides_no_error_of_the_present(project: Path):
    changed()
    Path(".penstock/_catalog/log/3.json").write_bytes(b"{")
    assert "no feature view 'demnd'" in run("historical", "demnd:x", "--spine", SPINE, code=1).stderr
    message = run("historical", "demand:trips_1h", "--spine", SPINE, code=1).stderr
    assert message.endswith("changed\n  Accept the new meaning: penstock apply.\n")


def test_a_version_whose_meaning_is_gone_says_where_it_was(project: Path):
    number = changed()
    run("apply")
    message = run("historical", "tips@1", "--spine", SPINE, code=1).stderr
    assert (
        "Ask for tips@2. Offline it can be asked for as of a snapshot from before that change (penstock historical "
        f"--as-of N, in Python as_of=N). The last that has it is snapshot {number - 1}: --as-of" in message
    )
    run("historical", "tips@1", "--spine", SPINE, "--as-of", str(number - 1))
    run("materialize", "--at", AT)
    for command in (["online", "get", "tips@1", "zone=007", "to_zone=007"], ["verify", "tips@1"]):
        assert "change (penstock historical --as-of N, in Python as_of=N).\n" in run(*command, code=1).stderr


@pytest.mark.parametrize("command", [["historical", "demand:trips_1h", "--spine", SPINE], ["materialize", "--at", AT]])
def test_a_source_that_fails_on_a_value_is_named(project: Path, command: list[str]):
    source = "source=\"select * from warehouse.trips where (zone || 'x')::int > 0\", entities=[zone]"
    Path("features.py").write_text(FEATURES.replace('source="warehouse.trips", entities=[zone]', source))
    run("apply")
    message = run(*command, code=1).stderr
    assert "error: feature view 'demand': the source cannot be read: Could not convert string" in message
    assert "try_cast" in message
    assert "Error:" not in message
    assert "LINE" not in message


def test_numbers_of_versions_stay_taken_where_they_were_rolled_back(project: Path):
    run("tag", "before")
    changed()
    assert "version 2" in run("apply").stdout
    run("rollback", "before")
    changed(MODEL.replace("fare, tip, paid from", "fare * 3 as fare, tip, paid from"))
    assert "version 3" in run("apply").stdout


def test_only_what_was_made_of_the_former_meaning_is_told(project: Path):
    spine = ["historical", "demand:trips_1h", "--spine", SPINE, "--save", "small"]
    run(*spine)
    changed()
    told = run("plan").stdout
    assert re.search(r"training set small@1, online generation \w+ were made of the former meaning", told)
    run("apply")
    run(*spine)
    changed(MODEL)
    told = run("plan").stdout
    assert "training set small@2 was made of the former meaning of feature view demand" in told
    assert "small@1" not in told
    assert "online generation" not in told


def test_what_is_wrong_with_the_file_itself_waits_for_no_promotion(project: Path):
    Path("sql/warehouse/trips.sql").write_text(CHANGED)
    Path("features.py").write_text(FEATURES.replace('source="warehouse.trips"', "source=5", 1))
    assert "features.py:" in run("plan", code=1).stderr


def test_a_spine_that_does_not_bind_is_called_so(project: Path):
    message = run("historical", "tips", "--spine", "select nothing from warehouse.trips", code=1).stderr
    assert message.startswith("error: the spine: ")
