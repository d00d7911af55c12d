"""Proof that online equals offline: sampled answers are computed both ways and compared, value for value.

The offline side runs at the snapshot that the generation was built from, so a difference is never one of age.
"""

from __future__ import annotations

import html
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featurestore.codec import KeyCodec, arrow_type
from featurestore.instants import micros_text
from featurestore.pit import is_dated
from featurestore.request import Asked, resolve
from featurestore.retrieval import retrieve
from featurestore.statuses import STATUSES
from lakehouse.errors import ConflictError, RequestError
from lakehouse.session import Session
from lakehouse.types import plural, quote

if TYPE_CHECKING:
    from featurestore.binding import BoundView
    from featurestore.definitions import Projection
    from featurestore.generations import Manifest
    from featurestore.online import OnlineStore, Reader
    from featurestore.serving import Serving
    from lakehouse.catalog import Snapshot
    from lakehouse.settings import Settings

__all__ = ["Mismatch", "ParityReport", "verify"]

_SHOWN = 10
_SCAN = 100_000


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One value that differs.

    Parameters
    ----------
    entity
        The join keys.
    at
        The instant asked for, UTC text.
    feature
        The answer's column.
    online, offline
        The value and status on either side.
    """

    entity: Mapping[str, Any]
    at: str
    feature: str
    online: tuple[Any, str]
    offline: tuple[Any, str]


@dataclass(frozen=True)
class ParityReport:
    """What was compared, and what differed.

    Parameters
    ----------
    service
        What was asked for.
    generation, snapshot, at
        The generation, its snapshot, and its instant (UTC text).
    rows
        Lookups that were made both ways: distinct pairs of entity and instant.
    instants
        Distinct instants among them.
    values
        Values compared: rows × features.
    statuses
        How often each status was the answer offline; they add up to ``values``.
    mismatches
        The differing values.
    """

    service: str
    generation: str
    snapshot: int
    at: str
    rows: int
    instants: int
    values: int
    statuses: Mapping[str, int]
    mismatches: tuple[Mismatch, ...] = field(default=())

    @property
    def same(self) -> bool:
        """Whether every value and status was the same."""
        return not self.mismatches

    def text(self) -> list[str]:
        """Return the report, line by line."""
        counted = " + ".join(f"{count:,} {name}" for name, count in self.statuses.items())
        same, asked = (
            self.values - len(self.mismatches),
            f"{plural(self.rows, 'lookup')} at {plural(self.instants, 'instant')}",
        )
        values = f"{plural(self.values, 'value')} {'is' if self.values == 1 else 'are'} the same online and offline"
        lines = [
            f"{self.service}: {same:,} of {values} ({asked})",
            f"  {self.values:,} = {counted}",
            f"  generation {self.generation} of snapshot {self.snapshot}, instants from {self.at} on",
        ]
        for mismatch in self._shown():
            entity = ", ".join(f"{key}={value!r}" for key, value in mismatch.entity.items())
            lines.append(
                f"  DIFFERS {mismatch.feature} of {entity} at {mismatch.at}: online {_shown(mismatch.online)}, "
                f"offline {_shown(mismatch.offline)}"
            )
        if len(self.mismatches) > _SHOWN:
            lines.append(f"  … and {len(self.mismatches) - _SHOWN:,} more")
        return lines

    def _shown(self) -> Sequence[Mismatch]:
        """Return some of the mismatches, of as many features as possible, in their order."""
        met: Counter[str] = Counter()
        rounds = []
        for place, mismatch in enumerate(self.mismatches):
            rounds.append((met[mismatch.feature], place))
            met[mismatch.feature] += 1
        return [self.mismatches[place] for place in sorted(place for _, place in sorted(rounds)[:_SHOWN])]

    def __repr__(self) -> str:
        return "\n".join(self.text())

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def verify(
    store: OnlineStore,
    serving: Serving,
    manifest: Manifest,
    snapshot: Snapshot,
    *,
    settings: Settings,
    projections: Sequence[Projection],
    service: str,
    sample: int = 200,
    seed: int = 0,
) -> ParityReport:
    """Ask for sampled entities at sampled instants online and offline, and compare.

    Parameters
    ----------
    manifest
        The current generation.
    snapshot
        The snapshot that it was built from.
    service
        How the report calls what was asked.
    sample
        Number of lookups of known entities, half of them taken from the generation and half from the lake (fewer where
        they would repeat each other); pairs of keys that may not belong together, and null keys, come on top.
    seed
        Of the sample; the same generation and seed give the same sample.

    Raises
    ------
    RequestError
        If the sample is of less than one lookup.
    ConflictError
        If another generation is published meanwhile.
    """
    if sample < 1:
        raise RequestError(f"a sample of {sample} lookups compares nothing: sample must be at least 1")
    views = {name: file.view for name, file in manifest.views.items()}
    asked = resolve(projections, views, full_feature_names=True)
    chance = random.Random(seed)  # noqa: S311 - a sample, no secret
    reader = store.open(manifest, dict.fromkeys(one.view.name for one in asked))
    try:
        with Session(snapshot, memory=settings.resources.memory, threads=settings.resources.threads) as session:
            entities = _entities(_Known(reader, session, seed, chance), asked, sample, chance)
    finally:
        reader.close()
    rows = len(next(iter(entities.values()))) if entities else sample
    question = _Question(projections, asked, *_distinct(entities, _instants(manifest, asked, rows, chance)))
    online = _online(serving, manifest, question)
    offline = _offline(snapshot, settings, views, question)
    counts = Counter(status for statuses in offline.statuses.values() for status in statuses)
    return ParityReport(
        service=service,
        generation=manifest.id,
        snapshot=manifest.snapshot,
        at=micros_text(manifest.at),
        rows=len(question.instants),
        instants=len(set(question.instants)),
        values=counts.total(),
        statuses={status: counts[status] for status in STATUSES},
        mismatches=tuple(_mismatches(question, online, offline)),
    )


@dataclass(frozen=True, slots=True)
class _Question:
    """What both sides are asked: features of entities, row by row at an instant of its own."""

    projections: Sequence[Projection]
    asked: Sequence[Asked]
    entities: Mapping[str, list[Any]]
    instants: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Cells:
    """One side's answer: values and statuses by column, row by row."""

    values: dict[str, list[Any]]
    statuses: dict[str, list[str]]


