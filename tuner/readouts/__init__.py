"""Readouts, by name. A new one is one file and one line here."""

from __future__ import annotations

from tuner.errors import unknown
from tuner.readouts.factorized import FactorizedReadout
from tuner.readouts.full import FullReadout
from tuner.readouts.readout import FeatureShape, Readout
from tuner.readouts.smooth import SmoothReadout

_ALL: tuple[Readout, ...] = (FullReadout(), FactorizedReadout(), SmoothReadout())
READOUTS: dict[str, Readout] = {readout.name: readout for readout in _ALL}
TRAINED: dict[str, Readout] = {r.name: r for r in _ALL if not r.closed_form}
"""Those whose columns are trained step by step."""

__all__ = ["READOUTS", "TRAINED", "FeatureShape", "Readout", "get"]


def get(name: str) -> Readout:
    """Return the readout called ``name``.

    Raises
    ------
    InputError
        If there is none; the message lists those there are.
    """
    if name not in READOUTS:
        raise unknown("readout", name, READOUTS)
    return READOUTS[name]
