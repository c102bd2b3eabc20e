r"""When a study is settled: what further trials are expected to gain is under half a percent.

The expected gain is the mean of up to three estimates of by how much, relative to it, the study's best would fall:

- by doubling its trials: what the last doubling brought, on average over the order in which they might have come, since
  the next brings less. Of values :math:`v_1 \le v_2 \le \dots` that is the mean over all halves of them of the half's
  best, less :math:`v_1`. A stopped trial has the least that it reported, but never less than the best of those that went
  to their end;
- what its last round brought;
- where it has donors (:mod:`studies.search.donors`): the first estimate for each of them after its first rounds, which are
  the same for every worker, averaged, and less by as many times as the study has more trials than those.

It is looked at after a round, from the second on; so what is found does not depend on the clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import comb

import numpy as np
from numpy.typing import NDArray

from studies.database import trials
from studies.database.connection import Storage
from studies.database.fences import StudyGone
from studies.database.marks import SETTLED, mark
from studies.database.studies import Stored
from studies.database.trials import FINISHED, Trial
from studies.grid import Spec
from studies.search.donors import SCOUTED, Donors, best_trial
from studies.search.queue import Standing

WORTH = 0.005
"""Expected gain under which a study is settled."""


def values_of(finished: Sequence[Trial]) -> NDArray[np.float64]:
    """What finished trials came to, ``(n,)``; infinite where none went to its end."""
    best = best_trial(finished)
    if best is None or best.value is None:
        return np.full(len(finished), np.inf)
    values = [math.inf if t.value is None else max(t.value, best.value) for t in finished]
    return np.array(values, dtype=np.float64)


def gain_of_doubling(values: NDArray[np.float64]) -> float:
    """By how much more the best of all values is better than that of half of them, relative to it; 1 at most.

    Parameters
    ----------
    values
        ``(n,)``, in any order.
    """
    if len(values) < 2 or not np.isfinite(values).any():
        return 1.0
    ordered = np.sort(values)
    worse = _relative(ordered, ordered[0])
    n, half = len(ordered), len(ordered) // 2
    # The best of a half is the i-th of all in so many of the halves.
    share = [comb(n - i - 1, half - 1) / comb(n, half) for i in range(n - half + 1)]
    return float(np.dot(share, worse[: len(share)]))


def _relative(values: NDArray[np.float64], best: float) -> NDArray[np.float64]:
    return np.minimum((values - best) / max(abs(best), 1e-12), 1.0)


def expected_gain(
    finished: Sequence[Trial], donors: Sequence[Sequence[Trial]], round_size: int
) -> float:
    """What further trials of a study are expected to gain, relative to its best.

    Parameters
    ----------
    finished
        Its finished trials.
    donors
        Finished trials of the first rounds of each of its donors.
    round_size
        Trials of a round.
    """
    ordered = sorted(finished, key=lambda t: t.number)
    values = values_of(ordered)
    before = values_of(ordered[:-round_size])
    if not (len(before) and np.isfinite(values).any() and np.isfinite(before).any()):
        return 1.0
    last = float(_relative(np.array([before.min()]), float(values.min()))[0])
    estimates = [gain_of_doubling(values), last]
    if donors:
        each = [gain_of_doubling(values_of(some)) for some in donors]
        estimates.append(float(np.mean(each)) * SCOUTED * round_size / len(ordered))
    return float(np.mean(estimates))


class Settling:
    """Finds out which studies are settled, and marks them.

    Parameters
    ----------
    stored
        All studies in the database.
    specs
        The selected ones.
    donors
        Who gives to whom, or None.
    round_size
        Trials of a study in a round.
    """

    def __init__(
        self,
        storage: Storage,
        stored: Mapping[str, Stored],
        specs: Sequence[Spec],
        donors: Donors | None,
        round_size: int,
    ) -> None:
        self._storage = storage
        self._stored = stored
        self._specs = {spec.name: spec for spec in specs if not spec.closed_form}
        self._donors = donors
        self._round_size = round_size
        self._gains: dict[str, tuple[int, float]] = {}

    def applied(self, standings: Mapping[str, Standing]) -> dict[str, Standing]:
        """Standings in which settled studies have all that they are to have."""
        enough = SCOUTED * self._round_size
        open_ones = {
            name: one
            for name, one in standings.items()
            if name in self._specs and one.open and one.finished >= enough
        }
        new = [n for n, one in open_ones.items() if self._gains.get(n, (0, 0))[0] != one.finished]
        if new:
            self._look(new)
        settled = {n for n in open_ones if self._gains[n][1] < WORTH}
        return {
            name: replace(one, target=one.finished) if name in settled else one
            for name, one in standings.items()
        }

    def _look(self, names: Sequence[str]) -> None:
        donors = {
            name: [d.name for d in self._donors.of(self._specs[name])] if self._donors else []
            for name in names
        }
        wanted = {*names, *(d for some in donors.values() for d in some)}
        ids = {name: self._stored[name].study_id for name in wanted}
        loaded = trials.load(self._storage, list(ids.values()), curves=False)
        finished = {n: [t for t in loaded[i] if t.state in FINISHED] for n, i in ids.items()}
        first = SCOUTED * self._round_size
        early = {n: [t for t in some if t.number < first] for n, some in finished.items()}
        for name in names:
            known = [early[d] for d in donors[name] if early[d]]
            gain = expected_gain(finished[name], known, self._round_size)
            count = len(finished[name])
            self._gains[name] = (count, gain)
            try:
                found = {"trials": count, "expected_gain": gain} if gain < WORTH else None
                mark(self._storage, self._stored[name], SETTLED, found)
            except StudyGone:
                continue  # whoever next writes to it says so
