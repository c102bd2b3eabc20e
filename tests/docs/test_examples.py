"""The example readout, format and prior do what every readout, format and prior must do."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.docs.conftest import EXAMPLES
from tests.readouts import test_conformance as readouts
from tests.readouts.conformance import SHAPE, batch, penalty_weights, random_parameters
from tests.synthesis import test_priors
from tuner.errors import InputError
from tuner.recordings import FORMATS, Format, load_recording
from tuner.synthesis import priors


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def readout():
    return example("pooled_readout").PooledReadout()


@pytest.mark.parametrize(
    "check",
    [
        readouts.test_exported_prediction_equals_training_prediction,
        readouts.test_prediction_of_a_unit_is_the_same_bytes_in_any_company,
        readouts.test_initial_parameters_depend_on_the_unit_alone,
    ],
)
def test_readout_conforms(readout, check):
    check(readout)


def test_readout_gradients_equal_autograd(readout):
    kernel, p = random_parameters(readout, 4, torch.float64)
    x, weights = batch(6, torch.float64), penalty_weights(readout, 4, torch.float64)
    leaves = {name: value.clone().requires_grad_(True) for name, value in p.items()}
    exported = kernel.export(leaves)
    maps = x.view(-1, SHAPE.channels, SHAPE.height, SHAPE.width)
    loss = readout.predict(exported, maps).square().mean(0).sum()
    (loss + kernel.penalty(leaves, weights).sum()).backward()

    y, saved = kernel.forward(p, x)
    ours = kernel.gradients(p, x, saved, 2 * y / 6)
    for name, more in kernel.penalty_gradients(p, weights).items():
        torch.testing.assert_close(ours[name] + more, leaves[name].grad, rtol=1e-10, atol=1e-12)


def test_format_reads_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setitem(FORMATS, "npz", Format("npz_format"))
    rng = np.random.default_rng(0)
    content = {
        "images": rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8),
        "responses": rng.normal(size=(30, 2)),
        "area": np.array(["V1", "IT"]),
    }
    np.savez(tmp_path / "whole.npz", **content)
    recording = load_recording(tmp_path / "whole.npz", "npz")
    np.testing.assert_array_equal(recording.train_images.read(3), content["images"][3])
    np.testing.assert_allclose(recording.train_responses, content["responses"], rtol=1e-6)
    np.savez(tmp_path / "part.npz", images=content["images"])
    np.savez(tmp_path / "object.npz", **(content | {"area": np.array(["V1", None], dtype=object)}))
    (tmp_path / "foreign.npz").write_bytes(b"not this")
    for name in ("missing", "part", "object", "foreign"):
        with pytest.raises(InputError, match=f"{name}.npz"):
            load_recording(tmp_path / f"{name}.npz", "npz")


@pytest.mark.parametrize(
    "check",
    [
        test_priors.test_images_are_in_range_from_the_start,
        test_priors.test_it_turns_towards_a_pattern_at_fixed_contrast,
        test_priors.test_parameters_are_leaves_with_a_row_per_image,
        test_priors.test_the_beginning_depends_on_seed_unit_and_variant_alone,
        test_priors.test_images_do_not_see_one_another,
        test_priors.test_the_global_generator_is_left_alone,
    ],
)
def test_prior_conforms(check, monkeypatch):
    kind = example("sine_prior").SinePrior
    monkeypatch.setitem(priors.PRIORS, "sine", lambda options: kind())
    priors._made.cache_clear()

    def start(name, jobs=None, seed=0, steps=10):
        prior = priors.get(name)
        return prior.start(
            jobs or test_priors.JOBS,
            test_priors.SIZE,
            seed=seed,
            steps=steps,
            learning_rate=prior.learning_rate,
            weight_decay=0.0,
            device=torch.device("cpu"),
        )

    check("sine", start)
