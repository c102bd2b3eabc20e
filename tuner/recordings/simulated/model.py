"""The simulated recording: units whose every parameter is known, shown crops of photographs.

V1 units are Gabor filters, V4 and IT units mix features of a network. In the easy recording that is
the very backbone that the demo fits to them, and the noise is the same for all; in the hard one it
is another network, and responses are noisy counts that drift. Either shows whether what was put in
is found again; it says nothing about brains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError, unknown
from tuner.recordings.recording import Recording
from tuner.recordings.simulated import photographs, presentations
from tuner.recordings.simulated.gabors import Gabors
from tuner.recordings.simulated.mixtures import Kind, Mixtures, layer_maps
from tuner.recordings.sources import ArrayImages

if TYPE_CHECKING:
    import torch

    from tuner.backbones.backbone import Backbone
    from tuner.backbones.sight import Sight

LABEL = "simulated"

Difficulty = Literal["easy", "hard"]
BACKBONES: dict[Difficulty, str] = {"easy": "efficientnet_lite0", "hard": "efficientnet_lite1"}
"""The network that V4 and IT are made of."""

VERSION = 3
"""To be raised with any change of what is simulated: stored recordings are then made anew."""

_PHOTOGRAPHS = 12
"""At so many training images it is measured where the cells of a layer look."""


@dataclass(frozen=True)
class Population:
    """The units of one region.

    Parameters
    ----------
    region
        Name of the region.
    layer
        The layer whose features the units mix; None for Gabor filters.
    kind
        Kind of the mask over that layer.
    """

    region: str
    layer: str | None = None
    kind: Kind = "local"


CORTEX = (
    Population("V1"),
    Population("V4", "_blocks.4", "local"),
    Population("IT", "_blocks.15", "global"),
)
"""The regions of the easy recording."""

HARD_CORTEX = (
    Population("V1"),
    Population("V4", "_blocks.6", "local"),
    Population("IT", "_blocks.20", "global"),
)
"""The regions of the hard recording, at the same depths of a deeper network."""


def cortex(difficulty: Difficulty) -> tuple[Population, ...]:
    """Return the regions of the recording of a difficulty."""
    return HARD_CORTEX if difficulty == "hard" else CORTEX


@dataclass(frozen=True)
class Settings:
    """Size and quality of a simulated recording.

    Parameters
    ----------
    n_train, n_test
        Training images, each shown once, and test images.
    n_repeats
        Presentations of each test image.
    units_per_region
        Units of each region.
    image_size
        Side of the images, pixels.
    snr
        Variance of a unit's signal over the variance of the noise of one presentation; in the hard
        recording it differs from unit to unit and this is not used.
    seed
        The same seed gives the same recording.
    difficulty
        ``"easy"``: fields well inside the image, V1 units that see luminance, V4 and IT of the
        embedded network, noise of equal size. ``"hard"``: fields up to the border, colour-opponent
        V1 units, V4 and IT of another network, and the counts of `presentations.counts`.
    """

    n_train: int = 1100
    n_test: int = 100
    n_repeats: int = 10
    units_per_region: int = 12
    image_size: int = 64
    snr: float = 1.5
    seed: int = 0
    difficulty: Difficulty = "easy"

    def __post_init__(self) -> None:
        for key in ("n_train", "n_test", "n_repeats", "units_per_region", "image_size"):
            if getattr(self, key) < 1:
                raise InputError(f"data.{key} must be at least 1, not {getattr(self, key)}")
        if not (np.isfinite(self.snr) and self.snr > 0):
            raise InputError(f"data.snr must be positive, not {self.snr}")
        if self.seed < 0:
            raise InputError(f"data.seed must not be negative, is {self.seed}")
        if self.difficulty not in BACKBONES:
            raise unknown("difficulty", self.difficulty, BACKBONES, "data.difficulty")


def source(settings: Settings) -> str:
    """Say where a recording comes from, for people to read."""
    hard = "hard " if settings.difficulty == "hard" else ""
    return f"{hard}simulated recording (seed {settings.seed})"


def simulate(
    populations: tuple[Population, ...], settings: Settings, backbone: Backbone | None = None
) -> Recording:
    """Simulate a recording of any populations.

    Parameters
    ----------
    populations
        The regions, and what their units are made of.
    settings
        How many images and units there are, and how good the units are.
    backbone
        The network whose layers are mixed; by default that of the difficulty.

    Returns
    -------
    Recording
        With all that is known of it in ``truth``, which `true_responses` can evaluate on any
        image. Each unit has an offset and a gain of its own.

    Raises
    ------
    InputError
        If the weights of the network are not on this machine.
    """
    train, test = photographs.crops(
        settings.n_train, settings.n_test, settings.image_size, settings.seed
    )
    shown = np.concatenate([train.images, test.images])
    layers = [p.layer for p in populations if p.layer is not None]
    maps: dict[str, NDArray[np.float32]] = {}
    if layers:
        backbone = backbone or _network(BACKBONES[settings.difficulty])
        maps = layer_maps(backbone, list(dict.fromkeys(layers)), shown)
    truth: dict[str, NDArray[Any]] = {
        "settings/backbone": np.array(backbone.name if backbone else ""),
        "settings/image_size": np.array(settings.image_size),
        "settings/difficulty": np.array(settings.difficulty),
    }
    raw, columns = [], []
    for number, population in enumerate(populations):
        rng = np.random.default_rng([0x51, settings.seed, number])
        response, column = _populate(population, settings, shown, maps, backbone, rng, truth)
        raw.append(response)
        columns.append(column)
    rng = np.random.default_rng([0x4015E, settings.seed])
    responses = np.concatenate(raw, axis=1)
    units = _joined(columns)
    n_train = settings.n_train
    units["raw_mean"] = np.asarray(responses[:n_train].mean(0))
    units["raw_sd"] = np.asarray(responses[:n_train].std(0))
    standard = (responses - units["raw_mean"]) / units["raw_sd"]
    if settings.difficulty == "hard":
        session = presentations.counts(standard, n_train, settings.n_repeats, rng)
    else:
        session = presentations.steady(standard, n_train, settings.n_repeats, settings.snr, rng)
    units |= session.units
    truth |= {f"units/{name}": values for name, values in units.items()}
    truth |= {"signal/train": session.signal[:n_train], "signal/test": session.signal[n_train:]}
    truth |= session.session
    area = units["population"]
    place = [f"{region}-{i % settings.units_per_region:02d}" for i, region in enumerate(area)]
    return Recording(
        label=LABEL,
        source=source(settings),
        simulated=True,
        units={
            "area": area,
            "name": np.array(place),
            "reliability": presentations.reliability(session.test),
        },
        train_images=ArrayImages(train.images, "train/images"),
        train_responses=session.train.astype(np.float32),
        train_groups=train.block,
        test_images=ArrayImages(test.images, "test/images"),
        test_responses=session.test.astype(np.float32),
        truth=truth,
        test_groups=test.block,
    )


def simulate_from_layer(
    backbone: Backbone,
    layer: str,
    images: NDArray[np.uint8],
    n_units: int = 12,
    kind: Kind = "local",
    snr: float = 1.5,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Simulate one noisy response of units of a known layer to each image.

    Parameters
    ----------
    backbone
        The network.
    layer
        The layer whose features the units mix.
    images
        (n, size, size, 3) uint8.
    n_units, kind
        Number of units, and the kind of their masks.
    snr
        Variance of the signal (here 1) over that of the noise.
    seed
        The same seed gives the same units and noise.

    Returns
    -------
    ndarray
        (n, n_units) float32.
    """
    rng = np.random.default_rng([0x1A7E2, seed])
    maps = layer_maps(backbone, [layer], images)[layer]
    units = Mixtures.draw(layer, kind, maps, backbone.rectified(layer), n_units, rng)
    signal = units.respond(maps)
    signal = (signal - signal.mean(0)) / signal.std(0)
    noise = rng.standard_normal(signal.shape) / np.sqrt(snr)
    return np.asarray(signal + noise, dtype=np.float32)


