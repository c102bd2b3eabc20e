"""Where V1 units look and what they prefer inside their fields: simulated units, held against the truth.

``python -m benchmarks.fields -o PAGE.md`` searches V1 of the easy and of the hard simulated recording at three depths, and
compares the receptive fields with the true filters. Then it makes images of the easy recording's V1 units, cuts them and the
natural images out by the *true* field, brings all to one mean and contrast there, and shows them to the true filter and to
an encoder on another backbone.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import tuner
from benchmarks.machine import describe, publish, threads
from cli.main import main as command
from studies.config.templates import read_template
from tuner.encoder import Encoder, as_batch
from tuner.recordings.recording import Recording
from tuner.recordings.simulated.gabors import Gabors
from tuner.synthesis.evaluate import responses
from tuner.synthesis.mei import MeiSettings, synthesize
from tuner.synthesis.photometry import Photometry, quantize
from tuner.synthesis.receptive_fields import Fields

Floats = NDArray[np.float64]

DEPTHS = ("_blocks.2", "_blocks.4", "_blocks.5")
OTHER = ("efficientnet_lite1", "_blocks.3")
"""Whose encoders judge the images of `DEPTHS[0]`: another network, at the same stride."""
UNITS, TRIALS = 24, 24
WELL_FITTED = 0.6
READOUTS = ("factorized", "full")
CANDIDATES = 200
NO_COLOUR = {"prior_options": {"colour": 0.0}}
WAYS: tuple[tuple[str, Sequence[str], dict[str, Any]], ...] = (
    ("whole image", ("factorized",), {}),
    ("field", ("factorized",), {"match": "field"}),
    ("field, no colour", ("factorized",), {"match": "field", **NO_COLOUR}),
    ("field, no colour, both readouts", ("factorized", "full"), {"match": "field", **NO_COLOUR}),
    (
        "field, no colour, shaken as lucent does",
        ("factorized",),
        {"match": "field", "transforms": "lucent", **NO_COLOUR},
    ),
    (
        "field, no colour, steep spectrum",
        ("factorized",),
        {"match": "field", "prior_options": {"colour": 0.0, "decay": 2.5}},
    ),
    ("field, no colour, full readout", ("full",), {"match": "field", **NO_COLOUR}),
)


def search(folder: Path, difficulty: str, trials: int) -> pd.DataFrame:
    """Search V1 as a user would; returns units.csv of it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = read_template("demo").replace("units_per_region = 12", f"units_per_region = {UNITS}")
    layers = ", ".join(f'"{layer}"' for layer in DEPTHS)
    text = re.sub(r"^layers = .*$", f"layers = [{layers}]", text, flags=re.M)
    text = text.replace(
        'format = "simulated"', f'format = "simulated"\ndifficulty = "{difficulty}"'
    )
    other = f'[[backbone]]\nname = "{OTHER[0]}"\nlayers = ["{OTHER[1]}"]\n\n[training]'
    config = folder / "tuner.toml"
    config.write_text(text.replace("[training]", other, 1))
    run = ["-q", "-c", str(config)]
    chosen = ["--region", "V1"]
    for readout in READOUTS:
        chosen += ["--readout", readout]
    _tuner(*run, "study", "create")
    _tuner(*run, "optimize", "--n-trials", str(trials), *chosen)
    _tuner(*run, "export", "best", "-o", str(folder / "best"), *chosen)
    _tuner(*run, "export", "heatmap", "-o", str(folder / "heatmap"), *chosen)
    return pd.read_csv(folder / "heatmap" / "units.csv")


def _tuner(*words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} tuner {' '.join(words)}", file=sys.stderr, flush=True)
    if command([*words]) != 0:
        raise SystemExit(f"tuner {' '.join(words)} failed")


def _encoder(folder: Path, backbone: str, layer: str, readout: str) -> Encoder:
    return tuner.load_encoder(folder / "best" / backbone / layer / "V1" / readout)


def _of(table: pd.DataFrame, backbone: str, layer: str, readout: str) -> pd.DataFrame:
    mine = (table.backbone == backbone) & (table.layer == layer) & (table.readout == readout)
    return table[mine & (table.region == "V1")].sort_values("unit")


def placed(recording: Recording, table: pd.DataFrame, difficulty: str) -> list[str]:
    """Rows of the table of places: this measurement, and the middle of the theoretical support."""
    truth = recording.truth or {}
    v1 = np.flatnonzero(truth["units/population"] == "V1")
    x, y, sigma = (truth[f"units/{name}"][v1] for name in ("x", "y", "sigma"))
    lines = []
    for layer in DEPTHS:
        for readout in READOUTS:
            rows = _of(table, "efficientnet_lite0", layer, readout)
            good = rows["test_correlation_normalized"].to_numpy() > WELL_FITTED
            dx, dy = rows["rf_x"].to_numpy() - x, rows["rf_y"].to_numpy() - y
            away, own = np.hypot(dx, dy), rows["rf_sigma"].to_numpy()
            lines.append(
                f"| {difficulty} | {layer} | {readout} | {np.mean(away <= sigma):.0%} | "
                f"{np.mean((away <= sigma)[good]):.0%} | {np.mean((away <= own)[good]):.0%} | "
                f"{np.median(dx[good]):.1f}, {np.median(dy[good]):.1f} | "
                f"{np.median((own / sigma)[good]):.1f} | {int(good.sum())} |"
            )
    return lines


