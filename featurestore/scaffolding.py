"""The texts of a new project, for the columns of somebody's own files: model, features, README."""

from __future__ import annotations

import datetime as dt
import json
import keyword
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from lakehouse.types import quote, quote_literal

__all__ = ["Sample", "SampleColumn", "example_files", "project_files", "readable"]

TEMPLATES = Path(__file__).parent / "template"

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ID_LIKE = re.compile(
    r"(?:\A|[^A-Za-z]|(?<=[a-z])(?=I))(?:id|uuid|guid|key|code|number|nr|no|zip|phone)\Z", re.IGNORECASE
)
_SUMMABLE = re.compile(r"bigint|decimal\(\d+,\d+\)")
_MEASURES = 2
_WINDOWS = ("7d", "30d")


@dataclass(frozen=True)
class SampleColumn:
    """A column of a source, and what the model makes of it.

    Parameters
    ----------
    name
        As in ``lake.<source>``.
    type
        As landing inferred it; ``unknown`` if it has no value.
    column
        Its name in the model: the same, unless that is one of Penstock's own.
    """

    name: str
    type: str
    column: str

    @property
    def id_like(self) -> bool:
        """Whether its name says that its values name something, and so are not to be summed up."""
        return bool(_ID_LIKE.search(self.name))


@dataclass(frozen=True)
class Sample:
    """What is known about the files that a project is made for.

    Parameters
    ----------
    source
        The source's name, and the model's.
    files
        What ``penstock.toml`` says about where they are.
    columns
        In order.
    primary_key
        The column whose values are all there and all different; None takes the record's own id.
    entity
        The column that says whom features describe, if it was named.
    example
        A value of it, as text.
    last
        The latest instant in the first column of instants or days.
    timezone
        The declared zone of local times.
    reserved
        SQL's words that need quotes as names, or are functions without them, in lower case.
    """

    source: str
    files: str
    columns: tuple[SampleColumn, ...]
    primary_key: SampleColumn | None
    entity: SampleColumn | None
    example: str | None
    last: dt.datetime | None
    timezone: str | None
    reserved: Collection[str]

    @property
    def time(self) -> SampleColumn | None:
        """The column that features take as their event timestamp: of instants, or else of days."""
        return self._first("timestamptz") or self._first("date")

    @property
    def local_times(self) -> list[SampleColumn]:
        """The columns of times without a zone."""
        return [column for column in self.columns if column.type == "timestamp"]

    def sql(self, name: str) -> str:
        """Return a name as SQL needs it."""
        return name if _PLAIN.match(name) and name.lower() not in self.reserved else quote(name)

    @property
    def table(self) -> str:
        """The model's table, as SQL needs it."""
        return f"warehouse.{self.sql(self.source)}"

    @property
    def instant(self) -> str:
        """SQL for the instant of a row: that of the column of times; a day's is its first moment."""
        time = self.time
        if time is None:
            return "null"
        column = self.sql(time.column)
        zone = quote_literal(self.timezone or "UTC")
        return column if time.type == "timestamptz" else f"cast({column} as timestamp) at time zone {zone}"

    def _first(self, type_: str) -> SampleColumn | None:
        return next((column for column in self.columns if column.type == type_), None)


def readable(text: str) -> str:
    """Return a text on one line, for comments."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


# -- projects ----------------------------------------------------------------------------------------------------------


def example_files() -> dict[str, str]:
    """Return the files of a project with data of its own, by path."""
    example = TEMPLATES / "example"
    files = {
        path: _read(example / name)
        for path, name in (
            ("data/orders.csv", "data/orders.csv"),
            ("sql/warehouse/orders.sql", "sql/warehouse/orders.sql"),
            ("features.py", "features.py.txt"),
        )
    }
    features = _filled(
        "README.features.md",
        service="customer_profile",
        spine='"select customer_id, ordered_at as event_timestamp from warehouse.orders"',
        timestamp="",
        key="customer_id",
        instant="event_timestamp",
        entity="customer_id=7",
        at=" --at 2026-02-01T00:00:00Z",
    )
    return {
        **files,
        **_frame("orders", '"data/orders*.csv"', ()),
        "README.md": _readme(
            title="Orders",
            source="orders",
            select='"select country, count(*) as orders, sum(amount) as amount from warehouse.orders group by country"',
            described="`data/orders*.csv`",
            features=features,
            own="Your own data",
            last=_filled("README.own.md", table="orders"),
        ),
    }


def project_files(sample: Sample) -> dict[str, str]:
    """Return the files of a project for somebody's own files, by path."""
    options = [f"timezone = {_toml(sample.timezone)} # of times without a zone"] if sample.timezone else []
    return {
        f"sql/warehouse/{sample.source}.sql": model_sql(sample),
        "features.py": features_py(sample),
        **_frame(sample.source, _toml(sample.files), options),
        "README.md": _readme(
            title=sample.source,
            source=sample.source,
            select=_shell(f"select * from {sample.table} limit 5"),
            described="the files that `penstock.toml` names",
            features=_features_readme(sample),
            own="More data",
            last=_filled("README.next.md", source=sample.source),
        ),
    }


