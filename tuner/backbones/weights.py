"""Weights: read as tensors only, and checked against the network that wants them.

Nothing here unpickles: ``torch.load`` runs with ``weights_only=True`` and a file that would need
more is refused by name.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tuner.errors import InputError

_NESTED = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.")


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors`` or from torch's own format, as tensors only.

    A state dict inside another dict (``{"state_dict": ...}``) is taken out, and the prefixes that
    ``DataParallel`` and ``torch.compile`` put before the names are removed.

    Raises
    ------
    InputError
        If the file is missing, damaged, empty, or holds anything besides tensors.
    """
    if not path.exists():
        raise InputError(
            f'weights file {path} does not exist; weights are "imagenet", "random" or the path of '
            "a state dict (.pth, .pt, .safetensors)"
        )
    if path.is_dir():
        raise InputError(f"weights {path} is a folder; name a state dict file in it")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return _tidy(_flatten(content, path))


def _read_safetensors(path: Path) -> object:
    import safetensors
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"weights file {path} cannot be read as safetensors: {_line(error)}"
        ) from error


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of becomes an error below
            # a mapped file costs no memory for the parts (classifiers) that are never used
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        if "Unsupported" not in str(error) and "GLOBAL" not in str(error):
            raise InputError(
                f"weights file {path} is damaged or is no state dict: {_line(error)}"
            ) from error
        raise InputError(
            f"weights file {path} holds more than tensors, and unpickling it could run code: "
            "refused; save its state dict with torch.save(model.state_dict(), ...)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        if isinstance(e, RuntimeError) and "TorchScript" in str(e):
            raise InputError(
                f"weights file {path} is a TorchScript archive, which holds code: refused; save "
                "its state dict with torch.save(model.state_dict(), ...)"
            ) from e
        raise InputError(f"weights file {path} cannot be read: {_line(e)}") from e
    except Exception as error:  # a damaged file makes the reader fail in any way it likes
        raise InputError(f"weights file {path} cannot be read: {_line(error)}") from error


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


def _flatten(content: object, path: Path) -> dict[str, Tensor]:
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {str(name): value for name, value in content.items()}
        inner = [content[key] for key in _NESTED if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    kind = type(content).__name__
    if isinstance(content, Mapping):
        odd = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
        kind = f"a dict whose entry {odd[0]!r} is no tensor" if odd else "an empty dict"
    raise InputError(
        f"weights file {path} holds {kind}, not a state dict (names to tensors, on its own or "
        f"under one of {', '.join(_NESTED)})"
    )


def _tidy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        while state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    # DataParallel around a part only, as in features.module.0.weight
    return {name.replace(".module.", "."): value for name, value in state.items()}


def load_into(
    module: nn.Module, state: Mapping[str, Tensor], *, ignore: Iterable[str], where: str
) -> None:
    """Put a state dict into a network that was built without storage.

    Parameters
    ----------
    module
        The network, its parameters on the ``meta`` device.
    state
        Names to tensors. Every name of the network must be there in its shape.
    ignore
        First parts of names that may be there and are not used, such as the classifier's.
    where
        Begins every error message: which backbone, which file.

    Raises
    ------
    InputError
        Names the first entry that is missing, superfluous, of another shape, or not finite, and
        says how many there are.
    """
    wanted = module.state_dict()
    heads = set(ignore)
    offered = {name: value for name, value in state.items() if name.split(".")[0] not in heads}
    counters = {name for name in (*wanted, *offered) if name.endswith("num_batches_tracked")}
    missing = [name for name in wanted if name not in offered and name not in counters]
    extra = [name for name in offered if name not in wanted and name not in counters]
    shaped = [
        name for name in wanted if name in offered and wanted[name].shape != offered[name].shape
    ]
    fits = len(wanted) - len(counters & wanted.keys())
    total = f"of {fits} entries"
    hint = "is the file from this network?"
    if missing:
        raise InputError(
            f"{where}: entry {missing[0]!r} is missing ({len(missing)} {total} are); {hint}"
        )
    if shaped:
        name = shaped[0]
        raise InputError(
            f"{where}: entry {name!r} has shape {tuple(offered[name].shape)}, not "
            f"{tuple(wanted[name].shape)} ({len(shaped)} {total} have another shape); {hint}"
        )
    if extra:
        raise InputError(
            f"{where}: entry {extra[0]!r} does not belong to this network ({len(extra)} do not); "
            f"{hint}"
        )
    ready: dict[str, Tensor] = {}
    for name, target in wanted.items():
        if name not in offered:
            ready[name] = torch.zeros(target.shape, dtype=target.dtype)
            continue
        value = offered[name].detach()
        if target.is_floating_point():
            if not value.is_floating_point():
                raise InputError(
                    f"{where}: entry {name!r} is of type {value.dtype}, not floating point"
                )
            value = value.to(target.dtype)
            if not bool(torch.isfinite(value).all()):
                raise InputError(f"{where}: entry {name!r} has values that are not finite")
        ready[name] = value
    module.load_state_dict(ready, strict=True, assign=True)


def initialise(module: nn.Module, seed: int) -> None:
    """Give a network random weights, the same for the same seed on every machine.

    Convolutions and linear layers are drawn from N(0, 2 / fan_in), which keeps the size of
    activations from layer to layer under ReLU [1]_; biases are 0; normalisations do nothing. Any
    other parameter (a layer scale) is 1, a bias among them 0.

    References
    ----------
    .. [1] He et al. 2015, "Delving deep into rectifiers", equation 10.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for child in module.modules():
            for name, parameter in child.named_parameters(recurse=False):
                if isinstance(child, (nn.Conv2d, nn.Linear)) and name == "weight":
                    fan_in = parameter[0].numel()
                    drawn = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(drawn * (2.0 / fan_in) ** 0.5)
                elif name.endswith("bias"):
                    parameter.zero_()
                else:
                    parameter.fill_(1.0)
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                child.reset_running_stats()


def state_digest(identity: str, state: Mapping[str, Tensor]) -> str:
    """Return a hash over what a network is and every number in it (32 hex digits)."""
    digest = hashlib.blake2b(identity.encode(), digest_size=16)
    for name in sorted(state):
        if name.endswith("num_batches_tracked"):
            continue
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
