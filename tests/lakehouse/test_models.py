from __future__ import annotations

import datetime as dt
import hashlib
import re
from fractions import Fraction
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.errors import ModelError, QueryError
from lakehouse.models import Check, Column, Model, Models, Reference, check_columns, load_models, shape, with_provenance
from lakehouse.types import TableName

CREATE = "create table warehouse.t (a integer primary key, b varchar);\n"
UPSERT = "insert or replace into warehouse.t select a, b from lake.s"


def warehouse(name: str) -> TableName:
    return TableName("warehouse", name)


class Project:
    def __init__(self, path: Path) -> None:
        self.sql = path / "sql"

    def write(self, name: str, text: str, folder: str = "warehouse") -> Project:
        (self.sql / folder).mkdir(parents=True, exist_ok=True)
        (self.sql / folder / name).write_bytes(text.encode())
        return self

    def load(self) -> Models:
        return load_models(self.sql)

    def only(self, text: str) -> Model:
        (model,) = self.write("t.sql", text).load().order()
        return model

    def error(self, text: str) -> ModelError:
        with pytest.raises(ModelError) as caught:
            self.write("t.sql", text).load()
        return caught.value


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# -- cutting ------------------------------------------------------------------------------------------------------------

NASTY = [
    "select a, ';-- ''x' as b from lake.s",
    "select a /* ; /* nested; */ insert */, b -- ; it's\n from lake.s",
    "select $$ ; '$$ as b, $q$ ; $$ $q$ as c from lake.s",
    'select e\'\\\';\' as b, "a;""b--" from lake.s',
    "with x as (select ';' as b) select * from lake.s join x on true",
    "from lake.s select 'é;' as b",
    "(select a, b from lake.s)",
    "values (1, ';')",
    "select 'ж' as b,\r\n  a from lake.s",
]


@pytest.mark.parametrize("query", NASTY)
@pytest.mark.parametrize(
    ("head", "verb", "tail"),
    [
        ("", "insert or replace into warehouse.t ", ""),
        ("-- it's; \"x\n", "TRUNCATE warehouse.t;INSERT INTO warehouse.t BY NAME ", ";"),
        ("/* ; 'x */ ", 'insert or replace into "warehouse" . t\n', "\n;\n-- it's; the end\n"),
        ("\ufeff", "truncate table warehouse.t; ; insert into warehouse.t ", " /* ';' */ ;"),
    ],
)
def test_the_query_is_sliced_exactly(project: Project, query: str, head: str, verb: str, tail: str) -> None:
    model = project.only(f"{head}{CREATE}{verb}{query}{tail}")
    assert model.query == query
    assert model.strategy == ("refresh" if "truncate" in verb.lower() else "upsert")
    assert model.query_line == 2 + head.count("\n") + verb.count("\n")


@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(st.sampled_from(["';'", "/* ; ' */", "$$;'$$", '";"', "-- ; '\n", "1", ",", "é"]), max_size=6))
def test_a_semicolon_inside_strings_and_comments_never_cuts(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str]
) -> None:
    constants = " , ".join(
        ["1 as a", *(piece for piece in pieces if piece not in {",", "é"} and piece[0] not in '"-/')]
    )
    comments = " ".join(piece for piece in pieces if piece[0] in "-/")
    query = f"select {comments} {constants} from lake.s"
    model = Project(tmp_path_factory.mktemp("p")).only(f"{CREATE}insert or replace into warehouse.t {query} ; ")
    assert model.query == query


def test_a_model_knows_its_file_hash_text_and_description(project: Project) -> None:
    text = f"-- Things, one per a.\n-- See a.b@c.d  @owner me\n{CREATE}{UPSERT};"
    model = project.only(text)
    assert (model.table, model.file) == (warehouse("t"), "sql/warehouse/t.sql")
    assert model.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert model.text == text
    assert model.description == "Things, one per a.\nSee a.b@c.d"
    assert model.reads == (TableName("lake", "s"),)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (f"{CREATE}/* why */ {UPSERT} ;", True),
        (f"{CREATE}{UPSERT} -- @description things\n;", True),
        (f"{CREATE}{UPSERT.replace('select', 'SELECT')};", True),
        (f"{CREATE}{UPSERT} where a > 1;", False),
        (f"{CREATE}{UPSERT}; -- @on_violation fail", False),
    ],
)
def test_comments_layout_and_the_case_of_keywords_are_no_other_meaning(project: Project, text: str, same: bool) -> None:
    model = project.only(f"{CREATE}{UPSERT};")
    assert (project.only(text).meaning == model.meaning) is same


