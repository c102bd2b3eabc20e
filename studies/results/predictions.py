"""What a study's weights predict: of the images that its trials are judged on, and of the test images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from studies.database.artifacts import Tensors
from studies.grid import Spec
from studies.search.best_weights import HELD_OUT
from studies.workspace import Workspace

if TYPE_CHECKING:
    from tuner.features.computed import ComputedFeatures

_CHUNK = 512


def predictions(
    readout: str,
    parameters: Tensors,
    features: NDArray[np.float16] | ComputedFeatures,
    rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Scaled predictions ``(len(rows), n_units)`` from features ``(n, C, h, w)``, chunk by chunk."""
    import torch

    from tuner import readouts
    from tuner.readouts.readout import FeatureShape

    _, channels, height, width = features.shape
    shape = FeatureShape(channels, height, width)
    kernel = readouts.get(readout).kernel(shape, torch.device("cpu"))
    flat = features.reshape(len(features), -1)
    out = []
    for begin in range(0, len(rows), _CHUNK):
        x = torch.from_numpy(np.asarray(flat[rows[begin : begin + _CHUNK]])).float()
        out.append(kernel.answer(parameters, x).T.numpy())
    return np.concatenate(out)


def held_out(workspace: Workspace, spec: Spec, parameters: Tensors) -> NDArray[np.float32]:
    """Scaled predictions of the images that a study's trials are judged on, ``(n_held_out, n_units)``.

    With folds they were made by the fold that did not see the image; with a single cut the encoder itself makes them.
    """
    if workspace.cuts.n_folds > 1:
        return parameters[HELD_OUT].numpy()
    features = workspace.features.of(spec.key.backbone, spec.key.layer)
    return predictions(spec.key.readout, parameters, features.train, workspace.cuts.held_out)


def tested(workspace: Workspace, spec: Spec, parameters: Tensors) -> NDArray[np.float32]:
    """Scaled predictions of the test images, ``(n_test, n_units)``."""
    features = workspace.features.of(spec.key.backbone, spec.key.layer)
    assert features.test is not None
    return predictions(spec.key.readout, parameters, features.test, np.arange(len(features.test)))


def respond(loss: str, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Readout output as a scaled response: itself, or ELU + 1 for counts."""
    if loss == "mse":
        return scaled
    return np.where(scaled > 0, scaled + 1, np.exp(np.minimum(scaled, 0))).astype(np.float32)
