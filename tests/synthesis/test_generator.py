"""The generator prior: as published, and only on networks that fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.encoders import random_encoder
from tests.generators import CODE, Small, script
from tuner.errors import InputError
from tuner.synthesis import generator
from tuner.synthesis.ascent import FallingAscent
from tuner.synthesis.canvas import Job
from tuner.synthesis.generator import Architecture, GeneratorPrior
from tuner.synthesis.mei import MeiSettings, synthesize

CPU = torch.device("cpu")


@pytest.fixture
def path(tmp_path):
    return script(Small(), tmp_path / "g.pt")


def _canvas(prior, steps=10, learning_rate=0.1):
    return prior.start(
        [Job(1), Job(2)],
        16,
        seed=0,
        steps=steps,
        learning_rate=learning_rate,
        weight_decay=0.0,
        device=CPU,
    )


def test_the_step_is_normalised_and_falls_linearly():
    code = torch.zeros(2, 4, requires_grad=True)
    ascent = FallingAscent([code], 8.0, 200)
    sizes = []
    for _ in range(200):
        before = code.detach().clone()
        code.grad = torch.tensor([[1.0, 2, 3, -2], [100.0, -300, 0, 0]])
        ascent.step()
        sizes.append((code.detach() - before).abs().mean(1))
    sizes = torch.stack(sizes)
    torch.testing.assert_close(sizes[0], torch.full((2,), 8.0))
    torch.testing.assert_close(sizes[:, 0], 8 * (1 - torch.arange(200) / 200), rtol=1e-4, atol=1e-4)
    assert code[0, 0] < 0, "it descends on the loss"


def test_the_code_is_clipped_then_shrunk(path, tmp_path):
    upper = np.linspace(0.1, 1, CODE)
    np.savetxt(tmp_path / "fc6.txt", upper)
    canvas = _canvas(GeneratorPrior(path=path, code=CODE, bounds=str(tmp_path / "fc6.txt")))
    (code,) = canvas.parameters
    with torch.no_grad():
        code.copy_(torch.linspace(-3, 3, CODE).expand(2, CODE))
    expected = np.clip(np.linspace(-3, 3, CODE), 0, upper) * 0.99
    canvas.after_step(1)
    np.testing.assert_allclose(code[0].detach().numpy(), expected, rtol=1e-5)


def test_the_gradient_is_normalised_at_the_image(path):
    canvas = _canvas(GeneratorPrior(path=path, code=CODE))
    (code,) = canvas.parameters
    weights = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    gradients = []
    for scale in (1.0, 1000.0):
        code.grad = None
        (canvas.image() * weights * scale).sum().backward()
        gradients.append(code.grad.clone())
    torch.testing.assert_close(*gradients)


def test_images_are_scaled_to_the_size_asked_for(path):
    prior = GeneratorPrior(path=path, code=CODE)
    images = prior.images(prior.network(CPU), torch.zeros(2, CODE), 40)
    assert images.shape == (2, 3, 40, 40)


def test_it_makes_images_that_excite(path):
    encoder = random_encoder(n_units=3, layer="_blocks.0")
    options = {"path": path, "code": CODE}
    settings = MeiSettings(prior="generator", prior_options=options, steps=40, chunk=4)
    start = MeiSettings(prior="generator", prior_options=options, steps=1, chunk=4, keep_every=9)
    late, early = (synthesize([encoder], None, s).activation for s in (settings, start))
    assert (late > early).all()
    assert settings.prior_options["blake2b"]


def test_another_file_than_the_manifests_is_refused(path, tmp_path):
    options = GeneratorPrior(path=path, code=CODE).options
    other = script(Small(seed=1), tmp_path / "g.pt")
    with pytest.raises(InputError, match="not the generator"):
        generator.from_options(options | {"path": other})


@pytest.fixture
def small_architecture(monkeypatch):
    """A state dict is checked by the same path, whatever the architecture's size."""
    architecture = Architecture(lambda: Small().to("meta"), (CODE,), "unit")
    monkeypatch.setitem(generator.ARCHITECTURES, "small", architecture)


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_a_state_dict_is_loaded(small_architecture, tmp_path, path, kind):
    file = tmp_path / f"state.{kind}"
    state = Small().state_dict()
    save_file(state, file) if kind == "safetensors" else torch.save(state, file)
    prior = GeneratorPrior(path=str(file), architecture="small")
    code = torch.rand(2, CODE)
    expected = GeneratorPrior(path=path, code=CODE)
    torch.testing.assert_close(
        prior.images(prior.network(CPU), code, 16),
        expected.images(expected.network(CPU), code, 16),
    )


def test_a_state_dict_of_something_else_is_refused(small_architecture, tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "state.safetensors")
    prior = GeneratorPrior(path=str(tmp_path / "state.safetensors"), architecture="small")
    with pytest.raises(InputError, match="not the weights of small"):
        prior.network(CPU)


def test_the_published_architecture_has_the_published_shapes():
    architecture = generator.ARCHITECTURES["upconv-pool5"]
    network = architecture.build()
    state = network.G.state_dict()
    assert state["Rconv6.weight"].shape == (512, 256, 3, 3)
    assert state["deconv0.weight"].shape == (32, 3, 4, 4)
    with torch.device("meta"):
        assert network.G(torch.zeros(2, *architecture.code)).shape == (2, 3, 256, 256)


def test_caffes_output_is_bgr_less_the_mean():
    raw = torch.zeros(1, 3, 2, 2)
    raw[:, 0] = 10.0  # blue
    images = generator.OUTPUTS["caffe"](raw) * 255
    np.testing.assert_allclose(images[0, :, 0, 0].numpy(), [123, 117, 114], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a network of your own"),
        ({"path": "/nowhere.pt", "code": 4}, "cannot be read"),
        ({"path": "x"}, "how long a code is"),
        ({"path": "x", "code": 0}, "code = 0"),
        ({"path": "x", "code": 4, "output": "lab"}, "unknown generator output 'lab'"),
        ({"path": "x", "architecture": "biggan"}, "unknown generator architecture"),
        ({"path": "x", "code": 4, "bounds": -1.0}, "must be positive"),
        ({"path": "x", "code": 4, "bounds": "/nowhere.txt"}, "4 upper bounds"),
    ],
)
def test_what_cannot_be_used_is_named(options, message):
    with pytest.raises(InputError, match=message):
        generator.from_options(options)


def test_a_wrong_code_length_is_named(path):
    canvas = _canvas(GeneratorPrior(path=path, code=CODE + 1))
    with pytest.raises(InputError, match="does not take codes of shape"):
        canvas.image()


def test_a_network_that_gives_no_images_is_named(tmp_path):
    path = script(torch.nn.Linear(4, 3), tmp_path / "linear.pt", 4)
    with pytest.raises(InputError, match="not RGB images"):
        _canvas(GeneratorPrior(path=path, code=4)).image()


def test_a_state_dict_without_an_architecture_is_named(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="not a TorchScript file"):
        _canvas(GeneratorPrior(path=str(tmp_path / "state.pt"), code=4))