def preferred(folder: Path, recording: Recording, table: pd.DataFrame) -> list[str]:
    """Rows of the table of images."""
    truth = recording.truth or {}
    v1 = np.flatnonzero(truth["units/population"] == "V1")
    gabors = Gabors.from_truth(truth, v1)
    size = int(truth["settings/image_size"])
    held = Photometry()
    ones = np.ones(len(v1))
    fields = Fields(gabors.x, gabors.y, gabors.sigma, gabors.sigma, 0 * ones, ones, size)
    windows = torch.from_numpy(fields.windows()).float()[:, None]
    images = np.stack(
        [recording.train_images.read(k) for k in range(len(recording.train_responses))]
    )
    pixels = held.match(images)
    judge = _encoder(folder, *OTHER, "factorized")

    def cut(shown: NDArray[np.uint8], unit: int) -> NDArray[np.uint8]:
        batch = as_batch(shown)
        return quantize(
            held.inside(batch, windows[unit].expand(len(batch), -1, -1, -1), exact=True)
        )

    def asked(shown: NDArray[np.uint8], unit: int) -> tuple[Floats, Floats]:
        """True responses and the judge's."""
        return gabors.respond(shown)[:, unit], responses([judge], shown)[0][:, unit]

    whole = gabors.respond(pixels)
    natural = np.empty((2, len(v1)))
    for unit in range(len(v1)):
        best = np.argsort(whole[:, unit])[::-1][:CANDIDATES]
        natural[:, unit] = [answers.max() for answers in asked(cut(pixels[best], unit), unit)]

    def row(name: str, shown: Sequence[NDArray[np.uint8]], good: NDArray[np.bool_]) -> str:
        got = np.array([[a[0] for a in asked(s[None], k)] for k, s in enumerate(shown)]).T
        shares = [
            f"{np.mean((mine > best)[good]):.0%}" for mine, best in zip(got, natural, strict=True)
        ]
        ratio = np.median((got[0] / natural[0])[good])
        return f"| {name} | {shares[0]} | {ratio:.2f} | {shares[1]} | {int(good.sum())} |"

    filters = torch.from_numpy(gabors.filters(size)[0]).float()[:, None].expand(-1, 3, -1, -1)
    ideal = quantize(held.inside(filters, windows, exact=True))
    lines = [row("the true filter", list(ideal), np.ones(len(v1), dtype=bool))]
    for name, readouts, options in WAYS:
        encoders = [_encoder(folder, "efficientnet_lite0", DEPTHS[0], r) for r in readouts]
        rows = _of(table, "efficientnet_lite0", DEPTHS[0], readouts[0])
        good = rows["test_correlation_normalized"].to_numpy() > WELL_FITTED
        made = synthesize(encoders, None, MeiSettings(steps=100, **options)).pixels[:, 0]
        lines.append(row(name, [cut(made[k : k + 1], k)[0] for k in range(len(v1))], good))
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    """Search, compare, write the page."""
    parser = argparse.ArgumentParser(description="Fields and images against the truth.")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--folder", type=Path, help="keep the experiments here, or go on with them")
    given = parser.parse_args()
    torch.set_num_threads(threads())
    folder = given.folder or Path(tempfile.mkdtemp(prefix="fields-"))
    places: list[str] = []
    shown: list[str] = []
    for difficulty in ("easy", "hard"):
        table = search(folder / difficulty, difficulty, given.trials)
        recording = tuner.load_recording(
            None, "simulated", units_per_region=UNITS, difficulty=difficulty
        )
        places += placed(recording, table, difficulty)
        if difficulty == "easy":
            shown = preferred(folder / difficulty, recording, table)
    text = "\n".join(
        [
            "# Receptive fields and images inside them, against the truth",
            "",
            describe("python -m benchmarks.fields"),
            "",
            f"Simulated V1 units, {UNITS} in each recording, images of 64 px, {given.trials} trials a study. *Good* units "
            f"have a normalised test correlation over\n{WELL_FITTED}. The true sigma is 3 to 5 px in the easy recording, "
            "1.7 to 10 px in the hard one, whose fields lie anywhere up to the border;\na cell is 4, 8 and 16 px wide at "
            "the three depths.",
            "",
            "| recording | layer | readout | within one true sigma, all | good units | within one `rf_sigma`, good units | "
            "median dx, dy, px | `rf_sigma` over sigma | good |",
            "|---|---|---|---|---|---|---|---|---|",
            *places,
            "",
            "## Images cut out by the true field, at equal mean and contrast inside it",
            "",
            "Share of the good units of the easy recording whose image drives the **true filter** more than the best "
            f"natural image does (of the {CANDIDATES} best\nat whole contrast), the median ratio of the two responses, and "
            f"the share by an encoder on another backbone ({OTHER[0]}, `{OTHER[1]}`,\nfactorized). The true filter's own "
            "row is what is possible: where a judge turns down\nthe filter itself, its fit is the limit, not the images.",
            "",
            "| images | better, true filter | ratio | better, other backbone | units |",
            "|---|---|---|---|---|",
            *shown,
        ]
    )
    publish(text + "\n", given.out)


if __name__ == "__main__":
    main()
