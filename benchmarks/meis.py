"""Do the images show what the units want? Most exciting images of simulated units, held against the truth.

``python -m benchmarks.meis -o PAGE.md`` makes an experiment of the demo's kind with 24 units a region, searches the layers
that the regions were simulated at, and makes images of all units in several ways. Since the units are simulated, every
image can be shown to the *true* unit: does it drive it more than the best of the natural images at equal mean and contrast?
V1 units are Gabor filters, so orientation and position of an image can be compared with those of the filter, too.

The position of an image is the centre of its patch of most contrast, its orientation that of the structure tensor over that
patch. Neither knows anything of the unit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import tuner
from benchmarks.machine import describe, publish, threads
from cli.main import main as command
from studies.config.templates import read_template
from tuner.backbones import Backbone, load_backbone
from tuner.encoder import Encoder
from tuner.recordings import PreparedImages
from tuner.recordings.recording import Recording
from tuner.recordings.simulated import model as simulated
from tuner.recordings.simulated.gabors import LUMINANCE, Gabors
from tuner.synthesis.mei import MeiSettings, synthesize
from tuner.synthesis.photometry import quantize

Floats = NDArray[np.float64]

LAYERS = {"V1": "_blocks.2", "V4": "_blocks.4", "IT": "_blocks.15"}
READOUTS = ("full", "factorized")
UNITS, TRIALS = 24, 24
WELL_FITTED = 0.6
"""Normalised test correlation from which a fit is held to know its unit."""

LUCENT = {"ascent": "adam", "colour": 1.0, "decay": 1.0}
"""lucent's own image: Adam, colours and spectrum of natural images."""

WHOLE = """\
Mean and contrast are held over the **whole image** here. An image gathers its contrast in the unit's field, natural ones
do not: V1 images win partly by that. What is left of it with contrast held inside the field is in [judges](judges.md) and
[fields](fields.md). This page compares ways of making images with each other."""

WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("default", {}),
    ("as lucent", {"prior_options": LUCENT}),
    ("Adam", {"prior_options": {"ascent": "adam"}}),
    ("decay 1", {"prior_options": {"decay": 1.0}}),
    ("full colour", {"prior_options": {"colour": 1.0}}),
    ("no colour", {"prior_options": {"colour": 0.0}}),
    ("prior pixel", {"prior": "pixel"}),
    ("prior cppn", {"prior": "cppn"}),
    ("transforms none", {"transforms": "none"}),
    ("transforms lucent", {"transforms": "lucent"}),
    ("contrast 0.05", {"contrast": 0.05}),
)
"""The first two are tried on everything, the others on V1."""


@dataclass
class Scene:
    """The experiment after its search."""

    recording: Recording
    backbone: Backbone
    encoders: dict[tuple[str, str], Encoder]
    correlation: dict[tuple[str, str], Floats]
    natural: dict[str, Floats] = field(default_factory=dict)

    def true(self, pixels: NDArray[np.uint8]) -> Floats:
        """Noiseless responses ``(n, n_units)`` of all units."""
        truth = self.recording.truth
        return np.asarray(simulated.true_responses(truth, pixels, self.backbone))

    def best_natural(self, settings: MeiSettings) -> Floats:
        """``(n_units,)``: the true response to the best training image at these settings' mean and contrast."""
        key = str(settings.photometry)
        if key not in self.natural:
            size = int(self.recording.truth["settings/image_size"])
            images = PreparedImages(self.recording.train_images, size, "error")
            shown = settings.photometry.match(images.read(np.arange(len(images))))
            self.natural[key] = self.true(shown).max(0)
        return self.natural[key]


def prepare(folder: Path, trials: int) -> Scene:
    """Search as a user would, and load what was found."""
    text = read_template("demo").replace("units_per_region = 12", f"units_per_region = {UNITS}")
    layers = ", ".join(f'"{layer}"' for layer in LAYERS.values())
    old = next(line for line in text.splitlines() if line.startswith("layers"))
    config = folder / "tuner.toml"
    config.write_text(text.replace(old, f"layers = [{layers}]"))
    run = ["-q", "-c", str(config)]
    _tuner(*run, "study", "create")
    for region, layer in LAYERS.items():
        chosen = ["--region", region, "--layer", layer]
        _tuner(*run, "optimize", "--n-trials", str(trials), *chosen)
        _tuner(*run, "export", "best", "-o", str(folder / "best"), *chosen)
    _tuner(*run, "export", "heatmap", "-o", str(folder / "heatmap"))
    import pandas as pd

    table = pd.read_csv(folder / "heatmap" / "units.csv")
    backbone = load_backbone("efficientnet_lite0")
    encoders, correlation = {}, {}
    for region, layer in LAYERS.items():
        for readout in READOUTS:
            where = folder / "best" / "efficientnet_lite0" / layer / region / readout
            encoders[region, readout] = tuner.load_encoder(where, backbone=backbone)
            mine = table[
                (table.region == region) & (table.readout == readout) & (table.layer == layer)
            ]
            correlation[region, readout] = mine.sort_values("unit")[
                "test_correlation_normalized"
            ].to_numpy()
    recording = tuner.load_recording(None, "simulated", units_per_region=UNITS)
    return Scene(recording, backbone, encoders, correlation)


