"""Online answers: compiled once per request shape, then one read per entity and view.

Nothing here knows the lake; everything comes from the generation. An answer at t holds for every t at or after the
generation's instant, because what becomes visible later is in the generation too.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any, Protocol

from featurestore.binding import BoundFeature
from featurestore.codec import KeyCodec, RowCodec, Sections, only_row
from featurestore.definitions import Projection
from featurestore.generations import Manifest
from featurestore.instants import instant_micros, micros_text
from featurestore.layout import PlainLayout, WindowLayout, atoms_of
from featurestore.online import OnlineStore, Reader
from featurestore.request import Asked, resolve
from featurestore.response import OnlineFeatures, Stamp
from featurestore.statuses import EXPIRED, NOT_FOUND, NULL, PRESENT
from lakehouse.errors import ConflictError, RequestError, near
from lakehouse.types import Clock, utc_now

__all__ = ["Serving"]

_EXACT = Context(prec=100)
_SUM_LIMIT = 10**38

Answer = tuple[Sequence[Any], Sequence[int]]


class Serving:
    """Answers from the current generation of an online store.

    Parameters
    ----------
    store
        Where the generations are.
    clock
        Returns the present instant, zoned UTC.
    """

    def __init__(self, store: OnlineStore, clock: Clock = utc_now) -> None:
        self._store = store
        self._clock = clock
        self._open: tuple[Manifest, Reader] | None = None
        self._compiled: dict[Any, _Request] = {}

    def close(self) -> None:
        """Close the generation that is open, if one is."""
        if self._open is not None:
            self._open[1].close()
        self._open = None
        self._compiled.clear()

    def get(
        self,
        projections: Sequence[Projection],
        entity_rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
        *,
        at: dt.datetime | str | int | None = None,
        full_feature_names: bool = False,
        key: Any = None,
    ) -> OnlineFeatures:
        """Return features of entities, one row for each entity row, in their order.

        Parameters
        ----------
        projections
            What is asked.
        entity_rows
            The join keys, row by row or column by column.
        at
            The instant of the answer, an integer as µs since 1970; None is now.
        full_feature_names
            As for `featurestore.request.resolve`.
        key
            Identifies the projections, so that they are compiled once; None compiles them for this call.

        Raises
        ------
        RequestError
            If there is no generation, or ``at`` is earlier than it; if a join key is missing or of the wrong type.
        """
        manifest, reader = self._current()
        request = self._request(manifest, projections, full_feature_names, key)
        instant = self._instant(at, manifest)
        columns, rows = request.columns_of(entity_rows)
        values, statuses = request.answer(reader, columns, rows, instant)
        stamp = Stamp(manifest.id, manifest.snapshot, instant, manifest.built_at, self._clock)
        return OnlineFeatures(columns, request.types, values, statuses, stamp)

    def _current(self) -> tuple[Manifest, Reader]:
        while True:
            manifest = self._store.current()
            if manifest is None:
                raise RequestError("there is no online generation yet", hint="Build one: penstock materialize")
            opened = self._open
            if opened is not None and opened[0].id == manifest.id:
                return opened
            try:
                opened = (manifest, self._store.open(manifest))
            except ConflictError:  # collected between the two: by now another one is current
                continue
            # The reader before is not closed here: it goes when the last lookup that uses it, in any thread, lets go.
            self._open, self._compiled = opened, {}
            return opened

    def _request(
        self, manifest: Manifest, projections: Sequence[Projection], full_feature_names: bool, key: Any
    ) -> _Request:
        if key is None:
            return _Request(manifest, projections, full_feature_names=full_feature_names)
        # With the generation: another thread may have gone on to the next one meanwhile.
        place = (manifest.id, key, full_feature_names)
        request = self._compiled.get(place)
        if request is None:
            request = self._compiled[place] = _Request(manifest, projections, full_feature_names=full_feature_names)
        return request

    def _instant(self, at: dt.datetime | str | int | None, manifest: Manifest) -> int:
        if at is None:
            # This machine's clock may be a little behind that of the one which built the generation.
            return max(instant_micros(self._clock()), manifest.at)
        instant = instant_micros(at)
        if instant < manifest.at:
            raise RequestError(
                f"the generation was built for {micros_text(manifest.at)} and cannot answer as of the earlier "
                f"{micros_text(instant)}",
                hint="Materialize for an earlier instant (penstock materialize --at T), or ask offline.",
            )
        return instant


# -- one request shape ----------------------------------------------------------------------------------------------


class _View(Protocol):
    def answer(self, packed: bytes | memoryview | None, instant: int) -> Answer: ...


class _Request:
    """What is asked, compiled for one generation."""

    def __init__(self, manifest: Manifest, projections: Sequence[Projection], *, full_feature_names: bool) -> None:
        views = {name: file.view for name, file in manifest.views.items()}
        for projection in projections:
            if projection.view not in views:
                raise RequestError(
                    f"the generation has no feature view {projection.view!r}",
                    hint=near(projection.view, views, what="feature views")
                    + " New views are served after penstock apply and penstock materialize.",
                )
        asked = resolve(projections, views, full_feature_names=full_feature_names)
        self.types = {
            name: feature.type for one in asked for name, feature in zip(one.names, one.features, strict=True)
        }
        self._taken = {name.lower() for name in self.types}
        self.keys = tuple(dict.fromkeys(key for one in asked for key in one.keys))
        self._parts = [
            (one.view.name, one.keys, KeyCodec([key.type for key in one.view.keys]).encode_one, _compiled(one))
            for one in asked
        ]

    def columns_of(self, entity_rows: Any) -> tuple[dict[str, Sequence[Any]], int]:
        """Return the entity rows column by column, and their number."""
        columns = _columns(entity_rows, self.keys)
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise RequestError("the columns of entity_rows differ in length")
        for name in columns:
            if name.lower() in self._taken:
                raise RequestError(
                    f"two columns would be called {name!r}: one of entity_rows, and a feature",
                    hint="Ask for full_feature_names=True, give a role a prefix, or leave the column out.",
                )
        for key in self.keys:
            if key not in columns:
                raise RequestError(
                    f"entity_rows have no {key!r}", hint=near(key, columns, what="columns given") if columns else None
                )
        # Without columns each row is an empty one: everybody.
        return columns, lengths.pop() if lengths else 1 if isinstance(entity_rows, Mapping) else len(entity_rows)

    def answer(
        self, reader: Reader, columns: Mapping[str, Sequence[Any]], rows: int, instant: int
    ) -> tuple[list[list[Any]], list[list[int]]]:
        """Return values and statuses, feature by feature."""
        values: list[list[Any]] = []
        statuses: list[list[int]] = []
        for view, names, encode, compiled in self._parts:
            keys = _encoded(encode, names, columns, rows)
            answers = [compiled.answer(None if key is None else reader.get(view, key), instant) for key in keys]
            if len(answers) == 1:
                values += [[value] for value in answers[0][0]]
                statuses += [[status] for status in answers[0][1]]
            else:
                width = len(compiled.answer(None, instant)[0])
                values += [[answer[0][place] for answer in answers] for place in range(width)]
                statuses += [[answer[1][place] for answer in answers] for place in range(width)]
        return values, statuses


def _columns(entity_rows: Any, keys: Sequence[str]) -> dict[str, Sequence[Any]]:
    if isinstance(entity_rows, Mapping):
        for name, values in entity_rows.items():
            if isinstance(values, str | bytes) or not isinstance(values, Sequence):
                raise RequestError(
                    f"entity_rows: {name!r} must be a list of values, not {values!r}",
                    hint="Write one entity as [{…}] and many as {column: [values]}.",
                )
        return dict(entity_rows)
    if hasattr(entity_rows, "__arrow_c_stream__"):
        import pyarrow as pa

        return dict(pa.table(entity_rows).to_pydict())
    if not isinstance(entity_rows, Sequence) or isinstance(entity_rows, str | bytes):
        raise RequestError("entity_rows must be a list of dicts, or a dict of lists")
    names = list(entity_rows[0]) if entity_rows else list(keys)
    known = set(names)
    for place, row in enumerate(entity_rows):
        if not isinstance(row, Mapping):
            raise RequestError(f"entity_rows: row {place + 1} is no dict but {row!r}")
        if row.keys() != known:
            odd = min(known.symmetric_difference(row), key=str)
            raise RequestError(f"entity_rows: row {place + 1} differs from the first in its columns: {odd!r}")
    return {name: [row[name] for row in entity_rows] for name in names}


def _encoded(
    encode: Callable[[Sequence[Any]], bytes | None],
    names: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    rows: int,
) -> list[bytes | None]:
    if not names:
        return [encode(())] * rows
    return [encode(values) for values in zip(*(columns[name] for name in names), strict=True)]


# -- one view -------------------------------------------------------------------------------------------------------


def _compiled(asked: Asked) -> _View:
    return _Windows(asked) if asked.view.is_aggregate else _Plain(asked)


class _Plain:
    """Features that a row of the source holds."""

    def __init__(self, asked: Asked) -> None:
        layout = PlainLayout(asked.view)
        self._decode = RowCodec(layout.types).decode
        self._places = tuple(layout.places[feature.name] for feature in asked.features)
        # All features in their order: the usual request.
        self._all = self._places == tuple(range(1, len(layout.types)))
        self._latest = None if asked.view.ttl is None else asked.view.ttl + asked.view.delay
        width = len(self._places)
        nothing = (None,) * width
        self._present = (PRESENT,) * width
        self._not_found: Answer = (nothing, (NOT_FOUND,) * width)
        self._expired: Answer = (nothing, (EXPIRED,) * width)

    def answer(self, packed: bytes | memoryview | None, instant: int) -> Answer:
        if packed is None:
            return self._not_found
        bounds = self._bounds(packed, instant)
        if bounds is None:
            return self._not_found
        row = self._decode(packed, *bounds)
        if self._latest is not None and instant - row[0] > self._latest:
            return self._expired
        values = row[1:] if self._all else tuple([row[place] for place in self._places])
        if None in values:
            return values, tuple([NULL if value is None else PRESENT for value in values])
        return values, self._present

    @staticmethod
    def _bounds(packed: bytes | memoryview, instant: int) -> tuple[int, int] | None:
        """Return where the row lies that answers at the instant."""
        only = only_row(packed)
        if only is not None:
            return only[1:] if only[0] <= instant else None
        sections = Sections(packed)
        place = bisect_right(sections.stamps(0), instant) - 1
        return None if place < 0 else sections.row(0, place)


class _Windows:
    """Features that sum up the events of windows."""

    def __init__(self, asked: Asked) -> None:
        view = asked.view
        self._view = view
        layout = WindowLayout(view)
        self._decoders = [RowCodec(hop.types).decode for hop in layout.hops]
        self._decode_tail = RowCodec(layout.tail_types).decode
        self._tail = len(layout.hops)
        self._lag = layout.lag
        self._delay = view.delay
        self._left = view.closed_left
        self._longest = tuple((place, hop.hop, hop.longest) for place, hop in enumerate(layout.hops))
        self._width = len(asked.features)
        # Features of the same window share its start and its state.
        windows: dict[tuple[int, int, int], list[tuple[int, _Finisher]]] = {}
        columns = [column.name for column in view.inputs]
        for target, feature in enumerate(asked.features):
            section = layout.section_of(feature)
            window = feature.windowed.window if feature.windowed else 0
            finisher = _Finisher(view.name, feature, layout.hops[section].atoms, atoms_of(feature, view), columns)
            windows.setdefault((section, layout.hops[section].hop, window), []).append((target, finisher))
        self._windows = [(*key, tuple(finishers)) for key, finishers in windows.items()]
        nothing: list[Any] = [None] * self._width
        for *_, finishers in self._windows:
            for target, finisher in finishers:
                nothing[target] = finisher.finish(None, ())
        self._not_found: Answer = (tuple(nothing), (NOT_FOUND,) * self._width)

    def answer(self, packed: bytes | memoryview | None, instant: int) -> Answer:
        if packed is None:
            return self._not_found
        sections = Sections(packed)
        effective = instant - self._delay
        tail = self._visible_tail(packed, sections, instant)
        if not self._holds_event(sections, effective, tail):
            return self._not_found
        values: list[Any] = [None] * self._width
        for section, hop, window, finishers in self._windows:
            start = (effective - window) // hop * hop
            place = bisect_left(sections.stamps(section), start)
            state = (
                self._decoders[section](packed, *sections.row(section, place))
                if place < sections.count(section)
                else None
            )
            events = [row for event, row in tail if event > start or (self._left and event == start)] if tail else ()
            for target, finisher in finishers:
                values[target] = finisher.finish(state, events)
        return values, [NULL if value is None else PRESENT for value in values]

    def _visible_tail(
        self, packed: bytes | memoryview, sections: Sections, instant: int
    ) -> list[tuple[int, tuple[Any, ...]]]:
        """Return the events that have become visible since the generation's instant, each with its timestamp."""
        if not sections.count(self._tail):
            return []
        stamps = sections.stamps(self._tail)
        return [
            (stamps[place] - self._lag, self._decode_tail(packed, *sections.row(self._tail, place)))
            for place in range(bisect_right(stamps, instant))
        ]

    def _holds_event(self, sections: Sections, effective: int, tail: Sequence[tuple[int, Any]]) -> bool:
        for section, hop, longest in self._longest:
            start = (effective - longest) // hop * hop
            if sections.count(section) and sections.stamps(section)[-1] >= start:
                return True
            if any(event > start or (self._left and event == start) for event, _ in tail):
                return True
        return False


