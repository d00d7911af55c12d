"""Saving a training set: files, one publish, the manifest, pins; whatever is interrupted leaves the rest usable.

Until the manifest is put there is no new version: what was published before that is content which nobody names, and
the next save goes on from it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, Any

import msgspec

from featurestore.applied import AppliedView, view_version
from featurestore.definitions import Duration, canonical_duration, micros
from featurestore.request import Asked
from featurestore.training_files import StagedTable, check_columns, stage
from featurestore.training_manifest import (
    FORMAT,
    Manifest,
    RetrievalOptions,
    Taken,
    check_version,
    content_table,
    put_manifest,
    read_manifest,
    set_name,
    spine_table,
    versions,
)
from featurestore.training_statistics import column_statistics
from featurestore.upstream import SourceReader, models_upstream
from lakehouse.catalog import Catalog, Change, Snapshot
from lakehouse.errors import ConflictError, DefinitionError, PenstockError, RequestError
from lakehouse.metadata import Executions
from lakehouse.pins import Pins
from lakehouse.sources import twin_table
from lakehouse.storage import Storage
from lakehouse.types import TableName, parse_instant, plural, utc_text

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.retrieval import RetrievalJob

__all__ = ["save_version"]

_ATTEMPTS = 20
_PACKAGES = ("penstock", "duckdb", "pyarrow", "numpy")


def save_version(job: RetrievalJob, name: str, *, version: int | None, keep: Duration | None) -> Manifest:
    """Save the answer of a retrieval, and return the manifest of the new version. See `featurestore.training.save`."""
    catalog = job.snapshot.catalog
    name = set_name(name)
    _check_version(catalog.storage, name, version)
    duration = _duration(keep)
    check_columns(job.spine.table.schema)  # before anything is computed
    table = job.to_arrow()
    executions = Executions(catalog.storage, catalog.clock)
    execution = executions.start("training", {"name": name, "version": version, "snapshot": job.snapshot.number})
    try:
        saving = _Saving(job, name, version, duration, execution)
        manifest = saving.run(table)
    except BaseException as error:
        told = f": {error.what}" if isinstance(error, PenstockError) else ""
        executions.finish(execution, "FAILED", error=f"{type(error).__name__}{told}")
        raise
    executions.finish(
        execution,
        "COMPLETE",
        snapshot=manifest.snapshot,
        counts={str(content_table(name)): table.num_rows},
        details={"training_set": manifest.ref, "sha256": manifest.content.sha256},
    )
    return manifest


def _duration(keep: Duration | None) -> dt.timedelta | None:
    if keep is None:
        return None
    try:
        return dt.timedelta(microseconds=micros(canonical_duration(keep, what="keep")))
    except DefinitionError as error:
        raise RequestError(error.what, hint=error.hint) from None


def _check_version(storage: Storage, name: str, version: int | None) -> None:
    if version is None:
        return
    check_version(version)
    known = versions(storage, name)
    if version in known:
        raise RequestError(
            f"there is a version {version} of training set {name!r} already, and versions never change",
            hint=f"The next is {known[-1] + 1}; version=None takes it.",
        )


@dataclass
class _Saving:
    """One save."""

    job: RetrievalJob
    name: str
    version: int | None
    keep: dt.timedelta | None
    execution: str

    @property
    def catalog(self) -> Catalog:
        return self.job.snapshot.catalog

    def run(self, table: pa.Table) -> Manifest:
        origin = _origin(self.job)
        staged = self._stage(table, origin.private)
        published = self._publish(staged)
        manifest = self._numbered(self._manifest(table, staged, published, origin))
        _pin(self.catalog, manifest)
        with contextlib.suppress(PenstockError):  # this version is saved, whatever is wrong with others
            _pin_others(self.catalog, self.name)
        return manifest

    # -- tables -------------------------------------------------------------------------------------------------------

    def _stage(self, table: pa.Table, private: frozenset[str]) -> list[StagedTable]:
        staged: list[StagedTable] = []
        try:
            for name, rows in ((content_table(self.name), table), (spine_table(self.name), self.job.spine.table)):
                prefix = f"part-{self.execution}"
                staged.append(stage(self.catalog.storage, name, rows, prefix=prefix, private=private))
        except BaseException:
            for one in staged:
                one.discard(self.catalog.storage)
            raise
        return staged

    def _publish(self, staged: list[StagedTable]) -> Snapshot:
        """Publish both tables at once. What others saved meanwhile is replaced: they have read theirs by snapshot."""
        rows = plural(staged[0].record.rows, "row")
        change = Change(
            "training",
            f"training set {self.name}: {rows}",
            execution=self.execution,
            tables={one.name: one.change for one in staged},
        )
        for _ in range(_ATTEMPTS):
            base = self.catalog.latest()
            try:
                return self.catalog.publish(base, change)
            except ConflictError:
                continue
        raise ConflictError(
            f"other processes kept saving training set {self.name!r}", hint="Nothing was lost. Run it again."
        )

    # -- the manifest -------------------------------------------------------------------------------------------------

    def _manifest(self, table: pa.Table, staged: list[StagedTable], published: Snapshot, origin: _Origin) -> Manifest:
        job, now = self.job, self.catalog.clock()
        options = job.options
        return Manifest(
            format=FORMAT,
            min_reader=FORMAT,
            name=self.name,
            version=self.version or 0,
            saved_at=utc_text(now),
            keep_until=None if self.keep is None else utc_text(now + self.keep),
            snapshot=published.number,
            source_snapshot=job.snapshot.number,
            tables=origin.tables,
            definitions=origin.definitions,
            service=options.service,
            projections=tuple(map(_taken, job.asked)),
            options=RetrievalOptions(
                options.timestamp, options.timezone, options.full_feature_names, options.corrections
            ),
            views=origin.views,
            content=staged[0].record,
            spine=staged[1].record,
            columns=column_statistics(table, staged[0].columns, private=origin.private),
            report=msgspec.to_builtins(job.report, enc_hook=_plain_value),
            transforms=(),
            written_by=_written_by(),
        )

    def _numbered(self, manifest: Manifest) -> Manifest:
        """Put the manifest under the version asked for, or the next; whoever puts it has that version."""
        storage = self.catalog.storage
        for _ in range(_ATTEMPTS):
            number = self.version or max(versions(storage, self.name), default=0) + 1
            numbered = msgspec.structs.replace(manifest, version=number)
            if put_manifest(storage, numbered):
                return read_manifest(storage, self.name, number)
            if self.version is not None:
                raise ConflictError(
                    f"another process saved version {number} of training set {self.name!r} meanwhile",
                    hint="Take another version, or none: the next is taken then.",
                )
        raise ConflictError(
            f"other processes kept saving training set {self.name!r}", hint="Nothing was lost. Run it again."
        )


def _taken(asked: Asked) -> Taken:
    features = tuple(feature.name for feature in asked.features)
    keys = {key.name: column for key, column in zip(asked.view.keys, asked.keys, strict=True) if key.name != column}
    prefix = asked.names[0].removesuffix(features[0]).removesuffix("__") or None
    return Taken(asked.view.name, features, keys, prefix)


def _plain_value(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _written_by() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = package_version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


# -- where it comes from --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a retrieval stood on.

    Parameters
    ----------
    definitions
        SHA-256 of their object.
    views
        Version of each feature view.
    tables
        Delta version of each stored table that the views read.
    private
        Columns of the answer of which no values may be told, as no statistics are kept of what they come from.
    """

    definitions: str | None
    views: dict[str, str]
    tables: dict[str, int]
    private: frozenset[str]


