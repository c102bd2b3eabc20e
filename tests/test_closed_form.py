"""Smooth ridge against the textbook: explicit priors, explicit leaving out, missing responses, groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from tuner.closed_form import smooth
from tuner.closed_form.gram import Gram, Plan
from tuner.closed_form.prior import SpatialPrior
from tuner.closed_form.smooth import fit_smooth, fits_smooth
from tuner.errors import EnvironmentFailure
from tuner.readouts.full import FullReadout

SHAPES = {"primal": (2, 3, 4), "dual": (7, 5, 4)}
N = 60


def problem(
    kind: str, units: int = 4, missing: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.normal(0.3, 1, (N, *SHAPES[kind])), 0).astype(np.float16)
    w = gaussian_filter(rng.normal(size=(units, *x.shape[1:])), (0, 0, 1, 1))
    y = np.einsum("nchw,uchw->nu", x.astype(float), w)
    y = y / y.std(0) + rng.normal(size=y.shape) + 0.3
    gone = rng.random(y.shape) < missing
    gone[:, 0] = False
    y[gone] = np.nan
    return x, y


def covariance(prior: SpatialPrior, channels: int) -> np.ndarray:
    h, w = prior.cells
    basis = torch.eye(h * w, dtype=torch.float64).view(-1, 1, h, w)
    return np.kron(np.eye(channels), prior.covary(basis).flatten(1).numpy())


def blurred(width: float, h: int, w: int) -> np.ndarray:
    """``B B^T`` by scipy's filter, which sees zeros beyond the border."""
    maps = np.eye(h * w).reshape(-1, h, w)
    if width:
        maps = gaussian_filter(maps, (0, width, width), mode="constant", truncate=20)
    b = maps.reshape(h * w, -1)
    return b @ b.T


def textbook(
    x: np.ndarray, y: np.ndarray, rows: np.ndarray, m: np.ndarray, penalty: float
) -> np.ndarray:
    """Predictions of every image by generalised ridge on ``rows``: the kernel ``X M X^T``, a free intercept."""
    flat = x.reshape(len(x), -1).astype(float)
    centred = flat - flat[rows].mean(0)
    kernel = centred @ m @ centred[rows].T
    alpha = np.linalg.solve(kernel[rows] + penalty * np.eye(len(rows)), y[rows] - y[rows].mean())
    return kernel @ alpha + y[rows].mean()


def brute_force(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, m: np.ndarray, penalty: float
) -> np.ndarray:
    """Each image by a fit to the images of other groups that have a response."""
    out = np.full(y.shape, np.nan)
    for unit in range(y.shape[1]):
        there = ~np.isnan(y[:, unit])
        for group in np.unique(groups[there]):
            rows = np.flatnonzero(there & (groups != group))
            at = np.flatnonzero(there & (groups == group))
            out[at, unit] = textbook(x, y[:, unit], rows, m, penalty)[at]
    return out


def scale(x: np.ndarray, m: np.ndarray) -> float:
    flat = x.reshape(len(x), -1).astype(float)
    flat = flat - flat.mean(0)
    return float(np.einsum("nf,fg,ng->n", flat, m, flat).mean())


@pytest.mark.parametrize("width", [0.0, 0.7, 3.0])
def test_prior_is_a_gaussian_blur_twice(width: float) -> None:
    prior = SpatialPrior(width, 5, 7, dtype=torch.float64, device="cpu")
    np.testing.assert_allclose(covariance(prior, 1), blurred(width, 5, 7), atol=1e-12)
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 2, 5, 7)))
    projected = prior.project(maps)
    flat = maps.flatten(1)
    expected = flat @ torch.from_numpy(np.kron(np.eye(2), blurred(width, 5, 7))) @ flat.T
    np.testing.assert_allclose(projected @ projected.T, expected, atol=1e-11)


def test_wide_prior_makes_the_problem_smaller() -> None:
    assert SpatialPrior(3.0, 28, 28, dtype=torch.float64, device="cpu").size < 28 * 28 / 2


