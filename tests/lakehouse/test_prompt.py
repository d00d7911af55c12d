"""The prompt: what it takes for a statement, what it answers, and that it survives errors and Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.cli import cli
from lakehouse import prompt, terminal
from lakehouse.errors import ProjectError, UnknownSnapshotError
from lakehouse.lake import Lake
from lakehouse.prompt import Prompt, split

ROOT = Path(__file__).parents[2]
MODEL = """
create table warehouse.fares (id bigint primary key, "base fare" decimal(9,2) not null);
insert or replace into warehouse.fares select id, fare as "base fare" from lake.trips; -- @since load(lake.trips)
"""
Line = str | BaseException | type[BaseException]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompt")
    (path / "penstock.toml").write_text('[sources.trips]\nfiles = "*.csv"\n')
    (path / "a.csv").write_text("id,fare,at\n1,2.50,2026-01-05T09:00:00Z\n2,3.75,2026-01-05T10:00:00Z\n")
    (path / "sql/warehouse").mkdir(parents=True)
    (path / "sql/warehouse/fares.sql").write_text(MODEL)
    lake = Lake(path)
    lake.land("trips")
    lake.tag("landed")
    lake.promote()
    return path


class Said:
    """A user who types lines (or Ctrl-C), and what was printed."""

    def __init__(self, lake: Lake, lines: list[Line], **options: object) -> None:
        self.labels: list[str] = []
        self.printed: list[str] = []
        self.results: list[str] = []
        self.remembered: list[str] = []
        self._lines: Iterator[Line] = iter([*lines, EOFError])
        self.prompt = Prompt(
            lake,
            read=self._read,
            write=lambda text: (self.results.append(text), self.printed.append(text)),  # type: ignore[arg-type, func-returns-value]
            say=self.printed.append,
            remember=self.remembered.append,
            **options,  # type: ignore[arg-type]
        )

    def _read(self, label: str) -> str:
        self.labels.append(label)
        line = next(self._lines)
        if isinstance(line, str):
            return line
        raise line

    @property
    def text(self) -> str:
        return "\n".join(self.printed)


def talk(where: Path | Lake, *lines: Line, **options: object) -> Said:
    said = Said(where if isinstance(where, Lake) else Lake(where), list(lines), **options)
    said.prompt.run()
    return said


# -- statements -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("select 1;", ["select 1"], ""),
        ("select 1", [], "select 1"),
        ("select 1; select 2;", ["select 1", "select 2"], ""),
        ("select 1; select\n", ["select 1"], " select\n"),
        ("select ';' ;", ["select ';'"], ""),
        ("select 'it''s;' ;", ["select 'it''s;'"], ""),
        ("select ';", [], "select ';"),
        ('select ";" from t;', ['select ";" from t'], ""),
        ("select 1 -- one; two\n;", ["select 1 -- one; two"], ""),
        ("select 1; -- done\n", ["select 1"], ""),
        ("select /* ; /* ; */ ; */ 1;", ["select /* ; /* ; */ ; */ 1"], ""),
        ("select /* ;", [], "select /* ;"),
        ("select $$;$$, $a$;$$;$a$;", ["select $$;$$, $a$;$$;$a$"], ""),
        ("select $a$;", [], "select $a$;"),
        (r"select e'\';' ;", [r"select e'\';'"], ""),
        ("select nice'x;", [], "select nice'x;"),
        (r"select '\';", [r"select '\'"], ""),
        (";; ;", [], ""),
        ("", [], ""),
        ("-- nothing\n/* at all */", [], ""),
    ],
)
def test_what_ends_a_statement(text: str, statements: list[str], rest: str) -> None:
    assert split(text) == (statements, rest)


PIECES = st.sampled_from(
    ["a", " ", "\n", "'x;'", "'it''s'", '"n;"', "--c;\n", "/*;*/", "$$;$$", "$t$;$t$", "e'\\';'", "1.5"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(PIECES, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=4))
def test_only_semicolons_outside_of_everything_end_a_statement(parts: list[str]) -> None:
    statements, rest = split("".join(f"{part};" for part in parts))
    assert statements == [part.strip() for part in parts if part.strip()]
    assert rest == ""


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="a;'\"$-/*e\\\n ", max_size=30))
def test_any_text_can_be_split_and_loses_nothing(text: str) -> None:
    statements, rest = split(text)
    assert sum(map(len, statements)) + len(rest) <= len(text)
    assert not any(s.startswith(";") for s in statements)


def test_long_blanks_take_no_time() -> None:
    text = f"{' ' * 5000}{'-' * 5000}\n{'/**/' * 2000}{' ' * 5000}x"
    assert split(text) == ([], text)
    assert split(text[:-1]) == ([], "")


# -- the conversation ---------------------------------------------------------------------------------------------------


def test_a_statement_may_go_on_over_lines(project: Path) -> None:
    said = talk(project, "", "select id", "from warehouse.fares", "order by id;", "select 1 as one; select 2 as two;")
    assert said.labels == ["penstock> ", "penstock> ", "     ...> ", "     ...> ", "penstock> ", "penstock> "]
    assert [result.splitlines()[0].strip() for result in said.results] == ["id", "one", "two"]
    assert re.search(r"^2 rows, \d+\.\d{3} s$", said.text, re.MULTILINE)
    assert len(re.findall(r"^1 row, ", said.text, re.MULTILINE)) == 2
    assert said.remembered[0] == "select id\nfrom warehouse.fares\norder by id;"


def test_no_more_rows_are_read_than_shown(project: Path) -> None:
    said = talk(project, "select * from range(1000000000000) t(n);", "select * from range(3) t(n);", limit=3)
    assert "… more rows than these 3" in said.results[0]
    assert "the first 3 rows, " in said.text
    assert "more rows" not in said.results[1]
    assert "\n3 rows, " in said.text


def test_settings_and_temporary_tables_last(project: Path) -> None:
    said = talk(project, "create temp table t as select 7 as x;", "select x + 1 as y from t;")
    assert said.results[-1].split()[-1] == "8"
    assert re.search(r"done, \d", talk(project, "set threads = 1;").text)


def test_what_the_session_keeps_is_said(project: Path) -> None:
    said = talk(
        project, "create table t (x int);", "create temp table u (x int);", "insert into t values (7);", "from t;"
    )
    assert [text for text in said.printed if "lasts" in text] == [
        "t lasts as long as this session; nothing of the lake changed."
    ]
    assert len([text for text in said.printed if text.startswith("done, ")]) == 2
    assert said.results[-1].split()[-1] == "7"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("drop view warehouse.fares;", "a query changes nothing of the lake, and warehouse.fares is part of it"),
        ("select * from warehouse.farez;", "Did you mean warehouse.fares?"),
        ("selec 1;", "syntax error"),
        ("select cast('x' as integer);", "Could not convert"),
        (".tabels", "there is no command .tabels\n  Did you mean .tables?"),
        (".nonsense", "Commands: .as-of"),
        (".schema fare", "Did you mean warehouse.fares?"),
        (".schema a b", "is not a table name"),
        (".tables x", ".tables takes no argument"),
        (".as-of landet", "Did you mean landed?"),
        (".as-of 99", "there is no snapshot 99"),
    ],
)
def test_an_error_is_printed_and_the_conversation_goes_on(project: Path, line: str, message: str) -> None:
    said = talk(project, line, "select 41 + 1 as answer;")
    assert f"error: {message}" in said.text or message in said.text
    assert "error: " in said.text
    assert said.results[-1].split()[-1] == "42"
    assert said.labels[-1] == "penstock> "


def test_a_bug_does_not_end_the_conversation(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Lake, *_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.delenv("PENSTOCK_DEBUG", raising=False)
    lake = Lake(project)
    monkeypatch.setattr(Lake, "sql", broken)
    said = talk(lake, "select 1;", ".help")
    assert "error: ZeroDivisionError: oh" in said.text
    assert ".as-of" in said.text


def test_as_of_shows_in_the_prompt(project: Path) -> None:
    said = talk(project, ".as-of landed", ".tables", ".as-of", ".tables", ".as-of 1;", "select", as_of=None)
    assert said.labels == [
        "penstock> ",
        "penstock@landed> ",
        "penstock@landed> ",
        "penstock> ",
        "penstock> ",
        "penstock@1> ",
        "       ...> ",
    ]
    assert "warehouse.fares" not in said.results[0]
    assert "warehouse.fares" in said.results[1]
    assert talk(project, as_of="landed").labels == ["penstock@landed> "]


def test_it_does_not_begin_where_there_is_nothing(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownSnapshotError):
        talk(project, as_of="nowhere")
    (tmp_path / "penstock.toml").touch()
    with pytest.raises(ProjectError):
        talk(tmp_path)


def test_tables_and_schemas(project: Path) -> None:
    said = talk(project, ".tables", ".schema fares", ".schema lake.trips;", ".schema", ".help")
    tables, fares, trips, everything = said.results
    assert re.search(r"warehouse\.fares +table +2 +2", tables)
    assert re.search(r"lake\.trips +view +2 +3", tables)
    assert "base fare  DECIMAL(9,2)" in fares
    assert "TIMESTAMP WITH TIME ZONE" in trips
    assert re.search(r"warehouse\.fares +base fare", everything)
    assert all(name in said.text for name in (".tables", ".schema [TABLE]", ".as-of [WHEN]", ".quit"))


@pytest.mark.parametrize("word", [".quit", "quit", "exit;", "QUIT", ".QUIT"])
def test_leaving(project: Path, word: str) -> None:
    assert talk(project, word, "select 1 as x;").results == []


def test_ctrl_c_drops_what_was_typed(project: Path) -> None:
    said = talk(project, "select nonsense", KeyboardInterrupt, "select 5 as x;")
    assert said.labels == ["penstock> ", "     ...> ", "penstock> ", "penstock> "]
    assert said.results[0].split()[-1] == "5"
    assert "error" not in said.text


def test_the_end_leaves_also_in_the_middle_of_a_statement(project: Path) -> None:
    assert talk(project, "select 1").results == []


def test_what_is_no_utf8_is_an_error(project: Path) -> None:
    said = talk(project, UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "select 5 as x;")
    assert "this is not UTF-8" in said.text
    assert said.results


def test_a_newer_snapshot_is_noticed(project: Path, tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").touch()
    lake = Lake(tmp_path)
    lake.catalog.create()
    (tmp_path / "a.csv").write_text("x\n1\n")
    said = Said(lake, ["select 1 as one;", "select 2 as two;", "select 3 as three;"])
    read, calls = said._read, 0

    def land_before_the_second(label: str) -> str:
        nonlocal calls
        calls += 1
        if calls == 2:
            Lake(tmp_path).land("x", tmp_path / "a.csv")
        return read(label)

    said.prompt._read = land_before_the_second
    said.prompt.run()
    assert said.text.count("This was snapshot 1") == 1


# -- stopping -------------------------------------------------------------------------------------------------------------


def test_work_that_is_stopped_has_ended() -> None:
    began, stop, ended = threading.Event(), threading.Event(), []

    def work() -> None:
        began.set()
        stop.wait(30)
        ended.append(True)
        raise ValueError

    with ctrl_c_after(began), pytest.raises(KeyboardInterrupt):
        prompt._interruptible(work, stop.set)
    assert ended == [True]


def test_in_another_thread_work_is_just_done(project: Path) -> None:
    said = Said(Lake(project), ["select 5 as x;"])
    thread = threading.Thread(target=said.prompt.run)
    thread.start()
    thread.join()
    assert said.results[0].split()[-1] == "5"


def test_ctrl_c_before_the_work_begins_stops_it_too() -> None:
    now = threading.Event()
    now.set()
    for _ in range(20):
        stop, ended = threading.Event(), []
        with pytest.raises(KeyboardInterrupt), ctrl_c_after(now):
            prompt._interruptible(lambda stop=stop, ended=ended: ended.append(stop.wait(30)), stop.set)  # type: ignore[misc]
        assert ended == [True] or not ended


def test_a_query_is_stopped_at_once_and_the_next_one_runs(project: Path) -> None:
    lake = Lake(project)
    said = Said(lake, ["select sum(a.range * b.range) from range(10000000) a, range(20000000) b;", "select 7 as x;"])
    asked, ask = threading.Event(), lake.sql

    def sql(query: str, **options: object) -> object:
        asked.set()
        return ask(query, **options)  # type: ignore[arg-type]

    lake.sql = sql  # type: ignore[method-assign, assignment]
    with ctrl_c_after(asked):
        said.prompt.run()
    assert "\nstopped" in said.text
    assert said.results[0].split()[-1] == "7"
    assert "penstock-query" not in {thread.name for thread in threading.enumerate()}


@contextmanager
def ctrl_c_after(event: threading.Event) -> Iterator[None]:
    """Send this process the signal of Ctrl-C once an event has happened."""

    def send() -> None:
        event.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    # Where the tests run in the background the signal may be ignored from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)


# -- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        (".", ".", [".tables ", ".schema ", ".as-of ", ".help ", ".quit "]),
        (".s", ".s", [".schema "]),
        (".as-of l", "l", ["landed"]),
        (".schema ware", "ware", ["warehouse.fares"]),
        (".schema i", "i", []),
        ("select * from warehouse.f", "warehouse.f", ["warehouse.fares"]),
        ("select * from WAREHOUSE.F", "WAREHOUSE.F", ["warehouse.fares"]),
        ("select i", "i", ["id"]),
        ("select * from warehouse.fares where b", "b", ['"base fare"']),
        ('select * from warehouse.fares where "b', "b", ['base fare"']),
        ("select * from warehouse.fares where a", "a", []),
        ("select * from lake.trips where a", "a", ["at"]),
        ("select * from warehouse.fares t where t.i", "t.i", ["t.id"]),
        ("select nothing_like_it", "nothing_like_it", []),
    ],
)
def test_completion(project: Path, line: str, word: str, expected: list[str]) -> None:
    assert Said(Lake(project), []).prompt.complete(line, word) == expected


def test_completion_knows_the_lines_before(project: Path) -> None:
    said = Said(Lake(project), ["select * from warehouse.fares"])
    said.prompt.run()
    assert said.prompt.complete("where a", "a") == []
    assert said.prompt.complete(".f", ".f") == []  # no command in the middle of a statement


# -- the terminal -------------------------------------------------------------------------------------------------------


def test_the_history_stays_in_the_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert terminal.history_file() == tmp_path / "penstock/sql_history"
    monkeypatch.setenv("HOME", "/somewhere")
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", unusable)
        assert terminal.history_file() == Path("/somewhere/.local/state/penstock/sql_history")


def test_it_works_without_readline_and_without_a_history(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "_readline", lambda: None)
    monkeypatch.setattr(sys, "stdin", iter_file("select 3 as x;\n"))
    prompt.open_prompt(Lake(project))
    out, err = capsys.readouterr()
    assert out.split()[-1] == "3"  # results only: stdout may be a file
    assert "penstock> " in err
    (tmp_path / "file").touch()
    assert not terminal._writable(tmp_path / "file" / "history")
    assert not terminal._writable(None)


def iter_file(text: str) -> object:
    import io

    return io.StringIO(text)


def test_without_a_terminal_the_query_comes_from_stdin(project: Path) -> None:
    def run(*arguments: str, stdin: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["sql", "--project", str(project), *arguments], input=stdin)
        return result.exit_code, result.output

    assert run("--format", "json", stdin="select 1 as x") == (0, '[\n{"x":1}\n]\n')
    assert run(stdin=" \n") == (2, run(stdin="")[1])
    assert "Give a query" in run(stdin="")[1]
    assert run("select 1", "-f", "-", stdin="select 2")[0] == 2


class Screen:
    """A real terminal with the command on it."""

    def __init__(self, project: Path, state: Path, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        script = (
            "import fcntl, signal, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "signal.signal(signal.SIGINT, signal.default_int_handler); from featurestore.cli import cli; "
            f"cli(['sql', '--project', {str(project)!r}, *{list(arguments)!r}], prog_name='penstock')"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(state), "TERM": "dumb"},
        )
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def press(self, key: str, text: str) -> str:
        """Press a key until a text appears: a signal between Python's prompt and its wait for keys is not seen."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.type(key)
            try:
                return self.wait_for(text, seconds=2)
            except AssertionError:
                continue
        raise AssertionError(self.seen)

    def wait_for(self, text: str, *, seconds: float = 60) -> str:
        """Return what was shown until a text appeared, that included, and forget it."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not appear in {self.seen!r}"
            try:
                self.seen += os.read(self._master, 65536).decode()
            except OSError:  # the other side is closed
                raise AssertionError(f"{text!r} did not appear in {self.seen!r}") from None
        shown, _, self.seen = self.seen.partition(text)
        return shown + text

    def close(self) -> int:
        try:
            return self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._master)


def test_on_a_real_terminal(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    screen = Screen(project, tmp_path)
    try:
        screen.wait_for("penstock> ")
        screen.type("select id as first_column\n")
        screen.wait_for("...> ")
        screen.type("from warehouse.fa\t order by 1;\n")
        assert "first_column" in screen.wait_for("2 rows, ")
        screen.wait_for("penstock> ")
        screen.type(".as-of landed\n")
        screen.wait_for("penstock@landed> ")
        screen.type("not finished\n")
        screen.wait_for("...> ")
        screen.press("\x03", "penstock@landed> ")
        screen.type("select sum(a.range * b.range) from range(10000000) a, range(20000000) b;\n")
        screen.wait_for("b;\r\n")
        assert "error" not in screen.press("\x03", "penstock@landed> ")
        screen.type("select 6 * 7 as answer;\n")
        assert "42" in screen.wait_for("1 row, ")
        screen.wait_for("penstock@landed> ")  # before it, the key would mean something else
        screen.type("\x04")
    finally:
        assert screen.close() == 0
    history = tmp_path / "penstock/sql_history"
    assert history.stat().st_mode & 0o777 == 0o600
    entries = history.read_text().splitlines()
    assert entries[:2] == ["select id as first_column from warehouse.fares order by 1;", ".as-of landed"]
    assert entries[-1] == "select 6 * 7 as answer;"


def test_the_history_comes_back(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    for keys in ("select 11 * 11 as product;\n", "\x1b[A\n"):
        screen = Screen(project, tmp_path)
        try:
            screen.wait_for("penstock> ")
            screen.type(keys)
            assert "121" in screen.wait_for("1 row, ")
            screen.type(".quit\n")
        finally:
            assert screen.close() == 0


def test_the_prompt_prints_tables_only(project: Path, tmp_path: Path) -> None:
    screen = Screen(project, tmp_path, "--format", "csv")
    try:
        screen.wait_for("give a query for --format csv")
    finally:
        assert screen.close() == 2
