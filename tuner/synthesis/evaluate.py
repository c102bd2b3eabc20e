"""What an image is worth: judged by encoders that it was not made with, against natural images.

An image that was made to excite an encoder excites it; that says little. Here every image, as the
8-bit picture that is shown, is put to other encoders too (the other readout, another backbone,
another trial), and each answer is set against the answer to the empty grey screen and to the best
natural image of the training set at the same mean and contrast.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.encoder import Encoder, Together, as_batch
from tuner.errors import InputError
from tuner.synthesis.mei import MeiResult
from tuner.synthesis.photometry import Photometry

Floats = NDArray[np.float64]
BATCH = 32

COLUMNS = (
    "unit",
    "name",
    "variant",
    "encoder",
    "made_with",
    "activation",
    "grey",
    "natural",
    "natural_image",
    "gain",
)
"""Of the table that :func:`compare` gives."""


class Images(Protocol):
    """Images as the backbone sees them; a recording's prepared images are such."""

    @property
    def names(self) -> Sequence[str]:
        """What each is called."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """``(n, S, S, 3)``."""
        ...


@dataclass(frozen=True)
class Extremes:
    """The natural images that drive each unit most and least, by an encoder's prediction.

    Attributes
    ----------
    best, worst
        ``(n_units, k)``: indices of the images, the most extreme first.
    highest, lowest
        ``(n_units, k)``: the predicted responses to them.
    """

    best: NDArray[np.int64]
    worst: NDArray[np.int64]
    highest: Floats
    lowest: Floats


def responses(
    encoders: Sequence[Encoder],
    pixels: NDArray[np.uint8],
    progress: Callable[[int, int], None] | None = None,
) -> list[Floats]:
    """Return each encoder's responses ``(n_images, n_units)`` to 8-bit images."""
    together = Together(encoders)
    parts: list[list[Floats]] = [[] for _ in encoders]
    for start in range(0, len(pixels), BATCH):
        with torch.no_grad():
            answers = together.respond(as_batch(pixels[start : start + BATCH], together.device))
        for part, answer in zip(parts, answers, strict=True):
            part.append(answer.double().cpu().numpy())
        if progress is not None:
            progress(min(start + BATCH, len(pixels)), len(pixels))
    return [
        np.concatenate(part) if part else np.empty((0, encoder.n_units))
        for part, encoder in zip(parts, encoders, strict=True)
    ]


def natural_extremes(
    encoders: Sequence[Encoder],
    images: Images,
    photometry: Photometry,
    *,
    count: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Extremes]:
    """Find the natural images that each encoder predicts the most and the least response to.

    Parameters
    ----------
    encoders
        Any, of one image size.
    images
        Those of the training set.
    photometry
        What each image is brought to before it is judged.
    count
        How many best and how many worst images are kept.
    progress
        Called with images done and to do.

    Returns
    -------
    list of Extremes
        One per encoder.

    Raises
    ------
    InputError
        If there are no images.
    """
    if not len(images):
        raise InputError("there are no natural images to compare with")
    together = Together(encoders)
    answers: list[list[Floats]] = [[] for _ in encoders]
    for start in range(0, len(images), BATCH):
        indices = np.arange(start, min(start + BATCH, len(images)))
        with torch.no_grad():
            batch = as_batch(photometry.match(images.read(indices)), together.device)
            for part, answer in zip(answers, together.respond(batch), strict=True):
                part.append(answer.double().cpu().numpy())
        if progress is not None:
            progress(int(indices[-1]) + 1, len(images))
    return [_extremes(np.concatenate(part), count) for part in answers]


def _extremes(answers: Floats, count: int) -> Extremes:
    count = min(count, len(answers))
    order = np.argsort(answers, axis=0, kind="stable")
    worst, best = order[:count].T, order[::-1][:count].T
    units = np.arange(answers.shape[1])[:, None]
    return Extremes(best, worst, answers[best, units], answers[worst, units])