def _origin(job: RetrievalJob) -> _Origin:
    from featurestore.documents import decode

    sha256 = job.options.definitions_sha or job.snapshot.entry.definitions
    if sha256 is None:
        return _Origin(None, {}, {}, frozenset())
    place = "the feature definitions of the retrieval"
    definitions = decode(job.snapshot.catalog.object(sha256), place=place, sha256=sha256)
    names = sorted({asked.view.name for asked in job.asked} & definitions.views.keys())
    with SourceReader() as reader:
        named = {name: reader.read(definitions.views[name].definition).tables for name in names}
    read = {name: _stored(job.snapshot, found) for name, found in named.items()}
    tables = sorted({table for found in read.values() for table in found})
    return _Origin(
        sha256,
        {name: _version(job.snapshot, definitions.views[name], found) for name, found in named.items()},
        {str(table): job.snapshot.table(table).version for table in tables},
        _private(job, read),
    )


def _version(snapshot: Snapshot, view: AppliedView, tables: tuple[TableName, ...]) -> str:
    """Return what a view means where it was read: newer definitions on old data stand on the models of then."""
    return view_version(view.bound, models_upstream(snapshot.entry, tables, known=view.upstream))


def _stored(snapshot: Snapshot, named: tuple[TableName, ...]) -> list[TableName]:
    """Return the stored tables among those that a view reads; for the view of a source, the table behind it."""
    stored = (twin_table(table.name) if table.schema == "lake" else table for table in named)
    return [table for table in stored if str(table) in snapshot.entry.tables]


def _private(job: RetrievalJob, read: dict[str, list[TableName]]) -> frozenset[str]:
    """Return the answer's columns that are called like a private one of a table read, or made of one."""
    marked = {
        view: {name.lower() for table in tables for name in job.snapshot.schema(table).no_stats}
        for view, tables in read.items()
    }
    found = {name for name in job.spine.table.column_names if any(name.lower() in names for names in marked.values())}
    for asked in job.asked:
        for name, feature in zip(asked.names, asked.features, strict=True):
            source = feature.windowed.column if feature.windowed else feature.name
            if source is not None and source.lower() in marked.get(asked.view.name, ()):
                found.add(name)
    return frozenset(found)


# -- pins -----------------------------------------------------------------------------------------------------------


def _pin_name(ref: str) -> str:
    return f"training.{ref}"


def _pin_others(catalog: Catalog, name: str) -> None:
    """Pin the versions whose save was killed before it came to that."""
    known = {pin.name for pin in Pins(catalog.storage).list()}
    for number in versions(catalog.storage, name):
        pin = _pin_name(f"{name}@{number}")
        if not {pin, f"{pin}.inputs"} <= known:
            _pin(catalog, read_manifest(catalog.storage, name, number))


def _pin(catalog: Catalog, manifest: Manifest) -> None:
    """Let the set's own tables be kept for ever, and what it was made of for as long as it says."""
    pins = Pins(catalog.storage, catalog.clock)
    name, reason = _pin_name(manifest.ref), f"training set {manifest.ref}"
    own = (manifest.content.table, manifest.spine.table)
    pins.pin(name, manifest.snapshot, reason, tables=own)
    until = None if manifest.keep_until is None else parse_instant(manifest.keep_until)
    if until is None or until > catalog.clock():
        pins.pin(f"{name}.inputs", manifest.source_snapshot, f"what {reason} was made of", keep_until=until)
