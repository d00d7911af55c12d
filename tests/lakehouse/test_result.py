from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
import sys
from decimal import Decimal

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.errors import QueryError, RequestError
from lakehouse.result import QueryResult

ROW = """
select 9223372036854775807 as big, 1.10::decimal(38,2) as exact, 'nan'::double as nan, '-inf'::float as low,
       timestamptz '2020-01-01 10:00:00.5+00' as moment, timestamp '2020-01-01 10:00:00' as local,
       date '2020-01-02' as day, true as yes, '\\xFF\\x00'::blob as bytes, {'a': 1.5::double, 'b': [1, null]} as nested,
       map {'k': 1} as pairs, 170141183460469231731687303715884105::hugeint as huge, null as nothing, 'a"b,
c' as text, '' as empty
"""


def result_of(query: str, zone: str = "UTC") -> QueryResult:
    connection = duckdb.connect()
    connection.execute(f"set TimeZone = '{zone}'")

    def open_reader() -> pa.RecordBatchReader:
        return connection.sql(query).to_arrow_reader(1000)

    relation = connection.sql(query)
    return QueryResult(open_reader, open_reader().schema, types=[str(kind) for kind in relation.types])


def json_of(result: QueryResult) -> str:
    out = io.BytesIO()
    result.write_json(out)
    return out.getvalue().decode()


def csv_of(result: QueryResult) -> str:
    out = io.BytesIO()
    result.write_csv(out)
    return out.getvalue().decode()


def test_every_reader_starts_from_the_first_row():
    result = result_of("select range as n from range(2500)")
    assert [len(result.fetchall()), len(result.fetchall()), result.to_arrow().num_rows, result.to_polars().height] == [
        2500
    ] * 4
    assert [result.fetchone(), result.fetchone()] == [(0,), (0,)]
    assert [batch.num_rows for batch in result.batches()] == [1000, 1000, 500]
    assert pa.table(result).num_rows == pa.table(result).num_rows == 2500


def test_duckdb_and_polars_consume_it():
    result = result_of("select range as n from range(2500)")
    assert duckdb.sql("select count(*), sum(a.n) from result a join result b using (n)").fetchall() == [(2500, 3123750)]
    with duckdb.connect() as connection:
        connection.register("mine", result)
        assert connection.execute("select max(n) from mine").fetchall() == [(2499,)]
        assert connection.execute("select min(n) from mine").fetchall() == [(0,)]
    assert pl.DataFrame(result)["n"].sum() == 3123750


def test_a_large_result_is_not_held():
    batches = result_of("select range as n from range(100000000000)").batches()
    assert next(batches).num_rows == 1000


def test_python_values():
    row = result_of(ROW).fetchone()
    assert row is not None
    moment = dt.datetime(2020, 1, 1, 10, 0, 0, 500000, tzinfo=dt.UTC)
    assert row[0] == 2**63 - 1
    assert (row[1], str(row[1])) == (Decimal("1.10"), "1.10")
    assert math.isnan(row[2])
    assert row[3] == -math.inf
    assert (row[4], row[4].utcoffset(), row[5]) == (moment, dt.timedelta(0), dt.datetime(2020, 1, 1, 10))  # noqa: DTZ001
    assert row[6:13] == (
        dt.date(2020, 1, 2),
        True,
        b"\xff\x00",
        {"a": 1.5, "b": [1, None]},
        [("k", 1)],
        170141183460469231731687303715884105,
        None,
    )
    assert type(row[11]) is int


def test_instants_are_utc_whatever_the_zone():
    result = result_of("select timestamptz '2020-01-01 10:00:00+00' as t, [t] as l", zone="Asia/Tokyo")
    ten = dt.datetime(2020, 1, 1, 10, tzinfo=dt.UTC)
    row = result.fetchone()
    assert row == (ten, [ten])
    assert row[0].utcoffset() == row[1][0].utcoffset() == dt.timedelta(0)
    assert "19:00:00+09:00" in result.to_text()


def test_a_failing_value_is_a_query_error():
    result = result_of("select case when range = 5000 then error('late') else range end from range(10000)")
    for read in (result.fetchall, result.to_arrow, lambda: json_of(result)):
        with pytest.raises(QueryError, match="late"):
            read()


