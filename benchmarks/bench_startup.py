"""What Penstock adds to the start of a process, against ``python -c pass``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.harness import compare, timed

_SCRIPT = Path(sys.executable).with_name("penstock")


def python_pass() -> int:
    """The floor: Python itself, with the same site packages."""
    return _launch([sys.executable, "-c", "pass"])


def import_penstock() -> int:
    """Both packages, as a program that may need them does it."""
    return _launch([sys.executable, "-c", "import lakehouse, featurestore"])


def penstock_help() -> int:
    """The list of commands, as a person sees it first."""
    return _launch([str(_SCRIPT), "--help"], says="promote")


def penstock_sql_help() -> int:
    """The help of one command."""
    return _launch([str(_SCRIPT), "sql", "--help"], says="QUERY")


def _launch(command: list[str], *, says: str = "") -> int:
    """Run a command twice and time the second run: the first one finds cold files and compiles modules."""
    subprocess.run(command, check=True, capture_output=True)
    with timed(children=True):
        done = subprocess.run(command, check=True, capture_output=True)
    if says not in done.stdout.decode():
        raise SystemExit(f"{command[-1]} does not say {says!r}")
    return done.returncode


def run(*, full: bool, repeats: int) -> str:  # noqa: ARG001 - one size only
    """Return the benchmark's report."""
    return compare(
        "benchmarks.bench_startup",
        ["python_pass", "import_penstock", "penstock_help", "penstock_sql_help"],
        {},
        repeats=repeats,
        title="Start of a process",
        difference=True,
    )
