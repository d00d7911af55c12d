from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.contracts import GateReport, gate, key_sql
from lakehouse.models import Check, Column, Contract, Reference
from lakehouse.types import TableName

ZONES = TableName("warehouse", "zones")


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    yield connection
    connection.close()


def columns(**types: str) -> tuple[Column, ...]:
    return tuple(
        Column(name, type_.removesuffix(" not null"), "not null" not in type_) for name, type_ in types.items()
    )


def run(connection: duckdb.DuckDBPyConnection, contract: Contract, rows: str, **options: Any) -> GateReport:
    connection.execute(f"create or replace temp table _staged as {rows}")
    options = {"strategy": "refresh", "parents": {}, "order_by": None, "into": "_gate", **options}
    report = gate(connection, contract, "_staged", **options)
    assert report.query_rows == report.good + report.quarantined + report.replaced
    return report


def good(connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return connection.execute("from _gate_good order by all").fetchall()


def reasons(connection: duckdb.DuckDBPyConnection) -> list[list[tuple[str, str, str]]]:
    found = connection.execute("select _reasons from _gate_bad order by _row").fetchall()
    return [[(r["column"], r["rule"], r["value"]) for r in row] for (row,) in found]


# -- exact conversion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [
        ("'7'::varchar", "INTEGER", "7"),
        ("'007'::varchar", "INTEGER", None),
        ("' 7'::varchar", "INTEGER", None),
        ("'1e3'::varchar", "BIGINT", None),
        ("'0x1F'::varchar", "BIGINT", None),
        ("'t'::varchar", "BOOLEAN", None),
        ("'true'::varchar", "BOOLEAN", "true"),
        ("'2019-1-5'::varchar", "DATE", None),
        ("'2019-01-05'::varchar", "DATE", "2019-01-05"),
        ("1.239::double", "DECIMAL(10,2)", None),
        ("0.1::double", "DECIMAL(10,2)", "0.10"),
        ("0.1::double + 0.2", "DECIMAL(10,2)", None),
        ("1.235::decimal(4,3)", "DECIMAL(10,2)", None),
        ("1.230::decimal(4,3)", "DECIMAL(10,2)", "1.23"),
        ("9007199254740993::bigint", "DOUBLE", None),
        ("9007199254740992::bigint", "DOUBLE", "9007199254740992.0"),
        ("9223372036854775807::bigint", "DOUBLE", None),
        ("300::integer", "TINYINT", None),
        ("3.7::double", "INTEGER", None),
        ("'nan'::float", "DOUBLE", "nan"),
        ("'-inf'::float", "DOUBLE", "-inf"),
        ("'-0.0'::float", "DOUBLE", "-0.0"),
        ("0.1::double", "FLOAT", None),
        ("'nan'::double", "INTEGER", None),
        ("'inf'::double", "DECIMAL(10,2)", None),
        ("1e300::double", "BIGINT", None),
        ("timestamp '2020-01-01 00:00:01'", "DATE", None),
        ("timestamp '2020-01-01'", "DATE", "2020-01-01"),
        ("timestamp_ns '2020-01-01 00:00:00.000000001'", "TIMESTAMP", None),
        ("['1', '2']", "INTEGER[]", "[1, 2]"),
        ("['1', 'x']", "INTEGER[]", None),
        ("['1', null]", "INTEGER[]", "[1, NULL]"),
        ("{'a': 1.5::double, 'b': ['7']}", "STRUCT(a DECIMAL(3,1), b INTEGER[])", "{'a': 1.5, 'b': [7]}"),
        ("{'a': 1.55::double, 'b': ['7']}", "STRUCT(a DECIMAL(3,1), b INTEGER[])", None),
        ("{'a': 1, 'b': 2}", "STRUCT(a INTEGER)", None),
        ("map {'k': '07'}", "MAP(VARCHAR, INTEGER)", None),
        ("map {'k': '7'}", "MAP(VARCHAR, INTEGER)", "{k=7}"),
        ("12::hugeint", "VARCHAR", "12"),
        ("'1'", "DOUBLE", "1.0"),
        ("'2.50'", "DOUBLE", "2.5"),
        ("'1000'", "DOUBLE", "1000.0"),
        ("'0'", "DOUBLE", "0.0"),
        ("'-0.00'", "DOUBLE", "-0.0"),
        ("'-0'", "FLOAT", "-0.0"),
        ("'0.1'", "DOUBLE", "0.1"),
        ("'0.10'", "FLOAT", "0.1"),
        ("'1e3'", "DOUBLE", "1000.0"),
        ("'-1.50E-07'", "DOUBLE", "-1.5e-07"),
        ("'0.00000015'", "DOUBLE", "1.5e-07"),
        ("'100000000000000000000000'", "DOUBLE", "1e+23"),
        ("'9007199254740992'", "DOUBLE", "9007199254740992.0"),
        ("'9007199254740993'", "DOUBLE", None),
        ("'0.10000000000000001'", "DOUBLE", None),
        ("'16777216'", "FLOAT", "16777216.0"),
        ("'16777217'", "FLOAT", None),
        ("'0.123456789'", "FLOAT", None),
        ("'1e400'", "DOUBLE", None),
        ("'1e-400'", "DOUBLE", None),
        ("'1e99999999999999999999'", "DOUBLE", None),
        ("'007'", "DOUBLE", None),
        ("' 1'", "DOUBLE", None),
        ("'+1'", "DOUBLE", None),
        ("'1_000'", "DOUBLE", None),
        ("'0x1F'", "DOUBLE", None),
        ("'.5'", "DOUBLE", None),
        ("'1.'", "DOUBLE", None),
        ("'x'", "DOUBLE", None),
        ("''", "DOUBLE", None),
        ("'nan'", "DOUBLE", "nan"),
        ("'Infinity'", "DOUBLE", None),
        ("'-0.00'", "DECIMAL(6,2)", "0.00"),
        ("'2.5'", "DECIMAL(6,2)", "2.50"),
        ("'2.500'", "DECIMAL(6,2)", "2.50"),
        ("'1000'", "DECIMAL(6,2)", "1000.00"),
        ("'2.501'", "DECIMAL(6,2)", None),
        ("'02.50'", "DECIMAL(6,2)", None),
        ("'1e3'", "DECIMAL(6,2)", None),
        ("'10000'", "DECIMAL(6,2)", None),
    ],
)
def test_a_value_converts_exactly_or_goes_to_quarantine(
    connection: duckdb.DuckDBPyConnection, value: str, target: str, expected: str | None
) -> None:
    report = run(connection, Contract(columns(v=f"{target} not null")), f"select {value} as v")
    if expected is None:
        assert report.quarantined == 1
        ((reason,),) = reasons(connection)
        assert reason[:2] == ("v", f"type {target}")
        assert reason[2] == connection.execute("select v::varchar from _staged").fetchall()[0][0]
    else:
        assert connection.execute("select v::varchar, typeof(v) from _gate_good").fetchall() == [(expected, target)]


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(
        st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
        | st.floats(allow_nan=False, allow_infinity=False).map(repr)
        | st.integers(-(2**70), 2**70).map(str),
        min_size=1,
    ),
    single=st.booleans(),
)
def test_text_fits_a_double_if_it_says_what_the_double_says(texts: list[str], single: bool) -> None:
    target = "FLOAT" if single else "DOUBLE"
    with duckdb.connect() as connection:
        rows = ", ".join(f"('{text}')" for text in texts)
        run(connection, Contract(columns(v=target)), f"select * from (values {rows}) t(v)")
        kept = connection.execute("select count(*) from _gate_good").fetchall()[0][0]
        told = connection.execute(f"select v, try_cast(v as {target})::varchar from _staged").fetchall()
    # Python's decimals are exact, and equal whatever the zeros behind them.
    fits = [text for text, back in told if back not in (None, "inf", "-inf") and Decimal(text) == Decimal(back)]
    assert kept == len(fits)


