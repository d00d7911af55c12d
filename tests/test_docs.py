"""The README's commands do what it says: its ``penstock`` lines run in a copy of the demo project."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY_LINES = "…"
# What differs from run to run or machine to machine. Instants of the data lie before 2021 and are compared.
_VARYING = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"\b20(?:2[5-9]|[3-9]\d)-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|\+00:00)?)?"), "<time>"),
    (re.compile(r"\b\d+\.\d+ s\b"), "<seconds>"),
    (re.compile(r"\b[\d,]+ s old\b"), "<age>"),
    (re.compile(r"\b0[0-9A-HJKMNP-TV-Z]{25}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<sha256>"),
    (re.compile(r"featurestore/demo/data/"), "data/"),  # a copy of the project keeps its data at the top
    (re.compile(r"\bcd \S+ && "), ""),
    (re.compile(r"The lake is in \S+\."), "The lake is in <lake>."),
    (re.compile(r"[ \t]+"), " "),  # columns move when a placeholder is shorter than what it stands for
    (re.compile(r"-{2,}"), "--"),
)


@dataclass(frozen=True)
class Shown:
    """A command and the output that the text shows below it."""

    command: str
    output: str


def shown_commands(text: str) -> Iterator[Shown]:
    for block in _BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            while command.count('"') % 2:  # a query may go on over several lines
                more, _, output = output.partition("\n")
                command += "\n" + more.removeprefix("> ")
            if command == "make demo":
                command = "penstock demo"
            if command.startswith("penstock "):
                yield Shown(command, output)


def normal(text: str) -> list[str]:
    for pattern, placeholder in _VARYING:
        text = pattern.sub(placeholder, text)
    return [line.strip() for line in text.strip().splitlines()]


def matches(expected: list[str], actual: list[str]) -> bool:
    """Whether the lines are the same; a line ``…`` stands for any number of lines."""
    pattern = "".join(r"(?:.*\n)*?" if line == _ANY_LINES else re.escape(line) + r"\n" for line in expected)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in actual)) is not None


def penstock(arguments: list[str], directory: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PENSTOCK_DEBUG": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "from featurestore.cli import main; main()", *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Demo:
    """The demo's project, and what making it printed."""

    project: Path
    printed: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    directory = tmp_path_factory.mktemp("docs")
    project = directory / "demo"
    return Demo(project, penstock(["demo", "--directory", str(project)], directory))


def test_the_readme_shows_what_the_commands_print(demo: Demo) -> None:
    differing = []
    commands = list(shown_commands(README.read_text(encoding="utf-8")))
    assert commands
    for shown in commands:
        arguments = shlex.split(shown.command)[1:]
        actual = demo.printed if arguments == ["demo"] else penstock(arguments, demo.project)
        if not matches(normal(shown.output), normal(actual)):
            differing.append(f"$ {shown.command}\n{actual}")
    assert not differing, "The README differs from:\n" + "\n".join(differing)


def test_what_the_demo_says_to_try_next_works_as_it_is_typed(demo: Demo) -> None:
    _, _, after = demo.printed.partition("Try next:\n")
    commands = after.splitlines()
    assert len(commands) > 3
    for command in commands:
        done = subprocess.run(command, shell=True, cwd=demo.project.parent, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout


def test_the_readme_names_only_commands_that_exist() -> None:
    from featurestore.cli import cli

    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^\$ |`)penstock ([a-z][a-z-]*)", text, flags=re.MULTILINE))
    assert named <= set(cli.commands)


README_OF_A_TEST = """
```console
$ penstock sql "select 1
> as one"
 one
   1
$ penstock land x
x: 1 file landed, snapshot 1, 0.4 s
…
done
```
```python
$ penstock not-shown
```
```console
$ make demo
$ ls
```
"""


def test_commands_are_found_with_their_output() -> None:
    first, second, third = shown_commands(README_OF_A_TEST)
    assert (first.command, first.output) == ('penstock sql "select 1\nas one"', " one\n   1\n")
    assert second.output.endswith("…\ndone\n")
    assert (third.command, third.output) == ("penstock demo", "")


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("landed 5, 0.4 s", "landed 5, 12.0 s", True),
        ("landed 5, 0.4 s", "landed 6, 0.4 s", False),
        ("at 2026-11-23T15:04:05.123456Z", "at 2027-01-01T00:00:00.000000Z", True),
        ("trip 2019-01-05", "trip 2019-01-06", False),
        ("load 01KB3M0Z2V6Q1J5T8R4N7W9XYA", "load 01KC000000000000000000000A", True),
        ("n   rows\n--------", "n rows\n---", True),
        ("a\n…\nd", "a\nb\nc\nd", True),
        ("a\n…\nd", "a\nd", True),
        ("a\n…\nd", "a\nb\nc", False),
        ("a", "a\nb", False),
    ],
)
def test_only_what_varies_may_differ(shown: str, printed: str, same: bool) -> None:
    assert matches(normal(shown), normal(printed)) is same
