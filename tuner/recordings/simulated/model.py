"""The simulated recording: units whose every parameter is known, shown crops of photographs.

V1 units are Gabor filters, V4 and IT units mix features of the very backbone that is fitted to
them. So it shows whether what was put in is found again; it says nothing about brains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.recording import Recording
from tuner.recordings.simulated import photographs
from tuner.recordings.simulated.gabors import Gabors
from tuner.recordings.simulated.mixtures import Kind, Mixtures, layer_maps
from tuner.recordings.sources import ArrayImages

if TYPE_CHECKING:
    from tuner.backbones.backbone import Backbone

LABEL = "simulated"
BACKBONE = "efficientnet_lite0"

VERSION = 1
"""To be raised with any change of what is simulated: stored recordings are then made anew."""


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
        Of the mask over that layer.
    """

    region: str
    layer: str | None = None
    kind: Kind = "local"


CORTEX = (
    Population("V1"),
    Population("V4", "_blocks.4", "local"),
    Population("IT", "_blocks.15", "global"),
)
"""The regions of the default recording."""


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
        Variance of a unit's signal over the variance of the noise of one presentation.
    seed
        The same seed gives the same recording.
    """

    n_train: int = 1100
    n_test: int = 100
    n_repeats: int = 10
    units_per_region: int = 12
    image_size: int = 64
    snr: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("n_train", "n_test", "n_repeats", "units_per_region", "image_size"):
            if getattr(self, key) < 1:
                raise InputError(f"data.{key} must be at least 1, not {getattr(self, key)}")
        if not (np.isfinite(self.snr) and self.snr > 0):
            raise InputError(f"data.snr must be positive, not {self.snr}")
        if self.seed < 0:
            raise InputError(f"data.seed must not be negative, is {self.seed}")


def simulate(
    populations: tuple[Population, ...], settings: Settings, backbone: Backbone | None = None
) -> Recording:
    """Simulate a recording of any populations.

    Parameters
    ----------
    populations
        The regions, and what their units are made of.
    settings
        Size and quality.
    backbone
        The network whose layers are mixed; by default the embedded EfficientNet-Lite0.

    Returns
    -------
    Recording
        With all that is known of it in ``truth``, which `true_responses` can evaluate on any
        image. Each unit has an offset and a gain of its own.
    """
    train, test = photographs.crops(
        settings.n_train, settings.n_test, settings.image_size, settings.seed
    )
    shown = np.concatenate([train.images, test.images])
    layers = [p.layer for p in populations if p.layer is not None]
    maps: dict[str, NDArray[np.float32]] = {}
    if layers:
        backbone = backbone or _embedded()
        maps = layer_maps(backbone, list(dict.fromkeys(layers)), shown)
    truth: dict[str, NDArray[Any]] = {
        "settings/backbone": np.array(backbone.name if backbone else ""),
        "settings/image_size": np.array(settings.image_size),
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
    n_units = int(responses.shape[1])
    units["offset"] = rng.uniform(0.5, 2.0, size=n_units)
    units["gain"] = rng.uniform(0.5, 1.5, size=n_units)
    signal = _in_units(responses, units)
    noise_sd = units["gain"] / np.sqrt(settings.snr)
    units["signal_variance"] = signal[n_train:].var(0)
    units["noise_variance"] = noise_sd**2
    error = units["noise_variance"] / settings.n_repeats
    units["ceiling"] = np.sqrt(units["signal_variance"] / (units["signal_variance"] + error))
    truth |= {f"units/{name}": values for name, values in units.items()}
    truth |= {"signal/train": signal[:n_train], "signal/test": signal[n_train:]}
    noisy = signal[:n_train] + noise_sd * rng.standard_normal((n_train, n_units))
    repeats = (settings.n_repeats, settings.n_test, n_units)
    noisy_test = signal[n_train:] + noise_sd * rng.standard_normal(repeats)
    area = units["population"]
    place = [f"{region}-{i % settings.units_per_region:02d}" for i, region in enumerate(area)]
    return Recording(
        label=LABEL,
        source=f"simulated recording (seed {settings.seed})",
        simulated=True,
        units={"area": area, "name": np.array(place), "reliability": _reliability(noisy_test)},
        train_images=ArrayImages(train.images, "train/images"),
        train_responses=noisy.astype(np.float32),
        train_groups=train.block,
        test_images=ArrayImages(test.images, "test/images"),
        test_responses=noisy_test.astype(np.float32),
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
        If the images are of another size.
    """
    size = int(truth["settings/image_size"])
    if images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise InputError(f"simulated units see images (n, {size}, {size}, 3), not {images.shape}")
    population = truth["units/population"]
    layer_of = truth["units/layer"]
    layers = [str(layer) for layer in dict.fromkeys(layer_of.tolist()) if layer]
    maps: dict[str, NDArray[np.float32]] = {}
    if layers:
        maps = layer_maps(backbone or _embedded(str(truth["settings/backbone"])), layers, images)
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
        gabors = Gabors.draw(count, shown[: settings.n_train], rng)
        columns["kind"] = np.where(gabors.energy, "energy", "simple")
        columns["layer"] = np.full(count, "")
        return gabors.respond(shown), columns | gabors.truth()
    of_layer, rectified = maps[layer], backbone.rectified(layer)
    units = Mixtures.draw(
        layer, population.kind, of_layer[: settings.n_train], rectified, count, rng
    )
    truth[f"population/{population.region}/mean"] = units.mean
    truth[f"population/{population.region}/sd"] = units.sd
    (info,) = backbone.describe([layer], settings.image_size)
    columns |= {
        "kind": np.full(count, population.kind),
        "layer": np.full(count, layer),
        # Where the mask lies in the image, padding included.
        "x": info.offset + info.stride * units.mask_x,
        "y": info.offset + info.stride * units.mask_y,
        "sigma": info.stride * units.mask_sigma,
    }
    return units.respond(of_layer), columns | units.truth()


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


def _reliability(repeats: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean correlation between every two repeats, per unit; NaN with a single repeat."""
    n_repeats, _, n_units = repeats.shape
    if n_repeats < 2:
        return np.full(n_units, np.nan)
    pairs = np.triu_indices(n_repeats, 1)
    matrices = (np.atleast_2d(np.corrcoef(repeats[:, :, unit])) for unit in range(n_units))
    return np.array([matrix[pairs].mean() for matrix in matrices])


def _embedded(name: str = BACKBONE) -> Backbone:
    from tuner.backbones import load_backbone

    return load_backbone(name)
