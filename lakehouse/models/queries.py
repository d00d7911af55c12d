"""Look at a query the way DuckDB does: its own parse tree, and the tables the query reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lakehouse.errors import ModelError
from lakehouse.models.tokens import SourceText
from lakehouse.types import TableName

if TYPE_CHECKING:
    import duckdb

__all__ = ["Refused", "location", "nodes", "parse_query", "reads", "scratch"]

Node = dict[str, Any]

SCHEMAS = ("lake", "raw", "typed", "warehouse")
_NOWHERE = 2**64 - 1
# These read nothing but their arguments.
_PURE_TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree"}
_TABLE_REFERENCES = {"BASE_TABLE", "JOIN", "SUBQUERY", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT"}


class Refused(Exception):  # noqa: N818 - never leaves this package: callers turn it into an error with a file
    """Something in a query is refused; ``offset`` is its byte offset in the query, if known."""

    def __init__(self, what: str, offset: int | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.offset = offset
        self.hint = hint

    def in_file(self, source: SourceText, start: int) -> ModelError:
        """Return the error, placed in the file whose byte ``start`` is the query's first."""
        return source.error(self.what, start + (self.offset or 0), hint=self.hint)


def scratch() -> duckdb.DuckDBPyConnection:
    """Return an empty in-memory database that reads no files; the caller closes it."""
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": 1, "enable_external_access": False})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET errors_as_json = true")
    return connection


def parse_query(connection: duckdb.DuckDBPyConnection, query: str) -> Node:
    """Return the query node of DuckDB's parse tree; nothing is bound.

    Raises
    ------
    Refused
        If the text is no single SELECT.
    """
    ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
    tree = json.loads(text)
    if tree["error"]:
        message = tree["error_message"]
        if tree["error_type"] == "not implemented":
            raise Refused("only SELECT, WITH, FROM and VALUES queries are supported", 0, "Rewrite it as a SELECT.")
        raise Refused(message, int(tree["position"]) if "position" in tree else None)
    if len(tree["statements"]) != 1:
        raise Refused("one query is expected", 0)
    node: Node = tree["statements"][0]["node"]
    return node


def nodes(tree: Any, *, into_subqueries: bool = True) -> Iterator[Node]:
    """Yield every object of a parse tree, parents first; optionally staying out of subqueries."""
    stack = [tree]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            if into_subqueries or item.get("type") != "SUBQUERY":
                stack.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            stack.extend(reversed(item))


def location(node: Node) -> int | None:
    """Return the byte offset of a node in the query's text, if DuckDB gives one."""
    offset = node.get("query_location", _NOWHERE)
    return None if offset >= _NOWHERE else int(offset)


def reads(tree: Node) -> tuple[TableName, ...]:
    """Return the tables that a query reads, also in subqueries and CTEs, sorted; CTE names are left out.

    Raises
    ------
    Refused
        If it reads anything but tables of the lake at the promotion's own snapshot.
    """
    return tuple(sorted(set(_tables(tree, frozenset()))))


def _tables(item: Any, ctes: frozenset[str]) -> Iterator[TableName]:
    if isinstance(item, list):
        for part in item:
            yield from _tables(part, ctes)
        return
    if not isinstance(item, dict):
        return
    named = (item.get("cte_map") or {}).get("map", [])
    inner = ctes | {entry["key"].lower() for entry in named}
    if item.get("class") == "PARAMETER":
        raise Refused("a model takes no parameters", location(item))
    if "sample" in item and "alias" in item:
        table = _table(item, inner)
        if table is not None:
            yield table
    for value in item.values():
        yield from _tables(value, inner)


def _table(item: Node, ctes: frozenset[str]) -> TableName | None:
    """Return the table that a FROM item names; ``None`` if it names no stored table."""
    kind = item["type"]
    if kind == "TABLE_FUNCTION":
        function = item["function"]["function_name"].lower()
        if function not in _PURE_TABLE_FUNCTIONS:
            raise Refused(
                f"{function}() in FROM: a model reads the lake only",
                location(item),
                "Land the data as a source and read lake.<source>.",
            )
        return None
    if kind not in _TABLE_REFERENCES:
        raise Refused(f"{kind} in FROM: a model reads tables of the lake only", location(item))
    if kind != "BASE_TABLE":
        return None
    schema, name = item["schema_name"].lower(), item["table_name"]
    if item["at_clause"]:
        raise Refused(
            "AT (…) in a model: models read the snapshot that the promotion starts from",
            location(item),
            "Leave AT out.",
        )
    if not schema and not item["catalog_name"]:
        if name.lower() not in ctes:
            raise _unqualified(item, name)
        return None
    if item["catalog_name"] or schema not in SCHEMAS:
        raise Refused(
            f"{'.'.join(item['qualified_name']['path'])} is no table of the lake",
            location(item),
            f"Models read the schemas {', '.join(SCHEMAS)}.",
        )
    return TableName(schema, name.lower())


def _unqualified(item: Node, name: str) -> Refused:
    if not name.replace("_", "a").isalnum():
        return Refused(
            f"{name!r} is a file: a model reads the lake only",
            location(item),
            "Land the data as a source and read lake.<source>.",
        )
    return Refused(f"the table {name} has no schema", location(item), f"Write lake.{name} or warehouse.{name}.")
