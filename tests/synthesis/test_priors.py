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
from tuner.synthesis.photometry import Photometry
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
def test_it_turns_towards_a_pattern_at_fixed_contrast(name, start):
    pattern = torch.linspace(-1, 1, SIZE).expand(4, 3, SIZE, SIZE)
    photometry = Photometry(mean=0.5, contrast=0.1)
    canvas = start(name, steps=60)

    def likeness() -> torch.Tensor:
        shown = photometry.apply(canvas.image()) - 0.5
        return (shown * pattern).flatten(1).sum(1) / pattern[0].norm() / (0.1 * 1728**0.5)

    before = likeness().detach()
    for step in range(1, 61):
        canvas.optimizer.zero_grad()
        (-likeness()).sum().backward()
        canvas.optimizer.step()
        canvas.after_step(step)
    assert (likeness() > before + 0.2).all()


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


@pytest.mark.parametrize("name", ["fft", "pixel"])
def test_without_colour_images_are_grey(name):
    prior = priors.get(name, {"colour": 0})
    canvas = prior.start(
        JOBS, SIZE, seed=0, steps=5, learning_rate=0.05, weight_decay=0.0, device=CPU
    )
    _climb(canvas, 5, torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)))
    image = torch.logit(canvas.image())
    # lucent's direction of luminance is grey to within a few percent
    spread = image.amax(1) - image.amin(1)
    assert (spread < 0.1 * image.abs().amax(1).clamp_min(1e-3)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": -1}, "colour = -1"),
        ({"colour": "x"}, "colour = x"),
        ({"ascent": "sgd"}, "sgd"),
        ({"decay": 5}, "decay = 5"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        priors.get("fft", options)
