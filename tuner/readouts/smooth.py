r"""The smooth readout: the full readout's weights, found in closed form under a prior of smooth weights.

:math:`y = W \cdot x / \sqrt{F} + b` as in :mod:`tuner.readouts.full`; it is stored, and predicts, like that one. Its weights
are not trained: they minimise the squared error plus the prior's penalty exactly (:mod:`tuner.closed_form.smooth`).
"""

from __future__ import annotations

from tuner.readouts.full import FullReadout


class SmoothReadout(FullReadout):
    """Smooth readout; see the module's docstring. Its kernel, the full readout's, predicts and is never stepped."""

    name: str = "smooth"
    penalties: tuple[str, ...] = ()
    closed_form: bool = True
