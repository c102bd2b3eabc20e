"""Which studies there are: every layer of every backbone, every region, every readout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from studies.config.ranges import CLOSED_FORM, Space, trials_needed
from studies.names import Combination

if TYPE_CHECKING:
    from tuner.readouts.readout import FeatureShape  # which would bring torch into every listing


@dataclass(frozen=True)
class Spec(Combination):
    """One study of the grid: the combination, and what follows from it."""

    units: NDArray[np.int64]
    shape: FeatureShape
    space: Space

    @property
    def closed_form(self) -> bool:
        """Whether its trials are the points of a grid, all fitted at once without a search."""
        return self.key.readout == CLOSED_FORM

    def target(self, n_trials: int) -> int:
        """Finished trials that it is brought to where ``n_trials`` are asked for."""
        return trials_needed(self.key.readout, self.space, n_trials)


def cohorts(specs: Iterable[Spec]) -> dict[tuple[str, str, str], list[Spec]]:
    """Studies by cohort, both in the grid's order."""
    out: dict[tuple[str, str, str], list[Spec]] = {}
    for spec in specs:
        out.setdefault(spec.cohort, []).append(spec)
    return out


def shallower(spec: Spec, specs: Sequence[Spec]) -> Spec | None:
    """The study of the next shallower layer of the grid, same backbone, region and readout."""
    before = [
        other
        for other in specs
        if (other.key.backbone, other.key.region, other.key.readout)
        == (spec.key.backbone, spec.key.region, spec.key.readout)
        and other.layer_index < spec.layer_index
    ]
    return max(before, key=lambda other: other.layer_index, default=None)
