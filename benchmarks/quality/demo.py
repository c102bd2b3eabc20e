"""All searches of the demo: how soon are they where 50 trials a study came before? ``python -m benchmarks.quality.demo``.

How low a search ends depends on its seed, before and now. So the release before (its rules, :data:`studies.earlier.BEFORE`)
searches three times with other seeds, 50 trials a study. A search of today is held, study by study, against the mean of the
three and against the worst of them; and so is each of the three, against the other two.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe, publish, threads
from benchmarks.search_quality import without_pictures
from studies.config.experiment import load_experiment
from studies.config.templates import read_template
from studies.database import trials
from studies.database.stores import open_stores
from studies.database.studies import stored_studies
from studies.earlier import BEFORE, NEIGHBOUR
from studies.notebook.document import toml
from studies.search.create import create
from studies.search.ledger import Ledger
from studies.search.listener import Listener
from studies.search.search import Search
from studies.search.settled import WORTH
from studies.workspace import Workspace

TRIALS = 50
LOOKED_AT = (8, 16, 24, 50)
"""Trials a study after which a search is looked at."""

WITHIN = 0.01
RULES = ("before", "now", "settled")


@dataclass(frozen=True)
class Searched:
    """One search of all studies of the demo.

    Attributes
    ----------
    rule
        ``before``, ``now``, or ``settled``: now, with ``--until-settled``.
    seed
        ``search.seed``.
    seconds
        Finished trials of all studies, and CPU seconds until then, round by round.
    values
        Of each study, in the order of its trials, the value of each; None where it was stopped.
    steps
        Trial-steps that were made.
    """

    rule: str
    seed: int
    seconds: list[tuple[int, float]]
    values: dict[str, list[float | None]]
    steps: int

    def best(self, n_trials: int) -> dict[str, float]:
        """Lowest value of each study after so many trials; infinite where none is complete."""
        return {
            study: min([v for v in values[:n_trials] if v is not None], default=np.inf)
            for study, values in self.values.items()
        }

    def trials(self, n_trials: int) -> float:
        """Trials a study until then, on average."""
        return float(np.mean([min(n_trials, len(values)) for values in self.values.values()]))

    def until(self, n_trials: int) -> float:
        """CPU seconds until all studies had so many trials, or all that they came to have."""
        count = sum(min(n_trials, len(values)) for values in self.values.values())
        return next(seconds for finished, seconds in self.seconds if finished >= count)


class _Clock(Listener):
    """Notes when trials were finished."""

    def __init__(self) -> None:
        self._begun = time.process_time()
        self.seconds: list[tuple[int, float]] = []

    def told(self, finished: int) -> None:
        self.seconds.append((finished, time.process_time() - self._begun))


def document(rule: str, seed: int, cache: Path) -> dict[str, Any]:
    """Tables of the demo's config file, its searched readouts alone, with the rules of then or of now."""
    tables: dict[str, Any] = tomllib.loads(read_template("demo"))
    space: dict[str, dict[str, float]] = {"full": {}, "factorized": {}}
    if rule == "before":
        for key, value in BEFORE.items():
            *table, name = key.split(".")
            # losses are divided by the mean's in both: which trial is best does not depend on it
            if table in (["training"], ["search"]) and name != "relative":
                tables[table[0]][name] = value
            elif table[:2] == ["search", "space"]:
                space[table[2]][name] = value
        tables["search"]["warm_start"] = NEIGHBOUR
    tables["search"] |= {"seed": seed, "space": space}
    tables["storage"]["cache"] = str(cache)
    return tables


def search(rule: str, seed: int, n_trials: int, work: Path) -> Searched:
    """Search all studies; features are there already."""
    folder = work / f"{rule}-{seed}"
    folder.mkdir()
    (folder / "tuner.toml").write_text(toml(document(rule, seed, work / "cache")), "utf-8")
    workspace = Workspace(load_experiment(folder / "tuner.toml"))
    specs = workspace.grid
    with open_stores(workspace.experiment, create=True) as stores:
        create(workspace, stores, specs)
        for spec in specs:
            workspace.features.of(spec.key.backbone, spec.key.layer)
        clock = _Clock()
        settled = rule == "settled"
        with without_pictures():
            ledger = Ledger(
                workspace,
                stores,
                specs,
                n_trials=n_trials,
                until_settled=settled,
                listener=clock,
            )
            Search(ledger).run()
        stored = stored_studies(stores.storage)
        loaded = trials.load(stores.storage, [stored[spec.name].study_id for spec in specs])
    found = {spec.name: loaded[stored[spec.name].study_id] for spec in specs}
    values = {
        name: [t.value if t.state.name == "COMPLETE" else None for t in mine]
        for name, mine in found.items()
    }
    steps = sum(max(t.curve, default=0) for mine in found.values() for t in mine)
    return Searched(rule, seed, clock.seconds, values, steps)


