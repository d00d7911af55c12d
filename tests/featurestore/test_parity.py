"""Verification: it passes where online equals offline, and fails, naming what differs, where it does not."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings

sys.path.append(str(Path(__file__).parent))

from online_lake import AT, CITY, NOON, OnlineLake, city, facts, moment

from featurestore.cli import cli
from featurestore.generations import Manifest
from featurestore.online.lmdb import LmdbStore
from featurestore.parity import ParityReport
from featurestore.store import FeatureStore
from featurestore.testing.histories import Case, cases
from lakehouse.errors import ConflictError, RequestError


@pytest.fixture
def lake(tmp_path: Path) -> OnlineLake:
    lake = OnlineLake.built(tmp_path)
    lake.store.materialize(at=NOON)
    return lake


# -- it passes ------------------------------------------------------------------------------------------------------


def verified(case: Case, store: FeatureStore, seed: int) -> ParityReport:
    report = store.verify([case.view], sample=20, seed=seed)
    assert report.values == report.rows * len(case.view.feature_names) == sum(report.statuses.values())
    return report


def check(case: Case) -> None:
    with tempfile.TemporaryDirectory() as root:
        lake = OnlineLake(Path(root))
        lake.put(case.types, case.batches[:1])
        lake.store.apply([case.view])
        lake.at(max(case.at, AT)).store.materialize(at=moment(case.at))
        assert verified(case, lake.store, 1).mismatches == ()
        for batch in case.batches[1:]:
            lake.append(batch)
        lake.store.materialize(at=moment(case.at))
        assert verified(case, lake.store, 2).mismatches == ()
        lake.store.online.close()


@settings(max_examples=6, deadline=None)
@given(cases(online=True))
def test_generated_cases_are_the_same(case: Case):
    check(case)


def test_the_report_says_what_was_compared(lake: OnlineLake):
    report = lake.store.verify("tips", sample=50, seed=3)
    manifest = lake.store.online.current()
    assert manifest is not None
    assert report.same
    assert (report.service, report.generation, report.snapshot) == ("tips", manifest.id, 3)
    assert report.values == report.rows * 6 == sum(report.statuses.values())
    assert set(report.statuses) == {"PRESENT", "NULL", "EXPIRED", "NOT_FOUND"}
    assert min(report.statuses.values()) > 0  # every status was met
    first, second, third = report.text()
    assert first.startswith(f"tips: {report.values} of {report.values} values are the same online and offline")
    assert second.startswith(f"  {report.values} = ")
    assert manifest.id in third
    assert repr(report) in report._repr_html_().replace("&#x27;", "'")


def test_the_same_seed_is_the_same_sample(lake: OnlineLake):
    lake.append(facts(*[(zone, -1, None, "1.00", str(zone)) for zone in range(10, 400)]))
    lake.store.materialize(at=NOON)
    reports = [lake.store.verify("tips", sample=20, seed=seed) for seed in (1, 1, 2, 3, 4)]
    assert reports[0] == reports[1]
    assert any(report != reports[0] for report in reports[2:])
    # Also pairs that do not belong together, and a null; but none twice.
    assert all(20 <= report.rows <= 23 for report in reports)


def test_roles_long_keys_and_views_of_everybody(tmp_path: Path):
    lake = OnlineLake(tmp_path)
    from featurestore.definitions import Entity, Feature, FeatureView
    from featurestore.testing.histories import arrow_table

    types = {"a": "VARCHAR", "b": "BIGINT", "seen": "TIMESTAMP WITH TIME ZONE", "v": "DOUBLE"}
    columns: dict[str, Any] = {
        "a": ["x", "y" * 600, None], "b": [1, 2, 3], "seen": [0, 0, 0], "v": [float("nan"), -0.0, 1.0],
    }  # fmt: skip
    lake.put(types, [arrow_table(types, columns)])
    lake.put({"seen": "TIMESTAMP WITH TIME ZONE", "trips": "BIGINT"}, [city((-1, 2**53 + 1))], CITY)
    view = FeatureView(
        "pairs", source="warehouse.facts", entities=[Entity("pair", join_keys=["a", "b"])], event_timestamp="seen",
        features=[Feature("v")],
    )  # fmt: skip
    town = FeatureView(
        "town", source="warehouse.city", entities=[], event_timestamp="seen", features=[Feature("trips")]
    )
    lake.store.apply([view, town])
    lake.store.materialize(at=NOON)
    for asked in ([view], [town], [view, view.on(a="c", prefix="c"), town]):
        report = lake.store.verify(asked)
        assert report.same, report
        assert report.service == "features"
        assert report.rows > 1


# -- it fails -------------------------------------------------------------------------------------------------------


def swapped(lake: OnlineLake, **files: Manifest) -> None:
    """Publish a generation like the current one in which some views have the files of other generations."""
    store = LmdbStore(lake.directory)
    current = store.current()
    assert current is not None
    views = {**current.views, **{name: other.views[name] for name, other in files.items()}}
    forged = Manifest.sealed(
        id=f"{current.id[:-1]}{'0' if current.id[-1] != '0' else '1'}",
        lake=current.lake, snapshot=current.snapshot, at=current.at, built_at=current.built_at, views=views,
        definitions=current.definitions,
    )  # fmt: skip
    store.publish(forged, expected=current.id)


def manifest_of(lake: OnlineLake) -> Manifest:
    manifest = lake.store.online.current()
    assert manifest is not None
    return manifest


@pytest.fixture
def forged(lake: OnlineLake) -> OnlineLake:
    """A lake whose generation was built of a snapshot with one more ride."""
    right = manifest_of(lake)
    lake.append(facts((1, -0.75, None, "100.00", "never seen")))
    lake.store.materialize(at=NOON)
    wrong = manifest_of(lake)
    lake.store.online.rollback(right.id)
    swapped(lake, sums=wrong)
    return lake


def test_one_ride_too_many_is_found(forged: OnlineLake):
    report = forged.store.verify("tips")
    assert not report.same
    assert {mismatch.feature for mismatch in report.mismatches} == {"sums__rides_1h", "sums__rides_1d", "sums__paid_1d"}
    assert {mismatch.entity["zone"] for mismatch in report.mismatches} == {1}
    paid = next(mismatch for mismatch in report.mismatches if mismatch.feature == "sums__paid_1d")
    assert paid.online[1] == paid.offline[1] == "PRESENT"
    assert paid.online[0] - paid.offline[0] == Decimal("100.00")
    line = next(line for line in report.text() if "sums__paid_1d" in line)
    assert line == (
        f"  DIFFERS sums__paid_1d of zone=1 at {paid.at}: online {paid.online[0]!r} (PRESENT), "
        f"offline {paid.offline[0]!r} (PRESENT)"
    )
    # What is not asked for is not compared.
    assert forged.store.verify(["state:fare", "town:trips"]).same


def test_the_command_fails_and_names_entity_instant_feature_and_both_values(forged: OnlineLake):
    project = ["--project", str(forged.root / "lake")]
    result = CliRunner().invoke(cli, ["verify", "tips", *project])
    assert result.exit_code == 1
    assert "DIFFERS sums__rides_1d of zone=1 at 2024-01-0" in result.stdout
    assert "online 3 (PRESENT), offline 2 (PRESENT)" in result.stdout
    assert "Traceback" not in result.output

    result = CliRunner().invoke(cli, ["verify", "tips", "--format", "csv", *project])
    assert result.exit_code == 1
    header, *rows = csv.reader(result.stdout.splitlines())
    assert header == ["feature", "entity", "at", "online", "online_status", "offline", "offline_status"]
    assert any(
        row[:2] == ["sums__rides_1d", '{"zone":1}'] and row[3:] == ["3", "PRESENT", "2", "PRESENT"] for row in rows
    )

    result = CliRunner().invoke(cli, ["verify", "tips", "--format", "json", *project])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert {"feature": "sums__rides_1d", "entity": {"zone": 1}}.items() <= next(
        mismatch.items() for mismatch in report["mismatches"] if mismatch["feature"] == "sums__rides_1d"
    )
    assert CliRunner().invoke(cli, ["verify", "state:fare", *project]).exit_code == 0


@pytest.mark.parametrize(("features", "code"), [("tips", 1), ("state:fare", 0)])
def test_the_command_fails_also_where_nobody_reads_on(forged: OnlineLake, features: str, code: int):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from featurestore.cli import main; main()", "verify", features]
    ran = subprocess.run(
        [*command, "--format", "csv", "--project", forged.root / "lake"],
        stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (code, "")


@pytest.mark.parametrize("sample", [0, -1])
def test_a_sample_is_of_one_lookup_at_least(lake: OnlineLake, sample: int):
    with pytest.raises(RequestError, match="sample must be at least 1"):
        lake.store.verify("tips", sample=sample)


def test_as_csv_there_is_a_header_where_all_is_the_same(lake: OnlineLake):
    result = CliRunner().invoke(cli, ["verify", "tips", "--format", "csv", "--project", str(lake.root / "lake")])
    assert result.exit_code == 0
    assert result.stdout == "feature,entity,at,online,online_status,offline,offline_status\n"


def test_one_of_each_is_counted_as_one(lake: OnlineLake):
    report = lake.store.verify(["town:trips"], sample=1)
    one = replace(report, rows=1, instants=1, values=1, mismatches=())
    assert one.text()[0] == "features: 1 of 1 value is the same online and offline (1 lookup at 1 instant)"
    two = replace(report, rows=2, instants=2, values=2, mismatches=())
    assert two.text()[0] == "features: 2 of 2 values are the same online and offline (2 lookups at 2 instants)"


@pytest.mark.parametrize("key", ["_asked_at", "asked_at", "ASKED_AT"])
def test_a_key_may_be_called_like_the_time_that_verification_asks_for(tmp_path: Path, key: str):
    from featurestore.definitions import Entity, Feature, FeatureView
    from featurestore.testing.histories import arrow_table

    lake = OnlineLake(tmp_path)
    types = {key: "BIGINT", "seen": "TIMESTAMP WITH TIME ZONE", "_asked_at_": "DOUBLE"}
    lake.put(types, [arrow_table(types, {key: [1, 2], "seen": [0, 0], "_asked_at_": [1.5, 2.5]})])
    lake.store.apply([FeatureView("facts", "warehouse.facts", [Entity(key)], [Feature("_asked_at_")], "seen")])
    lake.store.materialize(at=NOON)
    assert lake.store.verify(["facts:_asked_at_"]).same


def test_a_value_that_differs_by_its_status_only_is_found(lake: OnlineLake):
    right = manifest_of(lake)
    # A row that is there but null, where the lake has none: null both ways.
    lake.append(facts((7, -0.5, None, None, None)))
    lake.store.materialize(at=NOON)
    wrong = manifest_of(lake)
    lake.store.online.rollback(right.id)
    swapped(lake, state=wrong)
    report = lake.store.verify(["state:fare"])
    found = {
        (mismatch.feature, mismatch.entity["zone"], mismatch.online, mismatch.offline) for mismatch in report.mismatches
    }
    assert ("state__fare", 7, (None, "NULL"), (None, "NOT_FOUND")) in found
    assert {status for *_, (_, status) in found} == {"NOT_FOUND"}
    assert "online NULL, offline NOT_FOUND" in repr(report)


def test_an_entity_that_the_generation_lacks_is_found(lake: OnlineLake):
    wrong = manifest_of(lake)
    lake.append(facts((7, -0.5, None, "7.00", "new")))
    lake.store.materialize(at=NOON)
    swapped(lake, state=wrong)
    report = lake.store.verify("state:fare")
    assert {mismatch.entity["zone"] for mismatch in report.mismatches} == {7}
    assert {mismatch.online[1] for mismatch in report.mismatches} == {"NOT_FOUND"}


def test_entities_of_every_view_are_taken(lake: OnlineLake):
    right = manifest_of(lake)
    lake.append(facts(*[(zone, -3, None, "1.00", "x") for zone in range(100, 150)]))
    lake.store.materialize(at=NOON)
    wrong = manifest_of(lake)
    lake.store.online.rollback(right.id)
    swapped(lake, sums=wrong)
    assert {mismatch.entity["zone"] for mismatch in lake.store.verify("tips").mismatches} >= {100, 149}


def test_many_differences_are_counted(forged: OnlineLake):
    report = forged.store.verify("tips")
    many = replace(report, mismatches=report.mismatches * 20)
    assert len([line for line in many.text() if "DIFFERS" in line]) == 10
    assert many.text()[-1] == f"  … and {len(many.mismatches) - 10:,} more"


def test_a_wrong_tail_is_found(lake: OnlineLake):
    """Right at the generation's instant, wrong later."""
    right = manifest_of(lake)
    lake.append(facts((1, 0.5, None, "100.00", "future")))
    lake.store.materialize(at=NOON)
    wrong = manifest_of(lake)
    lake.store.online.rollback(right.id)
    swapped(lake, state=wrong, sums=wrong)
    report = lake.store.verify("tips", sample=400)
    assert not report.same
    assert all(mismatch.at > "2024-01-02T12:00" for mismatch in report.mismatches)


