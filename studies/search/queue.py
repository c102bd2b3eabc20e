"""What is worked on next.

``fewest``
    The round whose studies have the fewest finished trials, so that the heatmap fills evenly.
``depth``
    Shallow layers first, each to its end.
``region``
    Region after region in the recording's order, each to its end.
``promising``
    As ``fewest``, but a study counts as having more trials the further its best is from the best of its region and readout
    (see :func:`handicap`); with ``--budget`` the trials are spent where they can still change the answer.

Whatever the order, a study waits for those that give it its first settings (:mod:`studies.search.donors`), and what is
fitted in closed form comes before all else, whatever the order: it takes seconds, and shows where a search pays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studies.grid import Spec

ORDERS = ("fewest", "depth", "region", "promising")

HANDICAP = 2.0
"""Rounds that a study falls back per 10 % that its best is worse than the best of its region and readout."""


@dataclass(frozen=True)
class Standing:
    """How far a study is.

    Attributes
    ----------
    finished
        COMPLETE and PRUNED trials.
    target
        Trials that it is to have.
    best
        Lowest value of a COMPLETE trial, or None.
    closed
        Whether it was set aside.
    """

    finished: int
    target: int
    best: float | None = None
    closed: bool = False

    @property
    def open(self) -> bool:
        """Whether trials are missing."""
        return not self.closed and self.finished < self.target


@dataclass(frozen=True)
class Work:
    """Studies of one group of a cohort that need a round."""

    cohort: tuple[str, str, str]
    group: int
    specs: tuple[Spec, ...]


Awaits = Callable[[Spec, int], Sequence[tuple[str, int]]]
"""Given a study and its number of finished trials: whom its next round waits for, and for how many trials of each."""


def nobody(spec: Spec, finished: int) -> Sequence[tuple[str, int]]:
    """Wait for nobody."""
    return ()


def waits(specs: Sequence[Spec], standings: Mapping[str, Standing], awaits: Awaits) -> bool:
    """Whether something that a round of studies waits for is still to come; what is never to come is not waited for."""
    return any(
        (other := standings.get(name)) is not None
        and other.open
        and other.finished < min(enough, other.target)
        for spec in specs
        for name, enough in awaits(spec, standings[spec.name].finished)
    )


def handicap(
    spec: Spec, standings: Mapping[str, Standing], specs: Sequence[Spec], round_size: int
) -> float:
    """Trials that a study counts as having besides its own, under ``promising``.

    ``HANDICAP`` rounds for each 10 % by which its best exceeds the best of its region and readout; none before its first
    round is done, so that every study is tried.
    """
    mine = standings[spec.name]
    if mine.best is None:
        return 0.0 if mine.finished == 0 else HANDICAP * round_size
    rivals = [
        standings[other.name].best
        for other in specs
        if (other.key.region, other.key.readout) == (spec.key.region, spec.key.readout)
    ]
    best = min(value for value in rivals if value is not None)
    if not (math.isfinite(mine.best) and best > 0):
        return HANDICAP * round_size
    return HANDICAP * round_size * (mine.best / best - 1) / 0.1


def next_work(
    groups: Mapping[tuple[str, str, str], Sequence[Sequence[Spec]]],
    standings: Mapping[str, Standing],
    order: str,
    *,
    specs: Sequence[Spec],
    round_size: int,
    after: Awaits = nobody,
) -> list[Work]:
    """Rounds that are missing and may be begun, the one to do first at the front.

    Parameters
    ----------
    groups
        The selected studies of each cohort, cut into the groups that make a round together.
    standings
        How far each study is, by its name.
    order
        Which round comes first: one of :data:`ORDERS`.
    specs
        All selected studies, in the grid's order.
    round_size
        Trials of a study in a round.
    after
        Whom a study waits for, see :mod:`studies.search.donors`.
    """
    regions = {name: i for i, name in enumerate(dict.fromkeys(s.key.region for s in specs))}
    ranked: list[tuple[tuple[float, ...], Work]] = []
    position = 0
    for cohort, parts in groups.items():
        for g, part in enumerate(parts):
            position += 1
            needy = [spec for spec in part if standings[spec.name].open]
            if not needy:
                continue
            if needy[0].closed_form:
                rank: tuple[float, ...] = (position,)  # all its regions from one decomposition
            elif order == "region":
                first = min(regions[spec.key.region] for spec in needy)
                needy = [spec for spec in needy if regions[spec.key.region] == first]
                rank = (first, *_fewest(needy, standings), position)
            elif order == "depth":
                rank = (needy[0].layer_index, position)
            elif order == "promising":
                scores = {
                    spec.name: standings[spec.name].finished
                    + handicap(spec, standings, specs, round_size)
                    for spec in needy
                }
                least = min(scores.values())
                # The studies of a group that are due at about the same time make one round.
                needy = [s for s in needy if scores[s.name] < least + round_size]
                rank = (least, position)
            else:
                rank = (*_fewest(needy, standings), position)
            if waits(needy, standings, after):
                continue
            first_of_all = (0.0 if needy[0].closed_form else 1.0, *rank)
            ranked.append((first_of_all, Work(cohort, g, tuple(needy))))
    return [work for _, work in sorted(ranked, key=lambda pair: pair[0])]


def _fewest(needy: Sequence[Spec], standings: Mapping[str, Standing]) -> tuple[float]:
    return (min(standings[spec.name].finished for spec in needy),)
