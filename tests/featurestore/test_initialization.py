"""New projects: the commands of their README work, for the example's data and for anybody's columns."""

from __future__ import annotations

import ast
import gzip
import re
import shlex
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import initialization
from featurestore.cli import cli
from featurestore.feature_file import load_features
from featurestore.initialization import initialize
from lakehouse.lake import Lake

ORDERS = (
    "order_id,customer_id,ordered_at,amount\n"
    "1,7,2026-03-01T10:00:00Z,1.50\n"
    "2,7,2026-03-02T10:00:00Z,2.50\n"
    "3,8,2026-03-03T10:00:00Z,4.00\n"
)


def penstock(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == code, f"{arguments}: {result.output}"
    return result


def commands(readme: str) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def follow(project: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Run all commands of a project's README there, and return what each verb printed."""
    monkeypatch.chdir(project)
    typed = commands((project / "README.md").read_text())
    assert [command[0] for command in typed] == ["penstock"] * len(typed)
    return {command[1]: penstock(*command[1:]).stdout for command in typed}


def made(
    directory: Path, monkeypatch: pytest.MonkeyPatch, text: str, *options: str, name: str = "orders.csv"
) -> tuple[Path, str]:
    """Make a project for a CSV file beside it; return it, and what was said."""
    monkeypatch.chdir(directory)
    (directory / name).write_bytes(text.encode())
    said = penstock("init", "mine", "--from", name, *options).stdout
    return directory / "mine", said


def model(project: Path) -> str:
    (file,) = (project / "sql/warehouse").iterdir()
    return file.read_text()


# -- the READMEs --------------------------------------------------------------------------------------------------------


def test_the_example_works_as_its_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "cd shop" in penstock("init", "shop").stdout
    printed = follow(tmp_path / "shop", monkeypatch)
    assert list(printed) == [
        *("land", "schema", "plan", "promote", "sql", "quarantine"),
        *("apply", "features", "historical", "materialize", "online", "verify"),
    ]
    assert (
        "landed 16 = malformed 0 + hidden 0 + filtered 0 + quarantined 1 + replaced 0 + good 15" in printed["promote"]
    )
    assert "check (amount >= 0)" in printed["quarantine"]
    assert re.search(r"orders_30d +5\n", printed["online"])
    assert "same online and offline" in printed["verify"]
    training = pq.read_table(tmp_path / "shop/training.parquet")
    assert training.num_rows == 15
    first = training.to_pylist()[0]
    assert (first["customer_id"], first["orders_30d"]) == (7, 0)  # an order does not see itself
    ignored = (tmp_path / "shop/.gitignore").read_text().split()
    assert ".penstock/" in ignored


def test_a_project_for_a_file_works_as_its_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, said = made(tmp_path, monkeypatch, ORDERS, "--key", "customer_id")
    assert "order_id is different in every record" in said
    assert "order_id    bigint primary key" in model(project)
    printed = follow(project, monkeypatch)
    assert "good 3" in printed["promote"]
    assert re.search(r"orders_7d +2\n", printed["online"])
    assert re.search(r"amount_sum_30d +4\.000000\n", printed["online"])
    assert "same online and offline" in printed["verify"]


AWKWARD = (
    'Order ID,"Customer ""No"" 1",_x,X,select,"two\nlines",when,amount (€),score,empty,record_id,$HOME\n'
    "1,c-7,1,2,3,a,2026-03-01 10:00:00,1.50,1e3,,5,`x`\n"
    "2,c-7,1,2,3,a,2026-03-02 10:00:00,1.50,1e3,,5,`x`\n"
    "3,it's,1,2,3,a,2026-03-03 10:00:00,2.50,1e4,,5,`x`\n"
)


def test_awkward_names_are_quoted_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--key", 'customer "no" 1', "--timezone", "Europe/Paris"]
    project, _ = made(tmp_path, monkeypatch, AWKWARD, *options, name="we[i]rd Order.csv")
    assert 'files = "../we[[]i]rd Order.csv"' in (project / "penstock.toml").read_text()
    assert "select" in model(project)
    printed = follow(project, monkeypatch)
    assert "same online and offline" in printed["verify"]
    names = [name for name, *_ in Lake(project).sql("describe warehouse.we_i_rd_order")]
    expected = ["Order ID", 'Customer "No" 1', "x_2", "X", "select", "two\nlines", "when", "amount (€)"]
    assert names == [*expected, "score", "empty", "record_id", "$HOME"]
    ((when, no),) = Lake(project).sql('select "when", "Customer ""No"" 1" from warehouse.we_i_rd_order limit 1')
    assert (when.isoformat(), no) == ("2026-03-01T09:00:00+00:00", "c-7")


def test_a_table_named_like_a_word_of_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, _ = made(tmp_path, monkeypatch, ORDERS, "--source", "order", "--key", "customer_id")
    assert 'create table warehouse."order" (' in model(project)
    assert "same online and offline" in follow(project, monkeypatch)["verify"]


@pytest.mark.parametrize("day", ["day", "current_date"])
@pytest.mark.parametrize("key", ["user", "session_user", "localtime"])
def test_columns_called_like_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, day: str) -> None:
    text = f"{key},{day},score\nu1,2026-03-01,1\nu1,2026-03-02,2\n"
    project, _ = made(tmp_path, monkeypatch, text, "--key", key)
    printed = follow(project, monkeypatch)
    assert re.search(r"score_sum_7d +3\n", printed["online"])
    assert "same online and offline" in printed["verify"]


@pytest.mark.parametrize("key", ["-id", "--at", "a=b", "=", "event_timestamp", "Event_Timestamp", "k:x", "$HOME"])
def test_keys_with_awkward_names_can_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    text = f"{key},ts,score\n-x,2026-03-01T10:00:00Z,5\n-x,2026-03-02T10:00:00Z,6\n"
    project, _ = made(tmp_path, monkeypatch, text, "--key", key)
    printed = follow(project, monkeypatch)
    assert re.search(r"score_sum_7d +11\n", printed["online"])
    assert "same online and offline" in printed["verify"]


def test_the_example_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commonest entity may have had its last record long before the others."""
    text = "k,ts\n1,2026-01-01T10:00:00Z\n1,2026-01-02T10:00:00Z\n2,2026-03-01T10:00:00Z\n"
    project, _ = made(tmp_path, monkeypatch, text, "--key", "k")
    assert re.search(r"orders_7d +1\n", follow(project, monkeypatch)["online"])


def test_several_columns_of_instants_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoned = "2026-03-01T10:00:00Z"
    text = f"k,made,day,changed,sent\n1,{zoned},2026-03-01,{zoned},{zoned}\n"
    _, said = made(tmp_path, monkeypatch, text, "--key", "k")
    assert "made is taken as the instant at which a row became true; if that is rather changed or sent, name" in said


def test_days_are_known_when_they_are_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "shop,day,sold,event_timestamp\n1,2026-03-01,5,2026-03-01\n1,2026-03-02,6,2026-03-02\n"
    project, _ = made(tmp_path, monkeypatch, text, "--key", "shop")
    printed = follow(project, monkeypatch)
    assert 'delay="1d"' in (project / "features.py").read_text()
    assert re.search(r"sold_sum_7d +11\n", printed["online"])
    assert "same online and offline" in printed["verify"]


def test_without_a_key_column_records_identify_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, said = made(tmp_path, monkeypatch, "name,amount\na,1\nb,2\nb,2\n")
    assert "--key COLUMN" in said
    text = model(project)
    assert "record_id varchar primary key" in text
    assert "_record_id as record_id" in text
    assert load_features(project / "features.py") == []
    follow(project, monkeypatch)
    assert Lake(project).sql("select count(*) from warehouse.orders").fetchall() == [(3,)]


def test_the_commented_example_is_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, _ = made(tmp_path, monkeypatch, ORDERS)
    text = (project / "features.py").read_text()
    code = "\n".join(line.removeprefix("# ") for line in text.partition("#\n")[2].splitlines())
    ast.parse(code)
    (tmp_path / "uncommented.py").write_text(code)
    assert len(load_features(tmp_path / "uncommented.py")) == 3


def test_local_times_without_a_zone_stay_so_and_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = ORDERS.replace("Z,", ",")
    project, said = made(tmp_path, monkeypatch, text, "--key", "customer_id")
    assert "ordered_at: times without a zone" in said
    assert "--timezone" in said
    assert re.search(r"ordered_at +timestamp,? -- local times of an unknown zone", model(project))
    assert load_features(project / "features.py") == []
    assert "The times have no zone" in (project / "README.md").read_text()
    follow(project, monkeypatch)


def test_an_entity_that_is_unique_is_not_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "customer_id,since,limit\n1,2026-03-01T00:00:00Z,5\n2,2026-03-02T00:00:00Z,6\n"
    project, _ = made(tmp_path, monkeypatch, text, "--key", "customer_id")
    assert "record_id   varchar primary key" in model(project)
    assert "same online and offline" in follow(project, monkeypatch)["verify"]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("a,b\n", "0 records read, 2 columns"),
        ("a,b\n1,2\n3\n", "1 record malformed, the first: line 3, "),
        ("1,2\n3,4\n", "taken as data, not as column names"),
    ],
)
def test_notes_about_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, note: str) -> None:
    project, said = made(tmp_path, monkeypatch, text)
    assert note in said
    follow(project, monkeypatch)


def test_compressed_files_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("a-1.csv.gz", ORDERS), ("a-2.csv.gz", ORDERS.replace(".50\n", ".50\nx,9,,\n", 1))):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    penstock("init", "mine", "--from", "a-*.csv.gz")
    assert 'files = "../a-*.csv.gz"' in (tmp_path / "mine/penstock.toml").read_text()
    assert "order_id    varchar" in (tmp_path / "mine/sql/warehouse/a.sql").read_text()
    follow(tmp_path / "mine", monkeypatch)


NAMES = st.one_of(
    st.sampled_from(
        ["id", "ID", "select", "order", "_id", "__", "a b", 'q"q', "é", "rowid", "oid", "limit", "main", "x-y"]
    ),
    st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=6),
)
VALUES = st.sampled_from(
    ["1", "2.5", "-0.0", "1e5", "x", "", "true", "2026-01-01", "2026-01-01 10:00:00", "2026-01-01T10:00:00Z"]
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, st.lists(VALUES, min_size=3, max_size=3)), min_size=1, max_size=5))
def test_any_columns_make_a_project_that_promotes(columns: list[tuple[str, list[str]]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        rows = [[name for name, _ in columns], *zip(*(values for _, values in columns), strict=True)]
        quoted = [",".join('"{}"'.format(cell.replace('"', '""')) if cell else "" for cell in row) for row in rows]
        (Path(scratch) / "t.csv").write_bytes("".join(f"{line}\n" for line in quoted).encode())
        project = Path(scratch) / "mine"
        initialize(project, sample=str(Path(scratch) / "t.csv"))
        lake = Lake(project)
        lake.land("t")
        (table,) = lake.promote().tables
        assert table.quarantined == 0
        assert len(lake.sql("select * from warehouse.t").columns) >= len(columns)
        assert lake.plan().is_empty


# -- where and how ------------------------------------------------------------------------------------------------------


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_nothing_lands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    project, _ = made(tmp_path, monkeypatch, ORDERS)
    expected = {".gitignore", "README.md", "features.py", "penstock.toml", "sql/warehouse/orders.sql"}
    assert set(contents(project)) == expected
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("before", [[], [".git/HEAD"], ["notes.txt", "data/other.csv"]])
def test_here_beside_what_does_not_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: list[str]) -> None:
    for name in before:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    monkeypatch.chdir(tmp_path)
    said = penstock("init", ".").stdout
    assert "cd " not in said
    assert all((tmp_path / name).read_text() == "mine" for name in before)
    assert "16 records" in penstock("land").stdout


@pytest.mark.parametrize("options", [[], ["--from", "orders.csv"]])
def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders.csv").write_text(ORDERS)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "features.py").symlink_to("nowhere")
    before = contents(tmp_path)
    error = penstock("init", ".", *options, code=1).stderr
    assert "there are README.md, features.py here already" in error
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    (tmp_path / "README.md").unlink()
    (tmp_path / "features.py").unlink()
    penstock("init", ".", *options)
    before = contents(tmp_path)
    assert "there is a penstock.toml here already" in penstock("init", ".", *options, code=1).stderr
    assert contents(tmp_path) == before


def test_a_file_that_comes_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialization, "_refuse_clashes", lambda *_: None)
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError):
        initialize(tmp_path)
    assert contents(tmp_path) == {"README.md": b"mine"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["orders.csv"], "orders.csv' is a file"),
        (["mine", "--from", "odrers.csv"], "Did you mean orders.csv"),
        (["mine", "--from", "empty.csv"], "there are no columns"),
        (["mine", "--from", "."], "is a directory"),
        (["mine", "--from", "orders.csv", "--key", "custmer_id"], "Did you mean customer_id?"),
        (["mine", "--from", "orders.csv", "--key", "amount"], "These could be: order_id, customer_id."),
        (["mine", "--from", "orders.csv", "--source", "My Orders"], "cannot be a source's name"),
        (["mine", "--from", "orders.csv", "--timezone", "Europe/Pari"], "Did you mean Europe/Paris"),
        (["mine", "--from", "utf16.csv"], "utf16.csv: looks like UTF-16. Convert to UTF-8"),
        (["mine", "--from", "none.csv", "--key", "k"], "no record has a value for k, so its type is unknown"),
        (
            ["mine", "--from", "latin.csv", "--key", "k"],
            "unknown, and a key is an integer or a text   latin.csv: its h",
        ),
        (["mine", "--from", "latin.csv", "--key", "k"], "iconv -f WINDOWS-1252 -t UTF-8 FILE"),
        (["mine", "--from", "lines.csv", "--key", "a\nb"], "'a\\nb' is more than one line"),
        (["mine", "--key", "customer_id"], "name them with --from"),
        (["mine", "--timezone", "UTC"], "name them with --from"),
        ([], "Missing argument"),
    ],
)
def test_what_is_wrong_and_then_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders.csv").write_text(ORDERS)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "utf16.csv").write_text(ORDERS, encoding="utf-16")
    (tmp_path / "none.csv").write_text("k,ts\n")
    (tmp_path / "latin.csv").write_text("k,né\n1,é\n", encoding="latin-1")
    (tmp_path / "lines.csv").write_text('"a\nb",ts\n1,2026-03-01T10:00:00Z\n')
    result = CliRunner().invoke(cli, ["init", *arguments])
    assert result.exit_code in (1, 2)
    assert message in result.stderr.replace("\n", " ")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("orders.csv", "orders"),
        ("data/2024 Orders (EU).csv.gz", "data_2024_orders_eu"),
        ("Ärzte.tsv", "rzte"),
        ("über/???.csv", "data"),
        ("s3://bucket/a.b-c.CSV.zst", "a_b_c"),
        ("C:\\files\\x.csv", "x"),
        ("part-*.csv", "part"),
    ],
)
def test_the_source_is_named_after_the_file(file: str, source: str) -> None:
    assert initialization._source_name(file, None) == source


def test_files_are_named_from_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "a/b/project"
    (tmp_path / "x[1].csv").touch()
    text = initialization._files_text
    assert text("a/b/project/data/x.csv", project) == "data/x.csv"
    assert text("a/b/x.csv", project) == "../x.csv"
    assert text("x.csv", project) == str(tmp_path / "x.csv")
    assert text("x[1].csv", tmp_path) == "x[[]1].csv"
    assert text("x[12].csv", tmp_path) == "x[12].csv"
    assert text("~x.csv", tmp_path) == "./~x.csv"
    assert text("s3://bucket/x.csv", project) == "s3://bucket/x.csv"


def test_help_shows_an_example() -> None:
    assert "Example:  penstock init " in penstock("init", "--help").stdout