# -- what it needs --------------------------------------------------------------------------------------------------


def test_a_flip_meanwhile_is_no_mismatch(lake: OnlineLake, monkeypatch: pytest.MonkeyPatch):
    from featurestore.serving import Serving

    asked = Serving.get
    lake.append(facts((1, -0.75, None, "100.00", "new")))
    other = lake.another()

    def flipped(self: Serving, *arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        other.materialize(at=NOON)
        return asked(self, *arguments, **options)

    monkeypatch.setattr(Serving, "get", flipped)
    with pytest.raises(ConflictError, match="was published while"):
        lake.store.verify("tips")
    assert lake.store.verify("tips").same


def test_after_rollback_it_compares_with_the_older_snapshot(lake: OnlineLake):
    lake.append(facts((1, -0.75, None, "100.00", "new")))
    lake.store.materialize(at=NOON)
    assert lake.store.verify("tips").snapshot == 4
    lake.store.online.rollback()
    report = lake.store.verify("tips")
    assert (report.same, report.snapshot) == (True, 3)


def test_unknown_names_are_refused(lake: OnlineLake):
    with pytest.raises(RequestError, match="Did you mean tips"):
        lake.store.verify("tipps")


def test_the_far_future_is_no_trouble(lake: OnlineLake):
    lake.store.materialize(at="9999-12-31T23:00:00Z", force=True)
    assert lake.store.verify("tips").same
