"""What most exciting images are held against: the best natural image and noise, at the same mean and contrast.

A predicted response says nothing by itself. Beside the best natural image it is seen at once whether an image was made for
too few steps, or a readout has little to gain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.encoder import Encoder, as_batch
from tuner.figures.captions import NO_EVIDENCE
from tuner.synthesis.determinism import deterministic
from tuner.synthesis.evaluate import Images, responses
from tuner.synthesis.mei import Ensemble, MeiResult, MeiSettings
from tuner.synthesis.noise import pink_noise
from tuner.synthesis.photometry import quantize
from tuner.synthesis.receptive_fields import Fields

Floats = NDArray[np.float64]

MOST = 2000
"""Natural images that are looked through; of more, so many evenly spaced ones."""

CANDIDATES = 24
"""The best natural images over the whole image, among which the best inside the field is looked for."""

COLOURED = ("fft", "pixel")
"""Priors that have an option ``colour``."""

_BLOCK = 256


@dataclass(frozen=True)
class Beside:
    """What each unit's images are held against.

    Attributes
    ----------
    natural, noise
        ``(n, S, S, 3)`` uint8: the best natural image of each unit, and one of noise, as they are compared.
    natural_activation, noise_activation
        ``(n,)``: predicted responses to them, in the recording's own units.
    names
        What the natural images are called.
    searched, there
        How many natural images were looked through, and how many there are.
    grey
        Whether none of these has any colour.
    """

    natural: NDArray[np.uint8]
    natural_activation: Floats
    names: list[str]
    noise: NDArray[np.uint8]
    noise_activation: Floats
    searched: int
    there: int
    grey: bool = False

    def colour(self, settings: MeiSettings) -> str:
        """Say of images that were made in colour that nobody was shown any; empty where somebody was, or they are grey.

        Examples
        --------
        >>> import numpy as np
        >>> empty = np.zeros((1, 1, 1, 3), np.uint8)
        >>> of_grey = Beside(empty, np.zeros(1), ["a"], empty, np.zeros(1), 30, 30, grey=True)
        >>> of_grey.colour(MeiSettings())
        'the training images are grey, colours here are guesses (--prior-option colour=0 leaves them out)'
        >>> of_grey.colour(MeiSettings(prior_options={"colour": 0}))
        ''
        """
        if not self.grey or settings.prior_options.get("colour") == 0:
            return ""
        how = " (--prior-option colour=0 leaves them out)" if settings.prior in COLOURED else ""
        return f"the training images are grey, colours here are guesses{how}"

    def verdict(self, activation: Floats) -> str:
        """Say how many of the units' images ``(n, variants)`` do better than the best natural one.

        Examples
        --------
        >>> import numpy as np
        >>> empty = np.zeros((2, 1, 1, 3), np.uint8)
        >>> held = Beside(empty, np.array([1.8, 2.0]), ["a", "b"], empty, np.zeros(2), 30, 30)
        >>> print(held.verdict(np.array([[0.7], [6.4]])))  # doctest: +ELLIPSIS
        1 of 2 images are predicted to do better than the best of 30 training images at equal mean and contrast (by...
        """
        better = activation > self.natural_activation[:, None]
        of = f"{self.searched} of {self.there}" if self.searched < self.there else f"{self.there}"
        return (
            f"{int(better.sum())} of {better.size} images are predicted to do better than the best of "
            f"{of} training images at equal mean and contrast ({NO_EVIDENCE})"
        )

    def losing(self, activation: Floats) -> bool:
        """Whether any image does no better than the best natural one."""
        return bool((activation <= self.natural_activation[:, None]).any())


def beside(
    encoders: Sequence[Encoder],
    result: MeiResult,
    settings: MeiSettings,
    images: Images,
    fields: Fields,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Beside:
    """Find what the images of some units are held against.

    Parameters
    ----------
    encoders
        Those that the images were made with.
    result
        The images.
    settings
        How they were made: what they are compared with has the same mean and contrast, where they have it.
    images
        Natural images, such as those of the training set.
    fields
        Receptive fields of the result's units, in their order.
    progress
        Called with natural images done and to do.

    Returns
    -------
    Beside
        In the order of the result's units.
    """
    ensemble = Ensemble(encoders)
    columns = ensemble.positions([int(unit) for unit in result.units])
    count = min(len(images), MOST)
    looked = np.unique(np.linspace(0, len(images) - 1, count).round().astype(np.int64))
    photometry, inside = settings.photometry, settings.match == "field"
    with deterministic(ensemble.device):
        parts, grey = [], True
        for start in range(0, len(looked), _BLOCK):
            read = images.read(looked[start : start + _BLOCK])
            grey = grey and bool((read == read[..., :1]).all())
            pixels = photometry.match(read)
            parts.append(_mean(encoders, pixels)[:, columns])
            if progress is not None:
                progress(min(start + _BLOCK, len(looked)), len(looked))
        answers = np.concatenate(parts)
        size = result.pixels.shape[2]
        natural, noise, found = [], [], []
        windows = fields.windows() if inside else np.ones((len(columns), size, size))
        for k, column in enumerate(columns):
            order = np.argsort(-answers[:, k], kind="stable")[: CANDIDATES if inside else 1]
            pixels = photometry.match(images.read(looked[order]))
            rng = np.random.default_rng((settings.seed, 0x4015E, int(result.units[k])))
            drawn = photometry.match(pink_noise(size, rng)[None])
            both = np.concatenate([drawn, pixels])
            if inside:
                seen = torch.from_numpy(np.repeat(windows[k][None], len(both), axis=0)).float()
                both = quantize(photometry.inside(as_batch(both), seen[:, None], exact=True))
            response = _mean(encoders, both)[:, column]
            best = 1 + int(response[1:].argmax())
            natural.append((both[best], response[best]))
            noise.append((both[0], response[0]))
            found.append(str(images.names[int(looked[order[best - 1]])]))
    return Beside(
        np.stack([pixels for pixels, _ in natural]),
        np.array([value for _, value in natural]),
        found,
        np.stack([pixels for pixels, _ in noise]),
        np.array([value for _, value in noise]),
        len(looked),
        len(images),
        grey,
    )


def _mean(encoders: Sequence[Encoder], pixels: NDArray[np.uint8]) -> Floats:
    """Mean responses ``(n_images, n_units)`` of the encoders."""
    return np.asarray(np.mean(responses(encoders, pixels), axis=0))
