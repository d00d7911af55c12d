"""What a view's source stands on: the tables that it reads, and the models that make them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from featurestore.binding import source_sql
from featurestore.definitions import FeatureView
from lakehouse.entries import Entry, ModelEntry
from lakehouse.errors import DefinitionError, RequestError
from lakehouse.settings import Settings
from lakehouse.types import TableName

if TYPE_CHECKING:
    import duckdb

    from lakehouse.models import Model, Models

__all__ = ["ModelFiles", "ReadSource", "SourceReader", "changed_upstream", "models_upstream"]

_SCHEMAS = ("lake", "raw", "typed", "warehouse", "quarantine")
# These read nothing but their arguments.
_PURE_TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "repeat", "repeat_row"})


@dataclass(frozen=True, slots=True)
class ReadSource:
    """A view's source, parsed.

    Parameters
    ----------
    tree
        The query's node in DuckDB's parse tree.
    tables
        The tables that it reads, by name.
    """

    tree: Mapping[str, Any]
    tables: tuple[TableName, ...]


class SourceReader:
    """Reads views' sources as DuckDB parses them, without a lake. A context manager."""

    def __init__(self) -> None:
        self._opened: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()

    @property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        from lakehouse.models.queries import scratch

        self._opened = self._opened or scratch()
        return self._opened

    def read(self, view: FeatureView) -> ReadSource:
        """Return a view's source with the tables that it reads.

        Raises
        ------
        DefinitionError
            If the source is no single SELECT over tables of the lake, or would give other rows on another day:
            answers must follow from the snapshot alone.
        """
        from lakehouse.models.queries import Refused, nodes, parse_query
        from lakehouse.models.shape import CLOCK_WORDS, unstable_functions

        try:
            query = source_sql(view.source)
        except RequestError:
            raise _wrong(
                view, f"{view.source!r} is no table", "Write it as warehouse.trips, or take a SELECT."
            ) from None
        try:
            query_node = parse_query(self._connection, query)
        except Refused as refused:
            raise _wrong(view, refused.what, refused.hint) from None
        tree = list(nodes(query_node))
        ctes = {entry["key"].lower() for node in tree for entry in (node.get("cte_map") or {}).get("map", ())}
        found = set()
        for node in tree:
            if node.get("class") == "PARAMETER":
                raise _wrong(view, "it has parameters")
            if node.get("sample"):
                raise _wrong(view, "it has a SAMPLE, which takes other rows each time")
            if node.get("type") == "TABLE_FUNCTION":
                _check_function(view, str(node["function"]["function_name"]).lower())
            if node.get("type") == "BASE_TABLE" and (table := _table(view, node, ctes)) is not None:
                found.add(table)
        # The newline ends a comment in which the source may end.
        if unstable := unstable_functions(self._connection, f"* from ({query}\n) t"):
            name = unstable[0].removesuffix("()1")
            hint = "Answers follow from the snapshot and the asked instants alone: leave the clock and chance out."
            if name in CLOCK_WORDS:
                hint += f' If it is a column, write it in quotes: "{name}".'
            raise _wrong(view, f"{name}() would give other rows on another day", hint)
        return ReadSource(query_node, tuple(sorted(found)))


def _check_function(view: FeatureView, function: str) -> None:
    if function not in _PURE_TABLE_FUNCTIONS:
        raise _wrong(
            view,
            f"{function}() in FROM: a feature view reads the lake only",
            "Land the data as a source and read lake.<source>.",
        )


def _table(view: FeatureView, node: Mapping[str, object], ctes: set[str]) -> TableName | None:
    name, schema = str(node["table_name"]), str(node["schema_name"]).lower()
    if node["at_clause"]:
        raise _wrong(view, "it has AT (…)", "The snapshot is chosen when features are asked for (--as-of).")
    if not schema and not node["catalog_name"]:
        if name.lower() in ctes:
            return None
        if not re.fullmatch(r"\w+", name):
            raise _wrong(view, f"{name!r} is a file", "Land the data as a source and read lake.<source>.")
        raise _wrong(view, f"the table {name} has no schema", f"Write warehouse.{name} or lake.{name}.")
    if node["catalog_name"] or schema not in _SCHEMAS:
        raise _wrong(
            view, f"{schema}.{name} is no table of the lake", f"Feature views read the schemas {', '.join(_SCHEMAS)}."
        )
    return TableName(schema, name.lower())


def _wrong(view: FeatureView, what: str, hint: str | None = None) -> DefinitionError:
    return DefinitionError(
        f"the source: {what}",
        where=view.where,
        hint=hint or "Take a table, or one SELECT over tables of the lake.",
    )


def models_upstream(
    entry: Entry, tables: tuple[TableName, ...], *, known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the models that tables come from, directly or through others: table → hash of what the model means.

    Parameters
    ----------
    known
        What was found before: a model that still means the same keeps its hash, also one of an older Penstock.
    """
    known = known or {}
    found: dict[str, str] = {}
    waiting = [_maker(table) for table in tables]
    while waiting:
        name = waiting.pop()
        model = entry.models.get(name)
        if model is not None and name not in found:
            found[name] = known[name] if name in known and _holds(model, known[name]) else model.meaning or model.sha256
            waiting += [_maker(TableName.parse(read)) for read in model.read]
    return dict(sorted(found.items()))


def changed_upstream(entry: Entry, upstream: Mapping[str, str]) -> list[str]:
    """Return the tables of `models_upstream` whose model means something else at a snapshot, by name."""
    return [table for table, meaning in upstream.items() if not _holds(entry.models.get(table), meaning)]


def _holds(model: ModelEntry | None, meaning: str) -> bool:
    # Before entries knew meanings, the hash of the file stood for it.
    return model is not None and meaning in (model.meaning, model.sha256)


def _maker(table: TableName) -> str:
    """Return whose model fills a table: what a model rejects stands in quarantine under its own name."""
    return f"warehouse.{table.name}" if table.schema == "quarantine" else str(table)


class ModelFiles:
    """The models of ``sql/``, read when they are first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _models(self) -> Models:
        from lakehouse.models import load_models

        return load_models(self._settings.paths.sql)

    def model(self, table: TableName) -> Model | None:
        """Return the model that makes a table, if there is one."""
        return self._models.by_table.get(table)

    def tree(self, table: TableName) -> Mapping[str, Any] | None:
        """Return the node in DuckDB's parse tree of the query of the model that makes a table, if there is one."""
        from lakehouse.models.queries import parse_query, scratch

        model = self.model(table)
        if model is None:
            return None
        with closing(scratch()) as connection:
            return parse_query(connection, model.query)

    def pending(self, entry: Entry) -> tuple[str, ...]:
        """Return the tables whose model means something else than what last ran, by name; not those that never ran."""
        found = (str(table) for table, model in self._models.by_table.items() if _differs(entry, str(table), model))
        return tuple(sorted(found))

    def waiting(self, entry: Entry, tables: tuple[TableName, ...]) -> TableName | None:
        """Return a table that is not there because its model has not run yet."""
        missing = (table for table in tables if str(table) not in entry.tables and table.schema == "warehouse")
        return next((table for table in missing if self.model(table) is not None), None)


def _differs(entry: Entry, table: str, model: Model) -> bool:
    ran = entry.models.get(table)
    return ran is not None and ran.sha256 != model.sha256 and ran.meaning != model.meaning
