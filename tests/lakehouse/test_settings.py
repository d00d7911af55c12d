"""``penstock.toml``: what is read, what is refused, and how the refusal reads."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.errors import PenstockError, ProjectError, SettingsError
from lakehouse.settings import Settings, bare_settings, find_project, load_settings, memory_bytes

FULL = """
[lake]
uri = "data/lake"
[paths]
sql = "models"
[resources]
memory = "2GB"
threads = 3
[sql]
timezone = "Europe/Berlin"
[sources.yellow_trips]
files = "data/yellow_*.csv.gz"
timezone = "America/New_York"
[sources.zones]
files = ["zones.csv", "/abs/zones.csv", "s3://bucket/zones.csv"]
delimiter = ";"
quote = "'"
header = true
on_change = "add"
on_same_content = "land"
[env.prod]
lake.uri = "s3://bucket/lake"
lake.protected = true
sources.zones.on_change = "replace"
[env.test.resources]
threads = 1
"""


@pytest.fixture
def project(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "penstock.toml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def refused(project: Path, **options) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(project, **options)
    error = caught.value
    assert error.where is not None
    assert "penstock.toml" in error.where
    return f"{error.where.rpartition('/')[2]}: {error.what}; {error.hint}"


def test_everything_is_read(project):
    root = project(FULL).resolve()
    settings = load_settings(root)
    assert settings.project == root
    assert settings.lake.uri == str(root / "data/lake")
    assert settings.lake.protected is False
    assert settings.paths.sql == root / "models"
    assert (settings.resources.memory, settings.resources.threads) == ("2GB", 3)
    assert settings.sql.timezone == "Europe/Berlin"
    assert list(settings.sources) == ["yellow_trips", "zones"]
    yellow, zones = settings.sources.values()
    assert yellow.files == (str(root / "data/yellow_*.csv.gz"),)
    assert (yellow.timezone, yellow.on_change, yellow.on_same_content) == ("America/New_York", "replace", "skip")
    assert (yellow.delimiter, yellow.quote, yellow.header) == (None, None, None)
    assert zones.files == (str(root / "zones.csv"), "/abs/zones.csv", "s3://bucket/zones.csv")
    assert (zones.delimiter, zones.quote, zones.header, zones.on_change) == (";", "'", True, "add")


def test_an_empty_file_is_a_project_with_defaults(project):
    root = project("").resolve()
    settings = load_settings(root)
    assert settings.lake.uri == str(root / ".penstock")
    assert settings.paths.sql == root / "sql"
    assert settings.resources.threads == os.cpu_count()
    assert 0 < memory_bytes(settings.resources.memory) <= 4_000_000_000
    assert settings.sources == {}


def test_an_overlay_changes_only_what_it_names(project):
    root = project(FULL)
    plain, prod, test = (load_settings(root, env=env) for env in (None, "prod", "test"))
    assert (prod.lake.uri, prod.lake.protected) == ("s3://bucket/lake", True)
    assert prod.sources["zones"].on_change == "replace"
    assert prod.sources["zones"].delimiter == ";"
    assert prod.resources == plain.resources
    assert (test.resources.threads, test.resources.memory, test.lake) == (1, "2GB", plain.lake)


def test_protected_may_stand_without_its_table_in_an_overlay(project):
    assert load_settings(project("[env.prod]\nprotected = true"), env="prod").lake.protected is True


def test_settings_cannot_be_changed(project):
    settings = load_settings(project(FULL))
    with pytest.raises(AttributeError):
        settings.lake.uri = "elsewhere"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[lake]\nury = 'x'", "penstock.toml: unknown key [lake] ury; Did you mean uri?"),
        ("[sources.a]\nfile = 'x'", "penstock.toml: unknown key [sources.a] file; Did you mean files?"),
        ("[env.p]\nlake.ury = 'x'", "penstock.toml: unknown key [env.p.lake] ury; Did you mean uri?"),
        ("[soruces.a]", "penstock.toml: unknown table [soruces]; Did you mean "),
        ("[env.p.source.a]", "penstock.toml: unknown table [env.p.source]; Did you mean "),
        ("lake = 3", "penstock.toml: lake must be a table, [lake]; None"),
        ("env = 3", "penstock.toml: env must be a table, [env]; None"),
        ("env.p = 3", "penstock.toml: env.p must be a table, [env.p]; None"),
        ("[env.p]\nprotected = true\nlake = 1", "penstock.toml: unknown key env.p.protected; "),
        ("sources.a = 'x.csv'", "penstock.toml: sources.a must be a table, [sources.a]; None"),
        ("[lake]\nuri = 3", "penstock.toml: [lake] uri: must be text, not a number; None"),
        ("[lake]\nuri = ''", "penstock.toml: [lake] uri: is empty; Name a directory or a URI."),
        (
            "[online]\npath = 's3://bucket/x'",
            "penstock.toml: [online] path: 's3://bucket/x' is no directory of this machine; Name a directory",
        ),
        ("[online]\npath = 'file:///x'", "penstock.toml: [online] path: 'file:///x' is no directory of this machine;"),
        ("[online]\npath = ''", "penstock.toml: [online] path: is the project's own directory; Name a directory"),
        ("[online]\npath = './.'", "penstock.toml: [online] path: is the project's own directory; Name a directory"),
        ("[lake]\nprotected = 'yes'", "penstock.toml: [lake] protected: must be true or false, not text; None"),
        (
            "[sources.a]\nheader = 'no'",
            "penstock.toml: [sources.a] header: must be true or false, not text; None",
        ),
        (
            "[resources]\nthreads = 0",
            "penstock.toml: [resources] threads: must be a whole number, 1 or more, not 0; None",
        ),
        ("[resources]\nmemory = '4'", "penstock.toml: [resources] memory: '4' is not an amount of memory; Write it"),
        (
            "[sources.a]\non_change = 'ad'",
            "penstock.toml: [sources.a] on_change: must be replace or add, not 'ad'; None",
        ),
        (
            "[sources.a]\non_same_content = 'x'",
            "penstock.toml: [sources.a] on_same_content: must be skip or land, not 'x'; None",
        ),
        (
            "[sources.a]\non_change = 1",
            "penstock.toml: [sources.a] on_change: must be replace or add, not 1; None",
        ),
        (
            "[sources.a]\nfiles = 3",
            "penstock.toml: [sources.a] files: must be text or a list of texts, not a number; None",
        ),
        ("[sources.a]\nfiles = ['x', {}]", "penstock.toml: [sources.a] files[1]: must be text, not a table; None"),
        ("[sources.a]\nheader = []", "penstock.toml: [sources.a] header: must be true or false, not a list; None"),
        ("[paths]\nsql = true", "penstock.toml: [paths] sql: must be text, not true; None"),
        ("[sql]\ntimezone = 2020-01-01", "penstock.toml: [sql] timezone: must be text, not a date or time; None"),
        (
            "[resources]\nthreads = '4'",
            "penstock.toml: [resources] threads: must be a whole number, 1 or more, not '4'",
        ),
        ("[sources.a]\nfiles = [1]", "penstock.toml: [sources.a] files[0]: must be text, not a number; None"),
        (
            "[sources.a]\ndelimiter = '||'",
            "penstock.toml: [sources.a] delimiter: must be one ASCII character, not '||'",
        ),
        ("[sources.a]\nquote = '§'", "penstock.toml: [sources.a] quote: must be one ASCII character, not '§'"),
        ("[sources.a]\nquote = ';'\ndelimiter = ';'", "penstock.toml: [sources.a] quote: is the delimiter too"),
        ("[sources.Trips]", "penstock.toml: [sources] 'Trips' cannot be a source's name; Lower-case"),
        ("[sources.'a.b']", "penstock.toml: [sources] 'a.b' cannot be a source's name"),
        (
            "[sources.a]\ntimezone = 'America/NewYork'",
            "penstock.toml: [sources.a] timezone: 'America/NewYork' is not a time zone; Did you mean America/New_York",
        ),
        ("[sql]\ntimezone = 'America'", "penstock.toml: [sql] timezone: 'America' is not a time zone;"),
        ("[sql]\ntimezone = '../../etc'", "penstock.toml: [sql] timezone: '../../etc' is not a time zone;"),
        ("[lake]\nuri = = 1", "penstock.toml:2:7: this is not TOML: invalid value; None"),
        ("[lake", "penstock.toml: this is not TOML: expected ']' at the end of a table declaration"),
        ("[lake]\nuri = '${env:NOT_SET}'", "penstock.toml: [lake] uri: the variable NOT_SET is not set; Set it"),
        ("[lake]\nuri = '${file:gone}'", "penstock.toml: [lake] uri: the file gone cannot be read: No such file"),
        ("[lake]\nuri = '${HOME}'", "penstock.toml: [lake] uri: ${HOME} is not a reference; Write ${env:NAME}"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(project, text, message):
    assert refused(project(text), environ={}).startswith(message)


def test_an_unknown_environment_is_named_with_near_matches(project):
    assert "there is no environment [env.prd]; Did you mean prod?" in refused(project(FULL), env="prd")


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "penstock.toml").write_bytes(b"[lake]\nuri = '\xff'")
    assert "byte 15 is not UTF-8" in refused(tmp_path)


def test_references_are_expanded_everywhere(project):
    root = project(
        "[lake]\nuri = 's3://${env:BUCKET}/${file:part.txt}'\n[sources.a]\nfiles = ['${env:BUCKET}/a.csv']\n"
        "[env.other]\nlake.uri = '${env:UNUSED}'"
    )
    (root / "part.txt").write_text("deep/er\n", encoding="utf-8")
    settings = load_settings(root, environ={"BUCKET": "b1"})
    assert settings.lake.uri == "s3://b1/deep/er"
    assert settings.sources["a"].files == (str(root.resolve() / "b1/a.csv"),)


@pytest.mark.parametrize(
    "uri",
    [
        "redis://user:hunter2@host/0",
        "redis://:hunter2@host/0",
        "postgresql://${env:USER}:hunter2@host/db",
        "postgresql://host/db?user=me&password=hunter2",
        "https://host/x?SIG=hunter2",
        "redis://user:${env:HALF}hunter2@host",
    ],
)
@pytest.mark.parametrize("table", ["lake", "env.prod.lake"])
def test_a_literal_password_is_refused_and_not_repeated(project, table, uri):
    message = refused(project(f"[{table}]\nuri = '{uri}'"), environ={"USER": "u", "HALF": "h"})
    assert f"[{table}] uri holds a password" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "uri", ["postgresql://${env:USER}:${env:WORD}@host/db", "redis://host:6379/0", "s3://bucket/at@sign:x"]
)
def test_a_uri_without_a_literal_password_is_let_pass(project, uri):
    settings = load_settings(project(f"[lake]\nuri = '{uri}'"), environ={"USER": "u", "WORD": "w"})
    assert settings.lake.uri == uri.replace("${env:USER}", "u").replace("${env:WORD}", "w")


def test_relative_globs_escape_the_project_directory(tmp_path):
    root = tmp_path / "odd[1]"
    root.mkdir()
    (root / "penstock.toml").write_text("[sources.a]\nfiles = ['*.csv', 'one.csv']", encoding="utf-8")
    (root / "one.csv").write_text("a\n", encoding="utf-8")
    globbed, plain = load_settings(root).sources["a"].files
    assert list(Path("/").glob(globbed.removeprefix("/"))) == [Path(plain)]


def test_a_project_is_found_upwards(project):
    root = project("").resolve()
    deep = root / "a" / "b"
    deep.mkdir(parents=True)
    assert find_project(deep) == root
    assert find_project(root / "penstock.toml") == root


def test_no_project_is_a_clear_error(tmp_path):
    with pytest.raises(ProjectError, match=r"no penstock\.toml here or above") as caught:
        find_project(tmp_path)
    assert caught.value.hint is not None
    assert "--project" in caught.value.hint
    with pytest.raises(ProjectError, match=r"no penstock\.toml in this directory"):
        load_settings(tmp_path)
    with pytest.raises(ProjectError, match="no such directory"):
        find_project(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(ProjectError, match="not a project directory"):
        find_project(tmp_path / "file")


def test_a_lake_without_a_project_has_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = bare_settings("lake")
    assert settings.lake.uri == str(Path.cwd() / "lake")
    assert settings.resources.threads == os.cpu_count()
    assert bare_settings("s3://bucket/lake").lake.uri == "s3://bucket/lake"


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4_000_000_000), ("1.5 GiB", 1_610_612_736), ("512mib", 536_870_912), ("10kb", 10_000), ("1TB", 10**12)],
)
def test_memory_is_read_as_duckdb_reads_it(text, size):
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["", "4", "GB", "-1GB", "0GB", "4 G", "4GBs", "four GB", "9" * 400 + "GB"])
def test_what_is_no_memory_is_refused(text):
    with pytest.raises(SettingsError, match="not an amount of memory"):
        memory_bytes(text)


_scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=6)
_keys = st.sampled_from(["lake", "paths", "resources", "sql", "sources", "env", "uri", "files", "sql", "threads", "x"])


def _toml(content: dict, path: str = "") -> str:
    lines, tables = [f"[{path}]"] if path else [], []
    for key, value in content.items():
        if isinstance(value, dict):
            tables.append(_toml(value, f"{path}.{key}".lstrip(".")))
        elif value is not None:
            text = (
                "".join(f"\\u{ord(c):04x}" for c in value if ord(c) < 0x10000 and not 0xD800 <= ord(c) < 0xE000)
                if isinstance(value, str)
                else ""
            )
            lines.append(f"{key} = " + (f'"{text}"' if isinstance(value, str) else str(value).lower()))
    return "\n".join([*lines, *tables])


@given(
    st.recursive(
        st.dictionaries(_keys, _scalars, max_size=3),
        lambda c: st.dictionaries(_keys, c | _scalars, max_size=3),
        max_leaves=6,
    ),
    st.text(max_size=20),
)
def test_any_text_gives_settings_or_a_penstock_error(tmp_path_factory, content, tail):
    root = tmp_path_factory.getbasetemp()
    (root / "penstock.toml").write_text(_toml(content) + "\n" + tail, encoding="utf-8", errors="replace")
    for env in (None, "x"):
        try:
            outcome = load_settings(root, env=env, environ={})
        except PenstockError as error:
            outcome = error
        assert isinstance(outcome, Settings | PenstockError)
