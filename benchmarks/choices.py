"""How often a unit's best layer is called sure, and how often wrongly: simulated recordings, fitted anew each time.

Every layer's features are the causes of the responses and noise of their own: the less noise, the better the layer. Each
layer is fitted by ridge in folds, its penalty chosen on the held-out images as a search chooses its settings, and every
unit's best layer on the same images; :func:`tuner.scores.loss_gaps` says how sure. Part of
``python -m benchmarks.intervals``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.recordings.split import Split, cut, deal
from tuner.scores import by_part, loss_gaps

Floats = NDArray[np.float64]

CAUSES, UNITS = 20, 10
PENALTIES = np.geomspace(1.0, 1000.0, 8)
ENDLESS = 2000
"""Images that a fit's loss is truly measured on."""

LAYERS = {
    "all equal": (1.0,) * 5,
    "two best": (1.0, 1.0, 1.8, 1.8, 1.8),
    "graded": (0.4, 0.8, 1.2, 1.6, 2.0),
}
"""Noise of each layer's features over the causes' standard deviation."""


@dataclass(frozen=True)
class Scene:
    """Training images of a recording, and layers.

    Attributes
    ----------
    sizes
        Images of each group.
    shared
        Share of the variance of causes and noise that a group has in common.
    layers
        Which of :data:`LAYERS`.
    heavy
        Whether responses are skewed and heavy-tailed, as spike counts are.
    folds
        Into how many folds the images are dealt; 1: a tenth of them is held out.
    """

    sizes: tuple[int, ...]
    shared: float
    layers: str
    heavy: bool = False
    folds: int = 5

    def described(self) -> str:
        """In words."""
        few, many = min(self.sizes), max(self.sizes)
        if many == 1:
            images = f"{len(self.sizes)} images"
        else:
            each = f"{few}" if few == many else f"{few} to {many}"
            images = f"{len(self.sizes)} groups of {each}"
        images += ", skewed responses" if self.heavy else ""
        return images + (", a tenth held out" if self.folds == 1 else "")

    @property
    def grouped(self) -> bool:
        """Whether there are groups."""
        return max(self.sizes) > 1

    def cuts(self, groups: NDArray[np.int64], seed: int) -> tuple[Split, ...]:
        """Which images are fitted to, and which are held out."""
        given = groups if self.grouped else None
        if self.folds == 1:
            return (cut(len(groups), given, 0.1, seed),)
        return deal(len(groups), given, self.folds, seed)


SCENES = tuple(
    Scene(sizes, shared, layers, heavy, folds)
    for layers in LAYERS
    for sizes, shared, heavy, folds in (
        ((1,) * 100, 0.0, False, 5),
        ((1,) * 300, 0.0, False, 5),
        ((1,) * 300, 0.0, True, 5),
        ((1,) * 1000, 0.0, False, 5),
        ((10,) * 10, 0.5, False, 5),
        ((10,) * 30, 0.5, False, 5),
        (tuple(range(2, 26, 2)), 0.5, False, 5),
        ((1,) * 1000, 0.0, False, 1),
        ((10,) * 300, 0.5, False, 1),
    )
)


@dataclass(frozen=True)
class Recorded:
    """Features ``(layers, images, features)``, responses ``(images, units)`` and groups ``(images,)``."""

    features: Floats
    responses: Floats
    groups: NDArray[np.int64]


def record(scene: Scene, sizes: tuple[int, ...], rng: np.random.Generator) -> Recorded:
    """Draw images with their responses; units are the same mixtures of causes in every recording."""
    weights = np.random.default_rng(5).normal(size=(CAUSES, UNITS)) / np.sqrt(CAUSES)
    groups = np.repeat(np.arange(len(sizes)), sizes)

    def draw(n: int) -> Floats:
        own = rng.normal(size=(len(groups), n))
        common = rng.normal(size=(len(sizes), n))[groups]
        return np.sqrt(scene.shared) * common + np.sqrt(1 - scene.shared) * own

    causes = draw(CAUSES)
    y = causes @ weights + rng.normal(size=(len(groups), UNITS))
    if scene.heavy:
        y = np.exp(y)
    features = np.stack([causes + noise * draw(CAUSES) for noise in LAYERS[scene.layers]])
    return Recorded(features, y, groups)


def fitted(x: Floats, y: Floats, penalty: float) -> Floats:
    """Ridge weights with a constant, ``(features + 1, units)``."""
    one = np.column_stack([x, np.ones(len(x))])
    ridge = penalty * np.diag(np.append(np.ones(x.shape[1]), 0.0))
    return np.asarray(np.linalg.solve(one.T @ one + ridge, one.T @ y))