def _tuner(*words: str) -> None:
    _say("tuner " + " ".join(words))
    if command([*words]) != 0:
        raise SystemExit(f"tuner {' '.join(words)} failed")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def find(pixels: NDArray[np.uint8]) -> tuple[float, float, float]:
    """x, y (pixels) of an image ``(S, S, 3)``'s patch of most contrast, and the orientation (degrees) of its stripes.

    The orientation is that of the structure tensor over the patch: across stripes the gradient is strongest.
    """
    from scipy import ndimage

    grey = pixels @ np.asarray(LUMINANCE) / 255
    energy = ndimage.gaussian_filter(np.square(grey - grey.mean()), len(grey) / 20)
    strong, _ = ndimage.label(energy > energy.max() / 2)
    patch = strong == strong[np.unravel_index(energy.argmax(), energy.shape)]
    weight = np.where(patch, energy, 0)
    y, x = ndimage.center_of_mass(weight)
    down, right = np.gradient(ndimage.gaussian_filter(grey, len(grey) / 64))
    mean = (weight * (right + 1j * down) ** 2).sum()
    return float(x), float(y), float(-(np.rad2deg(np.angle(mean) / 2) + 90) % 180)


@dataclass(frozen=True)
class Row:
    """One way of making images of one region's units.

    Attributes
    ----------
    better
        Share of the units whose true response to their image exceeds that to the best natural image.
    ratio
        Median of the two responses' ratio, above the response to the grey screen.
    overrated
        Median of what the encoder predicts over what the unit does, both above grey.
    oriented, placed
        Share of the well-fitted V1 units with the right orientation and position; NaN elsewhere.
    fitted
        Number of units that are fitted well.
    """

    region: str
    encoder: str
    way: str
    better: float
    ratio: float
    overrated: float
    oriented: float
    placed: float
    fitted: int
    seconds: float


def judge(
    scene: Scene, region: str, kinds: Sequence[str], way: str, options: dict[str, Any]
) -> Row:
    """Make images of all units of a region, and show them to the true units."""
    settings = MeiSettings(**options)
    encoders = [scene.encoders[region, kind] for kind in kinds]
    begin = time.perf_counter()
    result = synthesize(encoders, None, settings)
    seconds = time.perf_counter() - begin
    fitted = scene.correlation[region, kinds[0]] > WELL_FITTED
    return _row(
        scene, region, " + ".join(kinds), way, settings, result.units, result.pixels[:, 0],
        result.activation[:, 0], fitted, seconds,
    )  # fmt: skip


def ideal(scene: Scene, contrast: float) -> Row:
    """The true filters themselves, shown at equal contrast: what is possible."""
    settings = MeiSettings(contrast=contrast)
    units = np.flatnonzero(scene.recording.truth["units/population"] == "V1")
    size = int(scene.recording.truth["settings/image_size"])
    filters = Gabors.from_truth(scene.recording.truth, units).filters(size)[0]
    images = torch.from_numpy(np.repeat(filters[:, None], 3, axis=1)).float()
    pixels = quantize(settings.photometry.apply(images, exact=True))
    none = np.full(len(units), np.nan)
    return _row(
        scene, "V1", "the true filter", f"contrast {contrast}", settings, units, pixels, none,
        np.ones(len(units), dtype=bool), 0.0,
    )  # fmt: skip


