"""The gate: divide a query's rows into those that keep the contract and those that break it.

Every row is accounted for: query rows = good + quarantined + replaced. Rules of one row come first (type, not null,
check, references); keys are judged among the rows that pass them: first the primary key, then, among its winners,
UNIQUE. Most rows are good, so one pass decides good or bad and writes the good ones; reasons are computed for bad
rows only, and rows are compared with each other only where two keys have one hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lakehouse.types import TableName, quote, quote_literal

if TYPE_CHECKING:
    import duckdb

    from lakehouse.models import Check, Contract, Reference

__all__ = ["Example", "GateReport", "gate", "key_sql"]

_HIDDEN = {"_record_id": "VARCHAR", "_load_seq": "BIGINT", "_offset": "BIGINT"}
_EXAMPLES = 100
# The strict grammar of `lakehouse.grammar`: leading zeros, signs and blanks make a code of it, not a number.
_DECIMAL_TEXT = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?"
_FLOAT_TEXT = rf"{_DECIMAL_TEXT}([eE][+-]?[0-9]+)?"
_PARTS = r"^(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$"


@dataclass(frozen=True, slots=True)
class Example:
    """One row that breaks one rule: its record and key, where known, and the value as text."""

    record_id: str | None
    key: str | None
    value: str | None


@dataclass(frozen=True)
class GateReport:
    """What the gate found.

    Parameters
    ----------
    query_rows
        All rows; always ``good + quarantined + replaced``.
    good, quarantined
        Rows in ``<into>_good`` and ``<into>_bad``.
    replaced
        Rows that lost their key to another row of this run, exact duplicates included.
    by_reason
        Rows by (rule, column). A rule starts with its name: ``type DECIMAL(10,2)``, ``not null``,
        ``check (fare >= 0)``, ``references warehouse.zones``, ``primary key``, ``unique``. The columns of a rule over
        several are joined by a comma. A row that breaks several rules counts for each.
    examples
        Up to 100 rows for each of these.
    """

    query_rows: int
    good: int
    quarantined: int
    replaced: int
    by_reason: Mapping[tuple[str, str], int] = field(default_factory=dict)
    examples: Mapping[tuple[str, str], Sequence[Example]] = field(default_factory=dict)


def key_sql(contract: Contract, alias: str, *, pii: frozenset[str] = frozenset()) -> str:
    """Return SQL for the text that ``_key`` of a rejected row holds: the primary key as JSON.

    Null where a part is null, or there is no primary key. Without `pii`, a key that holds such a column is not the
    text that ``<into>_bad`` has.
    """
    if not contract.primary_key:
        return "CAST(NULL AS VARCHAR)"
    columns = {name: f"{quote(alias)}.{quote(name)}" for name in contract.primary_key}
    missing = " OR ".join(f"{column} IS NULL" for column in columns.values())
    return f"CASE WHEN NOT ({missing}) THEN {_json(columns, _folded(pii))} END"


def gate(
    connection: duckdb.DuckDBPyConnection,
    contract: Contract,
    staged: str,
    *,
    strategy: str,
    parents: Mapping[TableName, str],
    order_by: str | None,
    into: str,
    pii: frozenset[str] = frozenset(),
) -> GateReport:
    """Divide staged rows by a contract.

    Makes the temporary tables ``<into>_good`` (the contract's columns in its order and types, then the provenance
    columns that were staged) and ``<into>_bad`` (``_record_id``, ``_load_seq``, ``_offset``, ``_key``, ``_reasons``,
    ``_row``). Tables of these names are replaced.

    Parameters
    ----------
    connection
        Where the rows are; its session zone must be UTC.
    contract
        The rules.
    staged
        The quoted name of a table with the query's rows as they came, with or without provenance.
    strategy
        ``"upsert"``: the latest row of a key wins. ``"refresh"``: all rows of an ambiguous key are rejected.
    parents
        For each referenced table, its quoted name or a bracketed SELECT.
    order_by
        The column whose greatest value wins a key where rows have no provenance.
    into
        Prefix of the tables made: letters, digits, underscores.
    pii
        Columns whose values are shown as a hash only.

    Raises
    ------
    ValueError
        If a column of the contract or a parent is missing: the plan should have found it.
    """
    run = _Gate(
        connection,
        contract,
        staged,
        strategy=strategy,
        parents=parents,
        order_by=order_by,
        into=into,
        pii=_folded(pii),
    )
    try:
        run.divide_rows()
        run.settle_primary_key()
        run.settle_unique()
        return run.report()
    finally:
        shared = [f"shared_{i}" for i in range(len(contract.unique))]
        for name in ("dups", "rivals", "out", "clash", "kept", "rows", *shared):
            connection.execute(f"DROP TABLE IF EXISTS temp.main.{quote(f'{into}_{name}')}")


def _folded(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def _text(column: str, name: str, pii: frozenset[str]) -> str:
    """Return SQL for a value as text, or as the hash of it."""
    text = f"CAST({column} AS VARCHAR)"
    return f"'sha256:' || left(sha256({text}), 16)" if name.lower() in pii else text


def _json(columns: Mapping[str, str], pii: frozenset[str]) -> str:
    """Return SQL for a JSON object of columns as text."""
    fields = ", ".join(
        f"{quote(name)} := {_text(column, name, pii) if name.lower() in pii else column}"
        for name, column in columns.items()
    )
    return f"CAST(to_json(struct_pack({fields})) AS VARCHAR)"


def _inexact(came: str, value: str, origin: str, target: str) -> str:
    """Return SQL that tells whether a converted value is another one than came.

    Exact means: back in the type that it came from, it is the same value. Of numbers as text the value counts, not
    the zeros that say nothing: ``2.50`` is the double 2.5, ``2.5`` the decimal 2.50.
    """
    back = f"try_cast({value} AS {origin})"
    fractional = target in ("DOUBLE", "FLOAT")
    if origin != "VARCHAR" or not (fractional or target.startswith("DECIMAL")):
        return f"{back} IS DISTINCT FROM {came}"
    pattern = _FLOAT_TEXT if fractional else _DECIMAL_TEXT
    # A decimal has no negative zero: -0.00 is 0 there.
    same = f"{_numeral(came, zero_sign=fractional)} = {_numeral(back, zero_sign=fractional)}"
    fits = f"regexp_full_match({came}, '{pattern}') AND coalesce({same}, false)"
    return (
        f"CASE WHEN {back} IS NOT DISTINCT FROM {came} THEN false WHEN {back} IS NULL THEN true ELSE NOT ({fits}) END"
    )


def _numeral(text: str, *, zero_sign: bool) -> str:
    """Return SQL for the one spelling of a number's value: sign, significant digits, and the power of ten behind."""
    parts = f"regexp_extract({text}, '{_PARTS}', ['sign', 'whole', 'part', 'power'])"
    power = "coalesce(try_cast(p.power AS HUGEINT), 0) - len(p.part) + len(d) - len(rtrim(d, '0'))"
    zero = "p.sign" if zero_sign else "''"
    told = f"CASE WHEN d = '' THEN {zero} || '0' ELSE p.sign || rtrim(d, '0') || 'e' || ({power}) END"
    # Lambdas of one item give names to what is needed several times.
    digits = f"list_transform([ltrim(p.whole || p.part, '0')], lambda d: {told})[1]"
    return f"list_transform([{parts}], lambda p: {digits})[1]"


