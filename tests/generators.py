"""Small generator networks to test with."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CODE = 12


class Small(nn.Module):
    """Codes of 12 to images of 16 x 16."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.coarse = nn.Linear(CODE, 3 * 2 * 2)
            self.first = nn.Linear(CODE, 8 * 4 * 4)
            self.second = nn.ConvTranspose2d(8, 6, 4, 2, 1)
            self.third = nn.ConvTranspose2d(6, 3, 4, 2, 1)

    def forward(self, code: Tensor) -> Tensor:
        hidden = torch.relu(self.first(code)).view(-1, 8, 4, 4)
        coarse = nn.functional.interpolate(self.coarse(code).view(-1, 3, 2, 2), scale_factor=8.0)
        return torch.sigmoid(3 * coarse + 4 * self.third(torch.relu(self.second(hidden))))


def script(module: nn.Module, path: Path, code: int = CODE) -> str:
    """Write a network as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module.eval(), torch.zeros(2, code)), str(path))
    return str(path)


def options(folder: Path) -> dict[str, dict[str, Any]]:
    """What each prior of the registry needs to be made."""
    return {"generator": {"path": script(Small(), folder / "generator.pt"), "code": CODE}}
