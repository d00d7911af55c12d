"""Executions: what ran, when, on what, and how it ended.

An execution opens with a start record and is closed by an end record; both are created by put-if-absent, so neither
is ever changed. The publish that it belongs to is the truth: a catalog entry that names an execution means that it
completed, whether or not the process lived long enough to say so.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from lakehouse.catalog import Catalog
from lakehouse.errors import CatalogDamagedError, RequestError, StorageError, near
from lakehouse.sealing import decoded
from lakehouse.storage import Storage
from lakehouse.types import Clock, new_ulid, parse_instant, utc_now, utc_text

__all__ = ["FORMAT", "Execution", "Executions", "State"]

FORMAT = 1

State = Literal["RUNNING", "COMPLETE", "FAILED", "KILLED"]

_FOLDER = "_catalog/executions"
_CLOCK_SKEW = dt.timedelta(minutes=10)


class _Start(msgspec.Struct, frozen=True):
    format: int
    id: str
    kind: str
    at: str
    host: str
    pid: int
    process: str | None
    parameters: dict[str, Any]


class _End(msgspec.Struct, frozen=True):
    format: int
    id: str
    state: State
    at: str
    counts: dict[str, int] = {}
    snapshot: int | None = None
    error: str | None = None
    details: dict[str, Any] = {}


_Record = TypeVar("_Record", _Start, _End)


class Execution(msgspec.Struct, frozen=True):
    """One execution as its records tell it.

    Parameters
    ----------
    id
        A ULID: text order is time order.
    kind
        ``land``, ``promote``, ``rollback``, …
    state
        ``RUNNING`` until an end record or a catalog entry says otherwise.
    started_at, ended_at
        UTC, as `lakehouse.types.utc_text` writes it; the end is None while it runs.
    snapshot
        The last snapshot that it published.
    error
        One line, if it failed.
    details
        Whatever the kind keeps; a failed promotion keeps its quarantine reasons with examples.
    """

    id: str
    kind: str
    state: State
    started_at: str
    ended_at: str | None
    parameters: dict[str, Any]
    counts: dict[str, int] = {}
    snapshot: int | None = None
    error: str | None = None
    details: dict[str, Any] = {}


class Executions:
    """The execution records of one lake. Reading needs no write access.

    Parameters
    ----------
    storage
        The lake's root.
    clock
        Returns the present instant, zoned UTC.
    """

    def __init__(self, storage: Storage, clock: Clock = utc_now) -> None:
        self.storage = storage
        self.clock = clock

    def start(self, kind: str, parameters: Mapping[str, Any]) -> str:
        """Record that an execution begins in this process, close dead ones of this host, and return its id.

        Parameters
        ----------
        parameters
            JSON-able. Nothing personal, no secrets: records are kept for ever.
        """
        self.close_dead()
        now = self.clock()
        execution = new_ulid(now)
        record = _Start(
            FORMAT, execution, kind, utc_text(now), _host(), os.getpid(), _process(os.getpid()), dict(parameters)
        )
        self.storage.put_if_absent(_start_path(execution), msgspec.json.encode(record))
        return execution

    def finish(
        self,
        execution: str,
        state: Literal["COMPLETE", "FAILED", "KILLED"],
        *,
        counts: Mapping[str, int] | None = None,
        snapshot: int | None = None,
        error: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> bool:
        """Record how an execution ended, or return False if that was recorded before: the first record stays.

        Where the storage takes no more, it stays open, and the next execution closes it: what was published, and the
        error that is being reported, matter more.
        """
        record = _End(
            FORMAT, execution, state, utc_text(self.clock()), dict(counts or {}), snapshot, error, dict(details or {})
        )
        try:
            return self.storage.put_if_absent(_end_path(execution), msgspec.json.encode(record))
        except StorageError:
            return False

    def close_dead(self) -> list[str]:
        """Close the open executions of this host whose process is gone, and return their ids.

        Those that a catalog entry names are closed as COMPLETE, the others as KILLED.
        """
        dead = [start for start in self._open() if start.host == _host() and not _is_alive(start)]
        try:
            published = self._published(dead)
        except CatalogDamagedError:
            return []  # the entry that can't be read may name one of them: they stay open
        for start in dead:
            state: Literal["COMPLETE", "KILLED"] = "COMPLETE" if start.id in published else "KILLED"
            self.finish(start.id, state, snapshot=published.get(start.id))
        return [start.id for start in dead]

    def list(self) -> list[Execution]:
        """Return all executions, newest first."""
        ended = {name.removesuffix(".end.json") for name in self._names() if name.endswith(".end.json")}
        starts = sorted(self._starts(), key=lambda start: start.id, reverse=True)
        published = self._published([start for start in starts if start.id not in ended])
        return [
            _ended(start, self._end(start.id)) if start.id in ended else _unended(start, published.get(start.id))
            for start in starts
        ]

    def get(self, execution: str) -> Execution:
        """Return one execution.

        Raises
        ------
        RequestError
            If there is none with that id.
        """
        try:
            start = self._start(execution)
        except FileNotFoundError:
            known = [name.removesuffix(".start.json") for name in self._names() if name.endswith(".start.json")]
            raise RequestError(
                f"there is no execution {execution}", hint=near(execution, known[-12:], what="executions")
            ) from None
        try:
            return _ended(start, self._end(execution))
        except FileNotFoundError:
            return _unended(start, self._published([start]).get(execution))

    # -- records ------------------------------------------------------------------------------------------------

    def _names(self) -> Sequence[str]:
        return self.storage.list(_FOLDER)

    def _starts(self) -> Iterator[_Start]:
        for name in self._names():
            if name.endswith(".start.json"):
                yield self._start(name.removesuffix(".start.json"))

    def _open(self) -> Sequence[_Start]:
        names = set(self._names())
        ids = (name.removesuffix(".start.json") for name in sorted(names) if name.endswith(".start.json"))
        return [self._start(execution) for execution in ids if f"{execution}.end.json" not in names]

    def _start(self, execution: str) -> _Start:
        return self._read(_start_path(execution), _Start)

    def _end(self, execution: str) -> _End:
        return self._read(_end_path(execution), _End)

    def _read(self, place: str, kind: type[_Record]) -> _Record:
        record, _ = decoded(
            self.storage.read(place),
            kind,
            reads=FORMAT,
            what="the execution record",
            where=place,
            hint="No data hangs on it: delete the file.",
            least="format",
        )
        return record

    def _published(self, starts: Sequence[_Start]) -> dict[str, int]:
        """Return the last snapshot that each of these executions published, of those that did."""
        wanted = {start.id for start in starts}
        found: dict[str, int] = {}
        if not wanted:
            return found
        # Other hosts' clocks may run behind; publish times are made monotone, so going back a little is enough.
        oldest = min(parse_instant(start.at) for start in starts) - _CLOCK_SKEW
        for entry in Catalog(self.storage, clock=self.clock).entries():
            if entry.instant < oldest:
                break
            if entry.execution is not None and entry.execution in wanted:
                found.setdefault(entry.execution, entry.snapshot)
        return found


def _ended(start: _Start, end: _End) -> Execution:
    return Execution(
        id=start.id,
        kind=start.kind,
        state=end.state,
        started_at=start.at,
        ended_at=end.at,
        parameters=start.parameters,
        counts=end.counts,
        snapshot=end.snapshot,
        error=end.error,
        details=end.details,
    )


def _unended(start: _Start, snapshot: int | None) -> Execution:
    state: State = "RUNNING" if snapshot is None else "COMPLETE"
    return Execution(start.id, start.kind, state, start.at, None, start.parameters, snapshot=snapshot)


def _start_path(execution: str) -> str:
    return f"{_FOLDER}/{execution}.start.json"


def _end_path(execution: str) -> str:
    return f"{_FOLDER}/{execution}.end.json"


# -- processes --------------------------------------------------------------------------------------------------


def _host() -> str:
    """Return this host's name with its process namespace: process numbers mean nothing across containers."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"


def _process(pid: int) -> str | None:
    """Return what tells this process from a later one with the same number, or None where the system can't say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, *numbers = stat.rpartition(")")[2].split()  # the name before it may hold spaces
    if state in "ZX":
        return "gone"  # killed, and nobody has asked for its exit code yet
    return f"{boot}/{numbers[18]}"  # field 22: clock ticks after boot


def _is_alive(start: _Start) -> bool:
    try:
        os.kill(start.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return start.process is None or _process(start.pid) in (start.process, None)
