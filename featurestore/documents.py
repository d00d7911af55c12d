"""The stored form of definitions: JSON, canonical, so that equal definitions have equal bytes and one hash.

The structs here are the format. They name their fields themselves, so that the classes that users write can move on.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, TypeVar, cast
from uuid import UUID

import msgspec

from featurestore.applied import AppliedView, Definitions, ServiceVersion
from featurestore.binding import BoundView
from featurestore.definitions import Aggregate, Entity, Feature, FeatureService, FeatureView, Projection
from lakehouse.errors import CatalogDamagedError, DefinitionError, FormatTooNewError
from lakehouse.sealing import decoded

__all__ = ["FORMAT", "checked", "decode", "encode", "refuse_newer_writer"]

FORMAT = 1

# What JSON would turn into text without a word.
_NO_TEXTS = (bytes, bytearray, dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, UUID)

Definition = Entity | FeatureView | FeatureService


class _Entity(msgspec.Struct, frozen=True):
    name: str
    join_keys: tuple[str, ...]
    description: str
    owner: str
    tags: dict[str, str]


class _Feature(msgspec.Struct, frozen=True):
    name: str
    dtype: str | None
    description: str


class _Aggregate(msgspec.Struct, frozen=True):
    name: str
    function: str
    windows: tuple[str, ...]
    column: str | None
    hop: str | None
    description: str


class _View(msgspec.Struct, frozen=True):
    name: str
    source: str
    entities: tuple[str, ...]
    features: tuple[_Feature, ...]
    aggregates: tuple[_Aggregate, ...]
    event_timestamp: str
    created_timestamp: str | None
    ttl: str | None
    delay: str
    closed: str
    tie_breaker: tuple[str, ...]
    history: str
    online: bool
    valid_to: str | None
    deleted: str | None
    push: bool
    description: str
    owner: str
    tags: dict[str, str]


class _Projection(msgspec.Struct, frozen=True):
    view: str
    features: tuple[str, ...] | None
    join_keys: dict[str, str]
    prefix: str | None


class _Service(msgspec.Struct, frozen=True):
    name: str
    features: tuple[_Projection, ...]
    description: str
    owner: str
    tags: dict[str, str]


class _AppliedView(msgspec.Struct, frozen=True):
    definition: _View
    bound: BoundView
    upstream: dict[str, str]
    version: str


class _ServiceVersion(msgspec.Struct, frozen=True):
    version: int
    definition: _Service
    projections: tuple[_Projection, ...]
    meanings: dict[str, str]


class _Document(msgspec.Struct, frozen=True, omit_defaults=True):
    format: int
    min_reader: int
    entities: tuple[_Entity, ...]
    views: tuple[_AppliedView, ...]
    services: tuple[tuple[_ServiceVersion, ...], ...]
    retired: dict[str, int] = {}


_Struct = TypeVar("_Struct", bound=msgspec.Struct)


# -- the whole --------------------------------------------------------------------------------------------------


def encode(definitions: Definitions) -> bytes:
    """Return the bytes of definitions; they depend on nothing but what is defined."""
    document = _Document(
        format=FORMAT,
        min_reader=FORMAT,
        entities=tuple(_entity(entity) for _, entity in sorted(definitions.entities.items())),
        views=tuple(_applied(view) for _, view in sorted(definitions.views.items())),
        services=tuple(tuple(_version(v) for v in versions) for _, versions in sorted(definitions.services.items())),
        retired=dict(definitions.retired),
    )
    return msgspec.json.encode(document, order="deterministic")


def decode(data: bytes, *, place: str, sha256: str | None = None) -> Definitions:
    """Return the definitions that bytes hold.

    Parameters
    ----------
    place
        How errors call the bytes.
    sha256
        Their hash, for `Definitions.sha256`.

    Raises
    ------
    FormatTooNewError
        If a newer Penstock wrote them in a form that this one cannot read.
    CatalogDamagedError
        If they are no definitions.
    """
    what, hint = (
        "the document of feature definitions",
        "Read or roll back to an earlier snapshot, or apply them again there.",
    )
    document, _ = decoded(data, _Document, reads=FORMAT, what=what, where=place, hint=hint)
    try:
        entities = {entity.name: _entity_of(entity) for entity in document.entities}
        views = {view.definition.name: _applied_of(view, entities) for view in document.views}
        services = {versions[0].definition.name: tuple(map(_version_of, versions)) for versions in document.services}
    except (DefinitionError, KeyError, IndexError) as error:
        raise CatalogDamagedError(f"{what} cannot be read: {error}", where=place, hint=hint) from error
    return Definitions(entities, views, services, sha256, document.retired)


def refuse_newer_writer(data: bytes, *, place: str) -> None:
    """Stop before definitions are replaced that hold what this Penstock doesn't know: it would be lost.

    Raises
    ------
    FormatTooNewError
        If a newer Penstock wrote them.
    """
    written = msgspec.json.decode(data)["format"]
    if written > FORMAT:
        raise FormatTooNewError(
            f"the feature definitions were written in format {written}, this Penstock writes format {FORMAT}",
            where=place,
            hint="Install a newer Penstock to change them.",
        )


def checked(definition: Definition) -> dict[str, Any]:
    """Return a definition as plain values, having checked that all of it can be stored.

    Raises
    ------
    DefinitionError
        If a field is of the wrong type, such as a description that is no text.
    """
    if isinstance(definition, Entity):
        where, document = f"entity {definition.name!r}", cast(msgspec.Struct, _entity(definition))
    elif isinstance(definition, FeatureView):
        where, document = definition.where, _view(definition)
    else:
        where, document = f"feature service {definition.name!r}", _service(definition)
    return cast(dict[str, Any], msgspec.to_builtins(_valid(document, where)))


def _valid(document: _Struct, where: str) -> _Struct:
    try:
        msgspec.json.encode(document)
        return msgspec.convert(msgspec.to_builtins(document, builtin_types=_NO_TEXTS), type(document))
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at ")
        field = path.strip("`").removeprefix("$.")
        raise DefinitionError(
            f"{field}: {what[:1].lower()}{what[1:]}".replace("`", ""), where=where, hint="Correct it and apply again."
        ) from None
    except (TypeError, UnicodeError) as error:
        raise DefinitionError(f"it cannot be stored: {error}", where=where) from None


# -- to structs -------------------------------------------------------------------------------------------------


def _entity(entity: Entity) -> _Entity:
    return _Entity(entity.name, tuple(entity.join_keys), entity.description, entity.owner, dict(entity.tags))


def _view(view: FeatureView) -> _View:
    features = [feature for feature in view.features if isinstance(feature, Feature)]
    return _View(
        name=view.name,
        source=view.source,
        entities=tuple(entity.name for entity in view.entities),
        features=tuple(_Feature(feature.name, feature.dtype, feature.description) for feature in features),
        aggregates=tuple(_aggregate(aggregate) for aggregate in view.aggregates),
        event_timestamp=view.event_timestamp,
        created_timestamp=view.created_timestamp,
        ttl=cast(str | None, view.ttl),
        delay=cast(str, view.delay),
        closed=view.closed,
        tie_breaker=tuple(view.tie_breaker),
        history=view.history,
        online=view.online,
        valid_to=view.valid_to,
        deleted=view.deleted,
        push=view.push,
        description=view.description,
        owner=view.owner,
        tags=dict(view.tags),
    )


def _aggregate(aggregate: Aggregate) -> _Aggregate:
    windows = cast(tuple[str, ...], aggregate.windows)
    hop = cast(str | None, aggregate.hop)
    return _Aggregate(aggregate.name, aggregate.function, windows, aggregate.column, hop, aggregate.description)


def _projection(projection: Projection) -> _Projection:
    features = None if projection.features is None else tuple(projection.features)
    return _Projection(projection.view, features, dict(projection.join_keys), projection.prefix)


def _service(service: FeatureService) -> _Service:
    taken = tuple(_projection(projection) for projection in service.projections)
    return _Service(service.name, taken, service.description, service.owner, dict(service.tags))


def _applied(view: AppliedView) -> _AppliedView:
    return _AppliedView(_view(view.definition), view.bound, dict(view.upstream), view.version)


def _version(version: ServiceVersion) -> _ServiceVersion:
    taken = tuple(_projection(projection) for projection in version.projections)
    return _ServiceVersion(version.version, _service(version.definition), taken, dict(version.meanings))


# -- from structs -----------------------------------------------------------------------------------------------


def _entity_of(stored: _Entity) -> Entity:
    return Entity(**msgspec.structs.asdict(stored))


def _view_of(stored: _View, entities: dict[str, Entity]) -> FeatureView:
    fields = msgspec.structs.asdict(stored)
    aggregates = [Aggregate(**msgspec.structs.asdict(aggregate)) for aggregate in fields.pop("aggregates")]
    features = [Feature(**msgspec.structs.asdict(feature)) for feature in fields.pop("features")]
    fields["entities"] = [entities[name] for name in stored.entities]
    return FeatureView(**fields, features=aggregates or features)


def _projection_of(stored: _Projection) -> Projection:
    return Projection(**msgspec.structs.asdict(stored))


def _applied_of(stored: _AppliedView, entities: dict[str, Entity]) -> AppliedView:
    return AppliedView(_view_of(stored.definition, entities), stored.bound, stored.upstream, stored.version)


def _version_of(stored: _ServiceVersion) -> ServiceVersion:
    fields = {**msgspec.structs.asdict(stored.definition)}
    fields["features"] = [_projection_of(projection) for projection in stored.definition.features]
    taken = tuple(_projection_of(projection) for projection in stored.projections)
    return ServiceVersion(stored.version, FeatureService(**fields), taken, stored.meanings)
