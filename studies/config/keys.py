"""The tables of ``tuner.toml``: every key with its kind, its default and what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_serializer,
    field_validator,
    model_validator,
)

from studies.config.ranges import Space, parse_spaces, plain_space, problem
from studies.config.values import (
    ConfigPath,
    Device,
    Memory,
    Name,
    Size,
    StorageUrl,
    Weights,
    redact,
)

Format = Literal["hdf5", "tvsd", "tvsd-arrays", "nwb", "simulated"]
Count = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]

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


class Table(BaseModel):
    """What every table shares: nothing unknown, nothing converted, nothing changed afterwards."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        hide_input_in_errors=True,
    )


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
        description="what intervals are drawn over: groups of images where there are any, and a study counts as "
        "fitted where its interval says so; or images one by one, and a study counts as fitted by its loss",
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


def _layers(value: object) -> object:
    if value == "all":
        return value
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ValueError('must be "all" or a list of module paths, such as ["features.0"]')
    if not value:
        raise ValueError('needs at least one module path, or "all"')
    for index, layer in enumerate(value):
        if not isinstance(layer, str) or not layer.strip() or not layer.isprintable():
            raise problem(f"[{index}]", 'must be a module path in quotes, such as "features.0"')
        if layer in value[:index]:
            raise problem(f"[{index}]", f'"{layer}" is listed twice; remove one')
    return tuple(value)


