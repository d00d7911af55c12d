"""The snapshot log: one integer for the state of everything.

An entry maps every table to a Delta version and carries all state that must roll back with the data. Entries are
immutable files, created by put-if-absent: whoever creates entry n+1 has published, and nobody else.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from lakehouse import delta, delta_log
from lakehouse.delta import DataFile, TableSchema
from lakehouse.entries import FORMAT, Entry, ModelEntry, SourceEntry, TableEntry, refuse_newer_writer
from lakehouse.errors import (
    CatalogDamagedError,
    ConflictError,
    ForeignCommitError,
    RequestError,
    UnknownSnapshotError,
    UnknownTableError,
    near,
)
from lakehouse.snapshot_log import LAKE_FILE, SnapshotLog
from lakehouse.storage import Storage
from lakehouse.tags import Tags
from lakehouse.types import AsOf, Clock, TableName, new_ulid, parse_instant, utc_now, utc_text

__all__ = ["Catalog", "Change", "Snapshot", "TableChange", "files_sha256"]

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class TableChange:
    """What a publish does to one table.

    Parameters
    ----------
    schema
        The table's schema afterwards.
    add
        New files, already written.
    remove
        Paths of mapped files that go; None removes all (the added files are the whole content).
    supersede_foreign
        Undo commits of others beyond the mapped version.
    """

    schema: TableSchema
    add: tuple[DataFile, ...] = ()
    remove: frozenset[str] | None = frozenset()
    supersede_foreign: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One publish: tables, sources and models that get a new state at the same moment.

    Parameters
    ----------
    kind
        ``land``, ``promote``, ``rollback``.
    summary
        One line for people.
    info
        Further commit info for the Delta logs.
    definitions
        SHA-256 of the object with the feature definitions; None leaves them as they are.
    """

    kind: str
    summary: str
    execution: str | None = None
    tables: Mapping[TableName, TableChange] = field(default_factory=dict)
    sources: Mapping[str, SourceEntry] = field(default_factory=dict)
    models: Mapping[str, ModelEntry | None] = field(default_factory=dict)
    info: Mapping[str, str] = field(default_factory=dict)
    definitions: str | None = None


class Snapshot:
    """One state of the whole lake, read lazily. Immutable."""

    def __init__(self, catalog: Catalog, entry: Entry) -> None:
        self.catalog = catalog
        self.entry = entry
        self._files: dict[TableName, tuple[DataFile, ...]] = {}

    def __repr__(self) -> str:
        return f"Snapshot({self.number})"

    @property
    def number(self) -> int:
        """The snapshot's integer."""
        return self.entry.snapshot

    @property
    def storage(self) -> Storage:
        """Where the lake is."""
        return self.catalog.storage

    @cached_property
    def tables(self) -> tuple[TableName, ...]:
        """The tables stored at this snapshot, by name."""
        return tuple(sorted(TableName.parse(name) for name in self.entry.tables))

    def table(self, name: TableName) -> TableEntry:
        """Return a stored table's entry.

        Raises
        ------
        UnknownTableError
            If the table is not stored at this snapshot.
        """
        try:
            return self.entry.tables[str(name)]
        except KeyError:
            raise self.absent(f"table {name}", name, self.entry.tables) from None

    def absent(self, what: str, name: TableName, known: Iterable[str]) -> UnknownTableError:
        """Return the error about something that is not there: it names the first later snapshot with it, or near names.

        Parameters
        ----------
        what
            As the message calls it, e.g. ``source trips``.
        name
            The table or typed view.
        known
            What is there, as users name it.
        """
        first = self.catalog.first_with(name, after=self.number)
        return UnknownTableError(
            f"there is no {what} at snapshot {self.number}",
            hint=near(str(name), known, what=f"{what.partition(' ')[0]}s")
            if first is None
            else f"The first snapshot that has it is {first}.",
        )

    def schema(self, name: TableName) -> TableSchema:
        """Return a stored table's schema at this snapshot."""
        return msgspec.json.decode(self.catalog.object(self.table(name).schema), type=TableSchema)

    def files(self, name: TableName) -> tuple[DataFile, ...]:
        """Return a stored table's files at this snapshot, by path."""
        if name not in self._files:
            entry = self.table(name)
            files = tuple(delta.files_at(self.storage, entry.path, entry.version))
            if files_sha256(files) != entry.files_sha256 or sum(file.rows for file in files) != entry.rows:
                # A commit file without content opens as if it were none.
                what = delta_log.fault(self.storage, entry.path, entry.version)
                raise delta.damaged_log(
                    what or f"its Delta log at version {entry.version} names other files than were published",
                    where=f"{name} at snapshot {self.number}",
                )
            self._files[name] = files
        return self._files[name]


