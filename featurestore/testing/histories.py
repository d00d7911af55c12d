"""Hypothesis strategies for the cases in which stores of features go wrong.

A `Case` is a feature view with the history of its source, in the batches in which it came, and a spine that asks for
some of its features. Values are drawn from small pools, so that ties, repeats and boundaries do happen: equal event
timestamps, corrections, instants exactly on hop and TTL boundaries and one microsecond beside them, nulls, NaN, −0.0,
extremes of every type, keys that are easily confused, days on which New York's clocks change.

Needs hypothesis.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

try:
    import hypothesis.strategies as st
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "featurestore.testing.histories needs hypothesis: pip install hypothesis", name=error.name
    ) from error

from featurestore.binding import BoundView, bind
from featurestore.definitions import Aggregate, Entity, Feature, FeatureView, Projection, micros
from featurestore.testing.values import (
    CONFUSABLE,
    KEY_TYPES,
    SUM_TYPES,
    TIMESTAMPTZ,
    VALUE_TYPES,
    keys_of,
    summands_of,
    values_of,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["INFINITE", "Case", "aggregate_cases", "arrow_table", "cases", "feature_cases"]

INFINITE = 2**63 - 1
"""The timestamp "infinity" in µs; its negative is "-infinity"."""

_SOURCE = "warehouse.facts"
_EVENT, _CREATED, _ASKED_AT, _ROW = "event_at", "created_at", "asked_at", "row"
_MINUTE, _HOUR, _DAY = 60_000_000, 3_600_000_000, 86_400_000_000

# Midnights (UTC) from which instants are counted.
_ANCHORS = (
    0,
    -165 * _DAY,  # 1969-07-20
    18_329 * _DAY,  # 2020-03-08: in New York 02:00 is skipped, at 07:00 UTC
    18_567 * _DAY,  # 2020-11-01: in New York 01:00 comes twice, from 05:00 UTC on
    19_782 * _DAY,  # 2024-02-29
)
_YEAR_1, _YEAR_9999 = -719_162 * _DAY, 2_932_896 * _DAY
_STEPS = (0, 1_000_000, 5 * _MINUTE, _HOUR, 5 * _HOUR, 7 * _HOUR, _DAY, 40 * _DAY)
_FAR = (INFINITE, -INFINITE, INFINITE - 1, _YEAR_1, _YEAR_9999)
_DELAYS = ("0s", "0s", "0s", "1us", "7m", "1h", "1d")
_TTLS = (None, None, "1us", "1h", "7d")
_WINDOWS = (
    (("5m",), "auto"),
    (("1h", "1d"), "auto"),
    (("11h",), "auto"),
    (("12h",), "auto"),
    (("1d", "7d"), "auto"),
    (("12d", "30d"), "auto"),
    (("10s",), "10s"),
    (("1h", "2h"), "20m"),
    (("1d",), "1d"),
    (("3us",), "1us"),
)
_EXACT_WINDOWS = ((("1h", "7d"), None), (("1us",), None))


@dataclass(frozen=True)
class Case:
    """A view, the history of its source, and what is asked.

    Parameters
    ----------
    view
        The definition; its source is the table ``warehouse.facts``.
    types
        The source's columns in order, with their types as DuckDB spells them. Some are of no use to the view.
    batches
        The source's rows, in the loads in which they came; at least one, perhaps without rows.
    spine
        What is asked: the columns `spine_keys`, the column `timestamp` (timestamptz) and ``row``, a number.
    projection
        The features asked, in that order, perhaps in a role whose key columns have other names.
    at
        An instant for a generation, µs since 1970 UTC; about half of the spine lies before it.
    corrections
        ``"known"``, or ``"latest"``, which shows rows that were created later too.
    """

    view: FeatureView
    types: Mapping[str, str]
    batches: tuple[pa.Table, ...]
    spine: pa.Table
    projection: Projection
    at: int
    corrections: Literal["known", "latest"] = "known"

    @property
    def timestamp(self) -> str:
        """The name of the spine's timestamp column."""
        return _ASKED_AT

    @property
    def history(self) -> pa.Table:
        """All rows of the source."""
        import pyarrow as pa

        return pa.concat_tables(self.batches)

    @property
    def asked(self) -> tuple[str, ...]:
        """The features asked, in order."""
        return tuple(self.projection.features or self.view.feature_names)

    @property
    def spine_keys(self) -> tuple[str, ...]:
        """The spine's columns for the view's join keys, in the view's order."""
        return tuple(self.projection.join_keys.get(key, key) for key in self.view.join_keys)

    def bound(self) -> BoundView:
        """Return the view bound to its source, without any lake."""
        return bind(self.view, cast("Any", _Described(self.types)))

    def __repr__(self) -> str:
        batches = [_readable(batch) for batch in self.batches]
        return (
            f"Case(view={self.view!r}, types={self.types!r}, batches={batches}, spine={_readable(self.spine)}, "
            f"projection={self.projection!r}, at={self.at}, corrections={self.corrections!r})"
        )


