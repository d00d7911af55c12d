"""Whether a view's source keeps a past: what an entity's row said before it was replaced by a later one.

A table with a primary key has one row per key, so what that row was before is gone. Where the key lies within the
entity's, an entity has no past at all. Whether another key names events (a trip) or things that change (a customer)
only people know: there the plan says what is kept, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from featurestore.definitions import FeatureView
from featurestore.upstream import ModelFiles, ReadSource
from lakehouse.models.queries import nodes
from lakehouse.types import TableName

__all__ = ["Past", "past", "primary_key", "selected"]

_SET_RETURNING = frozenset({"unnest", "unlist"})
# Those that make one row of many and may give its time.
_AGGREGATES = frozenset({"max", "min", "arg_max", "arg_min", "max_by", "min_by", "first", "last", "any_value", "list"})
_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Past:
    """What is known about the past of a view's source.

    Parameters
    ----------
    none
        Why there is none, if that is sure.
    doubtful
        Tables with the primary keys of which they keep the newest rows only.
    """

    none: str | None = None
    doubtful: tuple[tuple[TableName, tuple[str, ...]], ...] = ()


def past(view: FeatureView, source: ReadSource, models: ModelFiles) -> Past:
    """Return what is known about the past of the source of a view.

    Where the source is one table, as it is or through plain SELECTs, its columns are known by name: an entity whose
    join keys hold the primary key has one row; a primary key that holds the event timestamp, or what that is computed
    of, tells rows of different times apart.
    """
    keys = {table: found for table in source.tables if (found := primary_key(table, models))}
    if not keys:
        return Past()
    doubt = Past(doubtful=tuple(sorted(keys.items())))
    columns = selected(source.tree, {})
    if columns is None or columns.table not in keys or len(keys) > 1:
        return doubt
    key = frozenset(column.lower() for column in keys[columns.table])
    if key <= {name for join_key in view.join_keys if (name := columns.same(join_key)) is not None}:
        return Past(none=_reason(columns.table, keys[columns.table], models))
    times = (view.event_timestamp, *([view.created_timestamp] if view.created_timestamp else []))
    made_of = [columns.made_of(name) for name in times]
    return Past() if columns.whole and any(parts and parts <= key for parts in made_of) else doubt


def primary_key(table: TableName, models: ModelFiles) -> tuple[str, ...]:
    """Return the primary key of a table; nothing if it has none."""
    model = models.model(table) if table.schema == "warehouse" else None
    return tuple(model.contract.primary_key) if model is not None else ()


def _reason(table: TableName, key: Sequence[str], models: ModelFiles) -> str:
    model = models.model(table)
    how = (
        "INSERT OR REPLACE overwrites what it was before"
        if model is not None and model.strategy == "upsert"
        else "each full refresh replaces what it was before"
    )
    return f"{table} keeps only the present: its primary key ({', '.join(key)}) is the entity's, and {how}"


# -- what a SELECT makes of the columns of one table ----------------------------------------------------------------


@dataclass(slots=True)
class Selected:
    """The columns of a SELECT over one table: by lower-case name, what they are in the table.

    Parameters
    ----------
    named
        Columns with a name of their own: the table's columns they are computed of, and whether they are just that one.
    rest
        Whether all other columns are the table's, under the names that it gives them.
    whole
        Whether each row is one of the table, none left out for another one.
    """

    table: TableName
    named: dict[str, tuple[frozenset[str], bool]] = field(default_factory=dict)
    rest: bool = True
    whole: bool = True

    def _find(self, name: str) -> tuple[frozenset[str], bool]:
        own = (frozenset((name.lower(),)), True) if self.rest else (_NOTHING, False)
        return self.named.get(name.lower(), own)

    def same(self, name: str) -> str | None:
        """Return the table's column that a column is, value for value."""
        columns, same = self._find(name)
        return next(iter(columns)) if same else None

    def ordered(self, name: str) -> str | None:
        """Return the table's column that a name in ORDER BY means: a column of the query, else one of the table."""
        return self.same(name) if name in self.named else name

    def made_of(self, name: str) -> frozenset[str]:
        """Return the table's columns that a column is computed of; none where that is unknown."""
        return self._find(name)[0]


