"""Which rounds may begin while others run, so that many workers take the course that one would take alone.

One process does round after round in the order of :mod:`studies.search.queue`. What a round is, its trials and their
proposals, depends on its own studies' earlier rounds and, where settings are taken over, on those of other studies. So a
round may overtake others in that order as soon as all that it depends on is told. Where the rounds end (a budget) is
decided by the same order, rounds that run counting as finished.

The order ``promising`` alone looks at how good the others are: there what runs at the same time does not know of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from studies.grid import Spec
from studies.search.queue import Awaits, Standing, Work, next_work, nobody, waits

Groups = Mapping[tuple[str, str, str], Sequence[Sequence[Spec]]]


def may_begin(
    groups: Groups,
    standings: Mapping[str, Standing],
    order: str,
    *,
    specs: Sequence[Spec],
    round_size: int,
    running: Sequence[Work],
    awaits: Awaits,
    after: Awaits = nobody,
    spent: Callable[[Mapping[str, Standing]], bool],
) -> Iterator[Work]:
    """Rounds that may begin now, in the order in which one process would do them.

    Parameters
    ----------
    groups
        The selected studies of each cohort, cut into the groups that make a round together.
    standings
        How far each study is, as told.
    order
        One of :data:`studies.search.queue.ORDERS`.
    specs
        All selected studies, in the grid's order.
    round_size
        Trials of a study in a round.
    running
        Rounds that have begun and are not told.
    awaits
        Given a study and its number of finished trials: which studies it looks at for its next round, and how many finished
        trials of each must have been told.
    after
        The same of what one process waits for too.
    spent
        Whether no further round is begun, given how far studies are once all that runs is told.
    """
    virtual = dict(standings)
    blocked = {(work.cohort, work.group) for work in running}
    for work in running:
        _count(virtual, work, round_size)
    while not spent(virtual):
        ahead = next_work(groups, virtual, order, specs=specs, round_size=round_size, after=after)
        if all((work.cohort, work.group) in blocked for work in ahead):
            return
        first = ahead[0]
        place = (first.cohort, first.group)
        if place not in blocked and not waits(first.specs, standings, awaits):
            yield first
        blocked.add(place)
        _count(virtual, first, round_size)


def _count(virtual: dict[str, Standing], work: Work, round_size: int) -> None:
    """Let a round count as finished."""
    for spec in work.specs:
        one = virtual[spec.name]
        more = one.target if spec.closed_form else min(one.finished + round_size, one.target)
        virtual[spec.name] = replace(one, finished=max(one.finished, more))
