"""Do images win under fair conditions, and who says so? V1 units of the easy and of the hard simulated recording.

``python -m benchmarks.judges -o PAGE.md --folder FOLDER`` goes on with the experiments of ``benchmarks.audit``. Images of
V1 units are made in several ways, cut out by the *true* field as the natural images are, all at one mean and contrast
there, and shown to the true filter and to encoders on another network. A judge is asked twice: against the natural image
that it likes best itself, which is one that it overrates, and against the one that the true filter likes best, which no
error of the judge has picked.

What limits the judge is taken apart: the ideal image shows what it makes of the truth itself; a judge of both readouts is an
ensemble; one that was fitted, on the same images, to responses without noise has no limit of data. So is what limits the
images: an encoder fitted without noise has no limit of data either, and a prior of Gabor filters none of its own. An
ensemble with the other network is no longer judged independently by that one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.audit import searched
from benchmarks.audit.registry import DIFFICULTIES
from benchmarks.audit.searched import MIDDLE, OTHER, SHALLOW, Scene, scene
from benchmarks.best_gabor import best_gabors
from benchmarks.machine import describe, publish, threads
from studies.results.encoders import encoder
from tuner.encoder import Encoder
from tuner.synthesis.evaluate import responses
from tuner.synthesis.mei import MeiSettings, synthesize
from tuner.synthesis.patches import cut_out
from tuner.synthesis.photometry import Photometry, quantize
from tuner.synthesis.receptive_fields import Fields

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Judge = Callable[[Pixels, int], Floats]
"""Responses to images of a unit, given by its place among the V1 units."""

CANDIDATES = 100
FIELD: dict[str, Any] = {"match": "field", "steps": 100}
NO_COLOUR: dict[str, Any] = FIELD | {"prior_options": {"colour": 0.0}}
Maker = tuple[str, str]
"""Layer and readout."""
ONE: Maker = (SHALLOW, "factorized")
WAYS: tuple[tuple[str, tuple[Maker, ...], dict[str, Any]], ...] = (
    ("contrast of the whole image", (ONE,), {"steps": 100}),
    ("contrast inside the field", (ONE,), FIELD),
    ("the same, prior of strong colour", (ONE,), FIELD | {"prior_options": {"colour": 2.0}}),
    ("the same, prior without colour", (ONE,), NO_COLOUR),
    ("the same, ensemble of both readouts", (ONE, (SHALLOW, "full")), NO_COLOUR),
    ("the same, ensemble of two layers", (ONE, (MIDDLE, "factorized")), NO_COLOUR),
    ("the same, ensemble with the other network", (ONE, (OTHER[1], "factorized")), NO_COLOUR),
    ("the same, robust: shaken strongly", (ONE,), NO_COLOUR | {"transforms": "lucent"}),
)
CLEAN = "prior without colour, maker fitted without noise"
GABOR = "prior of Gabor filters alone"
BOTH = "prior of Gabor filters alone, maker fitted without noise"


@dataclass(frozen=True)
class Stage:
    """V1 units, natural images that may drive them, and the window of each unit's true field."""

    here: Scene
    windows: Floats
    likely: list[Pixels]
    good: NDArray[np.bool_]

    @classmethod
    def of(cls, difficulty: str) -> Stage:
        """Of a searched recording."""
        here = scene(difficulty)
        gabors, ones = here.gabors, np.ones(len(here.v1))
        size = here.workspace.experiment.data.image_size
        fields = Fields(gabors.x, gabors.y, gabors.sigma, gabors.sigma, 0 * ones, ones, size)
        every = np.arange(len(here.workspace.images))
        images = Photometry().match(here.workspace.images.read(every))
        order = np.argsort(gabors.respond(images), axis=0)[::-1][:CANDIDATES]
        good = here.known(here.best(SHALLOW, "V1", "factorized"))
        return cls(here, fields.windows(), [images[mine] for mine in order.T], good)

    def cut(self, shown: Pixels, unit: int) -> Pixels:
        """Images as the true field shows them."""
        return cut_out(Photometry(), shown, np.repeat(self.windows[[unit]], len(shown), axis=0))


def judges_of(stage: Stage) -> dict[str, Judge]:
    """The true filter, and encoders on the other network."""
    here, workspace = stage.here, stage.here.workspace
    readouts = {name: here.best(OTHER[1], "V1", name).encoder() for name in ("factorized", "full")}
    named: dict[str, list[Encoder]] = {
        "other network, factorized": [readouts["factorized"]],
        "other network, both readouts": list(readouts.values()),
        "other network, fitted without noise": [_noiseless(here, OTHER[1])],
    }
    z = workspace.scaling.scale[here.v1]

    def by(encoders: list[Encoder]) -> Judge:
        return lambda shown, unit: np.mean(
            [answers[:, unit] / z[unit] for answers in responses(encoders, shown)], axis=0
        )

    truth: dict[str, Judge] = {
        "true filter": lambda shown, unit: here.gabors.respond(shown)[:, unit]
    }
    return truth | {name: by(encoders) for name, encoders in named.items()}


