"""A small lake for the tests of the online half: a feature store over it, a clock to set, and definitions of every kind."""

from __future__ import annotations

import atexit
import datetime as dt
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import pyarrow as pa
from feature_lake import FACTS, FeatureLake

from featurestore.definitions import Aggregate, Entity, Feature, FeatureService, FeatureView
from featurestore.store import FeatureStore
from featurestore.testing.histories import arrow_table
from lakehouse.catalog import Snapshot
from lakehouse.metadata import Execution, Executions
from lakehouse.pins import Pins
from lakehouse.storage import Storage
from lakehouse.types import TableName

ZONED = "TIMESTAMP WITH TIME ZONE"
HOUR, DAY = 3_600_000_000, 86_400_000_000
NOON = dt.datetime(2024, 1, 2, 12, tzinfo=dt.UTC)
AT = 19_724 * DAY + 12 * HOUR  # noon, in µs

CITY = TableName("warehouse", "city")
FACT_TYPES = {"zone": "BIGINT", "seen": ZONED, "made": ZONED, "fare": "DECIMAL(10,2)", "note": "VARCHAR"}
CITY_TYPES = {"seen": ZONED, "trips": "BIGINT"}

ZONE = Entity("zone")
STATE = FeatureView(
    "state",
    source="warehouse.facts",
    entities=[ZONE],
    event_timestamp="seen",
    created_timestamp="made",
    ttl="1d",
    features=[Feature("fare", "decimal(10,2)"), Feature("note")],
)
SUMS = FeatureView(
    "sums",
    source="warehouse.facts",
    entities=[ZONE],
    event_timestamp="seen",
    features=[
        Aggregate("rides", "count", windows=["1h", "1d"]),
        Aggregate("paid", "sum", column="fare", windows=["1d"]),
    ],
)
TOWN = FeatureView(
    "town", source="warehouse.city", entities=[], event_timestamp="seen", features=[Feature("trips", "bigint")]
)


def everything(state: FeatureView = STATE, sums: FeatureView = SUMS, town: FeatureView = TOWN) -> list[Any]:
    """Return all definitions."""
    return [state, sums, town, FeatureService("tips", features=[state, sums, town])]


TIPS = everything()[-1]


def hours(number: float) -> int:
    """Return the instant that lies some hours after noon, in µs."""
    return AT + round(number * HOUR)


def moment(micros: int) -> dt.datetime:
    """Return an instant as users give it."""
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)


def facts(*rows: tuple[Any, ...]) -> pa.Table:
    """Return rows of the facts: zone, seen and made in hours after noon, fare, note."""
    columns: dict[str, list[Any]] = {name: [row[place] for row in rows] for place, name in enumerate(FACT_TYPES)}
    for name in ("seen", "made"):
        columns[name] = [None if value is None else hours(value) for value in columns[name]]
    return typed(FACT_TYPES, columns)


def city(*rows: tuple[float, int]) -> pa.Table:
    """Return rows of the city's table: seen in hours after noon, trips."""
    return typed(CITY_TYPES, {"seen": [hours(row[0]) for row in rows], "trips": [row[1] for row in rows]})


def typed(types: Mapping[str, str], columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Return columns as Arrow; decimals may be text."""
    from decimal import Decimal

    exact = {
        name: [
            Decimal(value) if isinstance(value, str) and types[name].startswith("DECIMAL") else value
            for value in values
        ]
        for name, values in columns.items()
    }
    return arrow_table(types, exact)


class Clock:
    """A clock that moves one millisecond per look, towards noon."""

    def __init__(self) -> None:
        self.now = NOON - dt.timedelta(seconds=10)

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(milliseconds=1)
        return self.now


@functools.cache
def _template() -> Path:
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    OnlineLake(root).build()
    return root / "lake"


class OnlineLake(FeatureLake):
    """A lake with a feature store over it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._open(root)

    def _open(self, root: Path) -> None:
        self.root = root
        self.storage = Storage(root / "lake")
        self.clock = Clock()
        self.store = self.another()
        self.catalog = self.store.lake.catalog

    def build(self) -> None:
        """Fill both tables and apply everything: snapshot 3."""
        self.put(
            FACT_TYPES, [facts((1, -3, None, "10.00", "a"), (1, -0.5, None, "2.50", None), (2, -30, None, "7.25", "b"))]
        )
        self.put(CITY_TYPES, [city((-12, 100))], CITY)
        self.store.apply(everything())

    @classmethod
    def built(cls, root: Path) -> OnlineLake:
        """Return a lake as `build` leaves it, as a copy of one that was built before."""
        shutil.copytree(_template(), root / "lake", dirs_exist_ok=True)
        return cls.opened(root)

    @classmethod
    def opened(cls, root: Path) -> OnlineLake:
        """Return a lake that is there already; what it writes gets names of its own."""
        lake = cls.__new__(cls)
        lake._open(root)
        lake._written = 1_000 + int.from_bytes(os.urandom(4))
        return lake

    def at(self, micros: int) -> OnlineLake:
        """Move the clock to an instant, and return the lake."""
        self.clock.now = moment(micros)
        return self

    def another(self) -> FeatureStore:
        """Return a store as another process would open it."""
        return FeatureStore(self.root / "lake", clock=self.clock)

    @property
    def directory(self) -> Path:
        """Where the generations are."""
        return Path(self.store.lake.settings.online.path)

    @property
    def files(self) -> dict[str, str]:
        """The file of each view in the generation that is served."""
        manifest = self.store.online.current()
        return {} if manifest is None else {name: view.file for name, view in manifest.views.items()}

    @property
    def pins(self) -> dict[str, int]:
        """The pins of generations: generation → snapshot."""
        pins = Pins(self.storage).list()
        return {
            pin.name.removeprefix("generation."): pin.snapshot for pin in pins if pin.name.startswith("generation.")
        }

    @property
    def executions(self) -> list[Execution]:
        """The materializations, newest first."""
        return [execution for execution in Executions(self.storage).list() if execution.kind == "materialize"]

    def state(self, zone: Any = 1, at: Any = None, features: Any = "tips") -> dict[str, Any]:
        """Return the features of one zone from another store object; the instant may be in µs."""
        at = moment(at) if isinstance(at, int) else at
        answer = self.another().get_online_features(features, [{"zone": zone}], at=at)
        return {name: values[0] for name, values in answer.to_dict().items() if name != "zone"}


__all__ = ["FACTS", "Clock", "OnlineLake", "Snapshot", "city", "facts", "hours", "moment", "typed"]
