"""Training that takes no time and whose result says what was trained: installed in a zygote, for the chaos run.

A trial's curve follows from its parameters, the units and the steps that are reported, and from nothing else; its weights
say its value. So whoever finds a trial or a file can tell whether it is the one that belongs there.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from optuna.trial import TrialState

from studies.config.experiment import load_experiment
from studies.dashboard import pictures
from studies.database.trials import Outcome
from studies.networks import Networks
from studies.search import create
from studies.search import round as search_round
from studies.search.best_weights import Fitted
from studies.search.training import Training
from studies.workspace import Workspace
from tests.soak import journal
from tuner.figures import style

SECONDS = 0.01
"""What a step between two reports takes."""


def curve(
    params: Mapping[str, float], units: Iterable[int], reports: Sequence[int]
) -> dict[int, float]:
    """What training a trial comes to; every fourth stops half way."""
    key = repr((sorted((k, float(v)) for k, v in params.items()), list(map(int, units)), reports))
    rng = np.random.default_rng(list(hashlib.blake2b(key.encode(), digest_size=16).digest()))
    values = np.minimum.accumulate(rng.uniform(0.1, 0.9, len(reports)))
    stop = len(reports) // 2 if len(reports) > 1 and rng.random() < 0.25 else len(reports)
    return {step: float(v) for step, v in zip(reports[:stop], values, strict=False)}


def _run(self: Any, observer: search_round.Observer | None = None) -> search_round.Result:
    members = self.members
    curves = [
        [curve(t.params, member.units, self.reports) for t in member.trials] for member in members
    ]
    for step in self.reports:
        time.sleep(SECONDS)
        rows = [
            (trial.trial_id, step, mine[step])
            for member, some in zip(members, curves, strict=True)
            for trial, mine in zip(member.trials, some, strict=True)
            if step in mine
        ]
        if observer is not None:
            observer(step, self.reports[-1], len(rows), rows)
    outcomes: list[list[Outcome]] = []
    fitted: list[list[Fitted]] = []
    for member, some in zip(members, curves, strict=True):
        outcomes.append([])
        fitted.append([])
        for trial, mine in zip(member.trials, some, strict=True):
            value = mine[max(mine)]
            whole = len(mine) == len(self.reports)
            state = TrialState.COMPLETE if whole else TrialState.PRUNED
            outcomes[-1].append(Outcome(trial.trial_id, state, value, mine))
            if whole:
                n = len(member.units)
                weights = {
                    name: torch.full(size, value) for name, size in self.trainer.sizes(n).items()
                }
                loss = np.full((n, 2), value)
                fitted[-1].append(Fitted(trial, value, weights, loss))
    return search_round.Result(outcomes, fitted)


def _trainer(self: Training, spec: Any) -> Any:
    from tuner import readouts

    readout = readouts.get(spec.key.readout)
    return SimpleNamespace(sizes=lambda n: readout.parameter_shapes(spec.shape, n))


def install(argument: str) -> None:
    """Put the stand-in in place of training, and keep what every command of an experiment reads anew.

    Parameters
    ----------
    argument
        The experiment's file, and before it, with a space between, a fault that is planted or nothing.
    """
    from tests.soak.plants import PLANTS

    planted, config = argument.split(" ", 1)
    if planted:
        PLANTS[planted]()
    journal.install()
    os.fsync = lambda descriptor: None  # type: ignore[assignment]  # no power is cut here
    opened = Workspace(load_experiment(config))
    for spec in opened.grid:
        opened.fingerprint(spec)
    recording, images = opened.recording, opened.images
    backbones = {
        table.alias: opened.networks.backbone(table.alias) for table in opened.experiment.backbone
    }
    layers = {alias: opened.networks.layers(alias) for alias in backbones}
    here: Any = Workspace
    here.recording = property(lambda self: recording)
    here.images = property(lambda self: images)
    networks: Any = Networks
    networks.backbone = lambda self, alias: backbones[alias]
    networks.layers = lambda self, alias: layers[alias]
    there: Any = Training
    there._trainer_of = _trainer
    create._check_images = lambda workspace: None
    search_round.Round.run = _run  # type: ignore[method-assign]
    pictures._draw = lambda *given: {pictures.CURVE: None}  # type: ignore[assignment,dict-item,return-value]
    style.render = lambda *given, **named: b"a picture"  # type: ignore[assignment]
