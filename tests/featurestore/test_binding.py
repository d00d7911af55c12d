"""Binding: what a view becomes at a snapshot, and every way in which it does not fit its source."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the lake lies beside the tests

from feature_lake import FeatureLake

from featurestore.binding import BoundFeature, BoundView, Column, Windowed, bind, source_sql
from featurestore.definitions import Aggregate, Entity, Feature, FeatureView
from featurestore.testing.histories import arrow_table
from lakehouse.delta import ColumnSchema, arrow_schema
from lakehouse.errors import DefinitionError, RequestError

TIMESTAMPTZ = "TIMESTAMP WITH TIME ZONE"
HOUR, DAY = 3_600_000_000, 86_400_000_000
SCALARS = {
    "a_boolean": "BOOLEAN",
    "a_tinyint": "TINYINT",
    "a_smallint": "SMALLINT",
    "an_integer": "INTEGER",
    "a_bigint": "BIGINT",
    "a_float": "FLOAT",
    "a_double": "DOUBLE",
    "a_varchar": "VARCHAR",
    "a_blob": "BLOB",
    "a_date": "DATE",
    "a_timestamp": "TIMESTAMP",
    "an_instant": TIMESTAMPTZ,
    "a_price": "DECIMAL(10,2)",
    "a_number": "DECIMAL(38,0)",
    "a_share": "DECIMAL(38,38)",
}
TYPES = {"Zone": "VARCHAR", "Seen": TIMESTAMPTZ, "written": TIMESTAMPTZ, **SCALARS}
REFUSED = {
    "hugeint": "HUGEINT",
    "ubigint": "UBIGINT",
    "utinyint": "UTINYINT",
    "integer[]": "INTEGER[]",
    "integer[3]": "INTEGER[3]",
    "struct(a integer)": "STRUCT(a INTEGER)",
    "map(varchar, integer)": "MAP(VARCHAR, INTEGER)",
    "json": "JSON",
    "uuid": "UUID",
    "time": "TIME",
    "timetz": "TIME WITH TIME ZONE",
    "timestamp_ns": "TIMESTAMP_NS",
    "timestamp_s": "TIMESTAMP_S",
    "interval": "INTERVAL",
    "bit": "BIT",
    "enum('a', 'b')": "ENUM('a', 'b')",
}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory):
    lake = FeatureLake(tmp_path_factory.mktemp("binding"))
    nothing = arrow_table(TYPES, {name: [] for name in TYPES})
    lake.put(TYPES, [nothing])
    with lake.session() as opened:
        yield opened


def a_view(**changes) -> FeatureView:
    given = {
        "name": "zones",
        "source": "warehouse.facts",
        "entities": [Entity("zone", ["Zone"])],
        "features": [Feature("a_price"), Feature("a_varchar")],
        "event_timestamp": "Seen",
    }
    return FeatureView(**{**given, **changes})


def over(sql: str, **changes) -> FeatureView:
    """A view over a SELECT of ``Zone``, ``Seen`` and more."""
    return a_view(source=f"select Zone, Seen, {sql} from warehouse.facts", **changes)


def refused(view: FeatureView, session, *facts: str) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        bind(view, session)
    for fact in (f"feature view {view.name!r}", *facts):
        assert fact in str(caught.value)
    return caught.value


# -- what a view becomes --------------------------------------------------------------------------------------------


def test_a_view_of_features(session):
    view = a_view(
        created_timestamp="written", ttl="7d", delay="5m", closed="left", tie_breaker=["a_bigint", "a_double"], online=False
    )  # fmt: skip
    assert bind(view, session) == BoundView(
        name="zones",
        source='select * from "warehouse"."facts"',
        keys=(Column("Zone", "VARCHAR"),),
        event_timestamp="Seen",
        created_timestamp="written",
        tie_breaker=(Column("a_bigint", "BIGINT"), Column("a_double", "DOUBLE")),
        features=(BoundFeature("a_price", "DECIMAL(10,2)"), BoundFeature("a_varchar", "VARCHAR")),
        inputs=(Column("a_price", "DECIMAL(10,2)"), Column("a_varchar", "VARCHAR")),
        ttl=7 * DAY,
        delay=300_000_000,
        closed_left=True,
        online=False,
    )


def test_a_view_of_aggregates(session):
    view = a_view(
        features=[
            Aggregate("n", "count", ["1h", "1d"]),
            Aggregate("prices", "count", ["12d"], "a_price"),
            Aggregate("price", "sum", ["1h"], "a_price", hop="20m"),
            Aggregate("bigint", "mean", ["90s"], "a_bigint", hop=None),
        ],
        online=False,
    )
    bound = bind(view, session)
    assert bound.is_aggregate
    assert bound.feature_names == ("n_1h", "n_1d", "prices_12d", "price_1h", "bigint_90s")
    assert bound.features == (
        BoundFeature("n_1h", "BIGINT", Windowed("count", None, HOUR, HOUR // 12)),
        BoundFeature("n_1d", "BIGINT", Windowed("count", None, DAY, HOUR)),
        BoundFeature("prices_12d", "BIGINT", Windowed("count", "a_price", 12 * DAY, DAY)),
        BoundFeature("price_1h", "DECIMAL(38,2)", Windowed("sum", "a_price", HOUR, HOUR // 3)),
        BoundFeature("bigint_90s", "DOUBLE", Windowed("mean", "a_bigint", 90_000_000, None)),
    )
    assert bound.inputs == (Column("a_price", "DECIMAL(10,2)"), Column("a_bigint", "BIGINT"))  # once each, in order
    assert (bound.ttl, bound.tie_breaker, bound.created_timestamp) == (None, (), None)
    assert not bind(a_view(), session).is_aggregate


def test_no_key_and_several(session):
    assert bind(a_view(entities=[]), session).keys == ()
    entities = [Entity("zone", ["Zone", "a_date"]), Entity("other", ["a_price"])]
    bound = bind(a_view(entities=entities, features=[Feature("a_blob")]), session)
    assert bound.keys == (Column("Zone", "VARCHAR"), Column("a_date", "DATE"), Column("a_price", "DECIMAL(10,2)"))


@pytest.mark.parametrize("name", SCALARS)
def test_every_scalar_type_can_be_a_feature_a_tie_breaker_and_be_compared(session, name):
    type_ = SCALARS[name]
    bound = bind(a_view(features=[Feature(name)], tie_breaker=[name]), session)
    assert bound.features == (BoundFeature(name, type_),)
    assert bound.tie_breaker == (Column(name, type_),)
    features = [Aggregate(function, function, ["1h"], name) for function in ("min", "max", "count")]
    assert [feature.type for feature in bind(a_view(features=features), session).features] == [type_, type_, "BIGINT"]
    assert arrow_schema((ColumnSchema(name, type_),)).names == [name]  # Arrow knows it


@pytest.mark.parametrize(
    ("name", "sum_type"),
    [
        ("a_tinyint", "DECIMAL(38,0)"),
        ("a_smallint", "DECIMAL(38,0)"),
        ("an_integer", "DECIMAL(38,0)"),
        ("a_bigint", "DECIMAL(38,0)"),
        ("a_price", "DECIMAL(38,2)"),
        ("a_number", "DECIMAL(38,0)"),
        ("a_share", "DECIMAL(38,38)"),
    ],
)
def test_sums_are_decimals_and_means_doubles(session, name, sum_type):
    features = [Aggregate("s", "sum", ["1h"], name), Aggregate("m", "mean", ["1h"], name)]
    assert [feature.type for feature in bind(a_view(features=features), session).features] == [sum_type, "DOUBLE"]


# -- sources --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "sql"),
    [
        ("warehouse.facts", 'select * from "warehouse"."facts"'),
        ("facts", 'select * from "warehouse"."facts"'),
        ("Warehouse.Facts", 'select * from "warehouse"."facts"'),
        ("lake.trips", 'select * from "lake"."trips"'),
        ("select * from warehouse.facts", "select * from warehouse.facts"),
    ],
)
def test_a_source_is_a_table_or_a_select(source, sql):
    assert source_sql(source) == sql


def test_what_is_no_table_name():
    with pytest.raises(RequestError, match="is not a table name"):
        source_sql("warehouse.facts.more.and")


@pytest.mark.parametrize(
    "source",
    [
        "select * from warehouse.facts",
        "SELECT * FROM warehouse.facts;",
        "from warehouse.facts",
        "with f as (select * from warehouse.facts) select * from f -- all of them",
        "select * from warehouse.facts -- (",
        "select *, 'a)b' as more from warehouse.facts where a_varchar <> ';' order by Seen limit 5",
        "select * from warehouse.facts union all select * from warehouse.facts",
    ],
)
def test_a_select_can_be_any(session, source):
    bound = bind(a_view(source=source), session)
    assert bound.features == (BoundFeature("a_price", "DECIMAL(10,2)"), BoundFeature("a_varchar", "VARCHAR"))
    assert bound.source == source.removesuffix(";")


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        ("warehouse.fact", ["the source cannot be read", "there is no table warehouse.fact", "Did you mean warehouse.facts"]),
        ("a.b.c", ["the source cannot be read", "'a.b.c' is not a table name"]),
        ("select*from(nothing)", ["the source cannot be read", "is not a table name"]),
        ("select * from nothing", ["the source cannot be read", "nothing"]),
        ("select nothing from warehouse.facts", ["the source cannot be read", "nothing"]),
        ("select * form warehouse.facts", ["the source cannot be read", "syntax error"]),
        ("select 1; select 2", ["the source cannot be read"]),
        ("create table made as select 1 as a", ["the source cannot be read"]),
        ("copy (select 1) to 'file.csv'", ["the source cannot be read"]),
        ("set threads = 1", ["the source cannot be read"]),
    ],
)  # fmt: skip
def test_sources_that_cannot_be_read(session, source, facts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(a_view(source=source), session, *facts)
    assert list(tmp_path.iterdir()) == []
    tables = session.connection.cursor().sql("select table_name from duckdb_tables()").fetchall()
    assert tables == []


@pytest.mark.parametrize(
    "sql",
    [
        "a_price, a_bigint as a_price, a_varchar",
        "a_price, a_bigint as A_Price, a_varchar",
        "a_price, a_varchar, a_price, a_price",
        "a_price, a_varchar, 1 as other, 2 as other",  # it may be meant tomorrow
    ],
)
def test_a_source_names_a_column_once(session, sql):
    name = "other" if "other" in sql else "a_price"
    refused(over(sql), session, f"the source has two columns called {name!r}", "rename it")


def test_a_join_names_its_key_once_with_using(session):
    facts = "warehouse.facts"
    refused(a_view(source=f"select * from {facts} a join {facts} b on a.Zone = b.Zone"), session, "two columns called")
    bind(a_view(source=f"select * from {facts} join (select Zone, 1 as one from {facts}) b using (Zone)"), session)


# -- columns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"event_timestamp": "Sean"}, ["event_timestamp: the source has no column 'Sean'", "Did you mean Seen?"]),
        ({"created_timestamp": "writen"}, ["created_timestamp: the source has no column 'writen'", "written"]),
        ({"tie_breaker": ["a_bigin"]}, ["tie_breaker: the source has no column 'a_bigin'", "a_bigint"]),
        ({"entities": [Entity("zone")]}, ["join key: the source spells the column 'zone' as 'Zone'", "Write 'Zone'"]),
        ({"entities": [Entity("zones")]}, ["join key: the source has no column 'zones'"]),
        ({"features": [Feature("a_prize")]}, ["feature 'a_prize': the source has no column 'a_prize'", "Did you"]),
        (
            {"features": [Feature("A_price")]},
            ["feature 'A_price': the source spells the column 'A_price' as 'a_price'", "rename"],
        ),
        (
            {"features": [Aggregate("n", "count", ["1h"], "a_prize")]},
            ["aggregate 'n': the source has no column 'a_prize'", "Did you mean a_price"],
        ),
        ({"event_timestamp": "a_timestamp"}, ["column 'a_timestamp' is of type TIMESTAMP, not " + TIMESTAMPTZ]),
        ({"event_timestamp": "a_date"}, ["event_timestamp: column 'a_date' is of type DATE", "Only instants"]),
        ({"event_timestamp": "a_bigint"}, ["event_timestamp: column 'a_bigint' is of type BIGINT"]),
        ({"created_timestamp": "a_timestamp"}, ["created_timestamp: column 'a_timestamp' is of type TIMESTAMP, not"]),
        ({"entities": [Entity("a_double")]}, ["join key 'a_double' is of type DOUBLE", "identify nothing", "cast it"]),
        ({"entities": [Entity("a_float")]}, ["join key 'a_float' is of type FLOAT", "identify nothing"]),
    ],
)
def test_columns_that_do_not_fit(session, changes, facts):
    refused(a_view(**changes), session, *facts)


def test_sql_finds_columns_whatever_their_case(session):
    bound = bind(
        a_view(event_timestamp="seen", created_timestamp="WRITTEN", tie_breaker=["A_BigInt"]),
        session,
    )
    assert (bound.event_timestamp, bound.created_timestamp) == ("Seen", "written")
    assert bound.tie_breaker == (Column("a_bigint", "BIGINT"),)
    summed = bind(
        a_view(features=[Aggregate("n", "sum", ["1h"], "A_PRICE"), Aggregate("m", "max", ["1h"], "a_price")]), session
    )
    assert summed.inputs == (Column("a_price", "DECIMAL(10,2)"),)
    assert [feature.windowed.column for feature in summed.features if feature.windowed] == ["a_price", "a_price"]


@pytest.mark.parametrize("sql_type", REFUSED)
def test_types_that_features_cannot_have(session, sql_type):
    said = f"column 'x' is of type {REFUSED[sql_type]}, which features can't have"
    sql = f"cast(null as {sql_type}) as x"
    for view in (
        over(sql, features=[Feature("x")]),
        over(f"{sql}, a_price", features=[Feature("a_price")], tie_breaker=["x"]),
        over(f"{sql}, a_price", features=[Feature("a_price")], entities=[Entity("x")]),
        over(sql, features=[Aggregate("n", "max", ["1h"], "x")]),
        over(sql, features=[Aggregate("n", "count", ["1h"], "x")]),
    ):
        refused(view, session, said, "cast it, e.g. to bigint, double or varchar")


def test_a_null_without_a_type_can_be_no_feature(session):
    refused(over("null as x", features=[Feature("x")]), session, "column 'x' is of type NULL")


# -- declared types -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("a_bigint", "bigint"),
        ("a_bigint", "int8"),
        ("a_bigint", " LONG "),
        ("an_integer", "int"),
        ("a_price", "decimal(10,2)"),
        ("a_price", "numeric( 10 , 2 )"),
        ("a_number", "decimal(38)"),
        ("a_varchar", "text"),
        ("a_varchar", "varchar(20)"),
        ("a_blob", "bytea"),
        ("a_double", "float8"),
        ("a_float", "real"),
        ("an_instant", "timestamptz"),
        ("an_instant", "timestamp with time zone"),
        ("a_timestamp", "datetime"),
        ("a_boolean", "bool"),
    ],
)
def test_a_declared_type_may_be_spelled_in_any_way_of_sql(session, name, dtype):
    assert bind(a_view(features=[Feature(name, dtype)]), session).features == (BoundFeature(name, SCALARS[name]),)


@pytest.mark.parametrize(
    ("name", "dtype", "declared"),
    [
        ("a_bigint", "integer", "INTEGER"),
        ("a_bigint", "double", "DOUBLE"),
        ("a_price", "decimal(10,3)", "DECIMAL(10,3)"),
        ("a_price", "decimal", "DECIMAL(18,3)"),
        ("an_instant", "timestamp", "TIMESTAMP"),
        ("a_varchar", "blob", "BLOB"),
    ],
)
def test_a_declared_type_must_be_the_columns(session, name, dtype, declared):
    refused(
        a_view(features=[Feature(name, dtype)]),
        session,
        f"feature {name!r} is declared as {declared}, but the source's column is {SCALARS[name]}",
        "change dtype, or cast",
    )


@pytest.mark.parametrize(
    "dtype",
    [
        "number of trips", "bigint)", "bigint) as t, cast(1 as int", "bigint); select (1", "'bigint'", "decimal(10,2", "decimal(99,2)",
        "integer[]", "5", "bigint -- as", "decimal(ten, two)",
    ],
)  # fmt: skip
def test_what_is_no_type(session, dtype):
    refused(a_view(features=[Feature("a_bigint", dtype)]), session, f"{dtype!r} is not a type", "Spell it as SQL does")


# -- aggregates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["sum", "mean"])
@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("a_float", ["of a FLOAT does not work yet", "depend on their order", "decimal"]),
        ("a_double", ["of a DOUBLE does not work yet", "depend on their order"]),
        ("a_boolean", ["of a BOOLEAN does not work", "sum and mean take integers and decimals"]),
        ("a_varchar", ["of a VARCHAR does not work"]),
        ("a_blob", ["of a BLOB does not work"]),
        ("a_date", ["of a DATE does not work"]),
        ("a_timestamp", ["of a TIMESTAMP does not work"]),
        ("an_instant", [f"of a {TIMESTAMPTZ} does not work"]),
    ],
)
def test_sums_that_do_not_work(session, function, name, facts):
    view = a_view(features=[Aggregate("n", function, ["1h"], name)])
    error = refused(view, session, f"aggregate 'n': {function} of a", *facts)
    assert ("yet" in error.what) == (name in {"a_float", "a_double"})


# -- what does not work yet -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"valid_to": "written"}, {"deleted": "a_boolean"}, {"push": True}])
def test_what_does_not_work_yet_is_refused_by_name(session, changes):
    (name,) = changes
    refused(a_view(**changes), session, f"{name} does not work yet", "Leave it out")


def test_created_timestamps_of_events_do_not_work_yet(session):
    view = a_view(features=[Aggregate("n", "count", ["1h"])], created_timestamp="written")
    refused(view, session, "created_timestamp does not work on views of aggregates yet", "Leave it out")


# -- asking a bound view, and later snapshots -----------------------------------------------------------------------


def test_a_bound_view_finds_its_features(session):
    bound = bind(a_view(), session)
    assert bound.feature("a_price") == BoundFeature("a_price", "DECIMAL(10,2)")
    with pytest.raises(DefinitionError) as caught:
        bound.feature("a_prize")
    assert str(caught.value) == "feature view 'zones': there is no feature 'a_prize'\n  Did you mean a_price?"


def test_binding_reads_the_snapshot_that_is_asked_for(tmp_path):
    lake = FeatureLake(tmp_path)
    types = {"Zone": "VARCHAR", "Seen": TIMESTAMPTZ, "a_price": "DECIMAL(10,2)", "a_varchar": "VARCHAR"}
    rows = {
        "Zone": ["a"],
        "Seen": [dt.datetime(2020, 1, 1, tzinfo=dt.UTC)],
        "a_price": [Decimal("1.20")],
        "a_varchar": ["x"],
    }
    first = lake.put(types, [arrow_table(types, rows)]).number
    old = lake.bind(a_view())
    lake.put({**types, "a_price": "BIGINT"}, [arrow_table({**types, "a_price": "BIGINT"}, {**rows, "a_price": [1]})])
    assert lake.bind(a_view()).features[0] == BoundFeature("a_price", "BIGINT")
    lake.drop_column("a_price")
    with lake.session() as session:
        refused(a_view(), session, "feature 'a_price': the source has no column 'a_price'")
    assert lake.bind(a_view(), first) == old == replace(old)
