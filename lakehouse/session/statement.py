"""A query as DuckDB's own syntax tree: which tables it reads, as of when, and which rows it cannot need.

The tree comes from ``json_serialize_sql`` and is rendered back by ``json_deserialize_sql``, so the grammar is always
DuckDB's. Only SELECTs have one; everything else runs as the user wrote it.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias, cast

import duckdb

from lakehouse.delta import TableSchema
from lakehouse.errors import QueryError
from lakehouse.scan import Operator, Predicate

__all__ = ["At", "Comparison", "Literal", "Statement", "TableUse", "check_text", "parse", "predicates"]

Node: TypeAlias = dict[str, Any]

_COMPARISONS: dict[str, tuple[Operator, Operator]] = {  # the operator, and the one with its sides exchanged
    "COMPARE_EQUAL": ("=", "="),
    "COMPARE_LESSTHAN": ("<", ">"),
    "COMPARE_LESSTHANOREQUALTO": ("<=", ">="),
    "COMPARE_GREATERTHAN": (">", "<"),
    "COMPARE_GREATERTHANOREQUALTO": (">=", "<="),
}
_NULL_TESTS: dict[str, Operator] = {"OPERATOR_IS_NULL": "is null", "OPERATOR_IS_NOT_NULL": "is not null"}
_PLAIN_JOINS = frozenset({"INNER", "LEFT", "RIGHT", "FULL", "OUTER", "SEMI", "ANTI"})
# DuckDB's own SHOW TABLES looks into the current schema only, and none of the lake's tables is there.
_SHOW_TABLES = """
from (
  select case when schema_name = 'main' then found else schema_name || '.' || found end as name
  from (
    select database_name, schema_name, view_name as found from duckdb_views() where not internal
    union all
    select database_name, schema_name, table_name from duckdb_tables() where not internal
  )
  where database_name in (current_database(), 'temp') and not contains(schema_name, '@')
  order by name
)
"""
_CATALOG_SCHEMAS = frozenset({"information_schema", "pg_catalog"})


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant of a query: what DuckDB's parser calls it, its text, and the type it is cast to, if any."""

    kind: str
    text: str
    cast: str | None = None
    scale: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column compared with literals, by a condition that every row which matters fulfils."""

    column: str
    op: Operator
    literals: tuple[Literal, ...] = ()


@dataclass(frozen=True, slots=True)
class At:
    """What stands in ``AT (VERSION => …)`` or ``AT (TIMESTAMP => …)``."""

    unit: str
    value: str


@dataclass(slots=True)
class TableUse:
    """One place where a query names a table."""

    node: Node
    path: tuple[str, ...]
    at: At | None
    comparisons: list[Comparison] = field(default_factory=list)

    def rename(self, path: Sequence[str]) -> None:
        """Let the query read another table here."""
        catalog, schema, table = [*[""] * (3 - len(path)), *path]
        self.node.update(catalog_name=catalog, schema_name=schema, table_name=table, at_clause=None)
        self.node["qualified_name"] = {"path": list(path)}


@dataclass(slots=True)
class Statement:
    """A SELECT as a tree, with the tables it names.

    Parameters
    ----------
    lists_tables
        Whether it looks at the list of tables itself (SHOW, ``information_schema``).
    rewritten
        Whether the tree is no longer what the user wrote, though it means the same.
    """

    tree: Node
    uses: list[TableUse]
    ctes: frozenset[str]
    lists_tables: bool
    rewritten: bool = False

    def rename_columns(self, old: Sequence[str], new: Sequence[str]) -> None:
        """Follow a renamed table in the columns that are qualified with its schema."""
        prefix = [part.lower() for part in old]
        for node in _walk(self.tree):
            names = node.get("column_names")
            if node.get("type") == "COLUMN_REF" and names and [n.lower() for n in names[: len(prefix)]] == prefix:
                names[: len(prefix)] = new

    def render(self, connection: duckdb.DuckDBPyConnection) -> str:
        """Return the SQL text of the tree as it is now."""
        found = connection.execute("select json_deserialize_sql(?)", [json.dumps(self.tree)]).fetchall()
        return str(found[0][0])


def check_text(query: str) -> None:
    """Refuse a query that holds what is no text, which DuckDB would take for a fault of its caller.

    Raises
    ------
    QueryError
        If it can't be written in UTF-8.
    """
    try:
        query.encode()
    except UnicodeEncodeError as error:
        code = ord(query[error.start])
        # How Python keeps a byte of an argument or of stdin that is not UTF-8.
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}"  # noqa: PLR2004
        raise QueryError(f"the query is not UTF-8: {what} at character {error.start + 1}") from None


def parse(connection: duckdb.DuckDBPyConnection, query: str) -> Statement | None:
    """Return a query's tree, or None if it is not one SELECT.

    Raises
    ------
    QueryError
        If an AT clause is not a constant.
    """
    tree = json.loads(connection.execute("select json_serialize_sql(?)", [query]).fetchall()[0][0])
    if tree["error"] or len(tree["statements"]) != 1:
        return None
    uses: list[TableUse] = []
    by_node: dict[int, TableUse] = {}
    ctes: set[str] = set()
    lists_tables = rewritten = False
    for node in _walk(tree):
        if node.get("type") == "SHOW_REF" and node.get("table_name") == '"tables"':
            node.update(_from_table(connection, _SHOW_TABLES) | {"alias": node.get("alias", "")})
            rewritten = True
        match node.get("type"):
            case "BASE_TABLE":
                use = TableUse(node, tuple(node["qualified_name"]["path"]), _at(node))
                uses.append(use)
                by_node[id(node)] = use
                lists_tables |= len(use.path) > 1 and use.path[-2].lower() in _CATALOG_SCHEMAS
            case "SHOW_REF":
                lists_tables |= node.get("query") is None
            case "TABLE_FUNCTION":
                lists_tables |= str(node["function"].get("function_name", "")).startswith(("duckdb_", "pragma_"))
        ctes.update(entry["key"].lower() for entry in (node.get("cte_map") or {}).get("map", ()))
    for node in _walk(tree):
        if node.get("type") == "SELECT_NODE":
            for table, found in _own_comparisons(node):
                by_node[id(table)].comparisons.extend(found)
    return Statement(tree, uses, frozenset(ctes), lists_tables, rewritten)


def _from_table(connection: duckdb.DuckDBPyConnection, query: str) -> Node:
    """Return the tree of what a query has in its FROM."""
    tree = json.loads(connection.execute("select json_serialize_sql(?)", [query]).fetchall()[0][0])
    return cast(Node, tree["statements"][0]["node"]["from_table"])


def _walk(value: Any) -> Iterator[Node]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)


def _at(node: Node) -> At | None:
    clause = node.get("at_clause")
    if clause is None:
        return None
    literal = _literal(clause["expr"])
    if literal is None or literal.kind not in ("INTEGER", "STRING"):
        raise QueryError(
            f"AT ({clause['unit']} => …) needs a constant",
            hint="Write AT (VERSION => 42), AT (VERSION => 'tag') or AT (TIMESTAMP => '2026-11-23 15:04:05').",
        )
    return At(clause["unit"].upper(), literal.text)


# -- conditions that a SELECT puts on the columns of one table --------------------------------------------------------


def _own_comparisons(select: Node) -> list[tuple[Node, list[Comparison]]]:
    """Return the tables of a SELECT's FROM with what its WHERE asks of their columns.

    Sound wherever the SELECT stands: its WHERE sees each row of the FROM by itself, so a row of a table that fails
    a condition on that table's columns takes part in nothing that passes. Joins where a row's fate hangs on its
    neighbours (ASOF, POSITIONAL, nearest) and samples are left alone. A null test holds for the nulls that an outer
    join makes up, so it counts only where there is none.
    """
    if select.get("sample") or not select.get("where_clause"):
        return []
    tables: list[Node] = []
    joins: set[str] = set()
    if not _flatten(select["from_table"], tables, joins):
        return []
    conjuncts = [found for part in _conjuncts(select["where_clause"]) for found in _comparisons(part)]
    alone = len(tables) == 1 and not joins
    outer = bool(joins - {"INNER"})
    names = [_visible_name(table) for table in tables]
    result = []
    for table, name in zip(tables, names, strict=True):
        if names.count(name) > 1 or table["type"] != "BASE_TABLE" or table["sample"] or table["column_name_alias"]:
            continue
        own = [
            comparison
            for qualifier, comparison in conjuncts
            if (alone if qualifier is None else qualifier.lower() == name)
            and not (outer and comparison.op in ("is null", "is not null"))
        ]
        result.append((table, own))
    return result


def _flatten(node: Node, tables: list[Node], joins: set[str]) -> bool:
    if node["type"] != "JOIN":
        tables.append(node)
        return True
    plain = node["ref_type"] in ("REGULAR", "NATURAL", "CROSS") and node["join_type"] in _PLAIN_JOINS
    if not plain or node.get("ranking_expression"):
        return False
    joins.add(node["join_type"])
    return _flatten(node["left"], tables, joins) and _flatten(node["right"], tables, joins)


def _visible_name(table: Node) -> str:
    return str(table.get("alias") or table.get("table_name") or "").lower()


def _conjuncts(expression: Node) -> Iterator[Node]:
    if expression["type"] == "CONJUNCTION_AND":
        for child in expression["children"]:
            yield from _conjuncts(child)
    else:
        yield expression


def _comparisons(expression: Node) -> Iterator[tuple[str | None, Comparison]]:
    """Yield what a condition says about a column, with the column's qualifier."""
    kind = expression["type"]
    if kind in _COMPARISONS:
        straight, exchanged = _COMPARISONS[kind]
        yield from _compared(expression["left"], straight, [expression["right"]])
        yield from _compared(expression["right"], exchanged, [expression["left"]])
    elif kind == "COMPARE_IN":
        yield from _compared(expression["children"][0], "in", expression["children"][1:])
    elif kind in _NULL_TESTS:
        yield from _compared(expression["children"][0], _NULL_TESTS[kind], [])
    elif kind == "COMPARE_BETWEEN":
        # All three sides are brought to one type first; only equal kinds of literals surely mean two comparisons.
        sides = [_literal(expression["lower"]), _literal(expression["upper"])]
        if None not in sides and len({_family(cast(Literal, side)) for side in sides}) == 1:
            yield from _compared(expression["input"], ">=", [expression["lower"]])
            yield from _compared(expression["input"], "<=", [expression["upper"]])