def _three(value: object) -> object:
    """Read a number for each of red, green and blue."""
    if value is None:
        return None
    given = list(value) if isinstance(value, list | tuple) else []
    numbers = [v for v in given if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(given) != 3 or len(numbers) != 3 or not all(-1e6 < v < 1e6 for v in numbers):
        raise ValueError("must be three numbers, of red, green and blue, such as [0.5, 0.5, 0.5]")
    return tuple(float(v) for v in numbers)


def _rectify(value: object) -> object:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError('must be "auto", true or false')


Three = Annotated[tuple[float, float, float] | None, BeforeValidator(_three)]


class BackboneConfig(Table):
    """``[[backbone]]``: a network, and the layers of it that are tried."""

    name: Name = Field(
        description="vgg19, inceptionv1, efficientnet_lite0, any torchvision classification model, "
        "timm/NAME for any network of timm's, package.module:function for one of your own, pixels or gabor"
    )
    timm: tuple[str, ...] | None = Field(
        None,
        description="in the place of a name: patterns, such as vit_small*, of networks of timm's that are "
        "published; each becomes a table of its own with the other keys of this one",
    )
    alias: Name = Field(
        "",
        validate_default=False,
        description="what studies and figures call it, unique; where not given its name",
    )
    layers: Annotated[tuple[str, ...] | Literal["all"], BeforeValidator(_layers)] = Field(
        "all", description="module paths, or the backbone's canonical list"
    )
    weights: Weights = Field(
        "imagenet",
        description="the published weights, whatever they were trained on, random ones (seeded), or those of a file",
        json_schema_extra={"words": '"imagenet" or "random" or path (.pth, .safetensors)'},
    )
    max_grid: int = Field(
        28,
        ge=0,
        le=4096,
        description="rectified maps are average-pooled to at most this many cells a side; "
        "0 = never",
    )
    mean: Three = Field(
        None,
        description="what the network expects its input to be less, of images in [0, 1]; needed with "
        "weights from a file, else the network's own",
        json_schema_extra={"words": "list of three numbers"},
    )
    std: Three = Field(
        None,
        description="what its input is divided by after that; needed with weights from a file",
        json_schema_extra={"words": "list of three numbers"},
    )
    tokens: Literal["grid", "class"] = Field(
        "grid",
        description="what becomes of a transformer's tokens: those of the patches are laid out by rows "
        "and columns and class and register tokens dropped, or the class token alone is a map of one cell",
    )
    rectify: Annotated[bool | Literal["auto"], BeforeValidator(_rectify)] = Field(
        "auto",
        description="which layers are centred and rectified before they are read: auto, those that can "
        "return values below 0, while others are only scaled; true, all; false, none: signed ones are centred "
        "and scaled and keep their sign",
        json_schema_extra={"words": '"auto" or true or false'},
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="what the network computes in; half precision is faster on a GPU that has it and changes "
        "features in their third digit (bfloat16) or fourth (float16). Readouts are trained in float32 in any case",
    )
    size: int | None = Field(
        None,
        ge=16,
        le=4096,
        description="pixels a side of the only images that a network of your own takes, which data.image_size must "
        "then be; where not given it takes any",
    )
    seeds: int = Field(
        1,
        ge=1,
        le=100,
        description='with weights = "random": so many draws, each with studies of its own under the alias and '
        "its number (alias-1, alias-2, ...), shown as a band",
    )

    _draw: int = PrivateAttr(default=0)
    _draws_of: str = PrivateAttr(default="")

    @property
    def draw(self) -> int:
        """Which draw of random weights it is, from 0."""
        return self._draw

    @property
    def draws_of(self) -> str:
        """The alias that several draws share; empty where there is one."""
        return self._draws_of

    @model_validator(mode="after")
    def _only_random_weights_are_drawn(self) -> Self:
        if self.seeds > 1 and self.weights != "random":
            raise problem("seeds", 'only with weights = "random"; remove it')
        return self

    @model_validator(mode="before")
    @classmethod
    def _alias_is_name(cls, document: object) -> object:
        if isinstance(document, dict) and "alias" not in document and "name" in document:
            return {**document, "alias": document["name"]}
        return document


def _folds(value: object) -> object:
    """Take the word, or a number that leaves each fold an image or more."""
    if value == "auto":
        return value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_FOLDS:
        raise ValueError(f'must be "auto" or an integer from 1 to {MAX_FOLDS}')
    return value


MAX_FOLDS = 100
Folds = Annotated[int | Literal["auto"], BeforeValidator(_folds)]


class TrainingConfig(Table):
    """``[training]``: how one trial is fitted, the same for all."""

    steps: Count = Field(900, description="optimiser steps of a trial")
    batch_size: Count = Field(50, description="images a step")
    report_every: Count = Field(
        45,
        description="steps between validations, one grid for all trials, from the last rung on where "
        "there are rungs; the last step is always reported",
    )
    loss: Literal["mse", "poisson"] = Field(
        "mse",
        description="squared error of z-scored responses, or Poisson likelihood of counts "
        "(output through ELU + 1)",
    )
    start: Literal["auto", "closed_form", "readout"] = Field(
        "auto",
        description="what columns begin with: the closed form that knows where each unit looks, or "
        "the readout's own start; auto: the closed form below 1,500 training images, on grids of at "
        "least 4 cells a side",
    )
    folds: Folds = Field(
        "auto",
        description="into how many parts the images are dealt, by group; each trial is fitted once "
        "without each part and judged on that part, its encoder is the average; 1 = one cut, by "
        "data.validation_fraction; auto = 5 below 4000 training images, else 1",
        json_schema_extra={"words": '"auto" or integer, at least 1'},
    )
    relative: bool = Field(
        True,
        description="whether validation losses are divided by that of predicting every unit's mean on "
        "the same images, so that a fit that is no better has a loss of 1; with folds and under "
        "poisson it is 1 without",
    )
    center: bool = Field(
        True,
        description="whether the mean over the images is taken from each feature; encoders read "
        "features as they are all the same",
    )
    size_invariant: bool = Field(
        True,
        description="whether learning rates and penalties mean the same at every size of a layer: they are what "
        "is written at one of 64 channels on 8 x 8 cells, and elsewhere multiplied by the root of a ratio of sizes, so "
        "that copies of the same features change nothing",
    )
    device: Device = Field(
        "auto",
        description="where it runs",
        json_schema_extra={"words": '"auto" or "cpu" or "cuda" or "cuda:0" or "mps"'},
    )
    memory: Memory = Field(
        "auto",
        description="what training may take on that device",
        json_schema_extra={"words": '"auto" or a size, such as "4GB"'},
    )

    @model_validator(mode="after")
    def _reports_before_the_end(self) -> Self:
        if self.report_every > self.steps:
            raise problem(
                "report_every",
                f"must be at most training.steps ({self.steps}), not {self.report_every}",
            )
        return self


def _warm(value: object) -> object:
    """Take the words, and what the releases before wrote."""
    if value is True:
        return "neighbour"
    if value is False or value in ("finished", "neighbour"):
        return value
    raise ValueError('must be "finished", "neighbour" or false')


class SearchConfig(Table):
    """``[search]``: how settings are chosen, and which are possible."""

    sampler: Literal["tpe", "random"] = Field("tpe", description="what proposes settings")
    proposals: Literal["tuner", "optuna"] = Field(
        "tuner",
        description="who computes what tpe proposes: tuner, a round's trials at once, or optuna's own sampler, "
        "as before; they differ by rounding alone, and in time",
    )
    pruner: Literal["median", "none"] = Field(
        "median", description="what stops trials that do worse than the others"
    )
    rungs: Literal["auto", "reports"] = Field(
        "auto",
        description="where trials are stopped: at a fifteenth of the steps the worst quarter of all trials that "
        "reached it, at a sixth and a third the worse half; or by the median rule at every report from 30 % on, as before",
    )
    parallel_trials: Count = Field(
        8, description="trials of a study that are asked together: a round"
    )
    keep: Count = Field(3, description="best trials of a study whose weights are kept")
    warm_start: Annotated[Literal["finished", "neighbour", False], BeforeValidator(_warm)] = Field(
        "finished",
        description="a study's first trials: the best settings of up to 8 others of its readout, nearest "
        "first, which are begun before it, where they are fewer also settings known to be good; "
        "neighbour: the first trial of its second round is the best "
        "of the next shallower layer, as before (true means this too); false: nothing is taken over",
        json_schema_extra={"words": '"finished" or "neighbour" or false'},
    )
    seed: Seed = Field(0, description="seed of sampler, initial weights and batches")
    space: dict[str, Space] = Field(
        default_factory=dict,
        description="one table per readout that is to be tried; where none is given, all",
    )

    @field_validator("space", mode="plain")
    @classmethod
    def _space(cls, document: object) -> dict[str, Space]:
        return parse_spaces(document)

    @field_serializer("space")
    def _plain_space(self, space: dict[str, Space]) -> dict[str, dict[str, object]]:
        return {readout: plain_space(settings) for readout, settings in space.items()}


class StorageConfig(Table):
    """``[storage]``: where results and features are kept."""

    url: StorageUrl = Field(
        default="sqlite:///tuner.db",  # type: ignore[assignment]  # checked like what is written
        description="the database: sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME; "
        "$NAME and ${NAME} are replaced by environment variables",
        json_schema_extra={"words": "address"},
    )
    artifacts: ConfigPath = Field(
        Path("artifacts/"), description="folder of kept weights, curves and images"
    )
    cache: ConfigPath = Field(
        Path("cache/"), description="folder of extracted features; may be deleted at any time"
    )
    cache_limit: Size = Field(
        "100GB",  # type: ignore[assignment]  # checked like what is written
        description="disk that the cache may take",
        json_schema_extra={"words": 'size, such as "100GB"'},
    )

    @property
    def redacted_url(self) -> str:
        """The address without its password, for people to read."""
        return redact(self.url.get_secret_value())

    @model_validator(mode="after")
    def _folders_differ(self) -> Self:
        if self.cache == self.artifacts:
            raise problem("cache", "must be another folder than storage.artifacts")
        return self
