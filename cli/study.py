"""``tuner study``: make, list, show, copy and delete studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import example, experiment
from cli.progress import ProgressDisplay, duration_text
from cli.selectors import select, selects
from cli.show import Column, Format, FormatOption, note, show

app = typer.Typer(no_args_is_help=True)

WaitOption = Annotated[
    bool,
    typer.Option("--wait", help="Where somebody works on such a study, wait for the round to end."),
]


def counted(number: int) -> str:
    """Write a number of studies."""
    return f"{number} {'study' if number == 1 else 'studies'}"


@app.command("create")
@selects
@example(
    "tuner study create",
    "tuner study create --dry-run --n-trials 100",
    "tuner study create --region V4",
)
def create_command(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the search would take, and make nothing.")
    ] = False,
    n_trials: Annotated[
        int | None,
        typer.Option(
            "--n-trials",
            min=1,
            help="With --dry-run: trials of each study that times are predicted for; 50 if not given.",
            metavar="N",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Delete studies that were made with other settings and make them anew."
        ),
    ] = False,
    wait: WaitOption = False,
    format: FormatOption = Format.table,  # noqa: A002
) -> None:
    """Make every study of the grid; doing it again does nothing."""
    from studies.database.stores import as_made, open_stores
    from studies.search.create import create
    from studies.workspace import Workspace
    from tuner.errors import InputError

    if n_trials is not None and not dry_run:
        raise InputError(
            "--n-trials: says for how many trials --dry-run predicts; a search is brought to them by "
            "'tuner optimize --n-trials N'"
        )
    with ProgressDisplay() as progress:
        made = as_made(experiment())
        if dry_run:
            from studies.equal_images import unread

            made = unread(made)
        workspace = Workspace(made, progress.update)
        specs = select(workspace.grid)
        if dry_run:
            from cli.dryrun import TRIALS, show_plan

            show_plan(workspace, specs, format, n_trials or TRIALS)
            return
        with open_stores(workspace.experiment, create=True) as stores:
            done = create(workspace, stores, specs, force=force, wait=wait, say=note)
    for line in workspace.recording.notes:
        note(f"note: {line}")
    if done.forgotten:
        note(f"forgot {counted(len(done.forgotten))} deleted through optuna's own tools")
    if done.replaced:
        note(f"deleted {counted(len(done.replaced))} made with other settings")
    note(
        f"{counted(done.new)} created, {done.present} were there already; "
        "search with 'tuner optimize --n-trials 50'"
    )


LIST_COLUMNS = [
    Column("study", fold=True),
    Column("trials.complete", "complete"),
    Column("trials.pruned", "pruned"),
    Column("trials.running", "running"),
    Column("trials.waiting", "waiting"),
    Column("trials.failed", "failed"),
    Column("loss", "loss", digits=4),
    Column("test_correlation", "test r"),
    Column("below_smooth", "loss above smooth"),
    Column("settled", "settled after"),
]


@app.command("list")
@selects
@example("tuner study list", "tuner study list --readout full --format csv")
def list_command(
    format: FormatOption = Format.table,  # noqa: A002
) -> None:
    """List studies with their trials and their validation loss: 1 predicts every unit's mean, less is better.

    Test r: correlation with the test responses, mean over units; computed when a search ends, and chooses nothing.
    Where there is something to show, there are columns more. Loss above smooth: without any search the smooth readout
    of the layer and region has the lower validation loss. Settled after: so many trials, by 'tuner optimize
    --until-settled'. Running, waiting, failed: trials.
    """
    from studies.database.stores import open_stores
    from studies.database.studies import stored_studies
    from studies.database.summaries import closed_form_line, listing, summaries

    with open_stores(experiment()) as stores:
        created = list(stored_studies(stores.storage).values())
        line = closed_form_line(stores.storage, created)
        rows = listing(summaries(stores.storage, select(created)), stores.claims, line)
    # most of the time nothing runs, waits or has failed: names then stand on one line
    always = ("study", "trials.complete", "trials.pruned", "loss")
    columns = [
        column
        for column in LIST_COLUMNS
        if column.key in always
        or any(row["trials"].get(column.key.removeprefix("trials.")) for row in rows)
        or any(row.get(column.key) for row in rows)
    ]
    show(rows, format, columns, empty="no studies; make them with 'tuner study create'")


@app.command("show")
@example("tuner study show vgg19/features.19/V4/full")
def show_command(
    name: Annotated[str, typer.Argument(help="backbone/layer/region/readout", metavar="NAME")],
    format: FormatOption = Format.table,  # noqa: A002
) -> None:
    """Show one study: its trials, its best parameters, and what deserves attention."""
    from studies.database.stores import as_made, open_stores
    from studies.results.study import describe

    with open_stores(experiment()) as stores:
        shown = describe(stores, name, as_made(experiment()))
    if format is Format.table:
        facts = dict(shown["facts"])
        facts["training time"] = duration_text(facts.pop("training time, s"))
        for parameter, share in shown["importance"].items():
            facts[f"importance of {parameter}"] = share
        show([{"what": k, "value": v} for k, v in facts.items()], format, title=name)
        given = any(trial["origin"] for trial in shown["trials"])
        columns = TRIAL_COLUMNS if given else [c for c in TRIAL_COLUMNS if c.key != "origin"]
        show(shown["trials"], format, columns, title="trials, best first")
        for line in shown["warnings"]:
            note(f"warning: {line}")
    elif format is Format.csv:
        show(shown["trials"], format)
    else:
        show_json: list[dict[str, Any]] = [shown]
        show(show_json, format)


TRIAL_COLUMNS = [
    Column("number", "trial"),
    Column("state"),
    Column("value", digits=4),
    Column("params", fold=True),
    Column("origin", "taken over", fold=True),
]


@app.command("delete")
@selects
@example("tuner study delete --layer 'features.3*' --yes")
def delete_command(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: WaitOption = False,
) -> None:
    """Delete the selected studies, their trials and their kept weights."""
    from studies.database.stores import open_stores
    from studies.database.studies import delete, stored_studies
    from tuner.errors import InputError

    with open_stores(experiment()) as stores:
        chosen = select(stored_studies(stores.storage).values())
        if not yes:
            raise InputError(
                f"this deletes {counted(len(chosen))} with all trials; say --yes to do it"
            )
        with stores.alone(chosen, "deleted", wait=wait, say=note):
            delete(stores.storage, stores.artifacts, chosen)
    note(f"deleted {counted(len(chosen))}")


@app.command("copy")
@selects
@example(
    "tuner study copy sqlite:///backup.db",
    "tuner study copy sqlite:////data/all.db --artifacts /data/weights",
)
def copy_command(
    target: Annotated[
        str,
        typer.Argument(help="Address of the database to copy to, sqlite:///FILE", metavar="URL"),
    ],
    artifacts: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the copy's kept weights; default: NAME-artifacts beside NAME.db.",
            metavar="FOLDER",
        ),
    ] = None,
) -> None:
    """Copy the selected studies, with their trials and kept weights, to another database."""
    from studies.config.values import parse_url
    from studies.database.copies import copy
    from studies.database.stores import open_stores
    from studies.database.studies import stored_studies
    from tuner.errors import InputError

    try:
        target = parse_url(target, Path.cwd())
    except ValueError as error:
        raise InputError(f"URL: {error}") from None
    with open_stores(experiment()) as stores:
        chosen = select(stored_studies(stores.storage).values())
        done = copy(stores.storage, stores.artifacts, target, chosen, artifacts)
    for line in done.lost:
        note(f"warning: {line}")
    note(f"copied {counted(done.studies)}; their kept weights are in {done.artifacts}")