class _Finisher:
    """Turns the state of a window and the events after it into one feature's value."""

    def __init__(
        self, view: str, feature: BoundFeature, stored: Sequence[Any], needed: Sequence[Any], columns: Sequence[str]
    ) -> None:
        windowed = feature.windowed
        self._where = f"{view}:{feature.name}"
        self._function = windowed.function if windowed else ""
        self._places = tuple(list(stored).index(atom) for atom in needed)
        self._column = columns.index(windowed.column) if windowed and windowed.column is not None else None
        self._is_float = feature.type in ("FLOAT", "DOUBLE")

    def finish(self, state: tuple[Any, ...] | None, events: Sequence[tuple[Any, ...]]) -> Any:
        if self._column is None:
            return (0 if state is None else state[self._places[0]]) + len(events)
        values = [event[self._column] for event in events if event[self._column] is not None] if events else []
        parts = [None] * len(self._places) if state is None else [state[place] for place in self._places]
        match self._function:
            case "count":
                return (parts[0] or 0) + len(values)
            case "sum":
                return self._total(parts[0], values)
            case "mean":
                return self._mean(parts[0], (parts[1] or 0) + len(values), values)
            case function:
                return self._extreme(function, parts[0], values)

    def _total(self, folded: Decimal | None, values: Sequence[Any]) -> Decimal | None:
        if not values:
            return folded
        total = Decimal(0) if folded is None else folded
        for value in values:
            total = _EXACT.add(total, Decimal(value))
        if abs(total.scaleb(-int(total.as_tuple().exponent), _EXACT)) >= _SUM_LIMIT:
            raise RequestError(f"the sum {self._where} is too large for 38 digits")
        return total

    def _mean(self, folded: Decimal | None, count: int, values: Sequence[Any]) -> float | None:
        total = self._total(folded, values)
        if total is None:
            return None
        numerator, denominator = total.as_integer_ratio()
        return numerator / (denominator * count)  # of integers: rounded once

    def _extreme(self, function: str, folded: Any, values: Sequence[Any]) -> Any:
        candidates = values if folded is None else [folded, *values]
        if not candidates:
            return None
        choose = min if function == "min" else max
        return choose(candidates, key=_float_order) if self._is_float else choose(candidates)


def _float_order(value: float) -> tuple[bool, float, bool]:
    """Order numbers as the offline side does: −0.0 before 0.0, NaN last."""
    is_nan = value != value  # noqa: PLR0124 - the definition of NaN
    return is_nan, 0.0 if is_nan else value, not str(value).startswith("-")
