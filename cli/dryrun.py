"""``tuner study create --dry-run``: the plan of a search, printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.progress import duration_text
from cli.show import Column, Format, show, write

if TYPE_CHECKING:
    from studies.grid import Spec
    from studies.workspace import Workspace

TRIALS = 50
"""Trials per study that times are predicted for."""


def size_text(count: float) -> str:
    """Write bytes: ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


COLUMNS = [
    Column("layer", fold=True),
    Column("readout"),
    Column("studies"),
    Column("features"),
    Column("memory", text=size_text),
    Column("cache", text=size_text),
    Column("round_seconds", "round", text=duration_text),
    Column("search_seconds", "total", text=duration_text),
]


def show_plan(workspace: Workspace, specs: Sequence[Spec], format: Format) -> None:  # noqa: A002
    """Print studies, memory, disk, cache, predicted time, time of a round."""
    from studies.search.forecast import extraction_seconds, plan

    cohorts = plan(workspace, specs, TRIALS)
    extraction = extraction_seconds(workspace, specs)
    rows = [dict(vars(cohort)) for cohort in cohorts]
    alone = {c.backbone for c in cohorts}
    title = f"{len(specs)} studies of {TRIALS} trials on {workspace.device}"
    columns = COLUMNS if len(alone) == 1 else [Column("backbone"), *COLUMNS]
    show(rows, format, columns, title=", ".join([title, *(alone if len(alone) == 1 else ())]))
    if format is not Format.table:
        return
    # Readouts of a layer share its features.
    cache = sum({(c.backbone, c.layer): c.cache for c in cohorts}.values())
    limit = workspace.experiment.storage.cache_limit
    search = sum(c.search_seconds for c in cohorts)
    write("")
    write(f"studies              {len(specs)}, {sum(s.target(TRIALS) for s in specs)} trials")
    write(f"memory at most       {size_text(max(c.memory for c in cohorts))}")
    over = (
        "" if cache <= limit else f" (over storage.cache_limit {size_text(limit)}: layer by layer)"
    )
    write(f"feature cache        {size_text(cache)}{over}")
    write(f"kept weights         {size_text(sum(c.kept for c in cohorts))}")
    write(f"extracting features  {duration_text(extraction)}")
    write(f"search               {duration_text(search)}")
    longest = max(c.round_seconds for c in cohorts)
    write(f"longest round        {duration_text(longest)} (what a kill costs at most)")
