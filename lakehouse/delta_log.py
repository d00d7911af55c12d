"""The files of a Delta log, read as text: what stands in a commit, and why a version cannot be opened."""

from __future__ import annotations

import json
import re
from typing import Any

from lakehouse.storage import Storage

__all__ = ["actions", "fault"]

_COMMIT = re.compile(r"(\d{20})\.json\Z")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*parquet\Z")


def actions(storage: Storage, table_path: str, version: int) -> list[dict[str, Any]]:
    """Return the actions of a commit; none if its file is not there.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    try:
        data = storage.read(_place(table_path, version))
    except FileNotFoundError:
        return []
    found = [json.loads(line) for line in data.splitlines() if line.strip()]
    if not all(isinstance(action, dict) and all(isinstance(v, dict) for v in action.values()) for action in found):
        raise ValueError("not a list of actions")
    return found


def fault(storage: Storage, table_path: str, version: int | None = None) -> str | None:
    """Return in one clause what is wrong with the log up to a version (or its end); None if nothing is seen."""
    names = storage.list(f"{table_path}/_delta_log")
    commits = {int(match[1]) for name in names if (match := _COMMIT.match(name))}
    checkpoints = {int(match[1]) for name in names if (match := _CHECKPOINT.match(name))}
    if not commits and not checkpoints:
        return "its Delta log is gone"
    end = max(commits | checkpoints) if version is None else version
    start = max((number for number in checkpoints if number <= end), default=-1)
    for number in range(start + 1, end + 1):
        file = _place(table_path, number).rpartition("/")[2]
        if number not in commits:
            return f"its Delta log has no file for version {number} ({file})"
        try:
            empty = not actions(storage, table_path, number)
        except ValueError:
            return f"its Delta log's file for version {number} is damaged ({file})"
        if empty:
            return f"its Delta log's file for version {number} is empty ({file})"
    if start >= 0:
        return f"its Delta log's checkpoint at version {start} or _last_checkpoint may be damaged"
    return None


def _place(table_path: str, version: int) -> str:
    return f"{table_path}/_delta_log/{version:020d}.json"