REFUSED = [
    ("", "holds no statement"),
    (CREATE, "has no query"),
    (UPSERT, "starts with CREATE"),
    (CREATE + "insert into warehouse.t select 1 as a", r"plain INSERT"),
    (CREATE + "delete from warehouse.t; insert into warehouse.t select 1 as a", "DELETE is not supported"),
    (CREATE + "insert or replace into warehouse.u select 1 as a", r"makes warehouse\.t, but this fills warehouse\.u"),
    (CREATE + "truncate warehouse.u; insert into warehouse.t select 1 as a", r"fills warehouse\.u"),
    (CREATE + "insert into warehouse.t select 1 as a; truncate warehouse.t", "don't fill the table once"),
    (CREATE + UPSERT + ";" + UPSERT, "don't fill the table once"),
    (CREATE + CREATE + UPSERT, "second CREATE"),
    (CREATE + "truncate warehouse.t; insert or replace into warehouse.t select 1 as a", "plain INSERT INTO"),
    (CREATE + "insert or replace into warehouse.t (a, b) select 1, 2", "column list"),
    (CREATE + UPSERT + " on conflict do nothing", "ON CONFLICT"),
    (CREATE + UPSERT + " returning a", "RETURNING"),
    (CREATE + "with x as (select 1 as a) insert or replace into warehouse.t from x", "WITH stands before INSERT"),
    (CREATE + UPSERT + "; comment on table warehouse.t is 'x'", "after the query"),
    (CREATE + "comment on table warehouse.u is 'x';" + UPSERT, "comments on its own"),
    (CREATE + "insert or replace into warehouse.t pivot lake.s on a", "is no query"),
    (CREATE + "insert or replace into warehouse.t", "no query"),
    ("create view warehouse.t as select 1 as a", "CREATE VIEW"),
    ("create table warehouse.t as select 1 as a;" + UPSERT, "AS is not supported"),
    ("create or replace table warehouse.t (a int);" + UPSERT, "OR REPLACE"),
    ("create temp table warehouse.t (a int);" + UPSERT, "never temporary"),
    ("create table if not exists warehouse.t (a int);" + UPSERT, "IF NOT EXISTS"),
    ("create table t (a int);" + UPSERT, "t is not a table of the warehouse"),
    ("create table lake.t (a int);" + UPSERT, r"lake\.t is not a table of the warehouse"),
    ("select 1", "SELECT is not supported"),
    ("drop table warehouse.t", "DROP is not supported"),
]


@pytest.mark.parametrize(("text", "what"), REFUSED)
def test_other_statements_are_refused_with_a_hint(project: Project, text: str, what: str) -> None:
    error = project.error(text)
    assert error.hint
    assert re.search(what, error.what)
    assert str(error).startswith("sql/warehouse/t.sql")


def test_the_place_of_an_error_is_line_and_column(project: Project) -> None:
    error = project.error(f"-- é\n{CREATE}\n  delete from warehouse.t")
    assert (error.line, error.column) == (4, 3)


# -- annotations --------------------------------------------------------------------------------------------------------


def test_all_annotations_are_read(project: Project) -> None:
    model = project.only(
        "/* Ask x@y.z\n * @owner city data  @fresh 1d12h\n * @tags a, b */\n-- @description One row per a. \n"
        f"{CREATE}-- @pii b\n{UPSERT} -- @on_violation fail  @max_quarantine 0.5%\n; -- @since load(lake.s) @order_by b\n"
    )
    found = model.annotations
    assert (found.owner, found.fresh, found.tags) == ("city data", dt.timedelta(days=1, hours=12), ("a", "b"))
    assert (found.description, model.description) == ("One row per a.", "One row per a.")
    assert (found.on_violation, found.max_quarantine, found.pii) == ("fail", Fraction(1, 200), frozenset({"b"}))
    assert (found.since, found.order_by) == (TableName("lake", "s"), "b")
    assert model.query == "select a, b from lake.s"


