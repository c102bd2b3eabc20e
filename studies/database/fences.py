"""What every write of the search is checked against, in the write's own transaction.

Optuna's numbers come round again: on SQLite a study that is made after another was deleted gets its number, and its trials
get the numbers of the other's. A worker that was stopped for a night, or whose study was deleted and made anew under it,
would write into what is not its own. So a study carries a token that is never used twice, in our row and, as a system
attribute, with optuna's own; a claim carries an epoch that grows whenever the cohort is claimed. A writer says which
studies it believes to be there, and nothing is written unless they still are, as they were read, under a claim that is
still the writer's, with each trial in the state in which the writer left it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from studies.database import optuna_tables as tables
from studies.database import own_tables
from studies.database.connection import Storage
from studies.database.tokens import Fenced, living, seal
from tuner.errors import EnvironmentFailure


class Sealed(Protocol):
    """A study as it was read."""

    @property
    def study_id(self) -> int:
        """Optuna's number of it, which another study may have by now."""
        ...

    @property
    def name(self) -> str:
        """Name of the study."""
        ...

    @property
    def seal(self) -> str:
        """Hash of its token and fingerprint."""
        ...


class StudyGone(Fenced):
    """Studies were deleted, made anew or changed by somebody else.

    Parameters
    ----------
    names
        Which.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        more = f" and {len(self.names) - 1} more" if len(self.names) > 1 else ""
        super().__init__(
            f"study {self.names[0]}{more}: deleted, made anew or changed by another program "
            "meanwhile; nothing of that round was written to it"
        )


def gone(
    connection: Connection, studies: Sequence[Sealed], *, lock: str | None = None
) -> list[str]:
    """Names of the studies that are no longer there as they were read.

    Parameters
    ----------
    lock
        ``shared``: those that are there cannot be deleted until the transaction ends. ``alone``: nor written to. On SQLite
        there is one writer at a time anyway.
    """
    found: dict[int, str] = {}
    for some in tables.chunks([study.study_id for study in studies]):
        query = living().where(own_tables.studies.c.study_id.in_(some))
        if lock is not None:
            query = query.with_for_update(read=lock == "shared", of=own_tables.studies)
        for row in connection.execute(query):
            found[row.study_id] = seal(row.token, row.fingerprint)
    return [study.name for study in studies if found.get(study.study_id) != study.seal]


def still_there(storage: Storage, study: Sealed) -> bool:
    """Whether a study is there as it was read: what was read of its trials before is its own then."""
    with storage.read() as connection:
        return not gone(connection, [study])


@contextlib.contextmanager
def writing(
    storage: Storage, studies: Iterable[Sealed], *, alone: bool = False
) -> Iterator[Connection]:
    """One write transaction to studies and their trials.

    Parameters
    ----------
    alone
        Whether it waits for all other writers, and lets none in until it ends.

    Raises
    ------
    StudyGone
        If some of them are no longer there as they were read; nothing was written then, to any of them.
    ClaimLost
        If a claim that this process believes to hold is somebody else's.
    EnvironmentFailure
        If the database fails.
    """
    studies = list(studies)
    try:
        with storage.begin() as connection:
            lost = gone(connection, studies, lock="alone" if alone else "shared")
            if lost:
                raise StudyGone(lost)
            yield connection
    except Fenced:
        raise
    except EnvironmentFailure as error:
        # Where writers do not wait for each other, optuna may have deleted a study after the check.
        lost = []
        with contextlib.suppress(EnvironmentFailure), storage.read() as connection:
            lost = gone(connection, studies)
        if lost:
            raise StudyGone(lost) from error
        raise


def expect(
    connection: Connection,
    expected: Sequence[tuple[Sealed, Iterable[int]]],
    state: TrialState,
) -> None:
    """Refuse to write to trials that are not these studies', or not in this state.

    Raises
    ------
    StudyGone
        Naming the studies whose trials somebody else has had.
    """
    owner = {trial_id: study for study, ids in expected for trial_id in ids}
    t = tables.trials.c
    found: set[tuple[int, int]] = set()
    for some in tables.chunks(list(owner)):
        query = sa.select(t.trial_id, t.study_id).where(t.trial_id.in_(some), t.state == state)
        found.update((row.trial_id, row.study_id) for row in connection.execute(query))
    lost = {s.name: None for i, s in owner.items() if (i, s.study_id) not in found}
    if lost:
        raise StudyGone(lost)
