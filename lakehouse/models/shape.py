"""What kind of query a model has: does each row come from one record, and does it distribute over loads."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.errors import QueryError
from lakehouse.models.queries import Node, Refused, location, nodes, parse_query, scratch
from lakehouse.models.tokens import SourceText, Token, depths
from lakehouse.types import TableName, quote

if TYPE_CHECKING:
    import duckdb

__all__ = ["CLOCK_WORDS", "PROVENANCE", "Shape", "shape", "unstable_functions", "with_provenance"]

PROVENANCE = ("_record_id", "_load_seq", "_offset")

CLOCK_WORDS = frozenset({"localtime", "localtimestamp", "current_time", "current_timestamp", "current_date"}) | {
    "current_user", "session_user", "user"
}  # fmt: skip
"""What DuckDB takes for a column where there is one of that name, and else for a function that the clock decides."""
# DuckDB declares them consistent, but the clock decides.
_CLOCK = CLOCK_WORDS | {"current_localtime", "current_localtimestamp", "getenv"}
_ORDER_DEPENDENT = {"first", "last", "any_value", "arbitrary", "list", "array_agg", "string_agg", "group_concat"}
_ORDER_DEPENDENT |= {"listagg", "arg_min", "arg_max", "min_by", "max_by", "argmin", "argmax"}
_SET_RETURNING = {"unnest", "unlist"}
# An aggregate's second signature: age(x) reads the clock, age(x, y) does not.
_CLOCK_WITH_ONE_ARGUMENT = {"age"}
_ENDS_LIST = {"from", "where", "group", "having", "window", "qualify", "order", "limit", "offset", "using"}
_ENDS_LIST |= {"union", "intersect", "except", "tablesample", "fetch"}


@dataclass(frozen=True)
class Shape:
    """How a query's rows depend on its inputs.

    Parameters
    ----------
    row_wise
        Each output row comes from one record of the driving table (joins may still repeat a record: checked at run).
    why_not
        If it is not row-wise, why.
    driving, driving_alias
        The leftmost table of FROM, and how the query calls it. ``None`` when not row-wise.
    distributive
        The query over two loads is the union of the queries over each; the driving table is the input.
    why_not_distributive
        If it is not distributive, why.
    """

    row_wise: bool
    why_not: str | None
    driving: TableName | None
    driving_alias: str | None
    distributive: bool
    why_not_distributive: str | None


def shape(query: str, columns: Collection[str] = ()) -> Shape:
    """Return the shape of a query.

    Parameters
    ----------
    columns
        The names, in lower case, of the columns of all tables that it reads.

    Raises
    ------
    QueryError
        If DuckDB can't parse it.
    """
    connection = scratch()
    try:
        tree = _parse(connection, query)
        functions = _Functions(connection)
        why_not = next(_not_row_wise(tree, functions), None)
        if why_not is not None:
            return Shape(False, why_not, None, None, False, why_not)
        driving, alias = _driving(tree)
        why = next(_not_distributive(tree, driving, functions, {*_words(tree, query, columns)}), None)
        return Shape(True, None, driving, alias, why is None, why)
    finally:
        connection.close()


def unstable_functions(
    connection: duckdb.DuckDBPyConnection, expression: str, columns: Collection[str] = ()
) -> list[str]:
    """Return the functions in an SQL expression whose value does not follow from their arguments.

    Parameters
    ----------
    columns
        The names, in lower case, of the columns that it may look at, as far as they are known.
    """
    query = f"SELECT {expression}"
    tree = _parse(connection, query)
    functions = _Functions(connection)
    return sorted({name for name in {*_called(tree), *_words(tree, query, columns)} if functions.unstable(name)})


def with_provenance(query: str, alias: str) -> str:
    """Return the query with the record's provenance at the end of its select list.

    Parameters
    ----------
    query
        A row-wise query.
    alias
        Its driving alias, from `shape`.

    Raises
    ------
    QueryError
        If the end of the select list can't be found.
    """
    added = ", ".join(f"{quote(alias)}.{quote(name)} AS {quote(name)}" for name in PROVENANCE)
    source = SourceText("query", query.encode())
    tokens = [token for token in source.tokens() if not token.comment]
    top = [(token, level) for token, level in zip(tokens, depths(tokens), strict=True) if level == 0]
    words = [token.word for token, _ in top]
    if "select" in words:
        last = _last_of_list(tokens, next(token for token, _ in top if token.word == "select"))
        separator = " " if last.text == "," else ", "
        cut, insert = last.end, separator + added
    elif "from" in words:
        cut, insert = top[words.index("from")][0].start, f"SELECT *, {added} "
    else:
        raise QueryError("the query has no select list", hint="Write SELECT … FROM lake.<source>.")
    spliced = source.slice(0, cut) + insert + source.slice(cut, len(source.data))
    _check_splice(query, spliced)
    return spliced


def _last_of_list(tokens: list[Token], select: Token) -> Token:
    """Return the last token of the select list that ``select`` opens."""
    last = select
    levels = depths(tokens)
    start = tokens.index(select)
    for i in range(start + 1, len(tokens)):
        # IS [NOT] DISTINCT FROM is the one place where an ending keyword stands bare inside a select list.
        bare = tokens[i].word == "from" and tokens[i - 1].word == "distinct" and i - 1 > start + 1
        if levels[i] == 0 and tokens[i].word in _ENDS_LIST and not bare and last.text != ".":
            break
        last = tokens[i]
    return last


def _check_splice(query: str, spliced: str) -> None:
    connection = scratch()
    try:
        before, after = _parse(connection, query), _parse(connection, spliced)
    finally:
        connection.close()
    names = [item["alias"] for item in after.get("select_list", [])[-3:]]
    if len(after.get("select_list", [])) != len(before.get("select_list", [])) + 3 or names != list(PROVENANCE):
        raise QueryError("the end of the select list was not found", hint="Write the query as SELECT … FROM ….")


def _parse(connection: duckdb.DuckDBPyConnection, query: str) -> Node:
    try:
        return parse_query(connection, query)
    except Refused as refused:
        raise QueryError(refused.what, hint=refused.hint) from None


class _Functions:
    """What DuckDB says about its functions; macros are looked through."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._seen: dict[str, tuple[set[str], set[str], list[str]]] = {}

    def unstable(self, name: str) -> bool:
        """Return whether the value may differ between two calls with the same arguments."""
        if name in _CLOCK or name.startswith("current_") or name.endswith("()1"):
            return True
        _, stabilities, inner = self._look_up(name)
        # From DuckDB 2.0.1 on a form for TIMESTAMPTZ is CONSISTENT_WITHIN_QUERY, since it hangs on the zone of the
        # session, which is UTC here. A function all of whose forms are so hangs on something else: a clock, a setting.
        follows = "VOLATILE" not in stabilities and stabilities != {"CONSISTENT_WITHIN_QUERY"}
        return not follows or any(map(self.unstable, inner))

    def aggregate(self, name: str) -> bool:
        kinds, _, inner = self._look_up(name)
        return "aggregate" in kinds or any(map(self.aggregate, inner))

    def set_returning(self, name: str) -> bool:
        _, _, inner = self._look_up(name)
        return name in _SET_RETURNING or any(map(self.set_returning, inner))

    def _look_up(self, name: str) -> tuple[set[str], set[str], list[str]]:
        if name not in self._seen:
            self._seen[name] = (set(), set(), [])  # a macro that names itself ends here
            rows = self._connection.execute(
                "SELECT function_type, stability, macro_definition FROM duckdb_functions() WHERE function_name = ?",
                [name],
            ).fetchall()
            macros = {text for kind, _, text in rows if kind == "macro" and text}
            bodies = {text: _parse(self._connection, text) for text in (f"SELECT {macro}" for macro in macros)}
            inner = {f for text, tree in bodies.items() for f in (*_called(tree), *_words(tree, text, ()))}
            kinds = {kind for kind, _, _ in rows}
            self._seen[name] = (kinds, {stability for _, stability, _ in rows if stability}, sorted(inner - {name}))
        return self._seen[name]