def test_repeated_names_are_kept_in_arrow_and_told_apart_in_frames():
    result = result_of("select 1 as a, 2 as a, 3 as a_1, 4 as a")
    assert result.columns == ["a", "a", "a_1", "a"]
    assert result.to_polars().columns == ["a", "a_2", "a_1", "a_3"]
    assert json.loads(json_of(result)) == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}]
    assert result.fetchall() == [(1, 2, 3, 4)]


def test_pandas_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RequestError) as caught:
        result_of("select 1").to_pandas()
    assert "pip install pandas" in caught.value.hint


# -- JSON and CSV ---------------------------------------------------------------------------------------------------------


def test_json_is_exact():
    text = json_of(result_of(ROW))
    assert '"big":9223372036854775807' in text
    assert '"exact":1.10' in text
    (row,) = json.loads(text, parse_float=Decimal)
    assert row["exact"] == Decimal("1.10")
    assert (row["nan"], row["low"]) == ("NaN", "-Infinity")
    assert (row["moment"], row["local"], row["day"]) == (
        "2020-01-01T10:00:00.500000Z",
        "2020-01-01T10:00:00",
        "2020-01-02",
    )
    assert (row["bytes"], row["nested"], row["pairs"]) == ("/wA=", {"a": Decimal("1.5"), "b": [1, None]}, [["k", 1]])
    assert (row["huge"], row["nothing"], row["text"]) == (170141183460469231731687303715884105, None, 'a"b,\nc')


def test_json_of_no_rows_and_of_many():
    assert json.loads(json_of(result_of("select 1 as a where false"))) == []
    assert json.loads(json_of(result_of("select range as n from range(2500)"))) == [{"n": n} for n in range(2500)]


def test_csv_tells_null_from_empty():
    text = csv_of(
        result_of(
            "select 'x' as a, '' as b, null::varchar as c, null::int as d union all select 'a\"b,\nc', null, '', 5"
        )
    )
    assert text == '"a","b","c","d"\n"x","",,\n"a""b,\nc",,"",5\n'


def test_csv_of_every_type():
    header, row = csv.reader(io.StringIO(csv_of(result_of(ROW)), newline=""))
    values = dict(zip(header, row, strict=True))
    assert values["big"] == "9223372036854775807"
    assert values["exact"] == "1.10"
    assert values["moment"] == "2020-01-01 10:00:00.500000Z"
    assert values["bytes"] == "/wA="
    assert json.loads(values["nested"]) == {"a": 1.5, "b": [1, None]}
    assert values["huge"] == "170141183460469231731687303715884105"
    assert values["text"] == 'a"b,\nc'


def test_csv_of_no_rows_is_a_header():
    assert csv_of(result_of("select 1 as a, 'x' as b where false")) == '"a","b"\n'


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.text() | st.none(), st.integers(-(2**63), 2**63 - 1) | st.none(), st.floats() | st.none()),
        max_size=5,
    )
)
def test_json_and_csv_give_back_what_went_in(rows):
    table = pa.table(
        {
            "t": pa.array([row[0] for row in rows], pa.string()),
            "i": pa.array([row[1] for row in rows], pa.int64()),
            "f": pa.array([row[2] for row in rows], pa.float64()),
        }
    )
    result = QueryResult.from_table(table)

    def same(found, expected):
        return found == expected or (isinstance(expected, float) and math.isnan(float(found)) and math.isnan(expected))

    parsed = [(row["t"], row["i"], row["f"]) for row in json.loads(json_of(result))]
    specials = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    parsed = [(t, i, specials.get(f, f)) for t, i, f in parsed]
    assert all(same(a, b) for found, row in zip(parsed, rows, strict=True) for a, b in zip(found, row, strict=True))
    records = list(csv.reader(io.StringIO(csv_of(result), newline="")))[1:]
    expected = [[row[0] or "", "" if row[1] is None else str(row[1])] for row in rows]
    assert [record[:2] for record in records] == expected


# -- for people -------------------------------------------------------------------------------------------------------------


def test_a_table_for_terminals():
    result = result_of(
        "select * from (values (1, 'a', 1.50), (-20, null, null), (300, 'NULL', 0.25)) t(id, name, fare)"
    )
    assert result.to_text(width=80).splitlines() == [
        "     id  name             fare",
        "integer  varchar  decimal(3,2)",
        "───────  ───────  ────────────",
        "      1  a                1.50",
        "    -20  NULL             NULL",
        "    300  'NULL'           0.25",
    ]
    assert repr(result) == result.to_text()


