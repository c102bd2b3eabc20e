"""Whether studies' fits are surely better than predicting the mean, where no table of all of them is at hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from studies.database.artifacts import Tensors
from studies.grid import Spec
from studies.results.judged import compared, fit_failed, tried

if TYPE_CHECKING:
    from studies.results.encoders import Best, Whole
    from studies.workspace import Workspace
    from tuner.encoder import Encoder


def weights_failed(
    workspace: Workspace, spec: Spec, parameters: Tensors, *, value: float, finished: int
) -> bool:
    """Whether a study's weights are not surely better than predicting the mean.

    Parameters
    ----------
    parameters
        Exported parameters of a trial.
    value
        Its validation loss.
    finished
        Trials that it was chosen from.
    """
    _, each, flat = compared(workspace, spec, parameters)
    return fit_failed(workspace, value, each, flat, trials=tried(workspace, spec, finished))


def study_failed(best: Best, kept: Whole) -> bool:
    """Whether the fit of a study's kept trial is not surely better than predicting the mean."""
    return weights_failed(
        best.workspace,
        best.spec,
        kept.parameters,
        value=best.value if best.spec.closed_form else kept.value,
        finished=best.summary.finished,
    )


def judge(best: Best, models: Sequence[Encoder]) -> bool:
    """Write into encoders of a study (``meta["fit_failed"]``) whether its best fit failed, and say it."""
    kept = next(best.whole(), None)
    failed = kept is None or study_failed(best, kept)
    for model in models:
        model.meta["fit_failed"] = failed
    return failed


def first_told(ready: Iterable[Best]) -> Best | None:
    """Return the study of lowest validation loss whose fit did not fail, ties to the shallower layer; None without one.

    As :func:`tuner.figures.panels.best_row` chooses, where no table of all studies is at hand. Studies of which all
    weights are lost are no candidates.
    """
    for best in sorted(ready, key=lambda one: (one.value, one.spec.layer_index)):
        kept = next(best.whole(), None)
        if kept is not None and not study_failed(best, kept):
            return best
    return None