# -- the sample -----------------------------------------------------------------------------------------------------


def _entities(known: _Known, asked: Sequence[Asked], sample: int, chance: random.Random) -> dict[str, list[Any]]:
    """Return values for every join key that is asked for, as columns: known ones, odd pairs of them, nulls.

    Where there are few entities they come again and again, each time at another instant.
    """
    views: dict[tuple[str, ...], list[BoundView]] = {}
    for one in asked:
        if one.keys:
            views.setdefault(one.keys, []).append(one.view)
    columns: dict[str, list[Any]] = {}
    for names, keyed in views.items():
        share = -(-sample // (2 * len(keyed)))
        found = [key for view in keyed for key in (*known.online(view, share), *known.offline(view, share))]
        entities = list(dict.fromkeys(found))
        chance.shuffle(entities)
        for place, name in enumerate(names):
            columns.setdefault(name, [key[place] for key in entities])
    for name, values in columns.items():
        columns[name] = [values[row % len(values)] if values else None for row in range(sample)]
    for values in columns.values():
        mixed = list(values)
        chance.shuffle(mixed)
        # Pairs that belong together, pairs that may not, and a null.
        values.extend(mixed[: max(1, sample // 10)])
        values.append(None)
    return columns


class _Known:
    """The entities that the generation knows, and those that the lake knows: either may lack some."""

    def __init__(self, reader: Reader, session: Session, seed: int, chance: random.Random) -> None:
        self._reader = reader
        self._session = session
        self._seed = seed
        self._chance = chance

    def online(self, view: BoundView, count: int) -> list[tuple[Any, ...]]:
        """Return the keys of some entities of the generation."""
        codec = KeyCodec([key.type for key in view.keys])
        return _sampled(self._reader.keys(view.name), codec, count, self._chance)

    def offline(self, view: BoundView, count: int) -> list[tuple[Any, ...]]:
        """Return the keys of some entities of the source."""
        codec = KeyCodec([key.type for key in view.keys])
        names = [f"s.{quote(key.name)}" for key in view.keys]
        listed = ", ".join(names)
        conditions = " and ".join([is_dated(view), *(f"{name} is not null" for name in names)])
        table = self._session.sql(
            f"select {listed} from ({view.source}\n) as s where {conditions} group by {listed} "
            f"order by hash({listed}, {self._seed}), {listed} limit {count}"
        ).to_arrow()
        encoded = codec.encode([column.combine_chunks() for column in table.columns]).to_pylist()
        keys = [codec.decode(key) for key in encoded if key is not None]
        return [key for key in keys if key is not None]  # of long ones only the hash is stored


def _sampled(keys: Any, codec: KeyCodec, sample: int, chance: random.Random) -> list[tuple[Any, ...]]:
    """Return a uniform sample of the first many keys (reservoir sampling, algorithm R of Vitter 1985)."""
    kept: list[tuple[Any, ...]] = []
    seen = 0
    for key in keys:
        values = codec.decode(bytes(key))
        if values is None:  # only its hash is stored
            continue
        seen += 1
        if len(kept) < sample:
            kept.append(values)
        elif (place := chance.randrange(seen)) < sample:
            kept[place] = values
        if seen >= _SCAN:
            break
    return kept


def _distinct(entities: Mapping[str, list[Any]], instants: Sequence[int]) -> tuple[dict[str, list[Any]], list[int]]:
    """Return the lookups without those that come again."""
    rows = list(dict.fromkeys(zip(instants, *entities.values(), strict=True)))
    return {name: [row[place] for row in rows] for place, name in enumerate(entities, start=1)}, [
        row[0] for row in rows
    ]


def _instants(manifest: Manifest, asked: Sequence[Asked], rows: int, chance: random.Random) -> list[int]:
    """Return an instant for every row: the generation's own, and where values change: hops, windows, TTLs."""
    at = manifest.at
    steps = {0, 1}
    for one in asked:
        ttl, delay = one.view.ttl, one.view.delay
        if ttl is not None:
            steps |= {ttl + delay, ttl + delay + 1, ttl // 2}
        for feature in one.features:
            if feature.windowed is not None and feature.windowed.hop is not None:
                hop, window = feature.windowed.hop, feature.windowed.window
                boundary = hop - (at - delay) % hop
                steps |= {boundary - 1, boundary, boundary + 1, boundary + window // 2, boundary + window}
    known = sorted(steps)
    few = [at + chance.choice(known) for _ in range(8)] + [at]
    few += [at + chance.randrange(1, max(known) + 2) for _ in range(4)]
    return [chance.choice(few) for _ in range(rows)]


# -- both sides -----------------------------------------------------------------------------------------------------


def _online(serving: Serving, manifest: Manifest, question: _Question) -> _Cells:
    """Ask online: one request for all rows of the same instant."""
    places: dict[int, list[int]] = {}
    for place, instant in enumerate(question.instants):
        places.setdefault(instant, []).append(place)
    names = [name for one in question.asked for name in one.names]
    rows = len(question.instants)
    cells = _Cells({name: [None] * rows for name in names}, {name: [""] * rows for name in names})
    for instant, mine in places.items():
        entities: Any = {name: [column[place] for place in mine] for name, column in question.entities.items()}
        answer = serving.get(question.projections, entities or [{}] * len(mine), at=instant, full_feature_names=True)
        if answer.stamp.generation != manifest.id:
            raise ConflictError(
                f"generation {answer.stamp.generation} was published while {manifest.id} was compared with the lake",
                hint="Run it again.",
            )
        values, statuses = answer.to_arrow(), answer.statuses()
        for name in names:
            for place, value, status in zip(mine, values.column(name).to_pylist(), statuses[name], strict=True):
                cells.values[name][place], cells.statuses[name][place] = value, status
    return cells


def _offline(snapshot: Snapshot, settings: Settings, views: Mapping[str, BoundView], question: _Question) -> _Cells:
    """Ask offline: all rows at once."""
    import pyarrow as pa

    types = {name: key.type for one in question.asked for name, key in zip(one.keys, one.view.keys, strict=True)}
    columns = {name: pa.array(column, arrow_type(types[name])) for name, column in question.entities.items()}
    time = "asked_at"
    taken = {name.lower() for name in (*columns, *(name for one in question.asked for name in one.names))}
    while time in taken:
        time = f"_{time}"
    columns[time] = pa.array(question.instants, pa.timestamp("us", "UTC"))
    job = retrieve(
        snapshot, settings, views, question.projections, pa.table(columns), timestamp=time, full_feature_names=True
    )
    table, statuses = job.to_arrow(), job.statuses()
    return _Cells(
        {name: table.column(name).to_pylist() for name in statuses.column_names},
        {name: statuses.column(name).to_pylist() for name in statuses.column_names},
    )


def _mismatches(question: _Question, online: _Cells, offline: _Cells) -> Iterator[Mismatch]:
    for name, expected in offline.values.items():
        for place, value in enumerate(expected):
            want = (value, offline.statuses[name][place])
            got = (online.values[name][place], online.statuses[name][place])
            if want[1] != got[1] or not _same(want[0], got[0]):
                entity = {key: column[place] for key, column in question.entities.items()}
                yield Mismatch(entity, micros_text(question.instants[place]), name, got, want)


def _same(left: Any, right: Any) -> bool:
    """Return whether two values are the same to the last bit; any NaN is the same as any other."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)
    return bool(left == right)


def _shown(cell: tuple[Any, str]) -> str:
    value, status = cell
    return status if value is None else f"{value!r} ({status})"
