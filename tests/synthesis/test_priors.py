"""What every image prior must do; a new one is added to the registry and passes these."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tuner.errors import InputError
from tuner.synthesis import priors
from tuner.synthesis.canvas import Canvas, Job
from tuner.synthesis.priors import PRIORS

SIZE = 24
JOBS = [Job(3), Job(7), Job(7, 1), Job(11)]
CPU = torch.device("cpu")


Start = Callable[..., Canvas]


@pytest.fixture
def start(prior_options: dict[str, dict[str, Any]]) -> Start:
    def begin(name: str, jobs: list[Job] | None = None, seed: int = 0, steps: int = 10) -> Canvas:
        prior = priors.get(name, prior_options.get(name))
        return prior.start(
            jobs or JOBS,
            SIZE,
            seed=seed,
            steps=steps,
            learning_rate=prior.learning_rate,
            weight_decay=0.0,
            device=CPU,
        )

    return begin


def _climb(canvas: Canvas, steps: int, target: torch.Tensor) -> list[float]:
    losses = []
    for step in range(1, steps + 1):
        canvas.optimizer.zero_grad()
        loss = (canvas.image() - target).square().sum((1, 2, 3)).sum()
        loss.backward()
        canvas.optimizer.step()
        canvas.after_step(step)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", PRIORS)
def test_images_are_in_range_from_the_start(name, start):
    image = start(name).image()
    assert image.shape == (4, 3, SIZE, SIZE)
    assert image.dtype == torch.float32
    assert torch.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("name", PRIORS)
def test_it_can_be_optimised(name, start):
    target = torch.full((4, 3, SIZE, SIZE), 0.8)
    losses = _climb(start(name, steps=30), 30, target)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", PRIORS)
def test_parameters_are_leaves_with_a_row_per_image(name, start):
    for parameter in start(name).parameters:
        assert parameter.is_leaf
        assert parameter.requires_grad
        assert len(parameter) == len(JOBS)


@pytest.mark.parametrize("name", PRIORS)
def test_the_beginning_depends_on_seed_unit_and_variant_alone(name, start):
    together = [p.detach() for p in start(name).parameters]
    for row, job in enumerate(JOBS):
        alone = [p.detach() for p in start(name, [job]).parameters]
        for one, many in zip(alone, together, strict=True):
            assert torch.equal(one[0], many[row])
    for other in (start(name, seed=1), start(name, [Job(4), *JOBS[1:]])):
        assert any(
            not torch.equal(a[0], b[0]) for a, b in zip(other.parameters, together, strict=True)
        )
    assert any(not torch.equal(p[1], p[2]) for p in together), "variants begin alike"


@pytest.mark.parametrize("name", PRIORS)
def test_images_do_not_see_one_another(name, start):
    target = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    order = [2, 0, 3, 1]
    straight, shuffled = start(name), start(name, [JOBS[k] for k in order])
    _climb(straight, 10, target)
    _climb(shuffled, 10, target[order])
    assert torch.equal(straight.image()[order], shuffled.image())


@pytest.mark.parametrize("name", PRIORS)
def test_the_global_generator_is_left_alone(name, start):
    state = torch.random.get_rng_state()
    _climb(start(name), 2, torch.zeros(4, 3, SIZE, SIZE))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_unknown_prior_is_answered_with_the_known():
    with pytest.raises(InputError, match="fft, pixel, cppn, generator"):
        priors.get("gan")


@pytest.mark.parametrize("name", PRIORS)
def test_its_options_make_it_again(name, prior_options):
    one = priors.get(name, prior_options.get(name))
    assert one.name == name
    again = priors.get(name, json.loads(json.dumps(one.options)))
    assert again.options == one.options


@pytest.mark.parametrize("name", PRIORS)
def test_an_unknown_option_is_named(name):
    with pytest.raises(InputError, match="unknown option 'depht'"):
        priors.get(name, {"depht": 3})
