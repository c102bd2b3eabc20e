"""What a readout is: a map from a layer's features to responses, trained as a matrix of columns.

A *column* is one unit under one setting of the hyperparameters. Every penalty is per unit, so columns never interact;
a readout therefore computes all its columns at once with explicit gradients, and a column is the same, to rounding,
whatever shares the matrix with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

LEARNING_RATE = "learning_rate"

Parameters = dict[str, Tensor]
"""Name to ``(K, ...)`` tensor, one row a column."""


@dataclass(frozen=True)
class FeatureShape:
    """Channels and grid of the features that a readout reads."""

    channels: int
    height: int
    width: int

    @property
    def cells(self) -> int:
        """Number of grid cells."""
        return self.height * self.width

    @property
    def size(self) -> int:
        """Features per image, ``F``."""
        return self.channels * self.cells


@dataclass(frozen=True)
class Descent:
    """What one optimiser step changes, and the penalties that it feels.

    Attributes
    ----------
    parameters
        Of the columns, one row each.
    first, second
        Adam's moments, of the same shapes.
    weights
        Penalty to its weight in each column, ``(K,)``; a penalty that no column has may be left out.
    """

    parameters: Parameters
    first: Parameters
    second: Parameters
    weights: Mapping[str, Tensor]

    @property
    def moved(self) -> tuple[Parameters, Parameters, Parameters]:
        """Parameters and both moments."""
        return self.parameters, self.first, self.second

    def penalty(self, name: str) -> Tensor | None:
        """A penalty's weights as ``(K, 1)``; None where no column has it."""
        return self.weights[name][:, None] if name in self.weights else None


@dataclass(frozen=True)
class StepCoefficients:
    """What one optimiser step needs per column, each ``(K, 1)``.

    ``new1`` and ``new2`` are what a gradient adds to Adam's moments, ``1 - b1`` and ``1 - b2`` (a column without valid
    responses in the batch has ``new = 0`` and ``rate = 0``: it is not updated at all); ``correct1`` and ``root2`` are the
    bias corrections ``1/(1-b1^t)`` and ``1/sqrt(1-b2^t)``. ``size`` is the same for all columns: what the rate of
    weights is multiplied by, see :mod:`tuner.readouts.sizes`; that of biases is not.
    """

    rate: Tensor
    new1: Tensor
    new2: Tensor
    correct1: Tensor
    root2: Tensor
    size: float = field(default=1.0, kw_only=True)

    @property
    def of_weights(self) -> StepCoefficients:
        """The same with the rate at which weights step."""
        return self if self.size == 1.0 else replace(self, rate=self.rate * self.size, size=1.0)


@dataclass(frozen=True)
class Batch:
    """A feature batch, and what the columns are to answer.

    Attributes
    ----------
    x
        ``(B, F)`` features.
    target
        ``(K, B)``, 0 where missing.
    share
        ``(K, B)`` what each response counts in its column's mean: one over the number of valid ones, 0 where missing.
    loss
        Name of the loss.
    derivative
        Derivative of the loss by the response, of ``(responses, target)``.
    """

    x: Tensor
    target: Tensor
    share: Tensor
    loss: str
    derivative: Callable[[Tensor, Tensor], Tensor]

    def residual(self, y: Tensor) -> Tensor:
        """Derivative of the columns' data terms by the responses ``y``, ``(K, B)``."""
        return self.derivative(y, self.target).mul_(self.share)


_UNCENTERED_AT_ONCE = 16
"""Columns whose parameters are in float64 at the same time: bounds memory."""


