"""Which few settings are good on most tasks? ``python -m benchmarks.quality.portfolio [FOLDER]``.

It finds the settings that searches begin with where donors are few (:mod:`studies.search.portfolio`). Tasks are the
studies of an easy simulation other than the demo's, of the hard one and of recordings in FOLDER. Candidates are the best
trial of a search of each, which knows no such settings; every candidate is fitted to every task, whole. Of these the
portfolio is taken greedily: each next one is that with which the best of those taken so far comes closest to the best of
all, averaged over tasks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from optuna.trial import TrialState

from benchmarks.machine import describe, publish, threads
from benchmarks.quality.demo import document
from benchmarks.search_quality import without_pictures
from studies.config.experiment import load_experiment
from studies.database import trials
from studies.database.stores import Stores, open_stores
from studies.database.studies import stored_studies
from studies.database.trials import Trial
from studies.grid import Spec, cohorts
from studies.notebook.document import toml
from studies.search import proposals
from studies.search.create import create
from studies.search.donors import best_trial
from studies.search.ledger import Ledger
from studies.search.listener import Listener
from studies.search.portfolio import PORTFOLIO
from studies.search.round import Member, Round
from studies.search.rungs import ReportGrid
from studies.search.search import Search
from studies.search.space import hyperparameters
from studies.search.training import Training
from studies.workspace import Workspace

Settings = Mapping[str, float]

TRIALS, TRIALS_OF_FILES = 50, 24
AT_ONCE = 12
"""Candidates that are fitted together."""

HARD = ["_blocks.2", "_blocks.4", "_blocks.15"]
OF_FILES = ["_blocks.4", "_blocks.10"]
MOST_WORSE = 0.3
"""A task on which nothing of the portfolio is any good counts no more than this."""


def greedy(losses: NDArray[np.float64], count: int) -> list[int]:
    """Candidates of which the best on each task is nearest to the best of all on it, one after another.

    Parameters
    ----------
    losses
        ``(n_candidates, n_tasks)``.
    count
        How many.
    """
    worse = np.minimum(losses / losses.min(0) - 1, MOST_WORSE)
    taken: list[int] = []
    best = np.full(losses.shape[1], MOST_WORSE)
    for _ in range(count):
        means = np.minimum(best, worse).mean(1)
        means[taken] = np.inf
        taken.append(int(np.argmin(means)))
        best = np.minimum(best, worse[taken[-1]])
    return taken


@contextmanager
def _without_portfolio() -> Iterator[None]:
    before = proposals.portfolio
    proposals.portfolio = lambda *some: []
    try:
        yield
    finally:
        proposals.portfolio = before


def scenes(folder: Path | None, cache: Path) -> dict[str, tuple[dict[str, Any], int]]:
    """Config of each scene, and how many trials its searches have."""
    easy, hard = document("now", 0, cache), document("now", 0, cache)
    easy["data"]["seed"] = 1
    hard["data"]["difficulty"] = "hard"
    hard["backbone"][0]["layers"] = HARD
    out = {"easy": (easy, TRIALS), "hard": (hard, TRIALS)}
    for file in sorted(folder.glob("*.h5")) if folder else []:
        recorded = document("now", 0, cache)
        recorded["data"] = {"path": str(file.resolve()), "image_size": 112}
        recorded["backbone"][0]["layers"] = OF_FILES
        out[file.stem] = (recorded, TRIALS_OF_FILES)
    return out


def searched(workspace: Workspace, stores: Stores, n_trials: int) -> dict[str, list[Settings]]:
    """Settings of the best trial of every study, by readout."""
    specs = workspace.grid
    create(workspace, stores, specs)
    with without_pictures(), _without_portfolio():
        Search(Ledger(workspace, stores, specs, n_trials=n_trials)).run()
    stored = stored_studies(stores.storage)
    out: dict[str, list[Settings]] = {}
    for spec in specs:
        study = stored[spec.name].study_id
        best = best_trial(trials.load(stores.storage, [study])[study])
        if best is not None:
            out.setdefault(spec.key.readout, []).append(best.params)
    return out


def fitted(
    workspace: Workspace, stores: Stores, readout: str, candidates: Sequence[Settings]
) -> dict[str, list[float]]:
    """Validation loss of every candidate on every study of a readout."""
    training = Training(workspace, stored_studies(stores.storage), Listener(), lambda rows: None)
    reports = ReportGrid.of(workspace.experiment).steps
    mine = [spec for spec in workspace.grid if spec.key.readout == readout]
    out: dict[str, list[float]] = {spec.name: [] for spec in mine}
    for specs in cohorts(mine).values():
        for first in range(0, len(candidates), AT_ONCE):
            some = candidates[first : first + AT_ONCE]
            members = [_member(workspace, spec, some) for spec in specs]
            turn = [(i, spec.units) for i, spec in enumerate(specs)]
            trainer = training._trainer_of(specs[0])
            ended = Round(members, [turn], trainer, reports=reports, prune=False).run()
            for spec, outcomes in zip(specs, ended.outcomes, strict=True):
                values = [np.inf if o.value is None else o.value for o in outcomes]
                out[spec.name] += values
    return out


def _member(workspace: Workspace, spec: Spec, candidates: Sequence[Settings]) -> Member:
    given = [hyperparameters(spec.space, one) for one in candidates]
    running = [Trial(-1, 0, i, TrialState.RUNNING, dict(one)) for i, one in enumerate(candidates)]
    return Member(spec.units, given, running, [], workspace.mean_loss(spec.units))


def _rounded(name: str, value: float) -> str:
    return str(round(value, -1)) if name == "drop" else f"{value:.1g}"


def page(found: Mapping[str, Any], command: str) -> str:
    """All of it as Markdown.

    Parameters
    ----------
    found
        Of each readout its ``cands``, and the ``loss`` of each on every task, whose name begins with its scene.
    """
    lines = [
        "# Settings to begin with",
        "",
        describe(command),
        "",
        "Of each readout the candidates in the order in which they are taken, and how far the best of those taken so far "
        "is above the best of all candidates: mean over the tasks, and the worst. Then the same of as many that were chosen "
        f"without one scene, on the tasks of that scene. {len(PORTFOLIO['full'])} of each are shipped, rounded as shown.",
    ]
    for readout, of in found.items():
        names, candidates = list(of["loss"]), of["cands"]
        losses = np.array([of["loss"][name] for name in names]).T
        losses = np.where(np.isfinite(losses), losses, 1e3)
        worse = losses / losses.min(0) - 1
        count = len(PORTFOLIO[readout])
        lines += ["", f"## {readout}: {len(candidates)} candidates, {len(names)} tasks", ""]
        lines += ["| taken | settings | mean above the best | worst |", "|---|---|---|---|"]
        taken = greedy(losses, 8)
        for i, one in enumerate(taken, start=1):
            above = worse[taken[:i]].min(0)
            said = ", ".join(f"{n} {_rounded(n, v)}" for n, v in candidates[one].items())
            lines.append(
                f"| {i} | {said} | {100 * above.mean():.2f} % | {100 * above.max():.1f} % |"
            )
        lines += ["", f"| {count} chosen without | mean above the best | worst |", "|---|---|---|"]
        of_scene = np.array([name.partition("/")[0] for name in names])
        for scene in dict.fromkeys(of_scene):
            others = greedy(losses[:, of_scene != scene], count)
            above = worse[others][:, of_scene == scene].min(0)
            lines.append(f"| {scene} | {100 * above.mean():.2f} % | {100 * above.max():.1f} % |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Search, fit, choose, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of generic HDF5 files")
    parser.add_argument("-o", "--out", type=Path, default=Path("portfolio.md"))
    parser.add_argument("--work", type=Path, help="a file that keeps what was fitted")
    given = parser.parse_args()
    torch.set_num_threads(threads())
    found: dict[str, Any] = {}
    if given.work is not None and given.work.exists():
        found = json.loads(given.work.read_text(encoding="utf-8"))
    if not found:
        with tempfile.TemporaryDirectory(prefix="portfolio-") as work:
            found = measured(scenes(given.folder, Path(work) / "cache"), Path(work))
    if given.work is not None:
        given.work.write_text(json.dumps(found), encoding="utf-8")
    publish(page(found, "python -m benchmarks.quality.portfolio FOLDER"), given.out)
    return 0


def measured(of: Mapping[str, tuple[dict[str, Any], int]], work: Path) -> dict[str, Any]:
    """Search every scene, then fit the bests of all on each."""
    candidates: dict[str, list[Settings]] = {}
    workspaces = {}
    for scene, (tables, n_trials) in of.items():
        (work / scene).mkdir()
        (work / scene / "tuner.toml").write_text(toml(tables), encoding="utf-8")
        workspaces[scene] = Workspace(load_experiment(work / scene / "tuner.toml"))
        with open_stores(workspaces[scene].experiment, create=True) as stores:
            for readout, some in searched(workspaces[scene], stores, n_trials).items():
                candidates.setdefault(readout, []).extend(some)
    found: dict[str, Any] = {r: {"cands": c, "loss": {}} for r, c in candidates.items()}
    for scene, workspace in workspaces.items():
        with open_stores(workspace.experiment) as stores:
            for readout, some in candidates.items():
                losses = fitted(workspace, stores, readout, some)
                found[readout]["loss"] |= {f"{scene}/{name}": v for name, v in losses.items()}
    return found


if __name__ == "__main__":
    raise SystemExit(main())
