"""Landing: files become raw tiles, typed rows and one new snapshot, byte for byte and exactly once.

What has landed is part of the catalog entry, so the decision whether a file is new, the publish, and a later
rollback all speak of the same state.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lakehouse import delta
from lakehouse.catalog import Catalog, Change, Snapshot, TableChange
from lakehouse.damage import find_damage
from lakehouse.delta import DataFile
from lakehouse.errors import ConflictError, InputError, RequestError
from lakehouse.file_names import FileNames
from lakehouse.formats.csv import column_names, first_record, renamed, split_fields
from lakehouse.formats.csv_structure import looks_like_utf16
from lakehouse.formats.dialect import Dialect, sniff
from lakehouse.inputs import Fingerprint, InputFile, expand
from lakehouse.land_notes import Reading, dialect_notes, misfit_notes, time_zone_note
from lakehouse.land_report import FileReport, LandReport, OnChange, first_malformed, on_change_report
from lakehouse.metadata import Executions
from lakehouse.settings import SourceSettings
from lakehouse.settlement import Settlement
from lakehouse.sources import (
    LandedFile,
    Source,
    SourceSchema,
    raw_table,
    read_source,
    source_entry,
    twin_table,
    visible,
)
from lakehouse.staging import RAW_SCHEMA, TWIN_OPTIONS, Counts, StagedFile, Stager, Target, twin_schema
from lakehouse.storage import Storage
from lakehouse.types import TableName, new_ulid, plural, utc_text

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.inference import Observed

__all__ = ["LandReport", "land"]

Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all, and what is being done."""

_ATTEMPTS = 50  # every round some process wins, so this is how many may land in one source at once
_LONGEST_NAME = 255  # directories are called by it
_SAMPLE = 256 << 10
_KEEP = 64 << 20  # decompressed bytes of small files that are held between hashing and landing


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which of the input files land, become an alias, or are known already."""

    fresh: list[tuple[InputFile, Fingerprint]]
    aliases: list[tuple[InputFile, Fingerprint]]
    unchanged: list[tuple[InputFile, Fingerprint]]


def land(
    catalog: Catalog,
    source: str,
    inputs: Iterable[str | Path],
    settings: SourceSettings,
    *,
    threads: int,
    project: Path | None = None,
    progress: Progress | None = None,
) -> LandReport:
    """Land files in a source; what has landed already is skipped.

    Parameters
    ----------
    source
        Its name: letters, digits and underscores.
    inputs
        Paths, URIs or glob patterns. Files land in the order of their names.
    project
        The project's directory, by which files inside are named; None if there is none.
    progress
        Told about every block of bytes.

    Raises
    ------
    InputError
        If a file cannot be read. Nothing has landed then.
    ConflictError
        If other processes kept landing in the same source.
    """
    name = _source_name(source)
    files = expand(inputs, project)
    if not files:
        raise RequestError("no files to land", hint=f"penstock land {source} FILES…")
    if not catalog.exists:
        catalog.create()
    started = time.monotonic()
    meter = _Meter(progress, files)
    prints = _fingerprints(files, meter)
    executions = Executions(catalog.storage, clock=catalog.clock)
    execution = executions.start("land", {"source": name, "files": str(len(files))})
    try:
        with catalog.storage.writing():
            report = _land(
                lambda: _Load(
                    catalog=catalog,
                    name=name,
                    settings=settings,
                    prints=prints,
                    names=FileNames(project),
                    threads=threads,
                    execution=execution,
                    meter=meter,
                ).run(started)
            )
    except BaseException as error:
        executions.finish(execution, "FAILED", error=f"{type(error).__name__}: {error}")
        raise
    counts = {"records": report.records, "malformed": report.malformed}
    executions.finish(execution, "COMPLETE", snapshot=report.snapshot, counts=counts)
    return report


def _source_name(text: str) -> str:
    try:
        name = TableName.parse(f"raw.{text}").name
    except RequestError:
        raise RequestError(
            f"{text!r} cannot name a source", hint="Letters, digits and underscores, not starting with a digit."
        ) from None
    if len(name) > _LONGEST_NAME:
        raise RequestError(
            f"{name[:20] + '…'!r} cannot name a source: it has {len(name):,} characters",
            hint=f"At most {_LONGEST_NAME}.",
        )
    return name


def _land(attempt: Callable[[], LandReport]) -> LandReport:
    """Try again on the new snapshot when another process landed in the same source first."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(ConflictError):
            return attempt()
    return attempt()


