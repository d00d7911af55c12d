"""What an apply changes: definition by definition, field by field, in words."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from featurestore.applied import AppliedView, Definitions, ServiceVersion
from featurestore.binding import BoundFeature, BoundView
from featurestore.definitions import Entity, Projection
from featurestore.documents import checked
from featurestore.durations import duration_text
from lakehouse.types import plural

__all__ = [
    "Action",
    "DefinitionPlan",
    "Difference",
    "Holders",
    "Users",
    "consequences",
    "entity_difference",
    "service_difference",
    "source_text",
    "view_difference",
]

Action = Literal["add", "change", "unchanged", "keep", "remove"]
Kind = Literal["entity", "feature view", "feature service"]

Users = Callable[[str, str | None], Sequence[str]]
"""Returns what was made with a feature view of a version, or of any (None), in words: ``training set tips@3``."""
Holders = Callable[[str], Sequence[str]]
"""Returns what needs a feature view, in words."""

_SIGNS: Mapping[Action, str] = {"add": "+", "change": "~", "remove": "-", "keep": "=", "unchanged": " "}
# Fields of a view that go without saying as long as they are as usual.
_USUAL: Sequence[tuple[str, Any]] = (
    ("created_timestamp", None),
    ("ttl", None),
    ("delay", "0s"),
    ("closed", "right"),
    ("tie_breaker", ()),
    ("history", "full"),
    ("online", True),
)
_NAMED = 3
_ELSEWHERE = frozenset({"name", "features", "aggregates"})


@dataclass(frozen=True, slots=True)
class Difference:
    """What becomes of one definition.

    Parameters
    ----------
    action
        ``keep``: it is not among the objects, and stays for want of ``prune``.
    details
        For people: of a new definition what it is, of a changed one what changed, field by field.
    version
        Afterwards: the short hash of a view, the number of a service; empty for entities.
    """

    kind: Kind
    name: str
    action: Action
    details: tuple[str, ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class DefinitionPlan:
    """What applying definitions changes, or has changed.

    Parameters
    ----------
    base
        The snapshot that it was compared with.
    differences
        One per definition that is or was: entities, views, services, each by name.
    consequences
        What means something else afterwards, and who uses it.
    notes
        What is worth knowing besides.
    snapshot
        The snapshot that the apply published; None for a plan, or if there was nothing to do.
    execution
        Its execution, likewise.
    """

    base: int
    differences: tuple[Difference, ...]
    consequences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    snapshot: int | None = None
    execution: str | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not any(difference.action in ("add", "change", "remove") for difference in self.differences)

    @property
    def summary(self) -> str:
        """One line: what is added, changed and removed, by name."""
        words: dict[Action, str] = {"add": "added", "change": "changed", "remove": "removed"}
        named = {
            word: [f"{d.kind} {d.name}" for d in self.differences if d.action == action]
            for action, word in words.items()
        }
        return "; ".join(f"{word} {', '.join(names)}" for word, names in named.items() if names) or "nothing to do"

    def lines(self) -> list[str]:
        """Return it as text, a line at a time."""
        shown = [difference for difference in self.differences if difference.action != "unchanged"]
        same = len(self.differences) - len(shown)
        lines = [f"Features: nothing to do, {plural(same, 'definition')} up to date."] if self.empty else []
        for difference in shown:
            lines += _lines(difference)
        if same and not self.empty:
            lines.append(f"  {plural(same, 'definition')} unchanged")
        lines += [f"! {text}" for text in self.consequences]
        lines += [f"note: {text}" for text in self.notes]
        if self.snapshot is not None:
            lines.append(f"Published as snapshot {self.snapshot}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, ready for JSON."""
        return {**asdict(self), "empty": self.empty}

    def __str__(self) -> str:
        return "\n".join(self.lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{_SIGNS[d.action].strip()}</code> {d.action}</td><td>{html.escape(d.kind)}</td>"
            f"<td><b>{html.escape(d.name)}</b></td><td><code>{html.escape(d.version)}</code></td>"
            f"<td>{'<br>'.join(map(html.escape, d.details))}</td></tr>"
            for d in self.differences
        )
        head = "<tr><th></th><th>kind</th><th>name</th><th>version</th><th>what</th></tr>"
        told = [f"<b>{html.escape(text)}</b>" for text in self.consequences] + [html.escape(t) for t in self.notes]
        after = "" if self.snapshot is None else f"<p>Published as snapshot {self.snapshot}</p>"
        below = f"<ul>{''.join(f'<li>{text}</li>' for text in told)}</ul>" if told else ""
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>{below}{after}"