@dataclass(frozen=True)
class _Rule:
    """A rule of one row: SQL that is true where the row breaks it, over converted columns and ``_failed_n``."""

    name: str
    column: str
    broken: str
    value: str


class _Gate:
    """One run of the gate."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        contract: Contract,
        staged: str,
        *,
        strategy: str,
        parents: Mapping[TableName, str],
        order_by: str | None,
        into: str,
        pii: frozenset[str],
    ) -> None:
        self.connection = connection
        self.contract = contract
        self.strategy = strategy
        self.parents = parents
        self.order_by = order_by
        self.into = into
        self.pii = pii
        self.good = quote(f"{into}_good")
        self.bad = quote(f"{into}_bad")
        self.staged = self._with_rowid(staged)
        described = self._rows(f"DESCRIBE SELECT * FROM {self.staged}")
        self.types = {str(row[0]): str(row[1]) for row in described}
        self.spelled = {name.lower(): name for name in self.types}
        missing = [c.name for c in contract.columns if c.name.lower() not in self.spelled]
        missing += [str(r.table) for r in contract.references if r.table not in parents]
        if missing:
            raise ValueError(missing)
        # CHECK text names columns bare: beside converted columns, the staged ones need names of their own.
        self._renamed = {name: f"_came_{i}" for i, name in enumerate(self.types)}
        self.hidden = [name for name in _HIDDEN if name in self.types]
        self.names = [column.name for column in contract.columns]
        self.failed = self._failed()
        self.rules = self._rules()
        self.replaced = 0

    # -- SQL ----------------------------------------------------------------------------------------------------------

    def _execute(self, sql: str) -> None:
        self.connection.execute(sql)

    def _rows(self, sql: str) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = self.connection.execute(sql).fetchall()
        return rows

    def _count(self, relation: str) -> int:
        ((rows,),) = self._rows(f"SELECT count(*) FROM {relation}")
        return int(str(rows))

    def _table(self, name: str) -> str:
        return quote(f"{self.into}_{name}")

    def _with_rowid(self, staged: str) -> str:
        """Return the staged table; a view is copied first, since rows need an address."""
        import duckdb

        try:
            self._rows(f"SELECT rowid FROM {staged} LIMIT 0")
        except duckdb.BinderException:
            self._execute(f"CREATE OR REPLACE TEMP TABLE {self._table('rows')} AS SELECT * FROM {staged}")
            return self._table("rows")
        return staged

    def _failed(self) -> dict[str, str]:
        """Return, for each column whose type differs, the name of the flag that its conversion failed."""
        differing = [c for c in self.contract.columns if self.types[self.spelled[c.name.lower()]] != c.type]
        return {column.name: f"_failed_{i}" for i, column in enumerate(differing)}

    def _came(self, name: str) -> str:
        """Return SQL for a column as the query made it."""
        return f"_staged.{quote(self.spelled[name.lower()])}"

    def _converted(self) -> str:
        """Return a SELECT of staged rows with the contract's columns, failure flags, provenance and row address."""
        items = ["_staged.rowid AS _rowid"]
        for column in self.contract.columns:
            came = self._came(column.name)
            flag = self.failed.get(column.name)
            value = f"try_cast({came} AS {column.type})" if flag else came
            items.append(f"{value} AS {quote(column.name)}")
            if flag:
                origin = self.types[self.spelled[column.name.lower()]]
                items.append(f"{_inexact(came, value, origin, column.type)} AS {flag}")
        items += [f"CAST(_staged.{name} AS {_HIDDEN[name]}) AS {name}" for name in self.hidden]
        return f"SELECT {', '.join(items)} FROM {self.staged} AS _staged"

    def _judged(self) -> str:
        """Return a FROM clause of converted rows beside the parents that they refer to."""
        joins = []
        for i, reference in enumerate(self.contract.references):
            found = ", ".join(f"{quote(name)} AS _parent_{i}_{j}" for j, name in enumerate(reference.referred_columns))
            match = " AND ".join(f"_row.{quote(own)} = _parent_{i}_{j}" for j, own in enumerate(reference.columns))
            parent = f"(SELECT DISTINCT {found}, true AS _found_{i} FROM {self.parents[reference.table]})"
            joins.append(f" LEFT JOIN {parent} ON {match}")
        return f"({self._converted()}) AS _row{''.join(joins)}"

    @property
    def _broken(self) -> str:
        return " OR ".join(f"({rule.broken})" for rule in self.rules) or "false"

    @property
    def _kept(self) -> str:
        return ", ".join([*map(quote, self.names), *self.hidden])

    def _key(self, columns: Sequence[str]) -> str:
        return ", ".join(map(quote, columns))

    # -- rules of one row ---------------------------------------------------------------------------------------------

    def _rules(self) -> list[_Rule]:
        rules = []
        for column in self.contract.columns:
            flag = self.failed.get(column.name)
            if flag:
                value = _text(self._renamed[self.spelled[column.name.lower()]], column.name, self.pii)
                rules.append(_Rule(f"type {column.type}", column.name, f"_row.{flag}", value))
            if not column.nullable:
                rules.append(
                    _Rule(
                        "not null",
                        column.name,
                        self._unless_failed(f"{quote(column.name)} IS NULL", [column.name]),
                        "NULL",
                    )
                )
        rules += [self._check_rule(check) for check in self.contract.checks]
        rules += [self._reference_rule(i, reference) for i, reference in enumerate(self.contract.references)]
        return rules

    def _unless_failed(self, broken: str, columns: Sequence[str]) -> str:
        """Return a condition that leaves rows alone whose value did not convert: they have their reason."""
        flags = [f"NOT _row.{self.failed[name]}" for name in columns if name in self.failed]
        return " AND ".join([*flags, f"({broken})"])

    def _check_rule(self, check: Check) -> _Rule:
        # CHECK passes null; an error in it makes TRY null, which is not true.
        broken = f"TRY(coalesce(CAST(({check.text}) AS BOOLEAN), true)) IS NOT TRUE"
        return _Rule(
            f"check ({check.text})",
            ", ".join(check.columns),
            self._unless_failed(broken, check.columns),
            self._shown(check.columns),
        )

    def _reference_rule(self, i: int, reference: Reference) -> _Rule:
        given = [f"_row.{quote(name)} IS NOT NULL" for name in reference.columns]
        broken = " AND ".join([*given, f"_found_{i} IS NULL"])
        return _Rule(
            f"references {reference.table}",
            ", ".join(reference.columns),
            self._unless_failed(broken, reference.columns),
            self._shown(reference.columns),
        )

    def _shown(self, columns: Sequence[str]) -> str:
        """Return SQL for the values of columns as text, with their names if there are several."""
        texts = [_text(f"_row.{quote(name)}", name, self.pii) for name in columns]
        if len(texts) == 1:
            return texts[0]
        named = [
            f"{quote_literal(name + '=')} || coalesce({text}, 'null')"
            for name, text in zip(columns, texts, strict=True)
        ]
        return " || ', ' || ".join(named) or "NULL"

    def divide_rows(self) -> None:
        """Write the good rows, and, if any are missing then, the bad ones with their reasons."""
        where = f" WHERE NOT ({self._broken})" if self.rules else ""
        self._execute(f"CREATE OR REPLACE TEMP TABLE {self.good} AS SELECT {self._kept} FROM {self._judged()}{where}")
        self.query_rows = self._count(self.staged)
        reasons = [
            f"CASE WHEN {rule.broken} THEN {_reason(rule.column, rule.name, rule.value)} END" for rule in self.rules
        ]
        listed = f"list_filter([{', '.join(reasons)}], lambda r: r IS NOT NULL)" if reasons else "[]"
        broken = f"({self._broken})" if self._count(self.good) < self.query_rows else "false"
        joined = f"{self._judged()} JOIN {self._beside()} ON _at = _row._rowid"
        self._execute(
            f"CREATE OR REPLACE TEMP TABLE {self.bad} AS SELECT {self._identity(self._key_of_bad())}, "
            f"CAST({listed} AS {_REASONS}) AS _reasons, {self._as_came()} AS _row FROM {joined} WHERE {broken}"
        )

    def _identity(self, key: str) -> str:
        of_row = {name: f"_row.{name}" for name in self.hidden}
        hidden = [f"{of_row.get(name, f'CAST(NULL AS {type_})')} AS {name}" for name, type_ in _HIDDEN.items()]
        return ", ".join([*hidden, f"{key} AS _key"])

    def _key_of_bad(self) -> str:
        """Return SQL for the key of a bad row; null if a part did not convert, since 1.7 is not the key 2."""
        text = key_sql(self.contract, "_row", pii=self.pii)
        flags = [f"_row.{self.failed[name]}" for name in self.contract.primary_key if name in self.failed]
        return f"CASE WHEN NOT ({' OR '.join(flags)}) THEN {text} END" if flags else text

    def _beside(self) -> str:
        renamed = ", ".join(f"{quote(name)} AS {alias}" for name, alias in self._renamed.items())
        return f"(SELECT rowid AS _at, {renamed} FROM {self.staged}) AS _staged"

    def _as_came(self) -> str:
        columns = {name: self._renamed[name] for name in self.types if name not in _HIDDEN}
        return _json(columns, self.pii)

    # -- keys ---------------------------------------------------------------------------------------------------------

    def _find_shared(self, columns: Sequence[str]) -> bool:
        """Find the hashes that several good rows share; a hash is smaller than a key, and mostly there is none."""
        given = " AND ".join(f"{quote(name)} IS NOT NULL" for name in columns)
        self._execute(
            f"CREATE OR REPLACE TEMP TABLE {self._table('dups')} AS SELECT hash({self._key(columns)}) AS _hash "
            f"FROM {self.good} WHERE {given} GROUP BY 1 HAVING count(*) > 1"
        )
        return self._count(self._table("dups")) > 0

    def _sharing(self, columns: Sequence[str]) -> str:
        return f"hash({self._key(columns)}) IN (SELECT _hash FROM {self._table('dups')})"

    def _latest_first(self) -> str:
        """Return the ORDER BY by which the first row of a key wins; empty if nothing tells."""
        if self.strategy != "upsert":
            return ""
        if {"_load_seq", "_offset"} <= set(self.hidden):
            return "ORDER BY _load_seq DESC NULLS LAST, _offset DESC NULLS LAST"
        return f"ORDER BY {quote(self.order_by)} DESC NULLS LAST" if self.order_by else ""

    def settle_primary_key(self) -> None:
        """Keep one row per primary key: the latest, or one of exact duplicates; reject keys that stay ambiguous."""
        self._execute(f"CREATE OR REPLACE TEMP TABLE {self._table('out')} (_rowid BIGINT, _fate VARCHAR)")
        key = self.contract.primary_key
        if not key or not self._find_shared(key):
            return
        self._rank_rivals(key)
        rivals = self._table("rivals")
        self._execute(f"INSERT INTO {self._table('out')} SELECT _rowid, _fate FROM {rivals} WHERE _fate <> 'good'")
        self._rebuild_good(
            f"SELECT {self._kept} FROM {self.good} WHERE NOT {self._sharing(key)} "
            f"UNION ALL SELECT {self._kept} FROM {rivals} WHERE _fate = 'good'"
        )
        reason = _reason(", ".join(key), "primary key", self._shown(key))
        self._reject(f"{rivals} AS _row", f"[{reason}]", "_row._fate = 'ambiguous'")
        self.replaced = self._count(f"{self._table('out')} WHERE _fate = 'replaced'")

    def _rank_rivals(self, key: Sequence[str]) -> None:
        """Make the table of rows whose key others may have too, each with its fate."""
        partition = f"PARTITION BY {self._key(key)}"
        order = self._latest_first()
        content = f"row({self._key(self.names)})"
        settled = ", ".join([f"{name} DESC NULLS LAST" for name in reversed(self.hidden)] + ["_rowid"])
        turn = f"{order}, {settled}" if order else f"ORDER BY {settled}"
        where = f"NOT ({self._broken}) AND " if self.rules else ""
        self._execute(
            f"CREATE OR REPLACE TEMP TABLE {self._table('rivals')} AS SELECT *, CASE "
            f"WHEN count(DISTINCT {content}) FILTER (WHERE _rank = 1) OVER ({partition}) > 1 THEN 'ambiguous' "
            f"WHEN _turn = 1 THEN 'good' ELSE 'replaced' END AS _fate FROM ("
            f"SELECT _rowid, {self._kept}, rank() OVER ({partition} {order}) AS _rank, "
            f"row_number() OVER ({partition} {turn}) AS _turn FROM {self._judged()} WHERE {where}{self._sharing(key)})"
        )

    def settle_unique(self) -> None:
        """Reject all rows that share the value of a UNIQUE; a row with a null in it conflicts with none."""
        clash = self._table("clash")
        self._execute(f"CREATE OR REPLACE TEMP TABLE {clash} (_rowid BIGINT, _reason {_REASON}, _nth INTEGER)")
        kept = []
        for i, columns in enumerate(self.contract.unique):
            if set(columns) == set(self.contract.primary_key) or not self._find_shared(columns):
                continue
            shared = self._table(f"shared_{i}")
            # Every UNIQUE is judged over the same rows, so nothing is taken away before all are known.
            self._execute(
                f"CREATE OR REPLACE TEMP TABLE {shared} AS SELECT {self._key(columns)} FROM {self.good} "
                f"WHERE {self._sharing(columns)} GROUP BY ALL HAVING count(*) > 1"
            )
            match = " AND ".join(f"{{}}.{quote(name)} = {shared}.{quote(name)}" for name in columns)
            kept.append(f"ANTI JOIN {shared} ON {match.replace('{}', '_good')}")
            reason = _reason(", ".join(columns), "unique", self._shown(columns))
            self._execute(
                f"INSERT INTO {clash} SELECT _row._rowid, {reason}, {i} FROM {self._judged()} "
                f"SEMI JOIN {shared} ON {match.replace('{}', '_row')} "
                f"WHERE NOT ({self._broken}) AND _row._rowid NOT IN (SELECT _rowid FROM {self._table('out')})"
            )
        if not kept:
            return
        self._rebuild_good(f"SELECT {self._kept} FROM {self.good} AS _good {' '.join(kept)}")
        rows = f"(SELECT _rowid AS _out, list(_reason ORDER BY _nth) AS _why FROM {clash} GROUP BY 1)"
        self._reject(f"({self._converted()}) AS _row JOIN {rows} ON _out = _row._rowid", "_why", "true")

    def _rebuild_good(self, query: str) -> None:
        # A new table, not DELETE: row numbers without gaps.
        self._execute(f"CREATE OR REPLACE TEMP TABLE {self._table('kept')} AS {query}")
        self._execute(f"DROP TABLE {self.good}")
        self._execute(f"ALTER TABLE {self._table('kept')} RENAME TO {self.good}")

    def _reject(self, source: str, reasons: str, condition: str) -> None:
        """Add rows, each right by itself, to the rejected ones."""
        key = key_sql(self.contract, "_row", pii=self.pii)
        self._execute(
            f"INSERT INTO {self.bad} SELECT {self._identity(key)}, {reasons}, {self._as_came()} "
            f"FROM {source} JOIN {self._beside()} ON _at = _row._rowid WHERE {condition}"
        )

    # -- the report -----------------------------------------------------------------------------------------------

    def report(self) -> GateReport:
        """Return counts, and examples of each reason."""
        good, quarantined = self._count(self.good), self._count(self.bad)
        reasons = f"SELECT _record_id, _key, unnest(_reasons) AS r FROM {self.bad}"
        counted = self._rows(
            f'SELECT r."rule", r."column", count(*) FROM ({reasons}) GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2'
        )
        examples: dict[tuple[str, str], list[Example]] = {}
        for rule, column, record, key, value in self._rows(
            f'SELECT r."rule", r."column", _record_id, _key, r."value" FROM ({reasons}) QUALIFY row_number() OVER '
            f'(PARTITION BY r."rule", r."column" ORDER BY _record_id, _key, r."value") <= {_EXAMPLES} ORDER BY ALL'
        ):
            example = Example(*(None if item is None else str(item) for item in (record, key, value)))
            examples.setdefault((str(rule), str(column)), []).append(example)
        by_reason = {(str(rule), str(column)): int(str(rows)) for rule, column, rows in counted}
        return GateReport(self.query_rows, good, quarantined, self.replaced, by_reason, examples)


_REASON = 'STRUCT("column" VARCHAR, "rule" VARCHAR, "value" VARCHAR)'
_REASONS = f"{_REASON}[]"


def _reason(column: str, rule: str, value: str) -> str:
    fields = (
        f'"column" := {quote_literal(column)}, "rule" := {quote_literal(rule)}, "value" := CAST({value} AS VARCHAR)'
    )
    return f"struct_pack({fields})"
