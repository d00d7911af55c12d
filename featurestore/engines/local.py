"""The engine of one machine: DuckDB reads, joins and filters in parallel, numpy kernels do what SQL does slowly.

The spine is sorted, the history streams by in batches; so memory grows with the spine, not with the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurestore.binding import BoundFeature, Windowed
from featurestore.engines import Answer, ViewReport
from featurestore.engines.streams import Bounds, arrow_type, batches, int64, one_number, registered, rows_of, utc
from featurestore.pit import (
    Corrections,
    Winners,
    Winning,
    created_micros,
    event_micros,
    is_dated,
    order_columns,
    order_terms,
    visible_from_micros,
)
from featurestore.request import Asked
from featurestore.slots import Slots
from featurestore.source_rows import Files, Span, check_source, files_read, rows_sql, undated_sql
from featurestore.spine import Entities, Spine, entities
from featurestore.statuses import EXPIRED, NOT_FOUND, NULL, PRESENT
from featurestore.windows import Counts, Extremes, Spans, Sums, boundaries, decimals
from lakehouse.errors import RequestError
from lakehouse.types import quote

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.session import Session

__all__ = ["LocalEngine"]

_MIN = -(2**63)


class LocalEngine:
    """Computes features with DuckDB and numpy, within the session's memory."""

    def answer(self, session: Session, spine: Spine, asked: Asked, *, corrections: Corrections) -> Answer:
        """See `featurestore.engines.OfflineEngine`."""
        known = entities(spine, asked)
        check_source(session, asked.view)
        if asked.view.is_aggregate:
            return _Aggregates(session, spine, asked, known).answer()
        return _Lookups(session, spine, asked, known, corrections).answer()


def _earlier(instants: NDArray[np.int64], by: int) -> NDArray[np.int64]:
    """Subtract a duration; what would lie before all time is its beginning."""
    earlier: NDArray[np.int64] = np.maximum(instants, _MIN + by) - by
    return earlier


def _spread(count: int, rows: NDArray[np.int64], places: NDArray[np.int64], values: pa.Array) -> pa.Array:
    """Return a column of ``count`` values: at ``rows`` the values at these places, none where the place is −1."""
    import pyarrow as pa

    where = np.full(count, -1, np.int64)
    where[rows] = places
    return values.take(pa.array(where, mask=where < 0))


class _Answering:
    """What both kinds of views share: the report."""

    def __init__(self, session: Session, spine: Spine, asked: Asked, known: Entities) -> None:
        self.session, self.spine, self.asked, self.known = session, spine, asked, known
        self.view = asked.view
        self.rows_read = 0
        self.hidden = 0
        self.span = Span(0, -1)

    def finished(self, columns: Sequence[pa.Array], statuses: Sequence[NDArray[np.uint8]]) -> Answer:
        stacked = np.stack(statuses)
        row_status = np.where((stacked == PRESENT).any(axis=0), PRESENT, stacked[0])
        counts = np.bincount(row_status, minlength=4)
        files, excluded = self._files(), 0
        if len(self.known.rows):
            excluded = one_number(self.session, self.view, undated_sql(self.session, self.view))
        report = ViewReport(
            view=self.view.name,
            keys=self.asked.keys,
            columns=self.asked.names,
            spine_rows=len(self.spine),
            present=int(counts[PRESENT]),
            null=int(counts[NULL]),
            expired=int(counts[EXPIRED]),
            not_found=int(counts[NOT_FOUND]),
            without_key=len(self.spine) - len(self.known.rows),
            hidden=self.hidden,
            rows_read=self.rows_read,
            rows_excluded=excluded,
            files_read=files.read,
            files_skipped=files.skipped,
            impossible=self.known.impossible,
        )
        return Answer(tuple(columns), tuple(statuses), report)

    def _files(self) -> Files:
        if len(self.known.rows):
            return files_read(self.session, self.view, self.span)
        every = files_read(self.session, self.view, Span())
        return Files(0, every.read)


# -- rows are feature values ----------------------------------------------------------------------------------------


