"""Where the demo runs: in the checkout it belongs to, or in a directory of its own made from the wheel's copy."""

from __future__ import annotations

import shutil
from pathlib import Path

from lakehouse.catalog import Catalog
from lakehouse.errors import ProjectError
from lakehouse.lake import Lake
from lakehouse.settings import PROJECT_FILE

__all__ = ["DATA", "PURPOSE", "SOURCE", "TAG", "prepare"]

DATA = Path(__file__).parent / "data"
PURPOSE = "demo"
"""The mark of a lake that the demo may delete."""

SOURCE = "yellow_trips"
TAG = "twelve-months"

_PACKED = Path(__file__).parent / "project"
_CHECKOUT = Path(__file__).parents[2]
_DATA_IN_CHECKOUT = "featurestore/demo/data/"


def prepare(directory: Path | None = None) -> tuple[Path, Path]:
    """Return the demo's project with an empty lake, and the directory of its data.

    Parameters
    ----------
    directory
        Where to make the project; None takes the checkout, or ``./penstock-demo`` where there is none.

    Raises
    ------
    ProjectError
        If there is something there that the demo did not make: another project, another lake, a source or tag of the
        user's own. It is not touched.
    """
    in_checkout = (_CHECKOUT / PROJECT_FILE).is_file() and (_CHECKOUT / "sql").is_dir()
    if directory is None and in_checkout:
        _empty_lake(Lake(_CHECKOUT))
        return _CHECKOUT, DATA
    project = (directory or Path("penstock-demo")).absolute()
    _copy_project(_CHECKOUT if in_checkout else _PACKED, project)
    _empty_lake(Lake(project))
    return project, project / "data"


def _copy_project(origin: Path, project: Path) -> None:
    if project.exists() and any(project.iterdir()):
        if not _is_demo(project):
            raise ProjectError(
                "there is something here that the demo did not make",
                where=str(project),
                hint="Go to another directory, or name one: penstock demo --directory DIR",
            )
        return
    project.mkdir(parents=True, exist_ok=True)
    settings = (origin / PROJECT_FILE).read_text(encoding="utf-8")
    shutil.copytree(origin / "sql", project / "sql")
    shutil.copy(origin / "features.py", project / "features.py")
    shutil.copytree(DATA, project / "data")
    (project / ".gitignore").write_text(".penstock/\n", encoding="utf-8")
    (project / PROJECT_FILE).write_text(settings.replace(_DATA_IN_CHECKOUT, "data/"), encoding="utf-8")


def _is_demo(project: Path) -> bool:
    return (project / PROJECT_FILE).is_file() and Lake(project).catalog.purpose == PURPOSE


def _empty_lake(lake: Lake) -> None:
    """Make the lake anew; only one with the demo's mark and nothing of anybody else is ever deleted."""
    catalog: Catalog = lake.catalog
    if lake.storage.list("") and catalog.purpose != PURPOSE:
        raise _not_touched(lake, "there is a lake here that the demo did not make")
    if added := _added(lake):
        raise _not_touched(lake, f"this lake holds more than the demo made: {', '.join(added)}")
    lake.storage.delete_tree("")
    catalog.create(purpose=PURPOSE)


def _not_touched(lake: Lake, what: str) -> ProjectError:
    hint = "It was not touched. Run the demo elsewhere: penstock demo --directory DIR"
    return ProjectError(what, where=lake.storage.uri, hint=hint)


def _added(lake: Lake) -> list[str]:
    """Return what a user has put into the demo's lake."""
    if not lake.catalog.numbers():
        return []
    entry = lake.catalog.latest().entry
    sources = sorted(entry.sources.keys() - {SOURCE})
    tags = sorted(lake.tags().keys() - {TAG})
    return [*(f"source {name}" for name in sources), *(f"tag {name}" for name in tags)]
