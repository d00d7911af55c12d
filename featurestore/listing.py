"""What ``penstock features list`` and ``show`` print: definitions as plain rows and values."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from featurestore.applied import AppliedView, Definitions, ServiceVersion
from featurestore.binding import BoundFeature
from featurestore.definitions import Aggregate, Entity
from featurestore.differences import source_text
from featurestore.durations import duration_text
from lakehouse.errors import RequestError, near

__all__ = ["features_list", "features_show", "list_rows", "show_lines", "show_rows"]

_SHOWN_WIDTH = 48
_HASH_SHOWN = 12
# What the heading and the features' table say already.
_ELSEWHERE = ("kind", "name", "features", "aggregates")


def features_list(definitions: Definitions) -> list[dict[str, Any]]:
    """Return one row per entity, feature view and feature service (its newest version), each kind by name.

    Columns: kind, name, version (short hash of a view, number of a service), keys, features (how many), source,
    used_by, owner, description.
    """
    return [
        *(_entity_row(definitions, entity) for entity in definitions.entities.values()),
        *(_view_row(definitions, view) for view in definitions.views.values()),
        *(_service_row(definitions, versions[-1]) for versions in definitions.services.values()),
    ]


def features_show(definitions: Definitions, name: str) -> dict[str, Any]:
    """Return all there is to say about one definition, as plain values ready for JSON.

    Parameters
    ----------
    name
        A feature view, a feature service (``tips`` or ``tips@3``) or an entity; the first of these that has the name.

    Raises
    ------
    RequestError
        If there is none of that name; near matches are listed.
    """
    if name in definitions.views:
        return _view(definitions, definitions.views[name])
    if name.partition("@")[0] in {*definitions.services, *definitions.retired}:
        return _service(definitions, definitions.service(name))
    if name in definitions.entities:
        entity = definitions.entities[name]
        return {**_entity_row(definitions, entity), "tags": dict(entity.tags)}
    known = [*definitions.views, *definitions.services, *definitions.entities]
    hint = near(name, known, what="definitions") if known else "Nothing is applied there: penstock apply."
    raise RequestError(f"there is no feature view, feature service or entity {name!r}", hint=hint)


# -- as text ----------------------------------------------------------------------------------------------------


def list_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of `features_list` for a table on a screen: long texts are cut."""
    return [{**row, "source": _cut(row["source"]), "description": _cut(row["description"])} for row in rows]


def show_lines(shown: dict[str, Any]) -> list[str]:
    """Return what `features_show` found, line by line, without the features: those are a table, see `show_rows`."""
    facts = {key.replace("_", " "): _lines(key, value) for key, value in shown.items() if key not in _ELSEWHERE}
    facts = {key: lines for key, lines in facts.items() if lines}
    width = max(map(len, facts), default=0)
    told = [f"{shown['kind']} {shown['name']}"]
    for key, (first, *others) in facts.items():
        told += [f"  {key.ljust(width)}  {first}", *(f"  {' ' * width}  {line}" for line in others)]
    return told


def show_rows(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each feature of what `features_show` found, with plain values only; an entity has none."""
    rows = shown["features"] or []
    return [
        {key: _value_text(value) if isinstance(value, dict) else value for key, value in row.items()} for row in rows
    ]


def _value_text(value: Any) -> str:
    """Return a value as people write it: ``zone=132, day=2020-05-01`` for a dict, ``a, b`` for a list."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={_value_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_value_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "null" if value is None else str(value)


def _lines(key: str, value: Any) -> list[str]:
    """Return what stands beside a key; nothing where there is nothing to say."""
    if value in (None, "", [], {}, ()):
        return []
    if key == "source":
        return inspect.cleandoc(value).splitlines()
    if key == "keys":
        return [", ".join(key if isinstance(key, str) else f"{key['column']} {key['type']}" for key in value)]
    if key == "upstream":
        return [f"{table} ({version[:_HASH_SHOWN]})" for table, version in value.items()]
    return [_value_text(value)]


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_WIDTH else f"{text[: _SHOWN_WIDTH - 1]}…"


# -- rows -------------------------------------------------------------------------------------------------------


def _row(
    kind: str, named: Any, *, version: str = "", keys: Iterable[str] = (), features: int | None = None, source: str = ""
) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": named.name,
        "version": version,
        "keys": list(keys),
        "features": features,
        "source": source,
        "used_by": [],
        "owner": named.owner,
        "description": named.description,
    }