def _noiseless(here: Scene, layer: str) -> Encoder:
    """The closed form of the factorized readout at a layer, fitted to responses without noise."""
    from tuner.closed_form.fwrf import fit_fwrf

    workspace = here.workspace
    spec = here.best(layer, "V1", "factorized").spec
    signal = here.truth["signal/train"][:, spec.units]
    scaled = workspace.scaling.scale[spec.units], workspace.scaling.mean[spec.units]
    targets = ((signal - scaled[1]) / scaled[0]).astype(np.float32)
    features = workspace.features.of(*spec.cohort[:2]).train
    rows = np.arange(len(targets))
    found = fit_fwrf(features, targets, rows, groups=workspace.recording.train_groups)
    return encoder(workspace, spec, found.parameters, trial=None, value=None)


def ideal(stage: Stage) -> Pixels:
    """The true filters as images, in the colours that they see."""
    gabors = stage.here.gabors
    filters = gabors.filters(stage.windows.shape[1])[0]
    coloured = filters[:, None] * gabors.colour[:, :, None, None]
    windows = torch.from_numpy(stage.windows).float()[:, None]
    return quantize(Photometry().inside(torch.from_numpy(coloured).float(), windows, exact=True))


def rows(difficulty: str) -> tuple[list[str], str]:
    """Rows of the table of a recording, and how many units they are of."""
    stage = Stage.of(difficulty)
    judges = judges_of(stage)
    natural = _natural(stage, judges)
    made = {"the true filter itself": ideal(stage)}
    for name, makers, options in WAYS:
        encoders = [stage.here.best(layer, "V1", readout).encoder() for layer, readout in makers]
        made[name] = synthesize(encoders, None, MeiSettings(**options)).pixels[:, 0]
    clean = _noiseless(stage.here, SHALLOW)
    made[CLEAN] = synthesize([clean], None, MeiSettings(**NO_COLOUR)).pixels[:, 0]
    made[GABOR] = best_gabors(stage.here.best(ONE[0], "V1", ONE[1]).encoder(), Photometry())
    made[BOTH] = best_gabors(clean, Photometry())
    lines = []
    for name, pixels in made.items():
        cells = []
        for who, judge in judges.items():
            own = np.array([judge(stage.cut(p[None], k), k)[0] for k, p in enumerate(pixels)])
            shares = [f"{np.mean((own > rival)[stage.good]):.0%}" for rival in natural[who]]
            cells += shares[:1] if who == "true filter" else shares
        lines.append(f"| {difficulty} | {name} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines, f"{stage.good.sum()} of {len(stage.good)} ({difficulty})"


def _natural(stage: Stage, judges: Mapping[str, Judge]) -> dict[str, Floats]:
    """Each judge's response to the natural image that it likes best, and to the one that the true filter does."""
    out = {who: np.empty((2, len(stage.likely))) for who in judges}
    for k, pixels in enumerate(stage.likely):
        shown = stage.cut(pixels, k)
        answers = {who: judge(shown, k) for who, judge in judges.items()}
        truly = int(answers["true filter"].argmax())
        for who, found in answers.items():
            out[who][:, k] = found.max(), found[truly]
    return out


def main() -> None:
    """Search where nothing is there, make images, write the page."""
    parser = argparse.ArgumentParser(description="Images and judges.")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="experiments of benchmarks.audit")
    given = parser.parse_args()
    torch.set_num_threads(threads())
    if given.folder is not None:
        searched.keep_in(given.folder)
    others = ("factorized", "both readouts", "fitted without noise")
    heads = [f"{name}: {which}" for name in others for which in ("its own best", "the true best")]
    found = [rows(difficulty) for difficulty in DIFFICULTIES]
    text = "\n".join(
        [
            "# Images and judges under fair conditions",
            "",
            describe("python -m benchmarks.judges"),
            "",
            f"V1 units of the simulated recordings whose fit at `{SHALLOW}` has a normalised correlation over "
            f"{searched.WELL_FITTED}: the share whose\nimage beats the best of {CANDIDATES} natural images, all cut out by "
            "the true field at equal mean and contrast. By the true filter, and by\nencoders on another network "
            f"({OTHER[0]}, `{OTHER[1]}`): against the natural image that the judge likes best itself (it overrates\nthat "
            "one), and against the one that the true filter likes best. *Fitted without noise*: the judge's limit of data "
            "taken away.",
            "",
            f"| recording | image | true filter | {' | '.join(heads)} |",
            "|" + "---|" * (3 + len(heads)),
            *(line for lines, _ in found for line in lines),
            "",
            f"Units that are fitted so well: {', '.join(units for _, units in found)}.",
        ]
    )
    publish(text + "\n", given.out)


if __name__ == "__main__":
    main()
