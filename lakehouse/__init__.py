"""Lakehouse storage: byte-exact landing, a catalog of snapshots, promotion by SQL.

>>> from lakehouse import Lake
>>> lake = Lake("my-project")  # doctest: +SKIP
"""

from __future__ import annotations

from lakehouse.errors import PenstockError
from lakehouse.lake import Lake

__all__ = ["Lake", "PenstockError"]
