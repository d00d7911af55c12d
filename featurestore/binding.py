"""Definitions bound to a snapshot: every column found, every type known.

A bound view is plain data. It is what offline and online run on, and it travels with a generation, so that serving
needs no lake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.definitions import Aggregate, Feature, FeatureView, micros
from lakehouse.errors import DefinitionError, PenstockError, near
from lakehouse.types import TableName

if TYPE_CHECKING:
    from lakehouse.session import Session

__all__ = [
    "BAD_VALUE",
    "BoundFeature",
    "BoundView",
    "Column",
    "Windowed",
    "bind",
    "source_columns",
    "source_sql",
    "unreadable",
]

TIMESTAMPTZ = "TIMESTAMP WITH TIME ZONE"
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
_SCALARS = frozenset({"BOOLEAN", *_INTEGERS, "FLOAT", "DOUBLE", "VARCHAR", "BLOB", "DATE", "TIMESTAMP", TIMESTAMPTZ})
_NO_KEYS = frozenset({"FLOAT", "DOUBLE"})
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)\Z")
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_ ]*(\(\s*[0-9]+\s*(,\s*[0-9]+\s*)?\))?\s*\Z")
_SUM_PRECISION = 38
_KIND = re.compile(r"\A[A-Z][A-Za-z ]* Error: ")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a source, with its type as DuckDB spells it."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Windowed:
    """How a feature sums up the events of a window.

    Parameters
    ----------
    function
        ``count``, ``sum``, ``mean``, ``min`` or ``max``.
    column
        What is aggregated; None for a count of events.
    window, hop
        µs; a hop of None starts exactly.
    """

    function: str
    column: str | None
    window: int
    hop: int | None


@dataclass(frozen=True, slots=True)
class BoundFeature:
    """One feature with its type, and how it is computed if it is an aggregate."""

    name: str
    type: str
    windowed: Windowed | None = None


@dataclass(frozen=True, slots=True)
class BoundView:
    """A feature view at one snapshot.

    Parameters
    ----------
    name
        The feature view's.
    source
        A SELECT that returns the source's rows.
    keys
        Join keys in order; none for one row for everybody.
    event_timestamp, created_timestamp
        Names of columns of type TIMESTAMP WITH TIME ZONE.
    tie_breaker
        Columns that decide between rows of the same times, most significant first.
    features
        In the order of definition, aggregates expanded to one per window.
    inputs
        The columns that features are read from or computed of, without repeats.
    ttl, delay
        µs; a TTL of None never expires.
    closed_left
        Whether rows at exactly the effective instant are left out.
    """

    name: str
    source: str
    keys: tuple[Column, ...]
    event_timestamp: str
    created_timestamp: str | None
    tie_breaker: tuple[Column, ...]
    features: tuple[BoundFeature, ...]
    inputs: tuple[Column, ...]
    ttl: int | None
    delay: int
    closed_left: bool
    online: bool

    @property
    def is_aggregate(self) -> bool:
        """Whether the source's rows are events that windows sum up."""
        return self.features[0].windowed is not None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of all features, in the order of definition."""
        return tuple(feature.name for feature in self.features)

    def feature(self, name: str) -> BoundFeature:
        """Return one feature.

        Raises
        ------
        DefinitionError
            If the view has none of that name; near matches are listed.
        """
        for feature in self.features:
            if feature.name == name:
                return feature
        raise DefinitionError(
            f"there is no feature {name!r}",
            where=f"feature view {self.name!r}",
            hint=near(name, self.feature_names, what="features"),
        )


def source_sql(source: str) -> str:
    """Return the SELECT that a view's source means: its own, or that of the whole table it names."""
    if re.search(r"\s", source):
        return source
    return f"select * from {TableName.parse(source, default_schema='warehouse').sql}"


BAD_VALUE = "Where a value does not fit, mend it in the model, or take try_cast in a SELECT as the source."


def unreadable(what: str, when: str = "") -> str:
    """Return how errors say that a source cannot be read: DuckDB's sentence, without the place in a text of ours."""
    return f"the source cannot be read{when}: {' '.join(_KIND.sub('', what.partition('LINE ')[0]).split())}"


