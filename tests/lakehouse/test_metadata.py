"""Executions are opened, closed once, and agree with the catalog."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse.catalog import Catalog, Change
from lakehouse.errors import CatalogDamagedError, FormatTooNewError, RequestError
from lakehouse.metadata import Executions
from lakehouse.storage import Storage

FOLDER = "_catalog/executions"


class Ticking:
    """A clock that moves one second per look."""

    def __init__(self) -> None:
        self.now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(seconds=1)
        return self.now


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    catalog = Catalog(Storage(tmp_path / "lake"), clock=Ticking())
    catalog.create()
    return catalog


@pytest.fixture
def executions(catalog: Catalog) -> Executions:
    return Executions(catalog.storage, catalog.clock)


def change_record(executions: Executions, execution: str, **changes: object) -> None:
    path = Path(executions.storage.path(f"{FOLDER}/{execution}.start.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def a_process_that_died() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_an_execution_runs_and_then_tells_how_it_ended(executions: Executions) -> None:
    first = executions.start("land", {"source": "s"})
    second = executions.start("promote", {})
    executions.finish(second, "FAILED", error="GateError: too many", details={"reasons": [1]}, counts={"rows": 3})

    newest, oldest = executions.list()

    assert (newest.id, newest.kind, newest.state, newest.error) == (second, "promote", "FAILED", "GateError: too many")
    assert (newest.details, newest.counts) == ({"reasons": [1]}, {"rows": 3})
    assert newest.ended_at is not None
    assert newest.ended_at > newest.started_at
    assert (oldest.id, oldest.state, oldest.ended_at, oldest.parameters) == (first, "RUNNING", None, {"source": "s"})
    assert executions.get(second) == newest
    assert executions.get(first) == oldest


def test_the_first_end_stays(executions: Executions) -> None:
    execution = executions.start("land", {})
    assert executions.finish(execution, "COMPLETE", snapshot=4)
    assert not executions.finish(execution, "FAILED", error="late")
    assert executions.get(execution).state == "COMPLETE"


def test_an_entry_that_names_it_means_complete(catalog: Catalog, executions: Executions) -> None:
    published = executions.start("land", {})
    unpublished = executions.start("land", {})
    snapshot = catalog.publish(catalog.latest(), Change("land", "x", execution=published))

    assert executions.get(published).state == "COMPLETE"
    assert executions.get(published).snapshot == snapshot.number
    assert {each.id: each.state for each in executions.list()} == {published: "COMPLETE", unpublished: "RUNNING"}


def test_the_next_run_closes_the_dead_ones_of_this_host(catalog: Catalog, executions: Executions) -> None:
    alive, dead, reused, elsewhere, finished = (executions.start("land", {"n": n}) for n in range(5))
    change_record(executions, dead, pid=a_process_that_died())
    change_record(executions, reused, process="another boot/1")
    change_record(executions, elsewhere, pid=a_process_that_died(), host="another")
    change_record(executions, finished, pid=a_process_that_died())
    snapshot = catalog.publish(catalog.latest(), Change("land", "x", execution=finished))

    executions.start("promote", {})

    states = {each.id: (each.state, each.snapshot, each.ended_at is None) for each in executions.list()[1:]}
    assert states == {
        alive: ("RUNNING", None, True),
        dead: ("KILLED", None, False),
        reused: ("KILLED", None, False),
        elsewhere: ("RUNNING", None, True),
        finished: ("COMPLETE", snapshot.number, False),
    }


def test_reading_writes_nothing(executions: Executions, tmp_path: Path) -> None:
    execution = executions.start("land", {})
    change_record(executions, execution, pid=a_process_that_died())
    before = sorted(tmp_path.rglob("*"))
    assert executions.list()[0].state == "RUNNING"
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_lake_has_no_executions(executions: Executions) -> None:
    assert executions.list() == []


def test_unknown_newer_and_damaged_records_are_refused_by_name(executions: Executions) -> None:
    execution = executions.start("land", {})
    with pytest.raises(RequestError, match="no execution 01X"):
        executions.get("01X")
    change_record(executions, execution, format=99)
    with pytest.raises(FormatTooNewError, match="format 99"):
        executions.get(execution)
    Path(executions.storage.path(f"{FOLDER}/{execution}.start.json")).write_text("{")
    with pytest.raises(CatalogDamagedError, match="cannot be read"):
        executions.list()


def test_records_hold_nothing_about_the_user(executions: Executions) -> None:
    execution = executions.start("land", {"source": "s"})
    record = json.loads(executions.storage.read(f"{FOLDER}/{execution}.start.json"))
    assert set(record) == {"format", "id", "kind", "at", "host", "pid", "process", "parameters"}
