"""The contract of a table, read back from its DDL.

DuckDB is the authority: the DDL is executed in a scratch database, and what DuckDB made of it is the contract. Forms
whose meaning DuckDB would lose or that the lake can't keep are refused, with the line of the column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.errors import ModelError, near
from lakehouse.models.queries import nodes, parse_query
from lakehouse.models.refusals import said
from lakehouse.models.shape import unstable_functions
from lakehouse.models.statements import Parts
from lakehouse.models.tokens import SourceText, Token, depths
from lakehouse.types import TableName, quote_literal

if TYPE_CHECKING:
    import duckdb

__all__ = ["Check", "Column", "Contract", "Reference", "make_contract", "referenced"]

_SCALARS = re.compile(
    r"BOOLEAN|TINYINT|SMALLINT|INTEGER|BIGINT|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|VARCHAR|BLOB|DATE"
    r"|TIMESTAMP|TIMESTAMP WITH TIME ZONE"
)
_TYPES_HINT = (
    "Types: boolean, tinyint, smallint, integer, bigint, float, double, decimal(p, s), varchar, blob, date, "
    "timestamptz, timestamp, struct, list, map."
)
_TEXT_TYPES = {"varchar", "char", "bpchar", "text", "string", "nvarchar", "character", "varying"}
_QUOTED = re.compile(r"""["']([^"']+)["']""")
_SIGNS = {"subqueries": "select", "window functions": "over", "parameters": "?"}  # how such a thing is written
_CONSTRAINT_STARTS = {"primary", "unique", "check", "foreign", "constraint"}


@dataclass(frozen=True)
class Column:
    """A column: its name, DuckDB type text, whether it may be null, and its comment."""

    name: str
    type: str
    nullable: bool
    comment: str | None = None


@dataclass(frozen=True)
class Check:
    """A CHECK: DuckDB's text of the expression, and the columns it looks at."""

    text: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Reference:
    """A foreign key: own columns, the table referred to, and its columns."""

    columns: tuple[str, ...]
    table: TableName
    referred_columns: tuple[str, ...]


@dataclass(frozen=True)
class Contract:
    """The schema of a warehouse table: columns in order, keys, checks and references."""

    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    checks: tuple[Check, ...] = ()
    references: tuple[Reference, ...] = ()
    comment: str | None = None


def referenced(source: SourceText, parts: Parts, known: Mapping[TableName, Any]) -> dict[TableName, int]:
    """Return the tables that the DDL's REFERENCES name, each with the byte offset of its name.

    Raises
    ------
    ModelError
        If a name is not qualified, is the table itself, or no model makes it.
    """
    found: dict[TableName, int] = {}
    create = parts.create
    for i, token in enumerate(create[:-3]):
        if token.word != "references":
            continue
        at = create[i + 1].start
        if create[i + 2].text != ".":
            name = create[i + 1].name
            raise source.error(f"REFERENCES {name} has no schema", at, hint=f"Write warehouse.{name}.")
        table = TableName(create[i + 1].name.lower(), create[i + 3].name.lower())
        if table == parts.table:
            raise source.error(f"{table} references itself", at, hint="Check such a rule with a query instead.")
        if table not in known:
            hint = near(str(table), [str(name) for name in known if name != parts.table], what="other models")
            raise source.error(f"no model makes {table}", at, hint=hint)
        found.setdefault(table, at)
    return found


def make_contract(connection: duckdb.DuckDBPyConnection, source: SourceText, parts: Parts) -> Contract:
    """Execute a model's DDL and read its contract back; tables it references must be there already.

    Raises
    ------
    ModelError
        If DuckDB refuses the DDL, or the contract can't be kept.
    """
    _refuse_words(source, parts.create)
    _execute(connection, source, parts.create)
    for statement in parts.comments_on:
        _check_comment_target(source, parts, statement)
        _execute(connection, source, statement)
    places = _column_places(parts.create)
    columns = _columns(connection, source, parts, places)
    return _constraints(connection, source, parts, columns)


def _execute(connection: duckdb.DuckDBPyConnection, source: SourceText, statement: list[Token]) -> None:
    import duckdb

    start = statement[0].start
    try:
        connection.execute(source.slice(start, statement[-1].end))
    except duckdb.Error as error:
        raise _translated(error, source, statement) from None


