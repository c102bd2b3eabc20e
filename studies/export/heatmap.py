"""What ``tuner export`` writes: heatmap and tables, encoders, images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.database.stores import Stores
from studies.database.studies import Stored, stored_studies
from studies.database.summaries import Summary, summaries
from studies.grid import Spec
from studies.results import scores as evaluation
from studies.results.scores import best_parameters, checked
from studies.workspace import Workspace
from tuner.errors import InputError

if TYPE_CHECKING:
    from tuner.encoder import Encoder
    from tuner.synthesis.mei import MeiSettings

Progress = Callable[[str, int, int], None]

CHECK_IMAGES = 4
"""Training images stored with an encoder, whose responses it must reproduce on load."""


def export_heatmap(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    out: Path,
    *,
    metric: str | None = None,
    references: Sequence[dict[str, Any]] = (),
    cuts: int = 0,
    progress: Progress | None = None,
) -> list[Path]:
    """Write ``heatmap.csv``, ``units.csv``, ``heatmap.png`` and ``heatmap.svg``.

    With references (rows of `studies.results.references`), ``references.csv`` too, and they are drawn beside the studies.
    With ``cuts``, how sure the choice of layers is besides: ``resplit.csv`` and ``best_layers``.

    Raises
    ------
    InputError
        If no selected study has a complete trial, the metric does not exist, or it is a loss that references do not have.
    """
    from tuner.figures.heatmap import heatmap
    from tuner.figures.metrics import metric_named
    from tuner.figures.style import save
    from tuner.figures.tables import write_heatmap, write_units

    if metric is not None:
        metric_named(metric)  # refused before anything is scored
    loss = workspace.experiment.training.loss
    if references and metric == "validation_loss" and loss != "mse":
        raise InputError(
            f"--metric validation_loss: the references' is squared error, the studies' {loss}; draw "
            "validation_correlation, or leave the references out"
        )
    rows: list[dict[str, Any]] = []
    units: list[dict[str, Any]] = []
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    for done, one in enumerate(evaluation.evaluate(workspace, stores, specs), start=1):
        rows.append(one.row)
        units += one.units
        intervals[one.spec.name] = one.intervals
        if progress is not None:
            progress("scoring studies", done, len(specs))
    if all("validation_loss" not in row for row in rows):
        raise InputError("no study has a complete trial yet; run 'tuner optimize --n-trials 50'")
    figure = heatmap(
        rows,
        metric=metric,
        simulated=workspace.recording.simulated,
        references=references,
        groups=areas(workspace),
    )
    paths = [write_heatmap(rows, out / "heatmap.csv"), write_units(units, out / "units.csv")]
    if references:
        paths.append(write_heatmap(references, out / "references.csv"))
    paths += save(figure, out / "heatmap")
    if cuts:
        from studies.results.resplit import resplit, write_resplit

        found = resplit(workspace, stores, specs, cuts, progress)
        paths += write_resplit(found, rows, intervals, out, simulated=workspace.recording.simulated)
    return paths


def areas(workspace: Workspace) -> dict[str, str] | None:
    """Region to area, where regions are something finer, such as arrays."""
    columns = workspace.recording.units
    if workspace.experiment.data.region == "area" or "area" not in columns:
        return None
    return {region: str(columns["area"][units[0]]) for region, units in workspace.regions.items()}


def export_best(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    out: Path,
    *,
    per_unit: bool = False,
    with_backbone: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the best encoder of every study into ``OUT/<name>/``."""
    from tuner.encoder import save_encoder

    rows = np.linspace(0, workspace.recording.n_train - 1, CHECK_IMAGES).astype(np.int64)
    images = workspace.images.read(rows)
    written = []
    ready = with_best(workspace, stores, specs)
    for done, (spec, study, item) in enumerate(ready, start=1):
        model = study_encoder(workspace, stores, spec, study, item, per_unit=per_unit)
        written.append(
            save_encoder(out / spec.name, model, check_images=images, with_backbone=with_backbone)
        )
        if progress is not None:
            progress("writing encoders", done, len(ready))
    return written


def with_best(
    workspace: Workspace, stores: Stores, specs: Sequence[Spec]
) -> list[tuple[Spec, Stored, Summary]]:
    """The selected studies that have a complete trial.

    Raises
    ------
    InputError
        If none has.
    """
    pairs = checked(workspace, stores, specs)
    items = summaries(stores.storage, [study for _, study in pairs])
    ready = [
        (spec, study, item)
        for (spec, study), item in zip(pairs, items, strict=True)
        if item.best is not None
    ]
    if not ready:
        raise InputError(
            "no selected study has a complete trial yet; run 'tuner optimize --n-trials 50'"
        )
    return ready


def study_encoder(
    workspace: Workspace,
    stores: Stores,
    spec: Spec,
    study: Stored,
    item: Summary,
    *,
    per_unit: bool = False,
    trial: int | None = None,
) -> Encoder:
    """The encoder of a study's best trial, of another kept trial, or of the best of every unit.

    Its validation loss is then that of the images which the units' trials were not chosen on.
    """
    assert item.best is not None
    number = item.best.number if trial is None else trial
    parameters = best_parameters(stores, study, per_unit=per_unit, trial=number)
    if per_unit:
        value = reported_loss(parameters)
    else:
        value = item.best.value if number == item.best.number else None
    return evaluation.encoder(
        workspace, spec, parameters, trial=None if per_unit else number, value=value
    )


def reported_loss(parameters: Mapping[str, Any]) -> float | None:
    """Mean over units of the loss on the half of the validation images that did not choose."""
    from studies.search.best_weights import REPORT

    loss = parameters["unit_loss"][:, REPORT]
    there = loss[~loss.isnan()]
    return float(there.mean()) if len(there) else None


