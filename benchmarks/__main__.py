"""``python -m benchmarks [--full] [--repeats N] [NAME…]``: run benchmarks and print their report as Markdown."""

from __future__ import annotations

import argparse
import importlib

from benchmarks.harness import machine

NAMES = ("scan", "landing", "startup", "retrieval", "online")


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; all if none")
    parser.add_argument("--full", action="store_true", help="at the size of the project's goals")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    print(machine())
    for name in options.names or NAMES:
        module = importlib.import_module(f"benchmarks.bench_{name}")
        print("\n" + module.run(full=options.full, repeats=options.repeats))


if __name__ == "__main__":
    main()
