"""Compare the columns of a query with the contract, before any data is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lakehouse.errors import ModelError, near
from lakehouse.models.contract import Column
from lakehouse.models.loading import Model
from lakehouse.models.queries import Node, parse_query, scratch

__all__ = ["ColumnCheck", "check_columns"]

_SHOWN = 12  # as many names as a hint lists
_ZONELESS = {"TIMESTAMP", "DATE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}
_ZONED = {"TIMESTAMP WITH TIME ZONE"}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
_NESTED = {"STRUCT", "LIST", "MAP"}
_NUMBERS = _INTEGERS | {f"U{name}" for name in _INTEGERS} | {"FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN", "BIGNUM"}


@dataclass(frozen=True)
class ColumnCheck:
    """What is wrong with a query's columns (nothing may run) and what is only doubtful."""

    errors: tuple[ModelError, ...]
    warnings: tuple[str, ...]


def check_columns(model: Model, described: Sequence[tuple[str, str]]) -> ColumnCheck:
    """Compare a query's columns, as DuckDB describes them, with the model's contract.

    Parameters
    ----------
    model
        The model.
    described
        Name and DuckDB type text of each query column, from ``DESCRIBE``.
    """
    found = {name.lower(): type_ for name, type_ in described}
    wanted = {column.name.lower(): column for column in model.contract.columns}
    names = [column.name for column in model.contract.columns]
    lacking = [column.name for name, column in wanted.items() if name not in found]
    others = [name for name, _ in described if name.lower() not in wanted]
    errors = []
    if lacking:
        hint = _near(lacking, [name for name, _ in described], "query columns")
        errors.append(_error(model, f"the query lacks the {_listed(lacking)}", hint))
    if others:
        are = "is" if len(others) == 1 else "are"
        hint = _near(others, names, "columns of the contract")
        errors.append(_error(model, f"the query's {_listed(others)} {are} not in the contract", hint))
    seen = [name.lower() for name, _ in described]
    errors += [
        _error(model, f"the query has {name} twice", None) for name in sorted({n for n in seen if seen.count(n) > 1})
    ]
    warnings = []
    computed = _computed(model.query)
    for name, column in wanted.items():
        if name not in found:
            continue
        problem = _impossible(found[name], column)
        if problem:
            errors.append(_error(model, *problem))
        elif _kind(found[name]) in {"FLOAT", "DOUBLE"} and _kind(column.type) == "DECIMAL" and name in computed:
            scale = column.type.rpartition(",")[2].rstrip(")")
            warnings.append(
                f"{model.file}: {column.name} is a computed {found[name].lower()}, its contract {column.type.lower()}: "
                f"wrap it in round(…, {scale}), or rows with more digits go to quarantine"
            )
    return ColumnCheck(tuple(errors), tuple(warnings))


def _listed(names: Sequence[str]) -> str:
    """Return ``column a`` or ``columns a, b``; of many only the first."""
    more = f", … ({len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    return f"column{'' if len(names) == 1 else 's'} {', '.join(names[:_SHOWN])}{more}"


def _near(names: Sequence[str], known: Sequence[str], what: str) -> str:
    """Return the known names near a single one, or else all of them."""
    return near(names[0] if len(names) == 1 else "", known, what=what)


def _error(model: Model, what: str, hint: str | None) -> ModelError:
    return ModelError(what, file=model.file, line=model.query_line, hint=hint)


def _kind(type_: str) -> str:
    """Return the family of a DuckDB type text."""
    text = type_.upper()
    if text.endswith("]"):
        return "LIST"
    return text if text in _ZONED else text.partition("(")[0].strip('"')


def _impossible(found: str, column: Column) -> tuple[str, str] | None:
    """Return what is wrong with a conversion that can't be exact whatever the values, and what to do."""
    have, want = _kind(found), _kind(column.type)
    convertible = (
        have in {want, "NULL"}
        or (have in _NUMBERS and want in _NUMBERS)
        or (have in _ZONELESS and want in _ZONELESS)
        or (not {have, want} & {*_NESTED, "BLOB"} and (want == "VARCHAR" or have in {"VARCHAR", "JSON", "ENUM"}))
    )
    if convertible:
        return None
    shown = f"{column.name} is {found.lower()} in the query and {column.type.lower()} in the contract"
    if (have in _ZONELESS and want in _ZONED) or (have in _ZONED and want in _ZONELESS):
        return f"{shown}: say which zone", "Convert it in the query: x AT TIME ZONE 'Europe/Paris'."
    if {have, want} & _NESTED:
        return f"{shown}: no value converts", "Build the value in the query; to_json(x) gives text."
    if "BLOB" in {have, want}:
        return f"{shown}: say which encoding", "Convert it in the query: encode(text) or decode(blob)."
    return f"{shown}: no value converts", "Convert it in the query."


def _computed(query: str) -> set[str]:
    """Return the names of select-list items that are neither plain columns nor rounded."""
    connection = scratch()
    try:
        tree = parse_query(connection, query)
    finally:
        connection.close()
    return {item["alias"].lower() for item in tree.get("select_list", []) if item["alias"] and not _plain(item)}


def _plain(item: Node) -> bool:
    rounded = item["class"] == "FUNCTION" and item["function_name"].lower() in {"round", "floor", "ceil", "trunc"}
    return rounded or item["class"] in {"COLUMN_REF", "CONSTANT"}