class _Lookups(_Answering):
    """The point-in-time join of one view."""

    def __init__(self, session: Session, spine: Spine, asked: Asked, known: Entities, corrections: Corrections) -> None:
        super().__init__(session, spine, asked, known)
        self.slots = Slots(known.codes, known.instants)
        self.winners = Winners(self.slots)
        # Who would win if nothing was hidden, for the report.
        hides = self.view.created_timestamp is not None and corrections == "known"
        self.revealed = Winners(self.slots) if hides else None

    def answer(self) -> Answer:
        winning = self._winning()
        places = self.slots.of
        mine = winning.take(places)
        expired = mine.found & (mine.event < self._oldest(self.known.instants))
        served = mine.found & ~expired
        gathered = self._gather(winning, np.unique(places[served]))
        status = np.full(len(self.spine), NOT_FOUND, np.uint8)
        status[self.known.rows[expired]] = EXPIRED
        status[self.known.rows[served]] = PRESENT
        where = np.where(served, gathered.row_of_slot[places], -1)
        columns, statuses = [], []
        for values in gathered.columns:
            column = _spread(len(self.spine), self.known.rows, where, values)
            own = status.copy()
            own[(status == PRESENT) & column.is_null().to_numpy(zero_copy_only=False)] = NULL
            columns.append(column)
            statuses.append(own)
        return self.finished(columns, statuses)

    def _oldest(self, instants: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the oldest event timestamp that is still served at these instants."""
        if self.view.ttl is None:
            return np.full(len(instants), _MIN, np.int64)
        return _earlier(_earlier(instants, self.view.delay), self.view.ttl)

    def _winning(self) -> Winning:
        if not len(self.slots):
            return self.winners.at_slots()
        bounds = Bounds.of(
            self.slots.codes, _earlier(self.slots.instants, self.view.delay), self._oldest(self.slots.instants)
        )
        self._read(bounds)
        winning = self.winners.at_slots()
        if self.view.ttl is not None:
            # Whatever lies within the TTL of an entity's first instant beats all that is older. Where there is
            # nothing of the kind, older rows decide between EXPIRED and NOT_FOUND.
            rest = np.unique(self.slots.codes[~winning.found])
            if len(rest):
                self._read(bounds.before(rest))
                winning = self.winners.at_slots()
        if self.revealed is not None:
            differs = winning.differs(self.revealed.at_slots())
            self.hidden = int(differs[self.slots.of].sum())
        return winning

    def _read(self, bounds: Bounds) -> None:
        """File the rows of these entities, between these times, under the slots from which on they are visible."""
        view = self.view
        dated = [] if view.created_timestamp is None else [f"{created_micros(view)} as created"]
        names = [column.name for column in view.keys] + [view.event_timestamp]
        names += [view.created_timestamp] if view.created_timestamp else []
        source = rows_sql(self.session, view, names, bounds.span)
        self.span = self.span.joined(bounds.span)
        columns = ", ".join(["k.code", f"{event_micros(view)} as event", *dated])
        with registered(self.session, bounds.table(self.known.keys)) as keys:
            query = f"select {columns} from ({source}) s {rows_of(view, keys)} and {is_dated(view)}"
            for batch in batches(self.session, view, query):
                self.rows_read += batch.num_rows
                code, event = int64(batch.column(0)), int64(batch.column(1))
                created = int64(batch.column(2)) if dated else None
                hides = created if self.revealed is not None else None
                self.winners.add(code, visible_from_micros(view, event, hides), event, created)
                if self.revealed is not None:
                    self.revealed.add(code, visible_from_micros(view, event, None), event, created)

    def _gather(self, winning: Winning, slots: NDArray[np.int64]) -> _Gathered:
        """Fetch the features of the winners at these slots."""
        import pyarrow as pa

        row_of_slot = np.full(len(self.slots), -1, np.int64)
        filed, first = np.unique(winning.filed[slots], return_index=True)
        features = self.asked.features
        if not len(filed):
            return _Gathered(row_of_slot, [pa.nulls(0, arrow_type(feature.type)) for feature in features])
        chosen = winning.take(slots[first])
        table = self._fetch(chosen, self.slots.codes[slots[first]])
        number = int64(table.column(0).combine_chunks())
        if not np.array_equal(np.sort(number), np.arange(len(filed))):
            raise RequestError(
                "its source does not give the same rows twice",
                where=f"feature view {self.view.name!r}",
                hint="A SELECT as a source must not depend on chance or on the present time.",
            )
        row_of_number = np.empty(len(filed), np.int64)
        row_of_number[number] = np.arange(len(number))
        row_of_slot[slots] = row_of_number[np.searchsorted(filed, winning.filed[slots])]
        columns = [utc(table.column(place + 1), feature.type) for place, feature in enumerate(features)]
        return _Gathered(row_of_slot, columns)

    def _fetch(self, chosen: Winning, codes: NDArray[np.int64]) -> pa.Table:
        """Return number and features of these rows; of rows that tie in both times, of the greatest one."""
        import pyarrow as pa

        view = self.view
        wanted = self.known.keys.take(codes) if view.keys else pa.table({})
        names = [f"k{place}" for place in range(len(view.keys))]
        wanted = pa.table(
            [
                *wanted.columns,
                pa.array(np.arange(len(codes))),
                pa.array(chosen.event).cast(pa.timestamp("us", "UTC")),
                pa.array(chosen.created),
            ],
            names=[*names, "number", "event", "created"],
        )
        conditions = [f"s.{quote(key.name)} = w.{name}" for key, name in zip(view.keys, names, strict=True)]
        conditions.append(f"s.{quote(view.event_timestamp)} = w.event")
        needed = [*(key.name for key in view.keys), view.event_timestamp, *(f.name for f in self.asked.features)]
        if view.created_timestamp is not None:
            conditions.append(f"{created_micros(view)} = w.created")
            needed.append(view.created_timestamp)
        ties = bool((chosen.rows > 1).any())
        if ties:
            needed += [column.name for column in order_columns(view)]
        source = rows_sql(self.session, view, needed, Span(int(chosen.event.min()), int(chosen.event.max())))
        columns = ", ".join(
            ["w.number", *(f"s.{quote(f.name)} as f{place}" for place, f in enumerate(self.asked.features))]
        )
        with registered(self.session, wanted) as table:
            query = f"select {columns} from ({source}) s join {table} w on {' and '.join(conditions)}"
            if ties:
                order = ", ".join(order_terms(view, times=False))
                query += f" qualify row_number() over (partition by w.number order by {order}) = 1"
            found = list(batches(self.session, view, query))
        return pa.Table.from_batches(found)


class _Gathered:
    """Features of winners: in which row of the columns the winner of a slot is, −1 if there is none."""

    __slots__ = ("columns", "row_of_slot")

    def __init__(self, row_of_slot: NDArray[np.int64], columns: list[pa.Array]) -> None:
        self.row_of_slot, self.columns = row_of_slot, columns


# -- rows are events ------------------------------------------------------------------------------------------------


class _Aggregates(_Answering):
    """The windows of one view."""

    def __init__(self, session: Session, spine: Spine, asked: Asked, known: Entities) -> None:
        super().__init__(session, spine, asked, known)
        every = {_shape(feature) for feature in self.view.features}
        instants = _earlier(known.instants, self.view.delay)
        ends = {
            shape: boundaries(instants, *shape, closed_left=self.view.closed_left)
            for shape in sorted(every, key=lambda shape: (shape[0], shape[1] or 0))
        }
        high = next(iter(ends.values()))[1]
        # The window that begins first decides whether there is an event at all; hops make it differ by row.
        widest = np.min([low for low, _ in ends.values()], axis=0)
        shapes = list(dict.fromkeys(_shape(feature) for feature in asked.features))
        lows = [widest, *(ends[shape][0] for shape in shapes)]
        self.slots = Slots(np.tile(known.codes, len(lows) + 1), np.concatenate([high, *lows]))
        of_high, of_widest, *of_lows = self.slots.of.reshape(len(lows) + 1, -1)
        self.widest = Spans(of_widest, of_high)
        self.spans = {shape: Spans(low, of_high) for shape, low in zip(shapes, of_lows, strict=True)}
        self.bounds = Bounds.of(known.codes, high, widest + 1) if len(known.rows) else None
        self.events = Counts(len(self.slots))
        types = {column.name: column.type for column in self.view.inputs}
        needed = {_windowed(feature).column for feature in asked.features}
        self.columns = {
            name: _ColumnState(len(self.slots), types[name], self._functions(name)) for name in needed if name
        }

    def _functions(self, column: str) -> set[str]:
        windows = (_windowed(feature) for feature in self.asked.features)
        return {windowed.function for windowed in windows if windowed.column == column}

    def answer(self) -> Answer:
        if self.bounds is not None:
            self._read(self.bounds)
        found = self.events.over(self.widest) > 0
        status = np.full(len(self.spine), NOT_FOUND, np.uint8)
        status[self.known.rows[found]] = PRESENT
        columns, statuses = [], []
        for feature in self.asked.features:
            column = self._column(feature)
            own = status.copy()
            own[(status == PRESENT) & column.is_null().to_numpy(zero_copy_only=False)] = NULL
            columns.append(column)
            statuses.append(own)
        return self.finished(columns, statuses)

    def _read(self, bounds: Bounds) -> None:
        """File the events of these entities, between these times, under the intervals in which they lie."""
        view = self.view
        inputs = list(self.columns)
        names = [*(key.name for key in view.keys), view.event_timestamp, *inputs]
        source = rows_sql(self.session, view, names, bounds.span)
        self.span = bounds.span
        columns = ", ".join(["k.code", f"{event_micros(view)} as event", *(f"s.{quote(name)}" for name in inputs)])
        with registered(self.session, bounds.table(self.known.keys)) as keys:
            query = f"select {columns} from ({source}) s {rows_of(view, keys)} and {is_dated(view)}"
            for batch in batches(self.session, view, query):
                self.rows_read += batch.num_rows
                places = self.slots.find(int64(batch.column(0)), int64(batch.column(1)))
                self.events.add(places[places >= 0])
                for state, values in zip(self.columns.values(), batch.columns[2:], strict=True):
                    state.add(places, values)

    def _column(self, feature: BoundFeature) -> pa.Array:
        import pyarrow as pa

        windowed = _windowed(feature)
        spans = self.spans[_shape(feature)]
        state = self.columns.get(windowed.column) if windowed.column else None
        if windowed.function == "count" or state is None:
            counts = (self.events if state is None else state.counts).over(spans)
            full = np.zeros(len(self.spine), np.int64)
            full[self.known.rows] = counts
            return pa.array(full)
        values = self._values(feature, state, spans)
        return _spread(len(self.spine), self.known.rows, np.arange(len(values)), values)

    def _values(self, feature: BoundFeature, state: _ColumnState, spans: Spans) -> pa.Array:
        import pyarrow as pa

        function = _windowed(feature).function
        counts = state.counts.over(spans)
        some = counts > 0
        if function in ("min", "max"):
            return state.extremes[function].over(spans, some, arrow_type(feature.type))
        if state.sums is None:  # there is one wherever a sum or mean is asked
            return pa.nulls(len(some), arrow_type(feature.type))
        totals = state.sums.over(spans)
        if function == "mean":
            return pa.array(totals.means(counts, state.sums.scale), mask=~some)
        low, high, fits = totals.words()
        if not fits.all():
            row = int(self.known.rows[np.argmin(fits)])
            raise RequestError(
                f"the sum of {feature.name!r} has more than 38 digits for row {row} of the spine",
                where=f"feature view {self.view.name!r}",
                hint="Give the column fewer digits in the model or in a SELECT as the source.",
            )
        return decimals(low, high, some, arrow_type(feature.type))


class _ColumnState:
    """All that is asked of one column of the events."""

    def __init__(self, slots: int, type_: str, functions: set[str]) -> None:
        self.counts = Counts(slots)
        self.sums = Sums(slots, type_) if functions & {"sum", "mean"} else None
        self.extremes = {
            name: Extremes(slots, type_, greatest=name == "max") for name in sorted(functions & {"min", "max"})
        }

    def add(self, places: NDArray[np.int64], values: pa.Array) -> None:
        filed = places >= 0
        if values.null_count:
            filed &= values.is_valid().to_numpy(zero_copy_only=False)
        if not filed.all():
            values = values.filter(_mask(filed))
            places = places[filed]
        self.counts.add(places)
        if self.sums is not None:
            self.sums.add(places, values)
        for extreme in self.extremes.values():
            extreme.add(places, values)


def _mask(flags: NDArray[np.bool_]) -> pa.Array:
    import pyarrow as pa

    return pa.array(flags)


def _windowed(feature: BoundFeature) -> Windowed:
    if feature.windowed is None:
        raise RequestError(f"{feature.name} is no aggregate")
    return feature.windowed


def _shape(feature: BoundFeature) -> tuple[int, int | None]:
    windowed = _windowed(feature)
    return windowed.window, windowed.hop
