"""How torch functions move the window of the image that a cell of a tensor sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """The pixels that cell 0 of a map sees, and how far the next cell's window lies.

    Attributes
    ----------
    low, high
        First and last pixel seen by cell 0, (y, x); negative where the window begins in padding.
    stride
        Pixels from one cell's window to the next one's, (y, x).
    """

    low: Pair = (0, 0)
    high: Pair = (0, 0)
    stride: Pair = (1, 1)

    def slide(self, kernel: Pair, step: Pair, padding: Pair, dilation: Pair) -> Window:
        """Return the window of a convolution or pooling over a map that has this one."""
        low = tuple(self.low[a] - self.stride[a] * padding[a] for a in (0, 1))
        reach = tuple((kernel[a] - 1) * dilation[a] - padding[a] for a in (0, 1))
        high = tuple(self.high[a] + self.stride[a] * reach[a] for a in (0, 1))
        stride = tuple(self.stride[a] * step[a] for a in (0, 1))
        return Window((low[0], low[1]), (high[0], high[1]), (stride[0], stride[1]))

    def shift(self, before: Pair) -> Window:
        """Return the window after ``before`` cells were padded on at the top and the left."""
        return replace(
            self,
            low=(
                self.low[0] - self.stride[0] * before[0],
                self.low[1] - self.stride[1] * before[1],
            ),
            high=(
                self.high[0] - self.stride[0] * before[0],
                self.high[1] - self.stride[1] * before[1],
            ),
        )

    @staticmethod
    def union(windows: Sequence[Window]) -> Window | None:
        """Return the smallest window that holds all; None where their strides differ."""
        if len({w.stride for w in windows}) != 1:
            return None
        low = (min(w.low[0] for w in windows), min(w.low[1] for w in windows))
        high = (max(w.high[0] for w in windows), max(w.high[1] for w in windows))
        return Window(low, high, windows[0].stride)


@dataclass(frozen=True)
class View:
    """How a tensor relates to the image: its (y, x) dimensions, their window, its sign."""

    axes: Pair
    window: Window | None  # None: cells see the whole image, or what they see is not known
    nonnegative: bool = False


def follow(
    name: str,
    output: Tensor,
    inputs: Sequence[tuple[Tensor, tuple[int, ...], View]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> View | None:
    """Return the view of a function's output, None where it is no map of the image any more."""
    if not inputs:
        return None
    _, shape, first = inputs[0]
    if name in _WINDOWS:
        return _slide(name, first, args, kwargs)
    if name == "pad":
        return _pad(first, len(shape), args, kwargs)
    if name in ("permute", "transpose", "swapaxes"):
        return _reorder(name, first, len(shape), args, kwargs)
    if name in ("view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten"):
        return _reshape(first, shape, tuple(output.shape))
    view = _merge(name, output, inputs)
    if view and _clips_below_zero(name, args, kwargs):
        view = replace(view, nonnegative=True)
    return view


_WINDOWS = ("conv2d", "max_pool2d", "avg_pool2d", "lp_pool2d")
# what returns values that are not below 0, whatever it is given
_RECTIFIERS = ("relu", "relu_", "relu6", "sigmoid", "sigmoid_", "hardsigmoid", "softmax")
# what returns values that are not below 0 where its inputs are not
_SIGN_KEEPERS = (
    *("cat", "concat", "stack", "chunk", "split", "__getitem__", "contiguous", "clone", "detach"),
    *("dropout", "dropout2d", "feature_dropout", "local_response_norm", "add", "__add__"),
    *("add_", "__iadd__", "mul", "__mul__", "mul_", "__imul__", "adaptive_avg_pool2d"),
    *("adaptive_max_pool2d", "mean", "to", "float"),
)


