"""Published weights of timm's networks in the hub's own cache, and their download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuner.errors import InputError


def files(config: Any) -> tuple[str, ...]:
    """Return the names that a network's weights may have in its repository, as timm's ``PretrainedCfg`` says."""
    if config.hf_hub_filename:
        return (config.hf_hub_filename,)
    return ("model.safetensors", "pytorch_model.bin")


def found(config: Any) -> Path | None:
    """Return the file of weights that is in the cache, if one is."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = config.hf_hub_id.partition("@")
    for file in files(config):
        cached = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    return None


def folder(config: Any) -> Path:
    """Return the folder of the cache that a network's repository has or would have."""
    from huggingface_hub import constants

    repository = config.hf_hub_id.partition("@")[0]
    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def download(name: str, config: Any, remedy: str) -> Path:
    """Have the weights brought into the cache.

    Raises
    ------
    InputError
        If they cannot be had; says what the hub's client said, and the remedy.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = config.hf_hub_id.partition("@")
    reason: Exception | None = None
    for file in files(config):
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        except EntryNotFoundError as error:
            reason = error
        except Exception as error:  # whatever the hub's client fails with, its first line says it
            reason = error
            break
    said = str(reason).strip().splitlines()
    raise InputError(
        f"backbone {name}: published weights are not on this machine and the download failed "
        f"({said[0] if said else type(reason).__name__}); {remedy}"
    )
