"""What each module of a network returns, found by running it once on tensors without storage.

A forward pass on the ``meta`` device costs milliseconds and no memory. Every torch function that
runs is seen, whether a module or a bare function called it, so padding by hand, concatenated
branches and in-place activations are all accounted for. Each tensor carries the window of the
image that its first cell sees and the distance by which the window moves from cell to cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tuner.backbones.tokens import Arrangement, Tokens, arrangement
from tuner.backbones.views import View, Window, argument, follow, tensors


@dataclass(frozen=True)
class Traced:
    """One module's output.

    Attributes
    ----------
    name
        Module path.
    order
        Position among all modules by when they first returned.
    calls
        How often the module ran.
    shape
        (C, H, W) of a map, or None for what is no map of the image (vectors, tuples).
    window
        What its cells see; None where that is the whole image or not known.
    nonnegative
        True where the output cannot be below 0, as after a ReLU.
    macs
        Multiply-adds of convolutions and linear layers from the image up to here, per image.
    composite
        True for a module made of modules.
    arrangement
        How the output becomes that map; None for what is none.
    """

    name: str
    order: int
    calls: int
    shape: tuple[int, int, int] | None
    window: Window | None
    nonnegative: bool
    macs: int
    composite: bool
    arrangement: Arrangement | None


class _Enough(BaseException):
    """Ends a pass once every module of interest has returned; no network may handle it."""


def trace(
    module: nn.Module,
    image_size: int,
    upto: Iterable[str] | None = None,
    tokens: Tokens | None = None,
) -> dict[str, Traced]:
    """Run a network on one image without storage and describe what every module returned.

    Parameters
    ----------
    module
        The network, taking (B, 3, H, W).
    image_size
        Side of the square image, px.
    upto
        Module paths after which to stop; None runs the whole network, as far as it goes. A network
        that fails on an image of this size is described up to the failure.
    tokens
        What is known of the network's tokens; None for a network that has none.

    Returns
    -------
    dict
        Module path to description, in order of first return.
    """
    names = {child: name for name, child in module.named_modules() if name}
    # by module, each once: one that lies at two paths would be left without storage, were both exchanged
    state = {
        f"{path}.{name}" if path else name: torch.empty_like(tensor, device="meta")
        for path, child in module.named_modules()
        for name, tensor in (
            *child.named_parameters(recurse=False, remove_duplicate=False),
            *child.named_buffers(recurse=False, remove_duplicate=False),
        )
    }
    mode = _Mode()
    found: dict[str, Traced] = {}
    pending = None if upto is None else set(upto)

    def returned(child: nn.Module, _inputs: object, output: object) -> None:
        name = names[child]
        view = mode.view(output)
        read = arrangement(output, view, tokens, name)
        shape = None
        if read is not None:
            _, channels, height, width = read.apply(output).shape
            shape = (int(channels), int(height), int(width))
        before = found.get(name)
        found[name] = Traced(
            name=name,
            order=before.order if before else len(found),
            calls=before.calls + 1 if before else 1,
            shape=shape,
            window=view.window if view and read and read.kind != "class" else None,
            nonnegative=bool(view and view.nonnegative),
            macs=mode.macs,
            composite=any(True for _ in child.children()),
            arrangement=read,
        )
        if pending is not None:
            pending.discard(name)
            if not pending:
                raise _Enough

    handles = [child.register_forward_hook(returned) for child in names]
    try:
        with torch.no_grad():
            image = torch.empty(1, 3, image_size, image_size, device="meta")
            mode.begin(image)
            with mode:
                torch.func.functional_call(module, state, (image,), tie_weights=False)
    except (_Enough, RuntimeError, ValueError, AssertionError):
        # RuntimeError and its like: the image is too small, or of the wrong size, for what is left
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found


class _Mode(TorchFunctionMode):
    """Follows views through the torch functions that run, and counts multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        # tensors are kept alive, so that an id never stands for two of them
        self._views: dict[int, tuple[Tensor, View]] = {}
        # what comes from the image by ways that are not followed, such as attention
        self._lost: dict[int, Tensor] = {}

    def begin(self, image: Tensor) -> None:
        self._views[id(image)] = (image, View((2, 3), Window()))

    def view(self, value: object) -> View | None:
        entry = self._views.get(id(value))
        return entry[1] if entry else None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = tensors((*args, *kwargs.values()))
        inputs = [t for t in given if id(t) in self._views]
        lost = [tuple(t.shape) for t in given if id(t) in self._lost]
        before = [(t, tuple(t.shape), self._views[id(t)][1]) for t in inputs]
        name = getattr(func, "__name__", "")
        if name == "batch_norm":
            # Element by element. Without storage torch would take it apart in Python, and load its compiler for that.
            output = torch.empty_like(argument(args, kwargs, 0, "input", None))
        else:
            output = func(*args, **kwargs)
        for tensor in tensors((output,)):
            self._count(name, tensor, args, kwargs)
            view = follow(name, tensor, before, args, kwargs)
            if view and any(_as_large(shape, tensor, view) for shape in lost):
                view = replace(view, window=None, nonnegative=False)
            if view is None:
                self._views.pop(id(tensor), None)
                if inputs or lost:
                    self._lost[id(tensor)] = tensor
            else:
                self._lost.pop(id(tensor), None)
                self._views[id(tensor)] = (tensor, view)
        return output

    def _count(
        self, name: str, output: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        if name in ("conv2d", "linear"):
            weight = argument(args, kwargs, 1, "weight", None)
            self.macs += output[0].numel() * weight[0].numel()


def _as_large(shape: tuple[int, ...], output: Tensor, view: View) -> bool:
    """Tell whether a tensor has the output's cells: what has but one (a gate) says where in no sense."""
    if len(shape) != output.ndim:
        return False
    return all(shape[axis] == output.shape[axis] > 1 for axis in view.axes)
