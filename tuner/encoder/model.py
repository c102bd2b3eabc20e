"""From an image to the responses of a region: backbone, normalisation and readout in one module.

What an encoder computes is all here; how it is written down and read again is in
:mod:`tuner.encoder.files`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner import readouts
from tuner.encoder.prepare import Pictures, prepared
from tuner.errors import InputError, unknown
from tuner.features.normalize import Normalization

if TYPE_CHECKING:
    from tuner.backbones import Backbone
    from tuner.recordings.images import Fit

LOSSES = ("mse", "poisson")


class Encoder(nn.Module):
    """Predicts the responses of a region's units to images.

    Parameters
    ----------
    backbone
        The frozen network.
    layer
        The layer whose output the readout reads.
    normalization
        What happens between the layer's output and the readout.
    readout
        Name of the readout.
    parameters
        The readout's parameters, one row a unit.
    response_mean, response_scale
        ``(n_units,)``: what the normalised response is scaled back with. Under ``mse`` the response
        is ``mean + scale * y``, under ``poisson`` it is ``scale * (elu(y) + 1)``.
    loss
        ``"mse"`` or ``"poisson"``.
    image_size
        Side of the square images, in pixels.
    units
        The recording's unit columns, each ``(n_units,)``.
    unit_indices
        ``(n_units,)``: index of each unit in the recording.
    weights, weights_seed
        Where the backbone's weights come from, so that they are found again on load.
    meta
        What else should be remembered: study, trial, versions, ``simulated``,
        ``pixels_per_degree``; plain JSON values.
    """

    response_mean: Tensor
    response_scale: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        layer: str,
        normalization: Normalization,
        readout: str,
        parameters: Mapping[str, Tensor],
        response_mean: Tensor,
        response_scale: Tensor,
        loss: str,
        image_size: int,
        units: Mapping[str, NDArray[Any]] | None = None,
        unit_indices: Sequence[int] | NDArray[np.int64] | None = None,
        weights: str = "imagenet",
        weights_seed: int = 0,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        self.backbone = backbone
        self.weights, self.weights_seed = str(weights), int(weights_seed)
        self.layer = layer
        self.loss = loss
        self.image_size = int(image_size)
        self.readout = readouts.get(readout)
        self._parameter_names = tuple(sorted(parameters))
        for name in self._parameter_names:
            self.register_buffer(f"readout_{name}", parameters[name].detach().float().contiguous())
        self._normalization_names = tuple(sorted(normalization.state()))
        for name, value in normalization.state().items():
            self.register_buffer(f"normalization_{name}", value)
        self.register_buffer("response_mean", response_mean.detach().float())
        self.register_buffer("response_scale", response_scale.detach().float())
        self.unit_indices: NDArray[np.int64] = np.asarray(
            np.arange(self.n_units) if unit_indices is None else unit_indices, dtype=np.int64
        )
        self.units = {name: np.asarray(column) for name, column in (units or {}).items()}
        self.meta: dict[str, Any] = dict(meta or {})
        self._check_rows()
        self._normalization: tuple[torch.device, Normalization] | None = None
        self.train(False)

    def _check_rows(self) -> None:
        n = self.n_units
        rows = {
            "response_mean": len(self.response_mean),
            "response_scale": len(self.response_scale),
            "unit_indices": len(self.unit_indices),
            **{f"readout {name}": len(value) for name, value in self.readout_parameters.items()},
            **{f"unit column {name!r}": len(column) for name, column in self.units.items()},
        }
        for name, length in rows.items():
            if length != n:
                raise InputError(f"{name} has {length} rows, but the encoder has {n} units")

    # what it is made of

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.response_scale)

    @property
    def device(self) -> torch.device:
        """Where the encoder runs."""
        return self.response_scale.device

    @property
    def readout_parameters(self) -> dict[str, Tensor]:
        """The readout's parameters, one row a unit."""
        return {name: self.get_buffer(f"readout_{name}") for name in self._parameter_names}

    @property
    def normalization(self) -> Normalization:
        """The normalisation, on the encoder's device."""
        if self._normalization is None or self._normalization[0] != self.device:
            state = {
                name: self.get_buffer(f"normalization_{name}") for name in self._normalization_names
            }
            self._normalization = (self.device, Normalization.from_state(state))
        return self._normalization[1]

    @property
    def simulated(self) -> bool:
        """Whether it was fitted to simulated responses."""
        return bool(self.meta.get("simulated", False))

    def unit_names(self) -> list[str]:
        """Return what to call each unit: its ``name``, else its ``electrode``, else its index."""
        for column in ("name", "electrode"):
            if column in self.units:
                return [str(value) for value in self.units[column]]
        return [f"unit{index}" for index in self.unit_indices]

    def extra_repr(self) -> str:
        """Say what is predicted, and from what."""
        study, unit = self.meta.get("study", ""), self.meta.get("measured_in")
        said = f"{study}: {self.n_units} units, images of {self.image_size} x {self.image_size} px"
        return f"{said}, responses in {unit}" if unit else said

    def train(self, mode: bool = True) -> Encoder:
        """Stay in evaluation mode: a backbone that is frozen has no training mode."""
        return super().train(False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Encoder:
        self._normalization = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.backbone.to(
            self.device
        )  # shared with whoever else holds it, so no sub-module of this one
        return self

    # image -> response

    def prepare(self, images: Pictures, fit: Fit | None = None) -> Tensor:
        """Bring images of any size into the shape that the encoder reads, as those were that it was fitted on.

        Parameters
        ----------
        images
            ``(n, height, width, 3)`` uint8, or a list of ``(height, width, 3)`` uint8 or of names of image files.
        fit
            What becomes of an image that is not square: ``"crop"``, ``"pad"`` or ``"error"``; not given: as in the search.

        Returns
        -------
        torch.Tensor
            ``(n, 3, image_size, image_size)`` in [0, 1], on the encoder's device; resized by antialiased bicubic
            interpolation.

        Raises
        ------
        InputError
            If an image cannot be read, or is not square where that is an error.
        """
        return prepared(images, self.image_size, fit or self.meta.get("fit", "error"), self.device)

    def outputs(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return what layers of the backbone make of images ``(B, 3, S, S)``, in one pass.

        Raises
        ------
        InputError
            If images are of another shape.
        """
        expected = (3, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise InputError(
                f"the encoder reads images (batch, 3, {self.image_size}, {self.image_size}), "
                f"not {tuple(images.shape)}: its method prepare makes them of (n, height, width, 3) uint8 or of files"
            )
        return self.backbone.features(images, layers)

    def features(self, images: Tensor) -> Tensor:
        """Return the features ``(B, C, h, w)`` that the readout sees of images ``(B, 3, S, S)``."""
        return self.normalization.apply(self.outputs(images, [self.layer])[self.layer])

    def _rows(self, units: Sequence[int] | Tensor | None) -> dict[str, Tensor]:
        parameters = self.readout_parameters
        if units is None:
            return parameters
        index = torch.as_tensor(units, dtype=torch.int64, device=self.device)
        return {name: value[index] for name, value in parameters.items()}

    def drive(self, images: Tensor, units: Sequence[int] | None = None) -> Tensor:
        """Return the readout's output ``(B, n)``, not yet in the recording's units."""
        return self.readout.predict(self._rows(units), self.features(images))

    def own_drive(
        self, images: Tensor, units: Sequence[int] | Tensor, *, features: Tensor | None = None
    ) -> Tensor:
        """Return the output ``(B,)`` of unit ``units[i]`` for image ``i``.

        ``features`` may hand in :meth:`features` of the images, where they are known already.
        """

        def one(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            rows = {name: value[None] for name, value in parameters.items()}
            return self.readout.predict(rows, x[None])[0, 0]

        drive: Tensor = torch.func.vmap(one)(
            self._rows(units), self.features(images) if features is None else features
        )
        return drive

    def respond(self, drive: Tensor, units: Sequence[int] | Tensor | None = None) -> Tensor:
        """Scale readout outputs ``(..., n)`` to the recording's own units."""
        mean, scale = self.response_mean, self.response_scale
        if units is not None:
            index = torch.as_tensor(units, dtype=torch.int64, device=self.device)
            mean, scale = mean[index], scale[index]
        if self.loss == "poisson":
            return scale * (nn.functional.elu(drive) + 1)
        return mean + scale * drive

    def forward(self, images: Tensor) -> Tensor:
        """Responses ``(B, n_units)`` to images ``(B, 3, image_size, image_size)`` in [0, 1], of any float type.

        Raises
        ------
        InputError
            If the images are of another shape, no tensor of floats, NaN, or far from [0, 1], such as 0 to 255.
        """
        refuse_other_values(images)
        return self.respond(self.drive(images.to(self.response_mean.dtype)))

    def predict_units(self, images: Tensor, units: Sequence[int]) -> Tensor:
        """Responses ``(B, len(units))`` of some units, given by their position in the encoder."""
        return self.respond(self.drive(images, units), units)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the encoder but the backbone's, on the CPU."""
        tensors = {f"readout.{name}": value for name, value in self.readout_parameters.items()}
        for name in self._normalization_names:
            tensors[f"normalization.{name}"] = self.get_buffer(f"normalization_{name}")
        tensors["response_mean"] = self.response_mean
        tensors["response_scale"] = self.response_scale
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def normalization_checksum(self) -> str:
        """Hash the normalisation: encoders that share it and the layer read the same features."""
        tensors = self.tensors()
        return _digest({k: v for k, v in tensors.items() if k.startswith("normalization.")})

    def checksum(self) -> str:
        """Hash all that decides the responses: backbone, layer, normalisation, readout, scaling."""
        head = [self.backbone.digest, self.layer, self.readout.name, self.loss, self.image_size]
        return _digest(self.tensors(), json.dumps(head))


def refuse_other_values(images: Tensor) -> None:
    """Refuse images that are not floats in [0, 1]; a step out of it, as an optimiser makes, passes.

    Raises
    ------
    InputError
        If they are no tensor, integers, or NaN, or reach as far as 255 or as normalised images do.
    """
    if not isinstance(images, Tensor):
        raise InputError(
            f"images: are {type(images).__name__}, and must be a tensor (batch, 3, size, size) of floats in [0, 1]: "
            "torch.from_numpy makes one of an array"
        )
    if not images.is_floating_point():
        raise InputError(
            f"images: are {str(images.dtype).removeprefix('torch.')}, and must be floats in [0, 1]: divide "
            "by 255, or have encoder.prepare make them of (batch, height, width, 3) uint8"
        )
    if not images.numel():
        return
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if not (low >= -0.5 and high <= 1.5):  # NaN is neither
        raise InputError(
            f"images: lie between {low:.3g} and {high:.3g}, and must lie in [0, 1]: divide values to 255 by "
            "255, and do not normalise, which the encoder does"
        )


def _digest(tensors: Mapping[str, Tensor], head: str = "") -> str:
    digest = hashlib.blake2b(head.encode(), digest_size=20)
    for name, value in sorted(tensors.items()):
        array = np.ascontiguousarray(value.numpy())
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
