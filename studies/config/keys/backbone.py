"""The tables ``[[backbone]]``: a network, its weights, and the layers of it that are tried."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from studies.config.keys.table import Table
from studies.config.ranges import problem
from studies.config.values import Name, Weights


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
