"""How soon is a search as good as 50 independent full trials? ``python -m benchmarks.quality [FOLDER] [-o FILE]``.

The reference is :mod:`benchmarks.quality.reference`: random settings, drawn with a seed of this run (printed, ``--seed``
repeats it), every one trained to its end by an autograd loop on one cut. The contender is the search as shipped, on the
same cut (``training.folds = 1``), all its work counted in CPU seconds: sampler, validations, database, kept weights, starts.
It is run twice: each study by itself, with nobody to take settings over from (cold), and all studies of a scene together,
where time is shared among the studies of a round (together). Beside them, where asked for, the reference once more with
other settings, and the search with the default folds and start. Scenes are the easy and the hard simulation, and
recordings in FOLDER.
"""

from __future__ import annotations

import argparse
import math
import secrets
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import publish, threads
from benchmarks.quality import contender, reference
from benchmarks.quality.contender import Course, Winner
from benchmarks.quality.page import end, page, until
from benchmarks.quality.reference import Data, Reference
from benchmarks.quality.rows import Row, Work
from studies.config.experiment import load_experiment
from studies.config.ranges import FloatRange, IntRange, Setting
from studies.database.stores import open_stores
from studies.grid import Spec
from studies.search.create import create
from studies.workspace import Workspace

STEPS, BATCH = 300, 50
AGAIN = 1_000_003
"""Added to the seed of the second reference."""

LAYERS = ("_blocks.2", "_blocks.4", "_blocks.15")
LAYERS_OF_FILES = ("_blocks.4", "_blocks.10")

SIMULATED = """[data]
format = "simulated"
difficulty = "{difficulty}"
image_size = 64
n_train = 1100
n_test = 100
n_repeats = 10
units_per_region = 12
"""
RECORDED = """[data]
path = "{path}"
image_size = 112
"""
REST = """
[[backbone]]
name = "efficientnet_lite0"
layers = {layers}
[training]
steps = {steps}
batch_size = {batch}
report_every = 30
{judged}device = "cpu"
[search]
seed = {seed}
[storage]
cache = "{cache}"
"""


