"""Where the columns of a cohort start: in the closed form that knows where each unit looks, kept beside the features.

Made once a layer for all units and both readouts. The file's name follows from all that goes into it, and what it holds is
compared with its hash before it is used; deleted, or damaged, it is made again with the same values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from studies.fingerprint import array_digest
from studies.grid import Spec
from studies.workspace import Workspace
from tuner.atomic import replacing

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from tuner.closed_form.located import LocatedFit
    from tuner.features.tiers import FeatureStore
    from tuner.fitting.start import Start
    from tuner.fitting.targets import Targets

    Located = tuple[NDArray[np.int64], torch.Tensor, torch.Tensor]

_SHARE = 0.1
"""Of the cache that starts may take; one that is larger is made anew whenever it is needed."""


def start_of(
    workspace: Workspace,
    spec: Spec,
    targets: Targets,
    store: FeatureStore,
    memory: int,
    *,
    center: torch.Tensor | None,
) -> Start | None:
    """First parameters of the columns of a cohort; None where the readout's own are used.

    Parameters
    ----------
    spec
        A study of the cohort.
    targets
        What it is trained on.
    store
        The layer's training features.
    memory
        Bytes that training may take.
    center
        ``(F,)`` mean of the features over the fitted images where training knows it, so that they are not read again.

    Raises
    ------
    EnvironmentFailure
        If the closed form does not fit into ``memory``.
    """
    from tuner.fitting.center import feature_mean

    if not starts_elsewhere(workspace, spec):
        return None
    loss = workspace.experiment.training.loss
    found = located_fits(workspace, spec, targets, memory, loss=loss)
    mean = feature_mean(store, targets.fit_rows, spec.shape) if center is None else center
    return start_in(spec, found, mean)


def start_in(spec: Spec, found: Located, mean: torch.Tensor) -> Start | None:
    """First parameters of the columns of a cohort, from a layer's closed form.

    Parameters
    ----------
    mean
        ``(F,)`` of the features over the fitted images.
    """
    from tuner import readouts
    from tuner.fitting.start import Start

    units, weight, bias = found
    return Start.of(readouts.get(spec.key.readout), weight, bias, mean, units)


def starts_elsewhere(workspace: Workspace, spec: Spec) -> bool:
    """Whether a closed form is needed: where ``training.start`` says so, and the readout makes anything of its weights."""
    import torch

    from tuner import readouts

    if workspace.start(spec) == "readout":
        return False
    weight = torch.zeros(1, spec.shape.channels, spec.shape.height, spec.shape.width)
    return readouts.get(spec.key.readout).start(weight, torch.zeros(1)) is not None


def located_fits(
    workspace: Workspace,
    spec: Spec,
    targets: Targets,
    memory: int,
    *,
    loss: str,
) -> Located:
    """Every fold's closed form of a layer, of all units that have a response on the fitted images; read or made.

    Parameters
    ----------
    loss
        What settings are compared by.

    Others are those of :func:`start_of`.

    Returns
    -------
    units
        ``(n_units,)`` their indices in the recording, sorted.
    weight, bias
        ``(n_fits, n_units, C, h, w)`` and ``(n_fits, n_units)``.
    """
    from tuner.closed_form.located import VERSION

    units = _units(workspace, targets)
    backbone, layer = spec.key.backbone, spec.key.layer
    key = array_digest(
        np.array(
            [
                *(workspace.networks.digest(backbone), workspace.images.digest(), layer, loss),
                *map(
                    str,
                    (workspace.networks.settings(backbone).max_grid, spec.shape, memory, VERSION),
                ),
            ]
        ),
        units,
        targets.fit[:, units],
        targets.fit_rows,
        targets.fit_rows if targets.fold is None else targets.fold,
    )
    path = workspace.experiment.storage.cache / "starts" / f"{key}.safetensors"
    found = _read(path)
    if found is not None:
        return units, *found
    tell = partial(workspace.progress, "locating units")
    (made,) = _fits(workspace, spec, [targets], units, memory, loss, tell)
    fit = made()
    most = int(_SHARE * workspace.experiment.storage.cache_limit)
    if fit.weight.nbytes <= most:
        _write(path, fit.weight, fit.bias, most)
    return units, fit.weight, fit.bias


def located_on_cuts(
    workspace: Workspace,
    spec: Spec,
    cuts: Sequence[Targets],
    memory: int,
    *,
    loss: str,
    tell: Callable[[int, int], None],
) -> Iterator[Located]:
    """A layer's closed form on one cut after another, as :func:`located_fits` returns it; none is kept.

    Cuts of the same responses to the same images, which differ in their folds alone, share all decompositions. ``tell`` is
    called with how much of all cuts is done, and how much there is.
    """
    rest = list(cuts)
    while rest:
        first = rest[0]
        units = _units(workspace, first)
        folds = 1 if first.fold is None else len(first.judged)
        # Beside the decompositions, the coefficients of every fit of every cut are held.
        most = max(1, memory // (4 * 8 * folds * len(first.fit_rows) * max(1, len(units))))
        some = [first]
        for other in rest[1:most]:
            if not _same_problem(first, other):
                break
            some.append(other)
        rest = rest[len(some) :]
        before = len(cuts) - len(rest) - len(some)

        def told(done: int, total: int, before: int = before, here: int = len(some)) -> None:
            tell(before * total + here * done, len(cuts) * total)

        for made in _fits(workspace, spec, some, units, memory, loss, told):
            fit = made()
            yield units, fit.weight, fit.bias


def _same_problem(one: Targets, other: Targets) -> bool:
    return (
        one.fold is not None
        and other.fold is not None
        and np.array_equal(one.fit_rows, other.fit_rows)
        and np.array_equal(one.fit, other.fit, equal_nan=True)
    )


def _units(workspace: Workspace, targets: Targets) -> NDArray[np.int64]:
    """All units that have a response on the fitted images, sorted."""
    units = np.unique(np.concatenate(list(workspace.regions.values())))
    return units[~np.isnan(targets.fit[:, units]).all(axis=0)]


def _fits(
    workspace: Workspace,
    spec: Spec,
    cuts: Sequence[Targets],
    units: NDArray[np.int64],
    memory: int,
    loss: str,
    tell: Callable[[int, int], None],
) -> list[Callable[[], LocatedFit]]:
    """What makes each cut's closed form; their targets differ in their folds alone."""
    from tuner.closed_form.located import fits_located

    targets = cuts[0]
    y = np.full((workspace.recording.n_train, len(units)), np.nan)
    y[targets.fit_rows] = targets.fit[:, units]
    return fits_located(
        workspace.features.of(spec.key.backbone, spec.key.layer).train,
        y,
        targets.fit_rows,
        [() if one.fold is None else one.judged for one in cuts],
        groups=workspace.recording.train_groups,
        loss=loss,
        memory=memory,
        device=workspace.algebra_device,
        tell=tell,
    )


def _check(weight: torch.Tensor, bias: torch.Tensor) -> str:
    return array_digest(weight.numpy(), bias.numpy())


def _read(path: Path) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What a file holds, if it is whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
            whole = (file.metadata() or {}).get("check") == _check(weight, bias)
    except (OSError, SafetensorError):
        return None
    return (weight, bias) if whole else None


def _write(path: Path, weight: torch.Tensor, bias: torch.Tensor, most: int) -> None:
    """Keep a closed form; the oldest give way to it."""
    from safetensors.torch import save_file

    with contextlib.suppress(
        OSError
    ):  # no room, or a folder that may only be read: made anew next time
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = sorted(path.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)
        total = sum(p.stat().st_size for p in stored) + weight.nbytes
        for old in stored:
            if total <= most:
                break
            total -= old.stat().st_size
            old.unlink()
        with replacing(path) as new:
            save_file(
                {"weight": weight.contiguous(), "bias": bias.contiguous()},
                new,
                {"check": _check(weight, bias)},
            )
