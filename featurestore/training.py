"""Training sets: the answer of a retrieval, kept with everything that it takes to make it again.

A set is two tables of the lake, ``training.<name>`` and ``training.<name>__spine``, whose content the next version
replaces, and an immutable manifest per version. A version is read at the snapshot that published it.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from featurestore.definitions import Duration
from featurestore.reproduction import Reproduction, reproduce
from featurestore.spine import read_spine
from featurestore.splits import At, Split, cut, parts, record, record_text
from featurestore.training_files import read_stored
from featurestore.training_manifest import (
    Manifest,
    SplitRecord,
    Stored,
    check_version,
    put_split,
    read_manifest,
    set_name,
    sets,
    splits,
    versions,
)
from featurestore.training_saving import save_version
from lakehouse.catalog import Catalog
from lakehouse.errors import RequestError, near
from lakehouse.settings import Settings
from lakehouse.types import plural

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from featurestore.retrieval import RetrievalJob
    from lakehouse.lake import Lake
    from lakehouse.result import QueryResult

__all__ = ["TrainingSet", "save", "training_set", "training_sets", "users_of_view"]

_SHORT = 12


def save(job: RetrievalJob, name: str, *, version: int | None = None, keep: Duration | None = "90d") -> TrainingSet:
    """Save the answer of a retrieval as a training set, and return it.

    The rows, their order, their types and the spine are kept exactly. Values are read again from the files before
    anything is published. Safe against concurrent savers of the same set: each gets a version of its own.

    Parameters
    ----------
    job
        What was retrieved; it is computed if it was not yet.
    name
        Of the set: letters, digits and underscores.
    version
        Its number, from 1; None takes the next.
    keep
        For how long the lake keeps what the set was made of, so that it can be reproduced, e.g. ``90d``; None keeps
        it for ever. The set itself stays in any case.

    Raises
    ------
    RequestError
        If the name or version can't be, the version is taken, or a column has a type or value that a stored table
        can't hold exactly.
    ConflictError
        If another process took the very version that was asked for, meanwhile.
    """
    manifest = save_version(job, name, version=version, keep=keep)
    return TrainingSet(job.snapshot.catalog, job.settings, manifest)


def training_set(lake: Lake, name: str, version: int | None = None) -> TrainingSet:
    """Return a saved training set.

    Parameters
    ----------
    name
        Of the set; ``tips@3`` names a version too.
    version
        None takes the newest.

    Raises
    ------
    RequestError
        If there is no such set (near matches are listed) or version (all are listed).
    """
    bare, at, number = name.partition("@") if isinstance(name, str) else (set_name(name), "", "")
    if version is not None:
        check_version(version)
    if at and version is None:
        if not number.isdecimal():
            raise RequestError(f"{name!r}: {number!r} is no version", hint=f"Write it as {bare}@3.")
        version = int(number)
    known = versions(lake.storage, set_name(bare))
    if not known:
        hint = near(bare, sets(lake.storage), what="training sets")
        raise RequestError(f"there is no training set {bare!r}", hint=hint)
    wanted = known[-1] if version is None else version
    if wanted not in known:
        listed = ", ".join(map(str, known))
        raise RequestError(f"there is no version {wanted} of training set {bare!r}", hint=f"Versions: {listed}.")
    return TrainingSet(lake.catalog, lake.settings, read_manifest(lake.storage, set_name(bare), wanted))


def training_sets(lake: Lake) -> list[dict[str, Any]]:
    """Return all versions of all training sets, by name and version, as rows for a table."""
    return [
        {
            "name": manifest.name,
            "version": manifest.version,
            "rows": manifest.content.rows,
            "columns": len(manifest.columns),
            "service": manifest.service,
            "snapshot": manifest.snapshot,
            "source_snapshot": manifest.source_snapshot,
            "saved_at": manifest.saved_at,
            "keep_until": manifest.keep_until,
            "sha256": manifest.content.sha256,
        }
        for manifest in _manifests(lake)
    ]


def users_of_view(lake: Lake, view: str, version: str | None = None) -> list[str]:
    """Return the training sets that were made with a feature view, in words: ``training set tips@3``.

    Parameters
    ----------
    version
        Only those that were made of this version of it; None is any.
    """
    return [
        f"training set {manifest.ref}"
        for manifest in _manifests(lake)
        if view in manifest.views and version in (None, manifest.views[view])
    ]


def _manifests(lake: Lake) -> list[Manifest]:
    storage = lake.storage
    return [read_manifest(storage, name, number) for name in sets(storage) for number in versions(storage, name)]


class TrainingSet:
    """One version of a saved training set.

    Rows come in the order of the spine that it was made of, with the spine's columns and the features. Every reading
    is checked against the saved hash.

    Parameters
    ----------
    catalog, settings
        Of its lake.
    manifest
        All that is known about it.
    """

    def __init__(self, catalog: Catalog, settings: Settings, manifest: Manifest) -> None:
        self.manifest = manifest
        self._catalog = catalog
        self._settings = settings

    @property
    def name(self) -> str:
        """The set's name."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """Its number."""
        return self.manifest.version

    @property
    def ref(self) -> str:
        """How people name it: ``tips@3``."""
        return self.manifest.ref

    @property
    def splits(self) -> list[SplitRecord]:
        """The splits that were made of it."""
        return splits(self._catalog.storage, self.name, self.version)

    # -- rows ---------------------------------------------------------------------------------------------------------

    def to_arrow(self) -> pa.Table:
        """Return the rows exactly as they were retrieved.

        Raises
        ------
        CatalogDamagedError
            If a file is missing or is not what was saved.
        """
        return self._read(self.manifest.content)

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a polars DataFrame."""
        return self._result().to_polars()

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame.

        Raises
        ------
        RequestError
            If pandas is not installed.
        """
        return self._result().to_pandas()

    to_df = to_pandas

    def spine(self) -> pa.Table:
        """Return the spine exactly as it was given."""
        return self._read(self.manifest.spine)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the rows to any consumer of the Arrow C stream."""
        return self._result().__arrow_c_stream__(requested_schema)

    def _result(self) -> QueryResult:
        from lakehouse.result import QueryResult

        return QueryResult.from_table(self.to_arrow(), snapshot=self.manifest.snapshot)

    def _read(self, stored: Stored) -> pa.Table:
        return read_stored(self._catalog.snapshot(self.manifest.snapshot), stored)

    # -- what is done with it -----------------------------------------------------------------------------------------

    def reproduce(self) -> Reproduction:
        """Make the set again from its spine, definitions and snapshot, and compare. See `featurestore.reproduction`.

        Raises
        ------
        PenstockError
            If the retrieval fails although everything that it is known to need is there.
        """
        return reproduce(self._catalog, self._settings, self.manifest)

    def split(
        self, test: float | None = None, validation: float = 0.0, *, at: At | Sequence[At] | None = None
    ) -> Split:
        """Return the set cut by time into train, validation and test; the cut is recorded beside the manifest.

        With n rows in the order of the spine's timestamps, the test part begins at the instant of row n - ⌈test · n⌉
        (counted from 0), the validation part at that of row n - ⌈(test + validation) · n⌉. All rows before the first
        such instant train. Rows of exactly that instant are in the part that begins there, so rows of one instant are
        never on two sides, and a later part is at least as large as asked for. Every row is in exactly one part, and
        parts keep the order of the set.

        Parameters
        ----------
        test, validation
            Fractions of the rows, taken as they are written (0.2 of 5 rows is one row). Unless anything is said, a
            fifth is tested on.
        at
            The first instant of the test part; or a pair, the first instants of the validation and of the test part.
            Parts may then be empty.

        Raises
        ------
        RequestError
            If a row has no timestamp, a fraction can't be, or a part would be empty for want of distinct instants.
        """
        options = self.manifest.options
        spine = read_spine(self.spine(), timestamp=options.timestamp, timezone=options.timezone)
        missing = 0 if spine.valid is None else len(spine) - int(spine.valid.sum())
        if missing:
            raise RequestError(
                f"{plural(missing, 'row')} of {self.manifest.ref} {'has' if missing == 1 else 'have'} no "
                f"{spine.timestamp}: before or after a cutoff can't be told",
                hint="Leave such rows out of the spine, or split by hand.",
            )
        cutoffs, asked = parts(spine.instants, test=test, validation=validation, at=at)
        split = cut(self.to_arrow(), spine.instants, cutoffs)
        put_split(self._catalog.storage, self.name, self.version, record(split, asked))
        return split

    # -- for people ---------------------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """Return what the set is, a fact per line."""
        facts = self._facts()
        width = max(len(name) for name, _ in facts)
        return "\n".join([self._title(), *(f"  {name.ljust(width)}  {value}" for name, value in facts)])

    def show(self) -> None:
        """Print what the set is."""
        print(self.to_text())

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in self._facts()
        )
        return f"<table><caption>{html.escape(self._title())}</caption>{rows}</table>"

    def _title(self) -> str:
        content = self.manifest.content
        columns = plural(len(self.manifest.columns), "column")
        return f"training set {self.manifest.ref}: {plural(content.rows, 'row')}, {columns}"

    def _facts(self) -> list[tuple[str, str]]:
        manifest = self.manifest
        views = ", ".join(f"{view} ({number[:_SHORT]})" for view, number in manifest.views.items())
        tables = ", ".join(f"{table} (version {number})" for table, number in manifest.tables.items())
        facts = [
            ("saved", f"{manifest.saved_at}, snapshot {manifest.snapshot}, table {manifest.content.table}"),
            ("features", f"{manifest.service or 'asked for one by one'}, as of snapshot {manifest.source_snapshot}"),
            ("views", views or "none"),
            ("read", tables or "unknown"),
            ("inputs kept", f"until {manifest.keep_until}" if manifest.keep_until else "for ever"),
            ("sha256", manifest.content.sha256),
        ]
        return facts + [("split", record_text(kept)) for kept in self.splits]
