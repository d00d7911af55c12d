"""Dates and times that DuckDB has and Python has not: printed as DuckDB prints them, refused by name in Python."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from featurestore.cli import cli
from lakehouse.errors import QueryError
from lakehouse.lake import Lake
from lakehouse.result import QueryResult

EDGES = [
    ("'infinity'::date", "infinity"),
    ("'-infinity'::date", "-infinity"),
    ("date '20000-01-01'", "20000-01-01"),
    ("date '0044-03-15 (BC)'", "0044-03-15 (BC)"),
    ("'infinity'::timestamp", "infinity"),
    ("'-infinity'::timestamp", "-infinity"),
    ("'infinity'::timestamptz", "infinity"),
    ("'-infinity'::timestamptz", "-infinity"),
    ("'infinity'::timestamp_s", "infinity"),
    ("'infinity'::timestamp_ms", "infinity"),
    ("'infinity'::timestamp_ns", "infinity"),
    ("timestamp '20000-01-01 01:02:03.5'", "20000-01-01 01:02:03.5"),
    ("timestamp '0044-03-15 (BC) 01:02:03'", "0044-03-15 (BC) 01:02:03"),
    ("timestamptz '20000-01-01 00:00:00Z'", "20000-01-01 00:00:00+00"),
    ("timestamp_ms '20000-01-01'", "20000-01-01 00:00:00"),
    ("'24:00:00'::time", "24:00:00"),
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    root = tmp_path_factory.mktemp("edges")
    (root / "penstock.toml").write_text("")
    (root / "a.csv").write_text("id\n1\n")
    lake = Lake(root)
    lake.land("s", [root / "a.csv"])
    return lake


def json_of(result: QueryResult) -> list[dict[str, object]]:
    out = io.BytesIO()
    result.write_json(out)
    return json.loads(out.getvalue())


def csv_of(result: QueryResult) -> list[list[str]]:
    out = io.BytesIO()
    result.write_csv(out)
    return list(csv.reader(io.StringIO(out.getvalue().decode())))


@pytest.mark.parametrize(("value", "text"), EDGES)
def test_a_value_beyond_the_calendar_is_printed_as_duckdb_prints_it(lake: Lake, value: str, text: str) -> None:
    result = lake.sql(
        f"select {value} as x, x::varchar as told, [x, null] as l, {{'a': x}} as s, map {{'k': x}} as m, array_value(x) as f"
    )
    assert json_of(result) == [
        {"x": text, "told": text, "l": [text, None], "s": {"a": text}, "m": [["k", text]], "f": [text]}
    ]
    assert csv_of(result)[1] == [
        text, text, json.dumps([text, None]).replace(", ", ","), f'{{"a":"{text}"}}', f'[["k","{text}"]]', f'["{text}"]'
    ]  # fmt: skip
    shown = result.to_text(width=300).splitlines()[-1]
    assert re.match(rf"{re.escape(text)} +{re.escape(text)}  ", shown)
    assert f'["{text}", null]' in shown.replace("NULL", "null")
    assert f'{{"a": "{text}"}}' in shown
    assert text in result._repr_html_()


@pytest.mark.parametrize(("value", "text"), EDGES)
def test_python_refuses_it_by_column_and_value(lake: Lake, value: str, text: str) -> None:
    for query in (f"select 1 as a, {value} as x", f"select 1 as a, [{{'b': {value}}}] as x"):
        with pytest.raises(QueryError, match=re.escape(f"column x holds {text}")) as caught:
            lake.sql(query).fetchall()
        assert "CAST" in str(caught.value.hint)
    assert lake.sql(f"select {value} as x").to_arrow().num_rows == 1


def test_neighbours_of_such_values_stay_what_they_are(lake: Lake) -> None:
    result = lake.sql(
        "select * from (values (1, date '2020-01-02', timestamptz '2020-01-02 03:04:05.5Z'), "
        "(2, 'infinity', 'infinity'), (3, null, null)) t(id, d, t) order by id"
    )
    assert json_of(result) == [
        {"id": 1, "d": "2020-01-02", "t": "2020-01-02T03:04:05.500000Z"},
        {"id": 2, "d": "infinity", "t": "infinity"},
        {"id": 3, "d": None, "t": None},
    ]
    assert csv_of(result)[1:] == [
        ["1", "2020-01-02", "2020-01-02 03:04:05.500000Z"],
        ["2", "infinity", "infinity"],
        ["3", "", ""],
    ]


@pytest.mark.parametrize(
    ("value", "zone", "shown"),
    [
        ("9999-12-31 23:30:00Z", "Asia/Tokyo", "10000-01-01 08:30:00+09"),
        ("9999-12-31 10:30:00Z", "Asia/Tokyo", "9999-12-31 19:30:00+09:00"),
        ("0001-01-01 00:00:00Z", "America/New_York", "0001-12-31 (BC) 19:03:58-04:56"),
        ("20000-06-01 00:00:00Z", "Asia/Tokyo", "20000-06-01 09:00:00+09"),
        ("2020-06-01 00:00:00Z", "CST", "2020-05-31 19:00:00-05"),
    ],
)
def test_a_users_zone_at_the_edges(lake: Lake, value: str, zone: str, shown: str) -> None:
    query = f"select timestamptz '{value}' as x, null::timestamptz as n, 'infinity'::timestamptz as i"
    text = lake.sql(query, timezone=zone).to_text(width=200).splitlines()[-1].split("  ")[0]
    # New York was 4:56:02 behind until 1883; DuckDB writes the seconds from 2.0.1 on.
    assert text.replace("-04:56:02", "-04:56") == shown


def test_edges_on_the_command_line(lake: Lake, tmp_path: Path) -> None:
    query = (
        "select 'infinity'::date as d, ['infinity'::date] as l, 1::bignum as b, timestamptz '9999-12-31 23:30Z' as t"
    )
    root = str(lake.settings.project)
    for form in ("table", "json", "csv"):
        result = CliRunner().invoke(
            cli,
            ["sql", query, "--project", root, "--format", form, "--timezone", "Asia/Tokyo"],
            catch_exceptions=False,
        )
        assert result.exit_code == 0, result.output
        assert result.stdout.count("infinity") == 2
        assert "out of range" not in result.output


def test_integers_of_any_length(lake: Lake) -> None:
    big = 10**60
    query = f"select 1::bignum as x, (-1)::bignum as y, 0::bignum as z, '{big}'::bignum as b, [('-{big}')::bignum, null] as l"
    result = lake.sql(query)
    assert result.fetchall() == [(1, -1, 0, big, [-big, None])]
    assert json_of(result) == [{"x": 1, "y": -1, "z": 0, "b": big, "l": [-big, None]}]
    assert csv_of(result)[1] == ["1", "-1", "0", str(big), f"[-{big},null]"]
    assert str(big) in result.to_text(width=300)


def test_nested_values_survive_slices() -> None:
    days = pa.array([[1, 2147483647], None, [], [3]], pa.list_(pa.date32())).slice(1)
    pairs = pa.array([{"a": 2147483647}, None, {"a": 1}, {"a": 2147483647}], pa.struct([("a", pa.date32())])).slice(1)
    sized = pa.array([[2147483647], [1], None, [2147483647]], pa.list_(pa.date32(), 1)).slice(1)
    maps = pa.array([[("k", 2147483647)], None, [("l", 1)], [("m", 2147483647)]], pa.map_(pa.string(), pa.date32()))
    table = pa.table({"l": days, "s": pairs, "f": sized, "m": maps.slice(1)})
    assert json_of(QueryResult.from_table(table)) == [
        {"l": None, "s": None, "f": ["1970-01-02"], "m": None},
        {"l": [], "s": {"a": "1970-01-02"}, "f": None, "m": [["l", "1970-01-02"]]},
        {"l": ["1970-01-04"], "s": {"a": "infinity"}, "f": ["infinity"], "m": [["m", "infinity"]]},
    ]
