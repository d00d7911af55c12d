"""Online answers of views of aggregates: the states of each window merged with the events that came later."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

from featurestore.binding import BoundFeature, BoundView
from featurestore.codec import RowCodec, Sections, arrow_type
from featurestore.layout import Atom, WindowLayout, atoms_of
from featurestore.request import Asked
from featurestore.response import Answer
from featurestore.statuses import NOT_FOUND, PRESENT
from lakehouse.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.online import Reader

__all__ = ["WindowLookup"]

_EXACT = Context(prec=100)
_SUM_LIMIT = 10**38

Buffer = bytes | memoryview


class WindowLookup:
    """Features that sum up the events of windows, compiled for one request.

    Parameters
    ----------
    asked
        Features of a view of aggregates.
    """

    def __init__(self, asked: Asked) -> None:
        view = asked.view
        layout = WindowLayout(view)
        self.names = asked.names
        self.types = tuple(feature.type for feature in asked.features)
        self._view = view.name
        self._decode_tail = RowCodec(layout.tail_types).decode
        self._tail = len(layout.hops)
        self._lag = layout.lag
        self._delay = view.delay
        self._left = view.closed_left
        self._longest = tuple((place, hop.hop, hop.longest) for place, hop in enumerate(layout.hops))
        # Features of the same window share its start and its state.
        windows: dict[tuple[int, int], list[int]] = {}
        for target, feature in enumerate(asked.features):
            window = feature.windowed.window if feature.windowed else 0
            windows.setdefault((layout.section_of(feature), window), []).append(target)
        self._windows = [_Window(asked, layout, *key, targets) for key, targets in windows.items()]
        nothing = {target: finisher.empty for window in self._windows for target, finisher in window.finishers}
        self._not_found: Answer = (tuple(nothing[target] for target in range(len(nothing))), NOT_FOUND)

    def read(self, reader: Reader, keys: Sequence[bytes | None], instant: int) -> list[Answer]:
        """Return the answers: sums may be refused, which is said at once. See `featurestore.response.Lookup`.

        Raises
        ------
        RequestError
            If a sum does not fit 38 digits.
        """
        found = reader.get_many(self._view, keys)
        return [self._not_found if packed is None else self._answer(packed, instant) for packed in found]

    def answer(self, found: Answer, instant: int) -> Answer:  # noqa: ARG002 - `read` knew it
        """Return the answer of one entity. See `featurestore.response.Lookup`."""
        return found

    def arrays(self, found: Sequence[Answer], instant: int) -> tuple[list[pa.Array], list[int]]:  # noqa: ARG002
        """Return the features as Arrow arrays. See `featurestore.response.Lookup`."""
        import pyarrow as pa

        arrays = [
            pa.array([values[place] for values, _ in found], arrow_type(type_))
            for place, type_ in enumerate(self.types)
        ]
        return arrays, [code for _, code in found]

    def _answer(self, packed: Buffer, instant: int) -> Answer:
        sections = Sections(packed)
        effective = instant - self._delay
        tail = self._visible_tail(packed, sections, instant)
        if not self._holds_event(sections, effective, tail):
            return self._not_found
        values = list(self._not_found[0])
        for window in self._windows:
            start = window.start(effective)
            state = window.state(packed, sections, start)
            events = [row for event, row in tail if event > start or (self._left and event == start)] if tail else ()
            if state is not None or events:
                for target, finisher in window.finishers:
                    values[target] = finisher.finish(state, events)
        return values, PRESENT

    def _visible_tail(self, packed: Buffer, sections: Sections, instant: int) -> list[tuple[int, tuple[Any, ...]]]:
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


class _Window:
    """One window of a view, with the features that are asked of it."""

    def __init__(self, asked: Asked, layout: WindowLayout, section: int, window: int, targets: Sequence[int]) -> None:
        hop = layout.hops[section]
        features = [(target, asked.features[target]) for target in targets]
        needed = tuple(dict.fromkeys(atom for _, feature in features for atom in atoms_of(feature, asked.view)))
        self._section = section
        self._hop = hop.hop
        self._window = window
        self._decode = RowCodec(hop.types).decoder([hop.atoms.index(atom) for atom in needed])
        self.finishers = tuple((target, _Finisher(asked.view, feature, needed)) for target, feature in features)

    def start(self, effective: int) -> int:
        """Return where the window begins at an effective instant."""
        return (effective - self._window) // self._hop * self._hop

    def state(self, packed: Buffer, sections: Sections, start: int) -> tuple[Any, ...] | None:
        """Return the states of the folded events since the start; None if there are none."""
        place = bisect_left(sections.stamps(self._section), start)
        if place == sections.count(self._section):
            return None
        return self._decode(packed, *sections.row(self._section, place))


class _Finisher:
    """Turns the state of a window and the events after it into one feature's value."""

    def __init__(self, view: BoundView, feature: BoundFeature, stored: Sequence[Atom]) -> None:
        windowed = feature.windowed
        self._name, self._where = feature.name, f"feature view {view.name!r}"
        self._function = windowed.function if windowed else ""
        self._places = tuple(stored.index(atom) for atom in atoms_of(feature, view))
        columns = [column.name for column in view.inputs]
        self._column = columns.index(windowed.column) if windowed and windowed.column is not None else None
        self._is_float = feature.type in ("FLOAT", "DOUBLE")
        self.empty = 0 if self._function == "count" else None
        """The value of a window without events."""

    def finish(self, state: tuple[Any, ...] | None, events: Sequence[tuple[Any, ...]]) -> Any:
        """Return the value; at least one of the two holds something."""
        first = None if state is None else state[self._places[0]]
        if self._column is None:
            return (first or 0) + len(events)
        values = [event[self._column] for event in events if event[self._column] is not None] if events else ()
        match self._function:
            case "count":
                return (first or 0) + len(values)
            case "sum":
                return self._total(first, values)
            case "mean":
                return self._mean(first, (0 if state is None else state[self._places[1]]) + len(values), values)
            case function:
                return self._extreme(function, first, values)

    def _total(self, folded: Decimal | None, values: Sequence[Any]) -> Decimal | None:
        total = _added(folded, values)
        if values and total is not None and abs(total.scaleb(-int(total.as_tuple().exponent), _EXACT)) >= _SUM_LIMIT:
            raise RequestError(
                f"the sum of {self._name!r} has more than 38 digits at this instant",
                where=self._where,
                hint="Give the column fewer digits in the model or in a SELECT as the source, or shorten the window.",
            )
        return total

    def _mean(self, folded: Decimal | None, count: int, values: Sequence[Any]) -> float | None:
        total = _added(folded, values)
        if total is None:
            return None
        numerator, denominator = total.as_integer_ratio()
        return numerator / (denominator * count)  # of integers: rounded once

    def _extreme(self, function: str, folded: Any, values: Sequence[Any]) -> Any:
        if not values:
            return folded
        candidates = values if folded is None else [folded, *values]
        choose = min if function == "min" else max
        return choose(candidates, key=_float_order) if self._is_float else choose(candidates)


def _added(folded: Decimal | None, values: Sequence[Any]) -> Decimal | None:
    """Return the exact sum of what was folded and some values; None where there is nothing."""
    if not values:
        return folded
    total = Decimal(0) if folded is None else folded
    for value in values:
        total = _EXACT.add(total, Decimal(value))
    return total


def _float_order(value: float) -> tuple[bool, float, bool]:
    """Order numbers as the offline side does: −0.0 before 0.0, NaN last."""
    is_nan = value != value  # noqa: PLR0124 - the definition of NaN
    return is_nan, 0.0 if is_nan else value, not str(value).startswith("-")
