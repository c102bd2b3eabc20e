"""The column trainer: company does not matter, formulas hold, known solutions are reached."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.fitting import losses
from tuner.fitting.center import feature_mean
from tuner.fitting.columns import Columns, ColumnState
from tuner.fitting.schedule import BatchStream, learning_rates, report_steps
from tuner.fitting.targets import Targets
from tuner.fitting.trainer import Trainer
from tuner.readouts import READOUTS, TRAINED
from tuner.readouts.readout import FeatureShape

SHAPE = FeatureShape(6, 4, 5)


class Table:
    """Features in memory."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: Tensor) -> Tensor:
        return self.values[indices]


def make(
    readout: str,
    units: int,
    *,
    n: int = 240,
    shape: FeatureShape = SHAPE,
    missing: float = 0.0,
    noise: float = 0.5,
    loss: str = "mse",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 32,
    targets: NDArray[np.float32] | None = None,
    center: bool = False,
    offset: float = 0.0,
) -> tuple[Trainer, Tensor, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((n, shape.size)), 0).astype(np.float32)
    if targets is None:
        w = rng.standard_normal((shape.size, units)) * (rng.random((shape.size, units)) < 0.3)
        y = x @ w
        targets = ((y - y.mean(0)) / y.std(0)).astype(np.float32)
        targets += noise * rng.standard_normal(targets.shape).astype(np.float32)
        if loss == "poisson":
            targets = np.exp(0.5 * targets)
            targets /= targets.mean(0)
        targets[rng.random(targets.shape) < missing] = np.nan
    cut = n - n // 5
    rows = np.arange(n)
    table = Table(torch.from_numpy(x + np.float32(offset)).to(dtype))
    trainer = Trainer(
        READOUTS[readout].kernel(shape, torch.device("cpu"), dtype=dtype),
        table,
        Targets(targets[:cut], targets[cut:], rows[:cut], rows[cut:], rows[cut:] % 2),
        loss=loss,
        batch_size=batch_size,
        seed=3,
        device=torch.device("cpu"),
        dtype=dtype,
        center=feature_mean(table, rows[:cut], shape) if center else None,
    )
    return trainer, table.values, targets


def random_trials(readout: str, count: int, seed: int = 0) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    return [
        {name: float(10 ** rng.uniform(-6, -2)) for name in READOUTS[readout].penalties}
        | {
            "learning_rate": float(10 ** rng.uniform(-2, -0.7)),
            "drop": int(rng.integers(20, 200)),
        }
        for _ in range(count)
    ]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("readout", sorted(TRAINED))
def test_column_equals_itself_trained_alone(readout: str, missing: float) -> None:
    units = 21
    trainer, _, _ = make(readout, units, missing=missing)
    trials = random_trials(readout, 24)
    group = np.arange(units)
    together = trainer.start(Columns.of_trials(trials, [group] * 24))
    assert len(together) > 500
    trainer.advance(together, 0, 300)
    losses_together = trainer.validate(together).sum(1)
    for k in (0, 130, 503):
        columns = together.columns.take(np.array([k]))
        alone = trainer.start(columns)
        trainer.advance(alone, 0, 300)
        assert trainer.validate(alone).sum() == pytest.approx(losses_together[k], rel=1e-4)
        for name, value in alone.parameters.items():
            if name != "bias":
                assert relative(together.parameters[name][[k]], value) < 1e-4


@pytest.mark.parametrize("readout", sorted(TRAINED))
def test_centred_training_does_not_see_what_all_images_share(readout: str) -> None:
    columns = Columns.of_trials(random_trials(readout, 4), [np.arange(3)] * 4)
    found = []
    for offset in (0.0, 8.0):
        trainer, x, targets = make(readout, 3, center=True, offset=offset)
        before = x.clone()
        state = trainer.start(columns)
        trainer.advance(state, 0, 60)
        losses = trainer.validate(state).sum(1)
        assert torch.equal(x, before)
        state.remember(np.arange(len(state)))
        maps = x[192:].view(-1, SHAPE.channels, SHAPE.height, SHAPE.width)
        exported = state.best_of(np.arange(len(state)))
        predicted = READOUTS[readout].predict(exported, maps).numpy()
        again = (predicted - targets[192:][:, columns.unit]) ** 2
        np.testing.assert_allclose(again.sum(0), losses, rtol=1e-3)
        found.append((losses, predicted))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-3)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-2, atol=1e-2)


