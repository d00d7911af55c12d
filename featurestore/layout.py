"""How a view's answers are laid out in a generation: what is folded, by which hop, and in which columns.

A generation holds, per entity and view, one packed value of *sections*; a section is a list of rows with ascending
stamps (int64 µs).

- Plain view: one section. A row answers from its stamp on, until the next one: the first is what was visible at the
  generation's instant, the others become visible later. Columns: event timestamp, then the features.
- View of aggregates: one section per hop, then the tail. A row of a hop's section holds the states over all folded
  events from its stamp (the start of a hop) on; windows reach up to the present, so that is all they need. Events that
  are older than the longest window that needs a state are not in it: in rows before that window's start it means
  nothing. A row of the tail is an event that becomes visible at its stamp, after the generation's instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from featurestore.binding import BoundFeature, BoundView

__all__ = ["Atom", "HopLayout", "PlainLayout", "WindowLayout"]

AtomKind = Literal["events", "values", "sum", "min", "max"]

_SURE_DIGITS = 28  # of which ten billion values can be summed in 128 bits

_ATOMS: dict[str, tuple[AtomKind, ...]] = {
    "count": ("values",),
    "sum": ("sum",),
    "mean": ("sum", "values"),
    "min": ("min",),
    "max": ("max",),
}


@dataclass(frozen=True, slots=True)
class Atom:
    """A mergeable state: of events or of the values of one column.

    Parameters
    ----------
    kind
        ``events`` and ``values`` are counts, of all events and of those with a value.
    column
        The column; None for ``events``.
    type
        How the state is stored, as DuckDB spells it.
    is_wide
        Whether a sum of few values may have more digits than any type on the way, though it fits in the end.
    """

    kind: AtomKind
    column: str | None
    type: str
    is_wide: bool = False


class PlainLayout:
    """The rows of a plain view.

    Parameters
    ----------
    view
        A plain view.
    """

    def __init__(self, view: BoundView) -> None:
        self.types = ("BIGINT", *(feature.type for feature in view.features))
        self.places = {feature.name: place for place, feature in enumerate(view.features, start=1)}


class HopLayout:
    """The section of one hop: the windows that move by it, and the atoms that they need.

    Parameters
    ----------
    hop
        µs.
    view
        A view of aggregates.
    """

    def __init__(self, hop: int, view: BoundView) -> None:
        self.hop = hop
        features = [(f, f.windowed) for f in view.features if f.windowed is not None and f.windowed.hop == hop]
        self.longest = max(windowed.window for _, windowed in features)
        longest: dict[Atom, int] = {}
        for feature, windowed in features:
            for atom in atoms_of(feature, view):
                longest[atom] = max(windowed.window, longest.get(atom, 0))
        self.atoms = tuple(dict.fromkeys([Atom("events", None, "BIGINT"), *longest]))
        self.types = tuple(atom.type for atom in self.atoms)
        self._longest_of = longest

    def first_start(self, instant: int, atom: Atom | None = None) -> int:
        """Return the start of the longest window at an effective instant: what is older is in no window any more.

        Parameters
        ----------
        atom
            Counts only the windows that need it; None, or an atom that no window needs, counts all.
        """
        longest = self.longest if atom is None else self._longest_of.get(atom, self.longest)
        return (instant - longest) // self.hop * self.hop


class WindowLayout:
    """The sections of a view of aggregates.

    Parameters
    ----------
    view
        A view of aggregates, every one with a hop.
    """

    def __init__(self, view: BoundView) -> None:
        hops = {f.windowed.hop for f in view.features if f.windowed is not None}
        self.hops = tuple(HopLayout(hop, view) for hop in sorted(hop for hop in hops if hop is not None))
        self.tail_columns = view.inputs
        self.tail_types = tuple(column.type for column in view.inputs)
        # An event is visible from its timestamp on, plus this.
        self.lag = view.delay + view.closed_left

    def section_of(self, feature: BoundFeature) -> int:
        """Return the place of the section that answers a feature."""
        hop = feature.windowed.hop if feature.windowed is not None else None
        return next(place for place, layout in enumerate(self.hops) if layout.hop == hop)


def atoms_of(feature: BoundFeature, view: BoundView) -> tuple[Atom, ...]:
    """Return the atoms that an aggregate is finished from."""
    windowed = feature.windowed
    if windowed is None:
        return ()
    if windowed.column is None:
        return (Atom("events", None, "BIGINT"),)
    column = next(column for column in view.inputs if column.name == windowed.column)
    types = {"values": "BIGINT", "sum": f"DECIMAL(38,{scale_of(column.type)})", "min": column.type, "max": column.type}
    wide = precision_of(column.type) > _SURE_DIGITS
    return tuple(Atom(kind, column.name, types[kind], wide and kind == "sum") for kind in _ATOMS[windowed.function])


def precision_of(column_type: str) -> int:
    """Return the digits of a decimal type; 0 for the others."""
    return int(column_type.partition("(")[2].partition(",")[0]) if column_type.startswith("DECIMAL") else 0


def scale_of(column_type: str) -> int:
    """Return the digits after the point of a decimal type; 0 for the others."""
    return int(column_type.rpartition(",")[2].rstrip(")")) if column_type.startswith("DECIMAL") else 0
