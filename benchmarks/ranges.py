"""Whether the default ranges train at every layer, and whether the best settings lie inside them.

``python -m benchmarks.ranges FOLDER -o TABLE.md [--experiments TUNER.TOML ...]`` makes two experiments in FOLDER (an
interrupted run goes on) and brings each to 24 trials with the default ranges. VGG-19's 16 convolutions with random weights
(seeded) tell whether fits converge, not what they explain: per layer and readout, how many trials diverged, and where the
best settings lie. The hard simulation, and whatever searches of recordings are named beside it (``benchmarks.real`` keeps
its own under ``--work``), tell where in its range each hyperparameter of the three best trials of a study lies.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from cli.main import main as tuner
from studies.config.experiment import load_experiment
from studies.config.ranges import FloatRange, IntRange
from studies.database import trials
from studies.database.stores import open_stores
from studies.database.studies import stored_studies
from studies.results.study import edge

TRIALS = 24
BEST = 3
EDGE = 0.05
"""Of a range, on its scale: settings nearer to an end count as at the end."""
HARD = """
[data]
format = "simulated"
difficulty = "hard"
image_size = 112
n_train = 1000
units_per_region = 12
[[backbone]]
name = "efficientnet_lite0"
layers = ["_blocks.2", "_blocks.4", "_blocks.10"]
[training]
device = "cpu"
[search.space.full]
[search.space.factorized]
"""
CONFIG = """
[data]
format = "simulated"
image_size = 64
n_train = 800
units_per_region = 3
[[backbone]]
name = "vgg19"
weights = "random"
layers = "all"
[training]
steps = 300
report_every = 30
device = "cpu"
[search]
"""
HEAD = (
    "| layer | readout | trials | diverged | best of V1 | its learning rate | parameters of the three "
    "bests at an end of their range |\n|---|---|---|---|---|---|---|\n"
)


def table(config: Path) -> str:
    """One line per layer and readout."""
    experiment = load_experiment(config)
    with open_stores(experiment) as stores:
        stored = stored_studies(stores.storage)
        loaded = trials.load(stores.storage, [s.study_id for s in stored.values()], curves=False)
    groups = defaultdict(list)
    for study in stored.values():
        groups[study.layer_index, study.key.layer, study.key.readout].append(study)
    lines = []
    for (_, layer, readout), studies in sorted(groups.items()):
        space = experiment.search.space[readout]
        every = [t for s in studies for t in loaded[s.study_id] if t.state in trials.FINISHED]
        diverged = sum(t.value is not None and math.isinf(t.value) for t in every)
        best = {}
        for study in studies:
            complete = [
                t
                for t in loaded[study.study_id]
                if t.state == TrialState.COMPLETE and t.value is not None
            ]
            best[study.key.region] = min(complete, key=lambda t: (t.value, t.number))
        edges = [
            f"{region}: {name}"
            for region, trial in best.items()
            for name, setting in space.items()
            if isinstance(setting, FloatRange | IntRange) and edge(trial.params[name], setting)
        ]
        v1 = best["V1"]
        lines.append(
            f"| {layer} | {readout} | {len(every)} | {diverged} | {v1.value:.3f} | "
            f"{v1.params['learning_rate']:.2g} | {', '.join(edges) or 'none'} |"
        )
    return HEAD + "\n".join(lines) + "\n"


def positions(config: Path) -> Iterator[tuple[str, str, float]]:
    """(readout, hyperparameter, place in its range from 0 to 1) of the best trials of every study of an experiment."""
    experiment = load_experiment(config)
    with open_stores(experiment) as stores:
        stored = stored_studies(stores.storage)
        loaded = trials.load(stores.storage, [s.study_id for s in stored.values()], curves=False)
    for study in stored.values():
        space = experiment.search.space[study.key.readout]
        for trial in _best(loaded[study.study_id]):
            for name, setting in space.items():
                if isinstance(setting, FloatRange | IntRange) and name in trial.params:
                    yield study.key.readout, name, _place(trial.params[name], setting)


def _best(found: list[FrozenTrial]) -> list[FrozenTrial]:
    complete = [t for t in found if t.state == TrialState.COMPLETE and t.value is not None]
    return sorted(complete, key=lambda t: (t.value, t.number))[:BEST]


def _place(value: float, setting: FloatRange | IntRange) -> float:
    if setting.log:
        return math.log(value / setting.low) / math.log(setting.high / setting.low)
    return (value - setting.low) / (setting.high - setting.low)


def places(configs: list[Path]) -> str:
    """One line per readout and hyperparameter, over the studies of some experiments."""
    found = defaultdict(list)
    for config in configs:
        for readout, name, place in positions(config):
            found[readout, name].append(place)
    lines = [
        f"| {readout} | {name} | {len(every)} | "
        + " | ".join(f"{v:.2f}" for v in np.quantile(every, [0.1, 0.5, 0.9]))
        + f" | {np.mean(np.array(every) < EDGE):.0%} | {np.mean(np.array(every) > 1 - EDGE):.0%} |"
        for (readout, name), every in sorted(found.items())
        if readout != "smooth"
    ]
    return (
        "| readout | hyperparameter | trials | a tenth below | median | a tenth above | at the low end | at the high end |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )


def _search(folder: Path, config: str, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tuner.toml"
    if not path.exists():
        path.write_text(config, encoding="utf-8")
    for command in (["study", "create"], ["optimize", "--n-trials", str(count)]):
        code = tuner(["-c", str(path), *command])
        if code:
            raise SystemExit(code)
    return path


def main() -> None:
    """Run the experiments and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--only", choices=["vgg19", "hard"], help="of the two, make one alone")
    parser.add_argument("--experiments", type=Path, nargs="*", default=[], metavar="TUNER.TOML")
    given = parser.parse_args()
    parts = []
    if given.only != "vgg19":
        hard = _search(given.folder / "hard", HARD, given.trials)
        parts.append(
            "# Where the best settings lie\n\n"
            f"Of the {BEST} best trials of each study: 0 is the low end of the default range, 1 the high one, on its "
            "scale;\nat an end is what lies within a twentieth of the range.\n\n## Hard simulation\n\n"
            "efficientnet_lite0 at 112 px, three layers, three regions of 12 units, 1,000 training images.\n\n"
            + places([hard])
        )
    if given.experiments:
        parts.append(
            f"## Recordings\n\n{len(given.experiments)} searches of recordings.\n\n"
            + places(given.experiments)
        )
    if given.only != "hard":
        vgg = _search(given.folder / "vgg19", CONFIG, given.trials)
        parts.append(
            "## Default ranges at the 16 layers of VGG-19\n\n"
            "Random weights, a simulated recording of 9 units (3 regions), 720 fit images at 64 px, 300 steps; all trials "
            "of the\nthree regions together.\n\n" + table(vgg)
        )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
