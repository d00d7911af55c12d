"""Online answers against raw LMDB gets of the same keys from the same files; materialization against writing its bytes.

The lake has three views of ten plain features each (numbers, text, decimals, a boolean; two rows of history per
entity), another one has a view of 5 windows × 4 aggregates. Lookups go the whole way that users go: service name,
entity rows, pointer, keys, reads, TTL, statuses, answer. The floor has its keys encoded and its files open, and does
nothing with what it finds; its bytes are decoded after the clock has stopped, and the answers compared.

Goals: a single lookup ≤ 2.5 × (never above 10 ×), 1,000 entities to Arrow ≤ 1.5 ×, materialization ≤ 1.5 ×.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import child, compare, timed

DATA = Path(__file__).parent / "data"
_MODULE = "benchmarks.bench_online"
_VIEWS = ("profile", "spending", "usage")
_SERVICE = "customers"
_NAMES = ("clicks", "visits", "score", "ratio", "spent", "owed", "vendor", "member", "distance", "rank")
_HISTORY = 2  # rows per entity and view
_EVENTS = 10  # per entity
_AT = dt.datetime(2020, 4, 1, tzinfo=dt.UTC)
_LOOKUPS = 30_000
_MANY, _ROUNDS = 1_000, 60
_CHECKED = 2_000
_FACTS = """
(i % {entities})::bigint as customer,
timestamptz '2020-01-01' + to_microseconds((hash(i + 7 * {salt}) % 7776000000000)::bigint) as seen,
(hash(i + {salt}) % 1000000)::bigint as {view}_clicks, (hash(i + 2 * {salt}) % 1000)::integer as {view}_visits,
hash(i + 3 * {salt}) / 1e15 as {view}_score,
case when i % 11 = 0 then null else hash(i + 4 * {salt}) / 1e15 end as {view}_ratio,
(hash(i + 5 * {salt}) % 100000 / 100)::decimal(10,2) as {view}_spent,
(hash(i + 6 * {salt}) % 100000 / 100)::decimal(10,2) as {view}_owed,
'vendor ' || (hash(i + 8 * {salt}) % 1000) as {view}_vendor, (hash(i + {salt}) % 2 = 0) as {view}_member,
hash(i + 9 * {salt}) / 1e10 as {view}_distance, (hash(i + 10 * {salt}) % 5000)::bigint as {view}_rank"""
_EVENT = """
(hash(i) % {entities})::bigint as customer,
timestamptz '2020-01-01' + to_microseconds((hash(i + 7) % 7776000000000)::bigint) as seen,
(hash(i + 5) % 100000 / 100)::decimal(10,2) as amount, (hash(i + 1) % 50)::integer as items"""


# -- the lakes ------------------------------------------------------------------------------------------------------


def prepare(entities: int) -> list[str]:
    """Make a lake with three plain views and one with a view of aggregates, each with a generation."""
    DATA.mkdir(exist_ok=True)
    return [
        str(_lake(f"online-{entities}", entities, _plain)),
        str(_lake(f"online-events-{entities}", entities, _events)),
    ]


def _lake(name: str, entities: int, fill: Callable[[Path, int], None]) -> Path:
    from lakehouse.catalog import Catalog
    from lakehouse.storage import Storage

    root, partial = DATA / name, DATA / f"{name}.part"
    if not root.exists():
        shutil.rmtree(partial, ignore_errors=True)
        Catalog(Storage(partial)).create()
        fill(partial, entities)
        _store(str(partial)).materialize(at=_AT)
        partial.rename(root)
    return root


def _plain(root: Path, entities: int) -> None:
    from featurestore import Entity, Feature, FeatureService, FeatureView

    views = []
    for salt, view in enumerate(_VIEWS, start=1):
        _table(root, view, _FACTS.format(entities=entities, salt=salt * 1_000_003, view=view), entities * _HISTORY)
        features = [Feature(f"{view}_{name}") for name in _NAMES]
        views.append(
            FeatureView(view, f"warehouse.{view}", [Entity("customer")], features, "seen", ttl="20000d", online=True)
        )
    _store(str(root)).apply([*views, FeatureService(_SERVICE, features=views)])


def _events(root: Path, entities: int) -> None:
    from featurestore import Aggregate, Entity, FeatureService, FeatureView

    _table(root, "events", _EVENT.format(entities=entities), entities * _EVENTS)
    windows = ["1h", "6h", "1d", "7d", "30d"]
    features = [
        Aggregate("events", "count", windows=windows),
        Aggregate("amount", "sum", column="amount", windows=windows),
        Aggregate("mean_amount", "mean", column="amount", windows=windows),
        Aggregate("items", "max", column="items", windows=windows),
    ]
    view = FeatureView("events", "warehouse.events", [Entity("customer")], features, "seen", online=True)
    _store(str(root)).apply([view, FeatureService(_SERVICE, features=[view])])


def _table(root: Path, name: str, columns: str, rows: int) -> None:
    import duckdb

    from lakehouse import delta
    from lakehouse.catalog import Catalog, Change, TableChange
    from lakehouse.delta import ColumnSchema, TableSchema
    from lakehouse.storage import Storage
    from lakehouse.types import TableName

    storage = Storage(root)
    catalog = Catalog(storage)
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    described = connection.execute(f"describe select {columns} from range(1) r(i)").fetchall()
    schema = TableSchema(tuple(ColumnSchema(name, type_) for name, type_, *_ in described))
    address = storage.prepare(f"warehouse/{name}/part-0.parquet")
    # In no order: the entities of a history are spread over it.
    query = f"select {columns} from (select i from range({rows}) r(i) order by hash(i)) r"
    connection.execute(f"copy ({query}) to '{address}' (compression zstd)")
    change = TableChange(schema, (delta.measure(storage, f"warehouse/{name}", "part-0.parquet", schema),))
    catalog.publish(catalog.latest(), Change("promote", "benchmark", tables={TableName("warehouse", name): change}))


def _store(root: str) -> Any:
    from featurestore import FeatureStore

    return FeatureStore(root)


def _customers(entities: int, count: int, seed: int = 0) -> list[int]:
    chance = random.Random(seed)
    return [chance.randrange(entities) for _ in range(count)]


# -- the floor ------------------------------------------------------------------------------------------------------


class _Raw:
    """The files of the current generation, opened as the store opens them, and nothing around them."""

    def __init__(self, root: str) -> None:
        import lmdb

        from featurestore.codec import KeyCodec

        store = _store(root)
        self.manifest = store.online.current()
        self._directory = store.lake.settings.online.path / "views"
        self._opened = []
        self.gets = []
        for file in self.manifest.views.values():
            path = self._directory / file.file
            self._opened.append(
                lmdb.open(
                    str(path),
                    subdir=False,
                    readonly=True,
                    lock=False,
                    readahead=False,
                    max_readers=1,
                    map_size=path.stat().st_size,
                )
            )
            transaction = self._opened[-1].begin()
            self._opened.append(transaction)
            self.gets.append(transaction.get)
        self._encode = KeyCodec(["BIGINT"]).encode_one

    def keys(self, customers: Sequence[int]) -> list[bytes]:
        return [key for key in (self._encode((customer,)) for customer in customers) if key is not None]

    def answers(self, customers: Sequence[int]) -> list[dict[str, list[Any]]]:
        """Return what lookups should return, from the bytes. Plain views only; nothing has expired."""
        from featurestore.codec import RowCodec, Sections
        from featurestore.layout import PlainLayout

        answers = []
        views = [(file.view, RowCodec(PlainLayout(file.view).types)) for file in self.manifest.views.values()]
        for customer, key in zip(customers, self.keys(customers), strict=True):
            answer: dict[str, list[Any]] = {"customer": [customer]}
            for get, (view, codec) in zip(self.gets, views, strict=True):
                packed = get(key)
                sections = Sections(packed)
                row = codec.decode(packed, *sections.row(0, sections.count(0) - 1))
                answer |= {feature.name: [value] for feature, value in zip(view.features, row[1:], strict=True)}
            answers.append(answer)
        return answers


def _digest(answers: Sequence[dict[str, list[Any]]]) -> str:
    """Return a hash of values and their order."""
    return hashlib.sha256(repr([sorted(answer.items()) for answer in answers]).encode()).hexdigest()


# -- one entity -----------------------------------------------------------------------------------------------------


def raw_gets_one(root: str, entities: int) -> str:
    """The floor: three gets per lookup."""
    raw, customers = _Raw(root), _customers(entities, _LOOKUPS)
    first, second, third = raw.gets
    keys = raw.keys(customers)
    _warm(first, second, third, keys=keys[-1_000:])
    with timed():
        for key in keys:
            first(key)
            second(key)
            third(key)
    return _digest(raw.answers(customers[:_CHECKED]))


def _warm(*gets: Callable[[bytes], Any], keys: Sequence[bytes]) -> None:
    for key in keys:
        for get in gets:
            get(key)


def penstock_one(root: str, entities: int) -> str:
    """The same lookups through the feature store, each to a dict."""
    store, customers = _store(root), _customers(entities, _LOOKUPS)
    ask = store.get_online_features
    for customer in customers[-1_000:]:
        ask(_SERVICE, [{"customer": customer}]).to_dict()
    with timed():
        for customer in customers:
            ask(_SERVICE, [{"customer": customer}]).to_dict()
    return _digest([ask(_SERVICE, [{"customer": customer}]).to_dict() for customer in customers[:_CHECKED]])


def latency_raw(root: str, entities: int) -> list[float]:
    """Return the 50th and 99th percentile of one lookup's three gets, seconds."""
    raw = _Raw(root)
    first, second, third = raw.gets

    def lookup(key: bytes) -> None:
        first(key)
        second(key)
        third(key)

    return _percentiles(lookup, raw.keys(_customers(entities, _LOOKUPS)))


