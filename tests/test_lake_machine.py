"""A lake driven at random, against a plain Python model of it: land, promote, roll back, tag, reopen."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lakehouse import Lake

MODEL = """
-- @max_quarantine 100%
create table warehouse.items (id bigint primary key, price decimal(10,2) not null check (price >= 0));
insert or replace into warehouse.items
select id, price from lake.items where id < 9; -- @since load(lake.items)
"""
NAMES = ("a.csv", "b.csv", "c.csv")
RECORDS = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from(["-1.00", "0.50", "2.25", "2.255"])), min_size=1, max_size=4
)

Content = tuple[tuple[int, str], ...]


class State(NamedTuple):
    """What one snapshot holds."""

    landed: tuple[tuple[str, Content], ...] = ()
    table: tuple[tuple[int, str], ...] | None = None


def visible(state: State) -> list[Content]:
    """The newest content of each file, once, in the order in which contents landed first."""
    newest = dict(state.landed)
    first_seen = list(dict.fromkeys(content for _, content in state.landed))
    return [content for content in first_seen if content in newest.values()]


def promoted(state: State) -> tuple[tuple[int, str], ...]:
    """Later rows win their key; what the contract refuses stays out."""
    rows = (row for content in visible(state) for row in content)
    table = {key: price for key, price in rows if key < 9 and price in ("0.50", "2.25")}
    return tuple(sorted(table.items()))


class LakeMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        (self.root / "penstock.toml").write_text("[resources]\nthreads = 1\n")
        (self.root / "sql" / "warehouse").mkdir(parents=True)
        (self.root / "sql" / "warehouse" / "items.sql").write_text(MODEL)
        self.lake = Lake(self.root)
        self.lake.catalog.create()
        self.states = [State()]
        self.tags: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    @property
    def now(self) -> State:
        return self.states[-1]

    @rule(files=st.dictionaries(st.sampled_from(NAMES), RECORDS, min_size=1))
    def land(self, files: dict[str, list[tuple[int, str]]]) -> None:
        landed = list(self.now.landed)
        for name in sorted(files):
            content = tuple(files[name])
            text = "id,price\n" + "".join(f"{key},{price}\n" for key, price in content)
            (self.root / name).write_text(text)
            if dict(landed).get(name) != content:
                landed.append((name, content))
        report = self.lake.land("items", [self.root / name for name in files])
        new = len(landed) - len(self.now.landed)
        assert sum(file.status != "unchanged" for file in report.files) == new
        if new:
            self.states.append(self.now._replace(landed=tuple(landed)))
        assert report.snapshot == len(self.states) - 1

    @precondition(lambda self: self.now.landed)
    @rule()
    def promote(self) -> None:
        report = self.lake.promote()
        if report.snapshot is None:
            assert self.now.table == promoted(self.now)
            return
        (table,) = report.tables
        assert table.landed == (
            table.malformed + table.hidden + table.filtered + table.quarantined + table.replaced + table.good
        )
        self.states.append(self.now._replace(table=promoted(self.now)))
        assert report.snapshot == len(self.states) - 1

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.states) - 1))
        self.lake.rollback(number)
        self.states.append(self.states[number])

    @rule(data=st.data(), name=st.sampled_from(["one", "two", "three"]))
    def tag(self, data: st.DataObject, name: str) -> None:
        number = data.draw(st.integers(0, len(self.states) - 1))
        if name in self.tags:
            self.lake.delete_tag(name)
        self.lake.tag(name, number)
        self.tags[name] = number

    @rule()
    def reopen(self) -> None:
        self.lake = Lake(self.root)

    @rule(data=st.data())
    def read_the_past(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.states) - 1))
        self.check(self.states[number], number)
        for name, tagged in self.tags.items():
            self.check(self.states[tagged], name)

    @invariant()
    def read_the_present(self) -> None:
        self.check(self.now, None)

    def check(self, state: State, as_of: int | str | None) -> None:
        if state.landed:
            rows = self.lake.sql("select id, price from lake.items", as_of=as_of).fetchall()
            expected = [(key, price) for content in visible(state) for key, price in content]
            assert sorted((key, float(price)) for key, price in rows) == sorted((k, float(p)) for k, p in expected)
        if state.table is not None:
            rows = self.lake.sql("select id, price::varchar from warehouse.items order by id", as_of=as_of).fetchall()
            assert tuple(rows) == state.table


LakeMachine.TestCase.settings = settings(
    max_examples=6,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking a lake takes minutes; do it by hand
)
TestLake = LakeMachine.TestCase
