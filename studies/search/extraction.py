"""What is still to be extracted, in which sweeps, and what waits on disk meanwhile; known from sizes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studies.grid import Spec
from studies.workspace import Workspace

if TYPE_CHECKING:
    from tuner.features.waiting import Waiting


@dataclass(frozen=True)
class Sweep:
    """Layers of a backbone that are extracted together.

    Attributes
    ----------
    waits
        What waits for its statistics; None where the cache cannot hold the layer and only its statistics are taken.
    """

    backbone: str
    layers: tuple[str, ...]
    waits: Waiting | None


def sweeps(workspace: Workspace, specs: Sequence[Spec]) -> Iterator[Sweep]:
    """Yield what is to be extracted for some studies, without what is in the cache."""
    there = _in_cache(workspace)
    for alias in dict.fromkeys(spec.key.backbone for spec in specs):
        size = {
            s.key.layer: workspace.features.cached_bytes(s.shape)
            for s in specs
            if s.key.backbone == alias
        }
        digest = workspace.networks.digest(alias)
        missing = [layer for layer in size if (digest, layer) not in there]
        held = [layer for layer in missing if workspace.cache.holds(size[layer])]
        together = sum(size.values()) <= workspace.features.together_bytes
        for layers in [held] if together and held else [[layer] for layer in held]:
            yield Sweep(alias, tuple(layers), _waiting(workspace, alias, layers))
        for layer in missing:
            if layer not in held:
                yield Sweep(alias, (layer,), None)


def waiting_bytes(workspace: Workspace, specs: Sequence[Spec]) -> int:
    """Bytes on the cache's disk that wait for their statistics, beside the features, at most."""
    return max((s.waits.n_bytes for s in sweeps(workspace, specs) if s.waits), default=0)


def _waiting(workspace: Workspace, alias: str, layers: Sequence[str]) -> Waiting:
    from tuner.features.layout import layouts
    from tuner.features.waiting import waiting

    recording, settings = workspace.recording, workspace.networks.settings(alias)
    made = layouts(
        workspace.networks.backbone(alias), layers, workspace.images.size, settings.max_grid
    )
    macs = {info.name: info.macs for info in workspace.networks.layers(alias) if info.name in made}
    images = recording.n_train + recording.n_test
    room = workspace.cache.room(sum(layout.cached_bytes(images) for layout in made.values()))
    return waiting(made, macs, recording.n_train, room, workspace.device.type)


def _in_cache(workspace: Workspace) -> set[tuple[str, str]]:
    """Backbone digest and layer of what lies in the cache, by its own word: to hash all images would take minutes."""
    found = set()
    for entry in workspace.cache.entries():
        if entry.partial:
            continue
        try:
            path = workspace.cache.folder / entry.key / "entry.json"
            meta = json.loads(path.read_text(encoding="utf-8"))["meta"]
            if meta["image_size"] == workspace.experiment.data.image_size:
                found.add((str(meta["backbone_digest"]), str(meta["layer"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
