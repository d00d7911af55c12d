"""The ``penstock`` command: the lake's commands and the demo."""

from __future__ import annotations

from pathlib import Path

import click

from lakehouse.cli import cli

__all__ = ["main"]


@cli.command("demo", epilog="Example:  penstock demo")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make the demo's project here. [default: the checkout, else ./penstock-demo]",
)
def _demo(directory: Path | None) -> None:
    """Run the whole flow on real taxi trips, and show what it did and what to try next."""
    from featurestore.demo.runner import run

    run(directory, click.echo)


def main() -> None:
    """Run the command line."""
    cli(prog_name="penstock")
