"""Real recordings: every way of predicting them beside every other. ``python -m benchmarks.real FOLDER -o PAGE.md``.

For each generic HDF5 of a folder, each layer and each way: correlation with the mean over repeats of the test images, where
the recording repeats images normalised by the ceiling too; differences to the smooth readout with standard errors over
units; trials; CPU seconds. What is found is kept in ``--work`` and not computed again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe, publish, threads
from benchmarks.real.closed import CLOSED
from benchmarks.real.problem import Problem, Settings
from benchmarks.real.searched import run, search, stack
from studies.workspace import Workspace

BASELINE = "smooth"
SEARCHED = ("smooth", "full", "factorized")
STACKED, STACKED_ALL = "stacked", "stacked, smooth of all layers"
TOGETHER = "together"
SINGLE = (*CLOSED, *SEARCHED)
WAYS = (*SINGLE, STACKED, STACKED_ALL)
LAYERS = ("_blocks.2", "_blocks.4", "_blocks.10")


@dataclass(frozen=True)
class Found:
    """One way on one layer of one recording.

    Attributes
    ----------
    correlation, normalized
        Of each unit with the test images; NaN where undefined, the latter everywhere without repeats.
    trials
        Of the search; 0 where there was none.
    seconds
        Of CPU time, extraction of features and imports not counted.
    """

    recording: str
    layer: str
    way: str
    correlation: list[float]
    normalized: list[float]
    trials: int
    seconds: float


def measure(workspace: Workspace, recording: str, layer: str, way: str, trials: int) -> Found:
    """One way on one layer."""
    from tuner.scores import score_units

    backbone = workspace.experiment.backbone[0].alias
    if way in SEARCHED:
        workspace.features.of(backbone, layer)  # cached: extraction is no part of a search
        units, done, seconds = search(workspace.experiment.file.parent, layer, way, trials)
        r, normalized = (
            [float(v) for v in units[name]]
            for name in ("test_correlation", "test_correlation_normalized")
        )
        return Found(recording, layer, way, r, normalized, done, seconds)
    if way in (STACKED, STACKED_ALL):
        return stacked(workspace, recording, way)
    problem = Problem.of(workspace, backbone, layer)
    begin = time.process_time()
    predicted = CLOSED[way](problem)
    seconds = time.process_time() - begin
    measured = workspace.recording.test_responses
    scores = score_units(predicted, measured, intervals=None)
    r, normalized = (
        [float(v) for v in scores[name]]
        for name in ("test_correlation", "test_correlation_normalized")
    )
    return Found(recording, layer, way, r, normalized, 0, seconds)


def stacked(workspace: Workspace, recording: str, way: str) -> Found:
    """All studies of a recording together; of the default layers' smooth readouts in a folder of their own."""
    folder, seconds = workspace.experiment.file.parent, 0.0
    if way == STACKED_ALL:
        table = workspace.experiment.backbone[0]
        data = workspace.experiment.data
        every = Settings(table.name, "all", data.image_size, data.region, 0)
        folder = folder / "all-layers"
        others = every.experiment(data.path, folder)
        for layer in others.layers(table.alias):
            others.features(table.alias, layer.name)
        run(folder, "study", "create", "--readout", BASELINE)
        seconds = run(folder, "optimize", "--n-trials", "1", "--readout", BASELINE)
    begin = time.process_time()
    units, _ = stack(folder)
    seconds += time.process_time() - begin
    r, normalized = (
        [float(v) for v in units[name]]
        for name in ("test_correlation", "test_correlation_normalized")
    )
    return Found(recording, TOGETHER, way, r, normalized, 0, seconds)


