"""Several encoders on the same images: those that read the same features share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tuner.encoder.model import Encoder
from tuner.errors import InputError


class Together:
    """Encoders that read images of one size.

    Encoders of one backbone, layer and normalisation, such as the trials of a study or its two
    readouts, see the same features; these are computed once per batch.

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
        self._groups: dict[tuple[str, str, str], list[int]] = {}
        for number, encoder in enumerate(self.encoders):
            key = (encoder.backbone.digest, encoder.layer, encoder.normalization_checksum())
            self._groups.setdefault(key, []).append(number)

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
        for members in self._groups.values():
            first = self.encoders[members[0]]
            features = first.features(images.to(first.device))
            for number in members:
                yield number, self.encoders[number], features

    def respond(self, images: Tensor) -> list[Tensor]:
        """Return each encoder's responses ``(B, n_units)``, in the order of the encoders."""
        found: dict[int, Tensor] = {}
        for number, encoder, features in self.features(images):
            drive = encoder.readout.predict(encoder.readout_parameters, features)
            found[number] = encoder.respond(drive)
        return [found[number] for number in range(len(self.encoders))]