@dataclass(frozen=True)
class _Described:
    """What binding needs of a session: the columns of the source."""

    types: Mapping[str, str]

    def describe(self, query: str) -> list[tuple[str, str]]:
        """Return the source's columns with their types, whatever is asked."""
        del query
        return list(self.types.items())


def arrow_table(types: Mapping[str, str], columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Return columns of Python values as an Arrow table of DuckDB types; timestamps may be integers, in µs."""
    import pyarrow as pa

    from featurestore.codec import arrow_type

    schema = pa.schema([(name, arrow_type(type_)) for name, type_ in types.items()])
    return pa.table([_array(columns[field.name], field.type) for field in schema], schema=schema)


def _array(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_timestamp(type_) and any(isinstance(value, int) for value in values):
        return pa.array(values, pa.int64()).cast(type_)
    return pa.array(values, type_)


def _readable(table: pa.Table) -> list[dict[str, Any]]:
    """Return a table's rows with times in µs: Python has no infinite ones."""
    import pyarrow as pa

    times = [pa.types.is_timestamp(field.type) for field in table.schema]
    columns = [column.cast(pa.int64()) if time else column for column, time in zip(table.columns, times, strict=True)]
    return cast("list[dict[str, Any]]", pa.table(columns, names=table.column_names).to_pylist())


# -- strategies -----------------------------------------------------------------------------------------------------


def feature_cases(
    *, online: bool = False, value_types: Sequence[str] = VALUE_TYPES, max_rows: int = 12, max_spine: int = 8
) -> st.SearchStrategy[Case]:
    """Return cases of views whose rows are feature values.

    Parameters
    ----------
    online
        Whether the views are online.
    value_types
        The types, as DuckDB spells them, that features and tie breakers have.
    max_rows, max_spine
        Greatest numbers of rows of the history (a few are repeated besides) and of the spine.
    """
    return _cases(_feature_views(online, tuple(value_types)), values_of, max_rows, max_spine)


def aggregate_cases(
    *, online: bool = False, value_types: Sequence[str] = VALUE_TYPES, max_rows: int = 12, max_spine: int = 8
) -> st.SearchStrategy[Case]:
    """Return cases of views of aggregates; no sum overflows.

    Parameters
    ----------
    online
        Whether the views are online; those that are not have exact window starts (``hop=None``) too.
    value_types
        The types, as DuckDB spells them, of the columns that are aggregated.
    max_rows, max_spine
        Greatest numbers of rows of the history (a few are repeated besides) and of the spine; at most 45 rows.
    """
    return _cases(_aggregate_views(online, tuple(value_types)), summands_of, max_rows, max_spine)


def cases(*, online: bool = False, max_rows: int = 12, max_spine: int = 8) -> st.SearchStrategy[Case]:
    """Return cases of both kinds of views."""
    return feature_cases(online=online, max_rows=max_rows, max_spine=max_spine) | aggregate_cases(
        online=online, max_rows=max_rows, max_spine=max_spine
    )


_View = tuple[FeatureView, dict[str, str]]
"""A view, and the columns of its source with their types."""


@st.composite
def _keys(draw: st.DrawFn) -> tuple[list[Entity], dict[str, str]]:
    common = st.sampled_from(["BIGINT", "VARCHAR"])
    any_types = st.lists(common | st.sampled_from(KEY_TYPES), max_size=3)
    types = draw(any_types | any_types | st.just(["VARCHAR", "VARCHAR"]))
    columns = {f"key_{number}": type_ for number, type_ in enumerate(types)}
    if draw(st.booleans()):
        return [Entity(f"thing_{number}", [name]) for number, name in enumerate(columns)], columns
    return [Entity("thing", list(columns))] if columns else [], columns


@st.composite
def _feature_views(draw: st.DrawFn, online: bool, value_types: tuple[str, ...]) -> _View:
    entities, types = draw(_keys())
    some = st.sampled_from(value_types)
    features = {f"value_{number}": type_ for number, type_ in enumerate(draw(st.lists(some, min_size=1, max_size=3)))}
    ties = {f"tie_{number}": type_ for number, type_ in enumerate(draw(st.lists(some, max_size=2)))}
    created = {_CREATED: TIMESTAMPTZ} if draw(st.booleans()) else {}
    view = FeatureView(
        "facts",
        _SOURCE,
        entities,
        [Feature(name) for name in features],
        _EVENT,
        _CREATED if created else None,
        draw(st.sampled_from(_TTLS)),
        draw(st.sampled_from(_DELAYS)),
        draw(st.sampled_from(("right", "left"))),
        list(ties),
        online=online,
    )
    return view, {**types, _EVENT: TIMESTAMPTZ, **created, **features, **ties}


@st.composite
def _aggregate_views(draw: st.DrawFn, online: bool, value_types: tuple[str, ...]) -> _View:
    entities, types = draw(_keys())
    some = st.sampled_from(value_types)
    columns = {f"value_{number}": type_ for number, type_ in enumerate(draw(st.lists(some, min_size=1, max_size=2)))}
    numbers = range(draw(st.integers(1, 4)))
    view = FeatureView(
        "facts",
        _SOURCE,
        entities,
        [draw(_aggregates(f"sum_up_{number}", columns, online)) for number in numbers],
        _EVENT,
        delay=draw(st.sampled_from(_DELAYS)),
        closed=draw(st.sampled_from(("right", "left"))),
        online=online,
    )
    return view, {**types, _EVENT: TIMESTAMPTZ, **columns}


@st.composite
def _aggregates(draw: st.DrawFn, name: str, columns: Mapping[str, str], online: bool) -> Aggregate:
    windows, hop = draw(st.sampled_from(_WINDOWS if online else (*_WINDOWS, *_EXACT_WINDOWS)))
    column = draw(st.none() | st.sampled_from(list(columns)))
    functions = ["count"]
    if column is not None:
        functions += ["min", "max", *(["sum", "mean", "sum", "mean"] if columns[column] in SUM_TYPES else [])]
    function: Any = draw(st.sampled_from(functions))
    return Aggregate(name, function, windows, column, hop)


@st.composite
def _cases(
    draw: st.DrawFn,
    views: st.SearchStrategy[_View],
    pool_of: Callable[[str], Sequence[Any]],
    max_rows: int,
    max_spine: int,
) -> Case:
    view, types = draw(views)
    keys = draw(_key_pools([types[key] for key in view.join_keys]))
    anchor = draw(st.sampled_from(_ANCHORS))
    steps = st.sampled_from(_steps(view))
    near = st.builds(lambda a, b, nudge: anchor + a - b + nudge, steps, steps, st.sampled_from((0, 0, 0, -1, 1)))
    events = draw(st.lists(near, min_size=1, max_size=4))
    instants = draw(st.lists(_after(events, view, steps), min_size=1, max_size=4))

    rarely = _FAR if draw(st.integers(0, 3)) == 0 else ()
    event = st.sampled_from([*events, *events, None, *rarely])
    stamps = st.sampled_from([*events, events[0] - 1, *instants, None, *rarely])
    columns = {name: st.sampled_from(_some(draw, pool_of(type_))) for name, type_ in types.items() if name[0] in "vt"}
    given = {_EVENT: event, _CREATED: stamps, **columns, "unused": st.sampled_from([None, "", "\0"])}
    types["unused"] = "VARCHAR"
    values = {name: strategy for name, strategy in given.items() if name in types}
    # Most of it about one entity, or little would meet.
    known = [*keys, keys[0], keys[0], keys[0]]
    few = min(draw(st.sampled_from((0, 2, 5, 5))), max_rows)
    row = st.tuples(st.sampled_from(known), st.fixed_dictionaries(values))
    rows = draw(st.lists(row, min_size=few, max_size=max_rows))
    if rows:
        rows += draw(st.lists(st.sampled_from(rows), max_size=2))
    records = [dict(zip(view.join_keys, key, strict=True)) | row for key, row in rows]
    ordered = {name: types[name] for name in draw(st.permutations(list(types)))}

    asked_keys = st.sampled_from([*known, *draw(_other_keys([types[key] for key in view.join_keys]))])
    asked_at = st.sampled_from([*instants, *instants, None, *(set(rarely) & {_YEAR_1, _YEAR_9999})])
    asked = draw(st.lists(st.tuples(asked_keys, asked_at), max_size=max_spine))
    projection = draw(_projections(view))
    return Case(
        view,
        ordered,
        tuple(arrow_table(ordered, _columns(ordered, batch)) for batch in draw(_batches(records))),
        _spine(view, projection, types, asked),
        projection,
        sorted(instants)[(len(instants) - 1) // 2],
        draw(st.sampled_from(("known", "known", "latest"))),
    )


def _steps(view: FeatureView) -> list[int]:
    """Return the lengths that matter to a view: instants this far apart meet its boundaries."""
    steps = [*_STEPS, micros(str(view.delay))]
    if view.ttl is not None:
        ttl = micros(str(view.ttl))
        steps += [ttl, ttl + 1] * 3
    for aggregate in view.aggregates:
        for window in aggregate.windows:
            hop = micros(aggregate.hop_of(str(window)) or "0s")
            steps += [micros(str(window)), micros(str(window)), hop, micros(str(window)) + hop]
    return steps


def _after(events: Sequence[int], view: FeatureView, steps: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    """Return instants at which an event has just become known, or is a step old, or nearly."""
    delay = micros(str(view.delay))
    nudges = st.sampled_from((0, 0, 0, -1, 1))
    return st.builds(lambda e, step, nudge: e + delay + step + nudge, st.sampled_from(events), steps, nudges)


def _some(draw: st.DrawFn, pool: Sequence[Any]) -> list[Any]:
    """Return a few values of a pool, and null."""
    return [None, *draw(st.lists(st.sampled_from(pool), min_size=1, max_size=4))]


@st.composite
def _key_pools(draw: st.DrawFn, types: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the keys that a history has."""
    confused = [pair + tuple(keys_of(type_)[0] for type_ in types[2:]) for pair in CONFUSABLE]
    some = st.lists(st.tuples(*(st.sampled_from(keys_of(type_)) for type_ in types)), min_size=1, max_size=4)
    if list(types[:2]) == ["VARCHAR", "VARCHAR"]:
        some |= st.lists(st.sampled_from(confused), min_size=2, max_size=3, unique=True)
    keys = draw(some)
    return [*keys, *draw(st.lists(_with_a_null(types), max_size=1))]


@st.composite
def _other_keys(draw: st.DrawFn, types: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return keys that only a spine has: with a null, and perhaps unknown ones."""
    unknown = st.tuples(*(st.sampled_from(keys_of(type_)) for type_ in types))
    return [draw(_with_a_null(types)), draw(unknown)]


@st.composite
def _with_a_null(draw: st.DrawFn, types: Sequence[str]) -> tuple[Any, ...]:
    key = [draw(st.sampled_from(keys_of(type_))) for type_ in types]
    if key:
        key[draw(st.integers(0, len(key) - 1))] = None
    return tuple(key)


@st.composite
def _batches(draw: st.DrawFn, records: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    places = st.integers(0, len(records))
    cuts = [0, *sorted(draw(st.lists(places, max_size=2))), len(records)]
    return [records[start:end] for start, end in itertools.pairwise(cuts)]


@st.composite
def _projections(draw: st.DrawFn, view: FeatureView) -> Projection:
    role = draw(st.sampled_from([False, False, True]))
    projection = view.on(prefix="role", **{key: f"role_{key}" for key in view.join_keys}) if role else view.on()
    names = draw(st.none() | st.lists(st.sampled_from(view.feature_names), min_size=1, unique=True))
    return projection if names is None else projection[names]


def _columns(types: Mapping[str, str], records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [record[name] for record in records] for name in types}


def _spine(
    view: FeatureView, projection: Projection, types: Mapping[str, str], asked: Sequence[tuple[Any, Any]]
) -> pa.Table:
    names = {key: projection.join_keys.get(key, key) for key in view.join_keys}
    kinds = {_ROW: "BIGINT", **{name: types[key] for key, name in names.items()}, _ASKED_AT: TIMESTAMPTZ}
    columns: dict[str, list[Any]] = {_ROW: list(range(len(asked))), _ASKED_AT: [instant for _, instant in asked]}
    for place, name in enumerate(names.values()):
        columns[name] = [key[place] for key, _ in asked]
    return arrow_table(kinds, columns)
