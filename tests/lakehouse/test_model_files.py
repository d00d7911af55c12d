"""Where models lie, and what looks like one and would be left out silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse import Lake
from lakehouse.errors import ModelError, SettingsError

MODEL = "create table warehouse.t (a integer);\ntruncate warehouse.t;\ninsert into warehouse.t select 1 as a;\n"


@pytest.mark.parametrize("name", ["x.SQL", "deeper/x.sql", "deeper/still/x.Sql"])
def test_a_file_that_only_looks_like_a_model_is_named_also_where_there_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "penstock.toml").write_text("")
    path = tmp_path / "sql/warehouse" / name
    path.parent.mkdir(parents=True)
    path.write_text(MODEL)
    lake = Lake(tmp_path)
    lake.catalog.create()
    for ask in (lake.plan, lake.promote):
        with pytest.raises(ModelError, match=f"sql/warehouse/{name}: ") as caught:
            ask()
        assert "x.sql" in str(caught.value.hint)


def test_a_directory_of_models_that_is_not_there_is_no_project_without_models(tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text('[paths]\nsql = "sq"\n')
    lake = Lake(tmp_path)
    lake.catalog.create()
    for ask in (lake.plan, lake.promote):
        with pytest.raises(
            SettingsError, match=r"penstock\.toml: paths\.sql names .*/sq, and there is no such directory"
        ):
            ask()
    (tmp_path / "sq").mkdir()
    assert lake.plan().is_empty


def test_a_lake_without_a_project_has_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "penstock.toml").write_text("")
    Lake(tmp_path).catalog.create()
    monkeypatch.chdir(tmp_path.parent)
    assert Lake(tmp_path / ".penstock").plan().is_empty
