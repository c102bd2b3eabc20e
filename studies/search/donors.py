"""Which studies give a study its first settings, and when a study may begin.

A study's first trials take the best settings of up to :data:`MOST` others of the same readout, its donors, nearest first:
other regions of the same layer, then the same region at other depths, then other regions there, then other backbones.

Who is whose donor follows from the grid and the selection alone. The selected layers of a backbone come in waves: the middle
one first, then the middle of each half, and so on. A study's donors are selected studies of earlier waves, as they are after
their first :data:`SCOUTED` rounds, and studies of the grid that are not selected and have come as far, as they are now. A
study is not begun before its donors have come so far, have all their trials, or were set aside; they never wait for it, as
they are of an earlier wave, so some study may always be begun. Hence every worker on the same selection proposes the same,
whenever it comes to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from optuna.trial import TrialState

from studies.database.trials import FINISHED, Trial
from studies.grid import Spec
from studies.search.best_weights import best_first

MOST = 8
"""Donors of a study."""

SCOUTED = 2
"""Rounds after which a study is a donor."""

Gift = tuple[Mapping[str, float], str]
"""Parameters for a trial, and where they are from, in words."""


class Donors:
    """Who gives to whom, in one command.

    Parameters
    ----------
    grid
        All studies of the experiment that were created, in the grid's order.
    selected
        Those that are worked on.
    round_size
        Trials of a study in a round.
    """

    def __init__(self, grid: Sequence[Spec], selected: Iterable[Spec], round_size: int) -> None:
        self._grid = [spec for spec in grid if not spec.closed_form]
        mine = [spec for spec in selected if not spec.closed_form]
        self._selected = {spec.name for spec in mine}
        self._wave = waves(mine)
        self._depth = depths(self._grid)
        self._found: dict[str, tuple[Spec, ...]] = {}
        self.trials = SCOUTED * round_size

    def of(self, spec: Spec) -> tuple[Spec, ...]:
        """A study's donors, nearest first; it is a selected one."""
        if spec.name not in self._found:
            known = [other for other in self._grid if self._gives(other, spec)]
            known.sort(key=lambda other: self._distance(other, spec))
            self._found[spec.name] = tuple(known[:MOST])
        return self._found[spec.name]

    def _gives(self, other: Spec, spec: Spec) -> bool:
        if other.key.readout != spec.key.readout or other.name == spec.name:
            return False
        return other.name not in self._selected or (
            self._wave[_layer(other)] < self._wave[_layer(spec)]
        )

    def _distance(self, other: Spec, spec: Spec) -> tuple[float, ...]:
        one, two = other.key, spec.key
        apart = abs(self._depth[_layer(other)] - self._depth[_layer(spec)])
        elsewhere = float(one.region != two.region)
        if one.backbone != two.backbone:
            return (3.0, elsewhere, apart)
        return (0.0 if one.layer == two.layer else 1.0 + elsewhere, apart)

    def awaits(self, spec: Spec, finished: int) -> list[tuple[str, int]]:
        """Whom a study of so many finished trials waits for, and how many trials of each."""
        if finished or spec.closed_form:
            return []
        return [(donor.name, self.trials) for donor in self.of(spec)]

    def gifts(self, spec: Spec, known: Mapping[str, Sequence[Trial]]) -> list[Gift]:
        """Settings that a study begins with, no two the same.

        Parameters
        ----------
        known
            Trials of its donors, by name, without those that are gone.
        """
        out: list[Gift] = []
        for donor in self.of(spec):
            loaded = [t for t in known.get(donor.name, ()) if t.state in FINISHED]
            if donor.name in self._selected:
                loaded = [t for t in loaded if t.number < self.trials]
            elif len(loaded) < self.trials:
                continue
            best = best_trial(loaded)
            if best is not None and best.params not in [params for params, _ in out]:
                out.append((best.params, f"best of {donor.name}"))
        return out


def best_trial(loaded: Iterable[Trial]) -> Trial | None:
    """The COMPLETE trial of lowest value, ties to the lower number."""
    complete = {t.number: t for t in loaded if t.state == TrialState.COMPLETE}
    values = {number: t.value for number, t in complete.items() if t.value is not None}
    return complete[best_first(values)[0]] if values else None


def waves(specs: Iterable[Spec]) -> dict[tuple[str, str], int]:
    """Backbone and layer to the wave of its studies, from 0."""
    out: dict[tuple[str, str], int] = {}
    for backbone, layers in _layers(specs).items():
        parts = [layers]
        wave = 0
        while parts:
            middles = [(part, len(part) // 2) for part in parts if part]
            out |= {(backbone, part[middle]): wave for part, middle in middles}
            parts = [half for part, m in middles for half in (part[:m], part[m + 1 :])]
            wave += 1
    return out


def depths(specs: Iterable[Spec]) -> dict[tuple[str, str], float]:
    """Backbone and layer to its place among the backbone's layers, 0 the shallowest, 1 the deepest."""
    return {
        (backbone, layer): place / max(1, len(layers) - 1)
        for backbone, layers in _layers(specs).items()
        for place, layer in enumerate(layers)
    }


def _layers(specs: Iterable[Spec]) -> dict[str, list[str]]:
    """Layers of each backbone, shallow first."""
    index = {_layer(spec): spec.layer_index for spec in specs}
    out: dict[str, list[str]] = {}
    for backbone, layer in sorted(index, key=lambda key: (index[key], key[1])):
        out.setdefault(backbone, []).append(layer)
    return out


def _layer(spec: Spec) -> tuple[str, str]:
    return spec.key.backbone, spec.key.layer
