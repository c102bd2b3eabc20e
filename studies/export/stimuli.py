"""The closed loop: images of the selected studies as a folder for the rig, and what comes back from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from studies.basis import basis_of
from studies.database.stores import Stores
from studies.export.images import row_of
from studies.grid import Spec
from studies.results.encoders import Best, best_studies, each
from studies.results.trusted import judge
from studies.workspace import Workspace

if TYPE_CHECKING:
    from tuner.encoder import Encoder
    from tuner.synthesis.mei import MeiSettings
    from tuner.synthesis.stimuli.choice import Choice
    from tuner.synthesis.stimuli.placement import Rig


def export_stimuli(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    out: Path,
    settings: MeiSettings,
    choice: Choice,
    rig: Rig,
    *,
    blocks: int,
    ensemble: int = 1,
    units: Sequence[int] | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> Path:
    """Make images and their controls, and write the folder for the rig.

    Every selected study's best encoder predicts the response of its units to every image as it is shown. ``say`` is told
    before each study's images are made how long that will take, of encoders that are not surely better than predicting
    the mean, of units too few for a test over units, and of units without patches.

    Parameters
    ----------
    settings
        How the images are made.
    choice
        How many controls of each kind.
    rig
        How images are shown.
    blocks
        How often each image is shown.
    ensemble
        Images are made for the mean of so many best trials.
    units
        Indices in the recording of the units that get images; all where not given.

    Raises
    ------
    InputError
        If no selected study has a complete trial, or there is nothing to show.
    """
    from tuner.figures import captions
    from tuner.synthesis.estimate import announced
    from tuner.synthesis.mei import synthesize
    from tuner.synthesis.stimuli.choice import Source, choose
    from tuner.synthesis.stimuli.folder import write_stimuli
    from tuner.synthesis.stimuli.lacking import lacking

    sources, encoders, about, basis = [], {}, {}, basis_of(workspace)

    def wanted(best: Best) -> list[int] | None:
        return None if units is None else [u for u in units if u in set(best.spec.units.tolist())]

    def makers(best: Best) -> list[Encoder]:
        return best.ensemble(1 if wanted(best) == [] else ensemble)

    for best, made in each(best_studies(workspace, stores, specs), makers):
        spec = best.spec
        encoders[spec.name] = made[0]
        failed = judge(best, made)
        about[spec.name] = captions.encoder(row_of(best), basis, failed=failed)
        mine = wanted(best)
        if mine == []:
            continue
        if len(made) > 1:
            about[spec.name] += f"; images made for the mean of its {len(made)} best trials"
        n_units = len(spec.units) if mine is None else len(mine)
        say(f"{spec.name}: {announced(made, n_units, settings, natural=workspace.images)}")
        if failed:
            say(f"{spec.name}: {captions.NOTHING}")
        tell = partial(workspace.progress, f"images of {spec.name}")
        result = synthesize(made, mine, settings, tell)
        sources.append(Source(spec.name, result, encoders[spec.name], settings.photometry))
    stimuli = choose(sources, workspace.images, choice, rig.placement, units)
    notes = lacking(stimuli, patches=bool(choice.patches))
    for note in notes:
        say(note)
    return write_stimuli(
        out,
        stimuli,
        encoders,
        rig,
        mean=settings.mean,
        blocks=blocks,
        seed=choice.seed,
        about=about,
        notes=notes,
        extra={"settings": settings.as_dict()},
        progress=partial(workspace.progress, "writing images"),
    )


def score_stimuli(
    folder: Path, recorded: Path, out: Path, say: Callable[[str], None] = lambda message: None
) -> list[Path]:
    """Score recorded responses to a folder's images against their predictions; writes tables and figures.

    ``say`` is told what was not used or is missing, and of every study whether its units prefer their own images.

    Raises
    ------
    InputError
        If the folder is not as it was written, or the responses do not fit it.
    """
    from tuner.figures import style
    from tuner.synthesis.stimuli.answers import read_answers
    from tuner.synthesis.stimuli.folder import read_stimuli
    from tuner.synthesis.stimuli.report import write_scores
    from tuner.synthesis.stimuli.score import score
    from tuner.synthesis.stimuli.summary import said

    stimuli = read_stimuli(folder)
    answers = read_answers(recorded, stimuli)
    for note in answers.notes:
        say(note)
    scores = score(stimuli, answers)
    for row in scores.summary:
        say(style.subtitle(f"{row['study']}: {said(row)}", simulated=stimuli.simulated))
    return write_scores(out, stimuli, answers, scores)
