"""Online answers from a folded generation equal the oracle, at every instant from the generation's own on."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings

sys.path.append(str(Path(__file__).parent))  # the oracle lies beside the tests

import oracle
from feature_lake import FeatureLake, case_lake

from featurestore.binding import BoundView
from featurestore.codec import RowCodec, unpack_sections
from featurestore.definitions import Aggregate, Entity, Feature, FeatureView, Projection
from featurestore.folding import Folded, Folding, fold
from featurestore.generations import Manifest, ViewFile
from featurestore.online.memory import MemoryStore
from featurestore.serving import Serving
from featurestore.statuses import STATUSES
from featurestore.testing.histories import Case, aggregate_cases, arrow_table, cases, feature_cases
from lakehouse.types import new_ulid, utc_now, utc_text


def served(lake: FeatureLake, case: Case) -> Serving:
    """Fold a case's view and serve it from memory."""
    store = MemoryStore()
    materialized(lake, case, store, None)
    return Serving(store, lake=lambda: "lake")


def materialized(lake: FeatureLake, case: Case, store: MemoryStore, expected: str | None) -> str:
    """Publish a generation of a case's view, and return its id."""
    view = lake.bind(case.view)
    with lake.session() as session:
        folded = fold(view, session, case.at)
    return published(store, view, folded, case.at, snapshot=lake.snapshot.number, expected=expected)


def serving_of(view: BoundView, folded: Folded, at: int) -> Serving:
    store = MemoryStore()
    published(store, view, folded, at)
    return Serving(store, lake=lambda: "lake")


def published(
    store: MemoryStore, view: BoundView, folded: Folded, at: int, *, snapshot: int = 1, expected: str | None = None
) -> str:
    file = ViewFile(view, *store.write(view.name, folded.keys, folded.values), len(folded.keys), folded.tail)
    built = utc_now()
    manifest = Manifest.sealed(
        id=new_ulid(built), lake="lake", snapshot=snapshot, at=at, built_at=utc_text(built), views={view.name: file}
    )
    store.publish(manifest, expected=expected)
    return manifest.id


def answered(serving: Serving, case: Case, spine: list[oracle.SpineRow]) -> list[list[oracle.Cell]]:
    """Ask for each spine row by itself, as a server would."""
    cells = []
    for key, instant in spine:
        row: dict[str, Any] = dict(zip(case.spine_keys, key, strict=True))
        answer = serving.get([case.projection], [row], at=instant)
        values, statuses = answer.to_dict(), answer.statuses()
        cells.append([oracle.Cell(values[name][0], statuses[name][0]) for name in statuses])
    return cells


def check(case: Case) -> None:
    view, history = case.bound(), oracle.rows_of(*case.batches)
    everybody = oracle.spine_of(case.spine, case.spine_keys, case.timestamp)
    spine = [(key, instant) for key, instant in everybody if instant is not None and instant >= case.at]
    expected = oracle.answers(view, history, spine, features=case.asked)
    with case_lake(case) as lake:
        assert oracle.differences(expected, answered(served(lake, case), case, spine), spine) == []
        # Neither compaction nor the order of rows within files matters.
        lake.compact(reverse=True)
        again = served(lake, case)
        assert oracle.differences(expected, answered(again, case, spine), spine) == []
        # All rows at once, as columns, at the generation's own instant.
        rows = {name: [key[place] for key, _ in everybody] for place, name in enumerate(case.spine_keys)}
        bulk = again.get([case.projection], rows or [{}] * len(everybody), at=case.at)
        table = bulk.to_arrow()
        same_time = [(key, case.at) for key, _ in everybody]
        columns = [table.column(name) for name in bulk.statuses()]
        codes = [[STATUSES.index(status) for status in column] for column in bulk.statuses().values()]
        at_once = oracle.answers(view, history, same_time, features=case.asked)
        assert oracle.differences(at_once, oracle.cells_of(columns, codes) if same_time else [], same_time) == []


@settings(max_examples=30, deadline=None)
@given(feature_cases(online=True))
def test_online_features_equal_the_oracle(case: Case):
    check(case)


@settings(max_examples=30, deadline=None)
@given(aggregate_cases(online=True))
def test_online_aggregates_equal_the_oracle(case: Case):
    check(case)


