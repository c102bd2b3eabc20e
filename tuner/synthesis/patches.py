"""What a receptive field shows of an image, and the same with its phases scrambled.

A most exciting image cut out by its unit's field is to be held against natural images cut out alike, or it wins by where it
is; and against scrambled ones, or it wins by its spectrum.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.encoder import as_batch
from tuner.synthesis.photometry import Photometry, quantize

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


def cut_out(photometry: Photometry, pixels: NDArray[np.generic], windows: Floats) -> Pixels:
    """Images as cut out by windows, at one mean and contrast there, on grey.

    Parameters
    ----------
    pixels
        ``(B, S, S, 3)``, 8-bit or 0 to 255.
    windows
        ``(B, S, S)`` from 0 to 1.
    """
    seen = torch.from_numpy(windows).float()[:, None]
    if pixels.dtype == np.uint8:
        batch = as_batch(np.asarray(pixels, dtype=np.uint8))
    else:
        batch = torch.from_numpy(np.asarray(pixels, dtype=np.float64) / 255).float()
        batch = batch.permute(0, 3, 1, 2)
    return quantize(photometry.inside(batch, seen, exact=True))


def scramble(image: NDArray[np.generic], rng: np.random.Generator) -> Floats:
    """Scramble an image's phases: amplitude at each frequency, and colour at each, stay.

    The same random phases are added to all colours; they are those of a real noise image, so the
    result is real. Values may leave the range of 8 bits.

    Returns
    -------
    ndarray
        ``(H, W, 3)``, with the image's mean.
    """
    phases = np.angle(np.fft.fft2(rng.standard_normal(image.shape[:2])))
    phases[0, 0] = 0.0
    spectrum = np.fft.fft2(image.astype(np.float64), axes=(0, 1))
    return np.asarray(np.fft.ifft2(spectrum * np.exp(1j * phases)[..., None], axes=(0, 1)).real)


def scrambled_inside(
    photometry: Photometry, image: Pixels, window: Floats, rng: np.random.Generator
) -> Pixels:
    """Scramble what lies in a window, and nothing else; cut out and matched as `cut_out` does.

    Phases are scrambled in the smallest rectangle that holds the window, so that the spectrum is that of what the unit sees.

    Parameters
    ----------
    image
        ``(S, S, 3)``.
    window
        ``(S, S)``.
    """
    rows, columns = (np.flatnonzero(window.any(axis)) for axis in (1, 0))
    there = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    values = image.astype(np.float64)
    values[there] = scramble(image[there], rng)
    made: Pixels = cut_out(photometry, values[None], window[None])[0]
    return made
