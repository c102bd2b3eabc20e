"""Filling the report: every study's details, the recording's summary, and where it all comes from."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.basis import basis_of
from studies.dashboard.pictures import trial_curves
from studies.database import trials
from studies.database.stores import Stores
from studies.database.studies import Stored, stored_studies
from studies.database.trials import Trial
from studies.export.report.content import RecordingSummary, RegionSummary, StudyDetails
from studies.export.report.page import write_report
from studies.export.resplit import announced, on_other_cuts, sentences
from studies.export.target import is_file
from studies.grid import Spec
from studies.results.best_layers import among_layers, lowest, region_layers, summary, unit_layers
from studies.results.importance import importance
from studies.results.paired import set_against
from studies.results.references import named
from studies.results.scores import Evaluated, Scorer, evaluate_all, score_here
from studies.results.stacked import evaluate_stack, stacks
from studies.results.study import warnings
from studies.search.space import varying
from studies.workspace import Workspace
from tuner.figures.captions import NO_EVIDENCE, in_units

VERSIONS = ("cortex-tuner", "torch", "torchvision", "numpy", "optuna", "torch-lucent", "h5py")


def export_report(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    out: Path,
    *,
    references: Sequence[str] = ("ridge",),
    cuts: int = 0,
    stacked: bool = False,
    say: Callable[[str], None] = lambda message: None,
    scorer: Scorer = score_here,
) -> Path:
    """Write ``OUT/report.html``, or the file ``OUT`` if that is called ``NAME.html``.

    It shows the images that ``export mei`` left in its folder.

    Parameters
    ----------
    references
        Which of :data:`studies.results.references.REFERENCES` are shown beside the studies.
    cuts
        On how many other cuts the best settings are fitted, to say how sure the choice of layers is; 0: not said.
    stacked
        Whether all studies of a region on a backbone together are shown too.
    say
        Told how long fitting on other cuts will take.
    scorer
        Who computes the studies' scores.

    Raises
    ------
    InputError
        If no selected study has a complete trial, or ``OUT`` is called like another kind of file.
    """
    page = out if is_file(out, ".html") else out / "report.html"
    expected = announced(workspace, stores, specs, cuts, say) if cuts else None
    found: dict[str, Evaluated] = {}
    masks: dict[str, NDArray[np.float16] | None] = {}
    for one in evaluate_all(workspace, stores, specs, scorer=scorer):
        masks[one.spec.name] = where_units_read(one)
        found[one.spec.name] = replace(one, parameters=None)  # all weights would fill the memory
    beside = named(workspace, specs, references)
    scored = list(found.values())
    against = set_against(workspace, stores, scored, beside)
    rows = [one.row for one in against]
    if stacked:
        rows += [evaluate_stack(workspace, one)[0] for one in stacks(workspace, stores, specs)]
    chosen = best_layers(workspace, scored)
    if expected is not None:
        chosen = sentences(on_other_cuts(workspace, stores, specs, cuts, scored, expected))
    stored = stored_studies(stores.storage)
    ids = [stored[spec.name].study_id for spec in specs]
    loaded = trials.load(stores.storage, ids)
    seconds = trials.durations(stores.storage, ids)

    def details(name: str) -> StudyDetails | None:
        if name not in found:
            return None
        study = stored[name]
        return study_details(
            workspace,
            found[name],
            study,
            loaded[study.study_id],
            seconds[study.study_id],
            masks[name],
            page.parent,
        )

    return write_report(
        rows,
        details,
        recording_summary(workspace, scored),
        provenance(workspace, sum(seconds.values())),
        page,
        references=[reference.row for reference in beside],
        sure=[*chosen, *best_of_units(workspace, scored)],
        groups=workspace.areas,
        basis=basis_of(workspace),
    )


def best_layers(workspace: Workspace, found: Sequence[Evaluated]) -> list[str]:
    """Say which layer is the best of each region; nothing where there is one layer."""
    if not _several_layers(found):
        return []
    best = lowest(region_layers(workspace, found))
    among = among_layers([one.spec.key.backbone for one in found])
    return [f"{best}; whether surely is not said here (export report --resplit 5 says it{among})"]


def best_of_units(workspace: Workspace, found: Sequence[Evaluated]) -> list[str]:
    """Say of how many units the best layer is sure; nothing where there is one layer."""
    said = summary(unit_layers(workspace, found)) if _several_layers(found) else ""
    return [said] if said else []


def _several_layers(found: Sequence[Evaluated]) -> bool:
    return len({one.spec.key.place[:2] for one in found}) > 1


def where_units_read(one: Evaluated) -> NDArray[np.float16] | None:
    """Maps of the best trial's units, each from 0 to its own maximum, as exactly as they are shown."""
    from tuner import readouts

    if one.parameters is None:
        return None
    profile = readouts.get(one.spec.key.readout).spatial_profile(one.parameters).numpy()
    top = profile.max(axis=(1, 2), keepdims=True)
    return (profile / np.where(top > 0, top, 1.0)).astype(np.float16)


