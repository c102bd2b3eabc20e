"""Networks of one's own: ``package.module:function``, and those that installed packages offer as ``tuner.backbones``.

The function returns the network, or the network and a transform that holds the mean and standard deviation of its input
(torchvision's ``Normalize``, alone or in a ``Compose``). A module is imported only because a person named it in a config
file or in a call; no file that is read makes this happen.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuner.backbones.family import Family
from tuner.backbones.preprocessing import Preprocessing
from tuner.backbones.published import Source
from tuner.backbones.tokens import Keep, Tokens
from tuner.backbones.torchvision_models import stages
from tuner.backbones.trace import Traced
from tuner.errors import InputError

GROUP = "tuner.backbones"
_SEED = 0

_folders: list[Path] = []


@contextmanager
def beside(folder: Path) -> Iterator[None]:
    """While inside, modules that lie in a folder are found too, after those that are installed."""
    _folders.append(folder)
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _folders.remove(folder)


class Functions(Family):
    """Networks that a function returns."""

    name = "function"
    storage_free = False

    def names(self) -> tuple[str, ...]:
        """Return what installed packages offer."""
        return tuple(sorted(_offered()))

    def knows(self, name: str) -> bool:
        """Tell whether a name is a function's or one that a package offers."""
        return ":" in name or name in _offered()

    def build(self, name: str) -> nn.Module:
        """Call the function.

        Raises
        ------
        InputError
            If it cannot be found, fails, or returns something else.
        """
        return _made(name)[0]

    def source(self, name: str) -> Source | None:
        """Say that the function brings the weights along."""
        return None

    def preprocessing(self, name: str, weights: str) -> Preprocessing:
        """Return what the function's transform says.

        Raises
        ------
        InputError
            If it says nothing.
        """
        normalize = _normalize(_made(name)[1])
        if normalize is None:
            raise InputError(
                f"backbone {name}: needs mean and std, what the network expects of images in [0, 1], or a "
                "function that returns (module, transform) with a Normalize in it; ImageNet's are mean = "
                "[0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225]"
            )
        mean, std = (tuple(float(v) for v in values) for values in normalize)
        return Preprocessing((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))

    def identity(self, module: nn.Module) -> str:
        """Return the parts it is made of: its code may have changed and its weights not."""
        return repr(module)

    def tokens(self, name: str, module: nn.Module, keep: Keep) -> Tokens | None:
        """Say what the module says: ``num_prefix_tokens``, where it has that; else none or one, as their number has it."""
        prefix = int(getattr(module, "num_prefix_tokens", -1))
        return Tokens(prefix, prefix != 0, keep=keep)

    def canonical(
        self, name: str, module: nn.Module, traced: Mapping[str, Traced]
    ) -> tuple[str, ...]:
        """Return the outputs of stages that are maps."""
        found = [n for n in stages(module, traced) if n in traced and traced[n].shape is not None]
        if not found:  # a plain row of layers
            found = [n for n, entry in traced.items() if entry.shape is not None]
        return tuple(sorted(found, key=lambda n: traced[n].order))


@cache
def _offered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _function(name: str) -> Callable[[], Any]:
    target = _offered()[name].value if name in _offered() else name
    module_name, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        where = f" nor in {_folders[-1]}" if _folders else ""
        raise InputError(
            f"backbone {name}: module {error.name!r} is not installed{where}; name is "
            "package.module:function"
        ) from error
    except AttributeError as error:
        raise InputError(
            f"backbone {name}: module {module_name} has no {attribute!r}; name is "
            "package.module:function"
        ) from error
    except Exception as error:  # whatever the module fails with is its author's to mend
        raise InputError(
            f"backbone {name}: importing {module_name} failed ({type(error).__name__}: {_line(error)})"
        ) from error
    if not callable(found):
        raise InputError(f"backbone {name}: {attribute} is no function")
    return found  # type: ignore[no-any-return]  # whatever it is, it can be called


def _made(name: str) -> tuple[nn.Module, object]:
    function = _function(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)  # one that draws its weights draws the same each time
        try:
            made = function()
        except Exception as error:
            raise InputError(
                f"backbone {name}: the function failed ({type(error).__name__}: {_line(error)})"
            ) from error
    module, transform = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise InputError(
            f"backbone {name}: the function returned {type(module).__name__}; it must return an "
            "nn.Module, or (module, transform)"
        )
    return module, transform


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else "no reason given"


def _normalize(transform: object) -> tuple[Any, Any] | None:
    """Mean and std of the transform that has them, itself or among its parts."""
    if hasattr(transform, "mean") and hasattr(transform, "std"):
        return transform.mean, transform.std
    for part in getattr(transform, "transforms", ()):
        found = _normalize(part)
        if found is not None:
            return found
    return None


FAMILY = Functions()
