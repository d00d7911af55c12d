"""Load the models of a project and put them in order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.errors import ModelError, near
from lakehouse.model_files import model_files
from lakehouse.models.annotations import Annotations, prose, read_annotations
from lakehouse.models.contract import Contract, make_contract, referenced
from lakehouse.models.queries import Refused, parse_query, reads, scratch
from lakehouse.models.statements import Parts, cut
from lakehouse.models.tokens import SourceText
from lakehouse.types import TableName

if TYPE_CHECKING:
    import duckdb

__all__ = ["Model", "Models", "load_models"]


@dataclass(frozen=True)
class Model:
    """One model: a contract and the query that fills it.

    Parameters
    ----------
    table
        The table that it makes.
    file
        Its file, as the user would type it from the project's directory.
    sha256
        Hash of the file's bytes, hexadecimal.
    meaning
        Hash of what decides about the table's rows, hexadecimal: comments, layout and the case of keywords don't.
    text
        The file's text.
    contract
        The contract, from the DDL.
    query, query_line
        The query, sliced from the file, and the 1-based line where it starts.
    strategy
        ``"refresh"`` (TRUNCATE and INSERT) or ``"upsert"`` (INSERT OR REPLACE).
    annotations
        What the comments declare.
    reads
        The tables that the query reads, sorted.
    description
        ``@description``, or else the leading comment.
    """

    table: TableName
    file: str
    sha256: str
    meaning: str
    text: str
    contract: Contract
    query: str
    query_line: int
    strategy: str
    annotations: Annotations
    reads: tuple[TableName, ...]
    description: str

    @property
    def needs(self) -> tuple[TableName, ...]:
        """The tables that must be there before this one: those it reads and those it references, sorted."""
        return tuple(sorted({*self.reads, *(reference.table for reference in self.contract.references)}))


class Models:
    """The models of a project and the graph between them.

    Parameters
    ----------
    models
        At most one model per table, without cycles.
    """

    def __init__(self, models: Mapping[TableName, Model]) -> None:
        self.by_table: Mapping[TableName, Model] = dict(sorted(models.items()))

    def order(self) -> list[Model]:
        """Return the models, each after those it needs; by table name among equals."""
        waiting = dict(self.by_table)
        ordered: list[Model] = []
        while waiting:
            ready = next(table for table, model in waiting.items() if not waiting.keys() & set(model.needs))
            ordered.append(waiting.pop(ready))
        return ordered

    def components(self) -> list[list[Model]]:
        """Return the connected parts of the graph, each in order, sorted by their first table name."""
        part_of = {table: {table} for table in self.by_table}
        for table, model in self.by_table.items():
            for needed in model.needs:
                if needed in part_of and part_of[needed] is not part_of[table]:
                    part_of[table] |= part_of[needed]
                    for member in part_of[needed]:
                        part_of[member] = part_of[table]
        ordered = self.order()
        parts = sorted({min(part): part for part in part_of.values()}.items())
        return [[model for model in ordered if model.table in part] for _, part in parts]

    def downstream(self, table: TableName) -> list[Model]:
        """Return the models that need a table directly or through others, in order; not the table's own."""
        reached = {table}
        found = []
        for model in self.order():
            if model.table != table and reached & set(model.needs):
                reached.add(model.table)
                found.append(model)
        return found


@dataclass(frozen=True)
class _Draft:
    """A model file that has been cut but whose DDL has not run yet."""

    source: SourceText
    parts: Parts
    sha256: str
    query: str
    reads: tuple[TableName, ...]


def load_models(sql_dir: Path) -> Models:
    """Read ``sql/warehouse/*.sql``, one model per file.

    Parameters
    ----------
    sql_dir
        The project's ``sql`` directory; without it there are no models.

    Raises
    ------
    ModelError
        For the first file, by name, that is wrong: with file, line and what is supported.
    """
    files = model_files(sql_dir)
    if not files:
        return Models({})
    connection = scratch()
    try:
        drafts: dict[TableName, _Draft] = {}
        for path in files:
            draft = _draft(connection, path, path.relative_to(sql_dir.parent).as_posix())
            other = drafts.get(draft.parts.table)
            if other:
                raise draft.source.error(
                    f"{draft.parts.table} has two models: {other.source.file} and {draft.source.file}",
                    draft.parts.table_at,
                    hint="Remove one, or give it another table.",
                )
            drafts[draft.parts.table] = draft
        return _finish(connection, drafts)
    finally:
        connection.close()