def study_details(
    workspace: Workspace,
    one: Evaluated,
    study: Stored,
    loaded: Sequence[Trial],
    seconds: float,
    masks: NDArray[np.float16] | None,
    out: Path,
) -> StudyDetails:
    """Everything that is shown when a study is chosen."""
    space = workspace.experiment.search.space[one.spec.key.readout]
    images, called, notes, how = images_of(
        out / one.spec.name, one, workspace.recording.measured_in
    )
    matters = importance(loaded, space)
    return StudyDetails(
        curves=trial_curves(loaded),
        parameters=one.summary.best.params if one.summary.best is not None else {},
        importance=matters.shares,
        importance_note=matters.note,
        settings={name: [trial.params.get(name) for trial in loaded] for name in varying(space)},
        log=varying(space, log=True),
        seconds=seconds,
        units=one.units,
        unit_names=[str(unit.get("name", unit["unit"])) for unit in one.units],
        masks=masks,
        images=images,
        image_names=called,
        image_notes=notes,
        image_settings=how,
        load=(
            f"# written by: tuner export best -o {out.name}\n"
            f'import tuner\nencoder = tuner.load_encoder("{out.name}/{one.spec.name}")\n'
            "responses = encoder(images)  # (batch, 3, size, size) in [0, 1]"
        ),
        notes=warnings(study, loaded, space),
    )


def images_of(
    folder: Path, one: Evaluated, measured_in: str = ""
) -> tuple[Any, list[str], list[str], str]:
    """Images that ``export mei`` wrote of units of this study, by unit: pictures, names, notes, and how they were made."""
    path = folder / "meis.npz"
    if not path.is_file():
        return None, [], [], ""
    try:
        with np.load(path, allow_pickle=False) as file:
            units, images, activation = file["units"], file["images"], file["activation"]
            natural = file.get("natural_activation")
    except (OSError, ValueError, KeyError):
        return None, [], [], ""
    place = {int(unit): i for i, unit in enumerate(units)}
    called = {
        int(u): str(row.get("name", u)) for u, row in zip(one.spec.units, one.units, strict=True)
    }
    there = [unit for unit in called if unit in place]
    if not there:
        return None, [], [], ""
    order = [place[unit] for unit in there]
    notes = [f"predicted {activation[i]:.3g}" for i in order]
    some = "" if len(there) == len(called) else f" of {len(there)} of {len(called)} units"
    unit = in_units(measured_in)
    how = f"most exciting images{some}; predicted responses {unit}"
    if natural is not None:
        notes = [
            f"{note}, best natural {natural[i]:.3g}" for note, i in zip(notes, order, strict=True)
        ]
        better = int((activation[order] > natural[order]).sum())
        how += (
            f"; {better} of {len(order)} are predicted to do better than the best training image at "
            f"equal mean and contrast ({NO_EVIDENCE})"
        )
    return images[order], [called[unit] for unit in there], notes, how


def recording_summary(workspace: Workspace, found: Sequence[Evaluated]) -> RecordingSummary:
    """The recording as the report introduces it."""
    recording, data = workspace.recording, workspace.experiment.data
    area_of = workspace.areas or {}
    regions = []
    for region, units in workspace.regions.items():
        one = next((o for o in found if o.spec.key.region == region), None)
        reliability = [u.get("reliability", np.nan) for u in one.units] if one else []
        missing = float(np.isnan(recording.train_responses[:, units]).mean())
        regions.append(
            RegionSummary(
                name=region,
                n_units=len(units),
                area=area_of.get(region, ""),
                n_units_with_ceiling=one.row.get("n_units_with_ceiling") if one else None,
                reliability=float(np.nanmean(reliability))
                if np.isfinite(np.asarray(reliability, dtype=float)).any()
                else None,
                noise_ceiling=one.row.get("noise_ceiling") if one else None,
                missing=missing,
            )
        )
    held_out, folds = len(workspace.cuts.held_out), workspace.cuts.n_folds
    cut: dict[str, Any] = {"fitted on": len(workspace.cuts.fitted), "validated on": held_out}
    if folds > 1:
        cut = {"validated on": f"{held_out} in {folds} folds, each by a fit that did not see it"}
    facts = {
        "training images": recording.n_train,
        **cut,
        "test images": recording.n_test,
        "repeats of each": recording.n_repeats,
        "image size, px": data.image_size,
        "loss": workspace.experiment.training.loss,
    }
    return RecordingSummary(
        label=recording.label
        if data.format != "simulated"
        else f"simulated {', '.join(workspace.regions)}",
        source=Path(recording.source).name if data.format != "simulated" else recording.source,
        simulated=recording.simulated,
        regions=regions,
        facts=facts,
        notes=recording.notes,
    )


def provenance(workspace: Workspace, seconds: float) -> dict[str, Any]:
    """Versions, seed, revision, time spent, and the configuration as it was written."""
    from studies.config.values import redact

    experiment = workspace.experiment
    out: dict[str, Any] = {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in VERSIONS},
        "seed": experiment.search.seed,
        "time spent on trials, s": round(seconds),
    }
    revision = _revision(experiment.folder)
    if revision:
        out["git revision"] = revision
    if experiment.file.is_file():
        out["configuration"] = redact(experiment.file.read_text(encoding="utf-8"))
    return out


def _revision(folder: Path) -> str | None:
    """Revision of the repository that the experiment lies in, if it lies in one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
