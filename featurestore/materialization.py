"""From a snapshot to an online generation: one manifest for all online views, published by one flip.

The new files are built and checked beside the live generation; readers see the old one whole until the flip, and the
new one whole after it. Views whose source and definition have not changed keep their file, if it still is what was
written.
"""

from __future__ import annotations

import html
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from featurestore.acceptance import accepted_views
from featurestore.folding import Folding
from featurestore.generations import Manifest, ViewFile, check_succession
from featurestore.instants import instant_micros, micros_text
from lakehouse.errors import CatalogDamagedError, PenstockError, RequestError
from lakehouse.metadata import Executions
from lakehouse.pins import Pins
from lakehouse.session import Session
from lakehouse.types import new_ulid, plural, utc_text

if TYPE_CHECKING:
    import datetime as dt

    from featurestore.binding import BoundView
    from featurestore.online import OnlineStore
    from featurestore.registry import Definitions
    from lakehouse.catalog import Snapshot
    from lakehouse.settings import Settings

__all__ = ["KEPT_GENERATIONS", "MaterializationReport", "ViewReport", "materialize"]

KEPT_GENERATIONS = 3
"""How many generations stay on disk, for readers that still have one open and for `rollback`."""

_CLOCKS_DIFFER = 60_000_000  # µs: so far a machine's clock may be ahead of another's

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class ViewReport:
    """One view of a generation.

    Parameters
    ----------
    view
        Its name.
    entities
        Entities that it answers for.
    tail
        Rows that become visible after the generation's instant.
    undated, without_key
        Rows of the source that describe nobody: those without an event timestamp, and of the others those without a
        key; None where the file is of an older Penstock, which did not count them.
    bytes
        Size of its file.
    reused
        Whether the file of the generation before still holds.
    seconds
        What building it took.
    damaged
        What was wrong with the file of the generation before, where it would have been kept but for that.
    """

    view: str
    entities: int
    tail: int
    undated: int | None
    without_key: int | None
    bytes: int
    reused: bool
    seconds: float
    damaged: str | None = None


@dataclass(frozen=True)
class MaterializationReport:
    """What a materialization did.

    Parameters
    ----------
    generation
        Id of the current generation.
    snapshot
        What it was built from.
    at
        Its instant, UTC text: it answers for every later one.
    views
        Its views.
    published
        False if the generation before is exactly this one, so that there was nothing to do.
    seconds
        What all of it took.
    """

    generation: str
    snapshot: int
    at: str
    views: tuple[ViewReport, ...]
    published: bool
    seconds: float = field(compare=False)

    def text(self) -> list[str]:
        """Return the report, line by line."""
        if not self.published:
            return [f"Nothing to do: generation {self.generation} is of snapshot {self.snapshot} and for {self.at}."]
        lines = []
        for view in self.views:
            tail = f" + {plural(view.tail, 'row')} visible later" if view.tail else ""
            how = "unchanged, file kept" if view.reused else f"{view.seconds:.1f} s"
            how += f", built anew because {view.damaged}" if view.damaged else ""
            lines.append(f"{view.view}: {_count(view.entities)}{tail}, {view.bytes:,} bytes, {how}")
            lines += _left_out(view)
        if not self.views:
            lines.append("no feature view is online any more: nothing is answered")
        lines.append(f"serving generation {self.generation}: snapshot {self.snapshot}, for {self.at} and later")
        return lines

    def __repr__(self) -> str:
        return "\n".join(self.text())

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def _count(entities: int) -> str:
    return f"{entities:,} {'entity' if entities == 1 else 'entities'}"


def _left_out(view: ViewReport) -> list[str]:
    counts = (("an event timestamp", view.undated), ("a key", view.without_key))
    told = [f"{plural(count, 'row')} without {what}" for what, count in counts if count]
    return [f"  left out of its source: {' and '.join(told)}"] if told else []