def true_responses(
    truth: Mapping[str, NDArray[Any]], images: NDArray[Any], backbone: Backbone | None = None
) -> NDArray[np.float64]:
    """Respond to images without noise, as the simulated units do.

    Parameters
    ----------
    truth
        The truth of a simulated recording.
    images
        (n, size, size, 3), uint8 or floats in [0, 1], of the recording's image size.
    backbone
        The network that the recording was simulated with; by default it is loaded by its name.

    Returns
    -------
    ndarray
        (n, n_units), in the recording's own units.

    Raises
    ------
    InputError
        If the images are of another size, or the backbone is another.
    """
    made_with = str(truth["settings/backbone"])
    if backbone is not None and backbone.name != made_with:
        raise InputError(f"the units were simulated with {made_with}, not with {backbone.name}")
    size = int(truth["settings/image_size"])
    if images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise InputError(f"simulated units see images (n, {size}, {size}, 3), not {images.shape}")
    population = truth["units/population"]
    layer_of = truth["units/layer"]
    layers = [str(layer) for layer in dict.fromkeys(layer_of.tolist()) if layer]
    maps: dict[str, NDArray[np.float32]] = {}
    if layers:
        maps = layer_maps(backbone or _network(made_with), layers, images)
    out = np.empty((len(images), len(population)))
    for region in dict.fromkeys(population.tolist()):
        units = np.flatnonzero(population == region)
        layer = str(layer_of[units[0]])
        if layer:
            out[:, units] = Mixtures.from_truth(truth, region, units).respond(maps[layer])
        else:
            out[:, units] = Gabors.from_truth(truth, units).respond(images)
    scaling = ("raw_mean", "raw_sd", "offset", "gain")
    return _in_units(out, {name: truth[f"units/{name}"] for name in scaling})


