"""Generations: what one manifest says about all online views of a project, at one snapshot and one instant.

A manifest holds everything that serving needs, so that an answer needs no lake. It is sealed with its own hash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from featurestore.binding import BoundView
from featurestore.instants import micros_text
from lakehouse.errors import CatalogDamagedError, ConflictError, RequestError
from lakehouse.sealing import unsealed, with_seal

__all__ = [
    "AGAIN",
    "FORMAT",
    "REBUILD",
    "Manifest",
    "ViewFile",
    "check_answering",
    "check_succession",
    "published_after",
    "published_before",
    "raced",
]

FORMAT = 1

REBUILD = "Build it again: penstock materialize --full."
AGAIN = f"{REBUILD} Or go back to another generation: penstock online rollback."

# What a store calls its files and generations; nothing of it can leave the store's directory.
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


class ViewFile(msgspec.Struct, frozen=True):
    """The immutable file of one view in a generation.

    Parameters
    ----------
    view
        The view as it was bound when the file was built.
    file
        The store's name of the file.
    size
        Bytes.
    sha256
        Of the file's content.
    entities
        How many keys it holds.
    tail
        How many rows of it lie in the future of the generation's instant and are applied when they are read.
    inputs
        What identifies the content of the tables that it was built from, so that it can be kept while they stay the
        same; None where that is not known.
    undated, without_key
        How many rows of the source had no event timestamp, and of the others no key; None where nobody counted.
    """

    view: BoundView
    file: str
    size: int
    sha256: str
    entities: int
    tail: int = 0
    inputs: dict[str, str] | None = None
    undated: int | None = None
    without_key: int | None = None


class Manifest(msgspec.Struct, frozen=True):
    """One generation.

    Parameters
    ----------
    format, min_reader
        What wrote it, and the oldest format that can read it.
    id
        A ULID, the generation's name.
    lake
        The lake's id: snapshot numbers of another lake mean something else.
    snapshot
        The snapshot that it was built from.
    at
        The instant that it was built for, µs since 1970 UTC: it answers exactly from then on.
    built_at
        When it was built, as `lakehouse.types.utc_text` writes it.
    views
        By name of the view.
    definitions
        SHA-256 of the feature definitions; empty when there are none in the catalog.
    execution
        Id of the execution that built it; may be empty.
    sha256
        Over everything else. Make manifests with `Manifest.sealed`, which fills it in.
    """

    id: str
    lake: str
    snapshot: int
    at: int
    built_at: str
    views: dict[str, ViewFile]
    definitions: str = ""
    execution: str = ""
    format: int = FORMAT
    min_reader: int = FORMAT
    sha256: str = ""

    @property
    def instant(self) -> str:
        """``at`` as text, UTC."""
        return micros_text(self.at)

    @property
    def files(self) -> frozenset[str]:
        """The names of all its files."""
        return frozenset(view.file for view in self.views.values())

    @classmethod
    def sealed(
        cls,
        *,
        id: str,  # noqa: A002 - the field's name
        lake: str,
        snapshot: int,
        at: int,
        built_at: str,
        views: Mapping[str, ViewFile],
        definitions: str = "",
        execution: str = "",
    ) -> Manifest:
        """Return a manifest with its hash.

        Raises
        ------
        RequestError
            If its id or a file's name is none that a store can have.
        """
        manifest = cls(id, lake, snapshot, at, built_at, dict(views), definitions, execution)
        for name in (id, *manifest.files):
            if not _FILE.match(name):
                raise RequestError(f"{name!r} can't be the name of a generation or of its file")
        return with_seal(manifest)

    @classmethod
    def from_bytes(cls, data: bytes, id_: str, place: str) -> Manifest:
        """Return the manifest that a file holds, checked against its hash.

        Parameters
        ----------
        data
            What `to_bytes` returned.
        id_
            The generation that it must be.
        place
            What an error calls the file.

        Raises
        ------
        CatalogDamagedError
            If the content is not what was written, or is another generation.
        FormatTooNewError
            If a newer Penstock wrote it in a form that this one cannot read.
        """
        what = f"generation {id_}"
        manifest = unsealed(data, cls, reads=FORMAT, what=what, where=place, hint=AGAIN)
        if manifest.id != id_ or not all(map(_FILE.match, (manifest.id, *manifest.files))):
            raise CatalogDamagedError(f"{what} is damaged: it names another one", where=place, hint=AGAIN)
        return manifest

    def to_bytes(self) -> bytes:
        """Return the manifest's file content."""
        return msgspec.json.encode(self)


def check_answering(manifest: Manifest, lake: str) -> None:
    """Refuse lookups in a generation of another lake, or in one that has no view at all.

    Parameters
    ----------
    lake
        The id of the lake whose features are asked for; empty where it has none that can be read.

    Raises
    ------
    RequestError
        If it is either.
    """
    if lake and manifest.lake != lake:
        raise RequestError(
            f"generation {manifest.id}, which is served, is of lake {manifest.lake}, and this is lake {lake}",
            hint="Give each lake its own [online] path, then penstock materialize; or replace it here: "
            "penstock materialize --force.",
        )
    if not manifest.views:
        raise RequestError(
            f"no feature view is online: generation {manifest.id}, which is served, has none",
            hint="Give a view online=True and serve it: penstock apply, then penstock materialize.",
        )


def check_succession(current: Manifest | None, following: Manifest) -> None:
    """Refuse a generation that would take a store back in time.

    Raises
    ------
    RequestError
        If it is of an older snapshot than the current one, or of another lake.
    """
    if current is None:
        return
    if current.lake != following.lake:
        raise RequestError(
            f"the online store serves lake {current.lake}, this generation is of lake {following.lake}",
            hint="Give each lake its own [online] path, or insist: --force, in Python force=True.",
        )
    if following.snapshot < current.snapshot:
        raise RequestError(
            f"the online store serves snapshot {current.snapshot}, this generation is of the older "
            f"snapshot {following.snapshot}",
            hint="Materialize the newest snapshot, or go back on purpose: --force, in Python force=True.",
        )


def raced(expected: str | None, found: str | None) -> ConflictError:
    """Return the error of a writer that another one overtook."""
    return ConflictError(
        f"another process published generation {found or '(none)'} where {expected or '(none)'} was expected",
        hint="Nothing was lost: run it again.",
    )


def published_after(published: Sequence[str], current: str | None, following: str) -> tuple[str, ...]:
    """Return the order of generations, oldest first, once another one is current.

    What was rolled back goes before the generation that was current instead, so that the next step back leads there.
    """
    others = [id_ for id_ in published if id_ not in (current, following)]
    return (*others, *([current] if current and current != following else []), following)


def published_before(published: Sequence[str], current: str) -> str:
    """Return the generation before the current one, in the order of `published_after`.

    Raises
    ------
    RequestError
        If there is none.
    """
    place = published.index(current)
    if place:
        return published[place - 1]
    later = ", ".join(reversed(published[1:]))
    hint = f"Name one to go to: penstock online rollback ID, where ID is one of {later}." if later else None
    raise RequestError(
        f"there is no generation before {current}", hint=hint or "It is the only one: penstock materialize builds more."
    )
