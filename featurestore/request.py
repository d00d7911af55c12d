"""What is asked for: features of bound views, in roles, under the names that the answer's columns get."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from featurestore.binding import BoundFeature, BoundView
from featurestore.definitions import Projection
from lakehouse.errors import RequestError, near

__all__ = ["Asked", "resolve", "status_names"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Features of one view in one role.

    Parameters
    ----------
    view
        The view.
    keys
        The asker's columns that hold the view's join keys, in the view's order.
    features
        The features wanted, in the order wanted.
    names
        The answer's column for each.
    """

    view: BoundView
    keys: tuple[str, ...]
    features: tuple[BoundFeature, ...]
    names: tuple[str, ...]


def resolve(
    projections: Sequence[Projection],
    views: Mapping[str, BoundView],
    *,
    full_feature_names: bool = False,
    taken: Collection[str] = (),
) -> tuple[Asked, ...]:
    """Return what is asked of which view, with the answer's column names.

    Parameters
    ----------
    full_feature_names
        Name columns ``view__feature`` rather than ``feature``; a role with a prefix is always ``prefix__feature``.
    taken
        Columns that the answer has besides, such as the spine's.

    Raises
    ------
    RequestError
        If a view, feature or join key is unknown (near matches are listed), or two columns would have one name.
    """
    origin: dict[str, str] = {name.lower(): f"the column {name!r} of the spine" for name in taken}
    asked = []
    for projection in projections:
        if projection.view not in views:
            raise RequestError(
                f"there is no feature view {projection.view!r}", hint=near(projection.view, views, what="feature views")
            )
        view = views[projection.view]
        _check(projection, view)
        features = tuple(view.feature(name) for name in projection.features or view.feature_names)
        prefix = projection.prefix or (view.name if full_feature_names else "")
        names = tuple(f"{prefix}__{feature.name}" if prefix else feature.name for feature in features)
        for name, feature in zip(names, features, strict=True):
            _claim(origin, name, f"{view.name}:{feature.name}", full=bool(prefix))
        keys = tuple(projection.join_keys.get(key.name, key.name) for key in view.keys)
        asked.append(Asked(view, keys, features, names))
    return tuple(asked)


def status_names(names: Sequence[str], taken: Collection[str] = ()) -> tuple[str, ...]:
    """Return the columns that hold the statuses of features: ``<feature>__status``.

    Parameters
    ----------
    names
        The answer's columns for the features.
    taken
        Columns that the answer has besides, such as the spine's.

    Raises
    ------
    RequestError
        If two columns would have one name.
    """
    origin = {name.lower(): f"the feature {name!r}" for name in names}
    origin |= {name.lower(): f"the column {name!r} that was given" for name in taken}
    found = tuple(f"{name}__status" for name in names)
    for status, name in zip(found, names, strict=True):
        if other := origin.get(status.lower()):
            raise RequestError(
                f"two columns would be called {status!r}: {other}, and the status of {name!r}",
                hint="Rename the first one, or ask without statuses in columns of their own.",
            )
    return found


def _check(projection: Projection, view: BoundView) -> None:
    """Refuse what the view has not: it may have changed since the projection was made."""
    keys = [key.name for key in view.keys]
    asked = (("feature", projection.features or (), view.feature_names), ("join key", projection.join_keys, keys))
    for what, names, known in asked:
        for name in names:
            if name not in known:
                raise RequestError(
                    f"there is no {what} {name!r}",
                    where=f"feature view {view.name!r}",
                    hint=near(name, known, what=f"{what}s"),
                )


def _claim(origin: dict[str, str], name: str, feature: str, *, full: bool) -> None:
    other = origin.get(name.lower())
    if other == feature:
        raise RequestError(
            f"two columns would be called {name!r}: {feature} is asked for twice",
            hint="Leave one out, or give each role a prefix of its own.",
        )
    if other is not None:
        ask = "" if full else "Ask for full names (--full-feature-names, in Python full_feature_names=True), "
        hint = f"{ask}give a role {'another' if full else 'a'} prefix, or rename the spine's column."
        raise RequestError(
            f"two columns would be called {name!r}: {other} and {feature}", hint=hint[0].upper() + hint[1:]
        )
    origin[name.lower()] = feature
