"""lucent's habits stay behind the door."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tuner.synthesis import lucent_bridge


def _run(
    score: Callable[[torch.Tensor], torch.Tensor] | None = None,
    after_step: Callable[[int], None] = lambda step: None,
    transforms: Any = (),
    steps: int = 4,
) -> torch.Tensor:
    values = torch.zeros(2, 3, 8, 8, requires_grad=True)
    lucent_bridge.ascend(
        score=score or (lambda images: images.sum((1, 2, 3))),
        image=lambda: torch.sigmoid(values),
        parameters=[values],
        optimizer=torch.optim.SGD([values], lr=1.0),
        transforms=list(transforms),
        image_size=8,
        steps=steps,
        seed=0,
        after_step=after_step,
    )
    return values.detach()


def test_it_climbs():
    assert (_run() > 0).all()


def test_every_step_is_reported():
    steps: list[int] = []
    _run(after_step=steps.append, steps=5)
    assert steps == [1, 2, 3, 4, 5]


def test_the_loss_is_the_sum_so_images_do_not_share_a_gradient():
    weights = torch.tensor([1.0, 3.0])
    moved = _run(lambda images: images.sum((1, 2, 3)) * weights, steps=1)
    torch.testing.assert_close(moved[1], 3 * moved[0])


@pytest.mark.parametrize("step", [0, 2])
def test_a_runtime_error_of_the_model_comes_through(step):
    calls = iter(range(100))

    def fail(images: torch.Tensor) -> torch.Tensor:
        if next(calls) == step:
            raise RuntimeError("out of memory")
        return images.sum((1, 2, 3))

    with pytest.raises(RuntimeError, match="out of memory"):
        _run(fail)


def test_so_does_one_of_a_transform():
    def fail(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match="no such thing"):
        _run(transforms=[fail])


def test_ctrl_c_comes_through_and_nothing_is_printed(capsys):
    def interrupt(step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(after_step=interrupt)
    assert capsys.readouterr().out == ""


def test_numpys_generator_is_put_back():
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    torch_state = torch.random.get_rng_state()

    def wander(images: torch.Tensor) -> torch.Tensor:
        return images + float(np.random.rand())

    _run(transforms=[wander])
    lucent_bridge.fourier_image((1, 3, 8, 8), torch.device("cpu"))
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert torch.equal(torch.random.get_rng_state(), torch_state)


def test_draws_depend_on_seed_and_step():
    def drawn(*key: int) -> float:
        with lucent_bridge.numpy_seeded(*key):
            return float(np.random.rand())

    assert drawn(0, 1) == drawn(0, 1)
    assert len({drawn(0, 1), drawn(0, 2), drawn(1, 1), drawn(1, 0)}) == 4


def test_devices_are_put_back():
    modules = lucent_bridge.lucent()
    before = modules.spatial.device
    with lucent_bridge.on_device(torch.device("meta")) as inside:
        assert inside.spatial.device.type == inside.transform.device.type == "meta"
    assert modules.spatial.device == modules.transform.device == before


def test_no_hooks_are_left_on_the_model():
    model = torch.nn.Conv2d(3, 1, 1)
    _run(lambda images: model(images).sum((1, 2, 3)))
    assert not model._forward_hooks


def test_it_imports_without_a_warning():
    code = "from tuner.synthesis import lucent_bridge; lucent_bridge.lucent()"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
