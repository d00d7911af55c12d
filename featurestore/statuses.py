"""How an answer came about: one status beside every value, the same offline and online."""

from __future__ import annotations

__all__ = ["EXPIRED", "NOT_FOUND", "NULL", "PRESENT", "STATUSES"]

STATUSES = ("PRESENT", "NULL", "EXPIRED", "NOT_FOUND")
"""Their names; a status is stored as its place here."""

PRESENT, NULL, EXPIRED, NOT_FOUND = range(4)
