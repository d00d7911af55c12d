"""Retrieval: every path equals the oracle, cell for cell; what jobs return, and what they report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings

sys.path.append(str(Path(__file__).parent))  # the oracle lies beside the tests

from feature_lake import FeatureLake, case_lake
from oracle import answers, cells_of, differences, excluded, rows_of, spine_of

from featurestore.retrieval import RetrievalJob, retrieve
from featurestore.testing.histories import Case, aggregate_cases, feature_cases
from lakehouse.settings import LakeSettings, Resources, Settings

SLOW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def job_of(lake: FeatureLake, case: Case, **options: Any) -> RetrievalJob:
    bound = lake.bind(case.view)
    return retrieve(
        lake.snapshot,
        Settings(project=lake.root, lake=LakeSettings(str(lake.root)), resources=Resources(memory="500MB", threads=1)),
        {case.view.name: bound},
        [case.projection],
        options.pop("frame", case.spine),
        timestamp=case.timestamp,
        corrections=case.corrections,
        **options,
    )


def check(lake: FeatureLake, case: Case) -> RetrievalJob:
    bound = lake.bind(case.view)
    rows = rows_of(case.history)
    spine = spine_of(case.spine, case.spine_keys, case.timestamp)
    expected = answers(bound, rows, spine, features=case.asked, corrections=case.corrections)
    job = job_of(lake, case)
    table = job.to_arrow()
    names = job.asked[0].names
    got = cells_of([table.column(name) for name in names], [job.statuses().column(n).to_pylist() for n in names])
    if not got:
        got = [[] for _ in spine]
    assert differences(expected, got, spine) == []
    assert table.select(case.spine.column_names).equals(case.spine)
    report = job.report.views[0]
    assert report.spine_rows == len(spine) == report.present + report.null + report.expired + report.not_found
    if report.without_key < len(spine):
        assert report.rows_excluded == excluded(bound, rows)
    return job


@given(feature_cases())
@SLOW
def test_lookups_equal_the_oracle(case: Case) -> None:
    with case_lake(case) as lake:
        check(lake, case)


@given(aggregate_cases())
@SLOW
def test_aggregates_equal_the_oracle(case: Case) -> None:
    with case_lake(case) as lake:
        check(lake, case)
