"""Whether a search is ahead of what needs none, or behind it: its test score against a closed form's, paired.

Both predict the same units on the same test images, and where some are left out they are the same for both; so
their difference is surer than either score. Test images chose neither, so this difference flatters neither, which that of
validation losses (``below_smooth``) does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from studies.grid import Spec
from studies.results.references import LOCATED, Reference, references
from studies.search.start import starts_elsewhere
from tuner.figures.against import verdict
from tuner.figures.tables import LINES

if TYPE_CHECKING:
    from studies.results.scores import Evaluated
    from studies.workspace import Workspace

_SCORE = "test_correlation"

Place = tuple[str, str, str]


def with_starts(
    workspace: Workspace, specs: Sequence[Spec], beside: Sequence[Reference], draws: int
) -> list[Reference]:
    """The closed forms that searches started in: those that stand beside already, else read from where they are kept.

    None under ``loss = "poisson"``, where a start is chosen by that loss, and none without test images.
    """
    given = [reference for reference in beside if reference.key.readout == LOCATED]
    if given or workspace.recording.test_responses is None:
        return given
    if workspace.experiment.training.loss != "mse":
        return []
    started = [spec for spec in specs if not spec.closed_form and starts_elsewhere(workspace, spec)]
    return references(workspace, started, LOCATED, draws=draws)


def compared(
    workspace: Workspace, found: Sequence[Evaluated], starts: Sequence[Reference]
) -> list[Evaluated]:
    """Put beside every search whether its test correlation is ahead of ``smooth``, and of its own start.

    Parameters
    ----------
    found
        Studies, scored with intervals as ``starts`` are; those of ``smooth`` among them are what others are
        compared with.
    starts
        From :func:`with_starts`.

    Returns
    -------
    list
        Their rows have ``against_smooth``, ``against_start`` and the differences with their limits; None where there is
        nothing to compare with, so of closed forms.
    """
    closed = {_place(one.spec.key): (one.row, one.parts) for one in found if one.spec.closed_form}
    started = {_place(one.key): (one.row, one.parts) for one in starts}
    out = []
    for one in found:
        columns: dict[str, Any] = {}
        for line, others in zip(LINES, (closed, started), strict=True):
            other = None if one.spec.closed_form else others.get(_place(one.spec.key))
            if line == "start" and other is not None and not starts_elsewhere(workspace, one.spec):
                other = None
            columns |= _against(line, (one.row, one.parts), other)
        out.append(replace(one, row=one.row | columns))
    return out


def _place(key: Any) -> Place:
    return key.backbone, key.layer, key.region


_Scored = tuple[Mapping[str, Any], NDArray[np.float64] | None]


def _against(line: str, one: _Scored, other: _Scored | None) -> dict[str, Any]:
    from tuner.scores import difference_interval

    names = [f"against_{line}{part}" for part in ("", "_difference", "_low", "_high")]
    if other is None or one[1] is None or other[1] is None:
        return dict.fromkeys(names)
    difference = float(one[0][_SCORE]) - float(other[0][_SCORE])
    low, high = difference_interval(one[1], other[1])
    return dict(zip(names, (verdict(low, high), difference, low, high), strict=True))
