"""``tuner export best``: encoders as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from studies.database.stores import Stores
from studies.grid import Spec
from studies.results.encoders import best_studies, each
from studies.workspace import Workspace
from tuner.progress import counted

CHECK_IMAGES = 4
"""Training images stored with an encoder, whose responses it must reproduce on load."""


def export_best(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    out: Path,
    *,
    per_unit: bool = False,
    with_backbone: bool = False,
    stacked: bool = False,
) -> list[Path]:
    """Write the best encoder of every study into ``OUT/<name>/``; with ``stacked`` one encoder for each region instead."""
    from tuner.encoder import save_encoder

    rows = np.linspace(0, workspace.recording.n_train - 1, CHECK_IMAGES).astype(np.int64)
    images = workspace.images.read(rows)
    written = []
    if stacked:
        from studies.results.stacked import stacks

        for stack in stacks(workspace, stores, specs):
            together = stack.encoder()
            written.append(
                save_encoder(
                    out / stack.spec.name,
                    together,
                    check_images=images,
                    with_backbone=with_backbone,
                )
            )
        return written
    ready = counted(best_studies(workspace, stores, specs), "writing encoders", workspace.progress)
    for best, model in each(ready, lambda best: best.encoder(per_unit=per_unit)):
        folder = out / best.spec.name
        written.append(
            save_encoder(folder, model, check_images=images, with_backbone=with_backbone)
        )
    return written
