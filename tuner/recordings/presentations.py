"""Responses listed by presentation, sorted into training rows and test repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError


@dataclass(frozen=True)
class Sorted:
    """Responses by image.

    Parameters
    ----------
    train_images, test_images
        Codes of the images, in order of first presentation.
    train
        (n_train, n_units), the mean over an image's presentations.
    test
        (n_repeats, n_test, n_units), NaN where an image was shown less often; None without test
        images.
    """

    train_images: NDArray[np.int64]
    train: NDArray[np.float64]
    test_images: NDArray[np.int64]
    test: NDArray[np.float64] | None


def sort_presentations(
    source: str,
    responses: NDArray[np.float64],
    image: NDArray[np.int64],
    is_test: NDArray[np.bool_],
) -> Sorted:
    """Sort presentations by image.

    Parameters
    ----------
    source
        The recording, for error messages.
    responses
        (n_presentations, n_units), NaN = missing.
    image
        Code of the image that each presentation showed, (n_presentations,).
    is_test
        Whether the presentation belongs to the test set.

    Returns
    -------
    Sorted

    Raises
    ------
    InputError
        If an image is in both sets, or no presentation is a training one.
    """
    if is_test.all():
        raise InputError(f"{source}: no presentation shows a training image")
    shared = np.intersect1d(image[~is_test], image[is_test])
    if shared.size:
        raise InputError(
            f"{source}: {shared.size} images are presented both as training and as test images"
        )
    train_images, train = averaged(responses[~is_test], image[~is_test])
    if not is_test.any():
        return Sorted(train_images, train, np.empty(0, dtype=np.int64), None)
    test_images, test = repeats(responses[is_test], image[is_test])
    return Sorted(train_images, train, test_images, test)


def averaged(
    responses: NDArray[np.float64], image: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Average over the presentations of each image.

    Parameters
    ----------
    responses, image
        As ``sort_presentations`` returns them.

    Returns
    -------
    images, responses
        Codes in order of first presentation, and (n_images, n_units).
    """
    images, shown = _by_image(image)
    mean = np.full((images.size, responses.shape[1]), np.nan)
    for row, presentations in enumerate(shown):
        own = responses[presentations]
        valid = np.isfinite(own)
        with np.errstate(invalid="ignore"):
            mean[row] = np.where(valid, own, 0).sum(axis=0) / valid.sum(axis=0)
    return images, mean


def repeats(
    responses: NDArray[np.float64], image: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Put the presentations of each image one after another.

    Parameters
    ----------
    responses, image
        As ``sort_presentations`` returns them.

    Returns
    -------
    images, responses
        Codes in order of first presentation, and (n_repeats, n_images, n_units), NaN where an
        image was presented less often.
    """
    images, shown = _by_image(image)
    most = max(presentations.size for presentations in shown)
    out = np.full((most, images.size, responses.shape[1]), np.nan)
    for column, presentations in enumerate(shown):
        out[: presentations.size, column] = responses[presentations]
    return images, out


def repeated_are_test(image: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Take the images that were shown more than once as the test set."""
    _, member, count = np.unique(image, return_inverse=True, return_counts=True)
    return np.asarray(count[member.reshape(-1)] > 1)


def _by_image(image: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Find the images in order of first presentation, and the presentations of each in order."""
    codes, first, count = np.unique(image, return_index=True, return_counts=True)
    shown = np.split(np.argsort(image, kind="stable"), np.cumsum(count)[:-1])
    order = np.argsort(first)
    return codes[order], [shown[i] for i in order]
