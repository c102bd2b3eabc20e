"""What a worker does: it opens the experiment for itself once, then fits and scores what it is sent.

A worker has no database and no claim. What it fits depends on what it was sent and on the recording alone, which is the
coordinator's: its studies' fingerprints are compared before anything is fitted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from studies.cluster import messages, supplies
from studies.database.studies import Stored
from studies.fingerprint import refuse
from studies.grid import Spec, cohorts
from studies.search.closed_form import ClosedForm
from studies.search.listener import Listener
from studies.search.round import Reports
from studies.search.training import Training
from studies.workspace import Workspace

Send = Callable[[dict[str, Any]], None]

SECONDS = 0.5
"""Least time between two messages on how far a worker is."""


class _Reporting(Listener):
    """Sends how far a round is, and what is worth a line."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._last = 0.0

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._last < SECONDS:
            return False
        self._last = now
        return True

    def training(self, what: str, trials: int, step: int, steps: int, running: int) -> None:
        """Send how far a round is, now and then."""
        if step >= steps or self._due():
            self._send({"training": [what, trials, step, steps, running]})

    def say(self, message: str) -> None:
        """Send a line."""
        self._send({"say": message})

    def progress(self, what: str, done: int, total: int) -> None:
        """What anything else that takes long tells."""
        if done >= total or self._due():
            self._send({"progress": [what, done, total]})


class Room:
    """The experiment as one worker has it open.

    Parameters
    ----------
    plain
        The experiment as it was sent.
    """

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self._listener: _Reporting | None = None
        self.workspace = Workspace(messages.experiment_of(plain), self._progress)
        self.stored: dict[str, Stored] = {}
        self._specs: dict[str, Spec] = {}
        self._training: Training | None = None
        self._reports: Callable[[Reports], None] = lambda reports: None

    def _progress(self, what: str, done: int, total: int) -> None:
        if self._listener is not None:
            self._listener.progress(what, done, total)

    def take(self, listener: _Reporting, studies: list[dict[str, Any]]) -> list[Spec]:
        """The studies that a message is about, once it is certain that this machine has the same recording."""
        self._listener = listener
        if not self._specs:
            self._specs = {spec.name: spec for spec in self.workspace.grid}
        specs = []
        for plain in studies:
            study = messages.study_of(plain)
            spec = self._specs.get(study.name)
            if self.stored.get(study.name) != study:
                where = self.workspace.experiment.file
                now = {} if spec is None else self.workspace.fingerprint(spec)
                refuse(where, study.name, study.fingerprint, now)
                self.stored[study.name] = study
            assert spec is not None
            specs.append(spec)
        return specs

    def training(self, listener: _Reporting) -> Training:
        """What trains rounds; it keeps the features of the last one's layer."""
        if self._training is None:
            self._training = Training(
                self.workspace, self.stored, listener, lambda reports: self._reports(reports)
            )
        self._training.listener = listener
        return self._training

    # -- what it is asked to do -----------------------------------------------------------------------

    def groups(self, message: messages.Message, listener: _Reporting, send: Send) -> bytes:
        """Into which rounds the studies of each cohort are cut on a machine such as this."""
        specs = self.take(listener, message.header["studies"])
        out = []
        for members in cohorts(specs).values():
            if members[0].closed_form:
                parts = ClosedForm(self.workspace, self.stored, listener).cut(members)
            else:
                parts = [part for part, _ in self.training(listener).cut(members)]
            out.append([[spec.name for spec in part] for part in parts])
        return messages.pack({"groups": out})

    def open(self, message: messages.Message, listener: _Reporting, send: Send) -> bytes:
        """Read what every round needs, before there is one."""
        self.take(listener, message.header["studies"])
        return messages.pack({})

    def extract(self, message: messages.Message, listener: _Reporting, send: Send) -> bytes:
        """Bring features of some layers of a backbone into the cache; those that are there are left."""
        header = message.header
        self.take(listener, header["studies"])
        alias, layers = header["backbone"], header["layers"]
        if len(layers) > 1:
            # One that is left alone is extracted when it is needed, and computed anew where no cache holds it.
            self.workspace.features.extract(alias, layers)
        else:
            self.workspace.features.of(alias, layers[0])
        return messages.pack({})

    def score(self, message: messages.Message, listener: _Reporting, send: Send) -> bytes:
        """Score the weights of a study."""
        from studies.cluster.evaluating import score_for

        return score_for(self.workspace, self._spec_of(message.header, listener), message)

    def encode(self, message: messages.Message, listener: _Reporting, send: Send) -> bytes:
        """Make the encoder of a study."""
        from studies.cluster.evaluating import encode_for

        return encode_for(self.workspace, self._spec_of(message.header, listener), message)

    def _spec_of(self, header: Mapping[str, Any], listener: _Reporting) -> Spec:
        """The study that a message is about, its features in the cache, those of this layer alone."""
        (spec,) = self.take(listener, header["studies"])
        if header["own_cache"]:
            self.workspace.features.extract(spec.key.backbone, [spec.key.layer])
        return spec

    def fit(self, message: messages.Message, listener: _Reporting, send: Send) -> bytes:
        """Fit the trials of a round."""
        header = message.header
        specs = self.take(listener, header["studies"])
        asked = {name: messages.trials_of(some) for name, some in header["asked"].items()}
        history = {name: messages.trials_of(some) for name, some in header["history"].items()}
        self._reports = lambda reports: send({"reports": reports})
        if specs[0].closed_form:
            results = ClosedForm(self.workspace, self.stored, listener).run(specs, asked)
        else:
            results = self.training(listener).run(specs, asked, history)
        return messages.pack_ended(dict(results))


_KINDS = {
    "groups": Room.groups,
    "open": Room.open,
    "extract": Room.extract,
    "fit": Room.fit,
    "score": Room.score,
    "encode": Room.encode,
}

_FILES = {"look": supplies.look, "have": supplies.have, "keep": supplies.keep}
"""What is done before the experiment can be opened: see :mod:`studies.cluster.supplies`."""

_open: tuple[str, Room] | None = None
"""The experiment that this process has open, by the hash of what it was sent."""


def work(kind: str, experiment: bytes, task: bytes, send: Send) -> bytes:
    """Do what a message asks for.

    Parameters
    ----------
    kind
        ``groups``, ``open``, ``extract``, ``fit``, ``score`` or ``encode``: the method of :class:`Room`; or what is done
        about files: ``look``, ``have`` or ``keep``.
    experiment
        The experiment, as :func:`studies.cluster.messages.document` writes it.
    task
        What is to be done.
    send
        Takes what is told meanwhile.

    Returns
    -------
    bytes
        The answer.
    """
    global _open
    plain = messages.unpack(experiment).header
    if kind in _FILES:
        return _FILES[kind](plain, messages.unpack(task))
    name = experiment[:16].hex()
    if _open is None or _open[0] != name:
        _open = None  # its features go before others come
        _open = (name, Room(supplies.supplied(plain)))
    do = _KINDS[kind]
    return do(_open[1], messages.unpack(task), _Reporting(send), send)