@pytest.mark.parametrize("kind", list(SHAPES))
@pytest.mark.parametrize("missing", [0.0, 0.05, 0.4])
@pytest.mark.parametrize("grouped", [False, True])
def test_leaving_out_equals_brute_force(kind: str, missing: float, grouped: bool) -> None:
    x, y = problem(kind, missing=missing)
    groups = np.random.default_rng(1).integers(0, 25, N) if grouped else np.arange(N)
    for width, penalty in [(0.0, 1e-2), (1.5, 1.0)]:
        m = np.kron(np.eye(x.shape[1]), blurred(width, *x.shape[2:]))
        found = fit_smooth(x, y, np.arange(N), groups=groups, widths=[width], penalties=[penalty])
        expected = brute_force(x, y, groups, m, penalty * scale(x, m))
        np.testing.assert_allclose(
            found.left_out_loss[0], np.nanmean((expected - y) ** 2, 0), rtol=1e-8
        )
        # Predictions are kept in single precision.
        np.testing.assert_allclose(found.left_out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", list(SHAPES))
@pytest.mark.parametrize("missing", [0.0, 0.05, 0.4])
def test_weights_are_the_textbook_solution(kind: str, missing: float) -> None:
    x, y = problem(kind, missing=missing)
    rows, others = np.arange(0, 48), np.arange(48, N)
    m = np.kron(np.eye(x.shape[1]), blurred(0.7, *x.shape[2:]))
    found = fit_smooth(x, y, rows, others=others, widths=[0.7], penalties=[0.1])
    by_weights = FullReadout().predict(found.parameters, torch.from_numpy(x).float()).numpy()
    penalty = 0.1 * scale(x[rows], m)
    for unit in range(y.shape[1]):
        there = rows[~np.isnan(y[rows, unit])]
        expected = textbook(x, y[:, unit], there, m, penalty)
        np.testing.assert_allclose(by_weights[:, unit], expected, atol=1e-5)
        np.testing.assert_allclose(found.others[:, unit], expected[others], atol=1e-5)
        seen = others[~np.isnan(y[others, unit])]
        loss = ((expected - y[:, unit])[seen] ** 2).mean()
        assert found.other_loss[0, unit] == pytest.approx(loss, rel=1e-8)


def test_each_unit_has_the_setting_with_the_least_left_out_loss() -> None:
    x, y = problem("dual", units=6, missing=0.1)
    widths, penalties = (0.0, 1.5), (1e-2, 1.0, 100.0)
    found = fit_smooth(x, y, np.arange(N), widths=widths, penalties=penalties)
    assert [(s.width, s.penalty) for s in found.settings] == [
        (w, p) for w in widths for p in penalties
    ]
    assert (found.chosen == found.left_out_loss.argmin(0)).all()
    assert len(set(found.chosen)) > 1
    for unit in range(6):
        one = found.settings[found.chosen[unit]]
        alone = fit_smooth(
            x, y[:, [unit]], np.arange(N), widths=[one.width], penalties=[one.penalty]
        )
        for name, value in alone.parameters.items():
            np.testing.assert_allclose(found.parameters[name][[unit]], value, atol=1e-6)
        np.testing.assert_allclose(found.left_out[:, [unit]], alone.left_out, atol=1e-6)


def test_duplicates_do_not_leak_when_they_are_one_group() -> None:
    x, _ = problem("dual")
    x = np.repeat(x[: N // 2], 2, axis=0)
    noise = np.repeat(np.random.default_rng(2).normal(size=(N // 2, 3)), 2, axis=0)
    leaking = fit_smooth(x, noise, np.arange(N))
    honest = fit_smooth(x, noise, np.arange(N), groups=np.repeat(np.arange(N // 2), 2))
    assert leaking.left_out_loss.min(0).max() < 0.1
    assert honest.left_out_loss.min(0).min() > 0.5


@pytest.mark.parametrize("kind", list(SHAPES))
def test_pieces_and_single_precision_change_nothing_but_rounding(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    x, y = problem(kind)
    whole = fit_smooth(x, y, np.arange(50), others=np.arange(50, N))
    monkeypatch.setattr("tuner.closed_form.gram._ROWS", 7)
    monkeypatch.setattr("tuner.closed_form.gram._PIECE", 1)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    pieces = fit_smooth(mapped, y, np.arange(50), others=np.arange(50, N))
    np.testing.assert_allclose(pieces.left_out_loss, whole.left_out_loss, rtol=1e-9)
    np.testing.assert_allclose(pieces.parameters["weight"], whole.parameters["weight"], atol=1e-5)
    side = min(50, int(np.prod(x.shape[1:])))
    single = fit_smooth(x, y, np.arange(50), penalties=[1.0, 10.0], memory=16 * side**2)
    double = fit_smooth(x, y, np.arange(50), penalties=[1.0, 10.0])
    assert not np.array_equal(single.left_out_loss, double.left_out_loss)
    np.testing.assert_allclose(single.left_out_loss, double.left_out_loss, rtol=1e-3)


def test_memory_that_cannot_hold_the_decomposition_is_refused() -> None:
    assert Plan.of(22_000, 400_000, 16 << 30).matrix is torch.float64
    assert Plan.of(22_000, 400_000, 8 << 30).matrix is torch.float32
    with pytest.raises(EnvironmentFailure, match=r"training.memory.*7,744.0 MB, and 4,000.0 MB"):
        Plan.of(22_000, 400_000, 4_000_000_000)


def test_under_poisson_settings_are_compared_by_its_likelihood() -> None:
    x, y = problem("dual")
    counts = np.random.default_rng(0).poisson(np.exp(y / 2)).astype(float)
    found = fit_smooth(x, counts / counts.mean(0), np.arange(N), loss="poisson")
    drive = torch.from_numpy(found.left_out).double()
    rate = torch.nn.functional.elu(drive) + 1
    expected = (rate - torch.from_numpy(counts / counts.mean(0)) * (rate + 1e-9).log()).mean(0)
    np.testing.assert_allclose(found.left_out_loss.min(0), expected, rtol=1e-5)
    assert found.left_out_loss.min(0).max() < 1.05


def test_features_that_do_not_vary_predict_the_mean() -> None:
    _, y = problem("dual", missing=0.05)
    found = fit_smooth(np.ones((N, 3), dtype=np.float16), y, np.arange(50), others=np.arange(50, N))
    expected = np.tile(np.nanmean(y[:50], 0), (10, 1))
    np.testing.assert_allclose(found.others, expected, rtol=1e-5)
    np.testing.assert_allclose(found.parameters["weight"], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shape", "do not match"),
        ("feature", "not finite"),
        ("unit", "unit 2 has fewer than two"),
        ("penalty", "positive"),
        ("width", "at least 0"),
    ],
)
def test_wrong_input_is_refused(change: str, message: str) -> None:
    x, y = problem("primal")
    grid = {"widths": [0.0], "penalties": [1.0]}
    if change == "shape":
        y = y[:-1]
    elif change == "feature":
        x[3, 1, 1] = np.nan
    elif change == "unit":
        y[1:, 2] = np.nan
    elif change == "penalty":
        grid["penalties"] = [0.0]
    else:
        grid["widths"] = [-1.0]
    with pytest.raises(ValueError, match=message):
        fit_smooth(x, y, np.arange(N), **grid)


def test_scale_is_the_mean_squared_length_of_centred_features() -> None:
    for kind in SHAPES:
        x, _ = problem(kind)
        prior = SpatialPrior(1.5, *x.shape[2:], dtype=torch.float64, device="cpu")
        plan = Plan(torch.float64, torch.float64, 1 << 30)
        gram = Gram(x, np.arange(N), np.zeros(0, dtype=np.int64), prior, plan, "cpu")
        assert gram.scale == pytest.approx(scale(x, covariance(prior, x.shape[1])))


def test_units_of_two_sessions_are_fitted_to_their_own_images_by_one_decomposition_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where each of them misses a few responses more."""
    x, y = problem("dual", units=6)
    rng = np.random.default_rng(3)
    y[:30, :3] = np.nan
    y[30:, 3:] = np.nan
    for unit in range(6):
        y[(30 if unit < 3 else 0) + rng.choice(30, 2, replace=False), unit] = np.nan
    decomposed = []
    spectrum = Gram.spectrum
    monkeypatch.setattr(
        Gram, "spectrum", lambda self, some=None: decomposed.append(1) or spectrum(self, some)
    )
    both = fit_smooth(x, y, np.arange(N), widths=[0.7], penalties=[0.1, 1.0])
    assert len(decomposed) == 2
    monkeypatch.undo()
    m = blurred(0.7, *x.shape[2:])
    prior = np.kron(np.eye(x.shape[1]), m)
    flat = x.reshape(N, -1).astype(float)
    centred = flat - flat.mean(0)
    scale = np.trace(centred @ prior @ centred.T) / N
    for unit in (0, 4):
        there = np.flatnonzero(~np.isnan(y[:, unit]))
        penalty = both.settings[both.chosen[unit]].penalty * scale
        for image in there[:4]:
            expected = textbook(x, y[:, unit], there[there != image], prior, penalty)[image]
            assert both.left_out[image, unit] == pytest.approx(expected, abs=1e-5)


def test_weights_take_one_pass_whatever_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = problem("dual", units=6, missing=0.3)
    assert len({np.isnan(column).tobytes() for column in y.T}) == 6
    passes = []
    product = smooth.transposed_product
    monkeypatch.setattr(
        smooth, "transposed_product", lambda *args: passes.append(1) or product(*args)
    )
    together = fit_smooth(x, y, np.arange(N), penalties=[0.1])
    assert len(passes) == 1
    for unit in range(6):
        alone = fit_smooth(x, y[:, [unit]], np.arange(N), penalties=[0.1])
        for name, value in alone.parameters.items():
            np.testing.assert_allclose(together.parameters[name][[unit]], value, atol=1e-6)


def test_fits_that_leave_out_other_groups_are_each_as_alone() -> None:
    x, y = problem("dual", missing=0.1)
    groupings = [np.arange(N) % 5, np.arange(N) // 12, None]
    several = fits_smooth(x, y, np.arange(N), groupings)
    for groups, found in zip(groupings, several, strict=True):
        alone = fit_smooth(x, y, np.arange(N), groups=groups)
        for name in ("left_out_loss", "chosen", "left_out"):
            assert getattr(found, name).tobytes() == getattr(alone, name).tobytes()
        assert found.parameters == {}
    assert not np.array_equal(several[0].left_out, several[1].left_out, equal_nan=True)
