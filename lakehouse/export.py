"""Landed files, given back as they were: the proof that landing lost nothing."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lakehouse.catalog import Snapshot
from lakehouse.errors import CatalogDamagedError, InputError, RequestError, near
from lakehouse.session import Session
from lakehouse.sources import LandedFile, raw_table, read_source
from lakehouse.types import quote_literal

__all__ = ["ExportedFile", "export_raw"]

_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file that was written: where it came from, where it is now, its size (bytes) and hash."""

    uri: str
    path: str
    size: int
    sha256: str


def export_raw(snapshot: Snapshot, source: str, load_id: str, output: Path) -> list[ExportedFile]:
    """Write the decompressed files of a load into a directory, in the order of their URIs.

    Raises
    ------
    RequestError
        If there is no such load.
    InputError
        If a file of that name is there already: nothing is overwritten.
    CatalogDamagedError
        If the stored tiles no longer give the content that landed.
    """
    landed = read_source(snapshot, source).landed
    files = [file for file in landed if file.load_id == load_id]
    if not files:
        raise RequestError(
            f"source {source} has no load {load_id} at snapshot {snapshot.number}",
            hint=near(load_id, (file.load_id for file in landed), what="loads"),
        )
    output.mkdir(parents=True, exist_ok=True)
    carriers = {file.sha256: file for file in reversed(landed) if not file.alias}
    session = Session(snapshot)
    try:
        return [
            _export(session, source, file, carriers[file.sha256] if file.alias else file, output / name)
            for file, name in zip(files, _names(files), strict=True)
        ]
    finally:
        session.close()


def _names(files: list[LandedFile]) -> list[str]:
    """Return one file name each: the last part of the URI without the compression's ending, numbered where equal."""
    names = []
    for file in files:
        name = file.uri.rpartition("/")[2]
        names.append(next((name.removesuffix(end) for end in _COMPRESSED if name.endswith(end)), name))
    repeated = Counter(names)
    return [f"{file.file}-{name}" if repeated[name] > 1 else name for file, name in zip(files, names, strict=True)]


def _export(session: Session, source: str, file: LandedFile, carrier: LandedFile, path: Path) -> ExportedFile:
    tiles = session.sql(
        f"select payload from {raw_table(source).sql} "
        f"where _load_id = {quote_literal(carrier.load_id)} and _source_uri = {quote_literal(carrier.uri)} "
        "order by _offset"
    )
    digest, size = hashlib.sha256(), 0
    try:
        sink: BinaryIO = path.open("xb")
    except FileExistsError:
        raise InputError("is there already", where=str(path), hint="Export into an empty directory.") from None
    with sink:
        for batch in tiles.batches():
            # One contiguous write per batch: the values of a binary column lie end to end.
            data = b"".join(batch.column(0).to_pylist())
            digest.update(data)
            size += len(data)
            sink.write(data)
    if digest.hexdigest() != file.sha256:
        path.unlink()
        raise CatalogDamagedError(
            "the stored tiles do not give the landed content", where=f"{raw_table(source)}, {file.uri}"
        )
    return ExportedFile(file.uri, str(path), size, digest.hexdigest())
