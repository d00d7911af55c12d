"""The `FeatureStore` façade: what users of Python type. It only delegates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from featurestore.instants import instant_micros
from lakehouse.errors import CatalogDamagedError, PenstockError, RequestError
from lakehouse.lake import Lake
from lakehouse.types import AsOf, Clock, utc_now

if TYPE_CHECKING:
    from featurestore.applied import Definitions
    from featurestore.definitions import Projection
    from featurestore.feature_file import Definition
    from featurestore.generations import Manifest
    from featurestore.materialization import MaterializationReport
    from featurestore.online import OnlineStore
    from featurestore.parity import ParityReport
    from featurestore.registry import DefinitionPlan
    from featurestore.response import OnlineFeatures
    from featurestore.retrieval import RetrievalJob
    from featurestore.serving import Serving
    from featurestore.training import TrainingSet
    from lakehouse.result import QueryResult

__all__ = ["FeatureStore"]


class FeatureStore:
    """Features of a lake: defined once, the same offline and online.

    Parameters
    ----------
    path
        As for `lakehouse.Lake`.
    env
        Name of an ``[env.NAME]`` section that overlays the settings.
    clock
        Returns the present instant.
    repo_path
        Another name for ``path``, for those who come from Feast.

    Raises
    ------
    ProjectError
        If there is neither a project nor a lake.
    """

    def __init__(
        self,
        path: str | Path = ".",
        *,
        env: str | None = None,
        clock: Clock = utc_now,
        repo_path: str | Path | None = None,
    ) -> None:
        self.lake = Lake(path if repo_path is None else repo_path, env=env, clock=clock)

    def __repr__(self) -> str:
        return f"FeatureStore({self.lake.storage.uri!r})"

    # -- definitions ------------------------------------------------------------------------------------------------

    def plan(self, objects: Sequence[Definition] | Definition | None = None, *, prune: bool = False) -> DefinitionPlan:
        """Return what `apply` would change. See `featurestore.registry.plan_definitions`.

        Parameters
        ----------
        objects
            Definitions, or a single one; None takes those of ``features.py``.
        prune
            Whether those that are applied but not among the objects are to be removed.
        """
        from featurestore.registry import load_features, plan_definitions

        wanted = load_features(self.lake.settings.paths.features) if objects is None else objects
        return plan_definitions(
            self.lake.catalog.latest(),
            self.lake.settings,
            wanted,
            prune=prune,
            users=self._users_of,
            holders=self._served,
        )

    def apply(self, objects: Sequence[Definition] | Definition | None = None, *, prune: bool = False) -> DefinitionPlan:
        """Publish definitions. See `featurestore.registry.apply_definitions`; parameters as for `plan`."""
        from featurestore.registry import apply_definitions, load_features

        wanted = load_features(self.lake.settings.paths.features) if objects is None else objects
        return apply_definitions(
            self.lake.catalog, self.lake.settings, wanted, prune=prune, users=self._users_of, holders=self._served
        )

    def definitions(self, *, as_of: AsOf = None) -> Definitions:
        """Return the entities, feature views and feature services of a snapshot."""
        from featurestore.acceptance import read_definitions

        return read_definitions(self.lake.catalog.resolve(as_of))

    # -- offline ----------------------------------------------------------------------------------------------------

    def get_historical_features(
        self,
        entity_df: Any,
        features: Any,
        *,
        timestamp: str | None = None,
        timezone: str | None = None,
        as_of: AsOf = None,
        full_feature_names: bool = False,
        corrections: Literal["known", "latest"] = "known",
        definitions: Literal["pinned", "latest"] = "pinned",
    ) -> RetrievalJob:
        """Return the features of every spine row as they were known at its timestamp.

        Parameters
        ----------
        entity_df
            The spine: any Arrow-able frame (pandas, polars, pyarrow, DuckDB), a dict of lists, a list of dicts, or a
            SELECT over the lake.
        features
            A service or its name, or a list of ``view:feature`` names, feature views and roles.
        timestamp
            The spine's column with the instants; None finds ``event_timestamp`` or the only timestamp column.
        timezone
            IANA zone of timestamps without one.
        as_of
            The snapshot that everything is read at; None for the newest.
        full_feature_names
            Name columns ``view__feature``.
        corrections
            ``known`` hides rows that were created after the asked instant; ``latest`` does not.
        definitions
            ``pinned`` takes the definitions of the snapshot that is read; ``latest`` tries the newest on old data, as
            the models of that snapshot made it.
        """
        from featurestore.acceptance import accepted_views, asked_for, read_definitions
        from featurestore.retrieval import retrieve
        from lakehouse.session import Session

        if definitions not in ("pinned", "latest"):
            raise RequestError(
                f"definitions cannot be {definitions!r}",
                hint="pinned takes those of the snapshot that is read, latest the newest.",
            )
        snapshot = self.lake.catalog.resolve(as_of)
        defining = snapshot if definitions == "pinned" else self.lake.catalog.latest()
        known = read_definitions(defining)
        projections, service = asked_for(known, defining, features)
        with Session(snapshot) as session:
            views = accepted_views(known, session, [projection.view for projection in projections])
        return retrieve(
            snapshot,
            self.lake.settings,
            views,
            projections,
            self._selected(entity_df, snapshot.number) if isinstance(entity_df, str) else entity_df,
            timestamp=timestamp,
            timezone=timezone,
            full_feature_names=full_feature_names,
            corrections=corrections,
            service=service.ref if service else None,
            definitions_sha=known.sha256,
        )

    def _selected(self, query: str, snapshot: int) -> QueryResult:
        """Return the rows of a spine that is a SELECT."""
        from featurestore.frames import check_select

        check_select(query)
        try:
            return self.lake.sql(query, as_of=snapshot)
        except RequestError as error:
            error.where = error.where or "the spine"
            raise

    def training_set(self, name: str, version: int | None = None) -> TrainingSet:
        """Return a saved training set; its newest version if none is given."""
        from featurestore.training import training_set

        return training_set(self.lake, name, version)

    def training_sets(self) -> list[dict[str, Any]]:
        """Return the saved training sets, by name and version."""
        from featurestore.training import training_sets

        return training_sets(self.lake)

    # -- online -----------------------------------------------------------------------------------------------------

    @cached_property
    def online(self) -> OnlineStore:
        """Where the online generations are."""
        from featurestore.online.lmdb import LmdbStore

        return LmdbStore(self.lake.settings.online.path)

    @cached_property
    def _serving(self) -> Serving:
        from featurestore.serving import Serving

        catalog = self.lake.catalog
        # It must not hold the store: a store that is dropped closes its files at once.
        return Serving(self.online, catalog.clock, lake=lambda: catalog.identity)

    def materialize(
        self,
        *,
        as_of: AsOf = None,
        at: dt.datetime | str | None = None,
        full: bool = False,
        force: bool = False,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> MaterializationReport:
        """Build one online generation of all online views and serve it. See `featurestore.materialization`."""
        from featurestore.acceptance import read_definitions
        from featurestore.materialization import materialize

        snapshot = self.lake.catalog.resolve(as_of)
        return materialize(
            snapshot,
            self.lake.settings,
            read_definitions(snapshot),
            self.online,
            at=at,
            full=full,
            force=force,
            progress=progress,
        )

    def get_online_features(
        self,
        features: Any,
        entity_rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
        *,
        at: dt.datetime | str | None = None,
        full_feature_names: bool = False,
    ) -> OnlineFeatures:
        """Return the features of entities as of now, or as of ``at``. See `featurestore.serving.Serving.get`."""
        return self._serving.get(
            lambda manifest: self._asked(features, manifest),
            entity_rows,
            at=None if at is None else instant_micros(at),
            full_feature_names=full_feature_names,
            key=tuple(features) if isinstance(features, list) else features,
        )

    def key_types(self, features: Any) -> dict[str, str]:
        """Return the columns that entity rows need for these features, with their types as DuckDB spells them."""
        from featurestore.request import resolve

        manifest = self._generation()
        views = {name: file.view for name, file in manifest.views.items()}
        asked = resolve(self._asked(features, manifest), views, full_feature_names=True)
        return {name: key.type for one in asked for name, key in zip(one.keys, one.view.keys, strict=True)}

    def verify(self, features: Any, *, sample: int = 200, seed: int = 0) -> ParityReport:
        """Compare online answers with offline ones, value for value. See `featurestore.parity.verify`."""
        from featurestore.parity import verify

        manifest = self._generation()
        snapshot = self.lake.catalog.snapshot(manifest.snapshot)
        return verify(
            self.online,
            self._serving,
            manifest,
            snapshot,
            settings=self.lake.settings,
            projections=self._asked(features, manifest),
            service=features if isinstance(features, str) else getattr(features, "name", "features"),
            sample=sample,
            seed=seed,
        )

    # -- how --------------------------------------------------------------------------------------------------------

    def _generation(self) -> Manifest:
        """Return the generation that is served."""
        from featurestore.generations import check_answering

        manifest = self.online.current()
        if manifest is None:
            raise RequestError("there is no online generation yet", hint="Build one: penstock materialize")
        check_answering(manifest, self.lake.catalog.identity)
        return manifest

    def _asked(self, features: Any, manifest: Manifest) -> Sequence[Projection]:
        """Return what is asked of a generation, by the definitions of its snapshot; that takes a look into the lake."""
        try:
            asked = self.definitions(as_of=manifest.snapshot).projections(features)
        except RequestError as error:
            try:
                self.definitions().projections(features)
            except PenstockError:
                raise error from None
            raise RequestError(
                f"{error.what} in the generation that is served, of snapshot {manifest.snapshot}",
                where=error.where,
                hint="It was applied since then. Build a generation that has it: penstock materialize.",
            ) from None
        offline = [projection.view for projection in asked if projection.view not in manifest.views]
        if offline:
            raise RequestError(
                "it is not online, so that the generation that is served does not have it",
                where=f"feature view {offline[0]!r}",
                hint="Ask offline: penstock historical. Or give it online=True, then penstock apply and penstock "
                "materialize.",
            )
        return asked

    def _users_of(self, view: str, version: str | None) -> list[str]:
        """Return what was made with a feature view of a version, or of any: training sets, and what is served."""
        from featurestore.training import users_of_view

        served = self._served(view)
        if version is not None and served and version != self._served_version(view):
            served = []
        return [*users_of_view(self.lake, view, version), *served]

    def _served(self, view: str) -> list[str]:
        """Return the generation that is served, if it has a feature view."""
        try:
            current = self.online.current()
        except CatalogDamagedError:
            # Definitions must not wait for its repair; but what it serves, nobody can tell.
            return ["the damaged online generation"]
        return [f"online generation {current.id}"] if current is not None and view in current.views else []

    def _served_version(self, view: str) -> str | None:
        """Return the version of a view that the served generation is made of; None where that can't be told."""
        try:
            return self.definitions(as_of=self._generation().snapshot).view(view).version
        except PenstockError:
            return None
