"""An example of an image prior: pixels that a sine keeps in [0, 1]."""

from __future__ import annotations

import torch

from tuner.synthesis.canvas import Canvas, draw


class SinePrior:
    """``0.5 + 0.5 sin(v)`` of a number per pixel and colour."""

    name = "sine"
    learning_rate = 0.05
    options: dict = {}  # noqa: RUF012 - plain values that make this prior again

    def start(self, jobs, size, *, seed, steps, learning_rate, weight_decay, device):
        """Begin; each image from (seed, unit, variant) alone."""
        drawn = [torch.from_numpy(draw(seed, job, (3, size, size))) for job in jobs]
        values = (0.1 * torch.stack(drawn)).to(device).requires_grad_(True)
        optimizer = torch.optim.Adam([values], lr=learning_rate, weight_decay=weight_decay)
        return Canvas([values], lambda: 0.5 + 0.5 * values.sin(), optimizer)
