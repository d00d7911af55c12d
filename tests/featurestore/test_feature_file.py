"""``features.py``: what is found in it, and how its faults are told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from featurestore.definitions import Entity, Feature, FeatureService, FeatureView
from featurestore.feature_file import collect, load_features
from lakehouse.errors import DefinitionError

HEAD = "from featurestore.definitions import Aggregate, Entity, Feature, FeatureService, FeatureView\n"
VIEW = "FeatureView('v', 'warehouse.t', [Entity('zone')], [Feature('f')], event_timestamp='at')"


def loaded(tmp_path: Path, text: str) -> list:
    path = tmp_path / "features.py"
    path.write_text(HEAD + text)
    return load_features(path)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        loaded(tmp_path, text)
    assert caught.value.__cause__ is None
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def test_all_that_is_defined_is_found_in_order(tmp_path: Path):
    found = loaded(
        tmp_path,
        f"""
b = Entity("b")
many = [Entity("c"), (1, "x")]
service = FeatureService("s", ["v:f"])
view = {VIEW}
a = Entity("a")
also_b = b
number = 7
""",
    )
    assert [(type(each), each.name) for each in found] == [
        (Entity, "b"),
        (Entity, "c"),
        (Entity, "zone"),
        (Entity, "a"),
        (FeatureView, "v"),
        (FeatureService, "s"),
    ]


@pytest.mark.parametrize("taken", ["", "[['f']]", ".on(zone='pickup')", ".on(zone='pickup')[['f']]"])
def test_what_a_service_stands_on_comes_along(tmp_path: Path, taken: str):
    found = loaded(tmp_path, f"service = FeatureService('s', [{VIEW}{taken}])")
    assert [each.name for each in found] == ["zone", "v", "s"]


def test_two_different_ones_of_a_name_are_refused_by_their_names(tmp_path: Path):
    message = refused(tmp_path, "one = Entity('zone')\ntwo = [Entity('zone', owner='me')]")
    assert "entity 'zone': there are two different ones: one and two[0]" in message
    assert "one and the one in feature view 'v'" in refused(tmp_path, f"one = Entity('zone', owner='me')\nv = {VIEW}")
    assert len(loaded(tmp_path, "one = Entity('zone')\ntwo = Entity('zone')")) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise BaseException('oh')\n", ["features.py:2: BaseException: oh"]),
        ("x = (\n", ["features.py:2: syntax error"]),
        ("\nx = 1 +\n", ["features.py:3: syntax error"]),
        ("\n\nimport nothing_like_it\n", ["features.py:4: ModuleNotFoundError: No module named 'nothing_like_it'"]),
        ("def f():\n  return 1 / 0\nf()\n", ["features.py:3: ZeroDivisionError: division by zero"]),
        ("raise SystemExit('no')\n", ["features.py:2: SystemExit: no"]),
        ("raise KeyError\n", ["features.py:2: KeyError"]),
        ("x = Entity('no name')\n", ["features.py:2: entity 'no name': 'no name' is not a name", "Letters"]),
        ("x = 'é\n", ["syntax error"]),
    ],
)
def test_faults_have_file_and_line(tmp_path: Path, text: str, words: list[str]):
    message = refused(tmp_path, text)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("from featurestore import Aggregate, Featur\n", "ImportError: cannot import name 'Featur'"),
        ("from featurestore.definitions import Duration, nothing\n", "ImportError: cannot import name 'nothing'"),
    ],
)
def test_names_that_a_module_has_not_are_no_missing_modules(tmp_path: Path, text: str, words: str):
    message = refused(tmp_path, text)
    assert words in message
    assert "beside the file" not in message


@pytest.mark.parametrize(
    "text", ["Entity('zone')", "if True:\n  Entity('zone')", "import featurestore as f\nf.Entity('zone')"]
)
def test_a_definition_without_a_name_in_the_file_is_refused(tmp_path: Path, text: str):
    message = refused(tmp_path, f"{text}\n")
    assert f"features.py:{1 + len(text.splitlines())}: this Entity is made and dropped" in message
    assert "something = Entity(…)" in message
    assert loaded(tmp_path, "print(Entity('zone'))\nall = [Entity('zone')]\nall.append(Entity('city'))") != []


def test_what_it_prints_is_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    loaded(tmp_path, "print('hello')\n")
    assert capsys.readouterr() == ("", "hello\n")


def test_bytes_that_are_no_python(tmp_path: Path):
    path = tmp_path / "features.py"
    for data in (b"x = '\xff'", b"\0", b"# coding: nothing\n"):
        path.write_bytes(data)
        with pytest.raises(DefinitionError, match=r"features\.py"):
            load_features(path)


def test_no_file_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(DefinitionError) as caught:
        load_features(tmp_path / "features.py")
    assert "features.py: there is no such file" in str(caught.value)
    assert 'Entity("zone", join_keys=["pickup_zone"])' in str(caught.value)
    with pytest.raises(DefinitionError, match="cannot be read"):
        load_features(tmp_path)


def test_modules_beside_it_are_read_anew_and_nothing_stays_behind(tmp_path: Path):
    beside = tmp_path / "entities_of_mine.py"
    package = tmp_path / "package_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("from package_of_mine.inner import name\n")
    (package / "inner.py").write_text("name = 'city'\n")
    text = "from entities_of_mine import zone\nimport package_of_mine\ncity = Entity(package_of_mine.name)\n"
    path, modules = list(sys.path), set(sys.modules)
    for owner in ("me", "someone else"):
        beside.write_text(f"{HEAD}zone = Entity('zone', owner={owner!r})\n")
        assert [(each.name, each.owner) for each in loaded(tmp_path, text)] == [("zone", owner), ("city", "")]
        assert sys.path == path
        assert not {name for name in set(sys.modules) - modules if "of_mine" in name}
    beside.write_text("\n1 / 0\n")
    assert "entities_of_mine.py:2: ZeroDivisionError" in refused(tmp_path, text)
    beside.write_text("(\n")
    assert "entities_of_mine.py:1: syntax error" in refused(tmp_path, text)
    assert sys.path == path


def test_it_may_define_classes_and_know_its_place(tmp_path: Path):
    text = """
from __future__ import annotations
from dataclasses import dataclass
from pathlib import Path
@dataclass
class Named:
    name: str
zone = Entity(Named(Path(__file__).stem).name)
if __name__ == "__main__":
    raise ValueError
"""
    path = tmp_path / "features.py"
    path.write_text(text.replace("from dataclasses", HEAD + "from dataclasses"))
    assert [each.name for each in load_features(path)] == ["features"]


def test_collecting_objects():
    zone = Entity("zone")
    view = FeatureView("v", "t", [zone], [Feature("f")], "at")
    given = collect([FeatureService("s", [view]), zone])
    assert (given.entities, given.views) == ({"zone": zone}, {"v": view})
    assert [each.name for each in given.all()] == ["zone", "v", "s"]
    with pytest.raises(DefinitionError, match=r"objects\[1\] is no definition: int"):
        collect([zone, 1])
    assert collect(view).views == {"v": view}
    with pytest.raises(DefinitionError, match="must be a list"):
        collect("v")