class Catalog:
    """The snapshot log of one lake.

    Parameters
    ----------
    storage
        The lake's root.
    clock
        Returns the present instant; tests pass their own.
    failpoint
        Called with the name of each point between two durable steps of a publish; tests stop the process there.
    """

    def __init__(
        self, storage: Storage, *, clock: Clock = utc_now, failpoint: Callable[[str], None] = lambda _: None
    ) -> None:
        self.storage = storage
        self.clock = clock
        self._failpoint = failpoint
        self._log = SnapshotLog(storage)
        self._tags = Tags(storage, clock)

    # -- the lake as a whole ------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether there is a lake here."""
        return self.storage.exists(LAKE_FILE)

    def create(self, *, purpose: str = "lake") -> None:
        """Make an empty lake here, unless there is one; its snapshot 0 has no tables."""
        if self.exists:
            return
        empty = Entry(
            FORMAT, FORMAT, FORMAT, 0, None, None, utc_text(self.clock()), "create", None, "empty lake", {}, {}, {}
        )
        self._log.append(empty)
        # Last, so that a lake is never there without its first entry.
        mark = {"format": FORMAT, "id": new_ulid(self.clock()), "purpose": purpose}
        self.storage.put_if_absent(LAKE_FILE, msgspec.json.encode(mark))

    @property
    def purpose(self) -> str | None:
        """What the lake was made for (``demo`` for the demo's), or None if there is none."""
        return self._mark("purpose")

    @property
    def identity(self) -> str:
        """What tells this lake from all others, wherever it is moved to; empty if there is none."""
        return self._mark("id") or ""

    def _mark(self, key: str) -> str | None:
        try:
            value = msgspec.json.decode(self.storage.read(LAKE_FILE)).get(key)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return None if value is None else str(value)

    # -- objects ------------------------------------------------------------------------------------------------

    def put_object(self, data: bytes) -> str:
        """Store content under its SHA-256, and return that."""
        sha256 = hashlib.sha256(data).hexdigest()
        place = f"_catalog/objects/{sha256}"
        if not self.storage.put_if_absent(place, data) and self.storage.read(place) != data:
            self.storage.replace(place, data)  # it was damaged, and here is what it was
        return sha256

    def object(self, sha256: str) -> bytes:
        """Return content by its SHA-256, checked."""
        place = f"_catalog/objects/{sha256}"
        hint = (
            "Restore the file from a copy. Snapshots that don't need it can still be read: "
            "penstock snapshots, then --as-of N."
        )
        try:
            data = self.storage.read(place)
        except FileNotFoundError:
            raise CatalogDamagedError("an object of the catalog is missing", where=place, hint=hint) from None
        if hashlib.sha256(data).hexdigest() != sha256:
            what = "an object of the catalog is damaged: its content has another hash"
            raise CatalogDamagedError(what, where=place, hint=hint)
        return data

    def _check_objects(self, entry: Entry) -> None:
        """Stop if an object that an entry names is missing or damaged: nobody should be sent there."""
        for name in sorted(entry.objects):
            self.object(name)

    # -- reading ------------------------------------------------------------------------------------------------

    def numbers(self) -> list[int]:
        """Return the numbers of all snapshots, ascending."""
        return self._log.numbers()

    def latest(self) -> Snapshot:
        """Return the newest snapshot.

        Raises
        ------
        ProjectError
            If there is no lake here.
        CatalogDamagedError
            If the newest entry is damaged or missing: never a silent step back to an older one.
        """
        return Snapshot(self, self._log.newest())

    def snapshot(self, number: int) -> Snapshot:
        """Return the snapshot of that number."""
        return Snapshot(self, self._log.read(number))

    def resolve(self, as_of: AsOf) -> Snapshot:
        """Return the snapshot that an as-of names: a number, a tag, an instant, or None for the newest.

        An instant names the greatest snapshot published at or before it.

        Raises
        ------
        UnknownSnapshotError
            If there is no such snapshot or tag, or the instant lies before the first snapshot or in the future.
        RequestError
            If a datetime has no zone.
        """
        if as_of is None:
            return self.latest()
        if isinstance(as_of, dt.datetime):
            if as_of.tzinfo is None:
                raise RequestError(
                    f"as of {as_of}: a time without a zone", hint="Give it one, e.g. tzinfo=datetime.UTC."
                )
            return self._at(as_of)
        text = str(as_of).strip()
        if text.isdecimal():
            return self.snapshot(int(text))
        tags = self.tags()
        if text in tags:
            return self.snapshot(tags[text])
        if text[:1].isdigit():
            return self._at(parse_instant(text))
        if text[:1].isalpha():
            raise UnknownSnapshotError(f"there is no tag {text!r}", hint=near(text, tags, what="tags"))
        *_, newest = self.numbers() or [0]
        raise UnknownSnapshotError(
            f"{text!r} is no snapshot, tag or time",
            hint=f"Give a snapshot's number (0 to {newest}), a tag, or a UTC time such as 2026-11-23T15:04:05Z.",
        )

    def _at(self, instant: dt.datetime) -> Snapshot:
        if instant > self.clock():
            raise UnknownSnapshotError(f"{utc_text(instant)} lies in the future")
        return Snapshot(self, self._log.at(instant))

    def first_with(self, name: TableName, *, after: int) -> int | None:
        """Return the number of the first snapshot after another that has a table or typed view; None if none has."""
        return self._log.first_with(str(name), name.name if name.schema == "lake" else None, after)

    def entries(self, start: Snapshot | None = None) -> Iterator[Entry]:
        """Yield the entries from a snapshot (or the newest) on, newest first; damage stops the walk with an error."""
        return self._log.walk((start or self.latest()).entry)

    # -- tags ---------------------------------------------------------------------------------------------------

    def tags(self) -> dict[str, int]:
        """Return the snapshot number of every tag."""
        return self._tags.snapshots()

    def tag(self, name: str, number: int) -> None:
        """Name a snapshot for ever. See `lakehouse.tags.Tags.tag`."""
        self.latest()  # writing stops where the newest entry is damaged
        self._check_objects(self.snapshot(number).entry)
        self._tags.tag(name, number)

    def delete_tag(self, name: str) -> None:
        """Give a tag up. See `lakehouse.tags.Tags.delete`."""
        self.latest()
        self._tags.delete(name)

    # -- writing ------------------------------------------------------------------------------------------------

    def publish(self, base: Snapshot, change: Change) -> Snapshot:
        """Make a change visible as the next snapshot, whole or not at all.

        Safe against any number of concurrent publishes: those that touch other tables, sources and models are
        let pass; one that touched the same makes this one fail.

        Raises
        ------
        ConflictError
            If something that this change writes is no longer as ``base`` had it.
        """
        publish_id = new_ulid(self.clock())
        info = {delta.PUBLISH_KEY: publish_id, "penstock.execution": change.execution or "", **change.info}
        self._failpoint("staged")
        for _ in range(_ATTEMPTS):
            current = self.latest()
            refuse_newer_writer(current.entry)
            self._refuse_conflict(base, current, change)
            try:
                tables = {str(name): self._commit(base, name, what, info) for name, what in change.tables.items()}
            except delta.CommitRacedError:
                continue
            self._failpoint("committed")
            entry = self._next(current.entry, change, tables)
            if (published := self._appended(entry)) is not None:
                return published
        raise ConflictError("other processes kept publishing", hint="Nothing was lost. Run the command again.")

    def roll_back(self, target: Snapshot, *, table: TableName | None = None, execution: str | None = None) -> Snapshot:
        """Publish a new snapshot that repeats the state of an older one, or one table of it.

        Raises
        ------
        ConflictError
            If another process published meanwhile.
        """
        current = self.latest()
        refuse_newer_writer(current.entry)
        if table is not None:
            return self._roll_back_table(current, target, table, execution)
        old = target.entry
        self._check_objects(old)
        for name in target.tables:
            if current.entry.tables.get(str(name)) != old.tables[str(name)]:
                target.files(name)  # fails if the log was cut
        entry = msgspec.structs.replace(
            current.entry,
            snapshot=current.number + 1,
            parent=current.number,
            parent_sha256=current.entry.sha256,
            at=self._stamp(current.entry),
            kind="rollback",
            execution=execution,
            summary=f"back to snapshot {target.number}",
            tables=old.tables,
            sources=old.sources,
            models=old.models,
            definitions=old.definitions,
        )
        published = self._appended(entry)
        if published is None:
            raise ConflictError(
                "another process published meanwhile", hint="Look at penstock snapshots, then run it again."
            )
        return published

    def _appended(self, entry: Entry) -> Snapshot | None:
        """Publish an entry, or return None if another process took its number."""
        if not self._log.append(entry):
            return None
        self._failpoint("published")
        self._log.mark(entry.snapshot)
        return self.snapshot(entry.snapshot)

    def _roll_back_table(
        self, current: Snapshot, target: Snapshot, table: TableName, execution: str | None
    ) -> Snapshot:
        if table.schema != "warehouse":
            raise RequestError(
                f"{table} cannot be rolled back alone: what has landed belongs together",
                hint=f"Roll the whole lake back: penstock rollback {target.number}",
            )
        # What a model rejected belongs to what it accepted.
        names = [table, *(name for name in (TableName("quarantine", table.name),) if name in target.tables)]
        change = Change(
            kind="rollback",
            summary=f"{table} back to snapshot {target.number}",
            execution=execution,
            tables={
                name: TableChange(target.schema(name), target.files(name), remove=None, supersede_foreign=True)
                for name in names
            },
            models={str(table): target.entry.models.get(str(table))},
        )
        return self.publish(current, change)

    def _refuse_conflict(self, base: Snapshot, current: Snapshot, change: Change) -> None:
        if base.number == current.number:
            return
        for name in change.tables:
            if base.entry.tables.get(str(name)) != current.entry.tables.get(str(name)):
                raise self._lost(str(name), base, "tables")
        for source in change.sources:
            if base.entry.sources.get(source) != current.entry.sources.get(source):
                raise self._lost(f"source {source}", base, "sources")
        if change.definitions is not None and base.entry.definitions != current.entry.definitions:
            raise self._lost("the feature definitions", base, "definitions")

    def _lost(self, what: str, base: Snapshot, part: str) -> ConflictError:
        def state(entry: Entry) -> object:
            whole = getattr(entry, part)
            return whole.get(what.removeprefix("source ")) if isinstance(whole, dict) else whole

        later = (n for n in self.numbers() if n > base.number)
        winner = next((n for n in later if state(self.snapshot(n).entry) != state(base.entry)), base.number + 1)
        entry = self.snapshot(winner).entry
        changed = f"{what} {'were' if part == 'definitions' else 'was'} changed by another process meanwhile"
        return ConflictError(
            f"{changed}: snapshot {winner} ({entry.kind}, {entry.summary})",
            hint="Nothing was lost. Run the command again.",
        )

    def _commit(self, base: Snapshot, name: TableName, change: TableChange, info: Mapping[str, str]) -> TableEntry:
        known = base.entry.tables.get(str(name))
        kept: tuple[DataFile, ...] = ()
        if known is not None and change.remove is not None:
            kept = tuple(file for file in base.files(name) if file.path not in change.remove)
        files = tuple(sorted({file.path: file for file in (*kept, *change.add)}.values(), key=lambda file: file.path))
        path = known.path if known else f"{name.schema}/{name.name}"
        try:
            version = delta.commit(
                self.storage,
                path,
                change.schema,
                mapped=known.version if known else None,
                files=files,
                info=info,
                now=self.clock(),
                supersede_foreign=change.supersede_foreign,
            )
        except ForeignCommitError as error:
            error.hint = _undoing(base, name)
            raise
        return TableEntry(
            path=path,
            version=version,
            schema=self.put_object(msgspec.json.encode(change.schema)),
            files_sha256=files_sha256(files),
            files=len(files),
            rows=sum(file.rows for file in files),
            bytes=sum(file.size for file in files),
        )

    def _next(self, current: Entry, change: Change, tables: Mapping[str, TableEntry]) -> Entry:
        models = {**current.models, **change.models}
        return Entry(
            format=FORMAT,
            min_reader=FORMAT,
            min_writer=FORMAT,
            snapshot=current.snapshot + 1,
            parent=current.snapshot,
            parent_sha256=current.sha256,
            at=self._stamp(current),
            kind=change.kind,
            execution=change.execution,
            summary=change.summary,
            tables=dict(sorted({**current.tables, **tables}.items())),
            sources=dict(sorted({**current.sources, **change.sources}.items())),
            models={name: model for name, model in sorted(models.items()) if model is not None},
            definitions=change.definitions or current.definitions,
        )

    def _stamp(self, parent: Entry) -> str:
        """Return the publish time: later than the parent's even when the clock jumps back."""
        return utc_text(max(self.clock(), parent.instant + dt.timedelta(microseconds=1)))


def files_sha256(files: Iterable[DataFile]) -> str:
    """Return the hash that identifies a table's content: over the paths and sizes of its files, in path order."""
    text = "".join(f"{file.path}\0{file.size}\n" for file in sorted(files, key=lambda file: file.path))
    return hashlib.sha256(text.encode()).hexdigest()


def _undoing(base: Snapshot, name: TableName) -> str:
    """Return how to undo what somebody else did to a table."""
    known = base.entry.tables.get(str(name))
    if known is None:
        return "A Delta table of somebody else's lies where this one belongs: move it away."
    if name.schema in ("warehouse", "quarantine"):
        command = f"penstock rollback {base.number} --table warehouse.{name.name}"
        return f"Undo it with: {command} (their version stays in the Delta log)."
    return (
        f"Undo it by moving the files of {known.path}/_delta_log from version {known.version + 1} on away; "
        "only tables of warehouse can be rolled back alone."
    )
