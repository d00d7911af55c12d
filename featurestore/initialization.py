"""A small project of the user's own: with an example's data, or made for the columns of files that are there."""

from __future__ import annotations

import datetime as dt
import glob
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.scaffolding import Sample, SampleColumn, example_files, project_files
from lakehouse.errors import InputError, ProjectError, RequestError, near
from lakehouse.settings import PROJECT_FILE, SourceSettings
from lakehouse.types import plural, quote, quote_literal, utc_text

if TYPE_CHECKING:
    from lakehouse.land_report import LandReport
    from lakehouse.session import Session
    from lakehouse.sources import SourceColumn

__all__ = ["Initialized", "initialize"]

_SOURCE = re.compile(r"[a-z_][a-z0-9_]*\Z")
_ENDINGS = re.compile(r"(\.(csv|tsv|txt|gz|zst|bz2|xz))+\Z", re.IGNORECASE)
_ENTITY_TYPES = ("bigint", "varchar")
_THREADS = 2
_SCRATCH = "sample"
_LAND_AGAIN = re.compile(r", then penstock rollback \d+ and land it again\Z")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Initialized:
    """What was made.

    Parameters
    ----------
    directory
        The project.
    files
        The new files, relative to it.
    notes
        What the user should know, in whole sentences.
    """

    directory: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return what to tell the user, with what to type next."""
        here = self.directory.absolute() == Path.cwd()
        return [
            f"Made in {self.directory}: {', '.join(self.files)}",
            *(f"  note: {note}" for note in self.notes),
            "Next:",
            *([] if here else [f"  cd {shlex.quote(str(self.directory))}"]),
            "  penstock land",
            "  penstock promote",
            "README.md goes on from there.",
        ]


def initialize(
    directory: str | Path,
    *,
    sample: str | None = None,
    source: str | None = None,
    entity: str | None = None,
    timezone: str | None = None,
    progress: Progress | None = None,
) -> Initialized:
    """Make a project in a directory, which may exist; nothing in it is overwritten.

    Parameters
    ----------
    sample
        Files (a path, a URI or a pattern) whose columns the model shall have. They are read, and land nowhere.
        None makes an example with data of its own.
    source
        The name of the source and of the table; made of the file's name if not given.
    entity
        The column that says whom features describe.
    timezone
        IANA zone of times without one.
    progress
        Told about every block of bytes that is read.

    Raises
    ------
    ProjectError
        If the directory is a project already, or has files of the same names.
    InputError
        If the files cannot be read.
    RequestError
        If a name cannot be, or there is no such column.
    """
    project = Path(directory).expanduser()
    if sample is None:
        return _written(project, example_files(), ())
    name = _source_name(sample, source)
    _refuse_clashes(project, ("penstock.toml", ".gitignore", "README.md", "features.py", f"sql/warehouse/{name}.sql"))
    asked = _Asked(sample, name, _files_text(sample, project), entity, timezone)
    seen, notes = _looked_at(asked, progress)
    return _written(project, project_files(seen), tuple(notes))


# -- writing -----------------------------------------------------------------------------------------------------------


def _written(project: Path, files: dict[str, str], notes: tuple[str, ...]) -> Initialized:
    _refuse_clashes(project, files)
    made: list[Path] = []
    try:
        for name, text in files.items():
            path = project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as out:  # never over a file that came meanwhile
                made.append(path)
                out.write(text)
    except BaseException:
        for path in made:  # half a project would refuse the next attempt
            path.unlink(missing_ok=True)
        raise
    return Initialized(project, tuple(sorted(files)), notes)


def _refuse_clashes(project: Path, names: Sequence[str] | dict[str, str]) -> None:
    if os.path.lexists(project) and not project.is_dir():
        raise ProjectError("this is a file, not a directory", where=str(project))
    if os.path.lexists(project / PROJECT_FILE):
        raise ProjectError(
            f"there is a {PROJECT_FILE} here already",
            where=str(project),
            hint="Take another directory, e.g. a new one.",
        )
    clashing = sorted(name for name in names if os.path.lexists(project / name))
    if clashing:
        raise ProjectError(
            f"there {'is' if len(clashing) == 1 else 'are'} {', '.join(clashing)} here already",
            where=str(project),
            hint="Nothing was written. Move them away, or take another directory.",
        )


# -- looking at files ------------------------------------------------------------------------------------------


def _source_name(sample: str, source: str | None) -> str:
    """Return the source's name: the one given, or one made of the file's."""
    if source is not None:
        if not _SOURCE.match(source):
            raise RequestError(
                f"{source!r} cannot be a source's name",
                hint="Lower-case letters, digits and underscores, not starting with a digit.",
            )
        return source
    stem = _ENDINGS.sub("", re.split(r"[/\\]", sample)[-1]).lower()
    name = re.sub(r"[^a-z0-9]+", "_", stem).strip("_")
    return name if _SOURCE.match(name) else f"data_{name}".rstrip("_")


@dataclass(frozen=True)
class _Asked:
    """What a project is asked for: the files, as given and as the project names them, and what was said about them."""

    sample: str
    source: str
    files: str
    entity: str | None
    timezone: str | None


def _looked_at(asked: _Asked, progress: Progress | None) -> tuple[Sample, list[str]]:
    """Land the files in a lake that lasts only for this, so that the types are those that landing gives them."""
    from lakehouse.catalog import Catalog
    from lakehouse.landing import land
    from lakehouse.session import Session
    from lakehouse.sources import read_source
    from lakehouse.storage import Storage
    from lakehouse.zones import as_timezone

    if asked.timezone is not None:
        as_timezone(asked.timezone)
    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
        catalog = Catalog(Storage(scratch))
        declared = SourceSettings(timezone=asked.timezone)
        report = land(catalog, _SCRATCH, [asked.sample], declared, threads=_THREADS, progress=progress)
        columns = tuple(
            SampleColumn(column.name, column.type, name)
            for column, name in _renamed(read_source(catalog.latest(), _SCRATCH).schema.columns)
        )
        if not columns:
            hint = next(iter(_warnings(report)), "Its first line must name them.")
            raise InputError("there are no columns in it", where=asked.sample, hint=hint)
        whom = _entity(columns, asked.entity, report)
        with Session(catalog.latest(), threads=_THREADS) as session:
            seen = _seen(session, asked, columns, whom)
    return seen, _notes(seen, report)


def _renamed(columns: Sequence[SourceColumn]) -> list[tuple[SourceColumn, str]]:
    """Return the columns with their names in a model.

    There, names that begin with ``_`` are Penstock's own, and ``rowid`` is DuckDB's for the place of a row.
    """
    taken = {"rowid"}
    named = []
    for column in columns:
        wanted = column.name.lstrip("_") or "column"
        name, number = wanted, 2
        while name.lower() in taken:
            name, number = f"{wanted}_{number}", number + 1
        taken.add(name.lower())
        named.append((column, name))
    return named


def _seen(session: Session, asked: _Asked, columns: tuple[SampleColumn, ...], whom: SampleColumn | None) -> Sample:
    from lakehouse.models import CLOCK_WORDS

    words = session.sql("select keyword_name from duckdb_keywords() where keyword_category <> 'unreserved'")
    sample = Sample(
        source=asked.source,
        files=asked.files,
        columns=columns,
        primary_key=_primary_key(session, columns, whom),
        entity=whom,
        example=None,
        last=_last(session, columns),
        timezone=asked.timezone,
        reserved=CLOCK_WORDS.union(word for (word,) in words),
    )
    return replace(sample, example=_example(session, sample, whom)) if whom else sample


def _entity(columns: Sequence[SampleColumn], name: str | None, report: LandReport) -> SampleColumn | None:
    if name is None:
        return None
    found = next((column for column in columns if column.name.lower() == name.lower()), None)
    if found is None:
        hint = near(name, [column.name for column in columns], what="columns")
        raise RequestError(f"there is no column {name!r}", where="--key", hint=hint)
    if found.type == "unknown":
        raise RequestError(
            f"no record has a value for {found.name}, so its type is unknown, and a key is an integer or a text",
            where="--key",
            hint=next(iter([*_warnings(report), *_malformed(report)]), "Take a file with some of its values."),
        )
    if not found.column.isprintable():
        raise RequestError(
            f"{found.name!r} is more than one line, or has signs that nobody can type",
            where="--key",
            hint="Give the column another name in the file, or make the project without --key and write features.py.",
        )
    if found.type not in _ENTITY_TYPES:
        could = ", ".join(column.name for column in columns if column.type in _ENTITY_TYPES)
        raise RequestError(
            f"{found.name} is {found.type}, and a key is an integer or a text",
            where="--key",
            hint=f"These could be: {could}." if could else None,
        )
    return found


def _primary_key(session: Session, columns: Sequence[SampleColumn], entity: SampleColumn | None) -> SampleColumn | None:
    """Return the first column that is named like an id, has no gaps and no repeats, and is not the entity's.

    A column that is unique by accident would let later rows replace earlier ones, so the name must say it, too.
    """
    for column in columns:
        if column != entity and column.type in _ENTITY_TYPES and column.id_like:
            name = quote(column.name)
            (row,) = session.sql(f"select count(*), count({name}), count(distinct {name}) from lake.{_SCRATCH}")
            if row[0] and row[0] == row[1] == row[2]:
                return column
    return None


def _example(session: Session, sample: Sample, entity: SampleColumn) -> str | None:
    """Return the entity that a look-up after the last instant finds most of, or else the commonest, as text."""
    name, recent = quote(entity.name), "false"
    if sample.time is not None and sample.last is not None:
        time, last = quote(sample.time.name), f"timestamptz {quote_literal(utc_text(sample.last))}"
        recent = f"{time} < {last} and {time} > {last} - interval 7 days"
    row = session.sql(
        f"select {name} from lake.{_SCRATCH} where {name} is not null "
        f"group by 1 order by count(*) filter (where {recent}) desc, count(*) desc, 1 limit 1"
    ).fetchone()
    return None if row is None else str(row[0])


def _last(session: Session, columns: Sequence[SampleColumn]) -> dt.datetime | None:
    """Return the first midnight, UTC, by which all instants (or days) of the first such column are known."""
    column = next((c for type_ in ("timestamptz", "date") for c in columns if c.type == type_), None)
    if column is None:
        return None
    row = session.sql(
        f"select max(cast({quote(column.name)} as date)) from lake.{_SCRATCH}"
        f" where isfinite({quote(column.name)}) and year({quote(column.name)}) between 1 and 9990"
    ).fetchone()
    if row is None or row[0] is None:
        return None
    return dt.datetime.combine(row[0], dt.time(), dt.UTC) + dt.timedelta(days=1 if column.type == "timestamptz" else 3)


def _files_text(sample: str, project: Path) -> str:
    """Return what ``penstock.toml`` says about the files: a path from the project if they are near it."""
    if "://" in sample:
        return sample
    literal = os.path.lexists(sample)
    path = str(Path(sample).absolute())
    near_by = os.path.relpath(os.path.normpath(path), project.absolute())
    text = path if near_by.startswith(f"..{os.sep}..") else near_by
    if text.startswith("~"):
        text = f"./{text}"
    return glob.escape(text) if literal and glob.has_magic(text) else text


def _malformed(report: LandReport) -> list[str]:
    if not report.malformed:
        return []
    return [f"{plural(report.malformed, 'record')} malformed, the first: {report.first_malformed[0].reason}"]


def _warnings(report: LandReport) -> list[str]:
    """Return the warnings that hold before anything has landed."""
    told = (_LAND_AGAIN.sub("", text) for text in report.warnings)
    return [text for text in told if "rollback" not in text]


def _notes(seen: Sample, report: LandReport) -> list[str]:
    read = f"{plural(report.records - report.malformed, 'record')} read, {plural(len(seen.columns), 'column')}"
    notes = [read, *_malformed(report)]
    headerless = all(re.fullmatch(r"column_\d+", column.name) for column in seen.columns)
    if headerless:
        notes.append(
            "the first record was taken as data, not as column names; if it names them, put a line before it that "
            "looks less like data, or name the columns in the model"
        )
    else:
        notes += _warnings(report)
    key = seen.primary_key
    if key:
        notes.append(f"{key.name} is different in every record: the model takes it as the key")
    if seen.local_times and not seen.timezone:
        names = ", ".join(column.name for column in seen.local_times)
        notes.append(f"{names}: times without a zone. Say which one they are in: --timezone Europe/Paris")
    if seen.entity is None:
        notes.append("features.py holds an example only: --key COLUMN says whom features describe")
    elif seen.time is None:
        notes.append("features.py holds an example only: features need a column of instants or days")
    elif others := [c.name for c in seen.columns if c.type == seen.time.type and c != seen.time]:
        notes.append(
            f"{seen.time.name} is taken as the instant at which a row became true; if that is rather "
            f"{' or '.join(others)}, name it in features.py"
        )
    return notes
