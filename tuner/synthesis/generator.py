"""Images out of a generator network: activation maximisation over its code (DGN-AM).

After Nguyen et al. 2016 and their code. The code of each image starts from N(0, 1) and climbs:
the gradient is divided by its mean absolute value, at the image and at the code, and the step
falls linearly to almost nothing. After each step the code is clipped to its bounds and shrunk by
one percent. They return the last image; here the best one is kept.

The network is the user's own: a TorchScript file that turns codes into images, or the state dict
of an architecture known here. Neither is unpickled; but TorchScript is a program, and it runs.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.errors import InputError, unknown
from tuner.synthesis import lucent_bridge
from tuner.synthesis.ascent import FallingAscent, mean_normalised
from tuner.synthesis.canvas import Canvas, Job, draw

DECAY = 0.99
CAFFE_MEAN = (123.0, 117.0, 104.0)
"""Mean RGB of ImageNet in Caffe's models, 0 to 255."""

OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "unit": lambda images: images,
    "symmetric": lambda images: (images + 1) / 2,
    "caffe": lambda images: (
        (images.flip(1) + torch.tensor(CAFFE_MEAN, device=images.device).view(1, 3, 1, 1)) / 255
    ),
}
"""What a network gives: RGB in [0, 1], RGB in [-1, 1], or BGR less Caffe's mean."""


@dataclass(frozen=True)
class Architecture:
    """A network whose state dict can be loaded.

    Attributes
    ----------
    build
        Makes the network with the weights that a state dict holds.
    code
        Shape of a code.
    output
        One of :data:`OUTPUTS`.
    """

    build: Callable[[], nn.Module]
    code: tuple[int, ...]
    output: str


ARCHITECTURES: dict[str, Architecture] = {
    f"upconv-{layer}": Architecture(
        build=lambda layer=layer: lucent_bridge.upconvolution(layer),  # type: ignore[misc]
        code=code,
        output="caffe",
    )
    for layer, code in (
        ("fc6", (4096,)),
        ("fc7", (4096,)),
        ("fc8", (1000,)),
        ("pool5", (256, 6, 6)),
    )
}
"""The generators of Dosovitskiy & Brox 2016 that invert AlexNet's layers, in lucent's layout."""

_KEYS = ("path", "architecture", "code", "output", "bounds", "blake2b")


