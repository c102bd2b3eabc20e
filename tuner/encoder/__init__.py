"""The encoder of a region: from an image to the responses of its units."""

from __future__ import annotations

from tuner.encoder.files import load_encoder, save_encoder
from tuner.encoder.model import Encoder, as_batch
from tuner.encoder.stacked import StackedEncoder
from tuner.encoder.together import Together

__all__ = ["Encoder", "StackedEncoder", "Together", "as_batch", "load_encoder", "save_encoder"]
