"""The encoder of a region: from an image to the responses of its units."""

from __future__ import annotations

from tuner.encoder.files import (
    EncoderFiles,
    encoder_files,
    load_encoder,
    save_encoder,
    write_encoder,
)
from tuner.encoder.model import Encoder
from tuner.encoder.prepare import as_batch
from tuner.encoder.stacked import StackedEncoder
from tuner.encoder.together import Together

__all__ = [
    "Encoder",
    "EncoderFiles",
    "StackedEncoder",
    "Together",
    "as_batch",
    "encoder_files",
    "load_encoder",
    "save_encoder",
    "write_encoder",
]