def test_without_annotations_the_defaults_hold(project: Project) -> None:
    found = project.only(CREATE + UPSERT).annotations
    assert (found.on_violation, found.max_quarantine, found.since, found.pii) == (
        "quarantine",
        Fraction(1, 20),
        None,
        frozenset(),
    )


@pytest.mark.parametrize(
    ("line", "what", "hint"),
    [
        ("@ownr me", "unknown annotation @ownr", "Did you mean owner"),
        ("@owner", "@owner has no value", "@owner city-data"),
        ("@fresh soon", "'soon' is no value for @fresh", "2h"),
        ("@on_violation warn", "'warn' is no value", "quarantine, or fail"),
        ("@max_quarantine 200%", "'200%' is no value", "5%, or 0.05; 100% is the most"),
        ("@max_quarantine x", "'x' is no value", "5%"),
        ("@since lake.s", "no value for @since", "load"),
        ("@since load(warehouse.s)", "no value for @since", "load"),
        ("@since load(lake.other)", "which the query does not read", "lake.s"),
        ("@order_by nope", "names nope, which is no column", "a, b"),
        ("@pii a, nope", "names nope, which is no column", "a, b"),
        ("@owner a @owner b", "given twice", "one"),
        ("@tags a b", "no value for @tags", "a, b"),
    ],
)
def test_wrong_annotations_are_errors(project: Project, line: str, what: str, hint: str) -> None:
    error = project.error(f"-- ok\n--  {line}\n{CREATE}{UPSERT}")
    assert what in error.what
    assert error.hint is not None
    assert hint in error.hint
    assert error.line in {2, 3}


def test_an_annotation_inside_a_statement_is_an_error(project: Project) -> None:
    error = project.error(f"{CREATE}insert or replace into warehouse.t\nselect a, -- @pii b\n b from lake.s")
    assert (error.line, "middle" in error.what) == (3, True)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (CREATE.replace(" primary key", "") + UPSERT, "needs a primary key"),
        (
            f"-- @order_by b\n{CREATE}truncate warehouse.t; insert into warehouse.t select 1 as a, 'x' as b",
            "@order_by belongs",
        ),
    ],
)
def test_rules_that_strategy_and_contract_share(project: Project, text: str, what: str) -> None:
    assert what in project.error(text).what


# -- contract -----------------------------------------------------------------------------------------------------------

REFILL = "truncate warehouse.{0}; insert into warehouse.{0} select 1 as a from lake.s"


def test_the_contract_is_what_duckdb_read(project: Project) -> None:
    project.write("z.sql", "create table warehouse.z (a bigint, k varchar, primary key (a, k));" + REFILL.format("z"))
    project.write(
        "a.sql",
        """create table warehouse.a ("x y" bigint, n decimal(10, 2) not null check (n >= 0), k text unique, s struct(p double, q varchar[]),
           m map(varchar, date), w timestamptz, l timestamp, b blob, primary key ("x y", n), unique (k, n), check (n < 9 or k is null),
           foreign key ("x y", k) references warehouse.z (a, k));
           comment on table warehouse.a is 'it''s';comment on column warehouse.a.n is 'money; €';"""
        + REFILL.format("a"),
    )
    contract = project.load().by_table[warehouse("a")].contract
    assert contract.columns[:2] == (Column("x y", "BIGINT", False), Column("n", "DECIMAL(10,2)", False, "money; €"))
    assert [c.type for c in contract.columns[2:]] == [
        "VARCHAR", "STRUCT(p DOUBLE, q VARCHAR[])", "MAP(VARCHAR, DATE)", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP", "BLOB",
    ]  # fmt: skip
    assert contract.primary_key == ("x y", "n")
    assert contract.unique == (("k",), ("k", "n"))
    assert contract.checks == (Check("n >= 0", ("n",)), Check("(n < 9) OR (k IS NULL)", ("n", "k")))
    assert contract.references == (Reference(("x y", "k"), warehouse("z"), ("a", "k")),)
    assert contract.comment == "it's"