def _clips_below_zero(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell a clamp at 0 (torch's ReLU6 is one) from a clamp at another value."""
    if name in ("hardtanh", "hardtanh_"):
        return bool(argument(args, kwargs, 1, "min_val", -1.0) >= 0)
    if name in ("clamp", "clamp_", "clip", "clamp_min"):
        least = argument(args, kwargs, 1, "min", None)
        return isinstance(least, (int, float)) and least >= 0
    return False


def _slide(name: str, view: View, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> View | None:
    if view.axes != (2, 3):
        return None
    if name == "conv2d":
        weight = argument(args, kwargs, 1, "weight", None)
        kernel = (int(weight.shape[2]), int(weight.shape[3]))
        step = _pair(argument(args, kwargs, 3, "stride", 1))
        dilation = _pair(argument(args, kwargs, 5, "dilation", 1))
        padding_given = argument(args, kwargs, 4, "padding", 0)
    else:
        at = 1 if name != "lp_pool2d" else 2
        kernel = _pair(argument(args, kwargs, at, "kernel_size", 1))
        step_given = argument(args, kwargs, at + 1, "stride", None)
        step = kernel if step_given in (None, [], ()) else _pair(step_given)
        padding_given = 0 if name == "lp_pool2d" else argument(args, kwargs, 3, "padding", 0)
        dilation = (1, 1)
        if name == "max_pool2d":
            dilation = _pair(argument(args, kwargs, 4, "dilation", 1))
    if padding_given == "same":
        padding = tuple(dilation[a] * (kernel[a] - 1) // 2 for a in (0, 1))
    else:
        padding = (0, 0) if padding_given == "valid" else _pair(padding_given)
    window = view.window.slide(kernel, step, _pair(padding), dilation) if view.window else None
    return View((2, 3), window, nonnegative=name != "conv2d" and view.nonnegative)


def _pad(view: View, ndim: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> View:
    amounts = list(argument(args, kwargs, 1, "pad", []))
    value = argument(args, kwargs, 3, "value", None) or 0.0

    def before(axis: int) -> int:
        at = 2 * (ndim - 1 - axis)
        return int(amounts[at]) if at < len(amounts) else 0

    ahead = (before(view.axes[0]), before(view.axes[1]))
    window = view.window.shift(ahead) if view.window else None
    # padding with -inf only ever feeds a maximum, which never returns it
    keeps = value >= 0 or value == float("-inf")
    return View(view.axes, window, view.nonnegative and keeps)


def _reorder(
    name: str, view: View, ndim: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> View:
    if name == "permute":
        given = argument(args, kwargs, 1, "dims", None)
        dims = list(given) if isinstance(given, (tuple, list)) else list(args[1:])
        order = [int(d) % ndim for d in dims]
    else:
        one = argument(args, kwargs, 1, "dim0", kwargs.get("axis0", 0)) % ndim
        two = argument(args, kwargs, 2, "dim1", kwargs.get("axis1", 0)) % ndim
        order = list(range(ndim))
        order[one], order[two] = order[two], order[one]
    return replace(view, axes=(order.index(view.axes[0]), order.index(view.axes[1])))


def _reshape(view: View, old: tuple[int, ...], new: tuple[int, ...]) -> View | None:
    """Follow a reshape that leaves the last two dimensions alone; others lose the map."""
    last = len(old) - 2, len(old) - 1
    if old == new:
        return view
    if view.axes == last and len(new) >= 2 and old[-2:] == new[-2:]:
        return replace(view, axes=(len(new) - 2, len(new) - 1))
    return None


def _merge(
    name: str, output: Tensor, inputs: Sequence[tuple[Tensor, tuple[int, ...], View]]
) -> View | None:
    """Return the view of an elementwise function, of a concatenation, or of a reduction."""
    candidates = [(shape, view) for _, shape, view in inputs if len(shape) == output.ndim]
    if not candidates:
        return None

    def cells(shape: tuple[int, ...], view: View) -> Pair:
        return shape[view.axes[0]], shape[view.axes[1]]

    # a gate of one cell (squeeze and excitation) scales channels; it says where in no sense
    largest = max(cells(shape, view) for shape, view in candidates)
    full = [view for shape, view in candidates if cells(shape, view) == largest]
    axes = full[0].axes
    window: Window | None = None
    unchanged = (output.shape[axes[0]], output.shape[axes[1]]) == largest
    windows = [view.window for view in full if view.window is not None]
    if unchanged and len(windows) == len(full) and all(view.axes == axes for view in full):
        window = Window.union(windows)
    if name in _RECTIFIERS:
        nonnegative = True
    else:
        nonnegative = name in _SIGN_KEEPERS and all(view.nonnegative for _, _, view in inputs)
    return View(axes, window, nonnegative)


def argument(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], position: int, name: str, default: Any
) -> Any:
    """Return an argument, however it was passed."""
    if name in kwargs:
        return kwargs[name]
    return args[position] if len(args) > position else default


def _pair(value: Any) -> Pair:
    if isinstance(value, (tuple, list)):
        return int(value[0]), int(value[-1])
    return int(value), int(value)


def tensors(values: Iterable[Any]) -> list[Tensor]:
    """Return all tensors in nested lists and tuples."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found.extend(tensors(value))
    return found
