"""What a query does beside showing rows: a session of one call ends, and with it all that lived only there."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import duckdb
from duckdb import StatementType

from lakehouse.errors import QueryError
from lakehouse.session.statement import check_text

__all__ = ["made_here", "refuse_changes", "refuse_writes", "session_notes"]

# Statements that show nothing and act on the session alone.
_SILENT = frozenset(
    {
        StatementType.CREATE,
        StatementType.DROP,
        StatementType.ALTER,
        StatementType.INSERT,
        StatementType.UPDATE,
        StatementType.DELETE,
        StatementType.MERGE_INTO,
        StatementType.SET,
        StatementType.VARIABLE_SET,
        StatementType.PREPARE,
        StatementType.TRANSACTION,
        StatementType.VACUUM,
        StatementType.ANALYZE,
        StatementType.LOAD,
        StatementType.ATTACH,
        StatementType.DETACH,
    }
)
_CHANGES = frozenset(
    {
        StatementType.CREATE,
        StatementType.DROP,
        StatementType.ALTER,
        StatementType.INSERT,
        StatementType.UPDATE,
        StatementType.DELETE,
        StatementType.MERGE_INTO,
    }
)
_WRITES = frozenset({StatementType.EXPORT, StatementType.ATTACH})
_COPIES = frozenset({StatementType.COPY, StatementType.MULTI})  # COPY (PIVOT …) TO is several to DuckDB
_COMMANDS = "The lake changes by penstock land, promote and rollback."
# What may stand before the name of that which a statement makes, drops or fills.
_VERBS = frozenset({"create", "drop", "alter", "insert", "update", "delete", "merge", "truncate", "comment", "copy"})
_BEFORE_NAME = _VERBS | {"or", "replace", "temp", "temporary", "persistent", "recursive", "if", "not", "exists", "into"}
_BEFORE_NAME |= {"from", "on", "table", "view", "macro", "function", "schema", "sequence", "type", "index", "column"}
_TEMPORARY = re.compile(r"\s*create\s+(or\s+replace\s+)?temp(orary)?\b", re.IGNORECASE)


def session_notes(query: str) -> list[str]:
    """Return what somebody who runs a query in a session of its own may be wrong about.

    Raises
    ------
    QueryError
        If nothing of it would remain: no rows are shown, and nothing outside of the session changes. If it is no text.
    """
    check_text(query)
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error:
        return []  # whoever runs it says it better
    kinds = [statement.type for statement in statements]
    if not kinds:
        return []
    if StatementType.ATTACH in kinds and len(kinds) > 1:
        return []  # a database of the user's own may take the changes
    if _SILENT.issuperset(kinds):
        raise QueryError(
            f"this would change nothing: its effect ends with this session ({_told(kinds)})",
            hint=f'{_COMMANDS} A table for one query: penstock sql "create temp table …; select …"',
        )
    notes = []
    lost = [s.type for s in statements if s.type in _CHANGES and not _TEMPORARY.match(s.query)]
    if lost:
        notes.append(f"{_told(lost)}: its effect ended with this session; nothing of the lake changed")
    shown = sum(kind not in _SILENT for kind in kinds)
    if shown > 1:
        notes.append(f"of {shown} results, this is the last")
    return notes


def refuse_changes(query: str, schemas: Collection[str]) -> None:
    """Refuse to change a view that stands for a table of the lake: later queries would see something else.

    Parameters
    ----------
    query
        Statements that DuckDB can parse.
    schemas
        The lake's, in lower case.

    Raises
    ------
    QueryError
        If a statement makes, drops or fills something in one of them.
    """
    for statement in duckdb.extract_statements(query):
        if statement.type not in _CHANGES and statement.type != StatementType.COPY:
            continue
        words = _top_words(statement.query)
        verb, name = _changed(words)
        if verb == "copy" and "from" not in map(str.lower, words):
            continue  # … TO a file
        path = name[1:] if name[:1] == ["memory"] else name
        if path and path[0].lower() in schemas and (len(path) > 1 or "schema" in map(str.lower, words)):
            raise QueryError(
                f"a query changes nothing of the lake, and {'.'.join(path)} is part of it",
                hint=f"{_COMMANDS} A table of your own: create temp table … as select …",
            )


def refuse_writes(query: str, directory: str) -> None:
    """Refuse to write files into the lake's own directory: whatever is not of its making damages it.

    Parameters
    ----------
    query
        Statements that DuckDB can parse.
    directory
        The lake's, on local disk.

    Raises
    ------
    QueryError
        If a statement copies, exports or attaches something there.
    """
    root = Path(directory).resolve()
    for statement in duckdb.extract_statements(query):
        words = _top_words(statement.query)
        copies = statement.type in _COPIES and "to" in map(str.lower, words)
        if not copies and statement.type not in _WRITES:
            continue
        for text in (word[1:-1].replace("''", "'") for word in words if word[0] == "'"):
            if Path(text.removeprefix("file://")).expanduser().resolve().is_relative_to(root):
                raise QueryError(
                    f"a query writes nothing into the lake, and {text} lies there",
                    hint=f"Write it somewhere else. {_COMMANDS}",
                )


def made_here(statement: str) -> str | None:
    """Return what a CREATE makes that lasts as long as the session, though it doesn't say so; else None."""
    words = _top_words(statement)
    _, name = _changed(words)
    if [word.lower() for word in words[:1]] != ["create"] or len(name) != 1 or _TEMPORARY.match(" ".join(words)):
        return None
    return name[0]


def _changed(words: list[str]) -> tuple[str, list[str]]:
    """Return how a statement changes something, and the name of that, part by part; empty if it changes nothing."""
    start = next((place for place, word in enumerate(words) if word.lower() in _VERBS), None)
    if start is None:
        return "", []
    at = start
    while at < len(words) and words[at].lower() in _BEFORE_NAME:
        at += 1
    name = words[at : at + 1]
    while words[at + 1 : at + 2] == ["."]:
        name += words[at + 2 : at + 3]
        at += 2
    return words[start].lower(), [_unquoted(part) for part in name]


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name[0] == '"' else name


def _top_words(query: str) -> list[str]:
    """Return the tokens of a query that stand in no brackets, comments left out."""
    data = query.encode()
    found = duckdb.tokenize(query)
    ends = [*(start for start, _ in found[1:]), len(data)]
    words: list[str] = []
    depth = 0
    for (start, kind), end in zip(found, ends, strict=False):
        word = data[start:end].decode().rstrip()
        depth -= word == ")"
        if depth == 0 and kind != duckdb.token_type.comment:
            words.append(word)
        depth += word == "("
    return words


def _told(kinds: list[StatementType]) -> str:
    return ", ".join(dict.fromkeys(kind.name.replace("_", " ") for kind in kinds))
