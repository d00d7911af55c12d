"""``penstock.toml`` and the environment, as frozen settings.

The file is read strictly: an unknown key is refused by name, a value of the wrong type by its place. Secrets stand
outside of it, in variables and files that ``${env:NAME}`` and ``${file:PATH}`` name.
"""

from __future__ import annotations

import glob
import os
import re
import tomllib
import zoneinfo
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from lakehouse.errors import ProjectError, SettingsError, near

__all__ = [
    "PROJECT_FILE",
    "LakeSettings",
    "OnlineSettings",
    "Paths",
    "Resources",
    "Settings",
    "SourceSettings",
    "SqlSettings",
    "bare_settings",
    "find_project",
    "load_settings",
    "memory_bytes",
]

PROJECT_FILE = "penstock.toml"

_MEMORY = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]i?b)\Z", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_DEFAULT_MEMORY = 4_000_000_000
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_SOURCE_NAME = re.compile(r"[a-z_][a-z0-9_]*\Z")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MSGSPEC_PLACE = re.compile(r" - at `\$\.?(.*)`\Z", re.DOTALL)
_TOML_PLACE = re.compile(r"(.*) \(at line (\d+), column (\d+)\)\Z", re.DOTALL)
# A password in a URI's authority, and one among its parameters.
_PASSWORD = re.compile(r"://[^/?#\s:]*:[^/?#\s]+@")
_PARAMETER = re.compile(
    r"[?&;](password|passwd|secret|token|access_key|secret_access_key|account_key|sas_token|sig)=[^&;#\s]",
    re.IGNORECASE,
)

_NUMBERS = (int, int | None)
_WANTED = (
    ((str, str | None, Path), "text"),
    ((bool, bool | None), "true or false"),
    (_NUMBERS, "a whole number, 1 or more"),  # all of them count something
    ((tuple[str, ...],), "text or a list of texts"),
)

_StructT = TypeVar("_StructT", bound=msgspec.Struct)


class LakeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the lake is.

    Parameters
    ----------
    uri
        A directory (absolute once loaded) or any URI that fsspec knows.
    protected
        Ask for ``--yes`` before a command takes something back (``rollback``, ``tag --delete``).
    """

    uri: str = ".penstock"
    protected: bool = False


class Paths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the project's own files are; absolute once loaded."""

    sql: Path = Path("sql")
    features: Path = Path("features.py")


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The budget of one command.

    Parameters
    ----------
    memory
        Text such as ``4GB`` (10⁹ bytes each) or ``512MiB``. Once loaded never None: unless set, 4GB, or half of the
        machine's memory if that is less.
    threads
        Once loaded never None: unless set, the machine's processors.
    """

    memory: str | None = None
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None


class OnlineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where online features are served from.

    Parameters
    ----------
    path
        The directory of the generations on this machine; absolute once loaded.
    """

    path: Path = Path(".penstock/_online")


class SqlSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How queries run; ``timezone`` is the session's zone, None for UTC."""

    timezone: str | None = None


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is declared about one source.

    Parameters
    ----------
    files
        What ``penstock land`` lands without arguments: paths (absolute once loaded), globs or URIs.
    timezone
        Zone of local times in the files; None: times without a zone stay without one.
    on_change
        Whether a file's newer content replaces the older in ``lake.<source>``, or adds to it.
    on_same_content
        Whether content that landed before under another name is skipped, or landed again.
    delimiter, quote
        One ASCII character each; None: found in the file.
    header
        Whether the first record names the columns; None: found in the file.
    """

    files: tuple[str, ...] = ()
    timezone: str | None = None
    on_change: Literal["replace", "add"] = "replace"
    on_same_content: Literal["skip", "land"] = "skip"
    delimiter: str | None = None
    quote: str | None = None
    header: bool | None = None


class Settings(msgspec.Struct, frozen=True):
    """The settings of one project in one environment.

    Parameters
    ----------
    project
        Its directory, resolved; for a lake without a project the working directory.
    is_project
        Whether there is a project.
    """

    project: Path
    lake: LakeSettings = LakeSettings()
    paths: Paths = Paths()
    resources: Resources = Resources()
    online: OnlineSettings = OnlineSettings()
    sql: SqlSettings = SqlSettings()
    sources: dict[str, SourceSettings] = {}
    is_project: bool = True


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "lake": LakeSettings,
    "paths": Paths,
    "resources": Resources,
    "online": OnlineSettings,
    "sql": SqlSettings,
}


def find_project(path: str | Path = ".") -> Path:
    """Return the nearest directory with a ``penstock.toml``, from ``path`` upwards.

    Raises
    ------
    ProjectError
        If there is none, or ``path`` is not a directory.
    """
    start = Path(path).expanduser()
    if start.name == PROJECT_FILE and start.is_file():
        start = start.parent
    if not start.is_dir():
        what = "this is a file, not a project directory" if start.exists() else "there is no such directory"
        raise ProjectError(what, where=str(path))
    start = start.resolve()
    for directory in (start, *start.parents):
        if (directory / PROJECT_FILE).is_file():
            return directory
    raise ProjectError(
        f"no {PROJECT_FILE} here or above",
        where=str(start),
        hint="Go to a project's directory, or name it with --project PATH. An empty penstock.toml makes a project.",
    )


def load_settings(project: Path, *, env: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of the project in a directory.

    Parameters
    ----------
    project
        The directory that holds ``penstock.toml``.
    env
        Lay the table ``[env.NAME]`` over the rest.
    environ
        What ``${env:NAME}`` reads.

    Raises
    ------
    ProjectError
        If there is no ``penstock.toml`` in the directory.
    SettingsError
        If the file cannot be what it says; the error names the place.
    """
    project = Path(project).resolve()
    place = _shown(project / PROJECT_FILE)
    document = _parse(project / PROJECT_FILE, place)
    environments = document.pop("env", {})
    _check_tables(document, "", place)
    _check_environments(environments, place)
    for where, text in _strings({**document, "env": environments}):
        _refuse_password(where, text, place)
    if env is not None:
        if env not in environments:
            hint = near(env, environments, what="environments")
            raise SettingsError(f"there is no environment [env.{env}]", where=place, hint=hint)
        document = _laid_over(document, environments[env])
    return _Reader(project, place, environ).settings(document)


def bare_settings(uri: str | Path) -> Settings:
    """Return the settings of a lake without a project: defaults, and relative paths from the working directory."""
    project = Path.cwd()
    located = _located(project, str(uri))
    online = project / ".penstock/_online" if "://" in located else Path(located) / "_online"
    return Settings(
        project=project,
        lake=LakeSettings(uri=located),
        resources=_budget(Resources()),
        online=OnlineSettings(path=online),
        is_project=False,
    )


def memory_bytes(text: str) -> int:
    """Return the bytes that ``4GB`` (10⁹ each, as in DuckDB) or ``4GiB`` (2³⁰ each) names.

    Raises
    ------
    SettingsError
        If the text is no amount of memory.
    """
    match = _MEMORY.match(text.strip())
    size = (
        int(float(match[1]) * (1024 if "i" in match[2].lower() else 1000) ** _POWERS[match[2][0].lower()])
        if match
        else 0
    )
    if not size:
        raise SettingsError(f"{text!r} is not an amount of memory", hint="Write it as 4GB, 500MB or 2GiB.")
    return size


def _parse(file: Path, place: str) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except FileNotFoundError:
        raise ProjectError(f"there is no {PROJECT_FILE} in this directory", where=str(file.parent)) from None
    except OSError as error:
        raise SettingsError(f"the file cannot be read: {error.strerror}", where=place) from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"byte {error.start + 1} is not UTF-8", where=place) from None
    except tomllib.TOMLDecodeError as error:
        match = _TOML_PLACE.match(str(error))
        what, where = (match[1], f"{place}:{match[2]}:{match[3]}") if match else (str(error), place)
        raise SettingsError(f"this is not TOML: {what[:1].lower()}{what[1:]}", where=where) from None


def _shown(file: Path) -> str:
    here = Path.cwd()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)


# -- keys -------------------------------------------------------------------------------------------------------


def _check_tables(document: object, prefix: str, place: str) -> None:
    """Refuse unknown keys of the whole document, or of one overlay, whose name is the prefix."""
    tables = _table(document, prefix.rstrip("."), place)
    top = [*_SECTIONS, "sources", *(() if prefix else ("env",))]
    for name, content in tables.items():
        path = f"{prefix}{name}"
        if name in _SECTIONS:
            _check_keys(content, _SECTIONS[name], path, place)
        elif name == "sources":
            for source, keys in _table(content, path, place).items():
                _check_source_name(source, path, place)
                _check_keys(keys, SourceSettings, f"{path}.{source}", place)
        else:
            kind = "table" if isinstance(content, dict) else "key"
            shown = f"[{path}]" if kind == "table" else path
            raise SettingsError(f"unknown {kind} {shown}", where=place, hint=near(name, top, what="tables"))


