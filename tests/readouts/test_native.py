"""The fused steps in C against the same steps by tensor operations."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tuner.fitting import losses
from tuner.readouts import READOUTS, TRAINED, full
from tuner.readouts.native.build import compiler
from tuner.readouts.native.steps import FactorizedStep, FullStep
from tuner.readouts.readout import Batch, Descent, FeatureShape, Parameters, StepCoefficients


def cpp_compiler() -> bool:
    """Whether inductor can compile for the CPU."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return bool(get_cpp_compiler())
    except Exception:  # whatever it raises, it says that there is none
        return False


pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")
CPU = torch.device("cpu")
BATCH = 19
READOUT_NAMES = sorted(TRAINED)


class Case:
    """Some columns in the middle of a fit: one without penalties, one that is not updated at all, missing responses."""

    def __init__(
        self,
        readout: str,
        shape: tuple[int, int, int],
        k: int,
        names: tuple[str, ...] | None = None,
        loss: str = "mse",
        size: float = 1.0,
    ) -> None:
        self.size = size
        self.readout = READOUTS[readout]
        self.shape = FeatureShape(*shape)
        self.k = k
        self.loss = loss
        rng = torch.Generator().manual_seed(0)

        def draw(*size: int) -> Tensor:
            return torch.randn(size, generator=rng)

        self.x, self.following = (draw(BATCH, self.shape.size).relu() for _ in range(2))
        self.target = draw(k, BATCH).abs()
        valid = (torch.rand(k, BATCH, generator=rng) < 0.8).float()
        valid[k // 2] = 0.0
        self.share = valid / valid.sum(1, keepdim=True).clamp_min(1)
        self.target *= valid
        start = self.readout.kernel(self.shape, CPU).initial(list(range(k)), 0)
        first = {name: draw(*value.shape) * 0.1 for name, value in start.items()}
        second = {name: draw(*value.shape).square() * 0.01 for name, value in start.items()}
        for value in start.values():
            value += 0.3 * draw(*value.shape)
        if "mask" in start:
            start["mask"] /= start["mask"].norm(dim=1, keepdim=True)
        self.state = start, first, second
        self.weights = {
            name: draw(k).abs() * 0.1
            for name in (self.readout.penalties if names is None else names)
        }
        for values in self.weights.values():
            values[min(2, k - 1)] = 0.0
        new = torch.full((k, 1), 0.1)
        new[k // 2] = 0.0
        rate = torch.where(new > 0, torch.full((k, 1), 0.02), torch.zeros(k, 1))
        self.c = StepCoefficients(
            rate, new, new * 0.01, new * 0 + 1.7, new * 0 + 3.0, size=self.size
        )

    def turned(
        self, *, compiled: bool, rows: slice = slice(None), steps: int = 1, follow: bool = True
    ) -> tuple[tuple[Parameters, ...], Tensor]:
        """Parameters and moments after some steps of these rows, and their responses to the next batch."""
        kernel = self.readout.kernel(self.shape, CPU, compiled=compiled)
        state = tuple({n: v[rows].clone() for n, v in part.items()} for part in self.state)
        weights = {name: values[rows] for name, values in self.weights.items()}
        names = (f for f in self.c.__dataclass_fields__ if f != "size")
        c = StepCoefficients(*(getattr(self.c, f)[rows] for f in names), size=self.size)
        derivative = partial(losses.derivative, self.loss)
        x, following, saved = self.x, self.following, None
        for step in range(steps):
            saved = kernel.step(
                Descent(*state, weights),
                c,
                Batch(x, self.target[rows], self.share[rows], self.loss, derivative),
                saved,
                following if follow or step + 1 < steps else None,
            )
            x, following = following, x
        return state, kernel.responses(state[0], x)


def check_close(mine: Any, theirs: Any, tolerance: float = 1.0) -> None:
    (states, y), (others, expected) = mine, theirs
    for a, b in zip(states, others, strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=3e-5, atol=5e-6 * tolerance, msg=name)
    torch.testing.assert_close(y, expected, rtol=3e-5, atol=2e-5 * tolerance)


SHAPES = [(3, 1, 1), (1100, 1, 1), (5, 4, 7), (2, 1, 6), (40, 8, 8), (3, 28, 28), (1, 40, 60)]


@pytest.mark.parametrize("k", [1, 7, 18])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("readout", READOUT_NAMES)
def test_equals_tensor_operations(readout: str, shape: tuple[int, int, int], k: int) -> None:
    case = Case(readout, shape, k)
    mine = case.turned(compiled=True)
    check_close(mine, case.turned(compiled=False))
    for name, value in mine[0][0].items():
        if name != "mask":  # renormalised, so moved by rounding
            assert torch.equal(value[k // 2], case.state[0][name][k // 2]), name


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("which", [slice(0, 0), slice(0, 1), slice(1, 3), slice(3, 4)])
@pytest.mark.parametrize("readout", READOUT_NAMES)
def test_equals_tensor_operations_with_some_penalties(
    readout: str, which: slice, loss: str
) -> None:
    case = Case(readout, (7, 6, 5), 8, READOUTS[readout].penalties[which], loss)
    check_close(case.turned(compiled=True), case.turned(compiled=False))


@pytest.mark.parametrize("readout", READOUT_NAMES)
def test_several_steps_equal_tensor_operations(readout: str) -> None:
    """What a step makes ready for the next one is used."""
    case = Case(readout, (6, 5, 5), 7, size=0.5)
    check_close(
        case.turned(compiled=True, steps=5), case.turned(compiled=False, steps=5), tolerance=10
    )


@pytest.mark.parametrize("readout", READOUT_NAMES)
def test_a_column_does_not_depend_on_its_company(readout: str) -> None:
    """To the last bit, but for what tensor operations do to mask, bias and first responses."""
    case = Case(readout, (40, 8, 8), 18)
    together, y = case.turned(compiled=True)
    alone, y_alone = case.turned(compiled=True, rows=slice(7, 8))
    name = "weight" if readout == "full" else "features"
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[name][7:8], b[name], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(y[7:8], y_alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("readout", READOUT_NAMES)
def test_the_last_step_has_no_batch_after_it(readout: str) -> None:
    case = Case(readout, (5, 4, 7), 7)
    check_close(case.turned(compiled=True, follow=False), case.turned(compiled=True))


@pytest.mark.parametrize("readout", READOUT_NAMES)
def test_a_diverged_column_stays_visible_and_alone(readout: str) -> None:
    """Also where a tile is not full, and what another row left behind lies next to it."""
    case = Case(readout, (70, 5, 5), 13)
    name = "weight" if readout == "full" else "features"
    size = case.state[0][name].shape[1]
    case.state[0][name][3, size - 50] = np.nan
    case.state[0][name][4, 12] = np.inf
    states, y = case.turned(compiled=True, steps=2)
    sick = torch.zeros(13, dtype=torch.bool)
    sick[3:5] = True
    assert not torch.isfinite(y[sick]).all(1).any()
    assert torch.isfinite(y[~sick]).all()
    assert all(torch.isfinite(value[~sick]).all() for part in states for value in part.values())


def test_the_update_compiles_by_torch_too() -> None:
    """What runs on a GPU, made for the CPU: the same graph, another backend."""
    if not cpp_compiler():
        pytest.skip("inductor finds no C++ compiler here")
    case = Case("full", (3, 6, 7), 5)
    compiled = torch.compile(full._update, dynamic=True)
    results = []
    for update in (full._update, compiled):
        w, m, v = ({n: t.clone() for n, t in part.items()}["weight"] for part in case.state)
        columns = [case.weights[name][:, None] for name in case.readout.penalties]
        c = (case.c.rate, case.c.new1, case.c.new2, case.c.correct1, case.c.root2)
        for start in (0, 3):  # rows of a larger table, as the trainer hands them over
            rows = slice(start, start + 3)
            update(
                w[rows],
                m[rows],
                v[rows],
                torch.ones(len(w[rows]), case.shape.size),
                *(column[rows] for column in columns),
                tuple(part[rows] for part in c),
                (3, 6, 7),
            )
        results.append((w, m, v))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("readout", READOUT_NAMES)
def test_other_memory_is_refused(readout: str) -> None:
    case = Case(readout, (2, 2, 2), 2)
    moment = case.state[1]
    name = "weight" if readout == "full" else "features"
    moment[name] = moment[name].double()
    with pytest.raises(ValueError, match="contiguous float32"):
        case.turned(compiled=True)


def test_a_wrong_shape_never_reaches_the_code_in_c() -> None:
    """A pointer says nothing about how much lies behind it."""
    k, shape = 4, (3, 5, 5)
    size, channels, cells = 75, 3, 25
    full = FullStep(*shape)
    packed = full.pack(torch.rand(BATCH, size))
    rows, fields, residual = torch.zeros(k, size), torch.zeros(k, 10), torch.zeros(k, BATCH)
    good = [rows, rows.clone(), rows.clone(), residual, fields, packed, packed.clone()]
    full.step(*good)
    for place, wrong in enumerate(good):
        for bad in (wrong[:-1].clone(), wrong.double(), wrong.repeat_interleave(2, 0)[::2]):
            with pytest.raises(ValueError, match="the fused step takes"):
                full.step(*good[:place], bad, *good[place + 1 :])
    with pytest.raises(ValueError, match="takes features"):
        full.pack(torch.rand(BATCH, size - 1))

    factorized = FactorizedStep(channels, cells)
    features, mask, fields = (torch.zeros(k, n) for n in (channels, cells, 9))
    batch = factorized.pack(torch.rand(BATCH, size))
    answers = [
        *(features, features.clone(), features.clone(), mask, fields, batch),
        *(residual, residual.clone()),
    ]
    factorized.step(*answers, "mse")
    for place, wrong in enumerate(answers):
        with pytest.raises(ValueError, match="the fused step takes"):
            factorized.step(*answers[:place], wrong[:-1].clone(), *answers[place + 1 :], "mse")
    with pytest.raises(ValueError, match="takes mask"):
        factorized.responses(features, mask[:, 1:].contiguous(), fields, batch, BATCH)
