"""A reader asks all the time while a writer publishes snapshots, materializes them, and is killed again and again.

Run as a program, this file is the reader, or the forge: a process that has everything imported and forks writers.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from online_lake import CITY, CITY_TYPES, FACT_TYPES, NOON, OnlineLake, city, facts

from featurestore.online.lmdb import LmdbStore
from featurestore.store import FeatureStore
from lakehouse.pins import Pins

KILLS = 20
FAILPOINTS = ("written", "manifest", "flipped")
ZONES = (1, 77, 100)
EVERYBODY = range(1, 101)


# -- the writer -----------------------------------------------------------------------------------------------------


def publish(lake: OnlineLake) -> None:
    """Publish two snapshots; every value in them says which one it is of."""
    number = lake.snapshot.number + 1
    rows = [(zone, -0.5, None, f"{number}.00", f"{zone} of {number}") for zone in EVERYBODY]
    lake.put(FACT_TYPES, [facts(*rows)])
    lake.put(CITY_TYPES, [city((-1, number))], CITY)


def write(root: Path, failpoint: str) -> None:
    """Publish and materialize until killed, at the latest at the failpoint."""

    def reached(name: str) -> None:
        if name == failpoint:
            os.kill(os.getpid(), signal.SIGKILL)

    lake = OnlineLake.opened(root)
    lake.store.online = LmdbStore(lake.directory, failpoint=reached)
    while True:
        publish(lake)
        os.write(1, b"building\n")
        report = lake.store.materialize(at=NOON)
        os.write(1, f"served {report.snapshot}\n".encode())


def forge(root: Path) -> None:
    """Fork a writer for each line read."""
    import duckdb  # noqa: F401
    import pyarrow.compute  # noqa: F401

    import featurestore.materialization
    import featurestore.registry  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                write(root, line.strip())
            except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the writer and is told
                os.write(1, f"failed {type(error).__name__} {error}\n".encode().replace(b"\n  ", b" "))
            os._exit(1)
        os.write(1, f"pid {child}\n".encode())
        os.waitpid(child, 0)
        os.write(1, b"dead\n")


# -- the reader -----------------------------------------------------------------------------------------------------


def read(root: Path) -> None:
    """Ask until stdin ends; print how often, and each answer that differed from the one before."""
    store = FeatureStore(root / "lake")
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    count, seen, error = 0, [], None
    last: Any = None
    try:
        while not ended.is_set():
            answer = store.get_online_features("tips", {"zone": list(ZONES)}, at=NOON)
            found = [answer.stamp.snapshot, answer.stamp.generation, answer.to_dict(), answer.statuses()]
            count += 1
            if found != last:
                last = found
                seen.append([found[0], found[1], json.loads(json.dumps(found[2:], default=str))])
                print(f"seen {found[0]}", flush=True)
    except BaseException as problem:  # noqa: BLE001 - the test tells
        error = f"{type(problem).__name__}: {problem}"
    print(json.dumps({"count": count, "seen": seen, "error": error}), flush=True)


# -- the test -------------------------------------------------------------------------------------------------------


@contextmanager
def started(role: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, __file__, role, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            stream.close()  # type: ignore[union-attr]


def line_of(process: subprocess.Popen[str], *wanted: str) -> str:
    """Return the next line that begins with one of these words."""
    for line in process.stdout or ():
        assert not line.startswith("failed"), line
        if line.split()[0] in wanted:
            return line
    raise AssertionError(f"it ended before saying {wanted}")


def stop_at(writers: subprocess.Popen[str], failpoint: str) -> None:
    """Have a writer kill itself at a failpoint of the store."""
    print(failpoint, file=writers.stdin, flush=True)
    line_of(writers, "dead")


def kill_after(writers: subprocess.Popen[str], delay: float, reader: subprocess.Popen[str] | None = None) -> None:
    """Kill a writer some seconds after it began to build; with a reader, after this one saw what it built."""
    print("nowhere", file=writers.stdin, flush=True)
    pid = int(line_of(writers, "pid").split()[1])
    if reader is None:
        line_of(writers, "building")
    else:
        served = int(line_of(writers, "served").split()[1])
        while int(line_of(reader, "seen").split()[1]) < served:
            pass
    time.sleep(delay)  # any moment will do
    os.kill(pid, signal.SIGKILL)
    line_of(writers, "dead")


def expected_at(store: FeatureStore, snapshot: int) -> list[Any]:
    """Return what a reader must have seen, from the snapshot's own tables and from the offline engine."""
    rows = {}
    for zone, fare, note in store.lake.sql("select zone, fare, note from warehouse.facts", as_of=snapshot).fetchall():
        rows[zone] = (str(fare), note)
    ((trips,),) = store.lake.sql("select trips from warehouse.city", as_of=snapshot).fetchall()
    asked = [rows[zone] for zone in ZONES]
    told = {
        "zone": list(ZONES),
        "fare": [fare for fare, _ in asked],
        "note": [note for _, note in asked],
        "rides_1h": [1, 1, 1],
        "rides_1d": [1, 1, 1],
        "paid_1d": [fare for fare, _ in asked],
        "trips": [trips] * 3,
    }
    job = store.get_historical_features({"zone": list(ZONES), "t": [NOON] * 3}, "tips", as_of=snapshot)
    offline = job.to_arrow().drop_columns(["t"]).to_pydict()
    assert json.loads(json.dumps(offline, default=str)) == told
    return [told, job.statuses().to_pydict()]


def test_readers_see_whole_snapshots_only_whenever_the_writer_is_killed(tmp_path: Path):
    lake = OnlineLake.built(tmp_path)
    publish(lake)
    lake.store.materialize(at=NOON)
    chance = random.Random(20240102)
    with started("read", tmp_path) as reader, started("forge", tmp_path) as writers:
        line_of(reader, "seen")
        for failpoint in FAILPOINTS:
            stop_at(writers, failpoint)
        for number in range(KILLS):
            kill_after(writers, chance.uniform(0, 0.2), reader if number % 6 == 0 else None)
        output, _ = reader.communicate()
    told = json.loads(output.splitlines()[-1])
    assert told["error"] is None
    snapshots = [snapshot for snapshot, *_ in told["seen"]]
    assert snapshots == sorted(snapshots)  # no step back
    assert len({generation for _, generation, _ in told["seen"]}) == len(snapshots) >= 5
    assert told["count"] > 100
    store = lake.another()
    for snapshot, _, answer in told["seen"]:
        assert answer == expected_at(store, snapshot)

    # Afterwards everything is as if nobody had ever been killed.
    publish(lake)
    report = store.materialize(at=NOON)
    assert report.published
    assert report.snapshot == store.lake.catalog.latest().number
    assert store.verify("tips").same
    assert store.online.check() == []
    generations = store.online.generations()
    left = {str(path.relative_to(lake.directory)) for path in lake.directory.rglob("*") if path.is_file()}
    files = {f"views/{file}" for generation in generations for file in generation.files}
    assert left == {"LOCK", "CURRENT", *files, *(f"generations/{generation.id}.json" for generation in generations)}
    assert {pin.name for pin in Pins(lake.storage).list()} == {
        f"generation.{generation.id}" for generation in generations
    }
    states = {execution.id: execution.state for execution in lake.executions}
    assert set(states.values()) <= {"COMPLETE", "KILLED"}
    assert list(states.values()).count("KILLED") >= 10
    assert states[generations[0].execution] == "COMPLETE"


if __name__ == "__main__":
    {"read": read, "forge": forge}[sys.argv[1]](Path(sys.argv[2]))
