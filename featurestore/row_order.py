"""Sources whose answers would follow from the order of rows in files, which compaction or another engine changes.

What is sure to hang on it is refused: taking some rows of many without a total order, numbering rows without an order,
aggregates that take the first or list all. What can't be seen in a query is left to its author: ties in the ORDER BY of
a window function, ties in ``arg_max``, ``arg_min``, ``mode`` and ASOF joins, and sums of floating-point numbers, whose
last digits follow the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from featurestore.definitions import FeatureView
from featurestore.pasts import primary_key, selected
from featurestore.upstream import ModelFiles, ReadSource
from lakehouse.errors import DefinitionError
from lakehouse.models.queries import nodes

__all__ = ["refuse_row_order"]

_FIRST_OF_MANY = frozenset({"first", "last", "any_value", "arbitrary"})
_LISTS = frozenset({"list", "array_agg", "string_agg", "group_concat", "listagg"})
_ORDERED = _FIRST_OF_MANY | _LISTS
_SKETCHES = frozenset({"approx_quantile", "approx_top_k", "reservoir_quantile"})
_NUMBERING = frozenset(
    {"row_number", "ntile", "lag", "lead", "first_value", "last_value", "nth_value", "first", "last", "fill"}
)
_TOTAL = "Order by all columns (ORDER BY ALL) or by the primary key, or take max(), min() or a window function instead."


def refuse_row_order(view: FeatureView, source: ReadSource, models: ModelFiles) -> None:
    """Refuse a source whose rows or values hang on the order of the rows that it reads.

    Raises
    ------
    DefinitionError
        If it does; what can't be told is let pass.
    """
    for node in nodes(source.tree):
        for what, hint in _problems(node, models):
            raise DefinitionError(f"the source: {what}", where=view.where, hint=hint)


def _problems(node: Mapping[str, Any], models: ModelFiles) -> Iterator[tuple[str, str]]:
    """Yield what in one node of the parse tree hangs on the order of rows, and what to do about it."""
    kind = node.get("class")
    name = str(node.get("function_name", "")).lower()
    if "modifiers" in node:
        for what in _choosing(node):
            if not _totally_ordered(node, models):
                yield f"{what} takes some rows of many, and without a total order not always the same", _TOTAL
    if node.get("ref_type") == "POSITIONAL":
        yield "a POSITIONAL JOIN pairs rows as they happen to come", "Join by a key."
    if kind == "WINDOW" and not (node["orders"] or node["arg_orders"]):
        if name in _NUMBERING | _ORDERED:
            yield f"{name}() OVER without ORDER BY follows the order in which rows happen to come", _over(name)
        elif any(str(node[end]).endswith("_ROWS") for end in ("start", "end")):
            yield f"{name}() OVER (ROWS …) without ORDER BY follows the order in which rows happen to come", _over(name)
    if kind == "FUNCTION" and name in _ORDERED and not node["order_bys"]["orders"]:
        instead = "max() or min()" if name in _FIRST_OF_MANY else "an order that has no ties"
        yield f"{name}() takes rows as they happen to come", f"Write {name}(… ORDER BY …), or take {instead}."
    if kind in ("FUNCTION", "WINDOW") and name in _SKETCHES:
        yield (
            f"{name}() gives other values when rows come in another order",
            "Take an exact one: quantile_cont().",
        )


def _over(name: str) -> str:
    return f"Write {name}(…) OVER (… ORDER BY …), by columns that tell all rows apart."


def _choosing(node: Mapping[str, Any]) -> Iterator[str]:
    for modifier in node["modifiers"]:
        if modifier["type"].startswith("LIMIT"):
            yield "LIMIT" if modifier["limit"] is not None else "OFFSET"
        elif modifier["type"] == "DISTINCT_MODIFIER" and modifier["distinct_on_targets"]:
            yield "DISTINCT ON"


def _totally_ordered(node: Mapping[str, Any], models: ModelFiles) -> bool:
    """Return whether the ORDER BY of a query surely tells all of its rows apart that differ."""
    orders = [order["expression"] for m in node["modifiers"] if m["type"] == "ORDER_MODIFIER" for order in m["orders"]]
    if any(order["class"] == "STAR" and not order["expr"] for order in orders):
        return True
    found = selected(node, {})
    key = primary_key(found.table, models) if found is not None else ()
    names = {order["column_names"][-1].lower() for order in orders if order["class"] == "COLUMN_REF"}
    return found is not None and bool(key) and {column.lower() for column in key} <= set(map(found.ordered, names))