class ColumnKernel(Protocol):
    """A readout bound to a feature shape, a device and a way of running (eager or compiled).

    Kernels inherit from it: :meth:`step` and :meth:`responses` follow from the other methods.
    """

    shape: FeatureShape
    device: torch.device

    def initial(self, units: Sequence[int], seed: int) -> Parameters:
        """Parameters at step 0 for these units (indices into the recording), one row each."""
        ...

    def size_factors(self) -> Mapping[str, float]:
        """What hyperparameters are multiplied by so that they mean the same at every size; 1 of those not named.

        ``learning_rate`` is of weights, in :attr:`StepCoefficients.size`; see :mod:`tuner.readouts.sizes`.
        """
        return {}

    def forward(self, parameters: Parameters, x: Tensor) -> tuple[Tensor, Any]:
        """Responses ``(K, B)`` to features ``x`` ``(B, F)``, and what the gradient needs again."""
        ...

    def gradients(
        self, parameters: Parameters, x: Tensor, saved: Any, residual: Tensor
    ) -> Parameters:
        """Gradient of the data term, given its derivative by the response, ``residual`` ``(K, B)``."""
        ...

    def penalty(self, parameters: Parameters, weights: Mapping[str, Tensor]) -> Tensor:
        """Value of all penalties per column, ``(K,)``; ``weights`` name to ``(K,)``."""
        ...

    def penalty_gradients(
        self, parameters: Parameters, weights: Mapping[str, Tensor]
    ) -> Parameters:
        """Gradient of the penalties but the L1 sparsity, which is met by a proximal step."""
        ...

    def update(self, descent: Descent, gradients: Parameters, c: StepCoefficients) -> None:
        """One Adam step with penalties, in place on parameters and moments."""
        ...

    def step(
        self,
        descent: Descent,
        c: StepCoefficients,
        batch: Batch,
        saved: Any,
        following: Tensor | None,
    ) -> Any:
        """:meth:`forward`, :meth:`gradients` and :meth:`update`, in place; what the hot loop calls.

        One call, so that a readout can do all of it in one pass over its weights. What it returns is handed to the next
        step as ``saved``, whose features are ``following``; both are None at the ends.
        """
        y, between = self.forward(descent.parameters, batch.x)
        gradients = self.gradients(descent.parameters, batch.x, between, batch.residual(y))
        self.update(descent, gradients, c)
        return None

    def responses(self, parameters: Parameters, x: Tensor) -> Tensor:
        """As :meth:`forward`, without what a gradient would need; ``(K, B)``."""
        return self.forward(parameters, x)[0]

    def uncentered(self, parameters: Parameters, center: Tensor) -> Parameters:
        """Parameters that answer to features as these do to features less ``center`` ``(F,)``.

        Responses are affine in the features, so it is the bias that changes: it becomes the response to ``-center``, in
        float64. A readout whose bias is not called ``bias`` ``(K, 1)`` says how itself.
        """
        at = -center.double()[None]
        bias = torch.empty_like(parameters["bias"])
        for start in range(0, len(bias), _UNCENTERED_AT_ONCE):
            some = slice(start, start + _UNCENTERED_AT_ONCE)
            wide = {name: value[some].double() for name, value in parameters.items()}
            bias[some] = self.forward(wide, at)[0].to(bias.dtype)
        return {**parameters, "bias": bias}

    def export(self, parameters: Parameters) -> Parameters:
        """Parameters in the shapes that :meth:`Readout.predict` reads and encoders store."""
        ...

    def averaged(self, members: Sequence[Parameters], shares: Tensor | None = None) -> Parameters:
        """Exported parameters whose response is the mean of the members' responses, such as those of the folds.

        Of responses that are linear in the parameters it is the mean of the parameters; another readout says how itself.

        Parameters
        ----------
        members
            Exported parameters.
        shares
            ``(n_members, K)`` what each member counts in each unit's mean, 1 together; None for all alike.
        """
        if len(members) == 1:
            return members[0]
        out = {}
        for name, first in members[0].items():
            stacked = torch.stack([member[name].double() for member in members])
            if shares is not None:
                each = shares.double().view(*shares.shape, *[1] * (first.ndim - 1))
                stacked = stacked * each * len(members)
            out[name] = stacked.mean(0).to(first.dtype)
        return out

    def restore(self, exported: Mapping[str, Tensor]) -> Parameters:
        """Undo :meth:`export`."""
        ...

    def answer(self, exported: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Responses ``(K, B)`` of exported parameters, averaged ones too, to features ``x`` ``(B, F)``."""
        return self.forward(self.restore(exported), x)[0]

    def bytes_per_column(self, batch_size: int) -> int:
        """Peak memory per column while training, gradients and the remembered best included."""
        ...


class Readout(Protocol):
    """A kind of readout.

    Attributes
    ----------
    name
        What it is called in ``tuner.toml``.
    penalties
        Hyperparameters that weigh a penalty while it is trained.
    closed_form
        Whether its best parameters follow from linear algebra: its kernel then predicts, and is never trained.
    """

    name: str
    penalties: tuple[str, ...]
    closed_form: bool

    def kernel(
        self,
        shape: FeatureShape,
        device: torch.device,
        *,
        compiled: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> ColumnKernel:
        """Bind the readout to a feature shape."""
        ...

    def predict(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Responses ``(B, n)`` of ``n`` units to feature maps ``(B, C, h, w)``; differentiable.

        An elementwise product and a sum per unit, never a matrix product: a unit's result does not depend on which
        other units are asked for.
        """
        ...

    def parameter_shapes(
        self, shape: FeatureShape, units: int, members: int = 1
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the exported parameters, of the average of so many members."""
        ...

    def spatial_profile(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Where each unit reads, ``(n, h, w)``, never negative."""
        ...

    def start(self, weight: Tensor, bias: Tensor) -> Parameters | None:
        """Exported parameters that answer as much as possible like weights of the full readout; None for the kernel's own.

        Parameters
        ----------
        weight, bias
            ``(K, C, h, w)`` and ``(K,)``; they answer to centred features.
        """
        ...

    def fused_pays(self, shape: FeatureShape) -> bool:
        """Whether a step compiled from C is faster than tensor operations on a CPU."""
        ...


ADAM_BETA1 = 0.9
ADAM_BETA2 = 0.999
ADAM_EPSILON = 1e-8


def adam_proximal(
    w: Tensor,
    m: Tensor,
    v: Tensor,
    gradient: Tensor,
    threshold: Tensor | None,
    c: StepCoefficients,
) -> None:
    r"""One step of Adam (Kingma & Ba 2015) followed by the proximal map of an L1 penalty in Adam's own metric; in place.

    With :math:`d = \sqrt{\hat v} + \epsilon`, the step is :math:`u = w - \eta \hat m / d`, then soft thresholding by
    :math:`\eta s / d`. Its fixed points are the minima of loss + s * |w| exactly; weights become exactly 0, and the map is
    continuous, so rounding differences do not grow as they do under sign flips of a subgradient.

    Parameters
    ----------
    w, m, v, gradient
        ``(K, n)`` weights, moments and gradient.
    threshold
        ``(K, 1)`` L1 weight times learning rate, or None without L1.
    c
        Per-column coefficients.
    """
    m.lerp_(gradient, c.new1)
    v.lerp_(gradient * gradient, c.new2)
    scale = v.sqrt().mul_(c.root2).add_(ADAM_EPSILON).reciprocal_()
    w.sub_((m * scale).mul_(c.rate * c.correct1))
    if threshold is not None:
        shrink = scale.mul_(threshold)
        w.sub_(w.clamp(-shrink, shrink))


def step_fields(c: StepCoefficients, sparse: Tensor | None, *more: Tensor | None) -> Tensor:
    """What the fused steps in C read per column, in the order of ``vectors.h``; ``more`` is a readout's own.

    Each is ``(K, 1)``, or None for zeros; returns ``(K, 7 + len(more))``.
    """
    zero = torch.zeros_like(c.rate)
    fields = (
        zero if sparse is None else sparse * c.rate,
        c.rate * c.correct1,
        1 - c.new1,
        c.new1,
        1 - c.new2,
        c.new2,
        c.root2,
        *(zero if field is None else field for field in more),
    )
    return torch.cat(fields, dim=1)


def update_bias(descent: Descent, gradient: Tensor, c: StepCoefficients) -> None:
    """Adam on the unpenalised bias, in place; ``gradient`` is ``(K, 1)``."""
    bias, first, second = (part["bias"] for part in descent.moved)
    adam_proximal(bias, first, second, gradient, None, c)
