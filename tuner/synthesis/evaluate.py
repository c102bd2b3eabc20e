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
from tuner.synthesis.patches import cut_out, scrambled_inside
from tuner.synthesis.photometry import Photometry, inside_statistics
from tuner.synthesis.receptive_fields import Fields

Floats = NDArray[np.float64]
BATCH = 32

COLUMNS = (
    "unit",
    "name",
    "variant",
    "encoder",
    "made_with",
    "judge",
    "activation",
    "grey",
    "natural",
    "natural_image",
    "gain",
    "contrast_inside",
    "natural_contrast_inside",
    "activation_inside",
    "natural_inside",
    "natural_inside_image",
    "gain_inside",
    "scrambled_inside",
    "natural_scrambled_inside",
)
"""Of the table that :func:`compare` gives."""


JUDGES = ("maker", "same study", "same backbone", "other backbone")
"""How far a judge is from those that made an image; only the last is independent of what they see in it."""

CANDIDATES = 24
"""Natural images, the best at whole contrast, among which the best inside the field is looked for."""


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


def judge_of(judge: Encoder, name: str, makers: Mapping[str, Encoder]) -> str:
    """Say how near a judge is to the makers of an image, one of :data:`JUDGES`.

    The trials of a study were fitted to the same responses through the same features: they share each other's errors, and an
    image that plays on those pleases them all.
    """
    if name in makers:
        return JUDGES[0]
    if any(judge.meta.get("study") == m.meta.get("study") is not None for m in makers.values()):
        return JUDGES[1]
    same = any(judge.backbone.digest == maker.backbone.digest for maker in makers.values())
    return JUDGES[2] if same else JUDGES[3]


