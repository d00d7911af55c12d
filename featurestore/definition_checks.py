"""What every definition is checked for: names, lists, tags; each error names the definition."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lakehouse.errors import DefinitionError

__all__ = [
    "NAME",
    "check_column",
    "check_name",
    "checked_tags",
    "elements",
    "refuse_twice",
    "set_fields",
    "shown",
    "texts",
]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


_SHOWN = 60  # characters


def shown(value: object) -> str:
    """Return a value as errors show it: in one line, and not all of a long one."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({type(value).__name__})"


def set_fields(instance: object, **values: Any) -> None:
    """Give a frozen instance its normal form while it is made."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def check_name(name: object, where: str) -> None:
    """Refuse what is no name of letters, digits and underscores."""
    if not isinstance(name, str) or not NAME.match(name):
        raise DefinitionError(
            f"{name!r} is not a name",
            where=where,
            hint="Letters (A–Z, a–z), digits and underscores, not starting with a digit.",
        )


def check_column(name: object, role: str, where: str) -> None:
    """Refuse what can't be the name of a column; None is none."""
    if name is not None and not (isinstance(name, str) and name):
        raise DefinitionError(f"{role} must name a column of the source, not {shown(name)}", where=where)


def texts(values: object, what: str, where: str) -> tuple[str, ...]:
    """Return a list of names."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(isinstance(v, str) and v for v in values):
        raise DefinitionError(f"{what} must be a list of names, not {shown(values)}", where=where)
    return tuple(values)


def elements(values: object, kinds: Any, what: str, where: str) -> tuple[Any, ...]:
    """Return a list of values of these kinds."""
    names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise DefinitionError(f"{what} must be a list of {names}", where=where)
    for value in values:
        if not isinstance(value, kinds):
            raise DefinitionError(f"{what}: {shown(value)} is no {names}", where=where)
    return tuple(values)


def checked_tags(tags: object, where: str) -> dict[str, str]:
    """Return tags, text to text, sorted."""
    if not isinstance(tags, Mapping) or not all(isinstance(k, str) and isinstance(v, str) for k, v in tags.items()):
        raise DefinitionError("tags must map text to text", where=where)
    return dict(sorted(tags.items()))


def refuse_twice(names: Sequence[str], what: str, where: str) -> None:
    """Refuse a name that comes twice, whatever its case."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise DefinitionError(f"the {what} {name!r} is named twice", where=where)
        seen.add(name.lower())