def compare(
    result: MeiResult,
    encoders: Mapping[str, Encoder],
    made_with: Collection[str],
    photometry: Photometry,
    images: Images | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Put images to several encoders.

    Parameters
    ----------
    result
        The images that are compared.
    encoders
        By name; each of the images' units that an encoder has is asked for.
    made_with
        Names of those that the images were made with.
    photometry
        Mean and contrast of the images, for the natural ones and the grey.
    images
        Natural images; None: not compared.
    progress
        Called with natural images done and to do.

    Returns
    -------
    list of dict
        A row per unit, variant and encoder with the :data:`COLUMNS`: predicted response to the
        image, to the grey screen, to the best natural image and its name, and ``gain``, the
        image's response over the natural one's, both less grey (NaN without natural images, or
        where no natural image does better than grey).
    """
    names = list(encoders)
    judges = [encoders[name] for name in names]
    size = judges[0].image_size if judges else 0
    flat = result.pixels.reshape(-1, *result.pixels.shape[2:])
    level = round(255 * photometry.mean)
    grey = np.full((1, size, size, 3), level, dtype=np.uint8)
    answers = responses(judges, np.concatenate([grey, flat]))
    extremes = (
        natural_extremes(judges, images, photometry, progress=progress)
        if images is not None
        else None
    )
    variants = result.pixels.shape[1]
    rows = []
    for k, unit in enumerate(result.units):
        for variant in range(variants):
            for number, (name, judge) in enumerate(zip(names, judges, strict=True)):
                (found,) = np.nonzero(judge.unit_indices == unit)
                if not len(found):
                    continue
                column = int(found[0])
                row: dict[str, Any] = {
                    "unit": int(unit),
                    "name": result.names[k],
                    "variant": variant,
                    "encoder": name,
                    "made_with": name in made_with,
                    "activation": float(answers[number][1 + k * variants + variant, column]),
                    "grey": float(answers[number][0, column]),
                    "natural": float("nan"),
                    "natural_image": "",
                    "gain": float("nan"),
                }
                if extremes is not None and images is not None:
                    row["natural"] = float(extremes[number].highest[column, 0])
                    row["natural_image"] = images.names[int(extremes[number].best[column, 0])]
                    over = row["natural"] - row["grey"]
                    row["gain"] = (
                        (row["activation"] - row["grey"]) / over if over > 0 else float("nan")
                    )
                rows.append(row)
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return per encoder how its units take the images: a row with counts and medians.

    ``better_than_natural`` is the share of images that drive the unit more than its best natural
    image does; ``gain`` the median of theirs.
    """
    table = []
    for name in dict.fromkeys(str(row["encoder"]) for row in rows):
        mine = [row for row in rows if row["encoder"] == name]
        gains = np.array([row["gain"] for row in mine], dtype=np.float64)
        known = gains[np.isfinite(gains)]
        table.append(
            {
                "encoder": name,
                "made_with": bool(mine[0]["made_with"]),
                "images": len(mine),
                "activation": float(np.median([row["activation"] for row in mine])),
                "gain": float(np.median(known)) if len(known) else float("nan"),
                "better_than_natural": float((known > 1).mean()) if len(known) else float("nan"),
            }
        )
    return table


def variant_distances(result: MeiResult) -> Floats:
    """Return how far a unit's variants lie apart: ``(n, V, V)``, 1 less the pixels' correlation.

    0 for the same image, 1 for unrelated ones, 2 for an image and its negative.
    """
    n, variants = result.pixels.shape[:2]
    flat = result.pixels.reshape(n, variants, -1).astype(np.float64)
    flat -= flat.mean(2, keepdims=True)
    norm = np.sqrt((flat**2).sum(2))
    norm[norm == 0] = np.inf
    flat /= norm[:, :, None]
    distance = 1 - flat @ flat.transpose(0, 2, 1)
    distance[:, np.arange(variants), np.arange(variants)] = 0.0
    return np.asarray(distance)