def over(
    one: Searched, n_trials: int, others: Sequence[Searched], *, worst: bool
) -> NDArray[np.float64]:
    """By how much each study's best is above that of other searches after all their trials, relative to it.

    Parameters
    ----------
    worst
        Above the worst of them; else above their mean.
    """
    found = [other.best(TRIALS) for other in others]
    mine = one.best(n_trials)
    names = sorted(mine)
    known = np.array([[bests[name] for name in names] for bests in found])
    bar = known.max(0) if worst else known.mean(0)
    return np.asarray(np.array([mine[name] for name in names]) / bar - 1)


def _row(one: Searched, n_trials: int, others: Sequence[Searched]) -> str:
    mean, worst = (over(one, n_trials, others, worst=which) for which in (False, True))
    name = sorted(one.values)[int(worst.argmax())].partition("/")[2]
    cells = [one.rule, str(one.seed), f"{one.trials(n_trials):.0f}", f"{one.until(n_trials):.1f}"]
    cells += [f"{1 + np.median(mean):.3f}", f"{1 + mean.mean():.3f}"]
    cells += [f"{(mean <= WITHIN).sum()} of {len(mean)}", f"{(worst <= 0).sum()}"]
    cells += [f"{(worst > WITHIN).sum()}", f"{worst.max():+.1%} ({name})"]
    return "| " + " | ".join(cells) + " |"


def page(found: Sequence[Searched], command: str) -> str:
    """All of it as Markdown."""
    before = [one for one in found if one.rule == "before"]
    lines = [
        "# All searches of the demo",
        "",
        describe(command),
        "",
        f"{len(before[0].values)} studies. `before`: the rules of the release before, {TRIALS} trials a study, "
        f"{len(before)} times with other seeds; each is held against the other ones. `now`: the search as shipped, after so "
        "many trials a study; `settled`: the same with `--until-settled`. Validation losses of the best trials over those "
        "of `before`: over their mean, of all studies; in how many within 1 % of it; in how many not above the worst of "
        "them; in how many more than 1 % above the worst; and the furthest. CPU seconds are those of the search alone.",
        "",
        "| search | seed | trials a study | CPU s | median | mean | within 1 % | not above the worst | over 1 % above it | "
        "the furthest |",
        "|---" * 10 + "|",
    ]
    lines += [_row(one, TRIALS, [o for o in before if o is not one]) for one in before]
    for n in LOOKED_AT:
        lines += [_row(one, n, before) for one in found if one.rule == "now"]
    lines += [_row(one, TRIALS, before) for one in found if one.rule == "settled"]
    lines += [
        "",
        "## When it is settled",
        "",
        f"Each search with `--until-settled` against the same with all {TRIALS} trials: by how much its bests are worse.",
        "",
        "| seed | trials a study | CPU s | all trials: CPU s | mean | studies under 0.5 % | worst |",
        "|---" * 7 + "|",
    ]
    whole = {one.seed: one for one in found if one.rule == "now"}
    lines += [
        _settled(one, whole[one.seed])
        for one in found
        if one.rule == "settled" and one.seed in whole
    ]
    return "\n".join(lines) + "\n"


def _settled(one: Searched, whole: Searched) -> str:
    worse = over(one, TRIALS, [whole], worst=True)
    cells = [str(one.seed), f"{one.trials(TRIALS):.0f}", f"{one.until(TRIALS):.1f}"]
    cells += [f"{whole.until(TRIALS):.1f}", f"{100 * worse.mean():.2f} %"]
    cells += [f"{(worse < WORTH).sum()} of {len(worse)}", f"{100 * worse.max():.1f} %"]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Search, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path("demo.md"))
    parser.add_argument("--seeds", type=int, default=3, help="searches of each kind")
    parser.add_argument("--work", type=Path, help="a file that keeps what was searched")
    given = parser.parse_args()
    torch.set_num_threads(threads())
    found: list[Searched] = []
    if given.work is not None and given.work.exists():
        found = [Searched(**one) for one in json.loads(given.work.read_text(encoding="utf-8"))]
    there = {(one.rule, one.seed) for one in found}
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        for rule, seed in itertools.product(RULES, range(given.seeds)):
            if (rule, seed) in there:
                continue
            found.append(search(rule, seed, TRIALS, Path(folder)))
            if given.work is not None:
                given.work.write_text(json.dumps([asdict(one) for one in found]), encoding="utf-8")
    command = f"python -m benchmarks.quality.demo --seeds {given.seeds}"
    publish(page(found, command), given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
