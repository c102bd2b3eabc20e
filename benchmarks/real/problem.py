"""A recording with one layer's features, and what a way of predicting it is scored by."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studies.config.experiment import load_experiment
from studies.workspace import Workspace

Floats = NDArray[np.float64]

CONFIG = """
[data]
format = "hdf5"
path = {path}
region = {region}
image_size = {image_size}
[[backbone]]
name = {backbone}
layers = {layers}
"""
"""All else is as shipped, so that what users get is what is measured."""


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes
    ----------
    backbone, layers, image_size, region
        As in ``tuner.toml``.
    trials
        Of each search.
    """

    backbone: str
    layers: tuple[str, ...] | str
    image_size: int
    region: str
    trials: int

    def experiment(self, recording: Path, folder: Path) -> Workspace:
        """Write ``tuner.toml`` into a folder, and open it."""
        text = CONFIG.format(
            path=json.dumps(str(recording.resolve())),
            region=json.dumps(self.region),
            image_size=self.image_size,
            backbone=json.dumps(self.backbone),
            layers=json.dumps(self.layers),
        )
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "tuner.toml"
        config.write_text(text, encoding="utf-8")
        return Workspace(load_experiment(config))


@dataclass(frozen=True)
class Problem:
    """Features and responses, as closed forms read them.

    Attributes
    ----------
    train, test
        ``(n, C, h, w)`` features of the images that are fitted to, and of the test images.
    responses
        ``(n, n_units)`` z-scored responses of the former; NaN = missing.
    groups
        ``(n,)`` images that are left out together, or None.
    """

    train: NDArray[np.float16]
    test: NDArray[np.float16]
    responses: Floats
    groups: NDArray[np.int64] | None

    @classmethod
    def of(cls, workspace: Workspace, backbone: str, layer: str) -> Problem:
        """Every training image is fitted to: the closed forms choose nothing on the cut."""
        features = workspace.features.of(backbone, layer)
        responses = workspace.recording.train_responses.astype(np.float64)
        scaled = (responses - np.nanmean(responses, 0)) / np.nanstd(responses, 0)
        test = np.asarray(features.test)
        return cls(np.asarray(features.train), test, scaled, workspace.recording.train_groups)

    def by_missing(self, fit: Callable[[Floats, Floats, Floats], Floats]) -> Floats:
        """Predictions ``(n_test, n_units)`` by ways that need complete responses: units that miss the same share a fit.

        Parameters
        ----------
        fit
            Predicts from training features ``(n, F)``, their responses ``(n, k)`` and test features ``(m, F)``.
        """
        train, test = (
            np.asarray(part.reshape(len(part), -1), float) for part in (self.train, self.test)
        )
        missing = np.isnan(self.responses)
        patterns, which = np.unique(missing, axis=1, return_inverse=True)
        out = np.full((len(test), missing.shape[1]), np.nan)
        for number in range(patterns.shape[1]):
            there, units = ~patterns[:, number], np.flatnonzero(which.ravel() == number)
            out[:, units] = fit(train[there], self.responses[np.ix_(there, units)], test).reshape(
                len(test), -1
            )
        return out
