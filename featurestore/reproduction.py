"""Making a saved training set again from what it was made of, and comparing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from featurestore.content_hash import ContentHash, family_of, plain
from featurestore.definitions import Projection
from featurestore.training_files import read_stored
from featurestore.training_manifest import Manifest, Stored
from lakehouse.catalog import Catalog, Snapshot
from lakehouse.errors import CatalogDamagedError, PenstockError
from lakehouse.settings import Settings
from lakehouse.types import TableName, plural

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.pit import Corrections

__all__ = ["ColumnDifference", "Reproduction", "differing_rows", "reproduce"]


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """One column that came out otherwise.

    Parameters
    ----------
    rows
        In how many rows; None if the columns can't be compared row by row.
    note
        What is different besides values: another type, a missing column, another number of rows.
    """

    column: str
    rows: int | None
    note: str = ""

    def __str__(self) -> str:
        return ": ".join(text for text in (self.column, self.note or plural(self.rows or 0, "row")) if text)


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Whether a training set came out again as it was saved.

    Parameters
    ----------
    ref
        Which one: ``tips@3``.
    same
        Whether the content has the saved hash.
    expected, got
        The hashes; ``got`` is None if the set could not be made again.
    differences
        The columns that differ, in order.
    gone
        What it was made of and is not there any more, a sentence each.
    unreadable
        Why the saved rows can't be read; None if they can, and have the saved hash.
    advice
        What to do where it did not come out again, or can't be read; empty if all is well.
    """

    ref: str
    same: bool
    expected: str
    got: str | None
    differences: tuple[ColumnDifference, ...] = ()
    gone: tuple[str, ...] = ()
    unreadable: str | None = None
    advice: str = ""

    def __str__(self) -> str:
        if self.same:
            title = f"{self.ref} reproduces: {self.expected}"
        elif self.got is None:
            title = f"{self.ref} can't be reproduced"
        else:
            title = f"{self.ref} comes out differently: {self.got}, not {self.expected}"
        stays = "the saved rows are whole" if self.unreadable is None else f"the saved rows are lost: {self.unreadable}"
        lines = [title, *self.gone, *map(str, self.differences)]
        return "\n  ".join(lines if self.same and self.unreadable is None else [*lines, stays, self.advice])

    __repr__ = __str__


def reproduce(catalog: Catalog, settings: Settings, manifest: Manifest) -> Reproduction:
    """Retrieve the features of the saved spine again, as they were asked for, and compare hashes.

    Raises
    ------
    PenstockError
        If the retrieval fails although everything that it is known to need is there.
    """
    compared = _compared(catalog, settings, manifest)
    unreadable = _unreadable(catalog, manifest.snapshot, manifest.content)
    return replace(compared, unreadable=unreadable, advice=_advice(compared, manifest, whole=unreadable is None))


def _compared(catalog: Catalog, settings: Settings, manifest: Manifest) -> Reproduction:
    gone = tuple(_gone(catalog, manifest))
    failed = Reproduction(manifest.ref, same=False, expected=manifest.content.sha256, got=None, gone=gone)
    if gone:
        return failed
    try:
        table = _again(catalog, settings, manifest)
    except CatalogDamagedError as error:
        return replace(failed, gone=(_sentence(error),))
    digest = ContentHash(table.schema).update(table)
    got = digest.hexdigest()
    if got == failed.expected:
        return replace(failed, same=True, got=got)
    return replace(failed, got=got, differences=tuple(_differences(catalog, manifest, table, digest.columns())))


def _advice(made: Reproduction, manifest: Manifest, *, whole: bool) -> str:
    """Return what to do about a set that did not come out again, or whose rows can't be read."""
    anew = f"save the features as they are now: penstock historical … --save {manifest.name}"
    if made.same:
        return "" if whole else f"restore their files from a copy; or {anew} --as-of {manifest.source_snapshot}"
    if made.got is None:
        return f"restore what is missing from a copy of the lake; or {anew}"
    tables = ", ".join(manifest.tables)
    programs = ", ".join(f"{program} {version}" for program, version in manifest.written_by.items())
    return (
        f"{'go on with these: ' if whole else ''}a file of {tables or 'a table'} may have been damaged or exchanged "
        f"since, or another version computes otherwise (saved by {programs}). Restore the files from a copy; or {anew}"
    )


def _again(catalog: Catalog, settings: Settings, manifest: Manifest) -> pa.Table:
    from featurestore.acceptance import bound_views
    from featurestore.documents import decode
    from featurestore.retrieval import retrieve
    from lakehouse.session import Session

    spine = read_stored(catalog.snapshot(manifest.snapshot), manifest.spine)
    snapshot = catalog.snapshot(manifest.source_snapshot)
    sha256 = manifest.definitions or ""
    definitions = decode(catalog.object(sha256), place=f"the definitions of {manifest.ref}", sha256=sha256)
    resources = settings.resources
    with Session(snapshot, memory=resources.memory, threads=resources.threads) as session:
        views = bound_views(definitions, session, dict.fromkeys(taken.view for taken in manifest.projections))
    options = manifest.options
    job = retrieve(
        snapshot,
        settings,
        views,
        tuple(Projection(t.view, t.features, t.join_keys, t.prefix) for t in manifest.projections),
        spine,
        timestamp=options.timestamp,
        timezone=options.timezone,
        full_feature_names=options.full_feature_names,
        corrections=cast("Corrections", options.corrections),
        service=manifest.service,
        definitions_sha=manifest.definitions,
    )
    return job.to_arrow()


# -- what is gone ---------------------------------------------------------------------------------------------------


