"""What DuckDB says about a model's SQL, in a sentence and a hint of ours."""

from __future__ import annotations

import re

__all__ = ["said"]

_KIND = re.compile(r"[A-Z][A-Za-z ]* Error: ")
_SHOWN_PLACE = re.compile(r"\n+LINE \d+: .*", re.DOTALL)
_CANDIDATES = re.compile(r"(?:Candidate \w+|Did you mean):? (.*?)\??\Z")
_NAMES = re.compile(r'"([^"]+)"')
_ACROSS_ROWS = "A CHECK judges a row by itself: look at others in the query, or declare UNIQUE or REFERENCES."
# DuckDB's sentence, ours, and what to do if DuckDB says nothing about that.
_SENTENCES: tuple[tuple[re.Pattern[str], str, str | None], ...] = tuple(
    (re.compile(pattern), ours, hint)
    for pattern, ours, hint in (
        (r'Referenced column "(.+)" not found', r"there is no column \1 in what the query reads", None),
        (r'Referenced table "(.+)" not found', r"the query reads nothing called \1", None),
        (r'(?:Table|Values list) "(.+)" does not have a column named "(.+)"', r"\1 has no column \2", None),
        (r"(?:\w+ )?[Ff]unction with name (\S+) does not exist", r"there is no function \1()", None),
        (r"Type with name (\S+) does not exist", r"there is no type \1", None),
        (r"Cannot extract field '(.+)' from expression.*", r"a field \1 is asked of what has none", None),
        ("Values were not provided for the following parameters", "a contract takes no parameters", None),
        (
            r'Table does not contain column "(.+)" referenced in check constraint',
            r"a CHECK names \1, which is no column of the table",
            "Declare the column, or correct its name.",
        ),
        ("subqueries prohibited in CHECK constraints", "a CHECK holds a subquery", _ACROSS_ROWS),
        ("aggregate functions are not allowed in check", "a CHECK holds an aggregate", _ACROSS_ROWS),
        ("window functions are not allowed in check", "a CHECK holds a window", _ACROSS_ROWS),
        (
            r'table ".+" does not have a column named "(.+)"',
            r"a key names \1, which is no column of the table",
            "Declare the column, or correct its name.",
        ),
        (r'Column with name "?(.+?)"? already exists', r"the column \1 is declared twice", "Keep one of them."),
        (r'table ".+" has more than one primary key', "the table has two primary keys", "Keep one of them."),
        (
            r'.*there is no primary key or unique constraint for referenced table "(.+)"',
            r"REFERENCES needs a primary key or UNIQUE over these columns of \1",
            "Declare one in the other model.",
        ),
        (
            r"No function matches the given name and argument types '(.+)'.*",
            r"nothing takes these types: \1",
            "Cast an argument to the type that is meant: x::integer.",
        ),
    )
)


def said(message: str) -> tuple[str, str | None]:
    """Return DuckDB's message as what is wrong and what to do: without its kind, its picture of the place, and lists.

    Parameters
    ----------
    message
        What DuckDB said, with or without the kind of error.
    """
    text = _SHOWN_PLACE.sub("", _KIND.sub("", message.strip(), count=1))
    first, _, rest = text.partition("\n")
    first, rest = first.strip().rstrip("!."), rest.strip()
    for pattern, ours, hint in _SENTENCES:
        match = pattern.match(first)
        if match:
            return match.expand(ours), _meant(rest) or hint
    return first, _meant(rest) or (" ".join(rest.split()) or None)


def _meant(rest: str) -> str | None:
    """Return the names that DuckDB finds near as a question."""
    match = _CANDIDATES.match(rest.partition("\n")[0])
    names = _NAMES.findall(match[1]) if match else []
    return f"Did you mean {' or '.join(names)}?" if names else None
