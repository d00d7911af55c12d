"""Definitions as they come in: from a ``features.py``, or as a list of objects."""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Self, TypeVar

from featurestore.definitions import Entity, FeatureService, FeatureView
from lakehouse.errors import DefinitionError, PenstockError

__all__ = ["Definition", "Given", "collect", "load_features"]

Definition = Entity | FeatureView | FeatureService

_Kind = TypeVar("_Kind", Entity, FeatureView, FeatureService)
_MODULE = "__features__"
_KINDS = (Entity, FeatureView, FeatureService)
_EXAMPLE = """Make one that defines your features, e.g.
    from featurestore import Aggregate, Entity, FeatureView
    zone = Entity("zone", join_keys=["pickup_zone"])
    demand = FeatureView("zone_demand", source="warehouse.trips", entities=[zone], event_timestamp="dropoff_at",
                         features=[Aggregate("trips", "count", windows=["1d"])])
  Another place for it: [paths] features in penstock.toml."""


@dataclass
class Given:
    """Definitions by kind and name, with all that they stand on: a view's entities, a service's views."""

    entities: dict[str, Entity] = field(default_factory=dict)
    views: dict[str, FeatureView] = field(default_factory=dict)
    services: dict[str, FeatureService] = field(default_factory=dict)
    _called: dict[tuple[str, str], str] = field(default_factory=dict)

    def all(self) -> list[Definition]:
        """Return all definitions: entities, then views, then services, each in the order given."""
        return [*self.entities.values(), *self.views.values(), *self.services.values()]

    def add(self, value: object, called: str) -> None:
        """Take a definition with all that it stands on.

        Parameters
        ----------
        called
            How errors call it.

        Raises
        ------
        DefinitionError
            If it is none, or another one has its name.
        """
        match value:
            case Entity():
                self._put(self.entities, value, "entity", called)
            case FeatureView():
                for entity in value.entities:
                    self.add(entity, f"the one in feature view {value.name!r}")
                self._put(self.views, value, "feature view", called)
            case FeatureService():
                for projection in value.projections:
                    if projection.definition is not None:
                        self.add(projection.definition, f"the one in feature service {value.name!r}")
                self._put(self.services, value, "feature service", called)
            case _:
                raise DefinitionError(
                    f"{called} is no definition: {type(value).__name__}",
                    hint="Definitions are Entity, FeatureView and FeatureService.",
                )

    def _put(self, known: dict[str, _Kind], value: _Kind, kind: str, called: str) -> None:
        other = known.get(value.name)
        if other is not None and other != value:
            names = f"{self._called[kind, value.name]} and {called}"
            raise DefinitionError(
                f"there are two different ones: {names}",
                where=f"{kind} {value.name!r}",
                hint="Give one of them another name; or make what uses the former one anew, of the changed one.",
            )
        known[value.name] = value
        self._called.setdefault((kind, value.name), called)


def collect(objects: Sequence[object] | Definition) -> Given:
    """Return definitions with all that they stand on.

    Parameters
    ----------
    objects
        A list of definitions, or a single one.

    Raises
    ------
    DefinitionError
        If an object is none, or two different ones of a kind have one name.
    """
    if isinstance(objects, _KINDS):
        objects = [objects]
    if isinstance(objects, str) or not isinstance(objects, Sequence):
        raise DefinitionError(
            f"definitions must be a list, not {type(objects).__name__}", hint="Write [zone, zone_demand, tips]."
        )
    given = Given()
    for place, value in enumerate(objects):
        given.add(value, f"objects[{place}]")
    return given


