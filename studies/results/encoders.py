"""Encoders of what a search found: of a study's best trial, of several kept ones, or of the best of every unit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from studies.database.artifacts import Tensors, UnreadableWeights
from studies.database.stores import Stores
from studies.database.studies import Stored, require, stored_studies
from studies.database.summaries import Summary, summaries
from studies.database.trials import Trial, load
from studies.database.weights import kept_files
from studies.fingerprint import refuse
from studies.grid import Spec
from studies.search.best_weights import HELD_OUT, best_first, units_of_kept
from studies.workspace import Workspace
from tuner.errors import InputError

if TYPE_CHECKING:
    from tuner.encoder import Encoder

Given = TypeVar("Given")
Made = TypeVar("Made")

_log = logging.getLogger("tuner")

NONE_COMPLETE = "no study has a complete trial yet; run 'tuner optimize --n-trials 50'"


@dataclass(frozen=True)
class Whole:
    """A kept trial whose weights are there and are those that were written.

    Attributes
    ----------
    note
        Which better trial it stands for, because that one's weights are lost; empty where there is none.
    """

    trial: Trial
    parameters: Tensors
    note: str

    @property
    def value(self) -> float:
        """Validation loss of the trial."""
        return float(self.trial.value or 0.0)


@dataclass(frozen=True)
class Ingredients:
    """What an encoder of a study is made of.

    Attributes
    ----------
    parameters
        Kept weights.
    own
        Kept weights of the best trial of every unit, which those are mixed with; None: they stand alone.
    trial
        Whose weights they are; None: every unit's own.
    value
        Validation loss of the encoder; of a mixture it is known once it is made.
    judged
        Validation loss of ``parameters``.
    finished
        Number of trials that they were chosen from.
    """

    parameters: Tensors
    own: Tensors | None = None
    trial: int | None = None
    value: float | None = None
    judged: float = 1.0
    finished: int = 1


@dataclass(frozen=True)
class Best:
    """A study with what its trials came to, from which encoders are made.

    Attributes
    ----------
    spec
        Its place in the grid.
    stored
        The study as the database has it.
    summary
        Counts of its trials, and the best of them, if one is complete.
    """

    workspace: Workspace
    stores: Stores
    spec: Spec
    stored: Stored
    summary: Summary

    @property
    def value(self) -> float:
        """Validation loss of the encoder."""
        assert self.summary.loss is not None
        return self.summary.loss

    @property
    def kept(self) -> list[int]:
        """Trials whose weights are kept."""
        files = kept_files(self.stores.storage, self.stored.study_id)
        return sorted(number for number in files if number is not None)

    def parameters(self, trial: int | None) -> Tensors:
        """Kept weights of a trial; None for the best of every unit.

        Raises
        ------
        InputError
            If they are not kept.
        """
        files = kept_files(self.stores.storage, self.stored.study_id)
        if trial not in files:
            kept = ", ".join(map(str, self.kept)) or "none"
            raise InputError(
                f"study {self.spec.name}: weights of "
                f"{'its units' if trial is None else f'trial {trial}'} are not kept (kept: {kept}); "
                "bring it to more trials with 'tuner optimize'"
            )
        return files[trial].read(self.stores.artifacts)

    def whole(self) -> Iterator[Whole]:
        """Kept trials whose weights can be used, the best first; those that cannot are named in the log.

        Of a closed form its best trial alone, with the weights of every unit's own setting.
        """
        assert self.summary.best is not None
        if self.spec.closed_form:
            try:
                yield Whole(self.summary.best, self.parameters(None), "")
            except InputError as error:
                _log.warning("study %s: %s", self.spec.name, error)
            return
        files = kept_files(self.stores.storage, self.stored.study_id)
        loaded = load(self.stores.storage, [self.stored.study_id], curves=False)
        trials = {t.number: t for t in loaded[self.stored.study_id] if t.value is not None}
        kept = [number for number in files if number in trials] + [self.summary.best.number]
        values = {number: trials[number].value or 0.0 for number in kept if number is not None}
        lost: list[int] = []
        for number in best_first(values):
            try:
                parameters = self.parameters(number)
            except InputError as error:
                _log.warning("study %s, trial %d: %s", self.spec.name, number, error)
                lost.append(number)
                continue
            note = f"weights of trial {lost[0]} are lost: trial {number}" if lost else ""
            yield Whole(trials[number], parameters, note)

    def encoder(self, trial: int | None = None, *, per_unit: bool = False) -> Encoder:
        """The encoder of the best trial, of another kept trial, or of the best of every unit.

        Where the weights of the best trial are lost, the next best kept trial takes its place. The best of every unit is
        shrunk towards the best trial, see :mod:`studies.results.per_unit`, and its validation loss is that of the images
        which the units' trials were not chosen on. A closed form has one encoder, every unit with a setting of its own,
        which no validation image has chosen.

        Raises
        ------
        UnreadableWeights
            If no weights can be used.
        """
        if trial is not None:
            value = None
            if self.summary.best is not None and trial == self.summary.best.number:
                value = self.value
            return encoder(
                self.workspace, self.spec, self.parameters(trial), trial=trial, value=value
            )
        return encoder_of(self.workspace, self.spec, self.ingredients(per_unit=per_unit))

    def ingredients(self, *, per_unit: bool = False) -> Ingredients:
        """What :meth:`encoder` makes the encoder of the best trial, or of the best of every unit, of.

        Raises
        ------
        UnreadableWeights
            If no weights can be used.
        """
        kept = self.shown()
        if per_unit and not self.spec.closed_form:
            judged = self._of(kept)
            return replace(judged, own=self._best_of_units(), trial=None, value=None)
        return self._of(kept)

    def _of(self, kept: Whole) -> Ingredients:
        trial = None if self.spec.closed_form else kept.trial.number
        value = self.value if self.spec.closed_form else kept.value
        return Ingredients(
            kept.parameters,
            trial=trial,
            value=value,
            judged=value,
            finished=self.summary.finished,
        )

    def shown(self) -> Whole:
        """The best kept trial whose weights can be used.

        Raises
        ------
        UnreadableWeights
            If there is none.
        """
        found = next(self.whole(), None)
        if found is None:
            raise self._nothing_left()
        return found

    def made(self, kept: Whole) -> Encoder:
        """The encoder of a kept trial."""
        return encoder_of(self.workspace, self.spec, self._of(kept))

    def _best_of_units(self) -> Tensors:
        try:
            return self.parameters(None)
        except UnreadableWeights as error:
            _log.warning(
                "study %s: %s; its units' best are those of the trials that are kept",
                self.spec.name,
                error,
            )
        loaded = load(self.stores.storage, [self.stored.study_id], curves=False)
        values = {t.number: t.value or 0.0 for t in loaded[self.stored.study_id]}
        files = kept_files(self.stores.storage, self.stored.study_id)
        made = units_of_kept(self.stores.artifacts, files, values)
        if made is None:
            raise self._nothing_left()
        return made

    def _nothing_left(self) -> UnreadableWeights:
        return UnreadableWeights(
            f"study {self.spec.name}: none of its kept weights can be used; run 'tuner doctor --fix', then "
            "'tuner optimize', which runs their trials again"
        )

    def ensemble(self, size: int | None = None) -> list[Encoder]:
        """Encoders of the ``size`` best kept trials, or of all of them, the best first.

        Raises
        ------
        InputError
            If fewer are kept.
        UnreadableWeights
            If no weights can be used.
        """
        if self.spec.closed_form and size is not None and size > 1:
            raise InputError(
                f"study {self.spec.name}: --ensemble {size} needs {size} kept trials, and a readout "
                "in closed form has one encoder; name the other readouts with --readout"
            )
        found = [self.made(kept) for kept in islice(self.whole(), size)]
        if not found:
            raise self._nothing_left()
        if size is not None and len(found) < size:
            raise InputError(
                f"study {self.spec.name}: --ensemble {size} needs {size} kept trials and there are "
                f"{len(found)}; raise search.keep before the search, or ask for fewer"
            )
        return found


def opened_studies(workspace: Workspace, stores: Stores, specs: Sequence[Spec]) -> list[Best]:
    """Studies of specs, also those without a complete trial; refuses those that were made with other settings."""
    stored = stored_studies(stores.storage)
    found = require(stored, [spec.name for spec in specs], workspace.experiment.file)
    for spec, study in zip(specs, found, strict=True):
        refuse(workspace.experiment.file, spec.name, study.fingerprint, workspace.fingerprint(spec))
    items = summaries(stores.storage, found)
    return [
        Best(workspace, stores, spec, study, item)
        for spec, study, item in zip(specs, found, items, strict=True)
    ]


def best_studies(workspace: Workspace, stores: Stores, specs: Sequence[Spec]) -> list[Best]:
    """The studies of specs that have a complete trial.

    Raises
    ------
    InputError
        If none has.
    """
    ready = [b for b in opened_studies(workspace, stores, specs) if b.summary.best is not None]
    if not ready:
        raise InputError(NONE_COMPLETE)
    return ready


def each(ready: Iterable[Given], encode: Callable[[Given], Made]) -> Iterator[tuple[Given, Made]]:
    """Every study with what is made of it; one whose weights are all lost is named in the log and left out.

    Raises
    ------
    UnreadableWeights
        If nothing at all can be made.
    """
    lost: UnreadableWeights | None = None
    some = False
    for best in ready:
        try:
            made = encode(best)
        except UnreadableWeights as error:
            lost = error
            _log.warning("%s; the others go on", error)
            continue
        some = True
        yield best, made
    if lost is not None and not some:
        raise lost


def encoder_of(workspace: Workspace, spec: Spec, what: Ingredients) -> Encoder:
    """The encoder that is made of these."""
    if what.own is None:
        return encoder(workspace, spec, what.parameters, trial=what.trial, value=what.value)
    from studies.results.per_unit import shrunken

    chosen, value = shrunken(workspace, spec, what.parameters, what.own)
    return encoder(workspace, spec, chosen, trial=None, value=value)


def encoder(
    workspace: Workspace,
    spec: Spec,
    parameters: Mapping[str, Any],
    *,
    trial: int | None,
    value: float | None,
) -> Encoder:
    """The image-computable model of a study with these weights."""
    import torch

    from tuner.encoder import Encoder

    settings = workspace.networks.settings(spec.key.backbone)
    experiment = workspace.experiment
    beside = ("unit_loss", "trial", HELD_OUT)
    own = {name: tensor for name, tensor in parameters.items() if name not in beside}
    units: dict[str, NDArray[Any]] = {
        name: values[spec.units] for name, values in workspace.recording.units.items()
    }
    return Encoder(
        backbone=workspace.networks.backbone(spec.key.backbone),
        layer=spec.key.layer,
        normalization=workspace.features.normalization(spec.key.backbone, spec.key.layer),
        readout=spec.key.readout,
        parameters=own,
        response_mean=torch.from_numpy(workspace.scaling.mean[spec.units]),
        response_scale=torch.from_numpy(workspace.scaling.scale[spec.units]),
        loss=experiment.training.loss,
        image_size=experiment.data.image_size,
        units=units,
        unit_indices=spec.units,
        weights=settings.weights,
        weights_seed=workspace.networks.seed(spec.key.backbone),
        meta={
            "study": spec.name,
            "trial": "best of every unit" if trial is None else trial,
            "validation_loss": value,
            "simulated": workspace.recording.simulated,
            "recording": workspace.recording.label,
            "pixels_per_degree": experiment.data.pixels_per_degree,
            **({} if experiment.data.fit == "error" else {"fit": experiment.data.fit}),
            **({"measured_in": said} if (said := workspace.recording.measured_in) else {}),
        },
    ).to(workspace.device)
