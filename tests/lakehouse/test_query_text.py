"""Text that is no text: bytes that are not UTF-8, in queries, files and options."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featurestore.cli import cli
from lakehouse.errors import QueryError, RequestError
from lakehouse.lake import Lake


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "penstock.toml").write_text("")
    (tmp_path / "a.csv").write_text("id\n1\n")
    monkeypatch.chdir(tmp_path)
    Lake(tmp_path).land("s", [tmp_path / "a.csv"])
    return tmp_path


def failed(*arguments: str, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, ["sql", *arguments], input=stdin)
    assert result.exit_code == 1, result.output
    assert "bug in Penstock" not in result.output
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("arguments", [[], ["-"], ["-f", "-"]])
def test_bytes_of_stdin(project: Path, arguments: list[str]) -> None:
    message = failed(*arguments, stdin=b"select '\xff\xfe'").stderr
    assert "stdin: the query is not UTF-8: byte 0xff at offset 8" in message


def test_bytes_of_a_file(project: Path) -> None:
    (project / "q.sql").write_bytes(b"select\n'caf\xe9'")
    assert "q.sql: the query is not UTF-8: byte 0xe9 at offset 11" in failed("-f", "q.sql").stderr


def test_utf8_of_stdin_and_files_is_read(project: Path) -> None:
    (project / "q.sql").write_text("\ufeffselect 'café' as x", encoding="utf-8")
    for arguments, stdin in ((["-f", "q.sql"], None), ([], "select 'café' as x".encode())):
        result = CliRunner().invoke(cli, ["sql", *arguments, "--format", "csv"], input=stdin)
        assert result.stdout == '"x"\n"café"\n'


def test_bytes_of_an_argument(project: Path) -> None:
    assert "the query is not UTF-8: byte 0xff at character 9" in failed("select '\udcff'").stderr


@pytest.mark.parametrize("query", ["select '\udcff'", "select 1; select '\ud800'"])
def test_the_same_from_python(project: Path, query: str) -> None:
    lake = Lake(project)
    with pytest.raises(QueryError, match="the query is not"):
        lake.sql(query)
    with lake._session(None, None) as session:
        for ask in (session.describe, session.tables_of, session.prepare):
            with pytest.raises(QueryError, match="the query is not"):
                ask(query)


@pytest.mark.parametrize("zone", ["\udcff", "a\0b", "Asia/Tokio", "../../etc/passwd", ""])
def test_a_time_zone_that_is_none(project: Path, zone: str) -> None:
    if zone:
        assert "time zone" in failed("select 1", "--timezone", zone).stderr.lower().replace("timezone", "time zone")
    with pytest.raises(RequestError):
        Lake(project).sql("select \udcff", timezone=zone)
