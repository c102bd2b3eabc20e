"""Readouts, by name. A new one is one file and one line here."""

from __future__ import annotations

from tuner.errors import unknown
from tuner.readouts.factorized import FactorizedReadout
from tuner.readouts.full import FullReadout
from tuner.readouts.readout import FeatureShape, Readout

_ALL: tuple[Readout, ...] = (FullReadout(), FactorizedReadout())
READOUTS: dict[str, Readout] = {readout.name: readout for readout in _ALL}

__all__ = ["READOUTS", "FeatureShape", "Readout", "get"]


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
