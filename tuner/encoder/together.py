"""Several encoders on the same images: those that read the same features share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tuner.encoder.model import Encoder
from tuner.errors import InputError


class Together:
    """Encoders that read images of one size.

    Encoders of one backbone share its pass over a batch; those of one layer and normalisation, such as the trials of a
    study or its readouts, share their features.

    Raises
    ------
    InputError
        If there is none, or they read images of different sizes.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        if not encoders:
            raise InputError("no encoder is given")
        self.encoders = list(encoders)
        sizes = {encoder.image_size for encoder in self.encoders}
        if len(sizes) > 1:
            raise InputError(
                f"encoders of different image sizes ({', '.join(map(str, sorted(sizes)))} px) "
                "cannot be shown the same images"
            )
        self._groups: dict[str, dict[tuple[str, str], list[int]]] = {}
        for number, encoder in enumerate(self.encoders):
            read = (encoder.layer, encoder.normalization_checksum())
            of_backbone = self._groups.setdefault(encoder.backbone.digest, {})
            of_backbone.setdefault(read, []).append(number)

    @property
    def image_size(self) -> int:
        """Side of the images, px."""
        return self.encoders[0].image_size

    @property
    def device(self) -> torch.device:
        """Where the first encoder runs."""
        return self.encoders[0].device

    def features(self, images: Tensor) -> Iterator[tuple[int, Encoder, Tensor]]:
        """Yield each encoder's number, the encoder, and its features of the images."""
        for groups in self._groups.values():
            shared = self.encoders[next(iter(groups.values()))[0]]
            layers = list(dict.fromkeys(layer for layer, _ in groups))
            outputs = shared.outputs(images.to(shared.device), layers)
            for (layer, _), members in groups.items():
                features = self.encoders[members[0]].normalization.apply(outputs[layer])
                for number in members:
                    yield number, self.encoders[number], features

    def respond(self, images: Tensor) -> list[Tensor]:
        """Return each encoder's responses ``(B, n_units)``, in the order of the encoders."""
        found: dict[int, Tensor] = {}
        for number, encoder, features in self.features(images):
            drive = encoder.readout.predict(encoder.readout_parameters, features)
            found[number] = encoder.respond(drive)
        return [found[number] for number in range(len(self.encoders))]
