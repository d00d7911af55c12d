"""Cut a model file into its statements.

A model is a comment, one ``CREATE TABLE``, comments on it, and one way to fill it. The query is *sliced* out of the
``INSERT``, never rendered again, so that what runs is what was written.
"""

from __future__ import annotations

from dataclasses import dataclass

from lakehouse.errors import ModelError
from lakehouse.models.tokens import SourceText, Token, depths
from lakehouse.types import TableName

__all__ = ["Parts", "cut"]

SUPPORTED = (
    "A model is: CREATE TABLE warehouse.x (…); COMMENT ON … (if any); then INSERT OR REPLACE INTO warehouse.x "
    "[BY NAME] SELECT … (upsert by key), or TRUNCATE warehouse.x; INSERT INTO warehouse.x SELECT … (full refresh)."
)
_QUERY_STARTS = {"select", "with", "from", "values", "("}


@dataclass(frozen=True)
class Parts:
    """The parts of a model file.

    Parameters
    ----------
    table, table_at
        The table that the model makes and the byte offset of its name.
    create
        The tokens of the ``CREATE TABLE`` statement, comments left out.
    comments_on
        The tokens of each ``COMMENT ON`` statement.
    strategy
        ``"refresh"`` or ``"upsert"``.
    query_start, query_end
        Byte range of the query.
    leading
        The comments before the first statement.
    outside, inside
        Comments around statements and in the middle of them.
    """

    table: TableName
    table_at: int
    create: list[Token]
    comments_on: list[list[Token]]
    strategy: str
    query_start: int
    query_end: int
    leading: list[Token]
    outside: list[Token]
    inside: list[Token]


def cut(source: SourceText) -> Parts:
    """Return the parts of a model file.

    Raises
    ------
    ModelError
        If the statements are not those of a model, or not in its order.
    """
    tokens = source.tokens()
    statements = _statements(tokens)
    if not statements:
        raise source.error("the file holds no statement", hint=SUPPORTED)
    words = [_verb(statement) for statement in statements]
    for statement, verb in zip(statements, words, strict=True):
        _refuse_other_verbs(source, statement, verb)
    if words[0] != "create":
        raise source.error("a model starts with CREATE TABLE", statements[0][0].start, hint=SUPPORTED)
    for statement, verb in zip(statements[1:], words[1:], strict=True):
        if verb == "create":
            raise source.error("a file holds one model: a second CREATE", statement[0].start, hint=SUPPORTED)
    create = statements[0]
    table, at = _created_table(source, create)
    count = words[1:].count("comment")
    if "comment" in words[1 + count :]:
        misplaced = statements[len(words) - 1 - words[::-1].index("comment")]
        raise source.error("COMMENT ON stands after the query", misplaced[0].start, hint=SUPPORTED)
    strategy, insert = _fill(source, table, statements[1 + count :], words[1 + count :], create)
    start, end = _query(source, table, insert)
    comments = [token for token in tokens if token.comment]
    spans = [(statement[0].start, statement[-1].end) for statement in statements]
    inside = [c for c in comments if any(first < c.start < last for first, last in spans)]
    return Parts(
        table=table,
        table_at=at,
        create=create,
        comments_on=statements[1 : 1 + count],
        strategy=strategy,
        query_start=start,
        query_end=end,
        leading=[c for c in comments if c.start < create[0].start],
        outside=[c for c in comments if c not in inside],
        inside=inside,
    )


def _statements(tokens: list[Token]) -> list[list[Token]]:
    """Return the tokens of each statement, without comments and semicolons."""
    statements: list[list[Token]] = [[]]
    for token in tokens:
        if token.comment:
            continue
        if token.text == ";":
            statements.append([])
        else:
            statements[-1].append(token)
    return [statement for statement in statements if statement]


def _verb(statement: list[Token]) -> str:
    return statement[0].word


def _refuse_other_verbs(source: SourceText, statement: list[Token], verb: str) -> None:
    at = statement[0].start
    if verb == "with" and any(t.word == "insert" for t in statement):
        raise source.error("WITH stands before INSERT", at, hint="Write INSERT … INTO warehouse.x WITH … SELECT ….")
    if verb == "delete":
        raise source.error("DELETE is not supported in a model", at, hint=SUPPORTED)
    if verb not in {"create", "comment", "insert", "truncate"}:
        raise source.error(f"{statement[0].text.upper()} is not supported in a model", at, hint=SUPPORTED)


def _named(source: SourceText, statement: list[Token], at: int) -> tuple[TableName, int]:
    """Return the table named at a token, and the index after it."""
    parts = [statement[at]] if at < len(statement) else []
    following = at + 1
    while following + 1 < len(statement) and statement[following].text == ".":
        parts.append(statement[following + 1])
        following += 2
    names = [part.name for part in parts]
    offset = parts[0].start if parts else statement[-1].end
    if len(names) != 2 or names[0].lower() != "warehouse":  # noqa: PLR2004 - schema and name
        written = ".".join(names) or "nothing"
        raise source.error(f"{written} is not a table of the warehouse", offset, hint="Write it as warehouse.x.")
    return _table_name(source, ".".join(names), offset), following


