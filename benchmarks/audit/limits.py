"""What limits receptive fields: noise of the responses, the size of a cell, the border, or how they are read."""

from __future__ import annotations

import numpy as np

from benchmarks.audit.registry import DIFFICULTIES
from benchmarks.audit.searched import MIDDLE, SHALLOW, scene
from tuner.closed_form.smooth import fit_smooth
from tuner.synthesis.receptive_fields import fit_gaussians, from_gradient
from tuner.synthesis.sight import sight

LAYERS = (SHALLOW, MIDDLE, "_blocks.10")
WIDTHS = (0.0, 0.7, 1.5)
PHOTOGRAPHS = 40
"""On which gradients are taken."""


def table() -> list[str]:
    """Rows: V1 units whose field lies within one sigma, by the closed form, of recorded and of noiseless responses.

    Then the same without noise of units that the grid can place: at least half a cell wide, and a sigma inside the image;
    and by the gradient of the searched factorized encoder on photographs.
    """
    lines = []
    for difficulty in DIFFICULTIES:
        here = scene(difficulty)
        workspace, truth, v1 = here.workspace, here.truth, here.v1
        x, y, sigma = (truth[f"units/{name}"][v1] for name in ("x", "y", "sigma"))
        for layer in LAYERS:
            model = here.best(layer, "V1", "full").encoder()
            factorized = here.best(layer, "V1", "factorized").encoder()
            seen = sight(model, workspace.sights)
            features = workspace.features.of("efficientnet_lite0", layer).train
            cell = float(np.diff(seen.columns).mean())
            edge = np.minimum.reduce([x, y, model.image_size - 1 - x, model.image_size - 1 - y])
            wide = (sigma >= cell / 2) & (edge >= sigma)
            near = []
            for responses in (
                workspace.recording.train_responses[:, v1],
                truth["signal/train"][:, v1],
            ):
                scaled = (responses - np.nanmean(responses, 0)) / np.nanstd(responses, 0)
                found = fit_smooth(
                    features,
                    scaled.astype(np.float32),
                    np.arange(len(scaled)),
                    groups=workspace.recording.train_groups,
                    widths=WIDTHS,
                )
                weight = found.parameters["weight"].double().numpy()
                place = fit_gaussians(
                    np.square(weight).sum(1), seen.rows, seen.columns, model.image_size
                )
                near.append(np.hypot(place.x - x, place.y - y) <= sigma)
            shown = np.linspace(0, len(workspace.images) - 1, PHOTOGRAPHS).astype(np.int64)
            place = from_gradient(factorized, workspace.images.read(shown))
            near.append(np.hypot(place.x - x, place.y - y) <= sigma)
            shares = [f"{each.mean():.0%}" for each in near]
            of_wide = f"{near[1][wide].mean():.0%} of {wide.sum()}" if wide.any() else "0 units"
            lines.append(
                f"| {difficulty} | {layer} | {cell:.0f} | {np.median(sigma):.1f} | {' | '.join(shares[:2])} | "
                f"{of_wide} | {shares[2]} |"
            )
    return lines
