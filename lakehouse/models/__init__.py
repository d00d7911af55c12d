"""Models: SQL files that hold a table's contract (DDL) and the query that fills it (DML)."""

from __future__ import annotations

from lakehouse.models.annotations import Annotations
from lakehouse.models.columns import ColumnCheck, check_columns
from lakehouse.models.contract import Check, Column, Contract, Reference
from lakehouse.models.loading import Model, Models, load_models
from lakehouse.models.refusals import said
from lakehouse.models.shape import CLOCK_WORDS, PROVENANCE, Shape, shape, with_provenance

__all__ = [
    "CLOCK_WORDS",
    "PROVENANCE",
    "Annotations",
    "Check",
    "Column",
    "ColumnCheck",
    "Contract",
    "Model",
    "Models",
    "Reference",
    "Shape",
    "check_columns",
    "load_models",
    "said",
    "shape",
    "with_provenance",
]
