"""Do the default search ranges train at every layer? VGG-19's 16 convolutions, both readouts, a simulated recording.

``python -m benchmarks.ranges FOLDER -o TABLE.md`` makes the studies in FOLDER (an interrupted run goes on), brings each to
24 trials with the default ranges, and writes per layer and readout how many trials diverged, how many beat the mean, and
where the best settings lie. The weights are random (seeded): what is asked is whether fits converge, not what they explain.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

from optuna.trial import TrialState

from cli.main import main as tuner
from studies.config.experiment import load_experiment
from studies.config.ranges import FloatRange, IntRange
from studies.database import trials
from studies.database.stores import open_stores
from studies.database.studies import stored_studies
from studies.results.study import edge

TRIALS = 24
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


def main() -> None:
    """Run the experiment and write its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=TRIALS)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    config = given.folder / "tuner.toml"
    if not config.exists():
        config.write_text(CONFIG, encoding="utf-8")
    for command in (["study", "create"], ["optimize", "--n-trials", str(given.trials)]):
        code = tuner(["-c", str(config), *command])
        if code:
            raise SystemExit(code)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(
        "# Default ranges at the 16 layers of VGG-19\n\n"
        f"`python -m benchmarks.ranges FOLDER -o {given.out.name}`: random weights, a simulated recording of "
        "9 units (3 regions),\n720 fit images at 64 px, 300 steps; all trials of the three regions together.\n\n"
        + table(config),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
