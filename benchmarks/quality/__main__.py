"""How soon is a search as good as 50 independent full trials? ``python -m benchmarks.quality [FOLDER] [-o FILE]``.

The reference is :mod:`benchmarks.quality.reference`: random settings, drawn with a seed of this run (printed, ``--seed``
repeats it), every one trained to its end by an autograd loop on one cut. The contender is the search as shipped, on the
same cut (``training.folds = 1``), all its work counted in CPU seconds: sampler, validations, database, kept weights, starts.
It is run twice: each study by itself, with nobody to take settings over from (cold), and all studies of a scene together,
where time is shared among the studies of a round (together). Scenes are the easy and the hard simulation, and recordings in
FOLDER.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe, publish, threads
from benchmarks.quality import contender, reference
from benchmarks.quality.contender import Course, Winner
from benchmarks.quality.reference import Data, Reference
from studies.config.experiment import load_experiment
from studies.config.ranges import FloatRange, IntRange, Setting
from studies.database.stores import open_stores
from studies.grid import Spec
from studies.search.create import create
from studies.workspace import Workspace

STEPS, BATCH = 300, 50
WITHIN = 1.01
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
folds = 1
start = "{start}"
device = "cpu"
[search]
seed = {seed}
[storage]
cache = "{cache}"
"""


