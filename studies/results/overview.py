"""The search at a glance: counts, what runs now, how fast it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from studies.config.ranges import CLOSED_FORM, parse_spaces, trials_needed
from studies.database import trials
from studies.database.stores import Stores
from studies.database.studies import Stored
from studies.database.summaries import listing, summaries

WINDOW = 1800.0
"""Seconds over which the rate is taken."""


@dataclass
class Overview:
    """State of the selected studies.

    Attributes
    ----------
    rate
        Trials finished per second over the last ``window`` seconds, up to the last one where nothing runs, or None; those
        of closed forms, which are told by the hundred, do not count.
    target
        Trials that all are brought to together, where it was asked.
    settled
        How many studies are settled.
    running, set_aside, fit_failed
        Cohort to trials; study to message; study to the validation loss of a fit that failed.
    """

    studies: int
    finished: int
    counts: dict[str, int]
    rate: float | None
    window: float
    target: int | None
    settled: int = 0
    running: dict[str, int] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)
    fit_failed: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For json and csv."""
        return asdict(self)


def overview(stores: Stores, chosen: Sequence[Stored], n_trials: int | None) -> Overview:
    """Look at the database once."""
    rows = listing(summaries(stores.storage, chosen), stores.claims)
    counts: Counter[str] = Counter()
    running: Counter[str] = Counter()
    fit_failed = {}
    for row in rows:
        counts.update(row["trials"])
        if row["trials"]["running"]:
            running["/".join((row["backbone"], row["layer"], row["readout"]))] += row["trials"][
                "running"
            ]
        if row["fit_failed"]:
            fit_failed[row["study"]] = row["loss"]
    searched = [study for study in chosen if study.key.readout != CLOSED_FORM]
    done, seconds = trials.recently_finished(
        stores.storage,
        [study.study_id for study in searched],
        WINDOW,
        running=bool(counts["running"]),
    )
    return Overview(
        studies=len(rows),
        finished=counts["complete"] + counts["pruned"],
        counts={k: counts[k] for k in ("complete", "pruned", "failed", "running", "waiting")},
        rate=done / seconds if done and seconds > 0 else None,
        window=WINDOW,
        target=None if n_trials is None else sum(_target(study, n_trials) for study in chosen),
        settled=sum(row["settled"] is not None for row in rows),
        running=dict(running),
        set_aside={s.name: s.set_aside for s in chosen if s.set_aside is not None},
        fit_failed=fit_failed,
    )


def _target(study: Stored, n_trials: int) -> int:
    """Trials that a study is brought to; of a closed form by the grid that it was created with."""
    readout = study.key.readout
    if readout != CLOSED_FORM:
        return n_trials
    spaces = parse_spaces({readout: study.fingerprint[f"search.space.{readout}"]})
    return trials_needed(readout, spaces[readout], n_trials)