def drawn(space: dict[str, Setting], count: int, seed: int) -> list[dict[str, float]]:
    """Random settings, log-uniform where the range is logarithmic."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        one: dict[str, float] = {}
        for name, setting in space.items():
            if not isinstance(setting, FloatRange | IntRange):
                one[name] = float(setting)  # type: ignore[arg-type]
                continue
            low, high = float(setting.low), float(setting.high)
            if setting.log:
                value = math.exp(rng.uniform(math.log(low), math.log(high)))
            else:
                value = float(rng.uniform(low, high))
            one[name] = round(value) if isinstance(setting, IntRange) else value
        out.append(one)
    return out


def data_of(workspace: Workspace, spec: Spec) -> Data:
    """Features and responses of a study."""
    features = workspace.features.of(spec.key.backbone, spec.key.layer)
    train = torch.from_numpy(np.asarray(features.train, dtype=np.float32))
    test = torch.from_numpy(np.asarray(features.test, dtype=np.float32))
    scaled = workspace.scaling.apply(workspace.recording.train_responses)[:, spec.units]
    target = torch.from_numpy(np.asarray(scaled, dtype=np.float32))
    split = workspace.cuts.splits[0]
    return Data(
        train[split.fit],
        train[split.validation],
        test,
        target[split.fit],
        target[split.validation],
        contender.test_target(workspace, spec),
        workspace.mean_loss(spec.units),
    )


def written(
    folder: Path, head: str, layers: Sequence[str], seed: int, cache: Path, start: str | None = None
) -> Path:
    """Write a config file: with one cut and a start, or with the defaults of both."""
    folder.mkdir(parents=True)
    rest = REST.format(
        layers=str(list(layers)).replace("'", '"'),
        steps=STEPS,
        batch=BATCH,
        judged=f'folds = 1\nstart = "{start}"\n' if start else "",
        seed=seed,
        cache=cache,
    )
    (folder / "tuner.toml").write_text(head + rest, encoding="utf-8")
    return folder / "tuner.toml"


def searched(
    config: Path, names: Sequence[str], n_trials: int
) -> tuple[dict[str, Course], dict[str, Winner]]:
    """Search some studies of an experiment together."""
    workspace = Workspace(load_experiment(config))
    specs = [spec for spec in workspace.grid if spec.name in names]
    with open_stores(workspace.experiment, create=True) as stores:
        create(workspace, stores, specs)
        for spec in specs:
            workspace.features.of(spec.key.backbone, spec.key.layer)
        courses = contender.search(workspace, stores, specs, n_trials)
        winners = {spec.name: contender.winner(workspace, stores, spec) for spec in specs}
    return courses, winners


def references(workspace: Workspace, spec: Spec, trials: int, seed: int, number: int) -> Reference:
    """Run the reference of a study."""
    return reference.search(
        data_of(workspace, spec),
        spec.key.readout,
        drawn(dict(spec.space), trials, seed + number),
        steps=STEPS,
        batch=BATCH,
        seed=seed,
    )


def measured(
    scene: str,
    head: str,
    layers: Sequence[str],
    given: argparse.Namespace,
    folder: Path,
    work: Work,
) -> None:
    """Measure the combinations of a scene: each layer with one region, both readouts."""
    seed, cache, folder = given.seed, folder / "cache", folder / scene
    config = written(folder / "together", head, layers, seed, cache, given.start)
    workspace = Workspace(load_experiment(config))
    specs = [spec for spec in workspace.grid if not spec.closed_form]
    regions = given.regions or list(workspace.regions)
    pairs = {(layer, regions[i % len(regions)]) for i, layer in enumerate(layers)}
    chosen = [spec for spec in specs if (spec.key.layer, spec.key.region) in pairs]
    found: dict[tuple[str, int], Reference] = {}
    for number, spec in enumerate(chosen):
        workspace.features.of(spec.key.backbone, spec.key.layer)
        for one in (seed, seed + AGAIN) if given.again else (seed,):
            run = partial(references, workspace, spec, given.trials, one, number)
            found[spec.name, one] = work.reference((scene, spec.name, one), run)
    names = [spec.name for spec in specs]
    together, ends = searched(config, names, given.trials)
    courses_of: dict[str, Course] = {}
    winners_of: dict[str, Winner] = {}
    if given.default:
        as_shipped = written(folder / "default", head, layers, seed, cache)
        courses_of, winners_of = searched(as_shipped, names, given.trials)
    lines = [spec for spec in workspace.grid if spec.closed_form]
    with open_stores(workspace.experiment, create=True) as stores:
        create(workspace, stores, lines)
        smooth = contender.smooth(workspace, stores, lines)
    for number, spec in enumerate(chosen):
        alone = written(folder / f"cold{number}", head, layers, seed, cache, given.start)
        courses, winners = searched(alone, [spec.name], given.trials)
        row = Row(
            scene,
            spec.name,
            spec.shape.size,
            seed,
            found[spec.name, seed],
            found.get((spec.name, seed + AGAIN)),
            courses[spec.name],
            together[spec.name],
            (winners[spec.name], ends[spec.name]),
            courses_of.get(spec.name),
            winners_of.get(spec.name),
            smooth.get(spec.name.rpartition("/")[0] + "/smooth", math.nan),
        )
        print(until(row), end(row), sep="\n", flush=True)
        work.add(row)


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of generic HDF5 files")
    parser.add_argument("-o", "--out", type=Path, default=Path("quality.md"))
    parser.add_argument("--scenes", nargs="*", choices=("easy", "hard"), default=["easy", "hard"])
    parser.add_argument("--layers", nargs="+", default=list(LAYERS))
    parser.add_argument("--regions", nargs="+", help="of the layers in turn; default: all in turn")
    parser.add_argument("--layers-of-files", nargs="+", default=list(LAYERS_OF_FILES))
    parser.add_argument(
        "--work",
        type=Path,
        help="a file that keeps what was measured: with the same --seed references are not run again",
    )
    parser.add_argument("--start", choices=("auto", "readout"), default="auto")
    parser.add_argument(
        "--again", action="store_true", help="run a second reference, with other settings"
    )
    parser.add_argument(
        "--default", action="store_true", help="search with the default folds and start too"
    )
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="drawn where not given")
    given = parser.parse_args()
    if given.seed is None:
        given.seed = secrets.randbits(31)
    torch.set_num_threads(threads())
    files = sorted(given.folder.glob("*.h5")) if given.folder else []
    if given.folder and not files:
        parser.error(f"{given.folder}: no .h5 file in it; write recordings there first")
    scenes = [(one, SIMULATED.format(difficulty=one), given.layers) for one in given.scenes]
    scenes += [
        (file.stem, RECORDED.format(path=file.resolve()), given.layers_of_files) for file in files
    ]
    work = Work(given.work)
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        for scene, head, layers in scenes:
            measured(scene, head, layers, given, Path(folder), work)
    command = f"python -m benchmarks.quality{' FOLDER' if given.folder else ''}"
    command += f" --start {given.start} --trials {given.trials}"
    command += "".join(f" --{way}" for way in ("again", "default") if getattr(given, way))
    text = page(work.rows, command, given.trials, STEPS, given.start)
    publish(text, given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