def test_the_mean_is_that_of_the_images_that_are_asked_for() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((700, SHAPE.size)).astype(np.float16)
    rows = np.sort(rng.permutation(700)[:600])
    found = feature_mean(Table(torch.from_numpy(values).float()), rows, SHAPE)
    expected = values[rows].astype(np.float64).mean(0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("readout", sorted(TRAINED))
def test_dropping_neighbours_changes_nothing(readout: str) -> None:
    trainer, _, _ = make(readout, 5)
    trials = random_trials(readout, 6)
    columns = Columns.of_trials(trials, [np.arange(5)] * 6)
    undisturbed = trainer.start(columns)
    trainer.advance(undisturbed, 0, 80)
    pruned = trainer.start(columns)
    trainer.advance(pruned, 0, 40)
    rows = np.array([2, 7, 21, 22])
    pruned.keep(rows)
    trainer.advance(pruned, 40, 80)
    for name, value in pruned.parameters.items():
        torch.testing.assert_close(value, undisturbed.parameters[name][rows], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("readout", sorted(TRAINED))
def test_diverged_column_leaves_its_neighbours_untouched(readout: str) -> None:
    trainer, _, _ = make(readout, 4)
    good = random_trials(readout, 2)
    wild = good[0] | {"learning_rate": 1e38}
    units = [np.arange(4)] * 3
    state = trainer.start(Columns.of_trials([good[0], wild, good[1]], units))
    trainer.advance(state, 0, 60)
    loss = trainer.validate(state).sum(1).reshape(3, 4)
    calm = trainer.start(Columns.of_trials(good, units[:2]))
    trainer.advance(calm, 0, 60)
    expected = trainer.validate(calm).sum(1).reshape(2, 4)
    assert not np.isfinite(loss[1]).any()
    np.testing.assert_allclose(loss[[0, 2]], expected, rtol=1e-4)


def test_full_readout_without_penalties_reaches_least_squares() -> None:
    shape = FeatureShape(3, 2, 2)
    trainer, x, y = make("full", 4, shape=shape, n=200, batch_size=160, dtype=torch.float64)
    free = dict.fromkeys(READOUTS["full"].penalties, 0.0)
    state = trainer.start(
        Columns.of_trials([free | {"learning_rate": 0.3, "drop": 200}], [np.arange(4)])
    )
    assert not state.weights
    trainer.advance(state, 0, 8000)
    design = np.column_stack([x[:160].numpy() / np.sqrt(shape.size), np.ones(160)])
    solution, *_ = np.linalg.lstsq(design, y[:160], rcond=None)
    np.testing.assert_allclose(state.parameters["weight"].numpy(), solution[:-1].T, atol=2e-4)
    np.testing.assert_allclose(state.parameters["bias"][:, 0].numpy(), solution[-1], atol=2e-4)


def test_l1_reaches_the_lasso_optimum() -> None:
    """At the optimum |gradient of the data term| <= s where w = 0, and equals s in size elsewhere."""
    shape = FeatureShape(8, 2, 2)
    trainer, x, y = make("full", 3, shape=shape, n=200, batch_size=160, dtype=torch.float64)
    s = 0.02
    trial = {
        "sparsity": s,
        "smoothness": 0.0,
        "group_sparsity": 0.0,
        "weight_decay": 0.0,
        "learning_rate": 0.3,
        "drop": 200,
    }
    state = trainer.start(Columns.of_trials([trial], [np.arange(3)]))
    trainer.advance(state, 0, 8000)
    w = state.parameters["weight"]
    rows = torch.arange(160)
    predicted, _ = trainer.kernel.forward(state.parameters, x[:160])
    residual = 2 * (predicted - torch.from_numpy(y[:160]).T) / 160
    gradient = trainer.kernel.gradients(state.parameters, x[:160], None, residual)["weight"]
    zero = w == 0
    assert 5 < int(zero.sum()) < w.numel() - 5
    assert float(gradient[zero].abs().max()) <= s * 1.01
    torch.testing.assert_close(gradient[~zero], -s * w[~zero].sign(), rtol=0.02, atol=1e-4)
    assert len(rows) == trainer.stream.n_images


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("readout", sorted(TRAINED))
def test_steps_descend_the_written_out_objective(readout: str, loss: str) -> None:
    trainer, x, _ = make(readout, 3, loss=loss, missing=0.1)
    mild = dict.fromkeys(READOUTS[readout].penalties, 1e-05)
    trials = [mild | {"learning_rate": rate, "drop": 100} for rate in (0.05, 0.1)]
    state = trainer.start(Columns.of_trials(trials, [np.arange(3)] * 2))
    rows = torch.arange(100)
    before = trainer.objective(state, x[rows], rows)
    trainer.advance(state, 0, 200)
    after = trainer.objective(state, x[rows], rows)
    assert bool((after < before - 0.01).all())


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_loss_derivative_equals_autograd(loss: str) -> None:
    y = torch.linspace(-3, 3, 41, dtype=torch.float64, requires_grad=True)
    target = torch.linspace(0.1, 2, 41, dtype=torch.float64)
    losses.value(loss, y, target).sum().backward()
    assert y.grad is not None
    torch.testing.assert_close(losses.derivative(loss, y.detach(), target), y.grad)


def test_no_valid_response_in_a_batch_means_no_update_at_all() -> None:
    rng = np.random.default_rng(1)
    targets = rng.standard_normal((240, 2)).astype(np.float32)
    targets[:192, 1] = np.nan
    targets[190, 1] = 1.0
    trainer, _, _ = make("full", 2, targets=targets)
    trial = dict.fromkeys(READOUTS["full"].penalties, 0.001)
    state = trainer.start(
        Columns.of_trials([trial | {"learning_rate": 0.1, "drop": 50}], [np.arange(2)])
    )
    state.parameters["weight"].fill_(0.5)
    before = {k: v.clone() for k, v in state.tensors().items()}
    without = next(step for step in range(6) if 190 not in trainer.stream.batch(step))
    trainer.advance(state, without, without + 1)
    after = state.tensors()
    for key, value in before.items():
        assert torch.equal(after[key][1], value[1]), key
        assert key.endswith("updates") or not torch.equal(after[key][0], value[0]), key


def test_missing_responses_equal_a_loop_without_them() -> None:
    """The mean over valid entries, not over the batch."""
    trainer, x, y = make("full", 3, missing=0.4, dtype=torch.float64)
    state = trainer.start(Columns.of_trials(random_trials("full", 1), [np.arange(3)]))
    trainer.advance(state, 0, 5)
    rows = torch.arange(40)
    value = trainer.objective(state, x[rows], rows)
    predicted, _ = trainer.kernel.forward(state.parameters, x[rows])
    penalty = trainer.kernel.penalty(state.parameters, state.weights)
    for k in range(3):
        valid = ~np.isnan(y[:40, k])
        error = (predicted[k].numpy()[valid] - y[:40, k][valid]) ** 2
        assert float(value[k] - penalty[k]) == pytest.approx(error.mean(), rel=1e-6)
    halves = trainer.validate(state)
    predicted, _ = trainer.kernel.forward(state.parameters, x[192:])
    error = (predicted.numpy().T - y[192:]) ** 2
    for h in (0, 1):
        mine = np.nansum(error[np.arange(192, 240) % 2 == h], axis=0)
        np.testing.assert_allclose(halves[:, h], mine, rtol=1e-6)


def test_best_is_remembered_per_row_and_survives_pruning() -> None:
    trainer, _, _ = make("full", 2)
    state: ColumnState = trainer.start(
        Columns.of_trials(random_trials("full", 3), [np.arange(2)] * 3)
    )
    trainer.advance(state, 0, 10)
    state.remember(np.arange(6))
    first = state.parameters["weight"].clone()
    trainer.advance(state, 10, 20)
    state.remember(np.array([2, 3]))
    second = state.parameters["weight"].clone()
    state.keep(np.array([0, 1, 2, 3]))
    best = state.best_of(np.arange(4))["weight"].flatten(1)
    assert torch.equal(best[:2], first[:2])
    assert torch.equal(best[2:], second[2:4])


def test_stream_is_permuted_epochs() -> None:
    stream = BatchStream(103, 10, seed=5)
    seen = np.concatenate([stream.batch(step) for step in range(103)])
    for epoch in range(10):
        assert sorted(seen[epoch * 103 : (epoch + 1) * 103]) == list(range(103))
    assert not np.array_equal(seen[:103], seen[103:206])
    again = BatchStream(103, 10, seed=5)
    np.testing.assert_array_equal(again.batch(57), stream.batch(57))
    assert not np.array_equal(BatchStream(103, 10, seed=6).batch(0), stream.batch(0))
    assert len(BatchStream(7, 20, seed=0).batch(3)) == 20


def test_learning_rates_follow_the_formula() -> None:
    initial = torch.tensor([0.1, 1e-2, 5e-7], dtype=torch.float64)
    drop = torch.tensor([20.0, 7.0, 1.0], dtype=torch.float64)
    for step in (0, 6, 7, 19, 20, 399, 5000):
        expected = [
            max(lr * 0.85 ** (step // int(d)), min(lr, 1e-6))
            for lr, d in zip(initial.tolist(), drop.tolist(), strict=True)
        ]
        np.testing.assert_allclose(learning_rates(initial, drop, step).numpy(), expected)


def test_report_steps() -> None:
    assert report_steps(900, 45) == tuple(range(45, 901, 45))
    assert report_steps(100, 45) == (45, 90, 100)
    assert report_steps(10, 45) == (10,)


def test_response_scaling() -> None:
    responses = np.array([[1, 5, np.nan], [3, 5, 2], [np.nan, 5, 4]], dtype=np.float32)
    scaled = losses.response_scaling("mse", responses).apply(responses)
    np.testing.assert_allclose(np.nanmean(scaled, 0), 0, atol=1e-7)
    np.testing.assert_allclose(np.nanstd(scaled, 0), [1, 0, 1])
    rates = losses.response_scaling("poisson", responses).apply(responses)
    np.testing.assert_allclose(np.nanmean(rates, 0), 1)
