"""What a folder for the rig cannot show or tell, said while there is still time to ask for more."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.recordings.paths import shortened
from tuner.synthesis.stimuli.choice import Stimulus
from tuner.synthesis.stimuli.summary import FEWEST


def lacking(stimuli: Sequence[Stimulus], *, patches: bool) -> list[str]:
    """Say which studies have too few units for a test over units, and which units have no patches, and why.

    Parameters
    ----------
    stimuli
        The images that are shown.
    patches
        Whether patches were asked for.

    Returns
    -------
    list of str
        A sentence for each; empty where nothing is lacking.

    Examples
    --------
    >>> import numpy as np
    >>> own = Stimulus("mei", "net/a/V4/full", 3, "three", 0, "unit 3", np.zeros((8, 8, 3), np.uint8), None)
    >>> print(*lacking([own], patches=False))
    net/a/V4/full: 1 unit is asked: scoring over units will say "too few to tell", it takes 6 at least
    """
    own: dict[str, list[int]] = {}
    for one in stimuli:
        if one.kind == "mei" and one.variant == 0:
            own.setdefault(one.study, []).append(one.unit)
    there = {(one.study, one.unit) for one in stimuli if one.kind == "patch"}
    said = []
    for study, units in own.items():
        if len(units) < FEWEST:
            some = "1 unit is" if len(units) == 1 else f"{len(units)} units are"
            said.append(
                f'{study}: {some} asked: scoring over units will say "too few to tell", it takes '
                f"{FEWEST} at least"
            )
        without = [unit for unit in units if (study, unit) not in there]
        if patches and without:
            names = shortened(str(unit) for unit in without)
            said.append(
                f"{study}: no patches for unit{'s' * (len(without) != 1)} {names}: the window "
                "around the field (2 to 3 standard deviations; where none is known, all of the image) reaches "
                "beyond the image, so a patch would be the best natural image again"
            )
    return said