def _frame(source: str, files: str, options: Sequence[str]) -> dict[str, str]:
    settings = _filled("penstock.toml", source=source, files=files, options="\n".join(options))
    return {"penstock.toml": f"{settings.rstrip()}\n", ".gitignore": _read(TEMPLATES / "gitignore")}


def _readme(*, source: str, last: str, **texts: str) -> str:
    return _filled("README.md", source=source, table=source, **texts).rstrip() + f"\n\n{last}"


def _features_readme(sample: Sample) -> str:
    if sample.entity is None or sample.time is None:
        why = "No column was named whom features shall describe (`--key`)." if sample.time else _no_time(sample)
        return _filled("README.nofeatures.md", why=why)
    at = f" --at {sample.last:%Y-%m-%dT%H:%M:%SZ}" if sample.last else ""
    key = sample.entity.column
    instant = _free("event_timestamp", {key.lower()})
    entity = _shell_word(f"{key}={sample.example or ''}")
    return _filled(
        "README.features.md",
        service=_service(sample),
        spine=_shell(f"select {sample.sql(key)}, {sample.instant} as {instant} from {sample.table}"),
        timestamp="" if instant == "event_timestamp" else f" --timestamp {instant}",
        key=readable(key),
        instant=instant,
        entity=f"-- {entity}" if key.startswith("-") else entity,
        at=at,
    )


def _no_time(sample: Sample) -> str:
    if sample.local_times:
        return "The times have no zone, so nobody knows which instants they are (see the model)."
    return "There is no column of instants or days, and features need to know when something became true."


# -- SQL ---------------------------------------------------------------------------------------------------------------


def model_sql(sample: Sample) -> str:
    """Return the model: a contract of exactly the columns, and the query that fills it."""
    source = f"lake.{sample.sql(sample.source)}"
    key = sample.primary_key
    what = f"one per {readable(key.name)}" if key else "one per record"
    lines = [f"-- The rows of {source}, {what}."]
    columns = [(sample.sql(c.column), c.type, " primary key" if c == key else "", _note(c)) for c in sample.columns]
    picked = [
        sample.sql(c.name) if c.name == c.column else f"{sample.sql(c.name)} as {sample.sql(c.column)}"
        for c in sample.columns
    ]
    if key is None:
        lines.append("-- No column identifies a row, as far as this file shows: the record's own id does.")
        own = _free("record_id", {c.column.lower() for c in sample.columns})
        columns.insert(0, (own, "varchar", " primary key", ""))
        picked.insert(0, f"_record_id as {own}")
    width = max(len(name) for name, *_ in columns)
    body = [
        f"  {name:<{width}} {'varchar' if type_ == 'unknown' else type_}{constraint}"
        f"{'' if place == len(columns) - 1 else ','}{note}"
        for place, (name, type_, constraint, note) in enumerate(columns)
    ]
    return "\n".join(
        [
            *lines,
            f"create table {sample.table} (",
            *body,
            ");",
            "",
            *(["-- Of two rows with one key, that of the later file wins."] if key else []),
            f"insert or replace into {sample.table}",
            "select",
            ",\n".join(f"  {item}" for item in picked),
            f"from {source}; -- @since load(lake.{sample.source})",
            "",
        ]
    )


def _note(column: SampleColumn) -> str:
    if column.type == "timestamp":
        return (
            ' -- local times of an unknown zone: say timezone = "…" in penstock.toml before the first landing, '
            "and timestamptz here"
        )
    return " -- no value yet: give it its type" if column.type == "unknown" else ""


def _free(name: str, taken: Collection[str]) -> str:
    candidate, number = name, 2
    while candidate.lower() in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


# -- Python ------------------------------------------------------------------------------------------------------------


