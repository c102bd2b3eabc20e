"""Opening what an experiment needs: its database, its kept files, its claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Self

from studies import earlier
from studies.config.experiment import Experiment
from studies.database import ownership
from studies.database.artifacts import Artifacts
from studies.database.claims import Claims, open_claims
from studies.database.connection import Storage
from studies.database.studies import Stored, stored_studies
from tuner.errors import InputError


@dataclass
class Stores:
    """Database, kept files and claims of an experiment; a context manager that closes them however it is left."""

    storage: Storage
    artifacts: Artifacts
    claims: Claims

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.storage.close()

    @contextmanager
    def alone(
        self,
        studies: Iterable[Stored],
        done: str,
        *,
        wait: bool = False,
        say: Callable[[str], None] = lambda message: None,
    ) -> Iterator[None]:
        """While inside, nobody else works on these studies.

        Parameters
        ----------
        done
            What is to be done to them, such as "deleted".
        wait
            Whether whoever works on one is waited for; `say` is told so.

        Raises
        ------
        InputError
            If somebody does and is not waited for, naming process and host.
        """
        wanted = {s.claim: f"study {s.name} cannot be {done}" for s in studies}
        with self.claims.all(wanted, wait=wait, say=say):
            yield


def as_made(experiment: Experiment) -> Experiment:
    """Return an experiment with which the studies in its database, if it has one, go on as they were made.

    Raises
    ------
    EnvironmentFailure
        If the database cannot be reached.
    """
    try:
        storage = Storage(experiment.storage.url.get_secret_value())
    except InputError:  # there is none yet, or who opens it to work says what is wrong with it
        return experiment
    try:
        prints = [study.fingerprint for study in stored_studies(storage).values()]
    finally:
        storage.close()
    return earlier.as_made(experiment, prints)


def open_stores(experiment: Experiment, *, create: bool = False) -> Stores:
    """Open database, artifacts and claims.

    Raises
    ------
    InputError
        If there is no database and none is to be made, or the folder of kept weights is another database's.
    EnvironmentFailure
        If it cannot be reached.
    """
    storage = Storage(experiment.storage.url.get_secret_value(), create=create)
    folder = experiment.storage.artifacts
    try:
        ownership.refuse_foreign(storage, folder)
    except BaseException:
        storage.close()
        raise
    artifacts = Artifacts(folder, partial(ownership.take, storage, folder))
    return Stores(storage, artifacts, open_claims(storage))