def test_null_is_no_failed_conversion(connection: duckdb.DuckDBPyConnection) -> None:
    report = run(
        connection,
        Contract(columns(v="INTEGER", w="INTEGER not null")),
        "select null::varchar as v, null::varchar as w",
    )
    assert (report.quarantined, reasons(connection)) == (1, [[("w", "not null", None)]])


# -- checks, references, reasons ----------------------------------------------------------------------------------------


def test_a_check_passes_null_and_an_error_is_a_reason(connection: duckdb.DuckDBPyConnection) -> None:
    checks = (
        Check("v >= 0", ("v",)),
        Check("abs(w * 1000000000) >= 0", ("w",)),
        Check("(v < 9) OR (w IS NULL)", ("v", "w")),
    )
    rows = "select * from (values (1, 0), (null, 0), (-1, 0), (2, 5), (10, null), (10, 0), (-10, 5)) t (v, w)"
    run(connection, Contract(columns(v="INTEGER", w="INTEGER"), checks=checks), rows)
    assert good(connection) == [(1, 0), (10, None), (None, 0)]
    assert reasons(connection) == [
        [("v", "check (v >= 0)", "-1")],
        [("v", "check (v >= 0)", "-10"), ("w", "check (abs(w * 1000000000) >= 0)", "5")],
        [("v, w", "check ((v < 9) OR (w IS NULL))", "v=10, w=0")],
        [("w", "check (abs(w * 1000000000) >= 0)", "5")],
    ]


