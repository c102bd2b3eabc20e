r"""Hyperparameters that mean the same at every size of a layer.

What a rate or a penalty does depends on how many features share a unit's weights. With :math:`k` copies of each feature a
readout :math:`y = w \cdot x / \sqrt{N}` makes the same responses with weights :math:`w / \sqrt{k}`. Of these

- gradients are smaller by :math:`\sqrt{k}` too, but Adam steps by the learning rate whatever their size, so the rate has to
  be smaller by :math:`\sqrt{k}`;
- :math:`\sum |w|` is larger by :math:`\sqrt{k}`, so that its penalty has to be smaller by that; a sum of norms over groups
  by the root of the number of groups alone;
- :math:`\sum w^2`, and the squared Laplacian of maps that are copied, are the same.

Every column then takes the same steps to the same responses: what was good at one layer is so at another, as far as the two
hold the same. A readout says by how much each of its hyperparameters is multiplied
(:meth:`~tuner.readouts.readout.ColumnKernel.size_factors`), relative to a layer of :data:`CHANNELS` channels on
:data:`CELLS` cells, where all factors are 1.
"""

from __future__ import annotations

import math

CHANNELS = 64
"""Channels of the layer at which a hyperparameter is what is written; a layer in the middle of a network has about that."""

CELLS = 64
"""Cells of its grid, 8 a side."""

FEATURES = CHANNELS * CELLS
"""Its features."""


def by_root(reference: int, number: int) -> float:
    """Factor of what has to shrink with the root of a number: 1 where that is ``reference``."""
    return math.sqrt(reference / number)