def _lines(difference: Difference) -> Iterator[str]:
    version = f" ({difference.version})" if difference.version and difference.action in ("add", "change") else ""
    if difference.action == "keep":
        yield f"= {difference.kind} {difference.name}: kept, not in features.py; --prune removes it"
        return
    yield f"{_SIGNS[difference.action]} {difference.kind} {difference.name}{version}"
    for detail in difference.details:
        yield f"    {detail}"


# -- one definition ---------------------------------------------------------------------------------------------


def entity_difference(old: Entity | None, new: Entity | None, *, kept: bool = False) -> Difference:
    """Return what becomes of an entity; None is one that is not there."""
    known = new or old
    if known is None or new is None:
        return Difference("entity", known.name if known else "", "remove")
    if old is None:
        return Difference("entity", new.name, "add", (f"join keys: {', '.join(new.join_keys)}",))
    details = tuple(_fields(checked(old), checked(new)))
    return Difference("entity", new.name, _action(details, kept=kept), details)


def view_difference(old: AppliedView | None, new: AppliedView | None, *, kept: bool = False) -> Difference:
    """Return what becomes of a feature view; None is one that is not there."""
    if new is None:
        return Difference("feature view", old.definition.name if old else "", "remove")
    name, version = new.definition.name, new.short
    if old is None:
        return Difference("feature view", name, "add", tuple(_described(new)), version)
    before, after = checked(old.definition), checked(new.definition)
    keys, new_keys = ([key.name for key in view.bound.keys] for view in (old, new))
    details = [f"join keys: {_shown(keys)} → {_shown(new_keys)}"] if keys != new_keys else []
    details += [*_fields(before, after), *_bound(old.bound, new.bound)]
    details += [f"description of {feature}" for feature in _redescribed(before, after)]
    details += [f"the model of {table} changed" for table in _changed_models(old, new)]
    if not details and (before != after or old.version != new.version):
        details = ["spelled differently"]
    return Difference("feature view", name, _action(details, kept=kept), tuple(details), version)


def _changed_models(old: AppliedView, new: AppliedView) -> list[str]:
    """Return the tables upstream whose model is another one now, by name."""
    tables = sorted({*old.upstream, *new.upstream})
    return [table for table in tables if old.upstream.get(table) != new.upstream.get(table)]


def service_difference(
    old: Sequence[ServiceVersion],
    new: Sequence[ServiceVersion],
    *,
    name: str,
    changed: Collection[str] = (),
    kept: bool = False,
) -> Difference:
    """Return what becomes of a feature service, given its versions; none is one that is not there.

    Parameters
    ----------
    changed
        The views that don't mean any more what they meant to its newest version.
    """
    if not new:
        return Difference("feature service", name, "remove")
    newest, version = new[-1], f"version {new[-1].version}"
    if not old:
        return Difference("feature service", name, "add", tuple(map(_part, newest.projections)), version)
    former = old[-1]
    before, after = _taken(former.projections), _taken(newest.projections)
    details = [f"{after[column]} added" for column in after if column not in before]
    details += [f"{before[column]} removed" for column in before if column not in after]
    details += [f"{before[c]} → {after[c]}" for c in after if c in before and before[c] != after[c]]
    if not details and list(before) != list(after):
        details = ["features in another order"]
    details += [f"feature view {view} means something else" for view in newest.meanings if view in changed]
    details += _fields(checked(former.definition), checked(newest.definition))
    if not details and former != newest:
        details = ["spelled differently"]
    return Difference("feature service", name, _action(details, kept=kept), tuple(details), version)


