"""What a worker does for an export, and what it sends back: scores of a study, or the files of its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.cluster import messages
from studies.export.encoders import files_of
from studies.results.encoders import Ingredients
from studies.results.scores import Scored, score

if TYPE_CHECKING:
    from torch import Tensor

    from studies.grid import Spec
    from studies.workspace import Workspace
    from tuner.encoder import EncoderFiles


_LINE = 64
"""Bytes; products of floats round by where in memory, modulo this, they begin."""


def pack_weights(header: dict[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Kept weights, to be sent, with where in memory each begins."""
    places = {name: tensor.data_ptr() % _LINE for name, tensor in tensors.items()}
    return messages.pack(header | {"places": places}, tensors)


def weights_of(message: messages.Message) -> dict[str, Tensor]:
    """Kept weights that were sent, beginning in memory as they did, so that what is computed of them has the same bytes."""
    import torch

    out = {}
    for name, tensor in message.tensors.items():
        place, size = message.header["places"][name], tensor.nbytes
        room = torch.empty(size + _LINE, dtype=torch.uint8)
        begin = (place - room.data_ptr()) % _LINE
        out[name] = room[begin : begin + size].view(tensor.dtype).view(tensor.shape)
        out[name].copy_(tensor)
    return out


def score_for(workspace: Workspace, spec: Spec, message: messages.Message) -> bytes:
    """What a worker answers that is to score a study's weights."""
    header = message.header
    if "lost" in header:
        return messages.pack({"lost": True})
    worth = score(
        workspace,
        spec,
        weights_of(message),
        value=header["value"],
        finished=header["finished"],
    )
    return pack_scored(worth)


def encode_for(workspace: Workspace, spec: Spec, message: messages.Message) -> bytes:
    """What a worker answers that is to make a study's encoder."""
    header = message.header
    if "lost" in header:
        return messages.pack({"lost": header["lost"]})
    what = ingredients_of(message)
    return pack_files(files_of(workspace, spec, what, header["with_backbone"]))


def ingredients_of(message: messages.Message) -> Ingredients:
    """What a worker is to make an encoder of."""
    parts: dict[str, dict[str, Tensor]] = {"parameters": {}, "own": {}}
    for name, tensor in weights_of(message).items():
        part, _, name_in_it = name.partition("/")
        parts[part][name_in_it] = tensor
    header = message.header
    return Ingredients(
        parts["parameters"],
        parts["own"] or None,
        header["trial"],
        header["value"],
        header["judged"],
        header["finished"],
    )


def pack_files(files: EncoderFiles) -> bytes:
    """The files of an encoder, to be sent."""
    import torch

    parts = {"tensors": files.tensors, "text": files.description}
    return messages.pack(
        {},
        {name: torch.frombuffer(bytearray(one), dtype=torch.uint8) for name, one in parts.items()},
    )


def pack_scored(worth: Scored) -> bytes:
    """What a study's weights are worth, to be sent: every number as it is."""
    import torch

    columns = {name: np.asarray(values) for name, values in worth.units.items()}
    arrays = {f"units/{name}": values for name, values in columns.items()}
    arrays["image_losses"] = worth.image_losses
    arrays["unit_losses"] = worth.unit_losses
    if worth.parts is not None:
        arrays["parts"] = worth.parts
    return messages.pack(
        {
            "row": {n: v.item() if isinstance(v, np.generic) else v for n, v in worth.row.items()},
            "columns": list(columns),
            "intervals": {
                name: [float(one) for one in pair] for name, pair in worth.intervals.items()
            },
        },
        {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()},
    )


def scored_of(message: bytes) -> Scored | None:
    """What a worker found a study's weights to be worth; None where there were none to send."""
    arrived = messages.unpack(message)
    header, tensors = arrived.header, arrived.tensors
    if "lost" in header:
        return None
    return Scored(
        header["row"],
        {name: tensors[f"units/{name}"].numpy() for name in header["columns"]},
        {name: (low, high) for name, (low, high) in header["intervals"].items()},
        tensors["image_losses"].numpy(),
        tensors["parts"].numpy() if "parts" in tensors else None,
        tensors["unit_losses"].numpy(),
    )
