"""Several encoders as one: weights against the textbook, responses as the formula says, saved and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tests.encoders import random_encoder
from tuner.encoder import StackedEncoder, Together, as_batch, load_encoder, save_encoder
from tuner.encoder.stacked import SHRINKAGE, stacking_weights
from tuner.errors import InputError


def test_weights_minimise_what_is_said_and_are_never_negative() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(60, 2))
    p = np.stack([0.5 * y + rng.normal(size=y.shape), -y, 0.7 * y + rng.normal(size=y.shape)])
    y[:7, 1] = np.nan
    found = stacking_weights(p, y)
    assert found.min() >= 0
    assert (found[1] == 0).all()
    for unit in (0, 1):
        there = np.isfinite(y[:, unit])
        t, m = y[there, unit], p[:, there, unit]

        def objective(a: np.ndarray, t: np.ndarray = t, m: np.ndarray = m) -> float:
            pull = SHRINKAGE * np.square(t).mean() * np.square(a - 1 / 3).sum()
            return float(np.square(t - a @ m).mean() + pull)

        best = minimize(objective, np.full(3, 0.3), bounds=[(0, None)] * 3, tol=1e-12)
        np.testing.assert_allclose(found[:, unit], best.x, atol=1e-4)


@pytest.mark.parametrize("loss", ["mse", "poisson"])
def test_a_stack_answers_as_its_members_weighted_and_is_read_again(
    loss: str, tmp_path: Path
) -> None:
    members = [
        random_encoder(layer="_blocks.2", readout="full", loss=loss, seed=0),
        random_encoder(layer="_blocks.4", readout="factorized", loss=loss, seed=1),
        random_encoder(layer="_blocks.4", readout="full", loss=loss, seed=2),
    ]
    weights = torch.rand(3, members[0].n_units)
    stack = StackedEncoder(members, weights, {"study": "a/stacked/b/stacked"})
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    batch = as_batch(images)
    with torch.no_grad():
        each = torch.stack([member(batch) for member in members])
        base = members[0].response_mean if loss == "mse" else members[0].response_scale
        expected = base + (weights[:, None] * (each - base)).sum(0)
        found = stack(batch)
    torch.testing.assert_close(found, expected)
    for with_backbone in (False, True):
        save_encoder(tmp_path, stack, check_images=images[:1], with_backbone=with_backbone)
        again = load_encoder(tmp_path)
        assert isinstance(again, StackedEncoder)
        with torch.no_grad():
            torch.testing.assert_close(again(batch), found, atol=1e-5, rtol=1e-5)
        assert again.meta == stack.meta
        assert again.checksum() == stack.checksum()
        assert again.unit_names() == members[0].unit_names()


def test_images_pass_the_backbone_once_and_its_gradient_reaches_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = [random_encoder(layer=layer) for layer in ("_blocks.2", "_blocks.4")]
    stack = StackedEncoder(members, torch.ones(2, members[0].n_units))
    backbone = members[0].backbone
    asked: list[list[str]] = []
    features = backbone.features

    def counted(images: torch.Tensor, layers: list[str]) -> dict[str, torch.Tensor]:
        asked.append(list(layers))
        return features(images, layers)

    monkeypatch.setattr(backbone, "features", counted)
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    stack.predict_units(images, [0]).sum().backward()
    assert asked == [["_blocks.2", "_blocks.4"]]
    assert images.grad is not None
    assert bool(images.grad.abs().max() > 0)


def test_what_cannot_be_stacked_is_refused() -> None:
    one = random_encoder()
    with pytest.raises(InputError, match="weights are"):
        StackedEncoder([one], torch.ones(2, one.n_units))
    with pytest.raises(InputError, match="no encoder"):
        StackedEncoder([], torch.ones(0, 1))
    other = random_encoder(loss="poisson")
    with pytest.raises(InputError, match="different losses"):
        StackedEncoder([one, other], torch.ones(2, one.n_units))
    assert Together([one, other]).image_size == 32