def _translated(error: Exception, source: SourceText, statement: list[Token]) -> ModelError:
    """Return DuckDB's error in our words, placed in the file."""
    _, _, text = str(error).partition(": ")
    try:
        details = json.loads(text)
    except ValueError:
        details = {"exception_message": str(error)}
    message = str(details["exception_message"])
    what, hint = said(message)
    if "position" in details:
        return source.error(what, statement[0].start + int(details["position"]), hint=hint)
    return source.error(what, _meant(message, statement), hint=hint)


def _meant(message: str, statement: list[Token]) -> int:
    """Return where the statement has what a message without a place is about; its start if that can't be told."""
    places = {token.name.lower(): token.start for token in statement}
    sought = [name.lower() for name in reversed(_QUOTED.findall(message))]
    sought += [sign for what, sign in _SIGNS.items() if what in message]
    return next((places[name] for name in sought if name in places), statement[0].start)


def _refuse_words(source: SourceText, create: list[Token]) -> None:
    """Refuse what DuckDB would accept and then not tell."""
    for i, token in enumerate(create):
        if token.word == "collate":
            raise source.error(
                "COLLATE is not supported", token.start, hint="Compare lower(x), or compute the column in the query."
            )
        sized = create[i + 1].text == "(" and create[i + 2].text.isdigit() if i + 2 < len(create) else False
        if token.word in _TEXT_TYPES and sized and create[i - 1].text not in {"(", ","}:
            raise source.error(
                f"{token.text}({create[i + 2].text}): DuckDB does not keep the length",
                token.start,
                hint=f"Write varchar check (length(x) <= {create[i + 2].text}).",
            )


def _check_comment_target(source: SourceText, parts: Parts, statement: list[Token]) -> None:
    names = [token.name.lower() for token in statement[3:6]]
    what = statement[2].word if len(statement) > 2 else ""  # noqa: PLR2004 - COMMENT ON what
    if what not in {"table", "column"} or names != [parts.table.schema, ".", parts.table.name]:
        raise source.error(
            f"a model comments on its own table and columns: {parts.table}",
            statement[min(3, len(statement) - 1)].start,
            hint=f"Write COMMENT ON TABLE {parts.table} IS '…' or COMMENT ON COLUMN {parts.table}.x IS '…'.",
        )


def _column_places(create: list[Token]) -> dict[str, int]:
    """Return the byte offset of each column's definition."""
    levels = depths(create)
    places: dict[str, int] = {}
    for i in range(1, len(create)):
        opens = levels[i - 1] == 0 and create[i - 1].text == "(" and not places
        follows = levels[i - 1] == 1 and create[i - 1].text == ","
        if levels[i] == 1 and (opens or follows) and create[i].word not in _CONSTRAINT_STARTS:
            places.setdefault(create[i].name.lower(), create[i].start)
    return places


def _columns(
    connection: duckdb.DuckDBPyConnection, source: SourceText, parts: Parts, places: dict[str, int]
) -> tuple[Column, ...]:
    """Return the columns, refusing names and types that the lake can't keep."""
    types = connection.table(parts.table.sql).types
    rows = connection.execute(
        "SELECT column_name, data_type, is_nullable, comment, column_default FROM duckdb_columns() "
        f"WHERE {_is_table(parts.table)} ORDER BY column_index"
    ).fetchall()
    columns = []
    for (name, text, nullable, comment, default), type_ in zip(rows, types, strict=False):
        at = places.get(name.lower(), parts.table_at)
        if name.startswith("_"):
            raise source.error(f"{name}: names that start with '_' are Penstock's own", at, hint="Rename the column.")
        if name.lower() == "rowid":  # the gate finds rows by it
            raise source.error(f"{name}: DuckDB calls a row's own address so", at, hint="Rename the column.")
        if default is not None:
            raise source.error(
                f"{name} has a default or is generated", at, hint="Compute the value in the query, with coalesce()."
            )
        refused = _refused_type(type_)
        if refused:
            raise source.error(f"{name}: the type {refused.lower()} is not supported", at, hint=_TYPES_HINT)
        columns.append(Column(name, text, nullable, comment))
    if len(columns) != len(types):
        raise source.error("a generated column is not supported", parts.table_at, hint="Compute it in the query.")
    return tuple(columns)


