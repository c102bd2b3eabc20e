"""``tuner export best``: encoders as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from studies.database.stores import Stores
from studies.grid import Spec
from studies.results.encoders import Best, Ingredients, best_studies, each, encoder_of
from studies.results.trusted import weights_failed
from studies.workspace import Workspace
from tuner.progress import counted

if TYPE_CHECKING:
    from tuner.encoder import EncoderFiles

NAMED = 3
"""Encoders of fits that failed up to which each is named."""

CHECK_IMAGES = 4
"""Training images stored with an encoder, whose responses it must reproduce on load."""

WRITING = "writing encoders"

Encoding = Callable[[Sequence[Best], bool, bool], "Iterator[tuple[Best, EncoderFiles]]"]
"""Given studies, whether every unit has its own trial, whether the backbone is embedded: the files of each, in any order."""


def check_images(workspace: Workspace) -> NDArray[np.uint8]:
    """The images that an encoder is checked on, ``(k, S, S, 3)``."""
    rows = np.linspace(0, workspace.recording.n_train - 1, CHECK_IMAGES).astype(np.int64)
    return workspace.images.read(rows)


def files_of(
    workspace: Workspace, spec: Spec, what: Ingredients, with_backbone: bool
) -> EncoderFiles:
    """The files of one encoder."""
    from tuner.encoder import encoder_files

    model = encoder_of(workspace, spec, what)
    model.meta["fit_failed"] = weights_failed(
        workspace, spec, what.parameters, value=what.judged, finished=what.finished
    )
    return encoder_files(model, check_images=check_images(workspace), with_backbone=with_backbone)


def encode_here(
    ready: Sequence[Best], per_unit: bool, with_backbone: bool
) -> Iterator[tuple[Best, EncoderFiles]]:
    """Make encoders one after the other in this process."""
    workspace = ready[0].workspace

    def encode(best: Best) -> EncoderFiles:
        what = best.ingredients(per_unit=per_unit)
        return files_of(workspace, best.spec, what, with_backbone)

    yield from each(counted(ready, WRITING, workspace.progress), encode)


def export_best(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    out: Path,
    *,
    per_unit: bool = False,
    with_backbone: bool = False,
    stacked: bool = False,
    encoding: Encoding = encode_here,
    say: Callable[[str], None] = lambda message: None,
) -> list[Path]:
    """Write the best encoder of every study into ``OUT/<name>/``; with ``stacked`` one encoder for each region instead.

    ``meta["fit_failed"]`` of an encoder tells whether the study's best fit is not surely better than predicting the mean.

    Parameters
    ----------
    per_unit
        Whether every unit has its own best trial, shrunk towards the region's.
    with_backbone
        Whether the backbone is embedded.
    encoding
        Who makes the encoders of single studies.
    say
        Told of how many encoders it is so that the fit failed.
    """
    from tuner.encoder import save_encoder, write_encoder

    if stacked:
        from studies.results.stacked import stacks

        return [
            save_encoder(
                out / stack.spec.name,
                stack.encoder(),
                check_images=check_images(workspace),
                with_backbone=with_backbone,
            )
            for stack in stacks(workspace, stores, specs)
        ]
    ready = best_studies(workspace, stores, specs)
    written, failed = {}, []
    for best, files in encoding(ready, per_unit, with_backbone):
        written[best.spec.name] = write_encoder(out / best.spec.name, files)
        if json.loads(files.description)["meta"]["fit_failed"]:
            failed.append(best.spec.name)
    if failed:
        failed = [spec.name for spec in specs if spec.name in failed]
        say(
            f"{len(failed)} of {len(written)} encoders are not surely better than predicting the mean (fit_failed in "
            f"encoder.json): {', '.join(failed[:NAMED])}{', ...' if len(failed) > NAMED else ''}"
        )
    return [written[spec.name] for spec in specs if spec.name in written]