def _fingerprints(files: Sequence[InputFile], meter: _Meter) -> list[tuple[InputFile, Fingerprint]]:
    prints, keep = [], _KEEP
    for file in files:
        prints.append((file, file.fingerprint(meter.hashed, keep=keep)))
        keep -= file.kept
    return prints


@dataclass(frozen=True, slots=True)
class _Settled:
    """The types after a load, the twin files that hold them, and the columns that were widened."""

    settlement: Settlement
    twin_paths: list[str]
    widened: Mapping[int, str]


class _Meter:
    """Adds up bytes for the progress bar: every byte is read once to be hashed and once to land."""

    def __init__(self, progress: Progress | None, files: Sequence[InputFile]) -> None:
        self._progress = progress
        self._total = sum(file.stored_size for file in files) if progress else 0
        self._done = 0

    def hashed(self, size: int) -> None:
        self._report(size, "reading")

    def begin(self, total: int) -> None:
        self._total, self._done = total, 0

    def landed(self, size: int) -> None:
        self._report(size, "landing")

    def _report(self, size: int, label: str) -> None:
        if self._progress is not None:
            self._done += size
            self._progress(self._done, self._total, label)


@dataclass(slots=True, kw_only=True)
class _Load:
    """One attempt to land files on top of the newest snapshot."""

    catalog: Catalog
    name: str
    settings: SourceSettings
    prints: list[tuple[InputFile, Fingerprint]]
    names: FileNames
    threads: int
    execution: str
    meter: _Meter
    base: Snapshot = field(init=False)
    source: Source | None = field(init=False)
    now: dt.datetime = field(init=False)
    load_id: str = field(init=False)
    timezone: str | None = field(init=False)
    settlement: Settlement = field(init=False)

    def __post_init__(self) -> None:
        self.base = self.catalog.latest()
        self.source = read_source(self.base, self.name) if self.name in self.base.entry.sources else None
        self.now = self.catalog.clock()
        self.load_id = new_ulid(self.now)
        # What an earlier load settled holds until somebody changes it on purpose.
        self.timezone = self.source.entry.timezone if self.source else self.settings.timezone
        self.settlement = Settlement(self.source.schema if self.source else SourceSchema(), self.timezone)

    @property
    def _earlier(self) -> list[LandedFile]:
        """What had landed before, each file by its name of today: a file of before is known by an absolute URI."""
        landed = self.source.landed if self.source else ()
        names = ((file, self.names.of_uri(file.identity)) for file in landed)
        return [file if name == file.identity else msgspec.structs.replace(file, name=name) for file, name in names]

    def run(self, started: float) -> LandReport:
        plan = self._plan()
        for file, _ in (*plan.aliases, *plan.unchanged):
            file.forget()
        if not plan.fresh and not plan.aliases:
            return self._nothing_new(plan, started)
        staged = [self._staged(index, *pair) for index, pair in enumerate(plan.fresh)]
        self.meter.begin(sum(print_.size for _, print_ in plan.fresh))
        date = self.now.date().isoformat()
        stager = Stager(
            self.catalog.storage,
            self.settlement,
            raw=Target(self._path(raw_table(self.name)), f"_load_date={date}/{self.load_id}"),
            twin=Target(self._path(twin_table(self.name)), self.load_id),
            threads=self.threads,
        )
        counts = stager.run(staged, self.meter.landed)
        _refuse_changed(plan.fresh)
        settled = self._settle(staged, stager)
        landed = self._landed(plan, staged, counts)
        snapshot = self._publish(stager.raw_paths, settled, landed)
        report = self._report(plan, settled, landed, snapshot, started)
        known = [column.name for column in self.settlement.schema.columns]
        files = list(zip(staged, counts, strict=True))
        reading = Reading(self.name, self.settings.header, known, files, snapshot.number - 1)
        return replace(
            report,
            first_malformed=first_malformed(staged, counts),
            warnings=(*report.warnings, *reading.notes()),
        )

    # -- what to do ---------------------------------------------------------------------------------------------

    def _plan(self) -> _Plan:
        landed = self._earlier
        newest = {file.identity: file.sha256 for file in landed}
        known = {file.sha256 for file in landed}
        plan = _Plan([], [], [])
        for file, print_ in self.prints:
            if newest.get(file.uri) == print_.sha256:
                plan.unchanged.append((file, print_))
            elif print_.sha256 in known and self.settings.on_same_content == "skip":
                plan.aliases.append((file, print_))
            else:
                plan.fresh.append((file, print_))
            known.add(print_.sha256)
        return plan

    def _staged(self, index: int, file: InputFile, print_: Fingerprint) -> StagedFile:
        with file.open() as stream:
            sample = stream.read(_SAMPLE)
        known = [column.name for column in self.settlement.schema.columns]
        settings = self.settings
        dialect = sniff(
            sample, delimiter=settings.delimiter, quote=settings.quote or '"', header=settings.header, known=known
        )
        names = _names(sample, dialect, known)
        return StagedFile(
            index=index,
            file=file,
            constants={
                "_load_id": self.load_id,
                "_landed_at": self.now,
                "_source_uri": file.uri,
                "_source_sha256": print_.stored_sha256,
                "_source_size": print_.stored_size,
                "_content_sha256": print_.sha256,
                "_content_size": print_.size,
            },
            dialect=dialect,
            header=dialect.to_text(names),
            names=tuple(names),
            utf16=looks_like_utf16(sample),
            renamed=tuple(renamed(sample, dialect, names)),
        )

    # -- types --------------------------------------------------------------------------------------------------

    def _settle(self, staged: list[StagedFile], first: Stager) -> _Settled:
        """Return the final types and this load's twin files; written again if a provisional type did not hold."""
        unsettled, widening = self.settlement.unsettled, self.settlement.widening
        if not unsettled and not widening:
            return _Settled(self.settlement, first.twin_paths, {})
        observed = self._observe(staged, [*unsettled, *widening])
        types = {index: observed[index].type(timezone=self.timezone) for index in unsettled}
        widened = {index: type_ for index in widening if (type_ := self._widened(index, observed[index])) is not None}
        final = self.settlement.final(types | widened)
        target = Target(self._path(twin_table(self.name)), f"{self.load_id}-final")
        again = Stager(self.catalog.storage, final, raw=None, twin=target, threads=self.threads)
        again.run(staged)
        for path in first.twin_paths:
            self.catalog.storage.delete(f"{target.table_path}/{path}")
        return _Settled(final, again.twin_paths, widened)

    def _widened(self, index: int, observed: Observed) -> str | None:
        """Return the decimal type for what a bigint column holds, by the log's statistics, and what came."""
        from lakehouse import inference

        field_ = self.settlement.schema.columns[index].field
        stored = inference.Observed()
        for file in self._twin_files():
            bounds = [file.stats.get(end, {}).get(field_) for end in ("minValues", "maxValues")]
            if None not in bounds:
                digits = max(len(str(abs(int(bound)))) for bound in bounds if bound is not None)
                stored = stored.merge(inference.Observed(bigint=True, integer_digits=digits))
            elif file.stats.get("nullCount", {}).get(field_) != file.rows:
                stored = stored.merge(inference.Observed.settled("bigint"))
        return inference.widened("bigint", stored.merge(observed))

    def _observe(self, staged: list[StagedFile], columns: list[int]) -> dict[int, Observed]:
        """Read the files once more and return what the values of some columns need."""
        watcher = _Watcher(frozenset(columns))
        Stager(
            self.catalog.storage, self.settlement, raw=None, twin=None, threads=self.threads, visit=watcher.visit
        ).run(staged)
        return watcher.observed

    def _twin_files(self) -> Sequence[DataFile]:
        name = twin_table(self.name)
        return self.base.files(name) if str(name) in self.base.entry.tables else ()

    # -- publish ------------------------------------------------------------------------------------------------

    def _path(self, name: TableName) -> str:
        known = self.base.entry.tables.get(str(name))
        return known.path if known else f"{name.schema}/{name.name}"

    def _landed(self, plan: _Plan, staged: Sequence[StagedFile], counts: Sequence[Counts]) -> list[LandedFile]:
        """Return what this load adds to the source's list, by name."""
        rows = [
            msgspec.structs.replace(
                self._landed_file(file.index, pair),
                records=count.records,
                malformed=count.malformed,
                filler=count.filler,
                dialect=file.dialect.to_text(),
            )
            for pair, file, count in zip(plan.fresh, staged, counts, strict=True)
        ]
        aliases = [
            msgspec.structs.replace(self._landed_file(index, pair), alias=True)
            for index, pair in enumerate(plan.aliases, len(rows))
        ]
        return sorted([*rows, *aliases], key=lambda landed: landed.uri)

    def _landed_file(self, index: int, pair: tuple[InputFile, Fingerprint]) -> LandedFile:
        file, print_ = pair
        return LandedFile(
            load_id=self.load_id,
            file=index,
            uri=file.uri,
            sha256=print_.sha256,
            size=print_.size,
            stored_sha256=print_.stored_sha256,
            stored_size=print_.stored_size,
            landed_at=utc_text(self.now),
        )

    def _publish(self, raw_paths: Sequence[str], settled: _Settled, landed: Sequence[LandedFile]) -> Snapshot:
        storage, raw, twin = self.catalog.storage, raw_table(self.name), twin_table(self.name)
        raw_path, twin_path = self._path(raw), self._path(twin)
        schema = twin_schema(settled.settlement)
        partition = {"_load_date": self.now.date().isoformat()}
        replaced: list[DataFile] = []
        kept: list[str] = []
        if settled.widened:
            replaced = list(self._twin_files())
            kept = self._widened_files(replaced, settled)
        changes = {}
        if raw_paths or str(raw) not in self.base.entry.tables:
            added = tuple(delta.measure(storage, raw_path, path, RAW_SCHEMA, partition) for path in raw_paths)
            changes[raw] = TableChange(RAW_SCHEMA, added)
        if settled.twin_paths or replaced or str(twin) not in self.base.entry.tables:
            added = tuple(delta.measure(storage, twin_path, path, schema) for path in [*kept, *settled.twin_paths])
            changes[twin] = TableChange(schema, added, remove=frozenset(file.path for file in replaced))
        records = sum(file.records for file in landed)
        entry = source_entry(
            self.catalog,
            [*self._earlier, *landed],
            settled.settlement.result,
            timezone=self.timezone,
            on_change=self.settings.on_change,
        )
        return self.catalog.publish(
            self.base,
            Change(
                kind="land",
                summary=f"{self.name}: {plural(len(landed), 'file')}, {plural(records, 'record')}",
                execution=self.execution,
                tables=changes,
                sources={self.name: entry},
                info={"penstock.load": self.load_id},
            ),
        )

    def _widened_files(self, files: Sequence[DataFile], settled: _Settled) -> list[str]:
        import pyarrow as pa

        twin = twin_table(self.name)
        try:
            return [
                _widen_file(self.catalog.storage, self._path(twin), file.path, self.load_id, settled) for file in files
            ]
        except (OSError, pa.ArrowException) as error:
            found = find_damage("", [(self.base, twin)])
            if found is None:
                raise
            raise found from error

    # -- report -------------------------------------------------------------------------------------------------

    def _nothing_new(self, plan: _Plan, started: float) -> LandReport:
        snapshot = self.base
        if self.source is not None and self.source.entry.on_change != self.settings.on_change:
            entry = msgspec.structs.replace(self.source.entry, on_change=self.settings.on_change)
            what = f"{self.name}: on_change is now {self.settings.on_change}"
            change = Change(kind="land", summary=what, execution=self.execution, sources={self.name: entry})
            snapshot = self.catalog.publish(self.base, change)
        return LandReport(
            source=self.name,
            load_id=None,
            snapshot=snapshot.number,
            files=tuple(_unchanged(plan)),
            on_change=self._on_change(()),
            warnings=tuple(self._warnings(self.settlement, plan)),
            seconds=time.monotonic() - started,
        )

    def _report(
        self,
        plan: _Plan,
        settled: _Settled,
        landed: Sequence[LandedFile],
        snapshot: Snapshot,
        started: float,
    ) -> LandReport:
        settlement = settled.settlement
        first = len(self.source.landed) if self.source else 0
        files = [
            FileReport(
                uri=file.uri,
                status="same content" if file.alias else "landed",
                records=file.records,
                malformed=file.malformed,
                size=file.size,
                stored_size=file.stored_size,
                seq=seq,
            )
            for seq, file in enumerate(landed, first)
        ]
        before = {column.name for column in self.settlement.schema.columns}
        return LandReport(
            source=self.name,
            load_id=self.load_id,
            snapshot=snapshot.number,
            files=tuple(sorted([*files, *_unchanged(plan)], key=lambda file: file.uri)),
            records=sum(file.records for file in landed),
            malformed=sum(file.malformed for file in landed),
            misfits=settlement.misfits,
            ambiguous=settlement.ambiguous,
            missing=settlement.missing,
            widened=tuple(f"{settlement.name(index)}: bigint → {type_}" for index, type_ in settled.widened.items()),
            new_columns=tuple((c.name, c.type) for c in settlement.result.columns if c.name not in before),
            on_change=self._on_change(landed),
            warnings=tuple(self._warnings(settlement, plan)),
            seconds=time.monotonic() - started,
        )

    def _on_change(self, landed: Sequence[LandedFile]) -> OnChange | None:
        if self.source is None:
            return None
        return on_change_report([*self._earlier, *landed], self.source.entry.on_change, self.settings.on_change)

    def _warnings(self, settlement: Settlement, plan: _Plan) -> list[str]:
        zone = time_zone_note(self.name, self.timezone, self.settings.timezone)
        skipped = {print_.sha256 for _, print_ in (*plan.unchanged, *plan.aliases)}
        shown = [file.file for file in visible(self._earlier, self.settings.on_change) if file.file.sha256 in skipped]
        late = dialect_notes(self.name, self.settings, shown)
        return [*([zone] if zone else []), *late, *misfit_notes(self.name, self.load_id, settlement.misfits)]