def _refused_type(type_: Any) -> str | None:
    """Return the part of a type that is not on the closed list."""
    text = str(type_)
    if type_.id in {"struct", "list", "map"} and text != "JSON":
        names = [str(name).lower() for name, _ in type_.children] if type_.id == "struct" else []
        if len(set(names)) != len(names):
            return text
        return next(filter(None, (_refused_type(child) for _, child in type_.children)), None)
    return None if _SCALARS.fullmatch(text) else text


def _is_table(table: TableName) -> str:
    return f"schema_name = {quote_literal(table.schema)} AND lower(table_name) = {quote_literal(table.name)}"


def _constraints(
    connection: duckdb.DuckDBPyConnection, source: SourceText, parts: Parts, columns: tuple[Column, ...]
) -> Contract:
    rows = connection.execute(
        "SELECT constraint_type, constraint_column_names, expression, referenced_table, referenced_column_names "
        f"FROM duckdb_constraints() WHERE {_is_table(parts.table)} ORDER BY constraint_index"
    ).fetchall()
    of = {kind: [row for row in rows if row[0] == kind] for kind in ("PRIMARY KEY", "UNIQUE", "CHECK", "FOREIGN KEY")}
    for _, _, expression, _, _ in of["CHECK"]:
        _refuse_unstable(connection, source, parts, expression, columns)
        _refuse_qualified(connection, source, parts, expression, columns)
    ((comment,),) = connection.execute(f"SELECT comment FROM duckdb_tables() WHERE {_is_table(parts.table)}").fetchall()
    return Contract(
        columns=columns,
        primary_key=tuple(of["PRIMARY KEY"][0][1]) if of["PRIMARY KEY"] else (),
        unique=tuple(tuple(row[1]) for row in of["UNIQUE"]),
        checks=tuple(Check(_bare(row[2]), tuple(dict.fromkeys(row[1]))) for row in of["CHECK"]),
        references=tuple(
            # DuckDB leaves the schema out, but refuses references to another one.
            Reference(tuple(row[1]), TableName(parts.table.schema, row[3].lower()), tuple(row[4]))
            for row in of["FOREIGN KEY"]
        ),
        comment=comment,
    )


def _bare(expression: str) -> str:
    """Return an expression without the pair of brackets that DuckDB puts around the whole."""
    tokens = SourceText("check", expression.encode()).tokens()
    whole = tokens[0].text == "(" and tokens[-1].text == ")" and all(level > 0 for level in depths(tokens)[1:-1])
    return expression[1:-1].strip() if whole else expression


def _refuse_unstable(
    connection: duckdb.DuckDBPyConnection,
    source: SourceText,
    parts: Parts,
    expression: str,
    columns: tuple[Column, ...],
) -> None:
    unstable = unstable_functions(connection, expression, {column.name.lower() for column in columns})
    if unstable:
        name = unstable[0].removesuffix("()1")
        at = next((token.start for token in parts.create if token.word == name), parts.table_at)
        raise source.error(
            f"a CHECK with {name}() would judge the same row differently on another day",
            at,
            hint="Filter by the clock in queries, not in the contract.",
        )


def _refuse_qualified(
    connection: duckdb.DuckDBPyConnection,
    source: SourceText,
    parts: Parts,
    expression: str,
    columns: tuple[Column, ...],
) -> None:
    """Refuse ``t.b`` for ``b``: a CHECK is run over rows that are not in a table of that name yet."""
    known = {column.name.lower() for column in columns}
    for node in nodes(parse_query(connection, f"SELECT {expression}")):
        path = node.get("column_names", []) if node.get("class") == "COLUMN_REF" else []
        if len(path) > 1 and path[0].lower() not in known:
            at = next((t.start for t in parts.create[4:] if t.name.lower() == path[0].lower()), parts.table_at)
            raise source.error(f"{'.'.join(path)} names the table in a CHECK", at, hint=f"Write {path[-1]}.")
