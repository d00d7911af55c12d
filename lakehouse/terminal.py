"""A terminal that reads lines: with editing, history and completion where Python's ``readline`` is there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import click

from lakehouse.errors import PenstockError

__all__ = ["Terminal", "history_file"]

_HISTORY_LINES = 2000


def history_file() -> Path | None:
    """Return where the history is kept, ``$XDG_STATE_HOME/penstock/sql_history``; None if there is no such place."""
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        # The specification says to ignore a relative path.
        root = Path(state) if Path(state).is_absolute() else Path.home() / ".local/state"
    except RuntimeError:  # no home
        return None
    return root / "penstock" / "sql_history"


class Terminal:
    """Reads lines, with editing and history where ``readline`` is there; without it, plainly.

    Parameters
    ----------
    history
        The file of the history, made if it is missing; None, or a place that can't be written, keeps none.
    """

    def __init__(self, history: Path | None) -> None:
        self._readline = _readline()
        self._history = history if self._readline is not None and _writable(history) else None
        if self._readline is None:
            return
        self._readline.set_auto_history(False)
        self._readline.set_history_length(_HISTORY_LINES)
        # Without . and -, so that warehouse.trips and .as-of are one word.
        self._readline.set_completer_delims(" \t\n()+*/=<>,;!%^&|~[]{}'\"`")
        libedit = "libedit" in (self._readline.__doc__ or "")
        self._readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        if self._history is not None:
            self._readline.read_history_file(self._history)

    def read(self, label: str) -> str:
        """Return the next line; the label goes to stderr where stdout is no terminal, since data goes there.

        Raises
        ------
        EOFError
            At the end of the input.
        """
        if sys.stdout.isatty():
            return input(label)
        click.echo(label, err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def remember(self, text: str) -> None:
        """Add a statement to the history, on one line unless that might change it."""
        if self._readline is None:
            return
        lines = text.splitlines()
        plain = not re.search(r"--|\$\$", text) and not any(line.count(sign) % 2 for line in lines for sign in "'\"")
        entries = [" ".join(line.strip() for line in lines)] if plain else lines
        for entry in entries:
            self._readline.add_history(entry)
        if self._history is not None:
            try:
                # Appending leaves alone what other prompts wrote meanwhile; libedit can't.
                if hasattr(self._readline, "append_history_file"):
                    self._readline.append_history_file(len(entries), self._history)
                else:
                    self._readline.write_history_file(self._history)
            except OSError:  # a full disk is no reason to stop a conversation
                self._history = None

    def complete_with(self, complete: Callable[[str, str], Sequence[str]]) -> None:
        """Let TAB ask for what a word may become, given the line up to the cursor, and the word."""
        if self._readline is None:
            return
        readline = self._readline
        found: list[str] = []

        def completer(word: str, state: int) -> str | None:
            if state == 0:
                try:
                    found[:] = complete(readline.get_line_buffer()[: readline.get_endidx()], word)
                except (PenstockError, OSError):  # nothing to offer is not worth a message in the middle of a line
                    found.clear()
            return found[state] if state < len(found) else None

        readline.set_completer(completer)


def _readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:  # not every build of Python has it
        return None
    return readline


def _writable(file: Path | None) -> bool:
    """Make the history's file if it is missing, for its owner only: queries may hold what is nobody else's business."""
    if file is None:
        return False
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
    except OSError:
        return False
    return os.access(file, os.R_OK | os.W_OK)
