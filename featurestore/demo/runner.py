"""The demo's steps: the main road through Penstock on real data, each with the command that does it by hand."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from featurestore.demo.project import SOURCE, TAG, prepare
from featurestore.retrieval import RetrievalJob
from featurestore.store import FeatureStore
from featurestore.training import TrainingSet
from lakehouse.export import ExportedFile
from lakehouse.inputs import expand
from lakehouse.lake import Lake
from lakehouse.landing import LandReport
from lakehouse.promotion import PromotionReport
from lakehouse.types import utc_text

__all__ = ["run"]

SERVICE = "tips"
_ZONES = "pickup_zone=132 pickup_zone=48 pickup_zone=265 dropoff_zone=230"
_CARD_TRIPS = """\
select trip_id, pickup_at as event_timestamp, pickup_zone, dropoff_zone, tip > 0.2 * fare as generous
from warehouse.trips where payment_type = 1 and fare > 0"""
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
    store = FeatureStore(project)
    files = sorted(data.glob("yellow_*.csv.gz"))
    step = _Steps(echo)
    echo(click.style("Penstock demo: real taxi trips of New York, from raw bytes to features that agree.", bold=True))
    _first_year(store.lake, files, str(data.relative_to(project)), step)
    first = _features(store, step)
    _one_month_more(store, files, first, step)
    echo("")
    echo(f"Done in {time.monotonic() - started:.1f} s. The lake is in {_short(store.lake.storage.uri)}. Try next:")
    here = project == Path.cwd()
    prefix = f"{'' if here else f'cd {_short(str(project))} && '}{_typed(short=here)}"
    for arguments in (
        'sql "select * from warehouse.trips limit 5"',
        "features show zone_demand",
        "training-set show tips",
        "online status",
        "snapshots",
    ):
        echo(f"  {prefix} {arguments}")


def _first_year(lake: Lake, files: Sequence[Path], shown: str, step: _Steps) -> None:
    """Land twelve months and promote them."""
    with step(
        "land twelve months", f"penstock land {SOURCE} {shown}/yellow_201*.gz {shown}/yellow_2020-0[1-4]*.gz"
    ) as say:
        landed = lake.land(SOURCE, files[:-1])
        say(_landed(landed))
    with step("give the bytes back", f"penstock export-raw {SOURCE} {landed.load_id} -o DIR") as say:
        say(_exported(lake, landed, files[:-1]))
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


def _features(store: FeatureStore, step: _Steps) -> TrainingSet:
    """Define features, train on them, serve them, and show that both sides agree; return the training set."""
    with step("define features", "penstock apply") as say:
        plan = store.apply()
        say(f"{plan.summary} → snapshot {plan.snapshot}")
    with step(
        "build a training set: card trips, features as known at pick-up",
        'penstock historical tips --spine "select … from warehouse.trips" --save tips',
    ) as say:
        job = store.get_historical_features(_CARD_TRIPS, SERVICE)
        saved: TrainingSet = job.save(SERVICE)
        for line in _trained(saved, job):
            say(line)
    last = _last_dropoff(store)
    with step("materialize the online features", f"penstock materialize --at {utc_text(last)}") as say:
        for line in store.materialize(at=last).text():
            say(line)
    with step(
        "look up a few zones, as of the data's own time",
        f"penstock online get tips {_ZONES} --at {utc_text(last)}",
    ) as say:
        zones = {"pickup_zone": [132, 48, 265], "dropoff_zone": [230, 230, 230]}
        for line in store.get_online_features(SERVICE, zones, at=last).lines():
            say(line)
    with step("prove that online equals offline", f"penstock verify {SERVICE}") as say:
        for line in store.verify(SERVICE).text():
            say(line)
    return saved


def _one_month_more(store: FeatureStore, files: Sequence[Path], first: TrainingSet, step: _Steps) -> None:
    """Land and promote another month: the newest state moves on, the old ones stay."""
    lake = store.lake
    with step("land one month more", f"penstock land {SOURCE}") as say:
        say(_landed(lake.land(SOURCE, files)))
    with step("promote again: only the new month is read", "penstock promote") as say:
        for line in _promoted(lake.promote()):
            say(line)
    with step("rebuild the training set from its snapshot", f"penstock training-set reproduce {first.ref}") as say:
        say(str(first.reproduce()))
    with step(
        "a new one differs", 'penstock historical tips --spine "select … from warehouse.trips" --save tips'
    ) as say:
        second = store.get_historical_features(_CARD_TRIPS, SERVICE).save(SERVICE)
        for one in (first, second):
            content, snapshot = one.manifest.content, one.manifest.source_snapshot
            say(f"{one.ref}: {content.rows:,} rows of snapshot {snapshot}, hash {content.sha256[:16]}…")
    with step(
        "read the first state again", f'penstock sql "select count(*) from warehouse.trips" --as-of {TAG}'
    ) as say:
        say(f"{_trips(lake, None):,} trips now, {_trips(lake, TAG):,} at the tag {TAG}")


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


def _exported(lake: Lake, report: LandReport, files: Sequence[Path]) -> str:
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


def _trained(saved: TrainingSet, job: RetrievalJob) -> Iterator[str]:
    share = job.to_arrow().column("generous").to_pylist()
    yield f"{saved.ref}: {len(share):,} card trips, {sum(share):,} with a tip above 20 % of the fare"
    for view in job.report.views:
        role = " on ".join([view.view, *view.keys])
        found = f"{view.present:,} present + {view.null:,} null"
        missing = f"{view.expired:,} expired + {view.not_found:,} not found"
        yield f"{role}: {view.spine_rows:,} = {found} + {missing}"
    yield f"saved at snapshot {saved.manifest.snapshot}, hash {saved.manifest.content.sha256[:16]}…"


def _last_dropoff(store: FeatureStore) -> dt.datetime:
    last: dt.datetime = store.lake.sql("select max(dropoff_at) from warehouse.trips").fetchall()[0][0]
    return last


def _trips(lake: Lake, as_of: str | None) -> int:
    return int(lake.sql("select count(*) from warehouse.trips", as_of=as_of).fetchall()[0][0])


def _typed(*, short: bool) -> str:
    """Return what to type for this environment's command: its path where a shell would not find it by its name."""
    own, found = Path(sys.executable).with_name("penstock"), shutil.which("penstock")
    if not own.exists() or (found is not None and Path(found).samefile(own)):
        return "penstock"
    return _short(str(own)) if short else str(own)


def _short(path: str) -> str:
    """Return a path as seen from here where it lies below."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