def _called(tree: Any, *, into_subqueries: bool = True) -> Iterator[str]:
    """Yield the functions called."""
    for node in nodes(tree, into_subqueries=into_subqueries):
        if node.get("class") == "FUNCTION":
            name = node["function_name"].lower()
            alone = name in _CLOCK_WITH_ONE_ARGUMENT and len(node["arguments"]) == 1
            yield f"{name}()1" if alone else name


def _words(tree: Any, query: str, columns: Collection[str]) -> Iterator[str]:
    """Yield the bare words of a query that DuckDB parses as columns, and takes for functions where there are none.

    A word in quotes is meant as a column, also where nobody knows which there are.
    """
    text = query.encode()
    for node in nodes(tree):
        names = node["column_names"] if node.get("class") == "COLUMN_REF" else []
        if len(names) == 1 and (word := names[0].lower()) in CLOCK_WORDS and word not in columns:
            at = location(node)
            if at is None or text[at : at + 1] != b'"':
                yield word


def _not_row_wise(tree: Node, functions: _Functions) -> Iterator[str]:
    """Yield the reasons why a row of the result is not one record."""
    if tree["type"] != "SELECT_NODE":
        yield "it is a set operation"
        return
    modifiers = {modifier["type"] for modifier in tree["modifiers"]} - {"ORDER_MODIFIER"}
    yield from ("it has DISTINCT" if kind == "DISTINCT_MODIFIER" else "it has LIMIT or OFFSET" for kind in modifiers)
    if tree["group_expressions"] or tree["group_sets"] or tree["aggregate_handling"] != "STANDARD_HANDLING":
        yield "it has GROUP BY"
    if tree["having"]:
        yield "it has HAVING"
    if tree["sample"] or any(node.get("sample") for node in nodes(tree["from_table"], into_subqueries=False)):
        yield "it has a SAMPLE"
    own = [tree["select_list"], tree["qualify"], tree["modifiers"]]
    for name in _called(own, into_subqueries=False):
        if functions.aggregate(name):
            yield f"it aggregates with {name}()"
        if functions.set_returning(name):
            yield f"{name}() makes several rows of one"
    yield from _bad_from(tree["from_table"])


