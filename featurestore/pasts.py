"""Whether a view's source keeps a past: what an entity's row said before it was replaced by a later one.

A table with a primary key has one row per key, so what that row was before is gone. Where the key lies within the
entity's, an entity has no past at all; nor where the source itself takes one row per entity, by GROUP BY or QUALIFY.
Whether another key names events (a trip) or things that change (a customer) only people know: there the plan says what
is kept, and no more.
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
_KEEP_KEY = "Keep its history: put the event's time or id in the primary key, so that new events are added as rows."
_KEEP_ROWS = (
    "Keep its history: give the view all rows. It finds the newest at each instant, and Aggregates sum them up."
)


@dataclass(frozen=True, slots=True)
class Past:
    """What is known about the past of a view's source.

    Parameters
    ----------
    none
        Why there is none, if that is sure.
    keep
        How it can be had there.
    doubtful
        Tables with the primary keys of which they keep the newest rows only.
    """

    none: str | None = None
    keep: str = ""
    doubtful: tuple[tuple[TableName, tuple[str, ...]], ...] = ()


def past(view: FeatureView, source: ReadSource, models: ModelFiles) -> Past:
    """Return what is known about the past of the source of a view.

    Where the source is one table, as it is or through plain SELECTs, its columns are known by name: an entity whose
    join keys hold the primary key has one row; a primary key that holds the event timestamp, or what that is computed
    of, tells rows of different times apart.
    """
    known = _of_tables(view, source, models)
    if known.none is None and (how := _one_row(view, source.tree)):
        return Past(none=f"its source keeps only the present: {how} leaves one row per entity", keep=_KEEP_ROWS)
    return known


def _of_tables(view: FeatureView, source: ReadSource, models: ModelFiles) -> Past:
    keys = {table: found for table in source.tables if (found := primary_key(table, models))}
    if not keys:
        return Past()
    doubt = Past(doubtful=tuple(sorted((table, key) for table, key in keys.items() if not _of_records(table, models))))
    columns = selected(source.tree, {})
    if columns is None or columns.table not in keys or len(keys) > 1:
        return doubt
    key = frozenset(column.lower() for column in keys[columns.table])
    if key <= {name for join_key in view.join_keys if (name := columns.same(join_key)) is not None}:
        return Past(none=_reason(columns.table, keys[columns.table], models), keep=_KEEP_KEY)
    times = (view.event_timestamp, *([view.created_timestamp] if view.created_timestamp else []))
    made_of = [columns.made_of(name) for name in times]
    return Past() if columns.whole and any(parts and parts <= key for parts in made_of) else doubt


def primary_key(table: TableName, models: ModelFiles) -> tuple[str, ...]:
    """Return the primary key of a table; nothing if it has none."""
    model = models.model(table) if table.schema == "warehouse" else None
    return tuple(model.contract.primary_key) if model is not None else ()


def _of_records(table: TableName, models: ModelFiles) -> bool:
    """Return whether a table is keyed by the landed records themselves, of which none comes again."""
    return any(_is_record(table, column, models) for column in primary_key(table, models))


def _is_record(table: TableName, column: str, models: ModelFiles) -> bool:
    """Return whether a column is the id of a landed record, as it is or handed on by models."""
    if table.schema == "lake":
        return column.lower() == "_record_id"
    tree = models.tree(table)
    columns = selected(tree, {}) if tree is not None else None
    origin = columns.same(column) if columns is not None else None
    return columns is not None and origin is not None and _is_record(columns.table, origin, models)


def _reason(table: TableName, key: Sequence[str], models: ModelFiles) -> str:
    model = models.model(table)
    how = (
        "INSERT OR REPLACE overwrites what it was before"
        if model is not None and model.strategy == "upsert"
        else "each full refresh replaces what it was before"
    )
    return f"{table} keeps only the present: its primary key ({', '.join(key)}) is the entity's, and {how}"


def _one_row(view: FeatureView, tree: Mapping[str, Any]) -> str | None:
    """Return what makes a query return one row per entity, if that is plain to see."""
    if tree["type"] != "SELECT_NODE":
        return None
    how, parts = "GROUP BY", tree["group_expressions"] if len(tree["group_sets"]) == 1 else []
    if not parts:
        how, parts = "QUALIFY row_number() … = 1", _numbered_within(tree["qualify"])
    keys = {key.lower() for key in view.join_keys}
    return how if parts and all(keys & _called(part, tree["select_list"]) for part in parts) else None


def _numbered_within(qualify: Mapping[str, Any] | None) -> list[Any]:
    """Return the PARTITION BY of a QUALIFY that keeps the first row of each part; nothing if it is another one."""
    if qualify is None or qualify["type"] != "COMPARE_EQUAL" or qualify["left"]["type"] != "WINDOW_ROW_NUMBER":
        return []
    first = qualify["right"]["type"] == "VALUE_CONSTANT" and qualify["right"]["literal"]["text"] == "1"
    return list(qualify["left"]["partitions"]) if first else []


def _called(part: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return how the answer of a query calls what it is grouped by: a column, an alias, or a place in the list."""
    if part["type"] == "VALUE_CONSTANT" and part["literal"]["text"].isdecimal():
        place = int(part["literal"]["text"])
        return {_name(item) for item in items[place - 1 : place]}
    if part["class"] != "COLUMN_REF":
        return set()
    column = part["column_names"][-1].lower()
    found = set()
    for item in items:
        if item["class"] == "STAR":
            found.add(column)
        elif item["class"] == "COLUMN_REF":
            found |= {_name(item)} if item["column_names"][-1].lower() == column else set()
        elif _name(item) == column:
            found.add(column)
    return found


def _name(item: Mapping[str, Any]) -> str:
    return str(item["alias"] or (item["column_names"][-1] if item["class"] == "COLUMN_REF" else "")).lower()


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
        if name := _name(item):
            found.named.setdefault(name, _computed(item, below, alias))
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