@pytest.mark.parametrize(
    "type_",
    ["hugeint", "uinteger", "utinyint", "ubigint", "time", "timetz", "interval", "uuid", "enum('a')", "json", "bit", "timestamp_ns",
     "timestamp_s", "integer[3]", "struct(a uuid)", "time[]", "map(varchar, json)", "union(a int)", "variant", "bignum"],
)  # fmt: skip
def test_types_off_the_list_are_refused_at_their_column(project: Project, type_: str) -> None:
    error = project.error(f"create table warehouse.t (a integer,\n  b {type_});\n{UPSERT}")
    assert "is not supported" in error.what
    assert (error.line, error.column) == (2, 3)


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("b integer default 3", "default"),
        ("b integer generated always as (a + 1)", "generated"),
        ("b varchar collate nocase", "COLLATE"),
        ("b varchar(10)", r"varchar\(10\): DuckDB does not keep the length"),
        ("b text (3)", r"text\(3\)"),
        ("_b integer", "names that start with '_'"),
        ("RowID integer", "RowID: DuckDB calls a row's own address so"),
        ("A integer", "the column A is declared twice"),
        ("b integer check (b in (select 1))", "a subquery"),
        ("b integer check (nope > 1)", "nope"),
        ("b date check (b <= current_date)", "current_date"),
        ("b date check (b <= today())", "another day"),
        ("b timestamptz check (b <= now())", r"a CHECK with now\(\)"),
        ("b double check (b > random())", "random"),
        ("b foo", "there is no type foo"),
        ("b integer,,", "syntax error"),
        ("b integer check (t.b > 1)", "t.b names the table"),
    ],
)
def test_what_the_contract_cannot_keep_is_refused(project: Project, column: str, what: str) -> None:
    error = project.error(f"create table warehouse.t (a integer primary key,\n  {column});\n{UPSERT}")
    assert re.search(what, error.what)
    assert error.line in {1, 2}


@pytest.mark.parametrize("check", ['"current_date" > b', "current_date > b", 'b is null or "user" <> user'])
def test_a_check_of_columns_called_like_functions(project: Project, check: str) -> None:
    columns = f'a integer primary key, b date, "user" varchar, "current_date" date, check ({check})'
    model = project.only(f"create table warehouse.t ({columns});\n{UPSERT}")
    assert len(model.contract.checks) == 1


def test_duckdbs_position_becomes_a_place_in_the_file(project: Project) -> None:
    error = project.error(f"-- é 'x\n\ncreate table warehouse.t (é integer,\n  b foo);\n{UPSERT}")
    assert (error.line, error.column) == (4, 5)
    error = project.error(f"{CREATE}insert or replace into warehouse.t\nselect 'é',\n  a from from lake.s")
    assert (error.line, error.column) == (4, 10)


@pytest.mark.parametrize(
    ("columns", "what", "hint", "line"),
    [
        ("a integer,\n  check\n(w > 1)", "a CHECK names w, which is no column of the table", "Declare the column", 3),
        ("a integer check (a in\n (select 1))", "a CHECK holds a subquery", "REFERENCES", 2),
        ("a integer check (\nsum(a) > 1)", "a CHECK holds an aggregate", "REFERENCES", 2),
        ("a integer check (row_number()\nover () > 1)", "a CHECK holds a window", "REFERENCES", 2),
        ("a integer check (\nabss(a) > 1)", "there is no function abss()", "Did you mean abs?", 2),
        ("a integer check (\na.b > 1)", "a field b is asked of what has none", "None", 2),
        ("a integer check (\na > ?)", "a contract takes no parameters", "None", 2),
        ("a integer,\nb strng", "there is no type strng", "Did you mean string?", 2),
        ("a integer,\nprimary key (b)", "a key names b, which is no column of the table", "Declare the column", 2),
        ("a integer,\na varchar", "the column a is declared twice", "Keep one of them.", 2),
        ("a integer check (\na < [1])", "Cannot compare values of type INTEGER and type INTEGER", "None", 2),
    ],
)
def test_what_duckdb_refuses_is_said_in_a_sentence_with_a_hint_at_its_place(
    project: Project, columns: str, what: str, hint: str, line: int
) -> None:
    error = project.error(f"create table warehouse.t ({columns});\n{UPSERT}")
    assert error.what.startswith(what)
    assert error.line == line
    assert hint in str(error.hint)
    assert "Error:" not in str(error)


def test_a_reference_loads_in_any_file_order(project: Project) -> None:
    project.write("a.sql", "create table warehouse.a (a integer references warehouse.z (a));" + REFILL.format("a"))
    project.write("z.sql", "create table warehouse.z (a integer primary key);" + REFILL.format("z"))
    assert [model.table.name for model in project.load().order()] == ["z", "a"]


