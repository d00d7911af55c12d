"""The error tree.

Every error says what was wrong, where, and what to do; the command line prints the three and exits with
``exit_code``. Import from here only; nothing else in the package defines exceptions.

::

    PenstockError
    ├── ProjectError          no project here, or its settings are wrong
    │   └── SettingsError
    ├── RequestError          the request names something that is not there or cannot be
    │   ├── UnknownTableError
    │   ├── UnknownSnapshotError
    │   └── QueryError
    ├── InputError            input that cannot be read
    ├── ModelError            a file of sql/ is wrong (file, line, column)
    ├── DefinitionError       an entity, feature view or feature service is wrong
    ├── GateError             data broke its contract badly enough to stop the publish
    ├── StorageError          the storage refused
    ├── CatalogDamagedError   a file of the lake is not what it should be
    ├── ForeignCommitError    somebody else wrote to one of our tables
    ├── FormatTooNewError     written by a newer Penstock
    └── ConflictError         another process won: run again (exit code 75)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CatalogDamagedError",
    "ConflictError",
    "DefinitionError",
    "ForeignCommitError",
    "FormatTooNewError",
    "GateError",
    "InputError",
    "ModelError",
    "PenstockError",
    "ProjectError",
    "QueryError",
    "RequestError",
    "SettingsError",
    "StorageError",
    "UnknownSnapshotError",
    "UnknownTableError",
    "near",
]

EXIT_DATA = 1
EXIT_TEMPORARY = 75  # EX_TEMPFAIL of sysexits.h


class PenstockError(Exception):
    """Base of all errors that Penstock raises on purpose.

    Parameters
    ----------
    what
        One sentence: what was wrong.
    where
        The place: a file with line and column, a table with its version, a URI.
    hint
        What to do about it.
    """

    exit_code = EXIT_DATA

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """Return place, sentence and hint, as the command line prints them."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.hint}" if self.hint else text


class ProjectError(PenstockError):
    """There is no project here, or its files are wrong."""


class SettingsError(ProjectError):
    """``penstock.toml`` or the environment holds something that cannot be."""


class RequestError(PenstockError):
    """The request names something that does not exist or cannot be."""


class UnknownTableError(RequestError):
    """No such table at this snapshot."""


class UnknownSnapshotError(RequestError):
    """No such snapshot, tag or instant."""


class QueryError(RequestError):
    """DuckDB refused the query."""


class InputError(PenstockError):
    """An input file or value that cannot be read."""


class ModelError(PenstockError):
    """A model file is wrong.

    Parameters
    ----------
    what, hint
        As for `PenstockError`.
    file
        The model file, as the user would type it.
    line, column
        1-based position in the file.
    """

    def __init__(
        self, what: str, *, file: str, line: int | None = None, column: int | None = None, hint: str | None = None
    ) -> None:
        place = ":".join(str(part) for part in (file, line, column) if part is not None)
        super().__init__(what, where=place, hint=hint)
        self.file = file
        self.line = line
        self.column = column


class DefinitionError(PenstockError):
    """A definition of features is wrong; ``where`` names the entity, view or service."""


class GateError(PenstockError):
    """Data broke its contract badly enough to stop the publish. Nothing was published."""


class StorageError(PenstockError):
    """The storage refused to read or write."""


class CatalogDamagedError(PenstockError):
    """A file of the lake is missing or is not what its hash says."""


class ForeignCommitError(PenstockError):
    """Somebody else committed to one of our tables; publishing there stops."""


class FormatTooNewError(PenstockError):
    """A file was written by a newer Penstock than this one can read."""


class ConflictError(PenstockError):
    """Another process won the race. Nothing was lost; run the command again."""

    exit_code = EXIT_TEMPORARY


def near(name: str, known: Iterable[str], *, what: str = "known") -> str:
    """Return a hint that lists the nearest known names, or all of them when few.

    Parameters
    ----------
    name
        The name that was not found.
    known
        The names that exist.
    what
        How to call them when no name is near, e.g. ``"tables"``.
    """
    names = sorted(set(known))
    if not names:
        return f"There are no {what} yet."
    short = {candidate.rpartition(".")[2]: candidate for candidate in names}
    matches = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if not matches:
        matches = [short[m] for m in difflib.get_close_matches(name.rpartition(".")[2], list(short), n=3, cutoff=0.6)]
    if matches:
        return f"Did you mean {' or '.join(matches)}?"
    listed = ", ".join(names[:12]) + (f", … ({len(names) - 12} more)" if len(names) > 12 else "")  # noqa: PLR2004
    return f"{what.capitalize()}: {listed}."