def latency_penstock(root: str, entities: int) -> list[float]:
    """Return the 50th and 99th percentile of one lookup to a dict, seconds."""
    ask = _store(root).get_online_features

    def lookup(customer: int) -> None:
        ask(_SERVICE, [{"customer": customer}]).to_dict()

    return _percentiles(lookup, _customers(entities, _LOOKUPS))


def _percentiles(lookup: Callable[[Any], None], keys: Sequence[Any]) -> list[float]:
    clock, taken = time.perf_counter, []
    for key in keys[-1_000:]:
        lookup(key)
    with timed():
        for key in keys:
            started = clock()
            lookup(key)
            taken.append(clock() - started)
    cuts = statistics.quantiles(taken, n=100)
    return [cuts[49], cuts[98]]


# -- many entities --------------------------------------------------------------------------------------------------


def raw_gets_many(root: str, entities: int) -> str:
    """The floor: 3,000 gets per request."""
    raw = _Raw(root)
    requests = [_customers(entities, _MANY, seed) for seed in range(_ROUNDS)]
    keys = [raw.keys(customers) for customers in requests]
    for get in raw.gets:
        [get(key) for key in keys[-1]]
    with timed():
        for request in keys:
            for get in raw.gets:
                [get(key) for key in request]
    return _digest([_columns(raw.answers(requests[0]))])