def features_py(sample: Sample) -> str:
    """Return the feature definitions: an entity, a view of aggregates, a service; in comments if it can't be said."""
    entity, time = sample.entity, sample.time
    if entity is None or time is None:
        return _commented(sample)
    stem = _stem(entity)
    view = f"{stem}_{sample.source}"
    daily = time.type == "date"
    instant, source = time.column, f"warehouse.{sample.source}"
    if daily:
        instant = _free("event_timestamp", {column.column.lower() for column in sample.columns})
        source = f"select *, {sample.instant} as {instant} from {sample.table}"
    closed = (
        ["# A day is known when it is over.", '    delay="1d",']
        if daily
        else ['# closed="left": a row does not count towards what was known before it.', '    closed="left",']
    )
    lines = [
        f'"""What is known about each {stem.replace("_", " ")} at an instant."""',
        "",
        "from featurestore import Aggregate, Entity, FeatureService, FeatureView",
        "",
        f"{stem} = Entity({_python(stem)}, join_keys=[{_python(entity.column)}])",
        "",
        closed[0],
        f"{view} = FeatureView(",
        f"    {_python(view)},",
        f"    entities=[{stem}],",
        f"    source={_python(source)},",
        f"    event_timestamp={_python(instant)},",
        closed[1],
        "    features=[",
        *(f"        {aggregate}," for aggregate in _aggregates(sample, entity)),
        "    ],",
        ")",
        "",
        f"{_service(sample)} = FeatureService({_python(_service(sample))}, features=[{view}])",
        "",
    ]
    return "\n".join(lines)


def _aggregates(sample: Sample, entity: SampleColumn) -> list[str]:
    """Return a count of events, and sum and mean, or the extremes of what cannot be summed exactly, of some numbers."""
    windows = json.dumps(list(_WINDOWS))
    taken = {entity.column.lower()}
    counted = _claim(sample.source, taken)
    found = [f'Aggregate({_python(counted)}, "count", windows={windows})']
    numbers = [
        column
        for column in sample.columns
        if column not in (entity, sample.primary_key)
        and not column.id_like
        and (column.type == "double" or _SUMMABLE.match(column.type))
    ]
    numbers.sort(key=lambda column: not column.type.startswith("decimal"))  # amounts say more than counts
    for column in numbers[:_MEASURES]:
        functions = ("min", "max") if column.type == "double" else ("sum", "mean")
        for function in functions:
            name = _claim(f"{_identifier(column.column)}_{function}", taken)
            found.append(
                f'Aggregate({_python(name)}, "{function}", column={_python(column.column)}, windows={windows})'
            )
    return found


def _claim(name: str, taken: set[str]) -> str:
    free = _free(_identifier(name), taken)
    taken.add(free.lower())
    return free


def _commented(sample: Sample) -> str:
    keys = [column for column in sample.columns if column.type in ("bigint", "varchar")]
    key = _python(keys[0].column if keys else "KEY")
    time = _python(sample.time.column if sample.time else "TIME")
    example = f"""\
from featurestore import Aggregate, Entity, FeatureService, FeatureView

thing = Entity("thing", join_keys=[{key}])
thing_events = FeatureView(
    "thing_events",
    entities=[thing],
    source={_python(f"warehouse.{sample.source}")},
    event_timestamp={time},
    closed="left",
    features=[Aggregate("events", "count", windows=["7d", "30d"])],
)
thing_profile = FeatureService("thing_profile", features=[thing_events])
"""
    commented = "\n".join(f"# {line}".rstrip() for line in example.splitlines())
    need = "whom they describe (a column that identifies it), and when something became true (a column of instants)"
    return f'"""The features of this project: none yet."""\n\n# Features need to know {need}:\n#\n{commented}\n'


def _stem(entity: SampleColumn) -> str:
    stem = _identifier(entity.column).lower()
    shorter = re.sub(r"_?(?:id|uuid|guid|key|code|number|nr|no)\Z", "", stem)
    return shorter if _PLAIN.match(shorter) and not keyword.iskeyword(shorter) else f"{stem}_entity"


def _service(sample: Sample) -> str:
    what = "features" if sample.source == "profile" else "profile"  # the view's name ends with the source's
    return f"{_stem(sample.entity)}_{what}" if sample.entity else what


def _identifier(name: str) -> str:
    """Return a name of letters, digits and underscores."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "column"
    return f"n_{plain}" if plain[0].isdigit() else plain


def _python(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# -- other languages ---------------------------------------------------------------------------------------------------


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _shell(text: str) -> str:
    """Return an argument for a POSIX shell, in double quotes where that is possible."""
    return shlex.quote(text) if set('"$`\\!') & set(text) else f'"{text}"'


def _shell_word(text: str) -> str:
    return text if re.fullmatch(r"[\w=.,:@%+-]+", text) else shlex.quote(text)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _filled(name: str, **texts: str) -> str:
    return Template(_read(TEMPLATES / name)).substitute(texts)
