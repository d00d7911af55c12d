"""What computes features for a spine: one small Protocol, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from featurestore.pit import Corrections
    from featurestore.request import Asked
    from featurestore.spine import Spine
    from lakehouse.session import Session

__all__ = ["Answer", "OfflineEngine", "ViewReport"]


@dataclass(frozen=True, slots=True)
class ViewReport:
    """What came of one view in one role.

    Each spine row counts once: ``spine_rows`` = ``present`` + ``null`` + ``expired`` + ``not_found``.

    Parameters
    ----------
    view
        The feature view's name.
    keys
        The spine's columns that its join keys were read from.
    columns
        The answer's columns.
    spine_rows
        Number of rows of the spine.
    present
        Rows with a value for at least one of the columns.
    null
        Rows for which there was a feature row (or an event), but every column is null.
    expired
        Rows whose feature row was older than the TTL.
    not_found
        Rows for which there was no feature row (no event in any window); those without a key are among them.
    without_key
        Rows whose key or instant is null, or whose key cannot be of the join key's type.
    hidden
        Rows whose feature row would be another one if those created later were not hidden.
    rows_read
        Rows of the source about the spine's entities, at times that could matter.
    rows_excluded
        Rows of the whole source that have no event timestamp, or an infinite one.
    files_read, files_skipped
        Files of the source's tables, as far as the lake's log tells.
    impossible
        Columns of the spine with values that cannot be of their join key's type: column, that type, number of rows.
        They are counted under ``without_key`` too.
    """

    view: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    spine_rows: int
    present: int
    null: int
    expired: int
    not_found: int
    without_key: int
    hidden: int
    rows_read: int
    rows_excluded: int
    files_read: int
    files_skipped: int
    impossible: tuple[tuple[str, str, int], ...] = ()

    @property
    def matched(self) -> int:
        """Rows for which there was a feature row, or an event, that had not expired."""
        return self.present + self.null


@dataclass(frozen=True, slots=True)
class Answer:
    """One view's features for a spine.

    Parameters
    ----------
    columns
        A column for each feature asked, in the order of the spine, of exactly the feature's type.
    statuses
        For each of them uint8 codes of `featurestore.statuses`.
    report
        What came of it.
    """

    columns: tuple[pa.Array, ...]
    statuses: tuple[NDArray[np.uint8], ...]
    report: ViewReport


class OfflineEngine(Protocol):
    """Computes features of one view at the instants of a spine."""

    def answer(self, session: Session, spine: Spine, asked: Asked, *, corrections: Corrections) -> Answer:
        """Return the features asked, for each row of the spine.

        Parameters
        ----------
        session
            The snapshot that is read, and the budget.
        corrections
            ``"known"`` hides rows created after the instant asked about, ``"latest"`` doesn't.

        Raises
        ------
        RequestError
            If the spine has no such keys, a sum does not fit, or the source can't be read.
        """
        ...
