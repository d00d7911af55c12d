"""The demo's steps: the main road through Penstock on real data, each with the command that does it by hand."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from featurestore.demo.project import prepare
from lakehouse.export import ExportedFile
from lakehouse.inputs import expand
from lakehouse.lake import Lake
from lakehouse.landing import LandReport
from lakehouse.promotion import PromotionReport

__all__ = ["run"]

SOURCE = "yellow_trips"
TAG = "twelve-months"
_MONTHS = """\
select strftime(day, '%Y-%m') as month, sum(trips) as trips, round(sum(tips) / sum(fares), 3) as tip_share
from warehouse.daily_trips group by month having trips > 1000 order by month desc limit 4"""


def run(directory: Path | None, echo: Callable[[str], None]) -> None:
    """Run the demo from an empty lake, and print what it did.

    Parameters
    ----------
    directory
        Where to make its project; None for the checkout, or ``./penstock-demo``.
    echo
        Prints one line.
    """
    started = time.monotonic()
    project, data = prepare(directory)
    lake = Lake(project)
    files = sorted(data.glob("yellow_*.csv.gz"))
    shown = data.relative_to(project)
    step = _Steps(echo)

    echo(click.style("Penstock demo: real taxi trips of New York, from raw bytes to enforced tables.", bold=True))
    with step(
        "land twelve months", f"penstock land {SOURCE} {shown}/yellow_201*.gz {shown}/yellow_2020-0[1-4]*.gz"
    ) as say:
        first = lake.land(SOURCE, files[:-1])
        say(_landed(first))
    with step("give the bytes back", f"penstock export-raw {SOURCE} {first.load_id} -o DIR") as say:
        say(_exported(lake, first, files[:-1]))
    with step("promote them by the SQL in sql/", "penstock promote") as say:
        for line in _promoted(lake.promote()):
            say(line)
    lake.tag(TAG)
    with step("ask", 'penstock sql "select … from warehouse.daily_trips"') as say:
        for line in lake.sql(_MONTHS).to_text().splitlines():
            say(line)
    with step("see what was rejected, and why", "penstock quarantine trips") as say:
        for line in _rejected(lake):
            say(line)
    with step("land one month more", f"penstock land {SOURCE}") as say:
        say(_landed(lake.land(SOURCE, files)))
    with step("promote again: only the new month is read", "penstock promote") as say:
        for line in _promoted(lake.promote()):
            say(line)
    with step(
        "read the first state again", f'penstock sql "select count(*) from warehouse.trips" --as-of {TAG}'
    ) as say:
        say(f"{_trips(lake, None):,} trips now, {_trips(lake, TAG):,} at the tag {TAG}")
    echo("")
    echo(f"Done in {time.monotonic() - started:.1f} s. The lake is in {_short(lake.storage.uri)}. Try next:")
    prefix = "" if project == Path.cwd() else f"cd {_short(str(project))} && "
    for command in (
        'penstock sql "select * from warehouse.trips limit 5"',
        "penstock tables",
        "penstock history trips",
        "penstock snapshots",
    ):
        echo(f"  {prefix}{command}")


class _Steps:
    """Numbers the steps, and prints each with its time and the command that does the same."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo
        self._number = 0

    @contextmanager
    def __call__(self, title: str, command: str) -> Iterator[Callable[[str], None]]:
        self._number += 1
        lines: list[str] = []
        started = time.monotonic()
        yield lines.append
        seconds = f"{time.monotonic() - started:.1f} s"
        self._echo("")
        self._echo(f"{click.style(f'{self._number}. {title}', bold=True)}  {click.style(seconds, dim=True)}")
        self._echo(click.style(f"   $ {command}", fg="cyan"))
        for line in lines:
            self._echo(f"   {line}")


def _landed(report: LandReport) -> str:
    landed = sum(file.status == "landed" for file in report.files)
    unchanged = sum(file.status == "unchanged" for file in report.files)
    skipped = f", {unchanged} unchanged files skipped" if unchanged else ""
    good = report.records - report.malformed
    return (
        f"{landed} file{'s' * (landed != 1)} landed{skipped}: {report.records:,} records = {good:,} well-formed + "
        f"{report.malformed:,} malformed → snapshot {report.snapshot}"
    )


def _exported(lake: Lake, report: LandReport, files: list[Path]) -> str:
    """Rebuild the landed files from their tiles and compare them with the originals, hash for hash."""
    with tempfile.TemporaryDirectory() as scratch:
        exported: list[ExportedFile] = lake.export_raw(SOURCE, str(report.load_id), Path(scratch))
        same = sum(
            hashlib.sha256(Path(out.path).read_bytes()).hexdigest() == file.fingerprint().sha256
            for out, file in zip(exported, expand(files), strict=True)
        )
    size = sum(out.size for out in exported)
    return f"{same} of {len(files)} files rebuilt hash for hash, {size:,} bytes"


def _promoted(report: PromotionReport) -> Iterator[str]:
    for table in report.tables:
        if table.landed is None:
            yield f"{table.table}: {table.mode}, {table.rows:,} rows"
        else:
            yield (
                f"{table.table}: {table.mode}, {table.landed:,} landed = {table.malformed:,} malformed + "
                f"{table.hidden:,} hidden + {table.filtered:,} filtered + {table.quarantined:,} quarantined + "
                f"{table.replaced:,} replaced + {table.good:,} good"
            )
    yield f"published as snapshot {report.snapshot}"


def _rejected(lake: Lake) -> Iterator[str]:
    for group in lake.quarantine("trips").groups[:5]:
        yield f"{group.rows:>6,}  {group.column}: {group.rule}"


def _trips(lake: Lake, as_of: str | None) -> int:
    return int(lake.sql("select count(*) from warehouse.trips", as_of=as_of).fetchall()[0][0])


def _short(path: str) -> str:
    """Return a path as seen from here where it lies below."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
