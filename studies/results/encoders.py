"""Encoders of what a search found: of a study's best trial, of several kept ones, or of the best of every unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from studies.database.artifacts import Tensors
from studies.database.stores import Stores
from studies.database.studies import Stored, require, stored_studies
from studies.database.summaries import Summary, summaries
from studies.database.trials import load
from studies.database.weights import kept_files
from studies.fingerprint import refuse
from studies.grid import Spec
from studies.search.best_weights import REPORT, best_first
from studies.workspace import Workspace
from tuner.errors import InputError

if TYPE_CHECKING:
    from tuner.encoder import Encoder

NONE_COMPLETE = "no study has a complete trial yet; run 'tuner optimize --n-trials 50'"


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
    def number(self) -> int:
        """Number of the best trial."""
        assert self.summary.best is not None
        return self.summary.best.number

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

    @property
    def chosen(self) -> Tensors:
        """Weights of what the study comes to: its best trial's, or, of a closed form, those of every unit's own setting."""
        return self.parameters(None if self.spec.closed_form else self.number)

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
        return self.stores.artifacts.read_tensors(files[trial])

    def encoder(self, trial: int | None = None, *, per_unit: bool = False) -> Encoder:
        """The encoder of the best trial, of another kept trial, or of the best of every unit.

        The validation loss of the last is that of the images which the units' trials were not chosen on. A closed form has
        one encoder, every unit with a setting of its own, which no validation image has chosen.
        """
        if self.spec.closed_form:
            return encoder(self.workspace, self.spec, self.chosen, trial=None, value=self.value)
        if per_unit:
            chosen = self.parameters(None)
            return encoder(
                self.workspace, self.spec, chosen, trial=None, value=reported_loss(chosen)
            )
        number = self.number if trial is None else trial
        value = self.value if number == self.number else None
        return encoder(
            self.workspace, self.spec, self.parameters(number), trial=number, value=value
        )

    def every(self) -> list[Encoder]:
        """Encoders of all kept trials, the best first."""
        return self.ensemble(1 if self.spec.closed_form else len(self.kept))

    def ensemble(self, size: int) -> list[Encoder]:
        """Encoders of the ``size`` best kept trials, the best first.

        Raises
        ------
        InputError
            If fewer are kept.
        """
        if self.spec.closed_form:
            if size > 1:
                raise InputError(
                    f"study {self.spec.name}: --ensemble {size} needs {size} kept trials, and a readout "
                    "in closed form has one encoder; name the other readouts with --readout"
                )
            return [self.encoder()]
        kept = self.kept
        loaded = load(self.stores.storage, [self.stored.study_id], curves=False)
        trials = loaded[self.stored.study_id]
        values = {t.number: t.value for t in trials if t.number in kept and t.value is not None}
        if len(values) < size:
            raise InputError(
                f"study {self.spec.name}: --ensemble {size} needs {size} kept trials and there are "
                f"{len(values)}; raise search.keep before the search, or ask for fewer"
            )
        return [self.encoder(number) for number in best_first(values)[:size]]


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


def reported_loss(parameters: Mapping[str, Any]) -> float | None:
    """Mean over units of the loss on the half of the validation images that did not choose."""
    loss = parameters["unit_loss"][:, REPORT]
    there = loss[~loss.isnan()]
    return float(there.mean()) if len(there) else None


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

    settings = workspace.settings(spec.key.backbone)
    experiment = workspace.experiment
    features = workspace.features(spec.key.backbone, spec.key.layer)
    own = {name: t for name, t in parameters.items() if name not in ("unit_loss", "trial")}
    units: dict[str, NDArray[Any]] = {
        name: values[spec.units] for name, values in workspace.recording.units.items()
    }
    return Encoder(
        backbone=workspace.backbone(spec.key.backbone),
        layer=spec.key.layer,
        normalization=features.normalization,
        readout=spec.key.readout,
        parameters=own,
        response_mean=torch.from_numpy(workspace.scaling.mean[spec.units]),
        response_scale=torch.from_numpy(workspace.scaling.scale[spec.units]),
        loss=experiment.training.loss,
        image_size=experiment.data.image_size,
        units=units,
        unit_indices=spec.units,
        weights=settings.weights,
        weights_seed=experiment.search.seed,
        meta={
            "study": spec.name,
            "trial": "best of every unit" if trial is None else trial,
            "validation_loss": value,
            "simulated": workspace.recording.simulated,
            "recording": workspace.recording.label,
            "pixels_per_degree": experiment.data.pixels_per_degree,
        },
    ).to(workspace.device)