def _compared(column: Node, op: Operator, others: Sequence[Node]) -> Iterator[tuple[str | None, Comparison]]:
    names = column.get("column_names") if column["type"] == "COLUMN_REF" else None
    literals = [_literal(other) for other in others]
    if not names or len(names) > 2 or None in literals:  # noqa: PLR2004 - a column, or table.column
        return
    given = tuple(cast(list[Literal], literals))
    if len({_family(literal) for literal in given}) <= 1:
        yield (names[0] if len(names) > 1 else None), Comparison(names[-1], op, given)


def _family(literal: Literal) -> tuple[str | None, bool]:
    return literal.cast, literal.kind == "STRING" or _is_double(literal)


def _is_double(literal: Literal) -> bool:
    digits = sum(character.isdigit() for character in literal.text)
    return literal.kind == "NUMERIC" and ("e" in literal.text.lower() or digits > 30)  # noqa: PLR2004 - see value()


def _literal(expression: Node) -> Literal | None:
    if expression["type"] == "VALUE_CONSTANT":
        literal = expression.get("literal") or {}
        return Literal(literal.get("kind", ""), literal.get("text", "")) if literal.get("kind") else None
    if expression["type"] != "OPERATOR_CAST" or expression.get("try_cast"):
        return None
    inner, target = _literal(expression["child"]), expression["type_expr"]
    if inner is None or inner.cast is not None:
        return None
    arguments = [_literal(child) for child in target.get("children") or ()]
    scale = arguments[1].text if len(arguments) > 1 and arguments[1] else None
    return Literal(inner.kind, inner.text, str(target.get("type_name", "")).upper(), int(scale) if scale else None)


