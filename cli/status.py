"""``tuner status``: the search, live."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import example, experiment
from cli.progress import duration_text, rate_text
from cli.selectors import select, selects
from cli.show import Format, FormatOption, show, write

if TYPE_CHECKING:
    from studies.results.overview import Overview


@selects
@example("tuner status", "tuner status --every 5", "tuner status --format json")
def status(
    every: Annotated[
        float | None,
        typer.Option(
            "--every", min=0.5, help="Look again every so many, until Ctrl-C.", metavar="SECONDS"
        ),
    ] = None,
    n_trials: Annotated[
        int | None,
        typer.Option(
            "--n-trials",
            min=1,
            help="Trials that studies are brought to, for time left.",
            metavar="N",
        ),
    ] = None,
    format: FormatOption = Format.table,  # noqa: A002
) -> None:
    """Show what runs, how fast, the time left, and failures."""
    from studies.database.stores import open_stores
    from studies.database.studies import stored_studies
    from studies.results.overview import overview

    live = every is not None and sys.stdout.isatty() and format is Format.table
    with open_stores(experiment()) as stores:
        while True:
            chosen = select(stored_studies(stores.storage).values())
            seen = overview(stores, chosen, n_trials)
            if format is Format.table:
                text = _text(seen)
                write(f"\x1b[2J\x1b[H{text}" if live else text)
            else:
                show([seen.as_dict()], format)
            sys.stdout.flush()
            if every is None:
                return
            time.sleep(every)


def _text(seen: Overview) -> str:
    counts = seen.counts
    lines = [
        f"{seen.studies} studies, {seen.finished} finished trials "
        f"({counts['complete']} complete, {counts['pruned']} pruned), "
        f"{counts['running']} running, {counts['waiting']} waiting, {counts['failed']} failed"
    ]
    if seen.target is not None:
        rest = f"{seen.finished} of {seen.target} trials"
        if seen.rate:
            rest += f", {rate_text(seen.rate)}"
            rest += f", {duration_text((seen.target - seen.finished) / seen.rate)} left"
        lines.append(rest)
    elif seen.rate:
        when = f"over the last {duration_text(seen.window)}" if seen.running else "while it ran"
        lines.append(f"{rate_text(seen.rate)} {when}")
    if seen.settled:
        lines.append(f"{seen.settled} settled: further trials are expected to gain under 0.5 %")
    lines += [f"runs: {name} ({count} trials)" for name, count in seen.running.items()]
    lines += [f"set aside: {name}: {message}" for name, message in seen.set_aside.items()]
    lines += [
        f"not surely better than predicting the mean: {name} (loss {value:.4g})"
        for name, value in seen.fit_failed.items()
    ]
    return "\n".join(lines)
