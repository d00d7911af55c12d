"""Where a lake can lie, and what is said where it cannot."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner

from featurestore.cli import cli


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.csv").write_text("id,v\n1,10\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(project: Path, settings: str, *arguments: str) -> str:
    (project / "penstock.toml").write_text(settings)
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1, result.output
    assert "bug in Penstock" not in result.stderr
    return result.stderr


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_package_that_is_missing_is_named(project: Path) -> None:
    said = refused(project, '[lake]\nuri = "s3://x/y"\n', "tables")
    assert said == "error: s3://x/y: a package that opens this is not installed\n  Install s3fs to access S3.\n"


def test_a_scheme_that_nothing_knows(project: Path) -> None:
    said = refused(project, '[lake]\nuri = "zz://x/y"\n', "tables")
    assert "zz://x/y: cannot be opened: Protocol not known: zz\n" in said


@pytest.mark.parametrize("uri", ["a.csv", "a.csv/below/it"])
@pytest.mark.parametrize("arguments", [["tables"], ["land", "s", "a.csv"]])
def test_no_lake_lies_in_a_file(project: Path, uri: str, arguments: list[str]) -> None:
    said = refused(project, f'[lake]\nuri = "{uri}"\n', *arguments)
    assert said.startswith(f"error: {project}/a.csv: this is a file: no lake can lie here\n")
    assert "[lake] uri" in said


@pytest.mark.parametrize("value", ["${env:HOME", "x/${file:a.csv", "${env:HOME}/${env:"])
def test_a_reference_that_is_not_closed(project: Path, value: str) -> None:
    said = refused(project, f'[lake]\nuri = "{value}"\n', "tables")
    assert "penstock.toml: [lake] uri: a ${ has no }" in said
    assert "${env:NAME}" in said


def test_a_file_of_another_name_in_the_log_is_no_entry(project: Path) -> None:
    (project / "penstock.toml").write_text("")
    assert CliRunner().invoke(cli, ["land", "s", "a.csv"]).exit_code == 0
    for name in ("011.json", "٢.json", "7", "8.json.bak"):
        (project / ".penstock/_catalog/log" / name).write_text("{}")
    for arguments in (["tables"], ["snapshots"], ["land", "s", "a.csv"], ["sql", "select count(*) from lake.s"]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("s" * 256, "256 characters"),
        ("no good", "cannot name a source"),
        ("1st", "not starting with a digit"),
        ("a.b", "cannot name a source"),
    ],
)
def test_what_cannot_name_a_source(project: Path, name: str, said: str) -> None:
    assert said in refused(project, "", "land", name, "a.csv")
    assert not (project / ".penstock").exists()


@pytest.mark.parametrize("name", ["s" * 255, "_s", "S1"])
def test_what_can_name_a_source(project: Path, name: str) -> None:
    (project / "penstock.toml").write_text("")
    assert CliRunner().invoke(cli, ["land", name, "a.csv"]).exit_code == 0
    assert CliRunner().invoke(cli, ["sql", f"select * from lake.{name}"]).exit_code == 0
