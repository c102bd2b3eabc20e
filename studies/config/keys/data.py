"""The table ``[data]``: the recording and its images, and how its responses are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from studies.config.keys.table import Seed, Table
from studies.config.ranges import problem
from studies.config.values import ConfigPath, Name

Format = Literal["hdf5", "tvsd", "tvsd-arrays", "nwb", "simulated"]

ONLY_WITH = {
    "monkey": ("tvsd", "tvsd-arrays"),
    "stimuli": ("tvsd", "tvsd-arrays"),
    "window_ms": ("nwb",),
    "n_train": ("simulated",),
    "n_test": ("simulated",),
    "n_repeats": ("simulated",),
    "units_per_region": ("simulated",),
    "snr": ("simulated",),
    "difficulty": ("simulated",),
}
"""Keys of ``[data]`` that mean something with some formats only."""

TVSD = 'with format = "tvsd" or "tvsd-arrays"'
SIMULATED = 'with format = "simulated"'


def _window(value: object) -> object:
    """Read two increasing times."""
    if value is None:
        return None
    times = list(value) if isinstance(value, list | tuple) else []
    numbers = [t for t in times if isinstance(t, int | float) and not isinstance(t, bool)]
    if len(times) != 2 or len(numbers) != 2 or not -1e6 < numbers[0] < numbers[1] < 1e6:
        raise ValueError("must be two increasing times in ms, such as [50, 150]")
    return float(numbers[0]), float(numbers[1])


class DataConfig(Table):
    """``[data]``: the recording and its images."""

    format: Format = Field("hdf5", description="how the recording is stored")
    path: ConfigPath = Field(
        Path("recording.h5"), description="the recording, a file or a folder; unused when simulated"
    )
    images: ConfigPath = Field(
        Path("images/"), description="the folder of the images, where the recording names files"
    )
    region: Name = Field("area", description="the unit column whose values are the regions")
    session: Name | None = Field(
        None,
        description="the unit column that tells the sessions of a joined recording apart; where not "
        "given session, if there is one",
    )
    image_size: int = Field(
        224, ge=16, le=4096, description="pixels a side of the square that the backbone sees"
    )
    fit: Literal["error", "crop", "pad"] = Field(
        "error", description="what happens to an image that is not square"
    )
    pixels_per_degree: float = Field(
        0.0,
        ge=0,
        description="pixels per degree of visual angle, of the images as the backbone sees them; "
        "0 = unknown",
    )
    validation_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of the training images, taken by group, that settings are compared on, "
        "where training.folds is 1; "
        "test images never choose anything",
    )
    min_reliability: float = Field(
        0.0,
        ge=0,
        le=1,
        description="units whose mean correlation between two repeats is lower are dropped; 0 keeps all",
    )
    duplicates: Literal["group", "ignore"] = Field(
        "group",
        description="what becomes of training images that occur more than once, exactly or nearly: kept on "
        "one side of every cut, or not looked for",
    )
    test_duplicates: Literal["refuse", "allow"] = Field(
        "refuse",
        description="whether test images may be training images too, exactly or nearly",
    )
    min_explainable: float = Field(
        0.15,
        ge=0,
        lt=1,
        description="units of which a smaller share of a single response's variance is explainable are left out of a "
        "region's mean test scores, and counted; 0 leaves out those without a ceiling only",
    )
    repeats: Literal["drift", "exchangeable"] = Field(
        "drift",
        description="whether what shifts a whole repeat, day or place in the order is noise of that time and is taken "
        "out of scores and ceilings, or repeats are alike but for noise",
    )
    intervals: Literal["groups", "images"] = Field(
        "groups",
        description="what intervals come from: leaving out one group of images after the other, where there are any, else "
        "one image, and a study counts as fitted where its interval says so; or, as before, a bootstrap of images one by "
        "one, and a study counts as fitted by its loss",
    )
    reliability: Literal["computed", "recorded"] = Field(
        "computed",
        description="what min_reliability looks at where the recording does not say: the reliability computed from "
        "the test repeats, or nothing",
    )
    seed: Seed = Field(0, description="seed of the cut into fit and validation images")
    monkey: Literal["N", "F"] | None = Field(
        None, description=f"{TVSD}: which animal, and so which areas lie where"
    )
    stimuli: ConfigPath | None = Field(
        None,
        description=f"{TVSD}: the file that names the images; where not given things_imgs.mat "
        "beside the recording or in _logs/ there",
    )
    window_ms: Annotated[tuple[float, float] | None, BeforeValidator(_window)] = Field(
        None,
        description='with format = "nwb": from when to when spikes count, ms after the start of a '
        "presentation; where not given 50 to 150",
        json_schema_extra={"words": "list of two numbers"},
    )
    n_train: int | None = Field(
        None, ge=50, le=10**6, description=f"{SIMULATED}: training images, each shown once"
    )
    n_test: int | None = Field(None, ge=1, le=10**6, description=f"{SIMULATED}: test images")
    n_repeats: int | None = Field(
        None, ge=1, le=10**6, description=f"{SIMULATED}: presentations of each test image"
    )
    units_per_region: int | None = Field(
        None, ge=1, le=10**6, description=f"{SIMULATED}: units of each of the three regions"
    )
    snr: float | None = Field(
        None,
        gt=0,
        description=f"{SIMULATED}: a unit's signal variance over the noise variance of one "
        'presentation; not with difficulty = "hard", whose units have ratios of their own',
    )
    difficulty: Literal["easy", "hard"] | None = Field(
        None,
        description=f"{SIMULATED}: hard has fields up to the border, colour-opponent units, V4 and "
        "IT of another network than the demo's, and drifting counts of units of 0.2 to 3 times "
        "their noise, with presentations missing; where not given easy",
    )

    @model_validator(mode="after")
    def _keys_match_format(self) -> Self:
        for key, formats in ONLY_WITH.items():
            if getattr(self, key) is not None and self.format not in formats:
                names = " or ".join(f'"{name}"' for name in formats)
                raise problem(
                    key, f'only with data.format = {names}, and it is "{self.format}"; remove it'
                )
        if self.format == "tvsd" and self.monkey is None:
            raise problem("monkey", 'required with data.format = "tvsd": "N" or "F"')
        if self.difficulty == "hard" and self.snr is not None:
            raise problem("snr", 'not with data.difficulty = "hard"; remove it')
        return self

    def options(self) -> dict[str, object]:
        """Return the keys that belong to the format, as far as they are written."""
        return {key: getattr(self, key) for key in ONLY_WITH if getattr(self, key) is not None}
