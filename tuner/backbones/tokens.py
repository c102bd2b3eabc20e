"""How what a module returns becomes a map of the image: maps as they are, tokens laid out by rows and columns.

A transformer hands on tokens (batch, tokens, channels): first those that stand for no place (class, registers), then
one for each patch, row by row. Some hand on maps with the channels last. Both become (batch, channels, height, width).
Images are square, so the patches are as many down as across.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from torch import Tensor

from tuner.backbones.views import View

Keep = Literal["grid", "class"]
Kind = Literal["map", "channels last", "tokens", "class"]


@dataclass(frozen=True)
class Tokens:
    """What is known of the tokens of a network.

    Attributes
    ----------
    prefix
        Tokens before those of the patches; -1 where it is not known, and then 0 or 1, as the number of tokens has it.
    has_class
        Whether the first of them stands for the whole image.
    channels_last
        Whether maps are handed on as (batch, height, width, channels), where their shape does not tell.
    keep
        Which tokens become the map: those of the patches, or the class token, as a map of one cell.
    item
        Which of several tensors that a module hands on are the tokens of patches.
    orders
        Module to the place among its tokens of every patch, row by row, where that is another order than theirs.
    """

    prefix: int = -1
    has_class: bool = False
    channels_last: bool = False
    keep: Keep = "grid"
    item: int = 0
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Arrangement:
    """How one module's output is read.

    Attributes
    ----------
    kind
        What the module returns: a map, a map with its channels last, tokens; or that its class token is taken.
    prefix
        Of tokens, how many stand before those of the patches.
    item
        Which of several tensors it is.
    order
        Of tokens, where each patch stands among them, row by row; empty where that is their order.
    """

    kind: Kind = "map"
    prefix: int = 0
    item: int = 0
    order: tuple[int, ...] = ()

    def apply(self, output: object) -> Tensor:
        """Return a module's output as a map (B, C, h, w)."""
        tensor = one_of(output, self.item)
        if self.kind == "map":
            return tensor
        if self.kind == "channels last":
            return tensor.permute(0, 3, 1, 2)
        if self.kind == "class":
            return tensor[:, 0, :, None, None]
        side = math.isqrt(tensor.shape[1] - self.prefix)
        patches = tensor[:, self.prefix :]
        if self.order:
            patches = patches[:, list(self.order)]
        patches = patches.transpose(1, 2)
        return patches.reshape(*patches.shape[:2], side, side)


MAP = Arrangement()


def one_of(output: object, item: int = 0) -> Tensor:
    """Return a tensor, or one of several (some transformers hand on their grid's size beside the tokens)."""
    several = isinstance(output, tuple)
    return cast("Tensor", output[item] if several else output)  # type: ignore[index]


def arrangement(
    output: object, view: View | None, tokens: Tokens | None, name: str = ""
) -> Arrangement | None:
    """Tell how a module's output is read, None where it is no map of the image.

    Parameters
    ----------
    output
        What the module returned for one image.
    view
        How it relates to the image, as far as that could be followed.
    tokens
        What is known of the network's tokens; None for a network that has none.
    name
        The module's path.
    """
    if isinstance(output, Tensor) and output.ndim == 4 and view and view.axes == (2, 3):
        return MAP if tokens is None or tokens.keep == "grid" else None
    if tokens is None:
        return None
    item = 0
    if isinstance(output, tuple) and output:
        item = min(tokens.item, len(output) - 1)
        output = output[item]
    if not isinstance(output, Tensor) or output.ndim not in (3, 4) or len(output) != 1:
        return None
    if output.ndim == 3:
        found = _of_tokens(int(output.shape[1]), tokens)
        order = tokens.orders.get(name, ())
        if found is None or (order and len(order) != output.shape[1]):
            return None
        return replace(found, item=item, order=order)
    if tokens.keep == "class":
        return None
    _, one, two, three = output.shape
    if view and view.axes == (1, 2):
        return Arrangement("channels last")
    if one == two and (two != three or tokens.channels_last):
        return Arrangement("channels last")
    return MAP if two == three else None


def _of_tokens(count: int, tokens: Tokens) -> Arrangement | None:
    for prefix in (0, 1) if tokens.prefix < 0 else (tokens.prefix, 0):
        patches = count - prefix
        if patches > 0 and math.isqrt(patches) ** 2 == patches:
            if tokens.keep == "grid":
                return Arrangement("tokens", prefix)
            return Arrangement("class", prefix) if tokens.has_class and prefix else None
    return None
