"""What is known about a saved training set: one immutable file per version, and one per split of it.

A manifest is put if absent, and whoever puts it has made the version; it carries its own hash, so that damage shows.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lakehouse.errors import CatalogDamagedError, RequestError
from lakehouse.sealing import unsealed, with_seal
from lakehouse.storage import Storage
from lakehouse.types import TableName, parse_instant

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "FORMAT",
    "ColumnStatistics",
    "Manifest",
    "RetrievalOptions",
    "SplitRecord",
    "Stored",
    "Taken",
    "check_version",
    "content_table",
    "packed_schema",
    "put_manifest",
    "put_split",
    "read_manifest",
    "set_name",
    "sets",
    "spine_table",
    "splits",
    "versions",
]

FORMAT = 1
_FOLDER = "_catalog/training"
_SPINE = "__spine"
_RECORD, _RESTORE = "the record of a training set", "Restore the file from a copy."
_NAME = re.compile(r"[a-z_][a-z0-9_]*\Z")
_VERSION = re.compile(r"([1-9]\d*)\.json\Z")


class RetrievalOptions(msgspec.Struct, frozen=True):
    """How the features were asked for, as `featurestore.retrieval` takes it."""

    timestamp: str | None
    timezone: str | None
    full_feature_names: bool
    corrections: str


class Taken(msgspec.Struct, frozen=True):
    """Features of one view in one role, every feature by name."""

    view: str
    features: tuple[str, ...]
    join_keys: dict[str, str]
    prefix: str | None


class ColumnStatistics(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column of the set.

    Parameters
    ----------
    type
        As Arrow spells it.
    nulls
        Their number.
    sha256
        Hash of the column's type and values, as `featurestore.content_hash` defines it.
    min, max
        Of numbers, dates and times, NaN left out; decimals, dates, times and infinities as text. None where there is
        no such value, and for private columns.
    mean
        Of numbers, as a double; NaN left out.
    nans
        Their number, for floats.
    private
        Whether the column stands for one that is marked as personal, of which no values are told.
    """

    name: str
    type: str
    nulls: int
    sha256: str
    min: Any = None
    max: Any = None
    mean: float | str | None = None
    nans: int = 0
    private: bool = False


class Stored(msgspec.Struct, frozen=True):
    """A stored table of the set.

    Parameters
    ----------
    table
        Its name.
    rows
        Their number.
    sha256
        Hash of the content, as `featurestore.content_hash` defines it.
    schema
        The Arrow schema that the rows are given back in: an IPC message in base64. A type that tables of the lake
        don't know is stored in one that holds the same values.
    """

    table: str
    rows: int
    sha256: str
    schema: str

    def arrow_schema(self) -> pa.Schema:
        """Return the schema that the rows are given back in."""
        import pyarrow as pa

        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.schema)))


class Manifest(msgspec.Struct, frozen=True):
    """All that is known about one version of a training set.

    Parameters
    ----------
    format, min_reader
        The format of this file, and the oldest that a reader must know.
    saved_at
        UTC text.
    keep_until
        UTC text: how long its inputs are kept; None keeps them for ever.
    snapshot
        The snapshot that published its two tables.
    source_snapshot
        The snapshot that the features were read at.
    tables
        Tables that the feature views read: name → Delta version at the source snapshot.
    definitions
        SHA-256 of the object of the catalog with the feature definitions.
    service
        ``name@version``; None if features were asked for one by one.
    projections
        What was asked for.
    options
        How it was asked for.
    views
        Feature view → its version, as `featurestore.applied` defines it.
    content, spine
        The two stored tables.
    columns
        Statistics of the content's columns, in order.
    report
        What the retrieval reported.
    transforms
        A place for transforms that are fitted to the set.
    written_by
        Package → version.
    sha256
        Hash of all the rest.
    """

    format: int
    min_reader: int
    name: str
    version: int
    saved_at: str
    keep_until: str | None
    snapshot: int
    source_snapshot: int
    tables: dict[str, int]
    definitions: str | None
    service: str | None
    projections: tuple[Taken, ...]
    options: RetrievalOptions
    views: dict[str, str]
    content: Stored
    spine: Stored
    columns: tuple[ColumnStatistics, ...]
    report: Any
    transforms: tuple[Any, ...]
    written_by: dict[str, str]
    sha256: str = ""

    @property
    def ref(self) -> str:
        """How people name this version: ``tips@3``."""
        return f"{self.name}@{self.version}"

    @property
    def instant(self) -> dt.datetime:
        """When it was saved, UTC."""
        return parse_instant(self.saved_at)