def compare(
    result: MeiResult,
    encoders: Mapping[str, Encoder],
    made_with: Collection[str],
    photometry: Photometry,
    images: Images | None = None,
    *,
    fields: Fields | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Put images to several encoders.

    Parameters
    ----------
    result
        The images.
    encoders
        By name; each of the images' units that an encoder has is asked for.
    made_with
        Names of those that the images were made with.
    photometry
        Mean and contrast of the images, for the natural ones and the grey.
    images
        Natural images; None: not compared.
    fields
        Receptive fields of the images' units, in their order; None: nothing is compared inside them.
    progress
        Called with natural images done and to do.

    Returns
    -------
    list of dict
        A row per unit, variant and encoder with the :data:`COLUMNS`: predicted response to the
        image, to the grey screen, to the best natural image and its name, and ``gain``, the
        image's response over the natural one's, both less grey (NaN without natural images, or
        where no natural image does better than grey). ``judge`` is one of :data:`JUDGES`. The columns ``..._inside`` are of
        images cut out by the unit's field and brought to the wanted mean and contrast there; only ``contrast_inside`` and
        ``natural_contrast_inside`` are of the images as they were compared whole. ``scrambled_inside`` and
        ``natural_scrambled_inside`` are the controls: the image, and the best natural patch, scrambled inside the field.
    """
    names = list(encoders)
    judges = [encoders[name] for name in names]
    makers = {name: encoders[name] for name in names if name in made_with}
    size = judges[0].image_size if judges else 0
    flat = result.pixels.reshape(-1, *result.pixels.shape[2:])
    level = round(255 * photometry.mean)
    grey = np.full((1, size, size, 3), level, dtype=np.uint8)
    answers = responses(judges, np.concatenate([grey, flat]))
    extremes = (
        natural_extremes(judges, images, photometry, count=CANDIDATES, progress=progress)
        if images is not None
        else None
    )
    windows = None if fields is None else fields.windows()
    cut = (
        responses(judges, cut_out(photometry, flat, windows.repeat(result.pixels.shape[1], axis=0)))
        if windows is not None
        else None
    )
    variants = result.pixels.shape[1]
    controls = (
        None if windows is None else responses(judges, _scrambled(photometry, result, windows))
    )
    nothing = float("nan")
    rows = []
    for k, unit in enumerate(result.units):
        for number, (name, judge) in enumerate(zip(names, judges, strict=True)):
            (found,) = np.nonzero(judge.unit_indices == unit)
            if not len(found):
                continue
            column = int(found[0])
            base = float(answers[number][0, column])
            natural: dict[str, Any] = {
                "natural": nothing,
                "natural_image": "",
                "natural_contrast_inside": nothing,
                "natural_inside": nothing,
                "natural_inside_image": "",
                "natural_scrambled_inside": nothing,
            }
            if extremes is not None and images is not None:
                best = extremes[number].best[column]
                natural |= {
                    "natural": float(extremes[number].highest[column, 0]),
                    "natural_image": images.names[int(best[0])],
                }
                if windows is not None:
                    natural |= _best_inside(
                        judge, column, images, best, photometry, windows[k], _rng(unit)
                    )
            for variant in range(variants):
                row = k * variants + variant
                activation = float(answers[number][1 + row, column])
                own = nothing if cut is None else float(cut[number][row, column])
                control = nothing if controls is None else float(controls[number][row, column])
                contrast = nothing
                if windows is not None:
                    seen = flat[row : row + 1]
                    contrast = float(inside_statistics(seen, windows[k : k + 1])[1][0])
                known = {
                    "unit": int(unit),
                    "name": result.names[k],
                    "variant": variant,
                    "encoder": name,
                    "made_with": name in made_with,
                    "judge": judge_of(judge, name, makers),
                    "activation": activation,
                    "grey": base,
                    **natural,
                    "gain": _gain(activation, natural["natural"], base),
                    "contrast_inside": contrast,
                    "activation_inside": own,
                    "gain_inside": _gain(own, natural["natural_inside"], base),
                    "scrambled_inside": control,
                }
                rows.append({name_of: known[name_of] for name_of in COLUMNS})
    order = {unit: place for place, unit in enumerate(result.units.tolist())}
    return sorted(rows, key=lambda row: (order[row["unit"]], row["variant"]))


def _gain(own: float, natural: float, grey: float) -> float:
    return (own - grey) / (natural - grey) if natural > grey else float("nan")


def _best_inside(
    judge: Encoder,
    column: int,
    images: Images,
    candidates: NDArray[np.int64],
    photometry: Photometry,
    window: Floats,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The best of some natural images where all are cut out by a window and matched in it, and that one scrambled."""
    pixels = photometry.match(images.read(candidates))
    windows = np.repeat(window[None], len(candidates), axis=0)
    (answers,) = responses([judge], cut_out(photometry, pixels, windows))
    best = int(answers[:, column].argmax())
    control = scrambled_inside(photometry, pixels[best], window, rng)
    (scrambled,) = responses([judge], control[None])
    return {
        "natural_contrast_inside": float(inside_statistics(pixels[:1], windows[:1])[1][0]),
        "natural_inside": float(answers[best, column]),
        "natural_inside_image": images.names[int(candidates[best])],
        "natural_scrambled_inside": float(scrambled[0, column]),
    }


def _rng(unit: int) -> np.random.Generator:
    """What a unit's controls are drawn from."""
    return np.random.default_rng((0x5C4A, int(unit)))


def _scrambled(photometry: Photometry, result: MeiResult, windows: Floats) -> NDArray[np.uint8]:
    """Every image scrambled inside its unit's field."""
    made = []
    for unit, variants, window in zip(result.units, result.pixels, windows, strict=True):
        rng = _rng(int(unit))
        made += [scrambled_inside(photometry, one, window, rng) for one in variants]
    return np.stack(made)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return per encoder how its units take the images: a row with counts and medians.

    ``better_than_natural`` is the share of images that drive the unit more than its best natural
    image does; ``gain`` the median of theirs. The same inside the field: ``..._inside``, and there
    the share that drive it more than they do with their phases scrambled. ``field_is_image`` counts
    the images for which both are the same: the unit's field is as large as they are, or larger.
    """
    table = []
    for name in dict.fromkeys(str(row["encoder"]) for row in rows):
        mine = [row for row in rows if row["encoder"] == name]
        entry: dict[str, Any] = {
            "encoder": name,
            "made_with": bool(mine[0]["made_with"]),
            "judge": str(mine[0]["judge"]),
            "images": len(mine),
            "activation": float(np.median([row["activation"] for row in mine])),
        }
        for end in ("", "_inside"):
            gains = np.array([row[f"gain{end}"] for row in mine], dtype=np.float64)
            known = gains[np.isfinite(gains)]
            entry[f"gain{end}"] = float(np.median(known)) if len(known) else float("nan")
            entry[f"better_than_natural{end}"] = (
                float((known > 1).mean()) if len(known) else float("nan")
            )
        pairs = np.array([(row["activation_inside"], row["scrambled_inside"]) for row in mine])
        there = pairs[np.isfinite(pairs).all(1)]
        better = float((there[:, 0] > there[:, 1]).mean()) if len(there) else float("nan")
        entry["better_than_scrambled_inside"] = better
        gains = np.array([(row["gain"], row["gain_inside"]) for row in mine], dtype=np.float64)
        entry["field_is_image"] = int(np.isclose(gains[:, 0], gains[:, 1], rtol=1e-3).sum())
        table.append(entry)
    return table


def headline(table: Sequence[Mapping[str, Any]]) -> str:
    """Say what the images are worth in one line, by the most independent judges that there are."""
    nearest = max((JUDGES.index(row["judge"]) for row in table), default=0)
    judges = [row for row in table if row["judge"] == JUDGES[nearest]]
    shares = [row["better_than_natural_inside"] for row in judges]
    known = [share for share in shares if np.isfinite(share)]
    worth = f"{np.median(known):.0%}" if known else "an unknown share"
    count, whole = (judges[0]["images"], judges[0]["field_is_image"]) if judges else (0, 0)
    several = f" (median of {len(known)} judges)" if len(known) > 1 else ""
    wide = f" ({'each' if whole == count else whole} with a field as large as the image)"
    line = (
        f"better than the best natural image at equal contrast inside the field: {worth} of "
        f"{count} images{several}{wide if whole else ''}, judged by "
    )
    if nearest == len(JUDGES) - 1:
        return line + "encoders on another backbone"
    said = {
        0: "the encoders that made them alone: no evidence",
        1: "other trials of the same study, which share its errors: no independent evidence",
        2: "encoders on the same backbone, which share what it sees: no independent evidence",
    }
    return line + said[nearest] + "; fit the region on another backbone for that"


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