def _action(details: Sequence[str], *, kept: bool) -> Action:
    return "change" if details else "keep" if kept else "unchanged"


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the plain fields that differ."""
    names = [name for name in new if name not in _ELSEWHERE and old[name] != new[name]]
    return [f"{name.replace('_', ' ')}: {_shown(old[name])} → {_shown(new[name])}" for name in names]


def _bound(old: BoundView, new: BoundView) -> Iterator[str]:
    """Yield the features that were added, removed or are computed otherwise, and columns of another type."""
    before = {feature.name: feature for feature in old.features}
    after = {feature.name: feature for feature in new.features}
    for name, feature in after.items():
        if name not in before:
            yield f"feature {name} added ({_feature(feature)})"
        elif before[name] != feature:
            yield f"feature {name}: {_feature(before[name])} → {_feature(feature)}"
    yield from (f"feature {name} removed" for name in before if name not in after)
    common = [name for name in before if name in after]
    if common != [name for name in after if name in before]:
        yield "features in another order"
    columns = {column.name: column.type for column in (*old.keys, *old.tie_breaker, *old.inputs)}
    for column in dict.fromkeys((*new.keys, *new.tie_breaker, *new.inputs)):
        known = columns.get(column.name, column.type)
        if known != column.type and before.get(column.name) == after.get(column.name):
            yield f"column {column.name}: {known} → {column.type}"


def _redescribed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    told = [{f["name"]: f["description"] for f in (*view["features"], *view["aggregates"])} for view in (old, new)]
    return [name for name, text in told[1].items() if name in told[0] and told[0][name] != text]


def _described(view: AppliedView) -> Iterator[str]:
    keys = ", ".join(key.name for key in view.bound.keys) or "none: one row for everybody"
    yield f"source: {source_text(view.definition.source)}"
    yield f"join keys: {keys}"
    yield f"event timestamp: {view.bound.event_timestamp}"
    written = checked(view.definition)
    yield from (
        f"{name.replace('_', ' ')}: {_shown(written[name])}" for name, usual in _USUAL if written[name] != usual
    )
    yield from (f"feature {feature.name}: {_feature(feature)}" for feature in view.bound.features)


def _feature(feature: BoundFeature) -> str:
    """Return ``mean(fare) over 1h, hop 5m: DOUBLE``."""
    how = feature.windowed
    if how is None:
        return feature.type
    hop = "exact starts" if how.hop is None else f"hop {duration_text(how.hop)}"
    return f"{how.function}({how.column or '*'}) over {duration_text(how.window)}, {hop}, {feature.type}"


def _part(projection: Projection) -> str:
    """Return ``zone_demand on pickup_zone=dropoff_zone as dropoff: trips_1d, trips_7d``."""
    keys = ", ".join(f"{key}={column}" for key, column in projection.join_keys.items())
    role = f"{f' on {keys}' if keys else ''}{f' as {projection.prefix}' if projection.prefix else ''}"
    return f"{projection.view}{role}: {', '.join(projection.features or ())}"


def source_text(source: str) -> str:
    """Return a view's source in one line."""
    return " ".join(source.split())


def _taken(asked: Sequence[Projection]) -> dict[str, str]:
    """Return what a service takes, by the column that it becomes."""
    found = {}
    for projection in asked:
        keys = ", ".join(f"{key}={column}" for key, column in projection.join_keys.items())
        for feature in projection.features or ():
            column = f"{projection.prefix}__{feature}" if projection.prefix else feature
            role = f" as {column}" if projection.prefix else ""
            found[column] = f"{projection.view}:{feature}{f' on {keys}' if keys else ''}{role}"
    return found


def _shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(str, value)) or "none"
        case dict():
            return ", ".join(f"{k}={v}" for k, v in value.items()) or "none"
        case "":
            return "none"
    return " ".join(str(value).split())


# -- what follows ------------------------------------------------------------------------------------------------


def consequences(old: Definitions, new: Definitions, users: Users) -> Iterator[str]:
    """Yield what means something else than before or is gone, and what was made of it; users tell what that is."""
    for name, former in old.views.items():
        view = new.views.get(name)
        if view is None:
            yield from _made(users(name, None), f"with feature view {name}", ", and {keep} its definition")
            continue
        if former.version == view.version:
            continue
        models = _changed_models(former, view)
        if models:
            features = ", ".join(view.bound.feature_names)
            yield f"feature view {name}: the model of {', '.join(models)} changed, so these change meaning: {features}"
        yield from _made(users(name, former.version), f"of the former meaning of feature view {name}")


def _made(users: Sequence[str], how: str, after: str = "") -> Iterator[str]:
    """Yield what was made: in one line, the newest few by name, as there may be hundreds of training sets."""
    if users:
        shown = users if len(users) <= _NAMED + 1 else users[-_NAMED:]
        older = [f"{len(users) - _NAMED} more"] if len(shown) < len(users) else []
        named = " and ".join([", ".join(shown), *older])
        was, keep = ("was", "keeps") if len(users) == 1 else ("were", "keep")
        yield f"{named} {was} made {how}{after.format(keep=keep)}"