def _bad_from(item: Node) -> Iterator[str]:
    """Yield what in FROM loses the link from a row to one record, walking down its left side."""
    while item["type"] == "JOIN":
        if item["ref_type"] == "CROSS":
            yield "FROM has a cross join (or a comma)"
        elif item["ref_type"] != "REGULAR":
            yield f"FROM has a {item['ref_type'].lower()} join"
        elif item["join_type"] not in {"INNER", "LEFT", "SEMI", "ANTI"}:
            yield f"FROM has a {item['join_type'].lower()} join"
        item = item["left"]
    if item["type"] != "BASE_TABLE" or item["schema_name"].lower() != "lake":
        yield "the first table of FROM is not a table lake.<source>"


def _driving(tree: Node) -> tuple[TableName, str]:
    item = tree["from_table"]
    while item["type"] == "JOIN":
        item = item["left"]
    table = TableName("lake", item["table_name"].lower())
    return table, item["alias"] or item["table_name"]


def _not_distributive(tree: Node, driving: TableName, functions: _Functions, words: Collection[str]) -> Iterator[str]:
    """Yield the reasons why two loads can't be run one after the other."""
    if tree["qualify"]:
        yield "it has QUALIFY"
    names = [_base_table(node) for node in nodes(tree)]
    if names.count(driving) != 1:
        yield f"it reads {driving} more than once"
    for node in nodes(tree):
        yield from _changing(node)
    for name in (*_called(tree), *sorted(words)):
        if functions.unstable(name):
            yield f"{name.removesuffix('()1')}() is not deterministic"


def _base_table(node: Node) -> TableName | None:
    if node.get("type") != "BASE_TABLE":
        return None
    return TableName(node["schema_name"].lower(), node["table_name"].lower())


def _changing(node: Node) -> Iterator[str]:
    """Yield why this node of the parse tree may give other rows for the same record in another run."""
    if node.get("class") == "WINDOW":
        yield "it has a window function, which looks at other records"
    if str(node.get("type")).startswith("LIMIT"):
        yield "a subquery has LIMIT, which may choose other rows each time"
    if node.get("sample"):
        yield "a subquery has a SAMPLE"
    if node.get("type") == "DISTINCT_MODIFIER" and node["distinct_on_targets"]:
        yield "a subquery has DISTINCT ON, which may choose other rows each time"
    if node.get("class") != "FUNCTION" or node["order_bys"]["orders"]:
        return
    if node["function_name"].lower() in _ORDER_DEPENDENT:
        yield f"{node['function_name']}() depends on the order of rows: give it ORDER BY"
