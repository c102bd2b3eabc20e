"""The search: brings every selected study to its number of trials, round by round, whoever else does the same.

A round is claimed, its orphans are put back, its trials are asked in one transaction, trained, and told in one transaction.
Killed anywhere between, the next to come finds RUNNING trials that nobody holds, and runs them again under their own
numbers with their own parameters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from studies.database.fences import StudyGone
from studies.database.tokens import ClaimLost
from studies.grid import Spec, cohorts
from studies.search.closed_form import ClosedForm
from studies.search.ledger import (
    ATTEMPTS,
    WAITING,
    Begun,
    Done,
    Ledger,
    blameless,
    one_line,
    totals,
)
from studies.search.queue import Work, next_work
from studies.search.training import Ended, Training
from tuner.errors import TunerError

POLL_SECONDS = 1.0
"""How often it is looked whether what others hold has become free."""


class Search:
    """Works on the selected studies.

    Parameters
    ----------
    ledger
        The books: which studies are to have how many trials.
    order
        See :mod:`studies.search.queue`.
    """

    def __init__(self, ledger: Ledger, *, order: str = "fewest") -> None:
        self.ledger = ledger
        self.workspace, self.stores = ledger.workspace, ledger.stores
        self.order = order
        self.listener = listener = ledger.listener
        self.specs = ledger.specs
        self._closed_form = ClosedForm(self.workspace, ledger.stored, listener)
        self._training = Training(self.workspace, ledger.stored, listener, ledger.report)

    # -- the loop -------------------------------------------------------------------------------

    def run(self) -> Done:
        """Work until every selected study has its trials, or time or budget is spent."""
        ledger = self.ledger
        progress = ledger.standings()
        groups = self._groups()
        self.listener.started(*totals(progress))
        waiting = False
        while True:
            work = next_work(
                groups,
                progress,
                self.order,
                specs=self.specs,
                round_size=self.workspace.experiment.search.parallel_trials,
                after=ledger.asking.after,
            )
            if not work or ledger.over(progress):
                break
            if self._work_on_first_free(work):
                waiting = False
            else:
                if not waiting:
                    self.listener.say(WAITING)
                waiting = True
                time.sleep(POLL_SECONDS)
            progress = ledger.refreshed(progress)
        ledger.draw(progress)
        return ledger.conclude(progress)

    def _work_on_first_free(self, work: Sequence[Work]) -> bool:
        for item in work:
            with self.stores.claims.claim(item.specs[0].claim) as mine:
                if mine:
                    self._round(item)
                    return True
        return False

    # -- what makes a round together ---------------------------------------------------------------

    def _groups(self) -> dict[tuple[str, str, str], list[list[Spec]]]:
        """Selected studies by cohort and group; the groups are those of the whole cohort, selected or not."""
        selected = {spec.name for spec in self.specs}
        created = [spec for spec in self.workspace.grid if spec.name in self.ledger.stored]
        wanted = {spec.cohort for spec in self.specs}
        out = {}
        for cohort, members in cohorts(created).items():
            if cohort in wanted:
                if members[0].closed_form:
                    parts = self._closed_form.cut(members)
                else:
                    parts = [part for part, _ in self._training.cut(members)]
                out[cohort] = [[s for s in part if s.name in selected] for part in parts]
        return out

    # -- one round ------------------------------------------------------------------------------

    def _round(self, work: Work) -> None:
        """Ask, train and tell a round of these studies; the claim is held."""
        names = [spec.name for spec in work.specs]
        try:
            self.ledger.recover(work.cohort)
            begun = self.ledger.begin(work)
            if begun is not None:
                self._train_and_tell(begun)
        except ClaimLost as lost:
            # Whoever has it now has put back what was in flight.
            self.listener.say(str(lost))
        except StudyGone as gone:
            self.ledger.leave(gone)
            self.ledger.put_back(names)
        except BaseException:
            # An interrupt or a failure: what was in flight goes on at the next start, as an orphan would.
            self.ledger.put_back(names)
            raise

    def _train_and_tell(self, begun: Begun) -> None:
        try:
            results = dict(self._run(list(begun.specs.values()), begun))
        except TunerError:
            raise
        except Exception as error:
            if blameless(error):
                raise
            self.listener.say(f"a round failed ({one_line(error)}); its studies run one by one")
            results = dict(self._one_by_one(begun))
        if results:
            self.ledger.tell(results, begun.history)

    def _run(self, specs: Sequence[Spec], begun: Begun) -> Iterator[tuple[str, Ended]]:
        """Fit the asked trials of studies of one cohort, by steps or in closed form."""
        if specs[0].closed_form:
            return self._closed_form.run(specs, begun.asked)
        return self._training.run(specs, begun.asked, begun.history)

    def _one_by_one(self, begun: Begun) -> Iterator[tuple[str, Ended]]:
        """Find the study that raises; after three attempts its trials FAIL and it is set aside."""
        for name, spec in begun.specs.items():
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    yield from list(self._run([spec], begun))
                    break
                except TunerError:
                    raise
                except Exception as error:
                    if blameless(error):
                        raise
                    if attempt == ATTEMPTS:
                        self.ledger.fail(name, begun.asked[name], one_line(error))
