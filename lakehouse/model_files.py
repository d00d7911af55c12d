"""Where models lie: ``sql/warehouse/*.sql``, and what looks like one and is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lakehouse.errors import ModelError, SettingsError

__all__ = ["check_sql_directory", "model_files"]

_SUFFIX = ".sql"


def check_sql_directory(sql: Path, default: Path) -> None:
    """Refuse a directory of models that the settings name and that is not there; the default one may be missing.

    Raises
    ------
    SettingsError
        If it is missing, or no directory.
    """
    if sql != default and not sql.is_dir():
        raise SettingsError(
            f"paths.sql names {sql}, and there is no such directory",
            where="penstock.toml",
            hint=f"Make it, with {sql.name}/warehouse/TABLE.sql in it, or name the one that has the models.",
        )


def model_files(sql: Path) -> list[Path]:
    """Return the model files, by name; hidden files are none.

    Parameters
    ----------
    sql
        The project's ``sql`` directory; without it there are no models.

    Raises
    ------
    ModelError
        If an SQL file lies where nobody reads it, or is spelled so that only some file systems would find it.
    """
    for path in _strays(sql):
        file, place = path.relative_to(sql.parent).as_posix(), f"{sql.name}/warehouse"
        name = f"{path.stem}{_SUFFIX}"
        if path.parent == sql / "warehouse":
            raise ModelError("a model's file ends in .sql, in small letters", file=file, hint=f"Rename it to {name}.")
        raise ModelError(f"models live in {place}/", file=file, hint=f"Move it to {place}/{name}, or rename it.")
    return sorted(path for path in sql.glob(f"warehouse/*{_SUFFIX}") if not path.name.startswith("."))


def _strays(sql: Path) -> Iterator[Path]:
    for pattern in ("*", "warehouse/*", "warehouse/*/**/*"):
        for path in sorted(sql.glob(pattern)):
            wrong_place = pattern != "warehouse/*"
            suffix = path.suffix
            if suffix.lower() == _SUFFIX and not path.name.startswith(".") and (wrong_place or suffix != _SUFFIX):
                yield path
