"""Making studies of the grid: what is new, what is there already, and how their rounds will be run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from studies.database.ghosts import forget
from studies.database.stores import Stores
from studies.database.studies import NewStudy, Stored, add, delete, stored_studies
from studies.fingerprint import difference, refuse
from studies.grid import Spec, cohorts
from studies.names import refuse_names
from studies.search.closed_form import problem
from studies.workspace import Workspace


@dataclass
class Created:
    """What making studies did."""

    new: int = 0
    present: int = 0
    replaced: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)


def plans(workspace: Workspace, specs: Sequence[Spec]) -> dict[str, dict[str, Any]]:
    """How rounds are run, study by study: resolved once, from sizes and this machine, and kept.

    ``memory`` in bytes, ``compiled``, and the kind of ``device``.

    Raises
    ------
    EnvironmentFailure
        If a closed form does not fit into the memory.
    """
    from tuner import readouts
    from tuner.fitting.plan import resolve_memory, worth_compiling

    experiment, device = workspace.experiment, workspace.device
    memory = resolve_memory(experiment.training.memory, device)
    out: dict[str, dict[str, Any]] = {}
    for members in cohorts(specs).values():
        columns = sum(len(s.units) for s in members) * experiment.search.parallel_trials
        if members[0].closed_form:
            problem(workspace, members).plan(memory)  # refused where it will not fit
        columns *= workspace.cuts.n_folds
        readout = readouts.get(members[0].key.readout)
        steps = experiment.training.steps
        compiled = not readout.closed_form and worth_compiling(
            readout, columns, members[0].shape, steps, device
        )
        for spec in members:
            out[spec.name] = {"memory": memory, "compiled": compiled, "device": device.type}
    return out


def create(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    *,
    force: bool = False,
    wait: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> Created:
    """Make the studies that are not there yet; doing it again does nothing.

    Parameters
    ----------
    specs
        The selected studies.
    force
        Whether studies that were made with other settings are deleted and made anew.
    wait
        Whether it is waited for whoever works on one that is to be made anew.
    say
        Told what is waited for.

    Raises
    ------
    InputError
        If a study is there with other settings, naming the key; or is to be made anew and is worked on, naming by whom;
        or an image cannot be opened, or is not square under ``data.fit = "error"``.
    """
    done = Created(forgotten=forget(stores.storage, stores.artifacts))
    stored = stored_studies(stores.storage)
    prints = {spec.name: workspace.fingerprint(spec) for spec in specs}
    outdated: list[Stored] = []
    for name, now in prints.items():
        if name not in stored:
            continue
        if difference(stored[name].fingerprint, now) is None:
            done.present += 1
        elif force:
            outdated.append(stored[name])
        else:
            refuse(workspace.experiment.file, name, stored[name].fingerprint, now)
    new = [spec.name for spec in specs if spec.name not in stored]
    if new:
        refuse_names([*stored, *new], workspace.experiment.file)
    done.replaced = [study.name for study in outdated]
    gone = set(done.replaced)
    missing = [spec for spec in specs if spec.name not in stored or spec.name in gone]
    if missing:
        _check_images(workspace)
    how = plans(workspace, missing)
    studies = [
        NewStudy(spec.key, spec.layer_index, prints[spec.name], how[spec.name]) for spec in missing
    ]
    with stores.alone(outdated, "made anew", wait=wait, say=say):
        if outdated:
            delete(stores.storage, stores.artifacts, outdated)
        done.new = add(stores.storage, studies)
    return done


def _check_images(workspace: Workspace) -> None:
    """Refuse images that a search would stop at, by their headers."""
    from tuner.recordings.images import check_sizes

    recording = workspace.recording
    for images in (recording.train_images, recording.test_images):
        if images is not None:
            check_sizes(images, workspace.experiment.data.fit, recording.source)
