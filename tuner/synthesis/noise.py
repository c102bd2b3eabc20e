"""Noise to hold images against: the spectrum of natural images, no pattern."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pink_noise(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw noise whose amplitude falls as one over frequency, as in natural images; no colour."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal((size, size))) / frequency
    pattern = np.fft.ifft2(spectrum).real
    scaled = 127.5 + 40 * pattern / pattern.std()
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.stack([grey] * 3, axis=2)
