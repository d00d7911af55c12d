"""Point-in-time retrieval: a spine with the features as they were known at each of its instants."""

from __future__ import annotations

import tempfile
import threading
import time
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from featurestore.binding import BoundView
from featurestore.definitions import Projection
from featurestore.engines import Answer, OfflineEngine
from featurestore.pit import Corrections
from featurestore.request import Asked, resolve, status_names
from featurestore.retrieval_report import RetrievalReport
from featurestore.spine import Spine, read_spine, spine_keys
from featurestore.statuses import STATUSES
from lakehouse.errors import RequestError, near
from lakehouse.settings import Settings, memory_bytes
from lakehouse.types import plural

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray

    from lakehouse.catalog import Snapshot
    from lakehouse.result import QueryResult

__all__ = ["Options", "RetrievalJob", "retrieve"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a retrieval was asked for.

    Parameters
    ----------
    timestamp
        The spine's timestamp column.
    timezone
        The zone that was given for times without one.
    full_feature_names
        Whether features are called ``view__feature``.
    corrections
        ``known`` or ``latest``.
    service
        The feature service that was asked for, with its version (``tips@3``), if one was.
    definitions_sha
        Which definitions were used.
    """

    timestamp: str
    timezone: str | None
    full_feature_names: bool
    corrections: Corrections
    service: str | None
    definitions_sha: str | None


def retrieve(
    snapshot: Snapshot,
    settings: Settings,
    views: Mapping[str, BoundView],
    projections: Sequence[Projection],
    frame: Any,
    *,
    timestamp: str | None = None,
    timezone: str | zoneinfo.ZoneInfo | None = None,
    full_feature_names: bool = False,
    corrections: Corrections = "known",
    service: str | None = None,
    definitions_sha: str | None = None,
    engine: OfflineEngine | None = None,
) -> RetrievalJob:
    """Return a job that computes features for a spine, once its result is looked at.

    The spine is read and checked at once.

    Parameters
    ----------
    snapshot
        What all sources are read at.
    settings
        The budget of memory and threads.
    views
        The feature views bound to the snapshot.
    projections
        What is asked of which view, in which role.
    frame, timestamp, timezone
        See `featurestore.spine.read_spine`.
    full_feature_names
        Name columns ``view__feature``.
    corrections
        ``"known"`` answers with what was known at each instant; ``"latest"`` also with what was created later.
    service, definitions_sha
        Recorded in the options.
    engine
        What computes; the local engine if not given.

    Raises
    ------
    RequestError
        If the spine, the names asked for, or the keys cannot be.
    """
    if corrections not in get_args(Corrections):
        hint = near(str(corrections), get_args(Corrections), what="corrections")
        raise RequestError(f"corrections cannot be {corrections!r}", hint=hint)
    if not projections:
        raise RequestError("no features are asked for", hint="Name a feature service, or features as view:feature.")
    spine = read_spine(frame, timestamp=timestamp, timezone=timezone)
    asked = resolve(projections, views, full_feature_names=full_feature_names, taken=spine.table.column_names)
    for one in asked:
        spine_keys(spine, one)
    options = Options(spine.timestamp, spine.timezone, full_feature_names, corrections, service, definitions_sha)
    return RetrievalJob(snapshot, settings, asked, spine, options, engine=engine)


class RetrievalJob:
    """Features for a spine: computed when the result is first looked at, once.

    Rows are the spine's, in its order; columns are the spine's as they were given, then the features asked.

    Parameters
    ----------
    snapshot
        What is read.
    settings
        The budget of memory and threads.
    asked
        The features, per view and role.
    spine, options
        See `retrieve`.
    engine
        What computes; the local engine if not given.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        settings: Settings,
        asked: Sequence[Asked],
        spine: Spine,
        options: Options,
        *,
        engine: OfflineEngine | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.asked = tuple(asked)
        self.spine = spine
        self.options = options
        self.settings = settings
        self._engine = engine
        self._lock = threading.Lock()
        self._done: tuple[tuple[Answer, ...], RetrievalReport] | None = None

    # -- results ----------------------------------------------------------------------------------------------------

    def to_arrow(self, *, statuses: bool = False) -> pa.Table:
        """Return the spine with its features as an Arrow table.

        Parameters
        ----------
        statuses
            Add a column ``<feature>__status`` behind every feature.

        Raises
        ------
        RequestError
            If a source cannot be read, a sum does not fit, or another column is called like that of a status.
        """
        table = self.spine.table
        if statuses:  # before anything is computed
            status_names([name for one in self.asked for name in one.names], table.column_names)
        for one, answer in zip(self.asked, self._answers, strict=True):
            for name, column, codes in zip(one.names, answer.columns, answer.statuses, strict=True):
                table = table.append_column(name, column)
                if statuses:
                    table = table.append_column(f"{name}__status", _in_words(codes))
        return table

    def to_polars(self) -> pl.DataFrame:
        """Return the spine with its features as a polars DataFrame."""
        return self._result().to_polars()

    def to_pandas(self) -> pd.DataFrame:
        """Return the spine with its features as a pandas DataFrame; decimals become Python objects.

        Raises
        ------
        RequestError
            If pandas is not installed.
        """
        return self._result().to_pandas()

    def to_df(self) -> pd.DataFrame:
        """Return the same as `to_pandas`."""
        return self.to_pandas()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the spine with its features to any consumer of the Arrow C stream."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def statuses(self) -> pa.Table:
        """Return how each value came about, in the words of `featurestore.statuses`: a text column per feature."""
        import pyarrow as pa

        names = [name for one in self.asked for name in one.names]
        return pa.table([_in_words(codes) for answer in self._answers for codes in answer.statuses], names=names)

    @property
    def report(self) -> RetrievalReport:
        """Where every spine row ended up, per view, and what was read."""
        return self._computed()[1]

    def save(self, name: str, **options: Any) -> Any:
        """Save the result as a new version of a training set. See `featurestore.training.save`."""
        from featurestore.training import save

        return save(self, name, **options)

    # -- for people -------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"{self._result().to_text()}\n\n{self.report.to_text()}"

    def _repr_html_(self) -> str:
        return f"{self._result()._repr_html_()}{self.report._repr_html_()}"

    def _result(self) -> QueryResult:
        from lakehouse.result import QueryResult

        return QueryResult.from_table(self.to_arrow(), snapshot=self.snapshot.number)

    # -- computing --------------------------------------------------------------------------------------------------

    @property
    def _answers(self) -> tuple[Answer, ...]:
        return self._computed()[0]

    def _computed(self) -> tuple[tuple[Answer, ...], RetrievalReport]:
        with self._lock:
            if self._done is None:
                self._done = self._compute()
            return self._done

    def _compute(self) -> tuple[tuple[Answer, ...], RetrievalReport]:
        from featurestore.engines.local import LocalEngine
        from lakehouse.session import Session

        began = time.perf_counter()
        engine = self._engine or LocalEngine()
        resources = self.settings.resources
        # The other half is for what is not DuckDB's: the spine, places in time, batches, the answer.
        memory = f"{memory_bytes(resources.memory) // 2_000_000}MB" if resources.memory else None
        with (
            tempfile.TemporaryDirectory(prefix="penstock-") as spill,
            Session(self.snapshot, memory=memory, threads=resources.threads, temp_directory=spill) as session,
        ):
            # Rows carry their places, so DuckDB need not keep those of a file in order.
            session.connection.execute("set preserve_insertion_order = false")
            answers = tuple(
                engine.answer(session, self.spine, one, corrections=self.options.corrections) for one in self.asked
            )
        for one, answer in zip(self.asked, answers, strict=True):
            self._check(one, answer)
        reports = tuple(answer.report for answer in answers)
        seconds = time.perf_counter() - began
        return answers, RetrievalReport(self.snapshot.number, len(self.spine), reports, seconds, self.spine.ambiguous)

    def _check(self, asked: Asked, answer: Answer) -> None:
        """Refuse what an engine may have got wrong: shapes would shift silently otherwise."""
        lengths = {len(part) for part in (*answer.columns, *answer.statuses)}
        if len(answer.columns) != len(asked.features) or lengths - {len(self.spine)}:
            raise RequestError(
                f"the engine answered with other rows or columns than {plural(len(self.spine), 'row')} of "
                f"{plural(len(asked.features), 'feature')}",
                where=f"feature view {asked.view.name!r}",
            )


def _in_words(codes: NDArray[np.uint8]) -> pa.Array:
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(STATUSES)).cast(pa.string())