def materialize(
    snapshot: Snapshot,
    settings: Settings,
    definitions: Definitions,
    store: OnlineStore,
    *,
    at: dt.datetime | str | None = None,
    full: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> MaterializationReport:
    """Build the generation of a snapshot's online views for an instant, and make it the one that is served.

    Parameters
    ----------
    snapshot
        What is read.
    definitions
        Those of the snapshot.
    at
        The instant; None is now. The generation answers exactly for every later one.
    full
        Build every file anew, whatever is served: also over a generation that is damaged.
    force
        Replace a generation of a newer snapshot, or one for a later instant; build one for an instant in the future.

    Raises
    ------
    RequestError
        If there is no online view, and none is served; if the instant lies in the future, or the served generation is
        of a newer snapshot or for a later instant; if the source of a view has vanished or changed its type; if a model
        upstream of one changed since it was applied.
    CatalogDamagedError
        If the served generation is damaged (without full or force).
    ConflictError
        If another materialization published meanwhile.
    """
    started = time.monotonic()
    catalog = snapshot.catalog
    now = catalog.clock()
    instant = instant_micros(now if at is None else at)
    if not force:
        _check_past(instant, instant_micros(now))
    run = _Materialization(snapshot, settings, store, instant, progress or (lambda _done, _all, _view: None))
    expected, current = run.served(full=full, force=force)
    names = [name for name, view in definitions.views.items() if view.definition.online]
    # Where views were served, a generation without any takes them out of service.
    if not names and (expected is None or not snapshot.entry.definitions):
        raise RequestError("no feature view is online", hint="Apply definitions with online views: penstock apply")
    executions = Executions(catalog.storage, catalog.clock)
    parameters = {"snapshot": snapshot.number, "at": micros_text(instant), "views": names}
    with Session(snapshot, memory=settings.resources.memory, threads=settings.resources.threads) as session:
        try:
            bound = accepted_views(definitions, session, names)
        except PenstockError as error:
            executions.finish(executions.start("materialize", parameters), "FAILED", error=str(error))
            raise
        inputs = {name: run.inputs(bound[name], session) for name in names}
        if current is not None and not full and run.is_same(current, bound, inputs):
            store.collect(KEPT_GENERATIONS)  # whoever built it may have been killed before it came to this
            return run.report(current, published=False, seconds=time.monotonic() - started)
        execution = executions.start("materialize", parameters)
        try:
            manifest = run.build(bound, inputs, None if full else current, session, execution)
            run.publish(manifest, expected, force=force or current is None)
        except BaseException as error:
            what = str(error) if isinstance(error, PenstockError) else type(error).__name__
            executions.finish(execution, "FAILED", error=what)
            raise
    counts = {name: file.entities for name, file in manifest.views.items()}
    executions.finish(execution, "COMPLETE", counts=counts, snapshot=snapshot.number)
    return run.report(manifest, published=True, seconds=time.monotonic() - started)


def _check_past(instant: int, now: int) -> None:
    if instant > now + _CLOCKS_DIFFER:
        raise RequestError(
            f"{micros_text(instant)} lies in the future: until then, lookups would answer as of that instant instead "
            "of now, and every other materialization would be refused",
            hint="Leave the instant out to build for now, or insist: --force, in Python force=True.",
        )


class _Materialization:
    """One run: its snapshot, instant and store."""

    def __init__(self, snapshot: Snapshot, settings: Settings, store: OnlineStore, at: int, progress: Progress) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._store = store
        self._at = at
        self._progress = progress
        self._done: dict[str, ViewReport] = {}
        self._damages: dict[str, str | None] = {}

    def served(self, *, full: bool, force: bool) -> tuple[str | None, Manifest | None]:
        """Return the served generation after making sure that this one may follow it: its id, and what it says.

        One that is damaged says nothing, so that nothing of it is taken over.
        """
        expected, current = None, None
        try:
            expected = self._store.current_id()
            current = self._store.current()
        except CatalogDamagedError:
            if not (full or force):
                raise
        self._check(current, force=force)
        return expected, current

    def _check(self, current: Manifest | None, *, force: bool) -> None:
        if current is None or force:
            return
        check_succession(current, self._manifest({}, ""))
        if current.at > self._at:
            raise RequestError(
                f"the served generation is for {micros_text(current.at)}, later than {micros_text(self._at)}",
                hint=f"To go back on purpose: penstock materialize --at {micros_text(self._at)} --force, in Python "
                "force=True.",
            )

    def inputs(self, view: BoundView, session: Session) -> dict[str, str] | None:
        """Return what identifies the content that a view reads, or None if that can't be told from the catalog."""
        names = session.tables_of(view.source)
        stored = {str(name): self._snapshot.entry.tables.get(str(name)) for name in names}
        if any(entry is None for entry in stored.values()):
            return None
        return {name: f"{entry.schema}/{entry.files_sha256}" for name, entry in stored.items() if entry is not None}

    def is_same(
        self, current: Manifest, bound: Mapping[str, BoundView], inputs: Mapping[str, dict[str, str] | None]
    ) -> bool:
        """Return whether the served generation is the one that would be built."""
        return (
            current.snapshot == self._snapshot.number
            and current.at == self._at
            and current.views.keys() == bound.keys()
            and all(self._holds(current.views[name], bound[name], inputs[name]) for name in bound)
            and not any(self._damage(file) for file in current.views.values())
        )

    @staticmethod
    def _holds(file: ViewFile, view: BoundView, inputs: dict[str, str] | None) -> bool:
        return inputs is not None and file.inputs == inputs and file.view == view

    def _damage(self, file: ViewFile) -> str | None:
        """Return what is wrong with a file of the served generation; it is read once."""
        if file.file not in self._damages:
            try:
                self._store.check_file(file)
                self._damages[file.file] = None
            except CatalogDamagedError as error:
                self._damages[file.file] = error.what
        return self._damages[file.file]

    def build(
        self,
        bound: Mapping[str, BoundView],
        inputs: Mapping[str, dict[str, str] | None],
        current: Manifest | None,
        session: Session,
        execution: str,
    ) -> Manifest:
        """Write the files that have to be written, and return the manifest."""
        files: dict[str, ViewFile] = {}
        for place, (name, view) in enumerate(bound.items()):
            self._progress(place, len(bound), name)
            started = time.monotonic()
            old = current.views.get(name) if current is not None and current.at <= self._at else None
            kept = old if old is not None and self._holds(old, view, inputs[name]) else None
            damage = self._damage(kept) if kept is not None else None
            reused = kept is not None and damage is None
            files[name] = kept if kept is not None and reused else self._file(view, inputs[name], session)
            seconds = time.monotonic() - started
            self._done[name] = _view_report(files[name], reused=reused, seconds=seconds, damaged=damage)
        self._progress(len(bound), len(bound), "")
        return self._manifest(files, execution)

    def _manifest(self, files: dict[str, ViewFile], execution: str) -> Manifest:
        now = self._snapshot.catalog.clock()
        return Manifest.sealed(
            id=new_ulid(now),
            lake=self._snapshot.catalog.identity,
            snapshot=self._snapshot.number,
            at=self._at,
            built_at=utc_text(now),
            views=files,
            definitions=self._snapshot.entry.definitions or "",
            execution=execution,
        )

    def _file(self, view: BoundView, inputs: dict[str, str] | None, session: Session) -> ViewFile:
        folding = Folding(view, session, self._at)
        written = self._store.write_batches(view.name, folding)
        undated, without_key = folding.left_out()
        return ViewFile(view, *written, folding.entities, folding.tail, inputs, undated, without_key)

    def publish(self, manifest: Manifest, expected: str | None, *, force: bool) -> None:
        """Pin the snapshot, flip, and give up what nobody can be flipped back to any more."""
        pins = Pins(self._snapshot.storage, self._snapshot.catalog.clock)
        reason = f"online generation of {self._store!r} on {socket.gethostname()}"
        # Of these, whoever has not published by now never will: this one comes first. They lost, or were killed.
        before = _pinned(pins, reason)
        pins.pin(_pin(manifest.id), manifest.snapshot, reason)
        try:
            self._store.publish(manifest, expected=expected, force=force)
        except BaseException:
            pins.unpin(_pin(manifest.id))
            raise
        self._store.collect(KEPT_GENERATIONS)
        kept = {_pin(generation.id) for generation in self._store.generations()}
        for name in before:
            if name not in kept:
                pins.unpin(name)

    def report(self, manifest: Manifest, *, published: bool, seconds: float) -> MaterializationReport:
        views = tuple(
            self._done.get(name) or _view_report(file, reused=True, seconds=0.0)
            for name, file in manifest.views.items()
        )
        return MaterializationReport(
            manifest.id, manifest.snapshot, micros_text(manifest.at), views, published, seconds
        )


def _view_report(file: ViewFile, *, reused: bool, seconds: float, damaged: str | None = None) -> ViewReport:
    return ViewReport(
        view=file.view.name,
        entities=file.entities,
        tail=file.tail,
        undated=file.undated,
        without_key=file.without_key,
        bytes=file.size,
        reused=reused,
        seconds=seconds,
        damaged=damaged,
    )


def _pinned(pins: Pins, reason: str) -> list[str]:
    """Return the names of the pins with a reason; none where one cannot be read: they can go next time."""
    try:
        return [pin.name for pin in pins.list() if pin.reason == reason]
    except CatalogDamagedError:
        return []


def _pin(generation: str) -> str:
    return f"generation.{generation}"