# -- literals as values ------------------------------------------------------------------------------------------------

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_LOCAL = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?)?\Z")
_ZONED = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}(:\d{2})?)\Z")
_INSTANTS = frozenset({"TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"})
_LOCALS = frozenset({"TIMESTAMP", "DATETIME"})


def predicates(comparisons: Sequence[Comparison], schema: TableSchema, *, utc: bool) -> list[Predicate]:
    """Return the comparisons whose meaning is sure without asking DuckDB, as predicates on stored columns.

    Parameters
    ----------
    utc
        Whether the session's zone is UTC, so that zoned times without an offset mean UTC.
    """
    columns = {column.name.lower(): column for column in schema.columns}
    result = []
    for comparison in comparisons:
        column = columns.get(comparison.column.lower())
        if column is None:
            continue
        values = [_value(column.type, literal, utc=utc) for literal in comparison.literals]
        if None not in values:
            result.append(Predicate(column.name, comparison.op, tuple(values)))
    return result


def _value(column_type: str, literal: Literal, *, utc: bool) -> Any:
    """Return a literal as the value that DuckDB compares with a column of that type, or None where that is unsure."""
    if literal.kind in ("INTEGER", "NUMERIC"):
        return _number(literal)
    if literal.kind != "STRING":
        return None
    if column_type == "VARCHAR":
        return literal.text if literal.cast in (None, "VARCHAR", "TEXT") else None
    target = literal.cast or column_type
    if column_type == "TIMESTAMP WITH TIME ZONE":
        return _instant(literal.text, target, utc=utc)
    if column_type in ("DATE", "TIMESTAMP") and (target == "DATE" or target in _LOCALS):
        pattern = _DATE if target == "DATE" else _LOCAL
        return _moment(literal.text) if pattern.match(literal.text) else None
    return None


def _number(literal: Literal) -> Any:
    if literal.cast is None and _is_double(literal):
        return float(literal.text)
    number = Decimal(literal.text)
    if abs(number) >= 2**63:
        return None  # a HUGEINT or DOUBLE for DuckDB, compared by rules of its own
    if literal.cast is None:
        return number
    if literal.cast != "DECIMAL" or literal.scale is None:
        return None
    rounded = number.quantize(Decimal(1).scaleb(-literal.scale)) if literal.scale < 19 else None  # noqa: PLR2004 - digits
    return number if rounded == number else None


def _instant(text: str, target: str, *, utc: bool) -> dt.datetime | None:
    if target in _INSTANTS and _ZONED.match(text):
        return _moment(text)
    sure = _DATE if target == "DATE" else _LOCAL
    if not utc or not sure.match(text) or not (target == "DATE" or target in _INSTANTS or target in _LOCALS):
        return None
    moment = _moment(text)
    return moment and moment.replace(tzinfo=dt.UTC)


def _moment(text: str) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return None