def test_a_failed_conversion_gives_one_reason_only(connection: duckdb.DuckDBPyConnection) -> None:
    contract = Contract(
        columns(v="INTEGER not null", w="INTEGER"),
        checks=(Check("v IS NOT NULL", ("v",)), Check("w > 0", ("w",))),
        references=(Reference(("v",), ZONES, ("z",)),),
    )
    run(connection, contract, "select 'x' as v, -1 as w", parents={ZONES: "(select 1 as z)"})
    assert reasons(connection) == [[("v", "type INTEGER", "x"), ("w", "check (w > 0)", "-1")]]


def test_a_check_names_columns_as_the_contract_does(connection: duckdb.DuckDBPyConnection) -> None:
    contract = Contract(
        columns(**{"select": "INTEGER", "a b": "INTEGER"}), checks=(Check('"select" < "a b"', ("select", "a b")),)
    )
    report = run(connection, contract, 'select 1 as "A B", 2 as "SELECT", 3 as other')
    assert report.by_reason == {('check ("select" < "a b")', "select, a b"): 1}
    assert connection.execute("select _row from _gate_bad").fetchall() == [('{"A B":1,"SELECT":2,"other":3}',)]


def test_references_need_a_parent_unless_null(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("create table zones as select * from (values (1, 'a'), (1, 'a'), (2, 'b'), (3, null)) t (z, k)")
    contract = Contract(columns(z="INTEGER", k="VARCHAR"), references=(Reference(("z", "k"), ZONES, ("z", "k")),))
    rows = "select * from (values (1, 'a'), (1, 'b'), (null, 'q'), (9, null), (2, 'b'), (3, null)) t (z, k)"
    report = run(connection, contract, rows, parents={ZONES: "zones"})
    assert report.good == 5
    assert reasons(connection) == [[("z, k", "references warehouse.zones", "z=1, k=b")]]


def test_a_bad_row_keeps_its_record_key_and_row(connection: duckdb.DuckDBPyConnection) -> None:
    contract = Contract(columns(k="INTEGER not null", t="TIMESTAMP", v="INTEGER not null"), primary_key=("k",))
    rows = (
        "select *, 'r' || _offset as _record_id, 3 as _load_seq from "
        "(values ('1', timestamp '2020-01-01', null, 1), ('01', null, 1, 2), (null, null, 1, 3)) t (k, t, v, _offset)"
    )
    run(connection, contract, rows)
    found = connection.execute(
        "select _record_id, _load_seq, _offset, _key, _row from _gate_bad order by _offset"
    ).fetchall()
    assert [row[:4] for row in found] == [("r1", 3, 1, '{"k":1}'), ("r2", 3, 2, None), ("r3", 3, 3, None)]
    assert json.loads(found[0][4]) == {"k": "1", "t": "2020-01-01 00:00:00", "v": None}
    assert [d[0] for d in connection.execute("from _gate_bad").description] == [
        "_record_id", "_load_seq", "_offset", "_key", "_reasons", "_row",
    ]  # fmt: skip


def test_values_of_pii_columns_show_as_a_hash(connection: duckdb.DuckDBPyConnection) -> None:
    contract = Contract(
        columns(mail="VARCHAR not null", v="INTEGER"),
        primary_key=("mail",),
        checks=(Check("mail LIKE '%@%'", ("mail",)),),
    )
    rows = "select * from (values ('secret', 'x'), ('a@b', '1'), ('a@b', '2')) t (\"Mail\", v)"
    report = run(connection, contract, rows, pii=frozenset({"MAIL", "v"}))
    shown = str(connection.execute("from _gate_bad").fetchall()) + str(report)
    for value in ("secret", "a@b", "x"):
        hashed = "sha256:" + hashlib.sha256(value.encode()).hexdigest()[:16]
        assert hashed in shown
        assert f"'{value}'" not in shown
        assert f'"{value}"' not in shown


def test_the_report_counts_each_reason_and_limits_examples(connection: duckdb.DuckDBPyConnection) -> None:
    contract = Contract(columns(v="INTEGER not null"), checks=(Check("v % 2 = 0", ("v",)),))
    report = run(connection, contract, "select case when i % 10 > 0 then i end as v from range(1000) t (i)")
    assert report.by_reason == {("check (v % 2 = 0)", "v"): 500, ("not null", "v"): 100}
    assert {reason: len(found) for reason, found in report.examples.items()} == dict.fromkeys(report.by_reason, 100)
    assert all(int(example.value or 0) % 2 for example in report.examples["check (v % 2 = 0)", "v"])


# -- keys ---------------------------------------------------------------------------------------------------------------

KEYED = Contract(columns(k="INTEGER not null", v="INTEGER"), primary_key=("k",))


def test_the_latest_record_wins_a_key(connection: duckdb.DuckDBPyConnection) -> None:
    rows = (
        "select k, v, _load_seq, _offset, 'r' as _record_id from "
        "(values (1, 10, 1, 9), (1, 11, 2, 1), (1, 12, 2, 0), (2, 20, 1, 1), (3, -1, 9, 9), (3, 30, 1, 1)) t (k, v, _load_seq, _offset)"
    )
    contract = Contract(KEYED.columns, primary_key=("k",), checks=(Check("v > 0", ("v",)),))
    report = run(connection, contract, rows, strategy="upsert")
    assert [row[:2] for row in good(connection)] == [(1, 11), (2, 20), (3, 30)]
    assert (report.replaced, report.quarantined) == (2, 1)


def test_without_provenance_the_order_column_decides(connection: duckdb.DuckDBPyConnection) -> None:
    rows = "select * from (values (1, 10), (1, 11), (1, null), (2, 5), (2, 5), (3, null), (3, null)) t (k, v)"
    report = run(connection, KEYED, rows, strategy="upsert", order_by="v")
    assert good(connection) == [(1, 11), (2, 5), (3, None)]
    assert (report.replaced, report.quarantined) == (4, 0)


def test_a_tie_at_the_top_rejects_the_whole_key(connection: duckdb.DuckDBPyConnection) -> None:
    contract = Contract(columns(k="INTEGER not null", v="INTEGER", w="INTEGER"), primary_key=("k",))
    rows = (
        "select * from (values (1, 2, 1), (1, 2, 2), (1, 1, 1), (2, 1, 1), (2, 1, 2), (2, 9, 9), (2, 9, 9)) t (k, v, w)"
    )
    report = run(connection, contract, rows, strategy="upsert", order_by="v")
    assert good(connection) == [(2, 9, 9)]
    assert (report.replaced, report.by_reason) == (3, {("primary key", "k"): 3})


@pytest.mark.parametrize("strategy", ["refresh", "upsert"])
def test_an_ambiguous_key_is_rejected_and_exact_duplicates_stay_once(
    connection: duckdb.DuckDBPyConnection, strategy: str
) -> None:
    rows = "select * from (values (1, 1), (1, 2), (1, 2), (2, 3), (2, 3), (3, null), (3, null), (4, 4), (null, 1)) t (k, v)"
    report = run(connection, KEYED, rows, strategy=strategy)
    assert good(connection) == [(2, 3), (3, None), (4, 4)]
    assert (report.replaced, report.by_reason) == (2, {("primary key", "k"): 3, ("not null", "k"): 1})


def test_refresh_does_not_let_a_later_record_win(connection: duckdb.DuckDBPyConnection) -> None:
    rows = "select 1 as k, i as v, 'r' || i as _record_id, i as _load_seq, i as _offset from range(2) t (i)"
    assert run(connection, KEYED, rows).by_reason == {("primary key", "k"): 2}


def test_unique_rejects_all_that_share_a_value_but_not_nulls(connection: duckdb.DuckDBPyConnection) -> None:
    contract = Contract(
        columns(k="INTEGER not null", u="INTEGER", w="VARCHAR"), primary_key=("k",), unique=(("u",), ("u", "w"), ("w",))
    )
    rows = "select * from (values (1, 1, 'a'), (2, 1, 'a'), (3, null, 'b'), (4, null, null), (5, 5, 'b'), (6, 6, null), (6, 6, null)) t (k, u, w)"
    report = run(connection, contract, rows)
    assert good(connection) == [(4, None, None), (6, 6, None)]
    assert report.replaced == 1
    assert report.by_reason == {("unique", "u"): 2, ("unique", "u, w"): 2, ("unique", "w"): 4}


def test_float_keys_that_compare_equal_are_one_key(connection: duckdb.DuckDBPyConnection) -> None:
    contract = Contract(columns(k="DOUBLE not null", v="INTEGER"), primary_key=("k",))
    rows = "select * from (values ('0.0'::double, 1), ('-0.0'::double, 2), ('nan'::double, 1), ('nan'::double, 2), (1.0, 1)) t (k, v)"
    report = run(connection, contract, rows)
    assert report.by_reason == {("primary key", "k"): 4}


def test_row_numbers_of_good_rows_have_no_gaps(connection: duckdb.DuckDBPyConnection) -> None:
    run(connection, KEYED, "select i % 90 as k, 1 as v from range(100) t (i)")
    assert connection.execute("select max(rowid), count(*) from _gate_good").fetchall() == [(89, 90)]


def test_key_sql_is_what_bad_rows_carry(connection: duckdb.DuckDBPyConnection) -> None:
    contract = Contract(columns(k="INTEGER not null", d="DATE not null"), primary_key=("d", "k"))
    run(connection, contract, "select 1 as k, date '2020-01-01' as d, i as x from range(2) t (i)")
    run(
        connection,
        Contract(contract.columns, primary_key=("d", "k"), checks=(Check("k > 1", ("k",)),)),
        "select 1 as k, date '2020-01-01' as d",
    )
    ((of_good, of_bad),) = connection.execute(
        f"select {key_sql(contract, 's')}, _key from _staged s, _gate_bad"
    ).fetchall()
    assert of_good == of_bad == '{"d":"2020-01-01","k":1}'
    assert connection.execute(f"select {key_sql(Contract(contract.columns), 's')} from _staged s").fetchall() == [
        (None,)
    ]


# -- tables -------------------------------------------------------------------------------------------------------------


def test_good_rows_have_the_contracts_columns_and_provenance(connection: duckdb.DuckDBPyConnection) -> None:
    run(
        connection,
        KEYED,
        "select 'r' as _record_id, 2 as v, 1::utinyint as _load_seq, 0 as _offset, 1 as K, 'x' as extra",
        strategy="upsert",
    )
    assert [(d[0], str(d[1])) for d in connection.execute("from _gate_good").description] == [
        ("k", "INTEGER"), ("v", "INTEGER"), ("_record_id", "VARCHAR"), ("_load_seq", "BIGINT"), ("_offset", "BIGINT"),
    ]  # fmt: skip
    assert {row[0] for row in connection.execute("show tables").fetchall()} == {"_staged", "_gate_good", "_gate_bad"}


def test_a_view_and_an_empty_table_and_a_second_run(connection: duckdb.DuckDBPyConnection) -> None:
    run(connection, KEYED, "select 1 as k, 1 as v")
    connection.execute(
        "create temp view rows_now as select * from _staged union all select 2, 3 union all select null, 3"
    )
    report = gate(connection, KEYED, "rows_now", strategy="refresh", parents={}, order_by=None, into="_gate")
    assert (report.query_rows, report.good, report.quarantined) == (3, 2, 1)
    report = run(connection, KEYED, "select 1 as k, 1 as v where false")
    assert report == GateReport(0, 0, 0, 0)


def test_a_missing_column_is_the_callers_mistake(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(ValueError, match="v"):
        run(connection, KEYED, "select 1 as k")


# -- the whole against plain Python -------------------------------------------------------------------------------------

WHOLE = Contract(
    columns(k="INTEGER not null", d="DECIMAL(4,1) not null", u="INTEGER", z="INTEGER"),
    primary_key=("k",),
    unique=(("u",),),
    checks=(Check("d >= 0", ("d",)), Check("(z IS NULL) OR (z <> u)", ("z", "u"))),
    references=(Reference(("z",), ZONES, ("z",)),),
)
PARENTS = {1, 2}

_row = st.tuples(
    st.sampled_from(["1", "2", "3", "01", "x", None]),
    st.sampled_from([0.0, 1.5, 2.0, 1.55, -1.0, 1e6, math.nan, None]),
    st.sampled_from([1, 2, 3, None]),
    st.sampled_from([1, 2, 9, None]),
)
Row = tuple[str | None, float | None, int | None, int | None]


def judged(row: Row) -> tuple[tuple[Any, ...], set[tuple[str, str]]]:
    """Convert a row; return it with the reasons that it has by itself."""
    key, number, u, z = row
    found = set()
    k = int(key) if key in {"1", "2", "3"} else None
    if k is None:
        found.add(("not null" if key is None else "type INTEGER", "k"))
    d = None
    if number is None:
        found.add(("not null", "d"))
    elif math.isnan(number) or abs(number) >= 1000 or float(round(number, 1)) != number:
        found.add(("type DECIMAL(4,1)", "d"))
    else:
        d = Decimal(str(round(number, 1)))
    if d is not None and d < 0:
        found.add(("check (d >= 0)", "d"))
    if z is not None and u is not None and z == u:
        found.add(("check ((z IS NULL) OR (z <> u))", "z, u"))
    if z is not None and z not in PARENTS:
        found.add(("references warehouse.zones", "z"))
    return (k, d, u, z), found


def divided(
    rows: Sequence[Row], provenance: Sequence[tuple[int, int]] | None, strategy: str, order_by: str | None
) -> tuple[Counter[Any], Counter[Any], int]:
    """Return good rows, bad rows with their reasons, and how many were replaced."""
    bad: Counter[Any] = Counter()
    groups: dict[int, list[tuple[Any, Row, tuple[Any, ...]]]] = {}
    for i, row in enumerate(rows):
        converted, found = judged(row)
        if found:
            bad[str(row), frozenset(found)] += 1
            continue
        rank: Any = 0
        if strategy == "upsert" and provenance is not None:
            rank = provenance[i]
        elif strategy == "upsert" and order_by is not None:
            value = converted[2]
            rank = (value is not None, value or 0)
        groups.setdefault(converted[0], []).append((rank, row, converted))
    winners: list[tuple[Row, tuple[Any, ...]]] = []
    replaced = 0
    for rivals in groups.values():
        best = max(rank for rank, _, _ in rivals)
        if len({converted for rank, _, converted in rivals if rank == best}) > 1:
            for _, row, _ in rivals:
                bad[str(row), frozenset({("primary key", "k")})] += 1
            continue
        winners.append(next((row, converted) for rank, row, converted in rivals if rank == best))
        replaced += len(rivals) - 1
    shared = Counter(converted[2] for _, converted in winners if converted[2] is not None)
    for row, converted in winners:
        if shared[converted[2]] > 1:
            bad[str(row), frozenset({("unique", "u")})] += 1
    kept = Counter(converted for _, converted in winners if shared[converted[2]] <= 1)
    return kept, bad, replaced


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(_row, max_size=14),
    strategy=st.sampled_from(["upsert", "refresh"]),
    order_by=st.sampled_from([None, "u"]),
    seed=st.one_of(st.none(), st.randoms(use_true_random=False)),
)
def test_the_gate_divides_rows_as_plain_python_does(
    rows: list[Row], strategy: str, order_by: str | None, seed: Any
) -> None:
    provenance = None
    hidden = ""
    data: list[Any] = [list(row) for row in rows]
    if seed is not None:
        provenance = [(seed.randint(1, 2), seed.randint(1, 3)) for _ in rows]
        data = [[*row, *place] for row, place in zip(rows, provenance, strict=True)]
        hidden = ", _load_seq bigint, _offset bigint"
    connection = duckdb.connect(config={"threads": 1})
    try:
        connection.execute(f"create temp table _staged (k varchar, d double, u integer, z integer{hidden})")
        if data:
            connection.executemany(f"insert into _staged values ({', '.join('?' * len(data[0]))})", data)
        report = gate(
            connection,
            WHOLE,
            "_staged",
            strategy=strategy,
            parents={ZONES: "(values (1), (2)) p (z)"},
            order_by=order_by,
            into="g",
        )
        kept = Counter(connection.execute("select k, d, u, z from g_good").fetchall())
        bad: Counter[Any] = Counter()
        for text, found in connection.execute("select _row, _reasons from g_bad").fetchall():
            row = json.loads(text)
            d = row["d"]
            shown = (
                row["k"],
                math.nan if isinstance(d, str) or (isinstance(d, float) and math.isnan(d)) else d,
                row["u"],
                row["z"],
            )
            bad[str(shown), frozenset((r["rule"], r["column"]) for r in found)] += 1
    finally:
        connection.close()
    assert (kept, bad, report.replaced) == divided(rows, provenance, strategy, order_by)
    assert report.query_rows == len(rows) == report.good + report.quarantined + report.replaced
    assert (report.good, report.quarantined) == (kept.total(), bad.total())
