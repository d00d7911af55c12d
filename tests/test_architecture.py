"""The rules of the house that a program can check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [path for package in ("lakehouse", "featurestore") for path in (ROOT / package).rglob("*.py")]
HEAVY = {"duckdb", "deltalake", "pyarrow", "polars", "numpy", "sqlglot", "rich"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600
    assert path.stem not in {"utils", "common", "helpers", "base", "manager"}


@pytest.mark.parametrize("code", ["import lakehouse, featurestore", "import featurestore.cli"])
def test_importing_loads_nothing_heavy(code: str) -> None:
    script = f"{code}; import sys; print(*(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, featurestore.cli as c\n"
        "try: c.cli(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*(name.partition('.')[0] for name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "land" in done.stdout
    assert HEAVY.isdisjoint(done.stderr.split())