def _populate(
    population: Population,
    settings: Settings,
    shown: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.float32]],
    backbone: Backbone | None,
    rng: np.random.Generator,
    truth: dict[str, NDArray[Any]],
) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
    """Draw the units of a region: their responses to all images, and what is known of them."""
    count, layer = settings.units_per_region, population.layer
    columns: dict[str, NDArray[Any]] = {"population": np.full(count, population.region)}
    if layer is None or backbone is None:
        draw = Gabors.draw_varied if settings.difficulty == "hard" else Gabors.draw
        gabors = draw(count, shown[: settings.n_train], rng)
        columns["kind"] = np.where(gabors.energy, "energy", "simple")
        columns["layer"] = np.full(count, "")
        return gabors.respond(shown), columns | gabors.truth()
    of_layer, rectified = maps[layer], backbone.rectified(layer)
    seen = of_layer[: settings.n_train]
    margin = 0.0 if settings.difficulty == "hard" else 0.25
    units = Mixtures.draw(layer, population.kind, seen, rectified, count, rng, margin)
    truth[f"population/{population.region}/mean"] = units.mean
    truth[f"population/{population.region}/sd"] = units.sd
    sight = _sight(backbone, layer, units, rectified, shown[:_PHOTOGRAPHS])
    x, y = sight.place(units.mask_y, units.mask_x)
    steps = sight.steps_at(units.mask_y, units.mask_x)
    own = sight.size_at(x, y)
    across, down = (
        np.hypot(step * units.mask_sigma, size) for step, size in zip(steps, own, strict=True)
    )
    columns |= {
        "kind": np.full(count, population.kind),
        "layer": np.full(count, layer),
        # Where the cells under the mask look in the image, and the mask blurred by how far they see.
        "x": x,
        "y": y,
        "sigma": np.sqrt(across * down),
    }
    return units.respond(of_layer), columns | units.truth()


def _sight(
    backbone: Backbone,
    layer: str,
    units: Mixtures,
    rectified: bool,
    photographs: NDArray[np.uint8],
) -> Sight:
    """Measure where the cells look whose rectified features the units mix."""
    import torch

    from tuner.backbones.sight import measure

    mean, sd = (torch.from_numpy(v).float()[:, None, None] for v in (units.mean, units.sd))

    def scaled(maps: torch.Tensor) -> torch.Tensor:
        values = (maps - mean.to(maps)) / sd.to(maps)
        return values if rectified else values.relu()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as for the features: the same truth on any machine's cores
    try:
        return measure(backbone, layer, photographs, scaled)
    finally:
        torch.set_num_threads(threads)


def _joined(columns: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Put the columns of all populations under one another; what one lacks is missing there."""
    joined: dict[str, NDArray[Any]] = {}
    for name in dict.fromkeys(name for column in columns for name in column):
        known = next(column[name] for column in columns if name in column)
        tails = [column[name].shape[1:] for column in columns if name in column]
        tail = max(tails)
        fill: Any = {"f": np.nan, "i": -1, "b": False}.get(known.dtype.kind, "")
        if name == "coefficients":
            fill = 0.0
        parts = []
        for column in columns:
            count = len(column["population"])
            values = column.get(name)
            if values is None:
                parts.append(np.full((count, *tail), fill, dtype=known.dtype))
            elif values.shape[1:] != tail:
                gap = [(0, 0), (0, tail[0] - values.shape[1])]
                parts.append(np.pad(values, gap, constant_values=fill))
            else:
                parts.append(values)
        joined[name] = np.concatenate(parts)
    return joined


def _in_units(raw: NDArray[np.float64], units: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    scaled = (raw - units["raw_mean"]) / units["raw_sd"]
    return np.asarray(units["offset"] + units["gain"] * scaled)


def _network(name: str) -> Backbone:
    from tuner.backbones import load_backbone

    return load_backbone(name)
