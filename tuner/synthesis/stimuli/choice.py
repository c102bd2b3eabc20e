"""Which images are shown to ask a unit what it wants: its own, and what they must do better than.

Per unit: its most exciting images; the natural images that its encoder predicts the most and the
least response to; the images of other units; noise of a natural spectrum; its own image with
the phases scrambled, so that the spectrum stays and the pattern goes; and natural patches, cut out
by its receptive field, with their phases as they are and scrambled inside it. All have the same
mean and contrast inside the field, also as shown, so that a larger response is not just one to
more contrast. And one empty grey screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.encoder import Encoder
from tuner.errors import InputError
from tuner.synthesis.evaluate import Images, natural_extremes, responses
from tuner.synthesis.mei import Ensemble, MeiResult
from tuner.synthesis.noise import pink_noise
from tuner.synthesis.patches import cut_out, scramble, scrambled_inside
from tuner.synthesis.photometry import Photometry
from tuner.synthesis.receptive_fields import Fields, from_readout
from tuner.synthesis.stimuli.placement import Field, Pixels, Placement, moved

KINDS = (
    "mei",
    "natural_best",
    "natural_worst",
    "mei_other",
    "noise",
    "scrambled",
    "patch",
    "patch_scrambled",
    "grey",
)

_SAME = 1.0
"""Grey levels of 255 that a patch must differ by from the image that it is cut out of, on average."""

PATCH_CANDIDATES = 24
"""Natural images, the best at whole contrast, among which the best patches inside a field are looked for."""


@dataclass(frozen=True)
class Source:
    """The images of one study.

    Attributes
    ----------
    study
        Name of the study.
    result
        Most exciting images of some of its units.
    encoder
        What they were made with; of an ensemble the best.
    photometry
        Mean and contrast that they were made at.
    """

    study: str
    result: MeiResult
    encoder: Encoder
    photometry: Photometry


@dataclass(frozen=True)
class Choice:
    """How many of each.

    Parameters
    ----------
    natural
        Best and worst natural images per unit, each.
    others
        Images of other units that a unit is shown.
    noise
        Noise images per unit.
    scrambled
        Phase-scrambled images per unit.
    patches
        Natural patches per unit, and as many scrambled ones; none of a unit whose field is as large as the image, for
        which the patch is the image.
    seed
        Seed of everything that is drawn.
    """

    natural: int = 1
    others: int = 2
    noise: int = 1
    scrambled: int = 1
    patches: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("natural", "others", "noise", "scrambled", "patches", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} = {getattr(self, name)}: must not be negative")


@dataclass(frozen=True)
class Stimulus:
    """One image to be shown.

    Attributes
    ----------
    kind
        One of :data:`KINDS`.
    study
        The study it comes from; empty for the grey screen.
    unit
        The unit that it is meant for (index in the recording), -1 for none.
    name
        What the unit is called.
    variant
        Which of several of its kind.
    origin
        Where the picture comes from: the name of a training image, or ``unit 7``.
    image
        ``(S, S, 3)`` uint8, as an encoder sees images.
    field
        The receptive field of the unit, for centred placement.
    """

    kind: str
    study: str
    unit: int
    name: str
    variant: int
    origin: str
    image: Pixels
    field: Field | None


def choose(
    sources: Sequence[Source],
    images: Images | None,
    choice: Choice,
    placement: Placement = "full",
    units: Sequence[int] | None = None,
) -> list[Stimulus]:
    """Gather the images to be shown.

    Parameters
    ----------
    sources
        Most exciting images, a source per study.
    images
        Training images; None: no natural ones.
    choice
        How many images of each kind are chosen.
    placement
        Full field, one image of each unit serves all others as a control; centred, images of
        other units are moved to the receptive field in question.
    units
        Units to ask (indices in the recording); None: all that there are images of.

    Returns
    -------
    list of Stimulus
        Every source in turn, unit by unit, the grey screen last.

    Raises
    ------
    InputError
        If there is nothing to show.
    """
    chosen: list[Stimulus] = []
    for source in sources:
        chosen += _of_source(source, images, choice, placement, units)
    if not chosen:
        raise InputError("none of these studies has an image of one of these units")
    first = sources[0]
    size = first.result.pixels.shape[2]
    grey = np.full((size, size, 3), round(255 * first.photometry.mean), dtype=np.uint8)
    return [*chosen, Stimulus("grey", "", -1, "", 0, "", grey, None)]


def _of_source(
    source: Source,
    images: Images | None,
    choice: Choice,
    placement: Placement,
    units: Sequence[int] | None,
) -> list[Stimulus]:
    result = source.result
    rows = [k for k, unit in enumerate(result.units) if units is None or int(unit) in set(units)]
    if not rows:
        return []
    where = Ensemble([source.encoder]).positions([int(unit) for unit in result.units])
    found = from_readout(source.encoder).of(where)
    fields, windows = _fields(source.encoder, found), found.windows()
    looked = max(choice.natural, PATCH_CANDIDATES if choice.patches else 0)
    extremes = (
        natural_extremes([source.encoder], images, source.photometry, count=looked)[0]
        if images is not None and looked
        else None
    )
    grey = round(255 * source.photometry.mean)
    shown: list[Stimulus] = []
    for k in rows:
        unit, name, field = int(result.units[k]), result.names[k], fields[k]

        def add(
            kind: str,
            pixels: Pixels,
            variant: int,
            origin: str,
            unit: int = unit,
            name: str = name,
            field: Field = field,
        ) -> None:
            shown.append(Stimulus(kind, source.study, unit, name, variant, origin, pixels, field))

        for variant, pixels in enumerate(result.pixels[k]):
            add("mei", pixels, variant, f"unit {unit}")
        if extremes is not None and images is not None:
            for kind, indices in (
                ("natural_best", extremes.best[where[k]][: choice.natural]),
                ("natural_worst", extremes.worst[where[k]][: choice.natural]),
            ):
                if not len(indices):
                    continue
                pictures = source.photometry.match(images.read(indices))
                for variant, (index, pixels) in enumerate(zip(indices, pictures, strict=True)):
                    add(kind, pixels, variant, str(images.names[int(index)]))
        for variant, other in enumerate(_others(result, k, rows, choice, placement)):
            pixels = result.pixels[other, 0]
            if placement == "centred":
                there = fields[other]
                pixels = moved(pixels, field.x - there.x, field.y - there.y, grey)
            add("mei_other", pixels, variant, f"unit {int(result.units[other])}")
        size = result.pixels.shape[2]
        for variant in range(choice.noise):
            rng = np.random.default_rng((choice.seed, 0x4015E, unit, variant))
            add("noise", source.photometry.match(pink_noise(size, rng)[None])[0], variant, "noise")
        for variant in range(choice.scrambled):
            rng = np.random.default_rng((choice.seed, 0x5C4A, unit, variant))
            scrambled = scramble(result.pixels[k, 0], rng)
            add("scrambled", _matched(scrambled, source.photometry), variant, f"unit {unit}")
        if extremes is not None and images is not None and choice.patches:
            candidates = extremes.best[where[k]]
            pixels = source.photometry.match(images.read(candidates))
            cut = cut_out(source.photometry, pixels, np.repeat(windows[[k]], len(pixels), axis=0))
            (answers,) = responses([source.encoder], cut)
            order = np.argsort(answers[:, where[k]], kind="stable")[::-1]
            for variant, best in enumerate(order[: choice.patches]):
                if np.abs(cut[best].astype(np.float64) - pixels[best]).mean() < _SAME:
                    continue  # the field is as large as the image: shown already
                origin = str(images.names[int(candidates[best])])
                rng = np.random.default_rng((choice.seed, 0x9A7C4, unit, variant))
                control = scrambled_inside(source.photometry, pixels[best], windows[k], rng)
                add("patch", cut[best], variant, origin)
                add("patch_scrambled", control, variant, origin)
    return shown


def _fields(encoder: Encoder, found: Fields) -> list[Field]:
    """Receptive fields; a unit without one is taken to look at the middle, as far as it reaches."""
    middle = (encoder.image_size - 1) / 2
    out = []
    for x, y, sigma in zip(found.x, found.y, found.sigma, strict=True):
        if np.isfinite([x, y, sigma]).all():
            inside = (float(np.clip(v, 0, encoder.image_size - 1)) for v in (x, y))
            cx, cy = inside
            out.append(Field(cx, cy, min(float(sigma), encoder.image_size / 4)))
        else:
            out.append(Field(middle, middle, encoder.image_size / 4))
    return out


def _others(
    result: MeiResult, k: int, rows: Sequence[int], choice: Choice, placement: Placement
) -> list[int]:
    """Whose images a unit is shown besides its own.

    Full field every unit sees every image that is shown at all, so only images that are not shown
    for their own unit's sake are added.
    """
    candidates = [j for j in range(len(result.units)) if j != k]
    if placement == "full":
        already = len([j for j in rows if j != k])
        wanted = max(0, choice.others - already)
        candidates = [j for j in candidates if j not in set(rows)]
    else:
        wanted = choice.others
    if not candidates or not wanted:
        return []
    rng = np.random.default_rng((choice.seed, 0x07E4, int(result.units[k])))
    picked = rng.permutation(len(candidates))[:wanted]
    return [candidates[int(j)] for j in picked]


def _matched(values: NDArray[np.float64], photometry: Photometry) -> Pixels:
    import torch

    from tuner.synthesis.photometry import quantize

    tensor = torch.from_numpy(values / 255.0).float().permute(2, 0, 1)[None]
    matched: Pixels = quantize(photometry.apply(tensor, exact=True))[0]
    return matched
