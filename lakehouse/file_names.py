"""What local files are called in a lake, so that a project can be moved with its files and still know them."""

from __future__ import annotations

import os.path
import re
from pathlib import Path

__all__ = ["FileNames", "utf8"]

_LOCAL = "file://"
_UNDECODED = re.compile("[\udc80-\udcff]")  # how Python spells a byte of a path that is no UTF-8
_DOTS = re.compile(r"(^|/)\.{0,2}(/|$)")  # a step that is empty, here, or up


class FileNames:
    """The names of files as one project sees them.

    A file inside the project's directory goes by its path there, as in ``penstock.toml``; any other by its URI.

    Parameters
    ----------
    project
        The project's directory, absolute; None for a lake without one, whose files all go by their URIs.
    """

    def __init__(self, project: Path | None) -> None:
        self._project = None if project is None else f"{str(project).rstrip('/')}/"
        self._directories: dict[str, str] = {}

    def of_path(self, path: str) -> str:
        """Return the name of the local file at an absolute path."""
        if _DOTS.search(path[1:]):
            path = self._real(path)
        name = self._inside(path) or self._inside(self._real(path)) or f"{_LOCAL}{path}"
        return utf8(name)

    def of_uri(self, uri: str) -> str:
        """Return today's name of a file that landed under a name; only absolute URIs of local files change."""
        return self.of_path(uri.removeprefix(_LOCAL)) if uri.startswith(f"{_LOCAL}/") else uri

    def _inside(self, path: str) -> str | None:
        if self._project is None or not path.startswith(self._project):
            return None
        return path.removeprefix(self._project)

    def _real(self, path: str) -> str:
        """Return the path with the links among its directories resolved; what the file itself is does not matter."""
        directory, _, name = path.rpartition("/")
        if directory not in self._directories:
            self._directories[directory] = os.path.realpath(directory or "/")
        return f"{self._directories[directory].rstrip('/')}/{name}"


def utf8(path: str) -> str:
    """Return a path as text that can be written down: bytes that are no UTF-8 as ``%FF``."""
    return _UNDECODED.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", path)
