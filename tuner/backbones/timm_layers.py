"""Which modules of a network of timm's return what timm itself calls its intermediate features: found by comparing.

All modules' outputs are compared, once, with what ``forward_intermediates`` returns for a small image.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tuner.backbones.tokens import Arrangement
from tuner.backbones.trace import Traced

_PROBE_CELLS = 4
_PROBE_SIZE = 96  # px; for networks that take any size


def patch(module: nn.Module) -> int:
    """Side of the patches that a network cuts images into without looking over their edges, px; 1: it does not."""
    embed = getattr(module, "patch_embed", None)
    size = getattr(embed, "patch_size", None)
    if embed is None or size is None or getattr(embed, "dynamic_img_pad", False):
        return 1
    ratio = getattr(embed, "feat_ratio", None)
    whole = ratio(as_scalar=True) if callable(ratio) else size
    return int(max(whole) if isinstance(whole, tuple | list) else whole)


def matched(module: nn.Module, traced: Mapping[str, Traced], size: int | None) -> list[str] | None:
    """Return the modules whose outputs, arranged as they are read, are timm's intermediate features; None: unknown."""
    intermediates = getattr(module, "forward_intermediates", None)
    if intermediates is None:
        return None
    side = size or (patch(module) * _PROBE_CELLS if patch(module) > 4 else _PROBE_SIZE)
    wanted: dict[str, Any] = {"intermediates_only": True, "output_fmt": "NCHW"}
    if "norm" in inspect.signature(intermediates).parameters:
        wanted["norm"] = False
    with torch.no_grad(), _unmodified(module), torch.random.fork_rng(devices=[]):
        image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        try:
            maps = intermediates(image.to(_device(module)), **wanted)
            grids = {
                name: replace(entry.arrangement, kind="tokens")
                if entry.arrangement.kind == "class"
                else entry.arrangement
                for name, entry in traced.items()
                if entry.arrangement
            }
            found = _returning(module, image.to(_device(module)), maps, grids)
        except (RuntimeError, AssertionError, ValueError, NotImplementedError):
            return _named(module)  # a network that was cut off below its end
    return found


def _named(module: nn.Module) -> list[str]:
    """Return the modules that the network itself names as those of its features."""
    described = getattr(module, "feature_info", [])
    return [entry["module"] for entry in getattr(described, "info", described)]


def _returning(
    module: nn.Module,
    image: Tensor,
    maps: list[Tensor],
    arrangements: Mapping[str, Arrangement],
) -> list[str]:
    """Run once and return, for each map, the outermost module that returns it."""
    found: dict[int, str] = {}

    def hook(name: str, read: Arrangement) -> Callable[[nn.Module, object, object], None]:
        def returned(_module: nn.Module, _inputs: object, output: object) -> None:
            try:
                own = read.apply(output)
            except (
                IndexError,
                RuntimeError,
            ):  # it runs several times, and returns other things too
                return
            for number, one in enumerate(maps):
                if own.shape == one.shape and torch.allclose(own, one, rtol=1e-4, atol=1e-5):
                    before = found.get(number)
                    # what returns last and encloses: a stage and not the last of its blocks
                    if before is None or before.startswith(f"{name}."):
                        found[number] = name

        return returned

    parts = dict(module.named_modules())
    handles = [parts[n].register_forward_hook(hook(n, a)) for n, a in arrangements.items()]
    try:
        module(image)
    finally:
        for handle in handles:
            handle.remove()
    preferred = set(_named(module))
    if preferred <= set(arrangements) and len(preferred) == len(maps) == len(found):
        return _named(module)
    return list(dict.fromkeys(found.values()))


@contextmanager
def _unmodified(module: nn.Module) -> Iterator[None]:
    """Keep a network as it is trained to be used while it is run for a look."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))