def _gone(catalog: Catalog, manifest: Manifest) -> Iterator[str]:
    """Yield what the set was made of and is not there any more."""
    if manifest.definitions is None:
        yield "the feature definitions were not in the catalog when it was saved"
        return
    try:
        source = catalog.snapshot(manifest.source_snapshot)
        catalog.object(manifest.definitions)
    except PenstockError as error:
        yield _sentence(error)
        return
    for table in manifest.tables:
        yield from _missing_files(source, TableName.parse(table))
    if spine := _unreadable(catalog, manifest.snapshot, manifest.spine):
        yield spine


def _unreadable(catalog: Catalog, snapshot: int, stored: Stored) -> str | None:
    """Return why a stored table can't be read as it was saved; None if it can."""
    try:
        read_stored(catalog.snapshot(snapshot), stored)
    except PenstockError as error:
        return _sentence(error)
    return None


def _missing_files(snapshot: Snapshot, name: TableName) -> Iterator[str]:
    try:
        folder, files = snapshot.table(name).path, snapshot.files(name)
    except PenstockError as error:
        yield _sentence(error)
        return
    missing = [file.path for file in files if not snapshot.storage.exists(f"{folder}/{file.path}")]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        yield f"{name} at snapshot {snapshot.number}: the file {folder}/{missing[0]} is missing{more}"


def _sentence(error: PenstockError) -> str:
    return f"{error.where}: {error.what}" if error.where else error.what


# -- what differs ---------------------------------------------------------------------------------------------------


def _differences(
    catalog: Catalog, manifest: Manifest, table: pa.Table, digests: list[str]
) -> Iterator[ColumnDifference]:
    """Yield the columns that differ: the saved hashes tell which, the saved rows in how many rows."""
    try:
        saved = read_stored(catalog.snapshot(manifest.snapshot), manifest.content)
    except CatalogDamagedError:
        saved = None
    now = dict(zip(table.column_names, digests, strict=True))
    for column in manifest.columns:
        if column.name not in now:
            yield ColumnDifference(column.name, None, "it is gone")
        elif now[column.name] != column.sha256:
            yield _difference(column.name, saved, table)
    known = {column.name for column in manifest.columns}
    yield from (ColumnDifference(name, None, "it is new") for name in now if name not in known)
    if [column.name for column in manifest.columns] == list(now) or known != set(now):
        return
    yield ColumnDifference("", None, "the columns come in another order")


def _difference(name: str, saved: pa.Table | None, table: pa.Table) -> ColumnDifference:
    if saved is None:
        return ColumnDifference(name, None, "it differs, but what was saved can't be read")
    one, other = saved.column(name), table.column(name)
    if one.type != other.type:
        return ColumnDifference(name, None, f"it was {one.type} and is {other.type}")
    if len(one) != len(other):
        return ColumnDifference(name, None, f"it had {plural(len(one), 'row')} and has {len(other):,}")
    return ColumnDifference(name, differing_rows(one, other))


def differing_rows(one: pa.ChunkedArray, other: pa.ChunkedArray) -> int:
    """Return in how many rows two columns of one type and length differ, as the content hash tells values apart."""
    return int(_differ(_whole(one), _whole(other)).sum())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def _differ(one: pa.Array, other: pa.Array) -> NDArray[np.bool_]:
    """Return for each row whether the arrays differ; NaN equals NaN, and -0.0 is not 0.0."""
    one, other = plain(one), plain(other)
    known, also = (values.is_valid().to_numpy(zero_copy_only=False) for values in (one, other))
    different: NDArray[np.bool_] = known != also
    both = np.flatnonzero(known & also)
    if len(both):
        different[both] = _unequal(one.take(_places(both)), other.take(_places(both)))
    return different


def _places(rows: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array(rows)


def _unequal(one: pa.Array, other: pa.Array) -> NDArray[np.bool_]:
    """Return for each row of arrays without nulls whether they differ."""
    import pyarrow.compute as pc

    match family_of(one.type):
        case "floating":
            left, right = one.to_numpy(), other.to_numpy()
            bits = f"u{left.itemsize}"
            unequal = (left.view(bits) != right.view(bits)) & ~(np.isnan(left) & np.isnan(right))
        case "struct":
            unequal = np.zeros(len(one), np.bool_)
            for left_field, right_field in zip(one.flatten(), other.flatten(), strict=True):
                unequal |= _differ(left_field, right_field)
        case "list" | "fixed_size_list" | "map":
            unequal = _unequal_lists(one, other)
        case _:
            unequal = pc.not_equal(one, other).to_numpy(zero_copy_only=False)
    return np.asarray(unequal, np.bool_)


def _unequal_lists(one: pa.Array, other: pa.Array) -> NDArray[np.bool_]:
    lengths = _lengths(one)
    unequal = lengths != _lengths(other)
    same = np.flatnonzero(~unequal)
    rows = np.repeat(same, lengths[same])
    left, right = one.take(_places(same)), other.take(_places(same))
    for items, others in zip(_items(left), _items(right), strict=True):
        unequal[rows[_differ(items, others)]] = True
    return np.asarray(unequal, np.bool_)


def _lengths(values: pa.Array) -> NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_map(values.type):
        return np.asarray(np.diff(values.offsets.to_numpy()), np.int64)
    return np.asarray(pc.list_value_length(values).to_numpy(), np.int64)


def _items(values: pa.Array) -> list[pa.Array]:
    """Return the items of all lists, or the keys and the values of all maps."""
    import pyarrow as pa

    if not pa.types.is_map(values.type):
        return [values.flatten()]
    first, last = values.offsets[0].as_py(), values.offsets[-1].as_py()
    return [part.slice(first, last - first) for part in (values.keys, values.items)]
