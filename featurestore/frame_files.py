"""Frames in files: spines that are read, results that are written."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.errors import InputError, RequestError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_output", "read_frame", "write_frame"]

_TEXT = re.compile(r"\.(csv|tsv)(\.(gz|zst|bz2|xz))?\Z")
_OUTPUT = re.compile(r"\.(parquet|arrow|feather|csv)\Z")
_HEADER = 256 << 10  # bytes of the beginning, as landing looks at
_KINDS = "Files end in .parquet, .arrow or .csv (also .csv.gz)."


def read_frame(path: Path) -> pa.Table:
    """Return the rows of a file in their order, with exactly their values.

    CSV is read by the strict grammar of landing: ``007`` stays text, an empty field is null, times without a zone
    stay without one. A column without a value is of type null, which fits keys and timestamps of any type.

    Raises
    ------
    InputError
        If the file does not exist, is of another kind, or has records that cannot be read.
    """
    if not path.is_file():
        what = "this is a directory" if path.is_dir() else "there is no such file"
        raise InputError(what, where=str(path), hint="A SELECT must be in quotes.")
    name = path.name.lower()
    try:
        if name.endswith(".parquet"):
            import pyarrow.parquet as pq

            return pq.read_table(path, partitioning=None)
        if name.endswith((".arrow", ".feather")):
            from pyarrow import feather

            return feather.read_table(path)
    except PermissionError as error:
        raise InputError("there is no permission to read this file", where=str(path)) from error
    except (OSError, ValueError, NotImplementedError) as error:  # Arrow's speak of magic bytes and footers
        kind = "Parquet" if name.endswith(".parquet") else "Arrow"
        raise InputError(f"the file cannot be read: it is no {kind} file, or a damaged one", where=str(path)) from error
    if not _TEXT.search(name):
        raise InputError("a file of this kind cannot be a spine", where=str(path), hint=_KINDS)
    return _csv(path)


def _csv(path: Path) -> pa.Table:
    """Land the file in a lake that lasts only for this, and read its typed view."""
    from lakehouse.catalog import Catalog
    from lakehouse.lake import Lake
    from lakehouse.landing import land
    from lakehouse.settings import SourceSettings
    from lakehouse.storage import Storage
    from lakehouse.types import plural, quote

    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
        Catalog(Storage(scratch)).create()
        lake = Lake(scratch)
        # A spine's columns have names: what the first record looks like does not matter.
        report = land(
            lake.catalog, "spine", [path], SourceSettings(header=True), threads=lake.settings.resources.threads or 1
        )
        if report.malformed:
            first = report.first_malformed[0].reason if report.first_malformed else ""
            raise InputError(f"{plural(report.malformed, 'record')} cannot be read: {first}", where=str(path))
        columns = [column.name for column in lake.source("spine").schema.columns]
        if not columns:
            raise InputError("the file is empty: it has no header", where=str(path))
        _check_header(path, lake.source("spine").landed[0].dialect)
        # Landing keeps names with an underscore for itself.
        own = {name: name.removesuffix("_2") if name.startswith("_") else name for name in columns}
        names = ", ".join(f"{quote(name)} as {quote(as_)}" for name, as_ in own.items())
        # One file, so the place in it is the order of its rows.
        return _untyped(lake.sql(f"select {names} from lake.spine order by _offset").to_arrow())


def _check_header(path: Path, dialect: str) -> None:
    """Refuse a header with a name twice: landing tells such columns apart by names that nobody wrote."""
    from lakehouse.formats.dialect import Dialect, first_record, split_fields
    from lakehouse.inputs import expand

    written = Dialect.from_text(dialect)
    with expand([path])[0].open() as stream:
        record = first_record(stream.read(_HEADER), written)
    seen: set[str] = set()
    for field in split_fields(record or b"", written):
        name = field.strip()
        if name and name.casefold() in seen:
            raise InputError(f"the header has two columns called {name!r}", where=str(path), hint="Rename one of them.")
        seen.add(name.casefold())


def _untyped(table: pa.Table) -> pa.Table:
    """Return rows of text files with type null for columns that have no value: nothing says what they hold."""
    import pyarrow as pa

    for place, column in enumerate(table.columns):
        if column.null_count == len(column):
            table = table.set_column(place, table.column_names[place], pa.nulls(len(column)))
    return table


def check_output(path: Path) -> None:
    """Refuse what no rows can be written to.

    Raises
    ------
    RequestError
        If the name's ending says nothing, or there is no such directory.
    """
    if not _OUTPUT.search(path.name.lower()):
        raise RequestError(
            f"cannot tell what to write from the name {path.name!r}", hint="Files end in .parquet, .arrow or .csv."
        )
    if not path.parent.is_dir():
        raise RequestError(f"there is no directory {path.parent}", where=str(path), hint="Make it first.")


def write_frame(table: pa.Table, path: Path) -> None:
    """Write rows to a file, whole or not at all.

    Raises
    ------
    RequestError
        If the file's name ends in something else than it can be written as, or there is no such directory.
    """
    check_output(path)
    name = path.name.lower()
    partial = path.with_name(f".{path.name}.part")
    try:
        if name.endswith(".parquet"):
            import pyarrow.parquet as pq

            pq.write_table(table, partial, compression="zstd")
        elif name.endswith((".arrow", ".feather")):
            from pyarrow import feather

            feather.write_feather(table, partial)
        else:
            from lakehouse.result import QueryResult

            with partial.open("wb") as out:
                QueryResult.from_table(table).write_csv(out)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
