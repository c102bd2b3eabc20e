"""``tuner study create --dry-run``: the plan of a search, printed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.progress import duration_text
from cli.show import Column, Format, show, write

if TYPE_CHECKING:
    from studies.grid import Spec
    from studies.search.calibrate import Span
    from studies.search.forecast import CohortPlan
    from studies.workspace import Workspace

TRIALS = 50
"""Trials per study that times are predicted for where not given."""


def size_text(count: float) -> str:
    """Write bytes: ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


SIZES = [
    Column("layer", fold=True),
    Column("readout"),
    Column("studies"),
    Column("features"),
    Column("memory", text=size_text),
    Column("cache", text=size_text),
]

TIMES = [
    Column("layer", fold=True),
    Column("readout"),
    Column("round_seconds", "round", text=duration_text),
    Column("search_seconds", "total", text=duration_text),
    Column("search_seconds_low", "at least", text=duration_text),
    Column("search_seconds_high", "at most", text=duration_text),
]


def show_plan(
    workspace: Workspace,
    specs: Sequence[Spec],
    format: Format,  # noqa: A002
    n_trials: int = TRIALS,
) -> None:
    """Print studies, memory, disk and cache at once; then predicted time and time of a round, after at most a minute."""
    from studies.search.calibrate import SECONDS
    from studies.search.forecast import plan, times

    cohorts = plan(workspace, specs, n_trials)
    alone = {c.backbone for c in cohorts}
    several = [] if len(alone) == 1 else [Column("backbone")]
    if format is Format.table:
        title = f"{len(specs)} studies of {n_trials} trials on {workspace.device}"
        title = ", ".join([title, *(alone if len(alone) == 1 else ())])
        show([dict(vars(c)) for c in cohorts], format, [*several, *SIZES], title=title)
        _show_sums(workspace, specs, cohorts, n_trials)
        sys.stdout.flush()
    found = times(workspace, specs, cohorts, SECONDS)
    rows = [
        dict(vars(cohort))
        | {
            "round_seconds": once.value,
            "search_seconds": search.value,
            "search_seconds_low": search.low,
            "search_seconds_high": search.high,
        }
        for cohort, once, search in zip(cohorts, found.rounds, found.searches, strict=True)
    ]
    if format is Format.table:
        write("")
    title = "time, from a short calibration on this machine"
    show(rows, format, [*several, *TIMES], title=title)
    if format is not Format.table:
        return
    write("")
    extraction, search = found.extraction, found.search
    write(f"extracting features  {duration_text(extraction.value)} ({_between(extraction)})")
    write(f"search               {duration_text(search.value)} ({_between(search)})")
    longest = max(once.value for once in found.rounds)
    write(f"longest round        {duration_text(longest)} (what a kill costs at most)")


def _show_sums(
    workspace: Workspace, specs: Sequence[Spec], cohorts: Sequence[CohortPlan], n_trials: int
) -> None:
    from studies.search.extraction import waiting_bytes

    # Readouts of a layer share its features.
    cache = sum({(c.backbone, c.layer): c.cache for c in cohorts}.values())
    limit = workspace.experiment.storage.cache_limit
    over = (
        "" if cache <= limit else f" (over storage.cache_limit {size_text(limit)}: layer by layer)"
    )
    write("")
    write(f"studies              {len(specs)}, {sum(s.target(n_trials) for s in specs)} trials")
    write(f"memory at most       {size_text(max(c.memory for c in cohorts))}")
    write(f"feature cache        {size_text(cache)}{over}")
    write(
        f"meanwhile            {size_text(waiting_bytes(workspace, specs))} (while it is extracted)"
    )
    write(f"kept weights         {size_text(sum(c.kept for c in cohorts))}")


def _between(span: Span) -> str:
    return f"{duration_text(span.low)} to {duration_text(span.high)}"