def bind(view: FeatureView, session: Session) -> BoundView:
    """Return a view with all its columns found in the session's snapshot.

    Raises
    ------
    DefinitionError
        If the source has no such column, or one of a type that can't be used so; or if the definition asks for
        something that does not work yet.
    """
    _refuse_unfinished(view)
    columns = _columns(view, session)
    inputs = _inputs(view, columns)
    features = tuple(bound for feature in view.features for bound in _features(view, feature, columns, session))
    return BoundView(
        name=view.name,
        source=source_sql(view.source),
        keys=tuple(_key(view, name, columns) for name in view.join_keys),
        event_timestamp=_time(view, view.event_timestamp, "event_timestamp", columns).name,
        created_timestamp=(
            _time(view, view.created_timestamp, "created_timestamp", columns).name if view.created_timestamp else None
        ),
        tie_breaker=tuple(_scalar(view, name, "tie_breaker", columns) for name in view.tie_breaker),
        features=features,
        inputs=inputs,
        ttl=None if view.ttl is None else micros(str(view.ttl)),
        delay=micros(str(view.delay)),
        closed_left=view.closed == "left",
        online=view.online,
    )


def _refuse_unfinished(view: FeatureView) -> None:
    asked = {"valid_to": view.valid_to, "deleted": view.deleted, "push": view.push}
    for name, value in asked.items():
        if value:
            raise DefinitionError(f"{name} does not work yet", where=view.where, hint="Leave it out.")
    if view.is_aggregate and view.created_timestamp is not None:
        raise DefinitionError(
            "created_timestamp does not work on views of aggregates yet",
            where=view.where,
            hint="Leave it out: all events count from their event timestamp (plus the delay) on.",
        )


def source_columns(source: str, session: Session) -> list[Column]:
    """Return the columns of a view's source as all that read it see them."""
    # As a subquery, so that nothing but a SELECT is taken and nothing ever run; the newline ends a comment.
    described = session.describe(f"select * from (\n{source_sql(source)}\n) source")
    return [Column(name, type_) for name, type_ in described]


def _columns(view: FeatureView, session: Session) -> Mapping[str, Column]:
    """Return the source's columns by lower-case name."""
    try:
        columns = source_columns(view.source, session)
        # A subquery calls the second i of two i_1; by itself the source still says how it is written.
        written = [name.lower() for name, _ in session.describe(source_sql(view.source))]
    except PenstockError as error:
        raise DefinitionError(unreadable(error.what), where=view.where, hint=error.hint) from error
    if twice := [name for name in dict.fromkeys(written) if written.count(name) > 1]:
        raise DefinitionError(
            f"the source has two columns called {twice[0]!r}",
            where=view.where,
            hint="Leave one out or rename it (… as …); a join by USING (…) gives its key once.",
        )
    return {column.name.lower(): column for column in columns}


def _column(view: FeatureView, name: str, role: str, columns: Mapping[str, Column]) -> Column:
    try:
        return columns[name.lower()]
    except KeyError:
        raise DefinitionError(
            f"{role}: the source has no column {name!r}",
            where=view.where,
            hint=near(name, [column.name for column in columns.values()], what="columns"),
        ) from None


def _scalar(view: FeatureView, name: str, role: str, columns: Mapping[str, Column]) -> Column:
    column = _column(view, name, role, columns)
    if column.type not in _SCALARS and not _DECIMAL.match(column.type):
        raise DefinitionError(
            f"{role}: column {name!r} is of type {column.type}, which features can't have",
            where=view.where,
            hint="Take a SELECT as the source and cast it, e.g. to bigint, double or varchar.",
        )
    return column


def _named(view: FeatureView, name: str, role: str, columns: Mapping[str, Column]) -> Column:
    """Return a column that answers will name: there case counts, other than in SQL."""
    column = _scalar(view, name, role, columns)
    if column.name != name:
        raise DefinitionError(
            f"{role}: the source spells the column {name!r} as {column.name!r}",
            where=view.where,
            hint=f"Write {column.name!r}, or take a SELECT as the source and rename it.",
        )
    return column