def _table_name(source: SourceText, text: str, offset: int) -> TableName:
    from lakehouse.errors import RequestError

    try:
        return TableName.parse(text)
    except RequestError as error:
        raise source.error(error.what, offset, hint=error.hint) from None


def _created_table(source: SourceText, create: list[Token]) -> tuple[TableName, int]:
    """Return the table that ``CREATE TABLE`` makes, refusing its other forms."""
    start = create[0].start
    words = [token.word for token in create]
    if words[1:3] == ["or", "replace"]:
        raise source.error("CREATE OR REPLACE is not supported", start, hint="Write CREATE TABLE: Penstock migrates.")
    if words[1] in {"temp", "temporary"}:
        raise source.error("a model's table is never temporary", start, hint="Write CREATE TABLE warehouse.x (…).")
    if words[1] != "table":
        raise source.error(f"CREATE {create[1].text.upper()} is not supported in a model", start, hint=SUPPORTED)
    if words[2:5] == ["if", "not", "exists"]:
        raise source.error(
            "IF NOT EXISTS is not supported", create[2].start, hint="Write CREATE TABLE warehouse.x (…)."
        )
    table, following = _named(source, create, 2)
    levels = depths(create)
    if following >= len(create) or create[following].text != "(":
        raise source.error(
            "CREATE TABLE … AS is not supported: a contract lists its columns",
            create[min(following, len(create) - 1)].start,
            hint=SUPPORTED,
        )
    closing = next((i for i in range(following + 1, len(create)) if levels[i] == 0), len(create) - 1)
    if closing != len(create) - 1:
        raise source.error("nothing may follow the column list", create[closing + 1].start, hint=SUPPORTED)
    return table, create[2].start


def _fill(
    source: SourceText, table: TableName, rest: list[list[Token]], verbs: list[str], create: list[Token]
) -> tuple[str, list[Token]]:
    """Return the strategy and the ``INSERT`` statement."""
    if not rest:
        raise source.error("the model has no query", create[0].start, hint=SUPPORTED)
    if verbs == ["truncate", "insert"]:
        _check_truncate(source, table, rest[0])
        if [t.word for t in rest[1][1:3]] != ["into", "warehouse"] and rest[1][1].word == "or":
            raise source.error("after TRUNCATE write a plain INSERT INTO", rest[1][0].start, hint=SUPPORTED)
        return "refresh", rest[1]
    if verbs == ["insert"]:
        words = [token.word for token in rest[0][1:3]]
        if words != ["or", "replace"]:
            raise source.error("a plain INSERT (append) is not supported", rest[0][0].start, hint=SUPPORTED)
        return "upsert", rest[0]
    raise source.error("these statements don't fill the table once", rest[-1][0].start, hint=SUPPORTED)


def _check_truncate(source: SourceText, table: TableName, truncate: list[Token]) -> None:
    at = 2 if len(truncate) > 1 and truncate[1].word == "table" else 1
    named, following = _named(source, truncate, at)
    if named != table:
        raise _other_table(source, named, table, truncate[at].start)
    if following != len(truncate):
        raise source.error("nothing may follow TRUNCATE's table", truncate[following].start, hint=SUPPORTED)


def _other_table(source: SourceText, named: TableName, table: TableName, offset: int) -> ModelError:
    return source.error(f"the model makes {table}, but this fills {named}", offset, hint="Name one table in one file.")


def _query(source: SourceText, table: TableName, insert: list[Token]) -> tuple[int, int]:
    """Return the byte range of the query inside an ``INSERT``."""
    into = 3 if insert[1].word == "or" else 1
    if into >= len(insert) or insert[into].word != "into":
        raise source.error("INSERT without INTO", insert[0].start, hint=SUPPORTED)
    named, at = _named(source, insert, into + 1)
    if named != table:
        raise _other_table(source, named, table, insert[into + 1].start)
    if [token.word for token in insert[at : at + 2]] == ["by", "name"]:
        at += 2
    if at >= len(insert):
        raise source.error("INSERT has no query", insert[-1].start, hint=SUPPORTED)
    first = insert[at]
    is_list = first.text == "(" and insert[min(at + 1, len(insert) - 1)].word not in _QUERY_STARTS
    if is_list:
        raise source.error(
            "a column list in INSERT is not supported",
            first.start,
            hint="Columns match by name: name the query's columns as in CREATE TABLE.",
        )
    if first.word not in _QUERY_STARTS:
        raise source.error(f"{first.text} is no query", first.start, hint=SUPPORTED)
    _refuse_tails(source, insert[at:])
    return first.start, insert[-1].end


def _refuse_tails(source: SourceText, query: list[Token]) -> None:
    levels = depths(query)
    for i, token in enumerate(query):
        if levels[i]:
            continue
        if token.word == "returning":
            raise source.error("RETURNING is not supported in a model", token.start, hint=SUPPORTED)
        if token.word == "on" and i + 1 < len(query) and query[i + 1].word == "conflict":
            raise source.error("ON CONFLICT is not supported in a model", token.start, hint=SUPPORTED)
