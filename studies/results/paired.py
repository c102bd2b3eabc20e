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

from studies.database.stores import Stores
from studies.database.studies import stored_studies
from studies.fingerprint import difference
from studies.grid import Spec
from studies.names import Place
from studies.results.encoders import opened_studies
from studies.results.references import LOCATED, Reference, references
from studies.results.scores import Evaluated, loss_of, score, shown
from studies.search.start import starts_elsewhere
from tuner.figures.against import verdict
from tuner.figures.tables import LINES

if TYPE_CHECKING:
    from studies.workspace import Workspace

_SCORE = "test_correlation"

_Scored = tuple[Mapping[str, Any], NDArray[np.float64] | None]

Lines = dict[Place, _Scored]
"""Backbone, layer and region to a row of scores, and its test correlation where parts of the images are left out."""


def set_against(
    workspace: Workspace,
    stores: Stores,
    found: Sequence[Evaluated],
    beside: Sequence[Reference],
) -> list[Evaluated]:
    """Put beside every search how it stands against ``smooth`` and against its own start; see :func:`compared`.

    Parameters
    ----------
    found
        Studies, scored with intervals where there are test images.
    beside
        Closed forms that were scored already.
    """
    scored = [one.spec for one in found if one.parts is not None]
    starts = with_starts(workspace, scored, beside)
    return compared(workspace, found, closed_forms(workspace, stores, found), starts)


def with_starts(
    workspace: Workspace, specs: Sequence[Spec], beside: Sequence[Reference]
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
    return references(workspace, started, LOCATED)


def closed_forms(workspace: Workspace, stores: Stores, found: Sequence[Evaluated]) -> Lines:
    """What ``smooth`` comes to where there are searches: of the studies that are scored, else of those that are stored.

    So what is said of a search does not depend on what is selected beside it. One that was made with other settings counts
    nothing.
    """
    lines: Lines = {
        one.spec.key.place: (one.row, one.parts) for one in found if one.spec.closed_form
    }
    missing = {one.spec.key.place for one in found if one.parts is not None} - lines.keys()
    stored = stored_studies(stores.storage)
    specs = [
        spec
        for spec in workspace.grid
        if spec.closed_form
        and spec.key.place in missing
        and spec.name in stored
        and difference(stored[spec.name].fingerprint, workspace.fingerprint(spec)) is None
    ]
    for best in opened_studies(workspace, stores, specs):
        kept = shown(best)
        if kept is not None:
            worth = score(
                workspace,
                best.spec,
                kept.parameters,
                value=loss_of(best, kept),
                finished=best.summary.finished,
                fields=False,
            )
            lines[best.spec.key.place] = worth.row, worth.parts
    return lines


def compared(
    workspace: Workspace, found: Sequence[Evaluated], closed: Lines, starts: Sequence[Reference]
) -> list[Evaluated]:
    """Put beside every search whether its test correlation is ahead of ``smooth``, and of its own start.

    Parameters
    ----------
    found
        Studies, scored with intervals as what they are compared with.
    closed
        From :func:`closed_forms`.
    starts
        From :func:`with_starts`.

    Returns
    -------
    list
        Their rows have ``against_smooth``, ``against_start`` and the differences with their limits; None where there is
        nothing to compare with, so of closed forms.
    """
    started: Lines = {one.key.place: (one.row, one.parts) for one in starts}
    out = []
    for one in found:
        columns: dict[str, Any] = {}
        for line, others in zip(LINES, (closed, started), strict=True):
            other = None if one.spec.closed_form else others.get(one.spec.key.place)
            if line == "start" and other is not None and not starts_elsewhere(workspace, one.spec):
                other = None
            columns |= _against(line, (one.row, one.parts), other)
        out.append(replace(one, row=one.row | columns))
    return out


def _against(line: str, one: _Scored, other: _Scored | None) -> dict[str, Any]:
    from tuner.scores import difference_interval

    names = [f"against_{line}{part}" for part in ("", "_difference", "_low", "_high")]
    if other is None or one[1] is None or other[1] is None:
        return dict.fromkeys(names)
    higher = float(one[0][_SCORE]) - float(other[0][_SCORE])
    low, high = difference_interval(one[1], other[1])
    return dict(zip(names, (verdict(low, high), higher, low, high), strict=True))
