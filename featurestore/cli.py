"""The ``penstock`` command: the lake's commands, and those of the feature store.

One verb per method of `FeatureStore`. Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse import rendering
from lakehouse.cli import VERDICT, cli, command
from lakehouse.errors import CatalogDamagedError, DefinitionError, RequestError
from lakehouse.types import plural

if TYPE_CHECKING:
    from featurestore.parity import Mismatch
    from featurestore.response import OnlineFeatures
    from featurestore.store import FeatureStore

__all__ = ["cli", "main"]


def _open_store(project: str, env: str | None) -> FeatureStore:
    from featurestore.store import FeatureStore

    return FeatureStore(project, env=env)


def _command(
    name: str, *, example: str, prints: bool = True, group: click.Group = cli
) -> Callable[[Callable[..., None]], click.Command]:
    """Register a command that gets an opened `FeatureStore` first."""
    return command(name, example=example, prints=prints, group=group, opens=_open_store)


def _print(
    value: Any, lines: Sequence[str], rows: Sequence[dict[str, Any]], form: str, *, columns: Sequence[str] = ()
) -> None:
    """Print a report: its text, the whole as JSON, or its rows as CSV."""
    if form == "json":
        rendering.print_json(value)
    elif form == "csv":
        rendering.print_rows(rows, form, columns=columns)
    else:
        click.echo("\n".join(lines))


def _print_verdict(context: click.Context, good: bool, *report: Any, columns: Sequence[str] = ()) -> None:
    """Print a report as `_print` does, and exit 1 if it is not good, also where nobody reads it to the end."""
    context.meta[VERDICT] = 0 if good else 1
    _print(*report, columns=columns)
    sys.stdout.flush()
    context.exit(context.meta[VERDICT])


_AS_OF = click.option("--as-of", metavar="WHEN", help="A snapshot number, a tag, or a UTC time. [default: newest]")


# -- definitions ----------------------------------------------------------------------------------------------------


@_command("plan", example="penstock plan")
@click.option("--select", multiple=True, metavar="TABLE", help="Only this model; may be repeated.")
@click.option("--prune", is_flag=True, help="As for apply: remove what is not in features.py.")
def _plan(store: FeatureStore, select: Sequence[str], form: str, *, prune: bool) -> None:
    """Show which models would run and which feature definitions would change, and why."""
    from featurestore.feature_file import load_features

    models = store.lake.plan(select=select)
    lines = rendering.plan_text(models, store.lake.settings.paths.sql)
    rows = rendering.plan_rows(models)
    if not select and store.lake.settings.paths.features.exists():
        definitions = load_features(store.lake.settings.paths.features)  # what is wrong there, no promotion mends
        try:
            features = store.plan(definitions, prune=prune)
        except DefinitionError as error:
            if models.is_empty:
                raise
            # A view over a table that the promotion is about to make or change.
            lines.append(f"Features: to be planned after the promotion: {error.where}: {error.what}")
        else:
            if models.is_empty and models.steps and not features.empty:
                del lines[0]  # there is something to do
            lines += features.lines()
            rows += [
                {
                    "kind": difference.kind,
                    "name": difference.name,
                    "action": difference.action,
                    "reason": None,
                    "rows_to_read": None,
                    "changes": list(difference.details),
                    "breaking": False,
                    "warnings": [],
                }
                for difference in features.differences
            ]
    if form == "table":
        click.echo("\n".join(lines))
    else:
        rendering.print_rows(rows, form, columns=rendering.PLAN_COLUMNS)


_DIFFERENCE_COLUMNS = ("kind", "name", "action", "changes")


@_command("apply", example="penstock apply")
@click.option("--prune", is_flag=True, help="Remove definitions that are not in features.py any more.")
def _apply(store: FeatureStore, form: str, *, prune: bool) -> None:
    """Publish the entities, feature views and feature services of features.py."""
    plan = store.apply(prune=prune)
    rows = [{"kind": d.kind, "name": d.name, "action": d.action, "changes": list(d.details)} for d in plan.differences]
    _print(plan.to_dict(), plan.lines(), rows, form, columns=_DIFFERENCE_COLUMNS)


@cli.group("features", epilog="Example:  penstock features list")
def _features() -> None:
    """Look at the feature definitions that are applied."""


_LISTED_COLUMNS = ("kind", "name", "version", "keys", "features", "source", "used_by", "owner", "description")


@_command("list", group=_features, example="penstock features list")
@_AS_OF
def _features_list(store: FeatureStore, as_of: str | None, form: str) -> None:
    """List entities, feature views and feature services."""
    from featurestore.listing import features_list, list_rows

    rows = features_list(store.definitions(as_of=as_of))
    shown = list_rows(rows) if form == "table" else rows
    empty = "Nothing is applied: penstock apply." if as_of is None else "Nothing is applied at that snapshot."
    rendering.print_rows(shown, form, empty=empty, columns=_LISTED_COLUMNS)


@_command("show", group=_features, example="penstock features show zone_demand")
@click.argument("name")
@_AS_OF
def _features_show(store: FeatureStore, name: str, as_of: str | None, form: str) -> None:
    """Show all there is to say about the feature view, feature service or entity NAME."""
    from featurestore.listing import features_show, show_lines, show_rows

    shown = features_show(store.definitions(as_of=as_of), name)
    rows = show_rows(shown)
    if form == "json":
        rendering.print_json(shown)
    elif form == "csv":
        rendering.print_rows(rows or [shown], form)
    else:
        click.echo("\n".join(show_lines(shown)))
        if rows:
            click.echo("")
            rendering.print_rows(rows, form)


# -- offline --------------------------------------------------------------------------------------------------------


@_command(
    "historical",
    example='penstock historical tips --spine "select pickup_zone, dropoff_zone, pickup_at as event_timestamp'
    ' from warehouse.trips" -o training.parquet',
)
@click.argument("features", nargs=-1, required=True)
@click.option("--spine", required=True, metavar="FILE|SQL", help="A .parquet, .arrow or .csv file, or a SELECT.")
@click.option("--timestamp", metavar="COLUMN", help="The spine's column with the instants. [default: found]")
@click.option("--timezone", metavar="ZONE", help="Zone of instants without one.")
@click.option("--full-feature-names", is_flag=True, help="Name columns view__feature.")
@click.option("--corrections", type=click.Choice(["known", "latest"]), default="known", show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A .parquet, .arrow or .csv file."
)
@click.option("--save", "name", metavar="NAME", help="Keep the result as training set NAME, which can be reproduced.")
@click.option("--statuses", is_flag=True, help="Add a column feature__status behind the features.")
@_AS_OF
def _historical(
    store: FeatureStore,
    features: Sequence[str],
    *,
    spine: str,
    output: Path | None,
    name: str | None,
    statuses: bool,
    form: str,
    **options: Any,
) -> None:
    """Return FEATURES as they were known at the instant of each row of the spine.

    FEATURES is a feature service (tips, tips@2), or names such as zone_demand:trips_1h.
    """
    from featurestore.frame_files import check_output, read_frame, write_frame
    from lakehouse.result import QueryResult

    if output is not None:  # before anything is computed
        check_output(output)
    if not spine.strip():
        raise RequestError("--spine is empty", hint="Give a .parquet, .arrow or .csv file, or a SELECT in quotes.")
    frame = spine if any(character.isspace() for character in spine) else read_frame(Path(spine))
    asked = features[0] if len(features) == 1 and ":" not in features[0] else list(features)
    job = store.get_historical_features(frame, asked, **options)
    table = job.to_arrow(statuses=statuses)
    if output is not None:
        write_frame(table, output)
        click.echo(
            f"{plural(table.num_rows, 'row')} × {plural(table.num_columns, 'column')} written to {output}", err=True
        )
    if name is not None:
        click.echo(repr(job.save(name)), err=form != "table")
    if output is None and name is None:
        _print_result(QueryResult.from_table(table), form)
    click.echo(job.report.to_text(), err=True)


def _print_result(result: Any, form: str) -> None:
    out = sys.stdout.buffer
    if form == "json":
        result.write_json(out)
    elif form == "csv":
        result.write_csv(out)
    else:
        click.echo(result.to_text())


@cli.group("training-set", epilog="Example:  penstock training-set list")
def _training_set() -> None:
    """Look at saved training sets, and reproduce them."""


_TRAINING_SET_COLUMNS = (
    *("name", "version", "rows", "columns", "service", "snapshot", "source_snapshot"),
    *("saved_at", "keep_until", "sha256"),
)


@_command("list", group=_training_set, example="penstock training-set list")
def _training_set_list(store: FeatureStore, form: str) -> None:
    """List the saved training sets."""
    rows = store.training_sets()
    if form == "table":  # as long as it takes to tell two apart
        rows = [{**row, "sha256": row["sha256"][:12]} for row in rows]
    empty = "No training sets yet: penstock historical … --save NAME"
    rendering.print_rows(rows, form, empty=empty, columns=_TRAINING_SET_COLUMNS)


@_command("show", group=_training_set, example="penstock training-set show tips")
@click.argument("name")
def _training_set_show(store: FeatureStore, name: str, form: str) -> None:
    """Show where training set NAME (or NAME@VERSION) comes from; as CSV, its rows."""
    from lakehouse.result import QueryResult

    training_set = _found(store, name)
    if form == "json":
        rendering.print_json(training_set.manifest)
    elif form == "csv":
        _print_result(QueryResult.from_table(training_set.to_arrow()), form)
    else:
        click.echo(repr(training_set))


@_command("reproduce", group=_training_set, example="penstock training-set reproduce tips@1")
@click.argument("name")
@click.pass_context
def _training_set_reproduce(context: click.Context, store: FeatureStore, name: str, form: str) -> None:
    """Compute training set NAME anew from its spine and snapshot, and compare hashes.

    Exit 1 if they differ, or if the saved rows can't be read.
    """
    reproduction = _found(store, name).reproduce()
    row = {
        "ref": reproduction.ref,
        "same": reproduction.same,
        "expected": reproduction.expected,
        "got": reproduction.got,
        "differences": [str(difference) for difference in reproduction.differences],
        "gone": list(reproduction.gone),
        "unreadable": reproduction.unreadable,
        "advice": reproduction.advice,
    }
    good = reproduction.same and not reproduction.unreadable
    _print_verdict(context, good, row, [str(reproduction)], [row], form)


def _found(store: FeatureStore, name: str) -> Any:
    base, at, version = name.partition("@")
    if at and not version.isdecimal():
        raise RequestError(f"{name!r} names no training set", hint="Write it as tips, or tips@2 for a version.")
    return store.training_set(base, int(version) if at else None)


# -- online ---------------------------------------------------------------------------------------------------------


@_command("materialize", example="penstock materialize --at 2020-06-01T00:00:00Z")
@click.option("--at", metavar="TIME", help="The instant, UTC; it answers for every later one. [default: now]")
@click.option("--full", is_flag=True, help="Build every file anew.")
@click.option(
    "--force",
    is_flag=True,
    help="Also for an instant in the future, or over a generation of a newer snapshot or for a later instant.",
)
@_AS_OF
def _materialize(store: FeatureStore, *, at: str | None, full: bool, force: bool, as_of: str | None, form: str) -> None:
    """Build one online generation of all online feature views, and serve it."""
    from dataclasses import asdict, fields

    from featurestore.materialization import ViewReport

    with rendering.progress_bar(hidden=form != "table", steps=True) as progress:
        report = store.materialize(as_of=as_of, at=at, full=full, force=force, progress=progress)
    columns = [field.name for field in fields(ViewReport)]
    _print(report, report.text(), [asdict(view) for view in report.views], form, columns=columns)


@cli.group("online", epilog="Example:  penstock online status")
def _online() -> None:
    """Ask and look after the online features."""


@_command("get", group=_online, example="penstock online get tips pickup_zone=132 dropoff_zone=48")
@click.argument("asked", nargs=-1, required=True, metavar="FEATURES… KEY=VALUE…")
@click.option("--at", metavar="TIME", help="The instant of the answer, UTC. [default: now]")
@click.option("--full-feature-names", is_flag=True, help="Name columns view__feature.")
def _online_get(
    store: FeatureStore, asked: Sequence[str], *, at: str | None, full_feature_names: bool, form: str
) -> None:
    """Return FEATURES (a service, or view:feature names) of entities; repeat KEY=VALUE for several."""
    from featurestore.entity_text import entity_rows

    features = [text for text in asked if "=" not in text]
    if not features:
        raise click.UsageError("Name what to get: a feature service, or view:feature.")
    wanted: Any = features[0] if len(features) == 1 and ":" not in features[0] else features
    rows = entity_rows([text for text in asked if "=" in text], store.key_types(wanted))
    answer = store.get_online_features(wanted, rows, at=at, full_feature_names=full_feature_names)
    if form == "table":
        click.echo("\n".join(answer.lines()))
    else:
        _print_result(answer.result(statuses=True), form)
        _say_stamp(answer)


def _say_stamp(answer: OnlineFeatures) -> None:
    click.echo(str(answer.stamp), err=True)


_NO_VIEWS: dict[str | None, None] = {None: None}
_GENERATION_COLUMNS = ("generation", "served", "snapshot", "at", "built_at", "view", "entities", "tail", "bytes")


@_command("status", group=_online, example="penstock online status")
def _online_status(store: FeatureStore, form: str) -> None:
    """Show which generation is served, its views, and those it can be rolled back to; exit 1 if it is damaged."""
    served, damage = None, None
    try:
        served = store.online.current()
    except CatalogDamagedError as error:
        damage = error
    rows = [
        {
            "generation": generation.id,
            "served": generation == served,
            "snapshot": generation.snapshot,
            "at": generation.instant,
            "built_at": generation.built_at,
            "view": name,
            "entities": file.entities if file else None,
            "tail": file.tail if file else None,
            "bytes": file.size if file else None,
        }
        for generation in store.online.generations()
        for name, file in (generation.views or _NO_VIEWS).items()
    ]
    empty = "No generation yet: penstock materialize." if damage is None else "No generation that can be read."
    rendering.print_rows(rows, form, empty=empty, columns=_GENERATION_COLUMNS)
    if damage is not None:
        raise damage


@_command("rollback", group=_online, example="penstock online rollback")
@click.argument("generation", required=False)
def _online_rollback(store: FeatureStore, generation: str | None, form: str) -> None:
    """Serve the generation before the current one again, or GENERATION."""
    served = store.online.rollback(generation)
    row = {"generation": served.id, "snapshot": served.snapshot, "at": served.instant, "built_at": served.built_at}
    rendering.print_rows([row], form)


@_command("verify", example="penstock verify tips")
@click.argument("features", nargs=-1, required=True)
@click.option("--sample", type=click.IntRange(min=1), default=200, show_default=True, help="Entities to compare.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed takes another sample.")
@click.pass_context
def _verify(
    context: click.Context, store: FeatureStore, features: Sequence[str], *, sample: int, seed: int, form: str
) -> None:
    """Compare online answers of FEATURES with offline ones, value for value; exit 1 if any differs."""
    wanted: Any = features[0] if len(features) == 1 and ":" not in features[0] else list(features)
    report = store.verify(wanted, sample=sample, seed=seed)
    rows = [_mismatch_row(mismatch) for mismatch in report.mismatches]
    _print_verdict(context, report.same, report, report.text(), rows, form, columns=_MISMATCH_COLUMNS)


_MISMATCH_COLUMNS = ("feature", "entity", "at", "online", "online_status", "offline", "offline_status")


def _mismatch_row(mismatch: Mismatch) -> dict[str, Any]:
    row = {"feature": mismatch.feature, "entity": dict(mismatch.entity), "at": mismatch.at}
    for side, (value, status) in (("online", mismatch.online), ("offline", mismatch.offline)):
        row |= {side: value, f"{side}_status": status}
    return row


# -- projects -------------------------------------------------------------------------------------------------------


@cli.command("init", epilog="Example:  penstock init shop --from orders.csv --key customer_id")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option("--from", "sample", metavar="FILES", help="Make it for these CSV files: a path, URI or pattern.")
@click.option("--source", metavar="NAME", help="Name of the source and the table. [default: from the file's name]")
@click.option("--key", metavar="COLUMN", help="The column that says whom features describe, e.g. customer_id.")
@click.option("--timezone", metavar="ZONE", help="Zone of times without one, e.g. Europe/Paris.")
def _init(directory: Path, *, sample: str | None, source: str | None, key: str | None, timezone: str | None) -> None:
    """Make a small project in DIR: settings, one model, one feature view, a README that says what to type next.

    Without --from it has data of its own to try it on. Nothing is ever overwritten, and nothing lands.
    """
    from featurestore.initialization import initialize

    if sample is None and (source or key or timezone):
        raise click.UsageError("--source, --key and --timezone say something about files: name them with --from.")
    with rendering.progress_bar(hidden=sample is None) as progress:
        made = initialize(directory, sample=sample, source=source, entity=key, timezone=timezone, progress=progress)
    click.echo("\n".join(made.lines()))


@cli.command("demo", epilog="Example:  penstock demo")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make the demo's project here. [default: the checkout, else ./penstock-demo]",
)
def _demo(directory: Path | None) -> None:
    """Run the whole flow on real taxi trips in a lake made anew, and show what it did and what to try next."""
    from featurestore.demo.runner import run

    run(directory, click.echo)


def main() -> None:
    """Run the command line."""
    cli(prog_name="penstock")