@pytest.mark.parametrize(
    ("target", "what"),
    [("warehouse.nope", "no model makes"), ("z", "has no schema"), ("warehouse.t", "references itself")],
)
def test_wrong_references(project: Project, target: str, what: str) -> None:
    error = project.error(
        f"create table warehouse.t (a integer primary key,\n b integer references {target} (a));{UPSERT}"
    )
    assert what in error.what
    assert error.line == 2


def test_a_hint_never_names_the_model_itself(project: Project) -> None:
    error = project.error(
        f"create table warehouse.t (a integer primary key,\n b integer references warehouse.tt (a));{UPSERT}"
    )
    assert "warehouse.t" not in error.hint.replace("warehouse.tt", "")


# -- reads --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("select a from lake.s", "lake.s"),
        ("from LAKE.S select a", "lake.s"),
        ("with s as (select * from lake.x), t as (from s) select * from t", "lake.x"),
        ("select (select max(a) from lake.x) from lake.s where a in (from warehouse.d)", "lake.s lake.x warehouse.d"),
        ("select * from lake.s union all select * from raw.s", "lake.s raw.s"),
        ("select * from (select * from typed.s) x join lake.y using (a), range(3)", "lake.y typed.s"),
        (
            "with recursive r as (select 1 as a union all select a + 1 from r where a < (select max(a) from lake.m)) from r",
            "lake.m",
        ),
        ("select exists (from lake.e) from (values (1)) v (a)", "lake.e"),
        ("select list_transform([1], lambda x: x + (select 1 from lake.l))", "lake.l"),
        ("select * from (pivot lake.s on a in (1, 2) using sum(b))", "lake.s"),
    ],
)
def test_reads_finds_every_table(project: Project, query: str, names: str) -> None:
    model = project.only(f"{CREATE}insert or replace into warehouse.t {query}")
    assert " ".join(map(str, model.reads)) == names


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("select * from s", "has no schema"),
        ("with x as (select * from y) from x", "the table y has no schema"),
        ("select * from 'a.csv'", "a model reads the lake only"),
        ("select * from read_csv('a.csv')", r"read_csv() in FROM"),
        ("select * from lake.s, query('from warehouse.x')", r"query() in FROM"),
        ("select * from main.s", "main.s is no table of the lake"),
        ("select * from other.lake.s", "other.lake.s is no table of the lake"),
        ("select * from lake.s at (version => 3)", "AT (…)"),
        ("select * from warehouse.t", "which it fills"),
        ("select a from (select * from warehouse.T)", "which it fills"),
        ("select $1 as a from lake.s", "parameters"),
        ("select * from (describe lake.s)", "in FROM"),
    ],
)
def test_other_inputs_are_refused(project: Project, query: str, what: str) -> None:
    error = project.error(f"{CREATE}insert or replace into warehouse.t\n{query}")
    assert what in error.what
    assert error.line == 3


# -- the graph ----------------------------------------------------------------------------------------------------------


def make(project: Project, edges: dict[str, list[str]]) -> None:
    for name, inputs in edges.items():
        tables = ", ".join(f"warehouse.{other}" for other in inputs) or "lake.s"
        project.write(
            f"{name}.sql",
            f"create table warehouse.{name} (a integer); truncate warehouse.{name}; insert into warehouse.{name} select 1 as a from {tables}",
        )