def _key(view: FeatureView, name: str, columns: Mapping[str, Column]) -> Column:
    column = _named(view, name, "join key", columns)
    if column.type in _NO_KEYS:
        raise DefinitionError(
            f"join key {name!r} is of type {column.type}: floating-point numbers identify nothing",
            where=view.where,
            hint="Take a SELECT as the source and cast it to an integer, decimal or text.",
        )
    return column


def _time(view: FeatureView, name: str, role: str, columns: Mapping[str, Column]) -> Column:
    column = _column(view, name, role, columns)
    if column.type != TIMESTAMPTZ:
        raise DefinitionError(
            f"{role}: column {name!r} is of type {column.type}, not {TIMESTAMPTZ}",
            where=view.where,
            hint="Only instants can be compared: convert it in the model, or take a SELECT as the source.",
        )
    return column


def _inputs(view: FeatureView, columns: Mapping[str, Column]) -> tuple[Column, ...]:
    names = (
        (feature.name, f"feature {feature.name!r}")
        if isinstance(feature, Feature)
        else (feature.column, f"aggregate {feature.name!r}")
        for feature in view.features
    )
    found = (_scalar(view, name, role, columns) for name, role in names if name is not None)
    return tuple({column.name: column for column in found}.values())


def _features(
    view: FeatureView, feature: Feature | Aggregate, columns: Mapping[str, Column], session: Session
) -> list[BoundFeature]:
    if isinstance(feature, Feature):
        column = _named(view, feature.name, f"feature {feature.name!r}", columns)
        _check_dtype(view, feature, column, session)
        return [BoundFeature(feature.name, column.type)]
    source = None if feature.column is None else _scalar(view, feature.column, f"aggregate {feature.name!r}", columns)
    type_ = _result_type(view, feature, source)
    bound = []
    for name, window in zip(feature.feature_names, feature.windows, strict=True):
        hop = feature.hop_of(str(window))
        windowed = Windowed(
            feature.function, source.name if source else None, micros(str(window)), None if hop is None else micros(hop)
        )
        bound.append(BoundFeature(name, type_, windowed))
    return bound


def _check_dtype(view: FeatureView, feature: Feature, column: Column, session: Session) -> None:
    if feature.dtype is None:
        return
    declared = _type(feature.dtype, session)
    if declared is None:
        raise DefinitionError(
            f"feature {feature.name!r}: {feature.dtype!r} is not a type",
            where=view.where,
            hint="Spell it as SQL does: bigint, double, decimal(10,2), varchar, boolean, date, timestamptz.",
        )
    if declared != column.type:
        raise DefinitionError(
            f"feature {feature.name!r} is declared as {declared}, but the source's column is {column.type}",
            where=view.where,
            hint="Values are never converted on the way: change dtype, or cast in a SELECT as the source.",
        )


def _type(text: str, session: Session) -> str | None:
    """Return a type as DuckDB spells it, or None if the text names none."""
    if not _TYPE.match(text):
        return None
    try:
        ((_, type_),) = session.describe(f"select cast(null as {text}) as t")
    except PenstockError:
        return None
    return type_


def _result_type(view: FeatureView, aggregate: Aggregate, source: Column | None) -> str:
    if aggregate.function == "count" or source is None:
        return "BIGINT"
    if aggregate.function in ("min", "max"):
        return source.type
    decimal = _DECIMAL.match(source.type)
    if source.type not in _INTEGERS and decimal is None:
        hint = (
            "Sums of floating-point numbers depend on their order; take a SELECT as the source and cast the column "
            "to a decimal."
            if source.type in ("FLOAT", "DOUBLE")
            else "sum and mean take integers and decimals."
        )
        raise DefinitionError(
            f"aggregate {aggregate.name!r}: {aggregate.function} of a {source.type} does not work"
            f"{' yet' if source.type in ('FLOAT', 'DOUBLE') else ''}",
            where=view.where,
            hint=hint,
        )
    if aggregate.function == "mean":
        return "DOUBLE"
    return f"DECIMAL({_SUM_PRECISION},{decimal[2] if decimal else 0})"