def ensemble(
    workspace: Workspace, stores: Stores, spec: Spec, study: Stored, item: Summary, size: int
) -> list[Encoder]:
    """Encoders of the ``size`` best kept trials of a study, the best first.

    Raises
    ------
    InputError
        If fewer are kept.
    """
    from studies.database.trials import load
    from studies.search.best_weights import best_first, kept_files

    with stores.storage.read() as connection:
        kept = {n for n in kept_files(connection, study.study_id) if n is not None}
        trials = load(connection, [study.study_id], curves=False)[study.study_id]
    values = {t.number: t.value for t in trials if t.number in kept and t.value is not None}
    if len(values) < size:
        raise InputError(
            f"study {study.name}: --ensemble {size} needs {size} kept trials and there are "
            f"{len(values)}; raise search.keep before the search, or ask for fewer"
        )
    return [
        study_encoder(workspace, stores, spec, study, item, trial=number)
        for number in best_first(values)[:size]
    ]


@dataclass(frozen=True)
class Again:
    """Images that are to be made again: by the trials that made them, whatever the search has found since.

    Attributes
    ----------
    manifest
        The images' own record.
    trials
        Number of each trial.
    checksums
        Of each encoder.
    """

    manifest: Path
    trials: Sequence[int | str | None]
    checksums: Sequence[str]

    def encoders(
        self, workspace: Workspace, stores: Stores, spec: Spec, study: Stored, item: Summary
    ) -> list[Encoder]:
        """The encoders of those trials.

        Raises
        ------
        InputError
            If the weights of one are no longer kept.
        """
        from studies.search.best_weights import kept_files

        with stores.storage.read() as connection:
            kept = kept_files(connection, study.study_id)
        numbers = [trial for trial in self.trials if isinstance(trial, int) and trial in kept]
        if len(numbers) < len(self.trials):
            lost = next(trial for trial in self.trials if trial not in kept)
            raise InputError(
                f"{self.manifest}: made with trial {lost} of {study.name}, whose weights are no longer "
                "kept: better trials took its place; make new images without --from"
            )
        return [
            study_encoder(workspace, stores, spec, study, item, trial=number) for number in numbers
        ]


def export_images(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    out: Path,
    settings: MeiSettings,
    *,
    units: Sequence[int] | None = None,
    ensemble_size: int = 1,
    again: Again | None = None,
    evaluate: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write most exciting images of every study's units into ``OUT/<name>/``.

    With ``evaluate``, ``evaluation.csv`` too: every image's predicted response under the encoder that made it and under
    encoders that did not (other kept trials, the other readouts and backbones of the region), the grey screen, and the
    best natural training image of equal mean and contrast.
    """
    from tuner.figures.tables import write_csv
    from tuner.synthesis.evaluate import COLUMNS, compare
    from tuner.synthesis.export import check_same, export_meis

    ready = with_best(workspace, stores, specs)
    if units is not None:
        known = {int(unit) for spec, _, _ in ready for unit in spec.units}
        missing = [unit for unit in units if unit not in known]
        if missing:
            raise InputError(
                f"--units {missing[0]}: no selected study has this unit; valid: "
                f"{_ranges(sorted(known))}"
            )
    written = []
    for spec, study, item in ready:
        mine = None if units is None else [u for u in units if u in set(spec.units.tolist())]
        if mine is not None and not mine:
            continue
        if again is None:
            encoders = ensemble(workspace, stores, spec, study, item, ensemble_size)
        else:
            encoders = again.encoders(workspace, stores, spec, study, item)
            check_same(encoders, again.checksums, again.manifest)

        def tell(done: int, total: int, name: str = spec.name) -> None:
            if progress is not None:
                progress(f"images of {name}", done, total)

        result = export_meis(
            out / spec.name, encoders, mine, settings, title=spec.name, progress=tell
        )
        written.append(out / spec.name)
        if evaluate:
            made, judges = judges_of(workspace, stores, spec, study, item, encoders)
            table = compare(result, judges, made, settings.photometry, workspace.images)
            written.append(write_csv(table, COLUMNS, out / spec.name / "evaluation.csv"))
    return written


def judges_of(
    workspace: Workspace,
    stores: Stores,
    spec: Spec,
    study: Stored,
    item: Summary,
    makers: Sequence[Encoder],
) -> tuple[list[str], dict[str, Encoder]]:
    """Encoders by name that judge a study's images, and the names of those that made them.

    Besides the makers: the study's other kept trials, and the best layer of every other pair of readout and backbone among
    all studies of the region.
    """
    from studies.search.best_weights import kept_files

    with stores.storage.read() as connection:
        kept = sum(n is not None for n in kept_files(connection, study.study_id))
    own = ensemble(workspace, stores, spec, study, item, kept)
    judges = {f"{spec.name} #{model.meta['trial']}": model for model in own}
    made = [f"{spec.name} #{model.meta['trial']}" for model in makers]
    rivals: dict[tuple[str, str], tuple[Spec, Stored, Summary]] = {}
    created = stored_studies(stores.storage)
    region = [s for s in workspace.grid if s.key.region == spec.key.region and s.name in created]
    for one in with_best(workspace, stores, region):
        key = (one[0].key.backbone, one[0].key.readout)
        if key == (spec.key.backbone, spec.key.readout):
            continue
        if key not in rivals or _value(one[2]) < _value(rivals[key][2]):
            rivals[key] = one
    for other, stored, summary in rivals.values():
        judges[other.name] = study_encoder(workspace, stores, other, stored, summary)
    return made, judges


def _value(item: Summary) -> float:
    assert item.best is not None
    return float(item.best.value or 0.0)


def _ranges(numbers: Sequence[int]) -> str:
    """Consecutive numbers as ranges: ``0-11, 24``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
