"""Runs contenders side by side: interleaved repeats, each in a process of its own, results compared by checksum.

A contender is a function of the benchmark's module. It takes the benchmark's arguments, does the work between
``with timed():`` marks, and returns a checksum of the result. One whose checksum differs from the floor's has no time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

_CLOCK: dict[str, float] = {}


@contextmanager
def timed(*, children: bool = False) -> Iterator[None]:
    """Mark the part of a contender that counts; imports and checksums stay outside.

    Parameters
    ----------
    children
        Count the CPU seconds and the memory of the processes that it starts, not its own.
    """
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    before, wall = resource.getrusage(who), time.perf_counter()
    yield
    _CLOCK["wall"] = time.perf_counter() - wall
    after = resource.getrusage(who)
    _CLOCK["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # The peak so far: what the checksum needs afterwards does not count.
    _CLOCK["rss"] = after.ru_maxrss * 1024


@dataclass
class Series:
    """The repeats of one contender."""

    name: str
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    checksums: set[str] = field(default_factory=set)


def compare(
    module: str,
    contenders: Sequence[str],
    arguments: Mapping[str, Any],
    *,
    repeats: int = 5,
    title: str,
    difference: bool = False,
) -> str:
    """Run the contenders and return a Markdown table; the first contender is the floor.

    Ratios are medians of the ratios within each repeat, so that a slow minute of the machine hits both sides.

    Parameters
    ----------
    difference
        Also show how many milliseconds more than the floor: the median of the differences within each repeat.
    """
    series = {name: Series(name) for name in contenders}
    for repeat in range(repeats):
        order = list(contenders) if repeat % 2 == 0 else list(reversed(contenders))
        for name in order:
            print(f"  {title}: repeat {repeat + 1}/{repeats}, {name}", file=sys.stderr)
            result = child(module, name, arguments)
            one = series[name]
            one.walls.append(result["wall"])
            one.cpus.append(result["cpu"])
            one.peaks.append(result["rss"])
            one.checksums.add(json.dumps(result["checksum"], sort_keys=True))
    return _table(title, list(series.values()), difference=difference)


def child(module: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run one contender in a process of its own; return its seconds, its peak memory, and its checksum."""
    command = [sys.executable, "-m", "benchmarks.harness", module, name, json.dumps(dict(arguments))]
    # Whoever installs a package has its modules compiled; compiling them anew each time is not what is measured.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{module}.{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _table(title: str, series: Sequence[Series], *, difference: bool) -> str:
    floor = series[0]
    heads = ["median", "min – max", "× floor", *(["ms more"] if difference else []), "CPU s", "peak MB"]
    lines = [
        f"### {title}",
        "",
        f"| contender | {' | '.join(heads)} | checksum |",
        f"|---|{'--:|' * len(heads)}---|",
    ]
    for one in series:
        same = one.checksums == floor.checksums and len(floor.checksums) == 1
        cells = _figures(one, floor, difference=difference) if same else ["–"] * len(heads)
        lines.append(f"| {one.name} | {' | '.join(cells)} | {'equal' if same else 'DIFFERS'} |")
    return "\n".join(lines)


def _figures(one: Series, floor: Series, *, difference: bool) -> list[str]:
    pairs = list(zip(one.walls, floor.walls, strict=True))
    more = [f"{statistics.median(mine - base for mine, base in pairs) * 1e3:+.0f}"] if difference else []
    return [
        f"{statistics.median(one.walls):.3f} s",
        f"{min(one.walls):.3f} – {max(one.walls):.3f}",
        f"{statistics.median(mine / base for mine, base in pairs):.2f}",
        *more,
        f"{statistics.median(one.cpus):.2f}",
        f"{max(one.peaks) / 1e6:.0f}",
    ]


def machine() -> str:
    """Describe machine and libraries in one line."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("duckdb", "deltalake", "pyarrow", "polars", "numpy"))
    kind = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {kind}, {libraries}"


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("contender")
    parser.add_argument("arguments")
    options = parser.parse_args()
    # The child is this module under the name __main__; contenders mark their time in the imported one.
    clock = importlib.import_module("benchmarks.harness")._CLOCK
    function = getattr(importlib.import_module(options.module), options.contender)
    checksum = function(**json.loads(options.arguments))
    print(json.dumps({**clock, "checksum": checksum}))


if __name__ == "__main__":
    _main()
