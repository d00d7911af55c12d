"""Parts of the graph that don't depend on each other: one that fails keeps no other from being published."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # the fixture module lies beside the tests

from promotion_lake import PromotionLake

from lakehouse.errors import ModelError, StorageError
from lakehouse.metadata import Executions
from lakehouse.promotion import promote
from lakehouse.quarantine import quarantine_report
from lakehouse.types import TableName

TRIPS = """\
-- @on_violation fail
create table warehouse.trips (k integer primary key, v integer not null check (v >= 0));
insert or replace into warehouse.trips
select k, v
from lake.trips; -- @since load(lake.trips)
"""


@pytest.fixture
def lake(tmp_path: Path) -> PromotionLake:
    lake = PromotionLake(tmp_path)
    lake.land("trips", {"k": "BIGINT", "v": "BIGINT"}, ("a", [(1, -1)]))
    return lake


def constant(name: str, query: str = "select 1 as a", annotation: str = "@owner x") -> str:
    return (
        f"-- {annotation}\ncreate table warehouse.{name} (a integer check (a > 0));\n"
        f"truncate warehouse.{name};\ninsert into warehouse.{name} {query};\n"
    )


def test_other_parts_go_on_after_one_failed_and_the_error_names_all(lake: PromotionLake) -> None:
    lake.model("trips", TRIPS)
    lake.model("alone", constant("alone"))
    lake.model("bad", constant("bad", "select 'secret'::integer as a"))
    lake.model("onbad", constant("onbad", "select a from warehouse.bad"))
    lake.model("worse", constant("worse", "select -1 as a"))
    lake.model("zzz", constant("zzz"))
    with pytest.raises(ModelError, match=r"bad\.sql:.*failed on a value") as caught:
        lake.promote()

    hint = str(caught.value.hint)
    assert "Failed: warehouse.bad; " in hint
    assert "warehouse.trips: 1 of 1 row break the contract" in hint
    assert "warehouse.worse: 1 of 1 row break the contract of warehouse.worse" in hint
    assert "Skipped: warehouse.onbad" in hint
    assert "Published: warehouse.alone (snapshot 2); warehouse.zzz (snapshot 3)." in hint
    assert lake.rows("warehouse.alone") == lake.rows("warehouse.zzz") == [(1,)]
    assert lake.catalog.latest().number == 3
    assert {step.table for step in lake.plan().steps if step.runs}.isdisjoint({"warehouse.alone", "warehouse.zzz"})

    (execution,) = Executions(lake.storage).list()
    assert (execution.state, execution.snapshot) == ("FAILED", 3)
    assert set(execution.details["failed"]) == {"warehouse.bad", "warehouse.trips", "warehouse.worse"}
    assert execution.details["skipped"] == ["warehouse.onbad"]
    assert execution.details["published"] == {"warehouse.alone": 2, "warehouse.zzz": 3}
    assert execution.counts == {"warehouse.alone": 1, "warehouse.zzz": 1}
    for said in ("failed: warehouse.bad, ", "skipped: ", "published: warehouse.alone (snapshot 2)"):
        assert said in str(execution.error)
    assert "secret" not in str(execution)
    for table, state in (("worse", "rejected"), ("trips", "rejected")):
        report = quarantine_report(lake.catalog.latest(), TableName("warehouse", table), run=execution.id)
        assert [group.state for group in report.groups] == [state]
    assert quarantine_report(lake.catalog.latest(), TableName("warehouse", "zzz"), run=execution.id).groups == ()


def test_a_part_that_fails_alone_has_nothing_to_add(lake: PromotionLake) -> None:
    lake.model("bad", constant("bad", "select 'x'::integer as a"))
    with pytest.raises(ModelError) as caught:
        lake.promote()
    assert str(caught.value.hint) == "try(…) gives null instead, which the contract can judge."


def test_a_full_disk_stops_the_parts_that_are_left(lake: PromotionLake, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse import building

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    lake.model("alone", constant("alone"))
    lake.model("zzz", constant("zzz"))
    monkeypatch.setattr(building, "measure", full)
    with pytest.raises(StorageError, match=r"(?s)Failed: warehouse\.alone\..*Skipped: .*warehouse\.zzz"):
        lake.promote()
    (execution,) = Executions(lake.storage).list()
    assert execution.details["skipped"] == ["warehouse.zzz"]


def test_an_interrupted_run_says_what_it_had_published(lake: PromotionLake) -> None:
    lake.model("alone", constant("alone"))
    lake.model("zzz", constant("zzz"))

    def interrupt(_done: int, _all: int, table: str) -> None:
        if table == "warehouse.zzz":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        promote(lake.catalog, lake.settings, progress=interrupt)
    (execution,) = Executions(lake.storage).list()
    assert execution.state == "FAILED"
    assert execution.details["published"] == {"warehouse.alone": 2}