def _check_environments(environments: object, place: str) -> None:
    for name, overlay in _table(environments, "env", place).items():
        tables = _table(overlay, f"env.{name}", place)
        if "protected" in tables and isinstance(tables.setdefault("lake", {}), dict):
            tables["lake"].setdefault("protected", tables.pop("protected"))  # it may stand without its table
        _check_tables(tables, f"env.{name}.", place)


def _check_keys(content: object, struct: type[msgspec.Struct], path: str, place: str) -> None:
    known = struct.__struct_fields__
    for key in _table(content, path, place):
        if key not in known:
            raise SettingsError(f"unknown key [{path}] {key}", where=place, hint=near(key, known, what="keys"))


def _check_source_name(name: str, path: str, place: str) -> None:
    if not _SOURCE_NAME.match(name):
        raise SettingsError(
            f"[{path}] {name!r} cannot be a source's name",
            where=place,
            hint="Lower-case letters, digits and underscores, not starting with a digit.",
        )


def _table(content: object, path: str, place: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise SettingsError(f"{path} must be a table, [{path}]", where=place)
    return content


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _laid_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


# -- secrets ----------------------------------------------------------------------------------------------------


def _strings(content: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string of the document with its dotted path."""
    if isinstance(content, str):
        yield path, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _strings(value, f"{path}.{key}".lstrip("."))
    elif isinstance(content, list):
        for value in content:
            yield from _strings(value, path)


def _refuse_password(path: str, text: str, place: str) -> None:
    literal = _REFERENCE.sub("", text)
    if _PASSWORD.search(literal) or _PARAMETER.search(literal):
        raise SettingsError(
            f"{_key(path)} holds a password",  # never the value itself: errors end up in logs
            where=place,
            hint="Put it into a variable or a file, and write ${env:NAME} or ${file:PATH} in its place.",
        )


# -- values -----------------------------------------------------------------------------------------------------


class _Reader:
    """Turns a checked document into settings: expands references, converts, makes paths absolute."""

    def __init__(self, project: Path, place: str, environ: Mapping[str, str]) -> None:
        self._project = project
        self._place = place
        self._environ = environ

    def settings(self, document: dict[str, Any]) -> Settings:
        document = self._expanded(document, "")
        lake = self._converted(document.get("lake", {}), LakeSettings, "lake")
        paths = self._converted(document.get("paths", {}), Paths, "paths")
        resources = self._converted(document.get("resources", {}), Resources, "resources")
        online = self._converted(document.get("online", {}), OnlineSettings, "online")
        sql = self._converted(document.get("sql", {}), SqlSettings, "sql")
        sources = document.get("sources", {})
        self._check_zone(sql.timezone, "sql.timezone")
        if not lake.uri:
            raise self._error("lake.uri", "is empty", "Name a directory or a URI.")
        return Settings(
            project=self._project,
            lake=msgspec.structs.replace(lake, uri=_located(self._project, lake.uri)),
            paths=Paths(
                sql=self._project / paths.sql.expanduser(), features=self._project / paths.features.expanduser()
            ),
            resources=self._budget(resources),
            online=self._online(online, document.get("online", {})),
            sql=sql,
            sources={name: self._source(name, content) for name, content in sources.items()},
        )

    def _online(self, online: OnlineSettings, content: dict[str, Any]) -> OnlineSettings:
        hint = "Name a directory of its own on this machine, e.g. .penstock/_online."
        if _SCHEME.match(content.get("path", "")):
            raise self._error("online.path", f"{content['path']!r} is no directory of this machine", hint)
        path = self._project / online.path.expanduser()
        if path == self._project:
            raise self._error("online.path", "is the project's own directory", hint)
        return OnlineSettings(path=path)

    def _source(self, name: str, content: dict[str, Any]) -> SourceSettings:
        path = f"sources.{name}"
        files = content.get("files", ())
        source = self._converted(
            {**content, "files": [files] if isinstance(files, str) else files}, SourceSettings, path
        )
        self._check_zone(source.timezone, f"{path}.timezone")
        for key in ("delimiter", "quote"):
            character = getattr(source, key)
            if character is not None and (len(character) != 1 or not character.isascii() or character in "\r\n\0"):
                raise self._error(f"{path}.{key}", f"must be one ASCII character, not {character!r}")
        if source.delimiter is not None and source.delimiter == source.quote:
            raise self._error(f"{path}.quote", "is the delimiter too")
        return msgspec.structs.replace(source, files=tuple(_located(self._project, file) for file in source.files))

    def _budget(self, resources: Resources) -> Resources:
        if resources.memory is not None:
            try:
                memory_bytes(resources.memory)
            except SettingsError as error:
                raise self._error("resources.memory", error.what, error.hint) from None
        return _budget(resources)

    def _check_zone(self, name: str | None, path: str) -> None:
        if name is None:
            return
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # the latter for directories: "America"
            hint = near(name, zoneinfo.available_timezones(), what="time zones")
            raise self._error(path, f"{name!r} is not a time zone", hint) from None

    def _expanded(self, content: Any, path: str) -> Any:
        if isinstance(content, str):
            if "${" in _REFERENCE.sub("", content):
                raise self._error(path, "a ${ has no }", "Write ${env:NAME} or ${file:PATH}.")
            return _REFERENCE.sub(lambda match: self._referred(match[1], path), content)
        if isinstance(content, dict):
            return {key: self._expanded(value, f"{path}.{key}".lstrip(".")) for key, value in content.items()}
        if isinstance(content, list):
            return [self._expanded(value, path) for value in content]
        return content

    def _referred(self, reference: str, path: str) -> str:
        kind, _, name = reference.partition(":")
        if kind == "env" and name:
            if name not in self._environ:
                raise self._error(path, f"the variable {name} is not set", "Set it in the environment.")
            return self._environ[name]
        if kind == "file" and name:
            try:
                return (self._project / Path(name).expanduser()).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise self._error(path, f"the file {name} cannot be read: {reason}") from None
        raise self._error(path, f"${{{reference}}} is not a reference", "Write ${env:NAME} or ${file:PATH}.")

    def _converted(self, content: Mapping[str, Any], struct: type[_StructT], path: str) -> _StructT:
        try:
            return msgspec.convert(content, struct, dec_hook=lambda kind, value: kind(value))
        except msgspec.ValidationError as error:
            match = _MSGSPEC_PLACE.search(str(error))
            key = match[1] if match else ""
            raise self._error(f"{path}.{key}", _wrong_value(struct, key, content)) from None

    def _error(self, path: str, what: str, hint: str | None = None) -> SettingsError:
        return SettingsError(f"{_key(path)}: {what}", where=self._place, hint=hint)


def _wrong_value(struct: type[msgspec.Struct], key: str, content: Mapping[str, Any]) -> str:
    """Return what a key takes, and what stands there instead; of a list, ``key[0]`` is an item."""
    name, _, index = key.partition("[")
    kind, value = get_type_hints(struct)[name], content[name]
    if index:
        kind, value = str, value[int(index[:-1])]
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    wanted = " or ".join(choices) or next(text for kinds, text in _WANTED if kind in kinds)
    return f"must be {wanted}, not {_told(value, plainly=kind not in _NUMBERS and not choices)}"


def _told(value: object, *, plainly: bool) -> str:
    """Return a value as people call it: plainly by its kind, else as it is written if it is short."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number" if plainly else str(value)
        case str():
            return "text" if plainly else repr(value)
        case list():
            return "a list"
        case dict():
            return "a table"
    return "a date or time"


def _key(path: str) -> str:
    """Return ``[lake] uri`` for ``lake.uri``."""
    table, _, key = path.rpartition(".")
    return f"[{table}] {key}" if table else key


def _located(project: Path, text: str) -> str:
    """Return a URI as it is, a path or glob as an absolute one from the project's directory."""
    if _SCHEME.match(text):
        return text
    path = os.path.expanduser(text)  # noqa: PTH111 - Path would drop a trailing slash and read // in globs
    if os.path.isabs(path):  # noqa: PTH117 - the same
        return path
    base = str(project)
    return os.path.normpath(os.path.join(glob.escape(base) if glob.has_magic(path) else base, path))  # noqa: PTH118 - the same


def _budget(resources: Resources) -> Resources:
    return Resources(
        memory=resources.memory or f"{min(_DEFAULT_MEMORY, _machine_memory() // 2) // 1_000_000}MB",
        threads=resources.threads or os.cpu_count() or 1,
    )


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return 2 * _DEFAULT_MEMORY
