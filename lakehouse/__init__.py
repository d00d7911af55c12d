"""Lakehouse storage: byte-exact landing, a catalog of snapshots, promotion by SQL.

>>> from lakehouse import Lake
>>> lake = Lake("my-project")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakehouse.errors import PenstockError

if TYPE_CHECKING:
    from lakehouse.lake import Lake

__all__ = ["Lake", "PenstockError"]


def __getattr__(name: str) -> Any:
    """Import the façade when it is first asked for, so that importing the package costs next to nothing."""
    if name == "Lake":
        from lakehouse.lake import Lake

        return Lake
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