def test_more_rows_are_hinted_at_and_none_said():
    assert result_of("select 1 as a from range(21)").to_text().endswith("… more rows than these 20")
    assert "more rows" not in result_of("select 1 as a from range(20)").to_text()
    assert result_of("select 1 as a where false").to_text().endswith("(no rows)")
    assert len(result_of("select range from range(99)").to_text(limit=5).splitlines()) == 3 + 5 + 1


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_lines_fit_and_numbers_are_never_cut(width):
    columns = ", ".join(f"123456789 as n{i}, repeat('word ', {i + 3}) as t{i}" for i in range(8))
    lines = result_of(f"select {columns}").to_text(width=width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert {word for word in lines[3].split() if word[0].isdigit()} == {"123456789"}
    assert width == 200 or "more columns" in lines[-1]


def test_names_over_numbers_stay_whole_and_columns_are_left_out():
    names = [f"from_trips_{i}d" for i in range(10, 25)]
    lines = result_of(f"select {', '.join(f'{i} as {name}' for i, name in enumerate(names))}").to_text(width=80)
    shown = lines.splitlines()[0].split()
    assert shown == names[: len(shown)]
    assert f"… {len(names) - len(shown)} more columns: {names[len(shown)]}" in lines


def test_a_table_of_very_many_columns_shows_the_first_and_counts_the_others():
    text = result_of(f"select {', '.join(f'{i} as c{i}' for i in range(3_000))}").to_text(width=80)
    names, types, _, _, others = text.splitlines()
    shown = len(names.split())
    assert types.split() == ["integer"] * shown
    assert others.startswith(f"… {3_000 - shown:,} more columns: c{shown}, ")


def test_one_is_no_plural():
    text = result_of("select 123456789012345 as first, 123456789012345 as second").to_text(width=25)
    assert "… 1 more column: second" in text


def test_nothing_moves_the_cursor():
    text = result_of("select chr(27) || '[31m' || chr(10) || chr(8238) as x, '日本' as \"wide\ncolumn\"").to_text(
        width=80
    )
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 4
    assert "\\x1b[31m\\n\\u202e" in text


def test_html_is_escaped_and_typed():
    html = result_of("select '<script>' as \"<b>\", null as n, 5 as i")._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert "<small>varchar</small>" in html
    assert "<em>NULL</em>" in html


def test_show_prints(capsys):
    result_of("select 42 as answer").show()
    assert "42" in capsys.readouterr().out


def test_types_come_from_arrow_when_not_given():
    table = pa.table(
        {"a": [1], "b": ["x"], "t": pa.array([0], pa.timestamp("us", "UTC")), "d": pa.array([Decimal("1.5")])}
    )
    assert QueryResult.from_table(table).types == ["BIGINT", "VARCHAR", "TIMESTAMP WITH TIME ZONE", "DECIMAL(2,1)"]


@settings(max_examples=60, deadline=None)
@given(
    months=st.integers(-30, 30) | st.integers(-(2**31) + 1, 2**31 - 1),
    days=st.integers(-3, 3) | st.integers(-(2**31) + 1, 2**31 - 1),
    micros=st.sampled_from([0, 1, -1, 500_000, -4_500_000, 3_600_000_000, 360_000_000_001])
    | st.integers(-(2**53), 2**53),
)
def test_intervals_read_as_duckdb_prints_them(months, days, micros):
    query = (
        f"select to_months({months}::int) + to_days({days}::int) + to_microseconds({micros}) as i, "
        "[i] as l, {'a': i} as s, null::interval as n, i::varchar as told"
    )
    result = result_of(query)
    (row,) = json.loads(json_of(result))
    told = row.pop("told")
    assert row == {"i": told, "l": [told], "s": {"a": told}, "n": None}
    (cells,) = list(csv.DictReader(io.StringIO(csv_of(result))))
    assert cells == {"i": told, "l": json.dumps([told]), "s": f'{{"a":"{told}"}}', "n": "", "told": told}
    text = result.to_text(width=300)  # a wide cell is cut
    assert f"\n{told[:50]}" in text
    assert f'  ["{told[:50]}' in text
