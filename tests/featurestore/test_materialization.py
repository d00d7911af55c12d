"""Materialization: what a generation holds, what is built anew, what is refused, and what a failure leaves behind."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from online_lake import (
    AT,
    CITY,
    FACT_TYPES,
    NOON,
    STATE,
    SUMS,
    TOWN,
    OnlineLake,
    city,
    everything,
    facts,
    hours,
)

from featurestore.definitions import Feature, FeatureService
from featurestore.materialization import KEPT_GENERATIONS
from featurestore.online.lmdb import LmdbStore
from lakehouse.errors import CatalogDamagedError, ConflictError, PenstockError, RequestError
from lakehouse.types import utc_text


@pytest.fixture
def lake(tmp_path: Path) -> OnlineLake:
    return OnlineLake.built(tmp_path)


def said(error: pytest.ExceptionInfo[PenstockError]) -> str:
    return str(error.value)


# -- what it builds -------------------------------------------------------------------------------------------------


def test_the_report_adds_up(lake: OnlineLake):
    report = lake.store.materialize(at=NOON)
    assert report.published
    assert (report.snapshot, report.at) == (3, "2024-01-02T12:00:00.000000Z")
    manifest = lake.store.online.current()
    assert manifest is not None
    assert manifest.id == report.generation
    assert {view.view: (view.entities, view.tail, view.reused) for view in report.views} == {
        "state": (2, 0, False),
        "sums": (1, 0, False),  # zone 2's only ride is older than the longest window
        "town": (1, 0, False),
    }
    for view in report.views:
        assert view.bytes == (lake.directory / "views" / lake.files[view.view]).stat().st_size
    assert (manifest.definitions, manifest.at) == (lake.snapshot.entry.definitions, AT)
    assert [line.partition(":")[0] for line in report.text()[:-1]] == ["state", "sums", "town"]
    assert report.text()[-1] == (
        f"serving generation {report.generation}: snapshot 3, for 2024-01-02T12:00:00.000000Z and later"
    )
    assert repr(report) in report._repr_html_()
    (execution,) = lake.executions
    assert (execution.state, execution.snapshot, execution.id) == ("COMPLETE", 3, manifest.execution)
    assert execution.counts == {"state": 2, "sums": 1, "town": 1}
    assert execution.parameters["snapshot"] == 3


def test_rows_that_describe_nobody_are_counted(lake: OnlineLake):
    odd = [(None, -1, None, "1.00", "x"), (1, None, None, "1.00", "x"), (None, None, None, "1.00", "x")]
    lake.append(facts(*odd))
    counted = {"state": (2, 1), "sums": (2, 1), "town": (0, 0)}
    for _ in range(2):  # files that are kept know it too
        report = lake.store.materialize(at=NOON)
        assert {view.view: (view.undated, view.without_key) for view in report.views} == counted
        assert "  left out of its source: 2 rows without an event timestamp and 1 row without a key" in report.text()
        assert len(report.text()) == 6
        lake.append(city((-1, 5)), table=CITY)


def test_without_an_instant_it_is_for_now(lake: OnlineLake):
    before = lake.clock.now
    report = lake.store.materialize()
    assert utc_text(before) < report.at < utc_text(lake.clock.now)


def test_progress_counts_views(lake: OnlineLake):
    seen: list[tuple[int, int, str]] = []
    lake.store.materialize(progress=lambda *step: seen.append(step))
    assert seen == [(0, 3, "state"), (1, 3, "sums"), (2, 3, "town"), (3, 3, "")]


def test_a_second_time_there_is_nothing_to_do(lake: OnlineLake):
    first = lake.store.materialize(at=NOON)
    again = lake.another().materialize(at=NOON)
    assert (again.published, again.generation) == (False, first.generation)
    assert again.text() == [
        f"Nothing to do: generation {first.generation} is of snapshot 3 and for 2024-01-02T12:00:00.000000Z."
    ]
    assert [view.entities for view in again.views] == [2, 1, 1]
    assert len(lake.executions) == len(lake.pins) == len(lake.store.online.generations()) == 1


def hours_text(hour: int) -> str:
    return f"2024-01-02T{12 + hour:02d}:00:00Z"


def test_a_later_instant_is_another_generation_of_the_same_files(lake: OnlineLake):
    first = lake.store.materialize(at=NOON)
    files = lake.files
    second = lake.at(hours(8.5)).store.materialize(at="2024-01-02T20:30:00Z")
    assert second.published
    assert second.generation != first.generation
    assert lake.files == files
    assert all(view.reused for view in second.views)
    assert "unchanged, file kept" in second.text()[0]
    assert lake.state(at=hours(8.5)) == {
        "fare": Decimal("2.50"), "note": None, "rides_1h": 0, "rides_1d": 2, "paid_1d": Decimal("12.50"), "trips": 100,
    }  # fmt: skip
    with pytest.raises(RequestError, match="earlier"):
        lake.state(at=hours(8.4))


def test_full_builds_every_file_anew(lake: OnlineLake):
    lake.store.materialize(at=NOON)
    files = lake.files
    again = lake.store.materialize(at=NOON, full=True)
    assert again.published
    assert not any(view.reused for view in again.views)
    assert not set(files.values()) & set(lake.files.values())


def test_late_rows_reach_the_next_generation(lake: OnlineLake):
    lake.store.materialize(at=NOON)
    assert lake.state()["rides_1d"] == 2
    # Committed later, but older than everything that zone 1 has; and an older row never wins over a newer one.
    lake.append(facts((1, -20, None, "1.00", "late"), (3, -2, None, "3.00", "new")))
    again = lake.store.materialize(at=NOON)
    assert {view.view: view.reused for view in again.views} == {"state": False, "sums": False, "town": True}
    assert lake.state() == {
        "fare": Decimal("2.50"), "note": None, "rides_1h": 1, "rides_1d": 3, "paid_1d": Decimal("13.50"), "trips": 100,
    }  # fmt: skip
    assert lake.state(3)["note"] == "new"


def test_only_what_changed_is_built_anew(lake: OnlineLake):
    lake.store.materialize(at=NOON)
    before = lake.files
    lake.append(city((-6, 170)), table=CITY)
    lake.store.materialize(at=NOON)
    after = lake.files
    assert {name for name in before if before[name] != after[name]} == {"town"}
    assert lake.state()["trips"] == 170

    lake.store.apply(everything(replace(STATE, ttl="2h")))
    lake.store.materialize(at=NOON)
    assert {name for name in after if after[name] != lake.files[name]} == {"state"}
    assert lake.another().get_online_features(["state:fare"], [{"zone": 2}]).statuses() == {"fare": ["EXPIRED"]}


def test_what_does_not_touch_answers_keeps_every_file(lake: OnlineLake):
    lake.store.materialize(at=NOON)
    before = lake.files
    lake.store.apply(everything(replace(STATE, description="of a zone", owner="city", tags={"tier": "gold"})))
    report = lake.store.materialize(at=NOON)
    assert report.published  # the manifest names the newer snapshot and definitions
    assert lake.files == before


def test_a_view_over_two_tables_is_built_anew_when_either_changes(lake: OnlineLake):
    joined = replace(
        TOWN, source="select f.seen, f.zone * c.trips as trips from warehouse.facts f, warehouse.city c", name="joined"
    )
    lake.store.apply([joined])
    for change in (
        lambda: lake.append(facts((5, -1, None, "1.00", "x"))),
        lambda: lake.append(city((-1, 9)), table=CITY),
    ):
        lake.store.materialize(at=NOON)
        before = lake.files["joined"]
        change()
        lake.store.materialize(at=NOON)
        assert lake.files["joined"] != before


def test_a_view_that_goes_offline_leaves_the_generation(lake: OnlineLake):
    lake.store.materialize(at=NOON)
    lake.store.apply(everything(sums=replace(SUMS, online=False)))
    assert [view.view for view in lake.store.materialize(at=NOON).views] == ["state", "town"]
    with pytest.raises(RequestError, match="'sums'"):
        lake.state(features=["sums:rides_1h"])


def test_compaction_changes_no_answer(lake: OnlineLake):
    lake.append(facts((1, -0.25, 3, "4.00", "corrected")))
    lake.store.materialize(at=NOON)
    before = [lake.state(zone, at=hours(hour)) for zone in (1, 2) for hour in (0, 2.9, 3, 24)]
    lake.compact(reverse=True)
    lake.store.materialize(at=NOON)
    assert [lake.state(zone, at=hours(hour)) for zone in (1, 2) for hour in (0, 2.9, 3, 24)] == before


def test_a_source_may_end_in_a_comment(lake: OnlineLake):
    source = "select zone, seen, made, fare, note from warehouse.facts -- all of them"
    lake.store.apply(everything(replace(STATE, source=source), replace(SUMS, source=source)))
    lake.store.materialize(at=NOON)
    assert lake.state()["rides_1d"] == 2
    assert lake.store.verify("tips").same


def test_a_source_without_rows_is_a_generation_of_nobody(lake: OnlineLake):
    lake.put(FACT_TYPES, [facts()])
    report = lake.store.materialize(at=NOON)
    assert [view.entities for view in report.views] == [0, 0, 1]
    answer = lake.store.get_online_features(["state:fare", "sums:rides_1h"], [{"zone": 1}])
    assert answer.statuses() == {"fare": ["NOT_FOUND"], "rides_1h": ["NOT_FOUND"]}
    assert lake.store.verify("tips").same


# -- the tail -------------------------------------------------------------------------------------------------------


def test_what_becomes_visible_later_is_in_the_generation(lake: OnlineLake):
    lake.append(
        facts(
            (1, 2, None, "20.00", "future"),
            (1, -0.25, 3, "30.00", "created later"),  # older than the future row: never shown by the state
            (2, -1, 5, "40.00", "late knowledge"),
        )
    )
    report = lake.store.materialize(at=NOON)
    assert {view.view: view.tail for view in report.views} == {"state": 2, "sums": 1, "town": 0}
    assert " + 2 rows visible later" in report.text()[0]
    notes = {
        hour: (lake.state(1, hours(hour))["note"], lake.state(2, hours(hour))["note"]) for hour in (0, 1.99, 2, 3, 5)
    }
    assert notes == {
        0: (None, None),
        1.99: (None, None),
        2: ("future", None),
        3: ("future", None),
        5: ("future", "late knowledge"),
    }
    rides = [lake.state(1, hours(hour))["rides_1h"] for hour in (0, 1.99, 2, 2.9, 3)]
    offline = lake.store.get_historical_features(
        {"zone": [1] * 5, "t": [_instant(hour) for hour in (0, 1.99, 2, 2.9, 3)]}, ["sums:rides_1h"]
    )
    assert rides == offline.to_arrow().column("rides_1h").to_pylist() == [2, 0, 1, 1, 0]
    assert lake.store.verify("tips").same


def _instant(hour: float) -> dt.datetime:
    return NOON + dt.timedelta(hours=hour)


# -- what is refused ------------------------------------------------------------------------------------------------


def test_an_older_snapshot_is_refused_unless_forced(lake: OnlineLake):
    lake.append(facts((1, -0.1, None, "9.00", "newest")))
    served = lake.store.materialize(at=NOON)
    with pytest.raises(RequestError, match=r"snapshot 4, .*older snapshot 3") as error:
        lake.store.materialize(as_of=3, at=NOON)
    assert "--force, in Python force=True" in said(error)
    assert lake.store.online.current_id() == served.generation
    forced = lake.store.materialize(as_of=3, at=NOON, force=True)
    assert (forced.snapshot, forced.published) == (3, True)
    assert lake.state()["note"] is None


def test_an_earlier_instant_is_refused_unless_forced(lake: OnlineLake):
    lake.at(hours(6)).store.materialize(at=hours_text(6))
    with pytest.raises(
        RequestError, match=r"2024-01-02T18:00:00.000000Z, later than 2024-01-02T12:00:00.000000Z"
    ) as error:
        lake.store.materialize(at=NOON)
    assert "penstock materialize --at 2024-01-02T12:00:00.000000Z --force" in said(error)
    forced = lake.store.materialize(at=NOON, force=True)
    # A file that was folded for later cannot answer earlier.
    assert not any(view.reused for view in forced.views)
    assert lake.state(at=NOON)["rides_1h"] == 1


@pytest.mark.parametrize("at", ["2030-01-01", hours_text(1)])
def test_an_instant_in_the_future_is_refused_unless_forced(lake: OnlineLake, at: str):
    served = lake.store.materialize(at=NOON)  # a few seconds ahead, as clocks are
    with pytest.raises(RequestError, match=r"lies in the future: .*lookups would answer as of that instant") as error:
        lake.store.materialize(at=at)
    assert "Leave the instant out to build for now, or insist: --force, in Python force=True" in said(error)
    assert lake.store.online.current_id() == served.generation
    forced = lake.store.materialize(at=at, force=True)
    with pytest.raises(RequestError, match="later than") as error:
        lake.store.materialize()
    back = said(error).partition("penstock materialize --at ")[2].split()
    assert back[1].startswith("--force")
    assert forced.at > lake.store.materialize(at=back[0], force=True).at == back[0]


def test_the_way_back_to_an_earlier_instant_is_named(lake: OnlineLake):
    lake.store.materialize(at=NOON)
    with pytest.raises(RequestError, match="cannot answer as of the earlier") as error:
        lake.state(at=hours(-1))
    assert "penstock materialize --at 2024-01-02T11:00:00.000000Z --force" in said(error)
    lake.store.materialize(at="2024-01-02T11:00:00.000000Z", force=True)
    assert lake.state(at=hours(-1))["rides_1d"] == 1


def test_the_directory_of_another_lake_is_refused(lake: OnlineLake, tmp_path: Path):
    lake.store.materialize()
    other = OnlineLake(tmp_path / "other")
    other.build()
    other.store.online = LmdbStore(lake.directory)
    with pytest.raises(RequestError) as error:
        other.store.materialize()
    assert lake.catalog.identity in said(error)
    assert other.catalog.identity in said(error)
    assert "[online] path" in said(error)
    assert lake.state()["trips"] == 100
    # Nor are its answers taken for this lake's.
    for ask in (
        lambda: other.store.get_online_features("tips", [{"zone": 1}]),
        lambda: other.store.key_types("tips"),
        lambda: other.store.verify("tips"),
    ):
        with pytest.raises(RequestError, match=f"of lake {lake.catalog.identity}, and this is") as error:
            ask()
        assert "[online] path" in said(error)
    other.store.materialize(force=True)
    assert other.store.verify("tips").same
    with pytest.raises(RequestError, match="is of lake"):
        lake.store.get_online_features("tips", [{"zone": 1}])


@pytest.mark.parametrize("applied", [[], [replace(STATE, online=False)]])
def test_without_online_views_there_is_nothing_to_build(tmp_path: Path, applied: list):
    lake = OnlineLake(tmp_path)
    lake.put(FACT_TYPES, [facts()])
    if applied:
        lake.store.apply(applied)
    with pytest.raises(RequestError, match="no feature view") as error:
        lake.store.materialize()
    assert "penstock apply" in said(error)
    assert lake.store.online.current_id() is None


def test_the_last_online_view_can_be_switched_off(lake: OnlineLake):
    lake.store.materialize(at=NOON)
    store = lake.another()
    off = [replace(view, online=False) for view in (STATE, SUMS, TOWN)]
    store.apply([*off, FeatureService("tips", features=off)])
    report = store.materialize(at=NOON)
    assert (report.published, report.views) == (True, ())
    assert report.text()[0] == "no feature view is online any more: nothing is answered"
    assert store.materialize(at=NOON).text()[0].startswith("Nothing to do")
    for ask in (lake.state, lambda: store.key_types("tips"), lambda: store.verify("tips")):
        with pytest.raises(RequestError, match="no feature view is online") as error:
            ask()
        assert "online=True" in said(error)
    store.apply(everything())
    store.materialize(at=NOON)
    assert lake.state()["rides_1d"] == 2


@pytest.mark.parametrize("at", ["yesterday", NOON.replace(tzinfo=None), 3.5, AT, "2024-01-02T12:00:00.0000001Z"])
def test_an_instant_must_be_one(lake: OnlineLake, at):
    with pytest.raises(RequestError):
        lake.store.materialize(at=at)


# -- two at once ----------------------------------------------------------------------------------------------------


def test_of_two_at_once_one_wins_and_nothing_is_lost(lake: OnlineLake):
    other = lake.another()
    winners = []

    def overtaken(place: str) -> None:
        if place == "written" and not winners:
            winners.append(other.materialize(at=NOON))

    lake.store.online = LmdbStore(lake.directory, failpoint=overtaken)
    with pytest.raises(ConflictError, match="another process published") as error:
        lake.store.materialize(at=NOON)
    assert error.value.exit_code == 75
    (winner,) = winners
    assert lake.store.online.current_id() == winner.generation
    assert list(lake.pins) == [winner.generation]
    assert sorted(execution.state for execution in lake.executions) == ["COMPLETE", "FAILED"]
    assert lake.state()["rides_1d"] == 2
    assert lake.another().materialize(at=NOON).published is False
    # The loser's files go with it.
    lake.store.online.close()
    lake.at(hours(1)).another().materialize(at=hours_text(1))
    assert {path.name for path in (lake.directory / "views").iterdir()} == set(lake.files.values())


# -- pins -----------------------------------------------------------------------------------------------------------


def test_generations_pin_their_snapshots_as_long_as_they_live(lake: OnlineLake):
    made = []
    for number in range(KEPT_GENERATIONS + 2):
        lake.append(facts((1, -0.1, None, f"{number}.00", str(number))))
        made.append(lake.store.materialize(at=NOON))
        assert lake.pins == {report.generation: report.snapshot for report in made[-KEPT_GENERATIONS:]}
    kept = [manifest.id for manifest in lake.store.online.generations()]
    assert kept == [report.generation for report in reversed(made[-KEPT_GENERATIONS:])]
    files = {file for manifest in lake.store.online.generations() for file in manifest.files}
    assert {path.name for path in (lake.directory / "views").iterdir()} == files


class Stop(BaseException):
    """As good as a kill: nothing catches it, but finally clauses run."""


def test_a_pin_that_a_killed_process_left_is_given_up(lake: OnlineLake, monkeypatch: pytest.MonkeyPatch):
    from lakehouse.pins import Pins

    monkeypatch.setattr(Pins, "unpin", lambda _self, _name: None)  # the process is gone before it can

    def killed(place: str) -> None:
        if place == "manifest":
            raise Stop

    lake.store.online = LmdbStore(lake.directory, failpoint=killed)
    with pytest.raises(Stop):
        lake.store.materialize(at=NOON)
    (orphan,) = lake.pins
    monkeypatch.undo()
    lake.store.online.close()
    report = lake.another().materialize(at=NOON)
    assert list(lake.pins) == [report.generation] != [orphan]


def test_a_run_that_has_nothing_to_do_clears_away_what_a_killed_one_left(lake: OnlineLake):
    lake.store.materialize(at=NOON)
    orphans = [lake.directory / "views/state-01HK50PNQJA67ENMDBRE2GYZWZ.lmdb", lake.directory / "generations/x.json"]
    for orphan in orphans:
        orphan.write_bytes(b"half")
    assert not lake.another().materialize(at=NOON).published
    assert not any(orphan.exists() for orphan in orphans)


def test_a_pin_that_cannot_be_read_stops_nothing(lake: OnlineLake):
    (lake.root / "lake/_catalog/pins").mkdir(parents=True)
    (lake.root / "lake/_catalog/pins/training.x@1.json").write_text("{")
    assert lake.store.materialize(at=NOON).published


def test_another_store_of_the_lake_keeps_its_pins(lake: OnlineLake, tmp_path: Path):
    first = lake.store.materialize(at=NOON)
    second = lake.another()
    second.online = LmdbStore(tmp_path / "elsewhere")
    report = second.materialize(at=NOON)
    assert sorted(lake.pins) == sorted([first.generation, report.generation])
    again = lake.at(hours(1)).another().materialize(at=hours_text(1))
    assert sorted(lake.pins) == sorted([first.generation, report.generation, again.generation])


# -- failures -------------------------------------------------------------------------------------------------------


def test_a_column_that_changed_its_type_stops_it_and_the_old_generation_serves_on(lake: OnlineLake):
    served = lake.store.materialize(at=NOON)
    types = {**FACT_TYPES, "fare": "DOUBLE"}
    lake.put(types, [facts((1, -1, None, "1.00", "x")).set_column(3, "fare", [[1.5]])])
    with pytest.raises(
        RequestError, match=r"'fare' of its source was DECIMAL\(10,2\).*is DOUBLE at snapshot 4"
    ) as error:
        lake.store.materialize(at=NOON)
    assert "penstock apply" in said(error)
    assert lake.state()["rides_1d"] == 2
    assert lake.store.online.current_id() == served.generation
    assert list(lake.pins) == [served.generation]
    assert [execution.state for execution in lake.executions] == ["FAILED", "COMPLETE"]
    assert "DOUBLE" in (lake.executions[0].error or "")


def test_a_column_that_vanished_stops_it(lake: OnlineLake):
    lake.store.materialize(at=NOON)
    lake.drop_column("note")
    with pytest.raises(RequestError, match=r"'note' of its source was VARCHAR.*is gone at snapshot 4"):
        lake.store.materialize(at=NOON)
    assert lake.state()["rides_1d"] == 2


def test_a_table_that_vanished_stops_it(lake: OnlineLake):
    lake.store.materialize(at=NOON)
    definitions = lake.store.definitions()
    from featurestore.materialization import materialize

    with pytest.raises(RequestError, match=r"cannot be read at snapshot 0.*warehouse\.facts") as error:
        materialize(
            lake.catalog.resolve(0), lake.store.lake.settings, definitions, LmdbStore(lake.root / "new"), at=NOON
        )
    assert "feature view" in said(error)


def test_a_sum_that_does_not_fit_stops_it(lake: OnlineLake):
    lake.put({**FACT_TYPES, "fare": "DECIMAL(38,2)"}, [big_fares()])
    lake.store.apply([replace(STATE, features=[Feature("note")]), SUMS])
    with pytest.raises(RequestError, match="sums"):
        lake.store.materialize(at=NOON)
    (execution,) = lake.executions
    assert execution.state == "FAILED"
    assert lake.pins == {}


def big_fares():
    import pyarrow as pa

    rows = facts(*[(1, -1 - i / 10, None, "1.00", "x") for i in range(2)])
    fares = pa.array([Decimal("9" * 36 + ".99")] * 2, pa.decimal128(38, 2))
    return rows.set_column(3, "fare", fares)


def test_a_full_run_replaces_a_damaged_file(lake: OnlineLake):
    lake.store.materialize(at=NOON)
    path = lake.directory / "views" / lake.files["state"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    with pytest.raises(CatalogDamagedError, match="damaged") as error:
        lake.state()
    assert "penstock materialize --full" in said(error)
    lake.another().materialize(at=NOON, full=True)
    assert lake.state()["rides_1d"] == 2


@pytest.mark.parametrize("what", ["manifest", "pointer"])
def test_a_full_run_replaces_a_damaged_manifest_or_pointer(lake: OnlineLake, what: str):
    served = lake.store.materialize(at=NOON)
    path = lake.directory / ("CURRENT" if what == "pointer" else f"generations/{served.generation}.json")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CatalogDamagedError) as error:
        lake.another().materialize(at=NOON)
    assert str(path) in said(error)
    report = lake.another().materialize(at=NOON, full=True)
    assert report.generation != served.generation
    assert lake.state()["rides_1d"] == 2
    assert report.generation in lake.pins


def test_a_store_that_cannot_be_written_says_so(lake: OnlineLake, tmp_path: Path):
    (tmp_path / "online" / "LOCK").mkdir(parents=True)
    lake.store.online = LmdbStore(tmp_path / "online")
    with pytest.raises(PenstockError, match="cannot write here"):
        lake.store.materialize(at=NOON)
    assert [execution.state for execution in lake.executions] == ["FAILED"]