def _columns(answers: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    return {name: [answer[name][0] for answer in answers] for name in answers[0]}


def penstock_many(root: str, entities: int) -> str:
    """The same requests through the feature store, each to an Arrow table."""
    store = _store(root)
    requests = [_customers(entities, _MANY, seed) for seed in range(_ROUNDS)]
    store.get_online_features(_SERVICE, {"customer": requests[-1]}).to_arrow()
    with timed():
        for customers in requests:
            store.get_online_features(_SERVICE, {"customer": customers}).to_arrow()
    return _digest([store.get_online_features(_SERVICE, {"customer": requests[0]}).to_arrow().to_pydict()])


# -- aggregates -----------------------------------------------------------------------------------------------------


def raw_get_aggregates(root: str, entities: int) -> int:
    """The floor: one get per lookup."""
    raw = _Raw(root)
    (get,) = raw.gets
    keys = raw.keys(_customers(entities, _LOOKUPS))
    _warm(get, keys=keys[-1_000:])
    with timed():
        for key in keys:
            get(key)
    return len(keys)


def penstock_aggregates(root: str, entities: int) -> int:
    """5 windows × 4 aggregates of one entity, to a dict."""
    ask = _store(root).get_online_features
    customers = _customers(entities, _LOOKUPS)
    for customer in customers[-1_000:]:
        ask(_SERVICE, [{"customer": customer}], at=_AT).to_dict()
    with timed():
        for customer in customers:
            ask(_SERVICE, [{"customer": customer}], at=_AT).to_dict()
    return len(customers)


# -- materialization ------------------------------------------------------------------------------------------------


def write_bytes(root: str) -> str:
    """The floor: the files of the generation, written from memory to the same disk and made durable."""
    raw = _Raw(root)
    path = _store(root).lake.settings.online.path / "views"
    content = [(path / file.file).read_bytes() for file in raw.manifest.views.values()]
    with tempfile.TemporaryDirectory(dir=DATA) as directory, timed():
        for number, data in enumerate(content):
            with (Path(directory) / str(number)).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
    return _content(raw)


def penstock_materialize(root: str) -> str:
    """Fold, pack, load, seal, publish; all views anew."""
    import duckdb  # noqa: F401 - imports are not what is measured
    import pyarrow.parquet  # noqa: F401
    from deltalake import DeltaTable  # noqa: F401

    import featurestore.materialization  # noqa: F401

    store = _store(root)
    with timed():
        store.materialize(at=_AT, full=True)
    return _content(_Raw(root))


def _content(raw: _Raw) -> str:
    digest = hashlib.sha256()
    for transaction in raw._opened[1::2]:
        for key, value in transaction.cursor():
            digest.update(key + value)
    return digest.hexdigest()


# -- report ---------------------------------------------------------------------------------------------------------


def run(*, full: bool, repeats: int) -> str:
    """Return the benchmark's report."""
    entities = 1_000_000 if full else 100_000
    # In another process: what this one has had in memory would count as the contenders'.
    plain, events = child(_MODULE, "prepare", {"entities": entities})["checksum"]
    asked: dict[str, Any] = {"root": plain, "entities": entities}
    size = f"{entities:,} entities"
    reports = [
        compare(
            _MODULE,
            ["raw_gets_one", "penstock_one"],
            asked,
            repeats=repeats,
            title=f"Online, {_LOOKUPS:,} × 1 entity × 30 features from 3 views to a dict, {size}",
        ),
        _latencies(asked),
        compare(
            _MODULE,
            ["raw_gets_many", "penstock_many"],
            asked,
            repeats=repeats,
            title=f"Online, {_ROUNDS} × {_MANY:,} entities × 30 features to Arrow, {size}",
        ),
        compare(
            _MODULE,
            ["raw_get_aggregates", "penstock_aggregates"],
            {"root": events, "entities": entities},
            repeats=repeats,
            title=f"Online, {_LOOKUPS:,} × 1 entity, 5 windows × 4 aggregates to a dict, {size}",
        ),
        compare(
            _MODULE,
            ["write_bytes", "penstock_materialize"],
            {"root": plain},
            repeats=repeats,
            title=f"Materialization, 3 views × 10 features, {size}, {_HISTORY * entities:,} rows each",
        ),
    ]
    return "\n\n".join(reports)


def _latencies(asked: dict[str, Any]) -> str:
    lines = ["| one lookup | p50 µs | p99 µs | p99 / p50 |", "|---|--:|--:|--:|"]
    for name in ("latency_raw", "latency_penstock"):
        middle, late = (seconds * 1e6 for seconds in child(_MODULE, name, asked)["checksum"])
        lines.append(f"| {name} | {middle:.1f} | {late:.1f} | {late / middle:.1f} |")
    return "\n".join(lines)