def _row(
    scene: Scene,
    region: str,
    encoder: str,
    way: str,
    settings: MeiSettings,
    units: NDArray[np.int64],
    pixels: NDArray[np.uint8],
    predicted: Floats,
    fitted: NDArray[np.bool_],
    seconds: float,
) -> Row:
    truth = scene.recording.truth
    size = int(truth["settings/image_size"])
    level = round(255 * (settings.mean if settings.mean is not None else 0.5))
    grey = scene.true(np.full((1, size, size, 3), level, dtype=np.uint8))[0, units]
    got = scene.true(pixels)[np.arange(len(units)), units]
    natural = scene.best_natural(settings)[units]
    oriented = placed = float("nan")
    if region == "V1":
        found = np.array([find(image) for image in pixels])
        away = np.abs(found[:, 2] - truth["units/orientation"][units]) % 180
        distance = np.hypot(
            found[:, 0] - truth["units/x"][units], found[:, 1] - truth["units/y"][units]
        )
        oriented = float(np.mean(np.minimum(away, 180 - away)[fitted] <= 15))
        placed = float(np.mean((distance <= truth["units/sigma"][units])[fitted]))
    above = np.maximum(got - grey, 1e-9)
    return Row(
        region,
        encoder,
        way,
        float(np.mean(got > natural)),
        float(np.median((got - grey) / (natural - grey))),
        float(np.median((predicted - grey) / above)),
        oriented,
        placed,
        int(fitted.sum()),
        seconds,
    )


@dataclass(frozen=True)
class Batching:
    """Seconds an image, one at a time and all together."""

    layer: str
    alone: float
    together: float


def batching(scene: Scene, steps: int = 20, singly: int = 4) -> list[Batching]:
    """What making images together saves, per layer; medians of three paired runs."""
    out = []
    for region, layer in LAYERS.items():
        encoders = [scene.encoders[region, "factorized"]]
        settings = MeiSettings(steps=steps)
        units = encoders[0].unit_indices.tolist()
        synthesize(encoders, units[:1], settings)
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            for unit in units[:singly]:
                synthesize(encoders, [unit], settings)
            middle = time.perf_counter()
            synthesize(encoders, units, settings)
            times.append(((middle - begin) / singly, (time.perf_counter() - middle) / len(units)))
        alone, together = np.median(np.array(times), axis=0)
        out.append(Batching(layer, float(alone), float(together)))
    return out


def page(rows: Sequence[Row], batches: Sequence[Batching], trials: int) -> str:
    """All of it as Markdown."""
    lines = [
        "# Most exciting images against the truth",
        "",
        describe("python -m benchmarks.meis"),
        "",
        f"Simulated recording, {UNITS} units a region, the layers they were simulated at, {trials} trials a study, the best "
        "encoder of each. *Beats natural*: the\nshare of units whose **true** response to their image exceeds the true "
        "response to the best of the 1,100 training images at equal mean\nand contrast; *ratio*: the median of the two "
        "responses above grey; *overrated*: the encoder's prediction over the true response (median).\n*Orientation* within "
        f"15 degrees and *position* within one sigma of the true filter, among V1 units with normalised test correlation "
        f"over\n{WELL_FITTED}. The rows of the true filter are what is possible.",
        "",
        WHOLE,
        "",
        "| region | encoder | way | beats natural | ratio | overrated | orientation | position | units fitted | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        shares = [f"{x:.0%}" if np.isfinite(x) else "" for x in (r.oriented, r.placed)]
        over = f"{r.overrated:.1f}" if np.isfinite(r.overrated) else ""
        taken = f"{r.seconds:.0f}" if r.seconds else ""
        lines.append(
            f"| {r.region} | {r.encoder} | {r.way} | {r.better:.0%} | {r.ratio:.2f} | {over} | {shares[0]} | {shares[1]} | "
            f"{r.fitted} | {taken} |"
        )
    lines += [
        "",
        "## Together and alone",
        "",
        f"Milliseconds an image of 20 steps, {UNITS} units in one run against one run for each.",
        "",
        "| layer | alone, ms | together, ms | times faster |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {b.layer} | {1e3 * b.alone:.0f} | {1e3 * b.together:.0f} | {b.alone / b.together:.1f} |"
        for b in batches
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Search, make images, write the page."""
    parser = argparse.ArgumentParser(description="Images against the truth.")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--folder", type=Path, help="keep the experiment here, or go on with it")
    given = parser.parse_args()
    torch.set_num_threads(threads())
    folder = given.folder or Path(tempfile.mkdtemp(prefix="meis-"))
    folder.mkdir(parents=True, exist_ok=True)
    scene = prepare(folder, given.trials)
    rows = [ideal(scene, contrast) for contrast in (0.1, 0.05)]
    encoders = (*((readout,) for readout in READOUTS), ("factorized", "full"))
    for region in LAYERS:
        for kinds in encoders:
            ways = WAYS if region == "V1" and len(kinds) == 1 else WAYS[:2]
            for way, options in ways:
                rows.append(judge(scene, region, kinds, way, options))
                _say(f"{rows[-1]}")
    text = page(rows, batching(scene), given.trials)
    publish(text, given.out)


if __name__ == "__main__":
    main()