def load_features(path: Path) -> list[Definition]:
    """Run a ``features.py`` in a namespace of its own, and return what it defines.

    Module-level definitions count, also inside lists and tuples, with all that they stand on; the order is: entities,
    views, services. The file's directory is importable while it runs; modules from there are read anew each time. What
    it prints goes to stderr.

    Raises
    ------
    DefinitionError
        If there is no such file, if it fails (with file and line) or makes a definition without giving it a name, or if
        two different definitions of a kind have one name.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        what = "there is no such file" if missing else f"it cannot be read: {error.strerror}"
        raise DefinitionError(what, where=_shown(path), hint=_EXAMPLE if missing else None) from None
    namespace = _run(text, path.resolve())
    given = Given()
    for name, value in namespace.items():
        if isinstance(value, _KINDS):
            given.add(value, name)
        elif isinstance(value, list | tuple):
            for place, element in enumerate(value):
                if isinstance(element, _KINDS):
                    given.add(element, f"{name}[{place}]")
    return given.all()


def _run(text: bytes, path: Path) -> dict[str, object]:
    """Return the names that a file defines.

    Raises
    ------
    DefinitionError
        If it fails: a message with file and line, no traceback.
    """
    module = ModuleType(_MODULE)
    module.__file__ = str(path)
    with _Beside(path.parent) as beside, contextlib.redirect_stdout(sys.stderr):
        # Classes that look up their module while they are made, such as dataclasses, find it.
        sys.modules[_MODULE] = module
        try:
            tree = ast.parse(text, str(path))
            exec(compile(tree, str(path), "exec"), module.__dict__)  # noqa: S102 - the user's own file, run for them
        except SyntaxError as error:
            file = Path(error.filename) if error.filename else path
            raise DefinitionError(f"syntax error: {error.msg}", where=_place(file, error.lineno)) from None
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a user's file raises is its fault
            raise _failed(error, path, beside) from None
        finally:
            del sys.modules[_MODULE]
            sys.stderr.flush()
    _refuse_nameless(tree, module.__dict__, path)
    return dict(module.__dict__)


def _refuse_nameless(tree: ast.Module, names: Mapping[str, object], path: Path) -> None:
    """Refuse definitions that are made and dropped, which would otherwise be left out without a word."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            continue
        match node.value.func:
            case ast.Name(id=name):
                called = names.get(name)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                called = getattr(names.get(name), attribute, None)
            case _:
                called = None
        for kind in _KINDS:
            if called is kind:
                what = f"this {kind.__name__} is made and dropped: it has no name in the file"
                raise DefinitionError(
                    what, where=_place(path, node.lineno), hint=f"Give it one: something = {kind.__name__}(…)."
                )


class _Beside:
    """Makes what lies in a directory importable for a while, and leaves the process as it was.

    Modules that were imported before stay what they are; those that come from the directory meanwhile are forgotten
    again, so that a later load sees them as they are then.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> Self:
        self._before = set(sys.modules)
        sys.path.insert(0, str(self._directory))
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError):  # the file may have taken it out itself
            sys.path.remove(str(self._directory))
        for name in self._fresh():
            del sys.modules[name]
        importlib.invalidate_caches()

    def owns(self, file: str) -> bool:
        """Return whether a file belongs to a module of the directory that was not imported before."""
        try:
            parts = Path(file).relative_to(self._directory).parts
        except ValueError:
            return False
        name = parts[0].removesuffix(".py")
        package = len(parts) > 1
        return name not in self._before and (not package or (self._directory / name / "__init__.py").is_file())

    def _fresh(self) -> list[str]:
        new = set(sys.modules) - self._before
        ours = {name.partition(".")[0] for name in new if self.owns(getattr(sys.modules[name], "__file__", None) or "")}
        return [name for name in new if name.partition(".")[0] in ours]


def _failed(error: BaseException, path: Path, beside: _Beside) -> DefinitionError:
    """Return what went wrong in a file, placed at the user's last line that took part."""
    lines = [(frame.filename, frame.lineno) for frame in extract_tb(error.__traceback__)]
    own = [(file, line) for file, line in lines if file == str(path) or beside.owns(file)]
    file, line = own[-1] if own else (str(path), None)
    place = _place(Path(file), line)
    if isinstance(error, PenstockError):
        return DefinitionError(error.what, where=f"{place}: {error.where}" if error.where else place, hint=error.hint)
    text = " ".join(str(error).split())
    hint = "Modules that lie beside the file can be imported." if isinstance(error, ModuleNotFoundError) else None
    return DefinitionError(f"{type(error).__name__}: {text}" if text else type(error).__name__, where=place, hint=hint)


def _place(file: Path, line: int | None) -> str:
    return _shown(file) if line is None else f"{_shown(file)}:{line}"


def _shown(path: Path) -> str:
    """Return a path as the user would type it."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