class GeneratorPrior:
    """The images that a generator network can make.

    Parameters
    ----------
    path
        TorchScript file or, with an architecture, its state dict (``.safetensors``, ``.pt``,
        ``.pth``).
    architecture
        One of :data:`ARCHITECTURES`; None for TorchScript.
    code
        Length or shape of a code; needed for TorchScript.
    output
        What the network gives, one of :data:`OUTPUTS`; the architecture's own by default.
    bounds
        A text file or ``.npy`` of upper bounds, one per code unit, the lower ones being 0 (the
        published mean plus 3 sd of each unit); or a number b for codes in [-b, b]. By default
        [0, infinity) with an architecture and [-3, 3] for TorchScript.
    blake2b
        What the file must hash to; filled in.
    """

    name = "generator"

    def __init__(
        self,
        *,
        path: str | None = None,
        architecture: str | None = None,
        code: int | Sequence[int] | None = None,
        output: str | None = None,
        bounds: str | float | None = None,
        blake2b: str | None = None,
    ) -> None:
        if path is None:
            raise InputError(
                "the generator prior needs a network of your own: give --prior-option path=FILE "
                f"(TorchScript, or a state dict with one of: {', '.join(ARCHITECTURES)})"
            )
        if architecture is not None and architecture not in ARCHITECTURES:
            raise unknown("generator architecture", architecture, ARCHITECTURES)
        known = ARCHITECTURES[architecture] if architecture is not None else None
        if known is None and code is None:
            raise InputError(f"{path}: say how long a code is (code), TorchScript does not tell")
        self.path = Path(path)
        self.architecture = architecture
        shape = known.code if known is not None else code
        self.code: tuple[int, ...] = (
            (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape or ())
        )
        if not self.code or min(self.code) < 1:
            raise InputError(f"generator code = {code!r}: a length, or a shape of positive numbers")
        self.output = output or (known.output if known is not None else "unit")
        if self.output not in OUTPUTS:
            raise unknown("generator output", self.output, OUTPUTS)
        self.bounds = bounds
        self.learning_rate = 8.0 if known is not None else 0.1
        self._low, self._high = self._read_bounds()
        self._digest = self._hash(blake2b)
        self._network: nn.Module | None = None

    @property
    def options(self) -> dict[str, Any]:
        """All that makes this prior again."""
        values = {
            "path": str(self.path),
            "architecture": self.architecture,
            "code": list(self.code),
            "output": self.output,
            "bounds": self.bounds,
            "blake2b": self._digest,
        }
        return {key: value for key, value in values.items() if value is not None}

    def _hash(self, expected: str | None) -> str:
        digest = hashlib.blake2b(digest_size=20)
        try:
            with self.path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{self.path}: generator cannot be read ({error.strerror})") from error
        for bound in self._bound_values():
            digest.update(np.ascontiguousarray(bound).tobytes())
        found = digest.hexdigest()
        if expected is not None and expected != found:
            raise InputError(
                f"{self.path}: not the generator (or the bounds) that the images were made with"
            )
        return found

    def _bound_values(self) -> list[NDArray[np.float32]]:
        return [self._low, self._high]

    def _read_bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        full = np.ones(self.code, dtype=np.float32)
        if self.bounds is None:
            if self.architecture is not None:
                return 0 * full, np.inf * full
            return -3 * full, 3 * full
        if not isinstance(self.bounds, str):
            if not self.bounds > 0:
                raise InputError(f"generator bounds = {self.bounds}: must be positive, or a file")
            return np.float32(-self.bounds) * full, np.float32(self.bounds) * full
        try:
            values = (
                np.load(self.bounds, allow_pickle=False)
                if self.bounds.endswith(".npy")
                else np.loadtxt(self.bounds, dtype=np.float64)
            )
            high = np.asarray(values, dtype=np.float32).reshape(self.code)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.bounds}: must hold {full.size} upper bounds, one per code unit ({error})"
            ) from error
        if not (np.isfinite(high).all() and (high > 0).all()):
            raise InputError(f"{self.bounds}: upper bounds must be positive and finite")
        return 0 * full, high

    def network(self, device: torch.device) -> nn.Module:
        """Load the network, once."""
        if self._network is None:
            self._network = self._load().eval()
            for parameter in self._network.parameters():
                parameter.requires_grad_(False)
        return self._network.to(device)

    def _load(self) -> nn.Module:
        if self.architecture is None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # of TorchScript as a whole
                    warnings.simplefilter("ignore", DeprecationWarning)
                    script: nn.Module = _load_script(str(self.path))
            except (RuntimeError, ValueError, OSError) as error:
                raise InputError(
                    f"{self.path}: not a TorchScript file; a state dict needs an architecture "
                    f"({', '.join(ARCHITECTURES)})"
                ) from error
            return script
        from tuner.backbones.weights import read_state

        state = {key.replace(".1.", "."): value for key, value in read_state(self.path).items()}
        network = ARCHITECTURES[self.architecture].build()
        inner = getattr(network, "G", network)
        own = set(inner.state_dict())
        if not own & set(state):
            state = {key.removeprefix("G."): value for key, value in state.items()}
        try:
            inner.load_state_dict(state, assign=True)
        except (RuntimeError, KeyError) as error:
            raise InputError(
                f"{self.path}: not the weights of {self.architecture} "
                f"({' '.join(str(error).split())[:200]})"
            ) from error
        module: nn.Module = inner
        return module

    def images(self, network: nn.Module, code: Tensor, size: int) -> Tensor:
        """Images ``(B, 3, size, size)`` in [0, 1] of codes; the gradient is normalised on its way.

        Raises
        ------
        InputError
            If the network does not take such codes, or gives no images.
        """
        try:
            made = network(code)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-200:]
            raise InputError(
                f"{self.path}: does not take codes of shape {self.code} ({reason})"
            ) from error
        if not isinstance(made, Tensor) or made.ndim != 4 or made.shape[1] != 3:
            shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise InputError(f"{self.path}: gives {shape}, not RGB images (batch, 3, H, W)")
        images = OUTPUTS[self.output](made.float()).clamp(0, 1)
        if images.requires_grad:
            torch.Tensor.register_hook(images, mean_normalised)  # type: ignore[no-untyped-call]
        if images.shape[2:] != (size, size):
            images = nn.functional.interpolate(
                images, size=(size, size), mode="bilinear", antialias=True, align_corners=False
            )
        return images.clamp(0, 1)

    def start(
        self,
        jobs: Sequence[Job],
        size: int,
        *,
        seed: int,
        steps: int,
        learning_rate: float,
        weight_decay: float,
        device: torch.device,
    ) -> Canvas:
        """Begin with codes from N(0, 1), within the bounds."""
        low = torch.from_numpy(self._low).to(device)
        high = torch.from_numpy(self._high).to(device)
        drawn = np.stack([draw(seed, job, self.code) for job in jobs])
        code = torch.from_numpy(drawn).to(device).clamp(low, high).requires_grad_(True)
        network = self.network(device)
        optimizer = FallingAscent([code], learning_rate, steps)

        def after_step(step: int) -> None:
            with torch.no_grad():
                code.clamp_(low, high).mul_(DECAY * (1 - weight_decay))

        return Canvas([code], lambda: self.images(network, code, size), optimizer, after_step)


def _load_script(path: str) -> nn.Module:
    script: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return script


def from_options(options: Mapping[str, Any]) -> GeneratorPrior:
    """Make the prior from plain values, as a manifest holds them.

    Raises
    ------
    InputError
        If a key does not exist, or what it names does not.
    """
    for key in options:
        if key not in _KEYS:
            raise unknown("option", key, _KEYS, "prior generator")
    return GeneratorPrior(**options)
