r"""Several encoders of the same units as one: a sum, weighted for every unit, that none of its members reaches alone.

:math:`r_u = \bar r_u + \sum_m a_{mu} (r_{mu} - \bar r_u)` with the members' responses :math:`r_{mu}`, the mean response
:math:`\bar r_u` and weights :math:`a_{mu} \ge 0` from predictions of images that the members did not see (stacked
regression: Wolpert 1992, Neural Networks 5, 241; Breiman 1996, Machine Learning 24, 49, with weights that are not negative).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from tuner.encoder.model import Encoder, refuse_other_values
from tuner.encoder.prepare import Pictures
from tuner.encoder.together import Together
from tuner.errors import InputError

if TYPE_CHECKING:
    from tuner.backbones import Backbone
    from tuner.recordings.images import Fit

SHRINKAGE = 0.03
"""Of the weights towards equal ones, in units of a response's variance: settles what members that agree leave open."""


def stacking_weights(predictions: ArrayLike, responses: ArrayLike) -> NDArray[np.float64]:
    r"""Weights of members that predict best together.

    Minimises :math:`\frac{1}{n} \sum_t (y_t - \sum_m a_m p_{mt})^2 + 0.03 \, v \sum_m (a_m - 1/M)^2` over
    :math:`a_m \ge 0`, :math:`v` the mean square of the responses.

    Parameters
    ----------
    predictions
        ``(n_members, n_images, n_units)``, each of images that the member was not fitted to, as deviations from the mean
        response.
    responses
        ``(n_images, n_units)`` measured, as deviations from the mean response; NaN = missing.

    Returns
    -------
    numpy.ndarray
        ``(n_members, n_units)``, not negative.

    Examples
    --------
    Of two members that err independently and one that knows nothing:

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = rng.normal(size=(400, 1))
    >>> p = np.stack([y + rng.normal(size=y.shape), y + rng.normal(size=y.shape), rng.normal(size=y.shape)])
    >>> (stacking_weights(p, y).ravel() > 0.2).tolist()
    [True, True, False]
    """
    from scipy.optimize import nnls

    p, y = np.asarray(predictions, dtype=np.float64), np.asarray(responses, dtype=np.float64)
    members, _, units = p.shape
    out = np.zeros((members, units))
    for unit in range(units):
        there = np.isfinite(y[:, unit]) & np.isfinite(p[:, :, unit]).all(axis=0)
        target = y[there, unit]
        pull = np.sqrt(SHRINKAGE * np.square(target).sum())
        design = np.vstack([p[:, there, unit].T, pull * np.eye(members)])
        out[:, unit], _ = nnls(design, np.append(target, np.full(members, pull / members)))
    return out


class StackedEncoder(nn.Module):
    """Predicts the responses of a region's units to images, by several encoders together.

    Parameters
    ----------
    members
        Encoders of the same units on one backbone, that read images of one size.
    weights
        ``(n_members, n_units)``, not negative.
    meta
        As of :class:`tuner.encoder.model.Encoder`.

    Raises
    ------
    InputError
        If there is no member, or they are of different units, losses or backbones, or weights do not match.
    """

    weights: Tensor
    base: Tensor

    def __init__(
        self, members: Sequence[Encoder], weights: Tensor, meta: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self._together = Together(members)
        first = members[0]
        for other in members[1:]:
            if not np.array_equal(other.unit_indices, first.unit_indices):
                raise InputError("encoders of different units cannot be stacked")
            if (other.loss, other.backbone.digest) != (first.loss, first.backbone.digest):
                raise InputError("encoders of different losses or backbones cannot be stacked")
        if tuple(weights.shape) != (len(members), first.n_units):
            raise InputError(
                f"weights are {tuple(weights.shape)}, but there are {len(members)} encoders of "
                f"{first.n_units} units"
            )
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", weights.detach().float().contiguous())
        base = first.response_mean if first.loss == "mse" else first.response_scale
        self.register_buffer("base", base.detach().float().clone())
        self.image_size = first.image_size
        self.loss = first.loss
        self.units, self.unit_indices = first.units, first.unit_indices
        self.meta: dict[str, Any] = dict(meta or {})
        self.train(False)

    @property
    def encoders(self) -> list[Encoder]:
        """The members."""
        return self._together.encoders

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.base)

    @property
    def layers(self) -> list[str]:
        """Layers that are read, each once."""
        return list(dict.fromkeys(encoder.layer for encoder in self.encoders))

    @property
    def backbone(self) -> Backbone:
        """The frozen network of all members."""
        return self.encoders[0].backbone

    @property
    def device(self) -> torch.device:
        """Where the encoder runs."""
        return self.base.device

    @property
    def response_scale(self) -> Tensor:
        """Standard deviation, or mean under ``poisson``, of each unit's responses, ``(n_units,)``."""
        return self.encoders[0].response_scale

    @property
    def simulated(self) -> bool:
        """Whether it was fitted to simulated responses."""
        return bool(self.meta.get("simulated", False))

    def unit_names(self) -> list[str]:
        """Return what to call each unit: its ``name``, else its ``electrode``, else its index."""
        return self.encoders[0].unit_names()

    def prepare(self, images: Pictures, fit: Fit | None = None) -> Tensor:
        """Bring images of any size into the shape that is read; see :meth:`tuner.encoder.model.Encoder.prepare`."""
        return self.encoders[0].prepare(images, fit)

    def train(self, mode: bool = True) -> StackedEncoder:
        """Stay in evaluation mode: a backbone that is frozen has no training mode."""
        return super().train(False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> StackedEncoder:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Responses ``(B, n_units)`` to images ``(B, 3, image_size, image_size)`` in [0, 1]; one pass of each backbone."""
        refuse_other_values(images)
        read = images.to(self.encoders[0].response_mean.dtype)
        responses = torch.stack(self._together.respond(read))
        total: Tensor = self.base + (self.weights[:, None] * (responses - self.base)).sum(0)
        return total

    def predict_units(self, images: Tensor, units: Sequence[int]) -> Tensor:
        """Responses ``(B, len(units))`` of some units, given by their position in the encoder."""
        index = torch.as_tensor(units, dtype=torch.int64, device=self.device)
        return self.forward(images).index_select(1, index)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor but the backbone's, on the CPU; those of member 3 are called ``member3.NAME``."""
        found = {"weights": self.weights.detach().cpu().contiguous()}
        for number, encoder in enumerate(self.encoders):
            mine = encoder.tensors()  # members of a layer share some, and files must not
            found |= {f"member{number}.{name}": value.clone() for name, value in mine.items()}
        return found

    def checksum(self) -> str:
        """Hash all that decides the responses."""
        digest = hashlib.blake2b(digest_size=20)
        for encoder in self.encoders:
            digest.update(encoder.checksum().encode())
        digest.update(self.weights.cpu().numpy().tobytes())
        return digest.hexdigest()
