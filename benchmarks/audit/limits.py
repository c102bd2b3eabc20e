"""What limits receptive fields: noise of the responses, or the size of a cell."""

from __future__ import annotations

import numpy as np

from benchmarks.audit.registry import DIFFICULTIES
from benchmarks.audit.searched import MIDDLE, SHALLOW, scene
from tuner.closed_form.smooth import fit_smooth
from tuner.synthesis.receptive_fields import fit_gaussians
from tuner.synthesis.sight import sight

LAYERS = (SHALLOW, MIDDLE, "_blocks.10")
WIDTHS = (0.0, 0.7, 1.5)


def table() -> list[str]:
    """Rows: V1 units whose field lies within one sigma, by the closed form, of recorded and of noiseless responses."""
    lines = []
    for difficulty in DIFFICULTIES:
        here = scene(difficulty)
        workspace, truth, v1 = here.workspace, here.truth, here.v1
        x, y, sigma = (truth[f"units/{name}"][v1] for name in ("x", "y", "sigma"))
        for layer in LAYERS:
            model = here.best(layer, "V1", "full").encoder()
            seen = sight(model, workspace.sights)
            features = workspace.features("efficientnet_lite0", layer).train
            shares = []
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
                shares.append(f"{np.mean(np.hypot(place.x - x, place.y - y) <= sigma):.0%}")
            cell = np.diff(seen.columns).mean()
            lines.append(
                f"| {difficulty} | {layer} | {cell:.0f} | {np.median(sigma):.1f} | {' | '.join(shares)} |"
            )
    return lines