def selected(tree: Mapping[str, Any], outer: Mapping[str, Any]) -> Selected | None:
    """Return the columns of a query, or None if its rows are not those of one table, each at most once."""
    if tree["type"] != "SELECT_NODE":
        return None
    ctes = {**outer, **{entry["key"].lower(): entry["value"] for entry in tree["cte_map"]["map"]}}
    below = _from(tree["from_table"], ctes)
    called = set(_functions(tree["select_list"]))
    if below is None or _SET_RETURNING & called:
        return None
    alias = (tree["from_table"]["alias"] or tree["from_table"].get("table_name", "")).lower()
    found = Selected(below.table, {}, rest=False, whole=below.whole and not _AGGREGATES & called and _row_by_row(tree))
    for item in tree["select_list"]:
        if item["class"] == "STAR":
            if not _starred(item, below, alias, found):
                return None
            continue
        name = item["alias"] or (item["column_names"][-1] if item["class"] == "COLUMN_REF" else "")
        if name:
            found.named.setdefault(name.lower(), _computed(item, below, alias))
    return found


def _row_by_row(tree: Mapping[str, Any]) -> bool:
    chosen = {"LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"} & {m["type"] for m in tree["modifiers"]}
    grouped = tree["group_expressions"] or tree["group_sets"] or tree["aggregate_handling"] != "STANDARD_HANDLING"
    return not (chosen or grouped or tree["having"] or tree["qualify"])


def _from(item: Mapping[str, Any], ctes: Mapping[str, Any]) -> Selected | None:
    if item.get("column_name_alias"):
        return None
    if item["type"] == "SUBQUERY":
        return selected(item["subquery"]["node"], ctes)
    if item["type"] != "BASE_TABLE":
        return None
    name, schema = item["table_name"].lower(), item["schema_name"].lower()
    if schema:
        return Selected(TableName(schema, name))
    cte = ctes.get(name)
    if cte is None or cte["aliases"]:
        return None
    # A CTE sees those before it, so never itself: a recursive one is no plain SELECT.
    return selected(cte["query_node"], {key: value for key, value in ctes.items() if key != name})


def _starred(item: Mapping[str, Any], below: Selected, alias: str, found: Selected) -> bool:
    """Take over the columns of a star; False if it can't be told which these are."""
    if item["columns"] or item["expr"] or item["rename_list"] or item["qualified_exclude_list"]:
        return False
    left_out = {name.lower() for name in item["exclude_list"]}
    replaced = {entry["key"].lower(): _computed(entry["value"], below, alias) for entry in item["replace_list"]}
    for name, origin in {**below.named, **dict.fromkeys(left_out, (_NOTHING, False)), **replaced}.items():
        found.named.setdefault(name, origin)
    found.rest = below.rest
    return True


def _computed(item: Mapping[str, Any], below: Selected, alias: str) -> tuple[frozenset[str], bool]:
    """Return what an expression is in terms of the table."""
    references = list(_references(item))
    plain = all(len(names) == 1 or names[-2].lower() == alias for names in references)
    if not plain:
        return _NOTHING, False  # fields of structs, which look like columns of tables
    parts = [below.made_of(names[-1]) for names in references]
    if item["class"] == "COLUMN_REF":
        return parts[0], below.same(references[0][-1]) is not None
    return (_NOTHING.union(*parts) if all(parts) else _NOTHING), False


def _references(item: Any) -> Iterator[list[str]]:
    for node in nodes(item):
        if node.get("class") == "COLUMN_REF":
            yield node["column_names"]


def _functions(items: Any) -> Iterator[str]:
    return (node["function_name"].lower() for node in nodes(items) if node.get("class") == "FUNCTION")
