"""A feature store on the lakehouse: one definition, the same features offline and online.

>>> from featurestore import FeatureStore
>>> store = FeatureStore("my-project")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.definitions import Aggregate, Entity, Feature, FeatureService, FeatureView
    from featurestore.store import FeatureStore

__all__ = ["Aggregate", "Entity", "Feature", "FeatureService", "FeatureStore", "FeatureView"]

_HOMES = {"FeatureStore": "featurestore.store"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for, so that importing the package costs next to nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES.get(name, "featurestore.definitions")), name)
