"""Sources that hang on the order of rows: what is refused, and what is taken."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the fixture module lies beside the tests

from definition_lake import DEMAND, DefinitionLake

from featurestore.definitions import Aggregate, FeatureView
from lakehouse.errors import DefinitionError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = DefinitionLake(tmp_path_factory.mktemp("built"))
    lake.build()
    return lake.root


@pytest.fixture(scope="module")
def lake(built: Path) -> DefinitionLake:
    """Return a promoted lake, for plans only."""
    return DefinitionLake(built)


def over(columns: str) -> FeatureView:
    return replace(
        DEMAND, source=f"select {columns}", features=[Aggregate("n", "count", windows=["1d"])], history="current"
    )


def refused(lake: DefinitionLake, view: FeatureView) -> str:
    with pytest.raises(DefinitionError) as caught:
        lake.plan_features([view])
    return str(caught.value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("* from warehouse.trips limit 10", "LIMIT takes some rows of many"),
        ("* from warehouse.trips order by seen limit 10", "LIMIT takes some rows of many"),
        ("* from warehouse.trips order by k % 2 limit 10", "LIMIT takes some rows of many"),
        ("k % 2 as k, zone, seen from warehouse.trips order by k limit 2", "LIMIT takes some rows of many"),
        ("* from warehouse.trips limit 10%", "LIMIT takes some rows of many"),
        ("* from warehouse.trips order by zone offset 1", "OFFSET takes some rows of many"),
        ("* from (select * from warehouse.trips limit 3) x", "LIMIT takes some rows of many"),
        ("zone, seen, (select fare from warehouse.trips limit 1) as fare from warehouse.trips", "LIMIT takes"),
        ("distinct on (zone) * from warehouse.trips order by zone, seen", "DISTINCT ON takes some rows of many"),
        ("zone, seen from warehouse.trips union all (from x) limit 1", "LIMIT takes some rows of many"),
        ("*, row_number() over () as n from warehouse.trips", "row_number() OVER without ORDER BY"),
        ("*, row_number() over (partition by zone) as n from warehouse.trips", "row_number() OVER without ORDER BY"),
        ("* from warehouse.trips qualify row_number() over (partition by zone) = 1", "row_number() OVER without"),
        ("*, lag(fare) over (partition by zone) as n from warehouse.trips", "lag() OVER without ORDER BY"),
        ("*, lead(fare) over w as n from warehouse.trips window w as ()", "lead() OVER without ORDER BY"),
        ("*, first_value(fare) over () as n from warehouse.trips", "first_value() OVER without ORDER BY"),
        ("*, last(fare) over () as n from warehouse.trips", "last_value() OVER without ORDER BY"),
        ("*, ntile(3) over () as n from warehouse.trips", "ntile() OVER without ORDER BY"),
        ("*, sum(fare) over (rows 2 preceding) as n from warehouse.trips", "sum() OVER (ROWS …) without ORDER BY"),
        ("zone, max(seen) as seen, first(fare) as fare from warehouse.trips group by zone", "first() takes rows as"),
        ("zone, max(seen) as seen, ANY_VALUE(fare) as fare from warehouse.trips group by zone", "any_value() takes"),
        ("zone, seen, list(fare)[1] as fare from warehouse.trips group by all", "list(… ORDER BY …)"),
        (
            "zone, max(seen) as seen, approx_quantile(fare, 0.5) as m from warehouse.trips group by zone",
            "approx_quantile",
        ),
        ("a.* from warehouse.trips a positional join warehouse.trips b", "POSITIONAL JOIN"),
    ],
)
def test_sources_that_hang_on_the_order_of_rows_are_refused(lake: DefinitionLake, columns: str, words: str):
    columns = columns.replace("(from x)", "(select zone, seen from warehouse.trips)")
    message = refused(lake, over(columns))
    assert message.startswith("feature view 'demand': the source: ")
    assert words in message


@pytest.mark.parametrize(
    "columns",
    [
        "* from warehouse.trips order by all limit 10",
        "* from warehouse.trips order by k desc limit 10",
        "zone, seen, k as id from warehouse.trips t order by t.k limit 10",
        "distinct on (zone) * from warehouse.trips order by zone, seen, k",
        "distinct * from warehouse.trips",
        "*, row_number() over (partition by zone order by seen, k) as n from warehouse.trips",
        "*, lag(fare order by seen, k) over () as n from warehouse.trips",
        "*, sum(fare) over (partition by zone) as n, count(*) over (order by seen) as m from warehouse.trips",
        "*, rank() over () as n from warehouse.trips",
        "zone, max(seen) as seen, first(fare order by k) as fare from warehouse.trips group by zone",
        "zone, max(seen) as seen, string_agg(k::varchar, ',' order by k) as ks from warehouse.trips group by zone",
        "zone, max(seen) as seen, arg_max(fare, k) as fare from warehouse.trips group by zone",  # ties can't be seen
    ],
)
def test_sources_with_an_order_are_taken(lake: DefinitionLake, columns: str):
    lake.plan_features([over(columns)])