@settings(max_examples=25, deadline=None)
@given(cases(online=True))
def test_a_second_generation_and_the_way_back_equal_the_oracle(case: Case):
    """Rows that come late, whatever their event time, reach the next generation; a rollback answers as before them."""
    view = case.bound()
    everybody = oracle.spine_of(case.spine, case.spine_keys, case.timestamp)
    spine = [(key, instant) for key, instant in everybody if instant is not None and instant >= case.at]
    early, whole = oracle.rows_of(case.batches[0]), oracle.rows_of(*case.batches)
    first = oracle.answers(view, early, spine, features=case.asked)
    second = oracle.answers(view, whole, spine, features=case.asked)
    store = MemoryStore()
    serving = Serving(store, lake=lambda: "lake")
    with tempfile.TemporaryDirectory() as root:
        lake = FeatureLake(Path(root))
        before = lake.put(case.types, case.batches[:1])
        built = materialized(lake, case, store, None)
        assert oracle.differences(first, answered(serving, case, spine), spine) == []
        lake.append(*case.batches[1:])
        materialized(lake, case, store, built)
        assert oracle.differences(second, answered(serving, case, spine), spine) == []
        # The online store flips back; the lake goes back, and a third generation is built of it.
        assert store.rollback().id == built
        assert oracle.differences(first, answered(serving, case, spine), spine) == []
        lake.catalog.roll_back(before)
        materialized(lake, case, store, built)
        assert oracle.differences(first, answered(serving, case, spine), spine) == []


# -- shapes that cases rarely have ------------------------------------------------------------------------------------

ZONED = "TIMESTAMP WITH TIME ZONE"
HOUR = 3_600_000_000


def test_entities_are_not_divided_between_batches(tmp_path: Path):
    """More rows than the session streams at once: ties, and rows that become visible later."""
    entities, rows = 60_000, 200_000
    lake = FeatureLake(tmp_path)
    keys = np.arange(rows) % entities
    later = np.arange(rows) >= entities * 3
    table = pa.table({
        "zone": pa.array(keys),
        "seen": pa.array(np.where(later, 2 * HOUR, 0), pa.timestamp("us", "UTC")),
        "fare": pa.array(np.arange(rows)),
    })  # fmt: skip
    types = {"zone": "BIGINT", "seen": ZONED, "fare": "BIGINT"}
    lake.put(types, [table.slice(rows // 2), table.slice(0, rows // 2)])
    view = lake.bind(FeatureView("facts", "warehouse.facts", [Entity("zone")], [Feature("fare")], "seen"))
    with lake.session() as session:
        folding = Folding(view, session, HOUR)
        batches = list(folding)
    assert len(batches) > 1
    assert (folding.entities, folding.tail) == (entities, rows - 3 * entities)
    found = pa.chunked_array([keys for keys, _ in batches]).combine_chunks()
    assert pc.all(pc.less(found[:-1], found[1:])).as_py()  # ascending, each once
    (section,) = unpack_sections(pa.chunked_array([values for _, values in batches]).combine_chunks())
    events, fares = RowCodec(("BIGINT", "BIGINT")).decode_many(section.rows)
    now = section.stamps == HOUR
    assert fares.to_numpy()[now].tolist() == list(range(2 * entities, 3 * entities))
    assert fares.to_numpy()[~now].tolist() == list(range(3 * entities, rows))
    assert set(events.to_numpy()[now]) == {0}
    assert set(section.stamps[~now]) == {2 * HOUR}


def test_events_to_come_are_counted_by_a_view_that_only_counts(tmp_path: Path):
    lake = FeatureLake(tmp_path)
    lake.put({"seen": ZONED}, [arrow_table({"seen": ZONED}, {"seen": [0, HOUR, 2 * HOUR]})])
    view = lake.bind(FeatureView("facts", "warehouse.facts", [], [Aggregate("trips", "count", windows=["1d"])], "seen"))
    with lake.session() as session:
        folded = fold(view, session, 0)
    assert folded.tail == 2
    serving = serving_of(view, folded, 0)
    counts = [serving.get([Projection("facts")], [{}], at=at).to_dict()["trips_1d"] for at in (0, HOUR, 2 * HOUR)]
    assert counts == [[1], [2], [3]]


def test_columns_of_the_source_may_be_called_anything(tmp_path: Path):
    names = ["k0", "stamp", "event", "times", "before", "won", "s", "f0", "a0", "best"]
    types = {"seen": ZONED, **dict.fromkeys(names, "BIGINT")}
    rows = {"seen": [0, HOUR, 2 * HOUR, 0], **{name: [n, n, n, -1] for n, name in enumerate(names)}}
    lake = FeatureLake(tmp_path)
    lake.put(types, [arrow_table(types, rows)])
    features = [Feature(name) for name in names[1:]]
    plain = lake.bind(FeatureView("facts", "warehouse.facts", [Entity("k0")], features, "seen"))
    sums = [Aggregate(f"sum_{name}", "sum", column=name, windows=["1d"]) for name in names[1:]]
    summed = lake.bind(FeatureView("facts", "warehouse.facts", [Entity("k0")], sums, "seen"))
    with lake.session() as session:
        folded = [fold(view, session, HOUR) for view in (plain, summed)]
    for view, one, suffix, prefix, times in ((plain, folded[0], "", "", 1), (summed, folded[1], "_1d", "sum_", 3)):
        answer = serving_of(view, one, HOUR).get([Projection("facts")], [{"k0": 0}], at=3 * HOUR).to_dict()
        assert answer == {"k0": [0], **{f"{prefix}{name}{suffix}": [times * n] for n, name in enumerate(names) if n}}
