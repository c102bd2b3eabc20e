"""Workers that have what they read: each is sent the files that it does not see before it is given anything to do."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

from studies.cluster import messages
from studies.cluster.engine import Ended, Engine, Heard
from studies.cluster.supplies import Manifest, named_paths
from studies.config.experiment import Experiment
from studies.search.ledger import one_line
from tuner.errors import EnvironmentFailure


class SuppliedEngine:
    """An engine that tells of those workers alone that have the files.

    Parameters
    ----------
    engine
        All workers.
    experiment
        Whose files they need.
    say
        Told when files are sent.
    """

    def __init__(
        self,
        engine: Engine,
        experiment: Experiment,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._engine = engine
        self._experiment = experiment
        self._say = say
        self._plain = messages.pack(messages.document(experiment))
        self._paths = [str(path) for path in named_paths(experiment)]
        self._manifest: Manifest | None = None
        self._ready: set[str] = set()
        self._failed: set[str] = set()
        self._tasks: dict[str, tuple[str, str]] = {}
        self._parcels: dict[str, Iterator[bytes]] = {}

    @property
    def wanted(self) -> int | None:
        """Workers that there are to be."""
        return self._engine.wanted

    def living(self) -> dict[str, str]:
        """Address to name of the workers that have the files; the others are seen to."""
        known = self._engine.living()
        for key in [k for k, (address, _) in self._tasks.items() if address not in known]:
            self._engine.drop(key)
            del self._tasks[key]
        being = {address for address, _ in self._tasks.values()}
        for address in known.keys() - self._ready - self._failed - being:
            self._give(address, "look", messages.pack({"paths": self._paths}))
        return {address: name for address, name in known.items() if address in self._ready}

    def give(self, address: str, kind: str, experiment: bytes, task: bytes) -> str:
        """Give a worker something to do."""
        return self._engine.give(address, kind, experiment, task)

    def drop(self, key: str) -> None:
        """Forget a task."""
        self._engine.drop(key)

    def last_words(self, name: str) -> str:
        """What a worker wrote last."""
        return self._engine.last_words(name)

    def hear(self, seconds: float) -> Ended | Heard | None:
        """What happens next, but for what is about files."""
        came = self._engine.hear(seconds)
        if came is None or came.key not in self._tasks:
            return came
        if isinstance(came, Ended):
            address, kind = self._tasks.pop(came.key)
            if came.error is not None:
                self._fail(address, came.error)
            elif came.answer is not None:
                self._go_on(address, kind, messages.unpack(came.answer).header)
        return None

    def _fail(self, address: str, error: BaseException) -> None:
        self._failed.add(address)
        others = self._engine.living().keys() - self._failed
        if not isinstance(error, EnvironmentFailure | OSError) or not others:
            raise error
        self._say(f"worker {address}: {one_line(error)}; it is given nothing")

    def _go_on(self, address: str, kind: str, said: dict[str, object]) -> None:
        if kind == "look" and not said["sees"]:
            self._ask(address)
        elif kind == "have" and said["lacking"]:
            lacking = said["lacking"]
            assert isinstance(lacking, list)
            assert self._manifest is not None
            self._say(f"worker {address} is sent {len(lacking)} files that it does not see")
            self._parcels[address] = self._manifest.parcels(lacking, uuid.uuid4().hex)
            self._send_next(address)
        elif kind == "keep":
            self._send_next(address)
        else:
            self._ready.add(address)

    def _ask(self, address: str) -> None:
        if self._manifest is None:
            self._manifest = Manifest(self._experiment)
        self._give(address, "have", messages.pack({"cargo": self._manifest.plain}))

    def _send_next(self, address: str) -> None:
        parcel = next(self._parcels[address], None)
        if parcel is None:
            del self._parcels[address]
            self._ask(address)
        else:
            self._give(address, "keep", parcel)

    def _give(self, address: str, kind: str, task: bytes) -> None:
        self._tasks[self._engine.give(address, kind, self._plain, task)] = address, kind
