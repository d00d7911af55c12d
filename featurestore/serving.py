"""Online answers: compiled once per request shape, then one read per entity and view.

Nothing here knows the lake; everything comes from the generation. An answer at t holds for every t at or after the
generation's instant, because what becomes visible later is in the generation too.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from featurestore.codec import KeyCodec
from featurestore.definitions import Projection
from featurestore.generations import Manifest, check_answering
from featurestore.instants import instant_micros, micros_text
from featurestore.online import OnlineStore, Reader
from featurestore.online.partial import open_readable
from featurestore.plain_lookup import PlainLookup
from featurestore.request import resolve
from featurestore.response import Found, Lookup, OnlineFeatures, Stamp
from featurestore.window_lookup import WindowLookup
from lakehouse.errors import ConflictError, RequestError, near
from lakehouse.types import Clock, utc_now

__all__ = ["Serving"]

# Beyond these numbers of shapes it is not worth remembering them: somebody makes them up.
_REQUESTS = 1_000
_SHAPES = 100

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)

Asking = Sequence[Projection] | Callable[[Manifest], Sequence[Projection]]


class Serving:
    """Answers from the current generation of an online store.

    Parameters
    ----------
    store
        Where the generations are.
    clock
        Returns the present instant, zoned UTC.
    lake
        Returns the id of the lake whose features are asked for; generations of others are refused.
    """

    def __init__(self, store: OnlineStore, clock: Clock = utc_now, *, lake: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._lake = lake
        self._open: _Generation | None = None

    def close(self) -> None:
        """Close the generation that is open, if one is."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.reader.close()

    def get(
        self,
        projections: Asking,
        entity_rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
        *,
        at: dt.datetime | str | int | None = None,
        full_feature_names: bool = False,
        key: Any = None,
    ) -> OnlineFeatures:
        """Return features of entities, one row for each entity row, in their order.

        Parameters
        ----------
        projections
            What is asked, or a function that finds that out for the generation that answers.
        entity_rows
            The join keys, row by row or column by column; None, and what pandas has for a missing value, is null.
        at
            The instant of the answer, an integer as µs since 1970 (which users can't give); None is now.
        full_feature_names
            As for `featurestore.request.resolve`.
        key
            Identifies the projections, so that they are compiled once per generation; None, or what can't be hashed,
            compiles them for this call.

        Raises
        ------
        RequestError
            If there is no generation, or it is another lake's or without views; if ``at`` is earlier than it; if a join
            key is missing or of the wrong type.
        CatalogDamagedError
            If the generation, or the file of a view that is asked, is damaged; other views go on.
        """
        generation = self._current()
        request = generation.request(projections, full_feature_names, key)
        instant = self._instant(at, generation.manifest)
        columns, rows = request.columns_of(entity_rows)
        found = request.read(generation.reader, columns, rows, instant)
        return OnlineFeatures(
            columns,
            rows,
            request.lookups,
            found,
            key_types=request.key_types,
            instant=instant,
            stamped=generation.stamp,
        )

    def _current(self) -> _Generation:
        opened = self._open
        while True:
            id_ = self._store.current_id()
            if opened is not None and opened.id == id_:
                return opened
            manifest = self._store.current()
            if manifest is None:
                raise RequestError("there is no online generation yet", hint="Build one: penstock materialize")
            check_answering(manifest, self._lake())
            try:
                # The one before is not closed but dropped: another thread may be reading it.
                opened = self._open = _Generation(manifest, open_readable(self._store, manifest), self._clock)
            except ConflictError:
                if self._store.current_id() == manifest.id:
                    raise  # else it was overtaken, and deleted, before it was open

    def _instant(self, at: dt.datetime | str | int | None, manifest: Manifest) -> int:
        if at is None:
            # This machine's clock may be a little behind that of the one which built the generation.
            return max((self._clock() - _EPOCH) // _MICROSECOND, manifest.at)
        instant = at if isinstance(at, int) else instant_micros(at)
        if instant < manifest.at:
            raise RequestError(
                f"the generation was built for {micros_text(manifest.at)} and cannot answer as of the earlier "
                f"{micros_text(instant)}",
                hint=f"Go back to it (penstock materialize --at {micros_text(instant)} --force), or ask offline.",
            )
        return instant


class _Generation:
    """An open generation with the requests that were compiled for it."""

    def __init__(self, manifest: Manifest, reader: Reader, clock: Clock) -> None:
        self.id = manifest.id
        self.manifest = manifest
        self.reader = reader
        self._clock = clock
        self._requests: dict[Any, _Request] = {}

    def request(self, projections: Asking, full_feature_names: bool, key: Any) -> _Request:
        place = (key, full_feature_names)
        try:
            known = self._requests.get(place)
        except TypeError:  # definitions hold dicts and can't be hashed
            known = key = None
        if known is not None:
            return known
        asked = projections(self.manifest) if callable(projections) else projections
        request = _Request(self.manifest, asked, full_feature_names=full_feature_names)
        if key is not None:
            if len(self._requests) >= _REQUESTS:
                self._requests.clear()
            self._requests[place] = request
        return request

    def stamp(self, instant: int) -> Stamp:
        return Stamp(self.id, self.manifest.snapshot, instant, self.manifest.built_at, self._clock)


# -- one request shape ----------------------------------------------------------------------------------------------


class _Request:
    """What is asked, compiled for one generation."""

    def __init__(self, manifest: Manifest, projections: Sequence[Projection], *, full_feature_names: bool) -> None:
        views = {name: file.view for name, file in manifest.views.items()}
        for projection in projections:
            if projection.view not in views:
                raise RequestError(
                    f"the generation has no feature view {projection.view!r}",
                    hint=near(projection.view, views, what="feature views")
                    + " New views are served after penstock apply and penstock materialize.",
                )
        asked = resolve(projections, views, full_feature_names=full_feature_names)
        self.lookups: tuple[Lookup, ...] = tuple(
            WindowLookup(one) if one.view.is_aggregate else PlainLookup(one) for one in asked
        )
        self._taken = {name.lower() for one in asked for name in one.names}
        typed = {(name, key.type): name for one in asked for name, key in zip(one.keys, one.view.keys, strict=True)}
        self._keys = tuple(dict.fromkeys(typed.values()))
        # Of a column that is several keys of different types, it is none.
        counts = Counter(typed.values())
        self.key_types = {name: type_ for name, type_ in typed if counts[name] == 1}
        # Views with the same keys are read by the same bytes.
        keyed = [(one.keys, tuple(key.type for key in one.view.keys)) for one in asked]
        self._distinct = [(names, KeyCodec(types).encode_one) for names, types in dict.fromkeys(keyed)]
        places = {one: place for place, one in enumerate(dict.fromkeys(keyed))}
        self._reads = [(lookup.read, places[one]) for lookup, one in zip(self.lookups, keyed, strict=True)]
        self._shapes: set[tuple[str, ...]] = set()

    def columns_of(self, entity_rows: Any) -> tuple[dict[str, Sequence[Any]], int]:
        """Return the entity rows column by column, and their number."""
        if type(entity_rows) is list and len(entity_rows) == 1 and type(entity_rows[0]) is dict:
            # The usual request of a server. Its columns are those of the last one.
            row = entity_rows[0]
            if tuple(row) in self._shapes:
                return _without_missing({name: [value] for name, value in row.items()}), 1
        columns = _without_missing(_columns(entity_rows, self._keys))
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise RequestError("the columns of entity_rows differ in length")
        self._check(columns)
        # Without columns each row is an empty one: everybody.
        return columns, lengths.pop() if lengths else 1 if isinstance(entity_rows, Mapping) else len(entity_rows)

    def _check(self, columns: Mapping[str, Any]) -> None:
        for name in columns:
            if not isinstance(name, str):
                raise RequestError(f"entity_rows: the names of columns are text, not {name!r}")
            if name.lower() in self._taken:
                raise RequestError(
                    f"two columns would be called {name!r}: one of entity_rows, and a feature",
                    hint="Ask for full names (--full-feature-names, in Python full_feature_names=True), give a role "
                    "a prefix, or leave the column out.",
                )
        for key in self._keys:
            if key not in columns:
                given = near(key, columns, what="columns given") if columns else "None of the keys was given."
                raise RequestError(f"entity_rows have no {key!r}", hint=f"{given} Keys: {', '.join(self._keys)}.")
        if columns and len(self._shapes) < _SHAPES:
            self._shapes.add(tuple(columns))

    def read(self, reader: Reader, columns: Mapping[str, Sequence[Any]], rows: int, instant: int) -> list[Found]:
        """Return what the lookups find of the entities."""
        keys = [_encoded(encode, names, columns, rows) for names, encode in self._distinct]
        return [read(reader, keys[place], instant) for read, place in self._reads]


def _columns(entity_rows: Any, keys: Sequence[str]) -> dict[str, Sequence[Any]]:
    if isinstance(entity_rows, Mapping):
        for name, values in entity_rows.items():
            if isinstance(values, str | bytes) or not isinstance(values, Sequence):
                raise RequestError(
                    f"entity_rows: {name!r} must be a list of values, not {values!r}",
                    hint="Write one entity as [{…}] and many as {column: [values]}.",
                )
        return dict(entity_rows)
    if hasattr(entity_rows, "__arrow_c_stream__"):
        import pyarrow as pa

        return dict(pa.table(entity_rows).to_pydict())
    if not isinstance(entity_rows, Sequence) or isinstance(entity_rows, str | bytes):
        raise RequestError("entity_rows must be a list of dicts, or a dict of lists")
    first = entity_rows[0] if entity_rows else dict.fromkeys(keys)
    names = list(first) if isinstance(first, Mapping) else []
    known = set(names)
    for place, row in enumerate(entity_rows):
        if not isinstance(row, Mapping):
            raise RequestError(f"entity_rows: row {place + 1} is no dict but {row!r}")
        if row.keys() != known:
            odd = min(known.symmetric_difference(row), key=str)
            raise RequestError(f"entity_rows: row {place + 1} differs from the first in its columns: {odd!r}")
    return {name: [row[name] for row in entity_rows] for name in names}


def _without_missing(columns: dict[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Return columns with None where pandas has a missing value of its own; who has one has imported pandas."""
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return columns
    na, nat = getattr(pandas, "NA", None), getattr(pandas, "NaT", None)
    return {
        name: [None if value is na or value is nat else value for value in values] for name, values in columns.items()
    }


def _encoded(
    encode: Callable[[Sequence[Any]], bytes | None],
    names: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    rows: int,
) -> list[bytes | None]:
    if rows == 1:
        return [encode([columns[name][0] for name in names])]
    if not names:
        return [encode(())] * rows
    return [encode(values) for values in zip(*(columns[name] for name in names), strict=True)]
