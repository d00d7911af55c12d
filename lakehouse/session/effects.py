"""What a query does beside showing rows: a session of one call ends, and with it all that lived only there."""

from __future__ import annotations

import re

import duckdb
from duckdb import StatementType

from lakehouse.errors import QueryError
from lakehouse.session.statement import check_text

__all__ = ["session_notes"]

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
    if StatementType.ATTACH in kinds or not kinds:
        return []  # a database of the user's own may take the changes
    if _SILENT.issuperset(kinds):
        raise QueryError(
            f"this would change nothing: its effect ends with this session ({_told(kinds)})",
            hint="The lake changes by penstock land, promote and rollback. "
            'A table for one query: penstock sql "create temp table …; select …"',
        )
    notes = []
    lost = [s.type for s in statements if s.type in _CHANGES and not _TEMPORARY.match(s.query)]
    if lost:
        notes.append(f"{_told(lost)}: its effect ended with this session; nothing of the lake changed")
    shown = sum(kind not in _SILENT for kind in kinds)
    if shown > 1:
        notes.append(f"of {shown} results, this is the last")
    return notes


def _told(kinds: list[StatementType]) -> str:
    return ", ".join(dict.fromkeys(kind.name.replace("_", " ") for kind in kinds))