class SplitRecord(msgspec.Struct, frozen=True):
    """One split of one version.

    Parameters
    ----------
    kind
        ``time``.
    validation_from, test_from
        The first instants of the validation and the test part, UTC text; None if there is no such part.
    asked
        What was asked for: ``{"test": "0.2", "validation": "0"}``, or ``{}`` if the instants were given.
    rows
        Number of rows of ``train``, ``validation`` and ``test``.
    sha256
        Hash of all the rest.
    """

    format: int
    min_reader: int
    kind: str
    validation_from: str | None
    test_from: str | None
    asked: dict[str, str]
    rows: dict[str, int]
    sha256: str = ""


# -- names --------------------------------------------------------------------------------------------------------


def set_name(name: Any) -> str:
    """Return the name under which a training set is kept: lower case.

    Raises
    ------
    RequestError
        If it can't be one.
    """
    bare = name.strip().removeprefix("training.").lower() if isinstance(name, str) else ""
    if not _NAME.match(bare) or bare.endswith(_SPINE):
        raise RequestError(
            f"{name!r} can't be the name of a training set",
            hint=f"Letters, digits and underscores, not a digit first, and not ending in {_SPINE}.",
        )
    return bare


def check_version(version: Any) -> None:
    """Refuse what can't be the number of a version.

    Raises
    ------
    RequestError
        If it is no integer, or less than 1.
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RequestError(f"version={version!r}: versions count up from 1")


def content_table(name: str) -> TableName:
    """Return the table with a set's rows."""
    return TableName("training", name)


def spine_table(name: str) -> TableName:
    """Return the table with the spine that a set was made of."""
    return TableName("training", f"{name}{_SPINE}")


def packed_schema(schema: pa.Schema) -> str:
    """Return an Arrow schema as text that `Stored.arrow_schema` reads."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


# -- files --------------------------------------------------------------------------------------------------------

_Record = TypeVar("_Record", Manifest, SplitRecord)


def sets(storage: Storage) -> list[str]:
    """Return the names of all training sets, sorted."""
    return [name for name in storage.list(_FOLDER) if versions(storage, name)]


def versions(storage: Storage, name: str) -> list[int]:
    """Return the versions of a training set, ascending; none if there is no such set."""
    found = (_VERSION.match(file) for file in storage.list(f"{_FOLDER}/{name}"))
    return sorted(int(match[1]) for match in found if match)


def read_manifest(storage: Storage, name: str, version: int) -> Manifest:
    """Return a manifest, checked.

    Raises
    ------
    FileNotFoundError
        If there is no such version.
    CatalogDamagedError
        If it is not what was written.
    FormatTooNewError
        If a newer Penstock wrote it in a form that this one cannot read.
    """
    place = _place(name, version)
    manifest = _unsealed(storage.read(place), Manifest, place)
    if (manifest.name, manifest.version) != (name, version):
        raise CatalogDamagedError(f"this file is of the training set {manifest.ref}", where=place)
    return manifest


def put_manifest(storage: Storage, manifest: Manifest) -> bool:
    """Make a version, or return False if somebody else has made one of that number."""
    return storage.put_if_absent(_place(manifest.name, manifest.version), _sealed(manifest))


def splits(storage: Storage, name: str, version: int) -> list[SplitRecord]:
    """Return the recorded splits of a version, by their hashes."""
    start = f"{version}.split-"
    places = [f"{_FOLDER}/{name}/{file}" for file in storage.list(f"{_FOLDER}/{name}") if file.startswith(start)]
    return [_unsealed(storage.read(place), SplitRecord, place) for place in places]


def put_split(storage: Storage, name: str, version: int, record: SplitRecord) -> None:
    """Record a split; the same one again changes nothing."""
    data = _sealed(record)
    digest = hashlib.sha256(data).hexdigest()
    storage.put_if_absent(f"{_FOLDER}/{name}/{version}.split-{digest[:16]}.json", data)


def _place(name: str, version: int) -> str:
    return f"{_FOLDER}/{name}/{version}.json"


def _sealed(record: Manifest | SplitRecord) -> bytes:
    return msgspec.json.format(
        msgspec.json.encode(with_seal(record)),
        indent=1,
    )


def _unsealed(data: bytes, kind: type[_Record], place: str) -> _Record:
    return unsealed(data, kind, reads=FORMAT, what=_RECORD, where=place, hint=_RESTORE)


def _damaged(place: str, what: str) -> CatalogDamagedError:
    return CatalogDamagedError(f"{_RECORD} is damaged: {what}", where=place, hint=_RESTORE)