def _losses(weights: Floats, x: Floats, y: Floats) -> Floats:
    return np.asarray(np.square(x @ weights[:-1] + weights[-1] - y))


def search(scene: Scene, mine: Recorded, endless: Recorded, seed: int) -> tuple[Floats, Floats]:
    """Fit every layer with the penalty that is best on the held-out images.

    Returns
    -------
    held_out
        ``(layers, images, units)`` losses, each by a fit that did not see the image; NaN where all did.
    true
        ``(layers, units)`` losses of the same fits on endless images.
    """
    cuts = scene.cuts(mine.groups, seed)
    held, true = [], []
    for x, beyond in zip(mine.features, endless.features, strict=True):
        tried = []
        for penalty in PENALTIES:
            losses, truth = np.full_like(mine.responses, np.nan), np.zeros(UNITS)
            for one in cuts:
                weights = fitted(x[one.fit], mine.responses[one.fit], penalty)
                out = one.validation
                losses[out] = _losses(weights, x[out], mine.responses[out])
                truth += _losses(weights, beyond, endless.responses).mean(axis=0) / len(cuts)
            tried.append((losses, truth))
        best = min(tried, key=lambda one: float(np.nanmean(one[0])))
        held.append(best[0])
        true.append(best[1])
    return np.stack(held), np.stack(true)


@dataclass(frozen=True)
class Counted:
    """Shares of units.

    Attributes
    ----------
    sure, wrong
        Whose best layer is called sure; and is not, or as good as another.
    these, such
        Whose difference to the next layer is within its limits: that of the fits as they are, that of such fits on average.
    """

    sure: float
    wrong: float
    these: float
    such: float


def count(scene: Scene, recordings: int, seed: int = 0) -> Counted:
    """Fit recordings and count."""
    rng = np.random.default_rng(seed)
    endless = record(scene, (1,) * ENDLESS, rng)
    runs = []
    for number in range(recordings):
        mine = record(scene, scene.sizes, rng)
        runs.append((mine.groups, *search(scene, mine, endless, number)))
    noise = np.array(LAYERS[scene.layers])
    average = np.mean([true for _, _, true in runs], axis=0)
    such = np.stack([average[noise == mine].mean(axis=0) for mine in noise])
    hits = np.zeros(4)
    for groups, held, true in runs:
        summed = np.stack([by_part(one, groups) for one in held])
        weights = by_part(np.where(np.isnan(held[0]), np.nan, 1.0), groups)
        for unit in range(UNITS):
            chosen, *rest = np.argsort(np.nanmean(held[:, :, unit], axis=1)).tolist()
            gaps = loss_gaps(
                summed[chosen, :, unit],
                [summed[k, :, unit] for k in rest],
                weights[:, unit],
                overlap=1 / 9 if scene.folds == 1 else scene.folds / (scene.folds - 1),
            )
            sure = gaps.choice == "sure"
            right = bool((such[rest, unit] > such[chosen, unit]).all())
            gap = [loss[rest[0], unit] - loss[chosen, unit] for loss in (true, such)]
            within = [bool(gaps.low[0] <= one <= gaps.high[0]) for one in gap]
            hits += (sure, sure and not right, *within)
    return Counted(*(hits / (recordings * UNITS)).tolist())


def section(recordings: int, scenes: tuple[Scene, ...] = SCENES) -> str:
    """The part of the page."""
    head = ["training images", "layers", "sure", "sure and wrong", "of these fits", "of such fits"]
    text = (
        "\n## The best layer of a unit\n\n"
        f"How often `unit_layers.csv` calls the best of five layers sure, over {recordings} simulated recordings of "
        f"{UNITS} units each. Layers are fitted by ridge in five folds, or on one cut; one of {len(PENALTIES)} penalties, "
        "and the layer, are chosen on the same held-out images. Of layers that are *all equal*, and of the *two best*, "
        "none is the best: whatever is sure is wrong. The last two columns: how often the 95 % interval of the difference "
        "to the next layer holds that between the fits as they are, and that between such fits on average over "
        "recordings.\n\n"
        f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n"
    )
    for scene in scenes:
        found = count(scene, recordings)
        shares = (found.sure, found.wrong, found.these, found.such)
        cells = [scene.described(), scene.layers, *(f"{share:.1%}" for share in shares)]
        text += f"| {' | '.join(cells)} |\n"
    return text