def test_order_components_and_downstream(project: Project) -> None:
    make(project, {"b": ["d"], "a": ["b"], "d": [], "c": [], "e": ["c"], "f": []})
    models = project.load()
    assert [m.table.name for m in models.order()] == ["c", "d", "b", "a", "e", "f"]
    assert [[m.table.name for m in part] for part in models.components()] == [["d", "b", "a"], ["c", "e"], ["f"]]
    assert [m.table.name for m in models.downstream(warehouse("d"))] == ["b", "a"]
    assert len(models.downstream(TableName("lake", "s"))) == 6


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_model_comes_after_what_it_needs(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    names = data.draw(st.permutations("abcde"))
    edges = {
        name: data.draw(st.lists(st.sampled_from(names[:i] or ["a"]), max_size=2, unique=True)) if i else []
        for i, name in enumerate(names)
    }
    project = Project(tmp_path_factory.mktemp("p"))
    make(project, edges)
    models = project.load()
    order = [m.table.name for m in models.order()]
    assert sorted(order) == sorted(names)
    assert all(order.index(other) < order.index(name) for name, inputs in edges.items() for other in inputs)
    assert sorted(m.table.name for part in models.components() for m in part) == sorted(names)


def test_a_cycle_names_the_files(project: Project) -> None:
    make(project, {"a": ["b"], "b": ["c"], "c": ["a"], "z": ["a"]})
    with pytest.raises(
        ModelError,
        match=r"circle: sql/warehouse/a.sql → sql/warehouse/b.sql → sql/warehouse/c.sql → sql/warehouse/a.sql",
    ):
        project.load()


def test_two_models_for_one_table_name_both_files(project: Project) -> None:
    project.write("x.sql", CREATE + UPSERT)
    assert "sql/warehouse/t.sql and sql/warehouse/x.sql" in project.error(CREATE + UPSERT).what


@pytest.mark.parametrize("folder", ["", "warehouse/deeper"])
def test_a_file_in_the_wrong_place_says_where_models_go(project: Project, folder: str) -> None:
    project.write("x.sql", CREATE, folder)
    with pytest.raises(ModelError, match=r"models live in sql/warehouse/"):
        project.load()


def test_other_folders_and_no_folder_are_no_models(project: Project) -> None:
    assert project.load().order() == []
    assert project.write("x.sql", "nonsense", "lake").write(".hidden.sql", "x").load().order() == []


def test_a_file_that_is_not_utf8(project: Project) -> None:
    project.write("t.sql", "")
    (project.sql / "warehouse" / "t.sql").write_bytes(b"--\n\xff")
    with pytest.raises(ModelError, match=r"t\.sql:2: is not UTF-8"):
        project.load()


# -- shape --------------------------------------------------------------------------------------------------------------

DISTRIBUTIVE = [
    "select a from lake.s",
    "from lake.s",
    "select * from lake.s x left join warehouse.d on x.a = d.a where x.b is not null order by a",
    "with d as (select a, max(b) as m from warehouse.d group by a) select s.a, m from lake.s s join d using (a)",
    "select a, (select max(b) from warehouse.d where d.a = s.a) from lake.s",
    "select age(a, b), split_part(c, ',', 1), list_sum(d), abs(e) from lake.s",
    "select a is distinct from b, extract(year from c) from lake.s semi join warehouse.d using (a)",
    'select case when a then 1 else 2 end, a::int, d."from" from lake.s d',
]
ROW_WISE_ONLY = [
    ("select now(), a from lake.s", "now()"),
    ("select a from lake.s where b < current_date", "current_date"),
    ("select user, a from lake.s", "user()"),
    ("select a, (select max(b) from warehouse.d where c < LocalTime) from lake.s", "localtime()"),
    ("select random() from lake.s", "random()"),
    ("select age(a) from lake.s", "age()"),
    ("select ago(interval 1 day) from lake.s", "ago()"),
    ("select uuid() from lake.s", "uuid()"),
    ("select nextval('q') from lake.s", "nextval()"),
    ("select row_number() over (order by a) from lake.s", "window"),
    ("select a from lake.s qualify row_number() over (partition by a) = 1", "QUALIFY"),
    ("select a from lake.s where a > (select avg(a) from lake.s)", "more than once"),
    ("select x.a from lake.s x join lake.s y on x.a = y.b", "more than once"),
    ("with t as (from lake.s) select x.a from lake.s x join t on x.a = t.a", "more than once"),
    ("select a, (select b from warehouse.d limit 1) from lake.s", "LIMIT"),
    ("select a, (select first(b) from warehouse.d) from lake.s", "order of rows"),
]
NOT_ROW_WISE = [
    ("select distinct a from lake.s", "DISTINCT"),
    ("select a, count(*) from lake.s group by a", "GROUP BY"),
    ("select a, count(*) from lake.s group by all", "GROUP BY"),
    ("select count(*) from lake.s", "count"),
    ("select sum(a) + 1 from lake.s", "sum"),
    ("select geomean(a) from lake.s", "geomean"),
    ("select weighted_avg(a, b) from lake.s", "weighted_avg"),
    ("select 1 from lake.s having count(*) > 1", "HAVING"),
    ("select a from lake.s union all select a from lake.t", "set operation"),
    ("select a from lake.s except select a from lake.t", "set operation"),
    ("select a from lake.s limit 3", "LIMIT"),
    ("select a from lake.s offset 3", "LIMIT or OFFSET"),
    ("select a from lake.s limit 10%", "LIMIT"),
    ("select a from lake.s using sample 10%", "SAMPLE"),
    ("select a from lake.s tablesample 10%", "SAMPLE"),
    ("select unnest(a) from lake.s", "unnest"),
    ("select a, generate_subscripts(b, 1) from lake.s", "generate_subscripts"),
    ("select regexp_split_to_table(a, ',') from lake.s", "regexp_split_to_table"),
    ("select * from lake.s cross join warehouse.d", "cross join"),
    ("select * from lake.s, warehouse.d", "cross join"),
    ("select * from lake.s positional join warehouse.d", "positional"),
    ("select * from lake.s asof join warehouse.d using (a)", "asof"),
    ("select * from lake.s natural join warehouse.d", "natural"),
    ("select * from lake.s full join warehouse.d using (a)", "full"),
    ("select * from lake.s right join warehouse.d using (a)", "right"),
    ("select * from warehouse.d join lake.s using (a)", "first table"),
    ("select * from (from lake.s)", "first table"),
    ("with t as (from lake.s) select * from t", "first table"),
    ("select 1 as a", "first table"),
    ("values (1)", "first table"),
]


@pytest.mark.parametrize("query", DISTRIBUTIVE)
def test_distributive_queries(query: str) -> None:
    found = shape(query)
    assert (found.row_wise, found.why_not, found.distributive, found.why_not_distributive) == (True, None, True, None)
    assert found.driving == TableName("lake", "s")


@pytest.mark.parametrize(
    "query",
    [
        'select "user" from lake.s where "current_date" is not null',
        'select é, "user" from lake.s x left join warehouse.d on x."user" = "session_user"',
        "select User, s.localtime from lake.s where user is not null",
        "with t as (select user from warehouse.d) select a from lake.s where a in (select user from t)",
    ],
)
def test_columns_called_like_functions_are_columns(query: str) -> None:
    found = shape(query, {"user", "a"})
    assert found.why_not_distributive is None


@pytest.mark.parametrize(("query", "why"), ROW_WISE_ONLY)
def test_row_wise_queries_that_need_all_rows(query: str, why: str) -> None:
    found = shape(query)
    assert (found.row_wise, found.distributive) == (True, False)
    assert found.why_not_distributive is not None
    assert why in found.why_not_distributive


@pytest.mark.parametrize(("query", "why"), NOT_ROW_WISE)
def test_queries_whose_rows_are_not_records(query: str, why: str) -> None:
    found = shape(query)
    assert (found.row_wise, found.distributive, found.driving) == (False, False, None)
    assert found.why_not is not None
    assert why in found.why_not


def test_the_shape_of_what_is_no_query() -> None:
    with pytest.raises(QueryError):
        shape("select from from")


@pytest.fixture(scope="module")
def lake() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("create schema lake; create schema warehouse")
    connection.execute(
        "create table lake.s as select i as a, i % 3 as b, date '2020-01-01' as c, [i] as d, i as e, "
        "'r' || i as _record_id, 1 as _load_seq, i as _offset from range(5) t (i)"
    )
    connection.execute("create table warehouse.d as select i as a, i as b from range(3) t (i)")
    return connection


SPLICED = [
    "select a from lake.s",
    "select a, -- last\n from lake.s -- end",
    'select a /* from */ from lake.s as "S;"',
    "select a is distinct from b as x from lake.s",
    "select a is not distinct from b from lake.s t where a > 1 order by a",
    "select 'from', extract(year from c) from lake.s",
    "with d as (select a from warehouse.d where a in (select 1)) select s.a from lake.s s left join d on s.a = d.a",
    "from lake.s select a",
    "from lake.s select a where a > 1",
    "from lake.s",
    "from lake.s x where a > 1 order by a",
    "select * from lake.s",
    "select s.* exclude (d) replace (a + 1 as a) from lake.s",
    'select s.a as "from" from lake.s join warehouse.d on s.a = d.a order by s.a',
    "select 'é' as x from lake.s",
]


@pytest.mark.parametrize("query", SPLICED)
def test_provenance_is_added_and_nothing_else_changes(lake: duckdb.DuckDBPyConnection, query: str) -> None:
    alias = shape(query).driving_alias
    assert alias is not None
    spliced = with_provenance(query, alias)
    before = lake.execute(query).fetchall()
    cursor = lake.execute(spliced)
    assert [item[0] for item in cursor.description][-3:] == ["_record_id", "_load_seq", "_offset"]
    after = cursor.fetchall()
    assert [row[:-3] for row in after] == before
    assert {row[-3:] for row in after} <= {(f"r{i}", 1, i) for i in range(5)}


def test_provenance_of_what_has_no_select_list() -> None:
    with pytest.raises(QueryError):
        with_provenance("values (1)", "s")


# -- columns against the contract ---------------------------------------------------------------------------------------


def checked(project: Project, column: str, described: str, select: str = "x as b") -> tuple[list[str], tuple[str, ...]]:
    model = project.only(
        f"create table warehouse.t (a integer primary key, b {column}); insert or replace into warehouse.t select a, {select} from lake.s"
    )
    found = check_columns(model, [("A", "INTEGER"), ("b", described)])
    return [error.what for error in found.errors], found.warnings


def test_columns_missing_extra_and_twice(project: Project) -> None:
    model = project.only(CREATE + UPSERT)
    found = check_columns(model, [("A", "INTEGER"), ("bb", "VARCHAR"), ("x", "DATE"), ("X", "DATE")])
    whats = [error.what for error in found.errors]
    assert whats == [
        "the query lacks the column b",
        "the query's columns bb, x, X are not in the contract",
        "the query has x twice",
    ]
    assert found.errors[0].line == 2
    assert check_columns(model, [("B", "VARCHAR"), ("A", "INTEGER")]).errors == ()
    wide = check_columns(model, [("bb", "VARCHAR"), *((f"c{i}", "DATE") for i in range(14))]).errors
    assert [error.what for error in wide] == [
        "the query lacks the columns a, b",
        f"the query's columns bb, {', '.join(f'c{i}' for i in range(11))}, … (3 more) are not in the contract",
    ]
    assert wide[1].hint == "Columns of the contract: a, b."


@pytest.mark.parametrize(
    ("column", "described", "what"),
    [
        ("timestamptz", "TIMESTAMP", "say which zone"),
        ("timestamp", "TIMESTAMP WITH TIME ZONE", "say which zone"),
        ("date", "TIMESTAMP WITH TIME ZONE", "say which zone"),
        ("timestamptz", "DATE", "say which zone"),
        ("integer", "STRUCT(a INTEGER)", "no value converts"),
        ("integer[]", "INTEGER", "no value converts"),
        ("varchar", "INTEGER[]", "no value converts"),
        ("date", "INTEGER", "no value converts"),
        ("boolean", "TIMESTAMP", "no value converts"),
        ("varchar", "BLOB", "say which encoding"),
        ("blob", "VARCHAR", "say which encoding"),
        ("integer", "UUID", "no value converts"),
    ],
)
def test_conversions_that_never_are_exact(project: Project, column: str, described: str, what: str) -> None:
    ((error,), _) = checked(project, column, described)
    assert what in error


@pytest.mark.parametrize(
    ("column", "described"),
    [("integer", "BIGINT"), ("decimal(10,2)", "VARCHAR"), ("varchar", "UUID"), ("date", "TIMESTAMP"), ("double", "DECIMAL(5,1)"),
     ("timestamp", "TIMESTAMP_NS"), ("bigint", '"NULL"'), ("struct(a bigint)", "STRUCT(a INTEGER)"), ("decimal(3,1)", "HUGEINT")],
)  # fmt: skip
def test_conversions_that_may_be_exact(project: Project, column: str, described: str) -> None:
    assert checked(project, column, described) == ([], ())


def test_a_computed_double_for_a_decimal_is_a_warning(project: Project) -> None:
    _, (warning,) = checked(project, "decimal(10,2)", "DOUBLE", "x * 1.1 as b")
    assert "round(…, 2)" in warning
    assert checked(project, "decimal(10,2)", "DOUBLE", "round(x * 1.1, 2) as b") == ([], ())
    assert checked(project, "decimal(10,2)", "DOUBLE", "x as b") == ([], ())
