"""References that keep the search honest: a ridge readout in closed form.

A linear readout of the same features whose only setting, the strength of an L2 penalty, is
chosen on the same validation images. It costs no search, so a search that does not beat it has
not earned its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.scores.correlation import correlate

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]

STRENGTHS: tuple[float, ...] = tuple(float(10.0**power) for power in np.arange(-4.0, 4.5, 0.5))
"""Penalties tried, in units of the mean squared length of a centred feature vector."""


@dataclass(frozen=True)
class RidgeReference:
    """A fitted reference.

    Attributes
    ----------
    strength
        ``(n_units,)`` chosen penalty, relative to the mean squared length of a feature vector.
    validation_loss
        ``(n_units,)`` mean squared error on the validation images over the variance of the
        fit responses: 1 is as good as predicting the mean.
    validation_correlation
        ``(n_units,)`` Pearson correlation on the validation images; NaN where undefined.
    validation_predictions
        ``(n_validation, n_units)`` float32, in the units of the responses.
    test_predictions
        ``(n_test, n_units)`` float32, or None without test features.
    """

    strength: Floats
    validation_loss: Floats
    validation_correlation: Floats
    validation_predictions: NDArray[np.float32]
    test_predictions: NDArray[np.float32] | None


class Rows(Protocol):
    """What is read by rows, once made two-dimensional: an array, a memory map, features computed when asked for."""

    def __len__(self) -> int: ...

    @property
    def reshape(self) -> Any:
        """Called with the number of rows and -1: rows as vectors."""
        ...


def ridge(
    features: Rows,
    responses: ArrayLike,
    fit: NDArray[np.int64],
    validation: NDArray[np.int64],
    *,
    test_features: Rows | None = None,
    regions: Mapping[str, NDArray[np.int64]] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    device: str = "cpu",
    chunk_bytes: int = 256 << 20,
) -> RidgeReference:
    """Fit a ridge readout per unit, its strength chosen per region on the validation images.

    Minimises ``sum_t (y_t - w.x_t - b)^2 + lambda ||w||^2`` over the fit images that have a
    response; the intercept is free. With fewer features than images the normal equations are
    solved, else their dual (the kernel matrix of the images); both are the same solution.

    A unit with missing responses is solved on its own images exactly, without a factorisation
    of its own: the missing responses are filled with what the fit without them predicts, which
    is the fixed point ``(I - H_mm) z = H_mv y_v`` of the hat matrix H (m missing, v valid).

    Parameters
    ----------
    features
        ``(n_train, C, h, w)`` or ``(n_train, F)``, any float; may be a memory map, is read in
        pieces of at most about `chunk_bytes`.
    responses
        ``(n_train, n_units)``; NaN = missing.
    fit, validation
        Row indices of the images fitted, and of those the strength is chosen on.
    test_features
        ``(n_test, ...)`` like `features`.
    regions
        Region name to unit indices: units that share one strength. None: all share one.
    strengths
        Penalties to try, in units of the mean squared length of a centred feature vector.
    device
        Where the algebra runs, in float64.
    chunk_bytes
        Memory for a piece of features. Besides it, the matrix factorised and a copy of it are
        held: min(n_fit, F) squared float64 each.

    Returns
    -------
    RidgeReference

    Raises
    ------
    ValueError
        If shapes do not match, a unit has fewer than two valid fit images or no valid
        validation image, or features are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from tuner.references import ridge
    >>> x = np.random.default_rng(0).normal(size=(60, 4))
    >>> y = x @ np.array([[1.0], [0.0], [2.0], [0.0]])
    >>> reference = ridge(x, y, np.arange(40), np.arange(40, 60))
    >>> bool(reference.validation_loss[0] < 1e-4)
    True
    """
    import torch

    x: NDArray[Any] = features.reshape(len(features), -1)
    y = np.asarray(responses, dtype=np.float64)
    groups = _groups(regions, y.shape[1])
    _check(x, y, fit, validation, strengths)
    target, mean, sd = _standardise(y[fit])
    others = [(x, np.asarray(validation))]
    if test_features is not None:
        others.append(
            (test_features.reshape(len(test_features), -1), np.arange(len(test_features)))
        )
    solver = (_Primal if x.shape[1] < len(fit) else _Dual)(x, fit, others, device, chunk_bytes)

    held_out = (y[validation] - mean) / sd
    best = np.full(y.shape[1], np.inf)
    chosen = np.zeros(y.shape[1])
    predictions = np.zeros((sum(len(rows) for _, rows in others), y.shape[1]))
    filled = torch.from_numpy(target).to(device)
    for strength in strengths:
        candidate = solver.solve(filled, strength).cpu().numpy()
        errors = (candidate[: len(validation)] - held_out) ** 2
        loss = np.nanmean(errors, axis=0)
        for units in groups:
            if loss[units].mean() < best[units].mean():
                best[units], chosen[units] = loss[units], strength
                predictions[:, units] = candidate[:, units]
    natural = (predictions * sd + mean).astype(np.float32)
    own, rest = natural[: len(validation)], natural[len(validation) :]
    return RidgeReference(
        strength=chosen,
        validation_loss=best,
        validation_correlation=correlate(predictions[: len(validation)], held_out),
        validation_predictions=own,
        test_predictions=rest if test_features is not None else None,
    )


def _groups(
    regions: Mapping[str, NDArray[np.int64]] | None, n_units: int
) -> list[NDArray[np.int64]]:
    if regions is None:
        return [np.arange(n_units)]
    return [np.asarray(units, dtype=np.int64) for units in regions.values()]


def _check(
    x: NDArray[Any],
    y: Floats,
    fit: NDArray[np.int64],
    validation: NDArray[np.int64],
    strengths: Sequence[float],
) -> None:
    if y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"features {x.shape} and responses {y.shape} do not match")
    if not strengths or min(strengths) <= 0:
        raise ValueError("strengths must be positive, and at least one")
    few = np.flatnonzero((~np.isnan(y[fit])).sum(axis=0) < 2)
    if few.size:
        raise ValueError(f"unit {few[0]} has fewer than two responses among the fit images")
    none = np.flatnonzero(np.isnan(y[validation]).all(axis=0))
    if none.size:
        raise ValueError(f"unit {none[0]} has no response among the validation images")


def _standardise(y: Floats) -> tuple[Floats, Floats, Floats]:
    """z-score over valid entries; a unit that does not vary is left at scale 1."""
    mean = np.nanmean(y, axis=0)
    sd = np.nanstd(y, axis=0)
    sd = np.where(sd > 1e-12 * np.maximum(1.0, np.abs(mean)), sd, 1.0)
    return (y - mean) / sd, mean, sd


class _Solver:
    """Shared part: the responses completed, centred, solved; predictions of the other images.

    `others` are stacked in order: their predictions are the rows that `solve` returns.
    """

    n_fit: int
    scale: float  # mean squared length of a centred feature vector

    def solve(self, target: torch.Tensor, strength: float) -> torch.Tensor:
        """Predict the other images; `target` is ``(n_fit, n_units)`` with NaN = missing."""
        penalty = strength * self.scale
        self.factorise(penalty)
        target = self._complete(target, penalty)
        mean = target.mean(dim=0)
        return self.predict(target - mean) + mean

    def _complete(self, target: torch.Tensor, penalty: float) -> torch.Tensor:
        import torch

        missing = target.isnan()
        if not bool(missing.any()):
            return target
        target = torch.where(missing, torch.zeros_like(target), target)
        rows = missing.any(dim=1).nonzero().ravel()
        hat = self.hat(rows, penalty)  # (rows, n_fit)
        from_valid = hat @ target  # the missing are 0 in it
        for unit in missing.any(dim=0).nonzero().ravel().tolist():
            gone = missing[rows, unit].nonzero().ravel()
            inner = hat[gone][:, rows[gone]]
            system = torch.eye(len(gone), dtype=hat.dtype, device=hat.device) - inner
            target[rows[gone], unit] = torch.linalg.solve(system, from_valid[gone, unit])
        return target

    def factorise(self, penalty: float) -> None:
        raise NotImplementedError

    def predict(self, centred: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def hat(self, rows: torch.Tensor, penalty: float) -> torch.Tensor:
        """Rows of the matrix that maps responses to fitted values, intercept included."""
        raise NotImplementedError


def _positive(value: float) -> float:
    return value if value > 0 else 1.0  # features that do not vary: any penalty does


class _Dual(_Solver):
    """More features than images: ``alpha = (K + lambda I)^-1 y``, K the centred kernel."""

    def __init__(
        self,
        x: NDArray[Any],
        fit: NDArray[np.int64],
        others: Sequence[tuple[NDArray[Any], NDArray[np.int64]]],
        device: str,
        chunk_bytes: int,
    ) -> None:
        import torch

        self.n_fit = len(fit)
        total = sum(len(rows) for _, rows in others)
        self.kernel = torch.zeros(self.n_fit, self.n_fit, dtype=torch.float64, device=device)
        self.cross = torch.zeros(total, self.n_fit, dtype=torch.float64, device=device)
        width = max(1, chunk_bytes // (8 * (self.n_fit + total)))
        for start in range(0, x.shape[1], width):
            columns = slice(start, start + width)
            own = _rows(x, fit, columns, device)
            mean = own.mean(dim=0)
            own -= mean
            self.kernel.addmm_(own, own.T)
            rest = torch.cat([_rows(array, rows, columns, device) for array, rows in others])
            rest -= mean
            self.cross.addmm_(rest, own.T)
        self.scale = _positive(float(self.kernel.diagonal().mean()))

    def factorise(self, penalty: float) -> None:
        import torch

        matrix = self.kernel.clone()
        matrix.diagonal().add_(penalty)
        self.factor = torch.linalg.cholesky(matrix, out=matrix)

    def predict(self, centred: torch.Tensor) -> torch.Tensor:
        import torch

        return self.cross @ torch.cholesky_solve(centred, self.factor)

    def hat(self, rows: torch.Tensor, penalty: float) -> torch.Tensor:
        import torch

        unit = torch.zeros(self.n_fit, len(rows), dtype=torch.float64, device=rows.device)
        unit[rows, torch.arange(len(rows), device=rows.device)] = 1.0
        # I - lambda (K + lambda I)^-1 maps the constant to 0; 1/n puts the intercept back.
        return (unit - penalty * torch.cholesky_solve(unit, self.factor)).T + 1.0 / self.n_fit


class _Primal(_Solver):
    """Fewer features than images: ``w = (X'X + lambda I)^-1 X'y``, X centred."""

    def __init__(
        self,
        x: NDArray[Any],
        fit: NDArray[np.int64],
        others: Sequence[tuple[NDArray[Any], NDArray[np.int64]]],
        device: str,
        chunk_bytes: int,
    ) -> None:
        import torch

        self.n_fit, self.x, self.fit, self.device = len(fit), x, np.asarray(fit), device
        self.others = others
        self.height = max(1, chunk_bytes // (8 * x.shape[1]))
        everything = slice(None)
        self.mean = torch.zeros(x.shape[1], dtype=torch.float64, device=device)
        for rows in self._pieces(self.fit):
            self.mean += _rows(x, rows, everything, device).sum(dim=0) / self.n_fit
        self.gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=device)
        for rows in self._pieces(self.fit):
            piece = _rows(x, rows, everything, device) - self.mean
            self.gram.addmm_(piece.T, piece)
        self.scale = _positive(float(self.gram.diagonal().sum()) / self.n_fit)

    def _pieces(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [rows[start : start + self.height] for start in range(0, len(rows), self.height)]

    def factorise(self, penalty: float) -> None:
        import torch

        matrix = self.gram.clone()
        matrix.diagonal().add_(penalty)
        self.factor = torch.linalg.cholesky(matrix, out=matrix)

    def predict(self, centred: torch.Tensor) -> torch.Tensor:
        import torch

        everything = slice(None)
        product = torch.zeros(
            len(self.mean), centred.shape[1], dtype=torch.float64, device=self.device
        )
        start = 0
        for rows in self._pieces(self.fit):
            piece = _rows(self.x, rows, everything, self.device) - self.mean
            product.addmm_(piece.T, centred[start : start + len(rows)])
            start += len(rows)
        weights = torch.cholesky_solve(product, self.factor)
        return torch.cat(
            [
                (_rows(array, rows, everything, self.device) - self.mean) @ weights
                for array, wanted in self.others
                for rows in self._pieces(wanted)
            ]
        )

    def hat(self, rows: torch.Tensor, penalty: float) -> torch.Tensor:
        import torch

        everything = slice(None)
        picked = self.fit[rows.cpu().numpy()]
        left = _rows(self.x, picked, everything, self.device) - self.mean
        projected = torch.cholesky_solve(left.T, self.factor)
        pieces = [
            (_rows(self.x, part, everything, self.device) - self.mean) @ projected
            for part in self._pieces(self.fit)
        ]
        return torch.cat(pieces).T + 1.0 / self.n_fit


def _rows(x: NDArray[Any], rows: NDArray[np.int64], columns: slice, device: str) -> torch.Tensor:
    """Read a piece of the features as float64; a value that is not finite is an error."""
    import torch

    piece = np.asarray(x[:, columns][rows], dtype=np.float64)
    if not np.isfinite(piece).all():
        raise ValueError("features contain values that are not finite")
    return torch.from_numpy(piece).to(device)