def _entity_row(definitions: Definitions, entity: Entity) -> dict[str, Any]:
    using = (view.definition for view in definitions.views.values())
    used = [view.name for view in using if entity.name in {entity.name for entity in view.entities}]
    return {**_row("entity", entity, keys=entity.join_keys), "used_by": used}


def _view_row(definitions: Definitions, view: AppliedView) -> dict[str, Any]:
    row = _row(
        "feature view",
        view.definition,
        version=view.short,
        keys=(key.name for key in view.bound.keys),
        features=len(view.bound.features),
        source=source_text(view.definition.source),
    )
    newest = (versions[-1] for versions in definitions.services.values())
    return {**row, "used_by": [service.ref for service in newest if view.definition.name in service.meanings]}


def _service_row(definitions: Definitions, service: ServiceVersion) -> dict[str, Any]:
    keys: dict[str, None] = {}
    for projection in service.projections:
        view = definitions.views.get(projection.view)
        if view is not None:
            keys |= dict.fromkeys(projection.join_keys.get(key.name, key.name) for key in view.bound.keys)
    taken = sum(len(projection.features or ()) for projection in service.projections)
    return _row("feature service", service.definition, version=str(service.version), keys=keys, features=taken)


# -- one definition ---------------------------------------------------------------------------------------------


def _view(definitions: Definitions, view: AppliedView) -> dict[str, Any]:
    written, bound = view.definition, view.bound
    described = {name: feature.description for feature in written.features for name in feature.feature_names}
    return {
        **_view_row(definitions, view),
        "version": view.version,
        "source": written.source,
        "entities": [entity.name for entity in written.entities],
        "keys": [{"column": key.name, "type": key.type} for key in bound.keys],
        "event_timestamp": bound.event_timestamp,
        "created_timestamp": bound.created_timestamp,
        "tie_breaker": [column.name for column in bound.tie_breaker],
        "ttl": written.ttl,
        "delay": written.delay,
        "closed": written.closed,
        "history": written.history,
        "online": written.online,
        "features": [{**_feature(feature), "description": described[feature.name]} for feature in bound.features],
        "aggregates": [_aggregate(aggregate) for aggregate in written.aggregates],
        "upstream": dict(view.upstream),
        "tags": dict(written.tags),
    }


def _feature(feature: BoundFeature) -> dict[str, Any]:
    how = feature.windowed
    found: dict[str, Any] = {"feature": feature.name, "type": feature.type}
    if how is not None:
        hop = None if how.hop is None else duration_text(how.hop)
        found |= {"function": how.function, "column": how.column, "window": duration_text(how.window), "hop": hop}
    return found


def _aggregate(aggregate: Aggregate) -> dict[str, Any]:
    windows = list(aggregate.windows)
    return {
        "name": aggregate.name,
        "function": aggregate.function,
        "column": aggregate.column,
        "windows": windows,
        "hop": aggregate.hop,
    }


def _service(definitions: Definitions, service: ServiceVersion) -> dict[str, Any]:
    columns = []
    for projection in service.projections:
        view = definitions.views.get(projection.view)
        types = {f.name: f.type for f in view.bound.features} if view is not None else {}
        for feature in projection.features or ():
            column = f"{projection.prefix}__{feature}" if projection.prefix else feature
            ref, keys = f"{projection.view}:{feature}", dict(projection.join_keys)
            columns.append({"column": column, "feature": ref, "type": types.get(feature), "join_keys": keys})
    return {
        **_service_row(definitions, service),
        "versions": [version.ref for version in definitions.services[service.name]],
        "cannot_be_asked": [_changed(definitions, view) for view in definitions.changed_views(service)],
        "views": sorted(service.meanings),
        "features": columns,
        "tags": dict(service.definition.tags),
    }


def _changed(definitions: Definitions, view: str) -> str:
    return f"feature view {view} {'does not mean what it meant then' if view in definitions.views else 'is gone'}"