def _draft(connection: duckdb.DuckDBPyConnection, path: Path, file: str) -> _Draft:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror}", file=file) from None
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ModelError("is not UTF-8", file=file, line=line, hint="Save the file as UTF-8.") from None
    source = SourceText(file, data)
    parts = cut(source)
    query = source.slice(parts.query_start, parts.query_end)
    try:
        tables = reads(parse_query(connection, query))
    except Refused as refused:
        raise refused.in_file(source, parts.query_start) from None
    if parts.table in tables:
        raise source.error(
            f"the query reads {parts.table}, which it fills", parts.query_start, hint="A model never reads itself."
        )
    return _Draft(source, parts, hashlib.sha256(data).hexdigest(), query, tables)


def _finish(connection: duckdb.DuckDBPyConnection, drafts: dict[TableName, _Draft]) -> Models:
    """Run the DDLs, referenced tables first, and put the models together."""
    references = {t: set(referenced(d.source, d.parts, drafts)) for t, d in drafts.items()}
    needs = {t: sorted((references[t] | set(d.reads)) & drafts.keys()) for t, d in drafts.items()}
    connection.execute("CREATE SCHEMA warehouse")
    models: dict[TableName, Model] = {}
    for table in _sorted(drafts, needs):
        draft = drafts[table]
        models[table] = _model(draft, make_contract(connection, draft.source, draft.parts))
    return Models(models)


def _sorted(drafts: dict[TableName, _Draft], needs: dict[TableName, list[TableName]]) -> list[TableName]:
    """Return the tables, each after those it needs."""
    done: list[TableName] = []
    waiting = sorted(drafts)
    while waiting:
        ready = [table for table in waiting if not set(needs[table]) - set(done)]
        if not ready:
            raise _cycle(drafts, {table: [n for n in needs[table] if n in waiting] for table in waiting})
        done += ready
        waiting = [table for table in waiting if table not in ready]
    return done


def _cycle(drafts: dict[TableName, _Draft], needs: dict[TableName, list[TableName]]) -> ModelError:
    """Return the error that names the files around one cycle; every table here needs another one here."""
    path = [min(needs)]
    while needs[path[-1]][0] not in path:
        path.append(needs[path[-1]][0])
    path = path[path.index(needs[path[-1]][0]) :]
    first = path.index(min(path))
    path = [*path[first:], *path[:first], min(path)]
    draft = drafts[path[0]]
    files = " → ".join(drafts[table].source.file for table in path)
    return draft.source.error(
        f"models need each other in a circle: {files}",
        draft.parts.table_at,
        hint="Take the common part into a model of its own.",
    )


def _model(draft: _Draft, contract: Contract) -> Model:
    source, parts = draft.source, draft.parts
    annotations = read_annotations(source, parts.outside, parts.inside)
    _check_annotations(draft, contract, annotations)
    return Model(
        table=parts.table,
        file=source.file,
        sha256=draft.sha256,
        meaning=_meaning(source, annotations),
        text=source.data.decode(),
        contract=contract,
        query=draft.query,
        query_line=source.line(parts.query_start),
        strategy=parts.strategy,
        annotations=annotations,
        reads=draft.reads,
        description=annotations.description or prose(parts.leading),
    )


def _meaning(source: SourceText, annotations: Annotations) -> str:
    declared = (annotations.on_violation, str(annotations.since), str(annotations.order_by))
    return hashlib.sha256("\0".join((*source.words(), *declared)).encode()).hexdigest()


def _check_annotations(draft: _Draft, contract: Contract, annotations: Annotations) -> None:
    """Refuse annotations that name what the model doesn't have."""
    source, parts = draft.source, draft.parts
    known = {column.name.lower(): column.name for column in contract.columns}
    named = [("pii", column) for column in sorted(annotations.pii)]
    named += [("order_by", annotations.order_by)] if annotations.order_by else []
    for key, column in named:
        if column.lower() not in known:
            hint = near(column, known.values(), what="columns")
            raise source.error(f"@{key} names {column}, which is no column", parts.table_at, hint=hint)
    if annotations.since and annotations.since not in draft.reads:
        hint = near(str(annotations.since), [str(table) for table in draft.reads], what="tables it reads")
        raise source.error(
            f"@since names {annotations.since}, which the query does not read", parts.table_at, hint=hint
        )
    if parts.strategy == "upsert" and not contract.primary_key:
        raise source.error(
            "INSERT OR REPLACE needs a primary key", parts.table_at, hint="Declare one, or use TRUNCATE and INSERT."
        )
    if parts.strategy == "refresh" and annotations.order_by:
        raise source.error(
            "@order_by belongs to INSERT OR REPLACE",
            parts.table_at,
            hint="A full refresh keeps no row of an ambiguous key; choose one in the query, with QUALIFY.",
        )