def everything(
    files: Sequence[Path], settings: Settings, ways: Sequence[str], work: Path
) -> list[Found]:
    """All of it, what lies in the work folder read from there."""
    out = []
    for file in files:
        key = json.dumps(asdict(settings)).encode() + hashlib.blake2b(file.read_bytes()).digest()
        folder = work / f"{file.stem}-{hashlib.blake2b(key, digest_size=4).hexdigest()}"
        workspace = settings.experiment(file, folder)
        if workspace.recording.test_responses is None:
            raise SystemExit(f"error: {file}: no test set to predict; leave it out of the folder")
        single = [(layer, way) for layer in settings.layers for way in ways if way in SINGLE]
        for layer, way in [*single, *((TOGETHER, way) for way in ways if way not in SINGLE)]:
            kept = folder / "results" / f"{layer}.{way}.json"
            if kept.exists():
                out.append(Found(**json.loads(kept.read_text(encoding="utf-8"))))
                continue
            found = measure(workspace, file.stem, layer, way, settings.trials)
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(asdict(found)), encoding="utf-8")
            out.append(found)
            print(
                f"{file.stem} {layer} {way}: {np.mean(zeroed(found.correlation)):.3f}, "
                f"{found.seconds:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    return out


def zeroed(correlations: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A unit that is predicted by a constant counts as 0."""
    return np.nan_to_num(np.asarray(correlations, dtype=np.float64))


def table(found: Sequence[Found], which: str) -> list[str]:
    """Ways by layers: means over units, and differences to the baseline with standard errors over units.

    What stacks layers is compared with the baseline's best layer.
    """
    layers = list(dict.fromkeys(f.layer for f in found))
    at = {(f.way, f.layer): zeroed(getattr(f, which)) for f in found}
    bases = {layer: at[BASELINE, layer] for layer in layers if (BASELINE, layer) in at}
    if bases:
        bases[TOGETHER] = max(bases.values(), key=lambda values: float(values.mean()))
    lines = [
        "| | " + " | ".join(layers) + " | trials | CPU s |",
        "|---" * (len(layers) + 3) + "|",
    ]
    for way in dict.fromkeys(f.way for f in found):
        cells = []
        for layer in layers:
            if (way, layer) not in at:
                cells.append("")
                continue
            values = at[way, layer]
            cell = f"{values.mean():.3f}"
            if layer in bases and way != BASELINE:
                gap = values - bases[layer]
                cell += f" ({gap.mean():+.3f} ± {gap.std(ddof=1) / np.sqrt(len(gap)):.3f})"
            cells.append(cell)
        mine = [f for f in found if f.way == way]
        trials = max(f.trials for f in mine)
        seconds = np.mean([f.seconds for f in mine])
        lines.append(f"| {way} | " + " | ".join(cells) + f" | {trials or ''} | {seconds:.1f} |")
    return lines


def page(found: Sequence[Found], source: str, command: str, settings: Settings) -> str:
    """All recordings as Markdown."""
    lines = [
        "# Real recordings",
        "",
        describe(command),
        "",
        f"{source}{'' if source.endswith('.') else '.'} {settings.backbone} at {settings.image_size} px. Correlation "
        "of predictions with the mean over repeats of the test images, mean over units; in brackets the difference to "
        f"`{BASELINE}` with its standard error over units; what is stacked is compared with the best layer of it. "
        f"`{BASELINE}` and the searches run as shipped, by the command, {settings.trials} trials a study of the latter; "
        "`stacked`: these studies together. Other ways are fitted to all training images, `smooth` and the searches, where "
        "training images are cut once, to the fit images. CPU seconds are those of the fit or of `tuner optimize`, "
        "without the extraction of features.",
    ]
    for recording in dict.fromkeys(f.recording for f in found):
        mine = [f for f in found if f.recording == recording]
        lines += ["", f"## {recording}", "", f"{len(mine[0].correlation)} units.", ""]
        lines += table(mine, "correlation")
        if np.isfinite([v for f in mine for v in f.normalized]).any():
            lines += ["", "Normalised by the ceiling:", "", *table(mine, "normalized")]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description="Real recordings, every way beside every other.")
    parser.add_argument("folder", type=Path, help="of generic HDF5 files")
    parser.add_argument("-o", "--out", type=Path, default=Path("real.md"))
    parser.add_argument("--work", type=Path, default=Path("real-work"), help="what is kept")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--layers", nargs="+", default=list(LAYERS))
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--region", default="area", help="the unit column of the regions")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--source", default="Recordings of a folder", help="where they come from")
    given = parser.parse_args()
    torch.set_num_threads(threads())
    files = sorted(given.folder.glob("*.h5"))
    if not files:
        parser.error(f"{given.folder}: no .h5 file in it; write recordings there first")
    ways = list(given.ways)
    if "himalaya" in ways and importlib.util.find_spec("himalaya") is None:
        print("himalaya is not installed: pip install himalaya", file=sys.stderr)
        ways.remove("himalaya")
    settings = Settings(
        given.backbone, tuple(given.layers), given.image_size, given.region, given.trials
    )
    found = everything(files, settings, ways, given.work)
    names = " ".join(f'"{way}"' if " " in way else way for way in ways)
    command = f"python -m benchmarks.real FOLDER --trials {given.trials} --ways {names}"
    publish(page(found, given.source, command, settings), given.out)


if __name__ == "__main__":
    main()