class _Watcher:
    """Collects what the values of some columns need."""

    def __init__(self, columns: frozenset[int]) -> None:
        self._columns = columns
        self._lock = threading.Lock()
        self.observed: dict[int, Observed] = {}

    def visit(self, index: int, values: pa.StringArray) -> None:
        from lakehouse import inference

        if index not in self._columns:
            return
        observed = inference.observe(values)
        with self._lock:
            known = self.observed.get(index)
            self.observed[index] = observed if known is None else known.merge(observed)


def _names(sample: bytes, dialect: Dialect, known: Sequence[str]) -> list[str]:
    """Return a file's column names; a file without header takes the source's columns in order, if they are as many."""
    record = first_record(sample, dialect)
    if record is None:
        return []
    width = len(split_fields(record, dialect))
    if not dialect.header and len(known) == width:
        return list(known)
    return column_names(record if dialect.header else None, dialect, width)


def _unchanged(plan: _Plan) -> list[FileReport]:
    return [FileReport(f.uri, "unchanged", 0, 0, p.size, p.stored_size, None) for f, p in plan.unchanged]


def _refuse_changed(files: Sequence[tuple[InputFile, Fingerprint]]) -> None:
    """Stop if a file was written to between hashing and landing: its rows would not match its hash."""
    for file, print_ in files:
        if file.state != print_.state:
            raise InputError("changed while it was landing", where=file.uri, hint="Run the command again.")


def _widen_file(storage: Storage, twin_path: str, old: str, load_id: str, settled: _Settled) -> str:
    """Write a twin file again with some bigint columns as decimals, row group by row group, and return its path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lakehouse import inference

    typed = {index: name for index, name, _ in settled.settlement.typed()}
    types = {typed[index]: inference.arrow_type(type_) for index, type_ in settled.widened.items()}
    path = f"{load_id}-widened-{old}"
    with storage.open_read(f"{twin_path}/{old}") as source, storage.open_write(f"{twin_path}/{path}") as sink:
        reader = pq.ParquetFile(source)
        schema = pa.schema([f.with_type(types.get(f.name, f.type)) for f in reader.schema_arrow])
        with pq.ParquetWriter(sink, schema, **TWIN_OPTIONS) as writer:
            for group in range(reader.num_row_groups):
                table = reader.read_row_group(group)
                for name, type_ in types.items():
                    # Arrow casts text to a decimal when it fits, but an integer only when every integer would.
                    column = table.column(name).cast(pa.string()).cast(type_)
                    table = table.set_column(table.schema.get_field_index(name), name, column)
                writer.write_table(table)
    return path