@dataclass(frozen=True)
class Row:
    """One combination.

    Attributes
    ----------
    features
        Features of its layer.
    seed
        What settings were drawn with.
    cold, together
        The search of the study alone, and with all others of the scene.
    winners
        What either ended with.
    smooth
        Validation loss of the closed form.
    """

    scene: str
    study: str
    features: int
    seed: int
    reference: Reference
    cold: Course
    together: Course
    winners: tuple[Winner, Winner]
    smooth: float


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
    features = workspace.features(spec.key.backbone, spec.key.layer)
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
    folder: Path, head: str, layers: Sequence[str], start: str, seed: int, cache: Path
) -> Path:
    """Write a config file."""
    folder.mkdir(parents=True)
    rest = REST.format(
        layers=str(list(layers)).replace("'", '"'),
        steps=STEPS,
        batch=BATCH,
        start=start,
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
            workspace.features(spec.key.backbone, spec.key.layer)
        courses = contender.search(workspace, stores, specs, n_trials)
        winners = {spec.name: contender.winner(workspace, stores, spec) for spec in specs}
    return courses, winners


def measured(
    scene: str,
    head: str,
    layers: Sequence[str],
    given: argparse.Namespace,
    work: Path,
    known: Mapping[tuple[str, str, int], Reference],
) -> Iterator[Row]:
    """Measure the combinations of a scene: each layer with one region, both readouts; known references are not run again."""
    seed, cache = given.seed, work / "cache"
    config = written(work / scene / "together", head, layers, given.start, seed, cache)
    workspace = Workspace(load_experiment(config))
    specs = [spec for spec in workspace.grid if not spec.closed_form]
    regions = given.regions or list(workspace.regions)
    pairs = {(layer, regions[i % len(regions)]) for i, layer in enumerate(layers)}
    chosen = [spec for spec in specs if (spec.key.layer, spec.key.region) in pairs]
    for spec in chosen:
        workspace.features(spec.key.backbone, spec.key.layer)
    together, ends = searched(config, [spec.name for spec in specs], given.trials)
    lines = [spec for spec in workspace.grid if spec.closed_form]
    with open_stores(workspace.experiment, create=True) as stores:
        create(workspace, stores, lines)
        smooth = contender.smooth(workspace, stores, lines)
    for number, spec in enumerate(chosen):
        alone = written(work / scene / f"cold{number}", head, layers, given.start, seed, cache)
        courses, winners = searched(alone, [spec.name], given.trials)
        found = known.get((scene, spec.name, seed)) or reference.search(
            data_of(workspace, spec),
            spec.key.readout,
            drawn(dict(spec.space), given.trials, seed + number),
            steps=STEPS,
            batch=BATCH,
            seed=seed,
        )
        key = spec.name.rpartition("/")[0] + "/smooth"
        row = Row(
            scene,
            spec.name,
            spec.shape.size,
            seed,
            found,
            courses[spec.name],
            together[spec.name],
            (winners[spec.name], ends[spec.name]),
            smooth.get(key, math.nan),
        )
        print(line(row), flush=True)
        yield row


def ratios(row: Row, which: str) -> tuple[float, float]:
    """How many times fewer seconds and multiply-adds until within 1 %; not reached: twice the whole search."""
    course: Course = getattr(row, which)
    reached = course.reached(WITHIN * row.reference.value)
    seconds, macs = reached or (2 * course.seconds, 2 * course.macs)
    return row.reference.seconds / seconds, row.reference.macs / macs


def line(row: Row) -> str:
    """A row of the table."""
    cells = [row.scene, "/".join(row.study.split("/")[1:]), f"{row.features:,}"]
    cells += [f"{row.reference.value:.4f}", f"{row.reference.seconds:.1f}"]
    for which, winner in zip(("cold", "together"), row.winners, strict=True):
        course: Course = getattr(row, which)
        reached = course.reached(WITHIN * row.reference.value)
        times, products = ratios(row, which)
        cells.append("not reached" if reached is None else f"{reached[0]:.2f}")
        cells += [f"{times:.0f}", f"{products:.0f}", f"{winner.value / row.reference.value:.3f}"]
        cells.append(f"{winner.test / row.reference.test:.3f}")
    cells.append(f"{row.smooth / row.reference.value:.3f}")
    return "| " + " | ".join(cells) + " |"


def page(rows: Sequence[Row], command: str, given: argparse.Namespace) -> str:
    """All of it as Markdown."""
    seeds = ", ".join(dict.fromkeys(str(row.seed) for row in rows))
    lines = [
        "# Work to a reference's quality",
        "",
        describe(command),
        "",
        f"The reference: {given.trials} random trials of {STEPS} steps by an autograd loop on cached features as they come, "
        f"one after another, on one cut; settings drawn at run time, seeds {seeds}. The contender: the search as shipped, "
        f'{given.trials} trials, on the same cut (`training.folds = 1`, `training.start = "{given.start}"`), `cold`: the '
        "study by itself; `together`: all studies of the scene, time shared among those of a round. *CPU s*: until its "
        "validation loss is within 1 % of the reference's; *s ×* and *MAC ×*: how many times less than the reference in "
        "all (not reached: than twice the whole search); *end* and *test*: validation and test loss of its best trial "
        "over the reference's. `smooth`: the closed form's validation loss over the reference's.",
        "",
        "| scene | combination | features | reference | CPU s | cold CPU s | s × | MAC × | end | test | together CPU s | "
        "s × | MAC × | end | test | smooth |",
        "|---" * 16 + "|",
        *map(line, rows),
        "",
        "| over all | cold | together |",
        "|---|---|---|",
    ]
    both = ("cold", "together")

    def summed(title: str, cells: Sequence[str]) -> None:
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    for title, part in (
        ("CPU seconds, times less, median", 0),
        ("multiply-adds, times less, median", 1),
    ):
        summed(title, [f"{statistics.median(ratios(r, w)[part] for r in rows):.1f}" for w in both])
    sizes = sorted({r.features for r in rows})
    for size in sizes:
        mine = [r for r in rows if r.features == size]
        cells = [f"{statistics.median(ratios(r, w)[0] for r in mine):.1f}" for w in both]
        summed(f"CPU seconds, times less, at {size:,} features", cells)
    goal = [
        [getattr(r, w).reached(WITHIN * r.reference.value) is not None for r in rows] for w in both
    ]
    summed("reached", [f"{sum(g)} of {len(g)}" for g in goal])
    ends = [[r.winners[i].value / r.reference.value for r in rows] for i in (0, 1)]
    tests = [[r.winners[i].test / r.reference.test for r in rows] for i in (0, 1)]
    summed("worst end, validation", [f"{max(e) - 1:+.1%}" for e in ends])
    summed("worst end, test", [f"{max(t) - 1:+.1%}" for t in tests])
    apart = [max(abs(r.winners[i].alone / r.winners[i].value - 1) for r in rows) for i in (0, 1)]
    summed("the winner retrained alone differs by at most", [f"{a:.1e}" for a in apart])
    return "\n".join(lines) + "\n"


def kept(work: Path | None) -> list[Row]:
    """What was measured before."""
    if work is None or not work.exists():
        return []
    return [
        Row(
            **one
            | {"reference": Reference(**one["reference"])}
            | {which: Course(**one[which]) for which in ("cold", "together")}
            | {"winners": tuple(Winner(**end) for end in one["winners"])}
        )
        for one in json.loads(work.read_text(encoding="utf-8"))
    ]


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
        help="a file that keeps what was measured; with the same --seed references are not run again",
    )
    parser.add_argument("--start", choices=("auto", "readout"), default="auto")
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
    rows = {(row.scene, row.study, row.seed): row for row in kept(given.work)}
    known = {key: row.reference for key, row in rows.items()}
    with tempfile.TemporaryDirectory(prefix="quality-") as work:
        for scene, head, layers in scenes:
            for row in measured(scene, head, layers, given, Path(work), known):
                rows[row.scene, row.study, row.seed] = row
                if given.work is not None:
                    text = json.dumps([asdict(one) for one in rows.values()])
                    given.work.write_text(text, encoding="utf-8")
    folder = " FOLDER" if given.folder else ""
    command = f"python -m benchmarks.quality{folder} --start {given.start} --trials {given.trials}"
    publish(page(list(rows.values()), command, given), given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
