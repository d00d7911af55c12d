"""Online answers from a folded generation equal the oracle, at every instant from the generation's own on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings

sys.path.append(str(Path(__file__).parent))  # the oracle lies beside the tests

import oracle
from feature_lake import FeatureLake, case_lake

from featurestore.binding import BoundView
from featurestore.folding import Folded, fold
from featurestore.generations import Manifest, ViewFile
from featurestore.online.memory import MemoryStore
from featurestore.serving import Serving
from featurestore.statuses import STATUSES
from featurestore.testing.histories import Case, aggregate_cases, feature_cases
from lakehouse.types import new_ulid, utc_now, utc_text


def served(lake: FeatureLake, case: Case, at: int) -> Serving:
    """Fold a case's view and serve it from memory."""
    view = lake.bind(case.view)
    with lake.session() as session:
        folded = fold(view, session, at)
    return serving_of(view, folded, at)


def serving_of(view: BoundView, folded: Folded, at: int) -> Serving:
    store = MemoryStore()
    written = store.write(view.name, folded.keys, folded.values)
    file = ViewFile(view, *written, len(folded.keys), folded.tail)
    built = utc_now()
    manifest = Manifest.sealed(
        id=new_ulid(built), lake="lake", snapshot=1, at=at, built_at=utc_text(built), views={view.name: file}
    )
    store.publish(manifest, expected=None)
    return Serving(store)


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
        assert oracle.differences(expected, answered(served(lake, case, case.at), case, spine), spine) == []
        # Neither compaction nor the order of rows within files matters.
        lake.compact(reverse=True)
        again = served(lake, case, case.at)
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
