"""In which precision a network computes: single, or half where that is asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from tuner.errors import InputError

Precision = Literal["float32", "bfloat16", "float16"]
FULL: Precision = "float32"


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which products and convolutions are computed in a precision, and sums and norms in single.

    Parameters
    ----------
    precision
        What was asked for. It means the same on every device; nothing is chosen by what a device can do.
    device
        Where the network is.

    Raises
    ------
    InputError
        If the device has no such precision.
    """
    if precision == FULL:
        return nullcontext()
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float16
    lacking = f'device {device} does not compute in {precision}; set backbone.precision = "float32"'
    if kind is torch.bfloat16 and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise InputError(f'{lacking} or "float16"')
    try:
        return torch.autocast(device.type, dtype=kind)
    except RuntimeError as error:
        raise InputError(lacking) from error
