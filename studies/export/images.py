"""``tuner export mei``: most exciting images of every unit of the selected studies."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from studies.basis import basis_of
from studies.config.networks import BASELINES, untrained
from studies.database.stores import Stores
from studies.database.studies import stored_studies
from studies.grid import Spec
from studies.names import StudyKey
from studies.results.encoders import Best, best_studies, each
from studies.results.trusted import first_told, judge
from studies.workspace import Workspace
from tuner.atomic import write_bytes
from tuner.errors import InputError

if TYPE_CHECKING:
    from studies.config.experiment import Experiment
    from tuner.encoder import Encoder
    from tuner.recordings import Recording
    from tuner.synthesis.manifest import Manifest
    from tuner.synthesis.mei import MeiSettings


EVALUATION = "evaluation.json"


def combination_of(manifest: Manifest) -> StudyKey:
    """The study whose images a manifest is about.

    Raises
    ------
    InputError
        If it names none.
    """
    try:
        return StudyKey.parse(manifest.study)
    except ValueError:
        raise InputError(
            f"{manifest.path}: names no study; it was not written by this command"
        ) from None


def makers(best: Best, manifest: Manifest) -> list[Encoder]:
    """The encoders that made a manifest's images, whatever the search has found since.

    Raises
    ------
    InputError
        If the weights of one are no longer kept, or are others.
    """
    if best.spec.closed_form:
        encoders = [best.encoder()]
        manifest.check_same(encoders)
        return encoders
    kept = best.kept
    numbers = [trial for trial in manifest.trials if trial in kept]
    if len(numbers) < len(manifest.trials):
        lost = next(trial for trial in manifest.trials if trial not in kept)
        raise InputError(
            f"{manifest.path}: made with trial {lost} of {best.spec.name}, whose weights are no "
            "longer kept: better trials took its place; make new images without --from"
        )
    encoders = [best.encoder(number) for number in numbers]
    manifest.check_same(encoders)
    return encoders


def export_images(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    out: Path,
    settings: MeiSettings,
    *,
    units: Sequence[int] | None = None,
    ensemble_size: int = 1,
    again: Manifest | None = None,
    evaluate: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> list[Path]:
    """Write most exciting images of every study's units into ``OUT/<name>/``.

    With ``again``, the encoders are those that made its images. ``say`` is told before each study's images are made how long
    that will take, and afterwards how they do against the best natural ones.

    With ``evaluate``, ``evaluation.csv`` too: every image's predicted response under the encoder that made it and under
    encoders that did not (other kept trials, the other readouts and backbones of the region), the grey screen, and the
    best natural training image of equal mean and contrast, over the whole image and inside the unit's receptive field; and
    ``evaluation.json``: a row per judge, how independent each is, and a headline by the most independent ones.
    """
    from tuner.figures import captions
    from tuner.figures.tables import write_csv
    from tuner.synthesis.estimate import announced
    from tuner.synthesis.evaluate import COLUMNS, compare, headline, summary
    from tuner.synthesis.export import export_meis
    from tuner.synthesis.receptive_fields import from_readout
    from tuner.synthesis.sight import sight

    ready = best_studies(workspace, stores, specs)
    if units is not None:
        known = {int(unit) for best in ready for unit in best.spec.units}
        missing = [unit for unit in units if unit not in known]
        if missing:
            raise InputError(
                f"--units {missing[0]}: no selected study has this unit; valid: "
                f"{_ranges(sorted(known))}"
            )
        ready = [best for best in ready if set(units) & set(best.spec.units.tolist())]

    def made_by(best: Best) -> list[Encoder]:
        return best.ensemble(ensemble_size) if again is None else makers(best, again)

    written, basis = [], basis_of(workspace)
    for best, encoders in each(ready, made_by):
        spec = best.spec
        mine = None if units is None else [u for u in units if u in set(spec.units.tolist())]
        tell = partial(workspace.progress, f"images of {spec.name}")
        n_units = len(spec.units) if mine is None else len(mine)
        made, judges = judges_of(best, encoders) if evaluate else ([], {})
        work = announced(
            encoders, n_units, settings, natural=workspace.images, judges=list(judges.values())
        )
        say(f"{spec.name}: {work}")
        failed = judge(best, encoders)
        if failed:
            say(f"{spec.name}: {captions.NOTHING}")
        result, held = export_meis(
            out / spec.name,
            encoders,
            mine,
            settings,
            title=spec.name,
            about=captions.encoder(row_of(best), basis, size=len(encoders), failed=failed),
            recorded=largest_recorded(workspace.recording, spec.units),
            natural=workspace.images,
            progress=tell,
        )
        if held is not None:
            more = "; more --steps may help" if held.losing(result.activation) else ""
            say(f"{spec.name}: {held.verdict(result.activation)}{more}")
            coloured = held.colour(settings)
            if coloured:
                say(f"{spec.name}: {coloured}")
        written.append(out / spec.name)
        if evaluate:
            place = {int(unit): k for k, unit in enumerate(spec.units)}
            fields = from_readout(encoders[0], sight(encoders[0], workspace.sights))
            table = compare(
                result,
                judges,
                made,
                settings.photometry,
                workspace.images,
                fields=fields.of([place[int(unit)] for unit in result.units]),
                progress=partial(workspace.progress, f"judging images of {spec.name}"),
            )
            written.append(write_csv(table, COLUMNS, out / spec.name / "evaluation.csv"))
            judged = summary(table)
            content = {
                "headline": headline(judged),
                "judges": [
                    {k: None if v != v else v for k, v in row.items()}  # JSON knows no NaN
                    for row in judged
                ],
            }
            written.append(
                write_bytes(
                    out / spec.name / EVALUATION, (json.dumps(content, indent=1) + "\n").encode()
                )
            )
    return written


def largest_recorded(recording: Recording, units: NDArray[np.int64]) -> dict[int, float]:
    """Unit to the largest response that was recorded of it, to a training image or in the mean to a test image."""
    parts = [recording.train_responses[:, units].astype(np.float64)]
    if recording.test_responses is not None:
        from tuner.scores.moments import nan_mean

        parts.append(nan_mean(recording.test_responses[:, :, units].astype(np.float64), axis=0))
    largest = np.fmax.reduce([np.fmax.reduce(part, axis=0) for part in parts])
    return {int(u): float(v) for u, v in zip(units, largest, strict=True) if np.isfinite(v)}


def row_of(best: Best) -> dict[str, Any]:
    """What captions ask of a study."""
    return best.spec.columns | {"n_trials": best.summary.finished}


def no_judges(experiment: Experiment, maker: str) -> frozenset[str]:
    """Networks that are controls of the one that made an image, and do not judge it.

    Of a trained network those with random weights, pixels and Gabor filters; of these filters the random ones.
    """
    tables = experiment.backbone
    random = untrained(tables)
    plain = frozenset(table.alias for table in tables if table.name in BASELINES)
    if maker in random:
        return frozenset()
    return random if maker in plain else random | plain


def judges_of(best: Best, made_by: Sequence[Encoder]) -> tuple[list[str], dict[str, Encoder]]:
    """Encoders by name that judge a study's images, and the names of those that made them.

    Besides the makers: the study's other kept trials, and the best layer of every other pair of readout and backbone among
    all studies of the region; one that is not surely better than predicting the mean judges nothing, nor one on a network
    with random weights or on pixels or Gabor filters, which are controls: they see other things in an image than a trained
    network, and that they dislike it is no evidence against it.
    """
    workspace, stores, key = best.workspace, best.stores, best.spec.key
    own = best.ensemble()
    judges = {f"{best.spec.name} #{model.meta['trial']}": model for model in own}
    made = [f"{best.spec.name} #{model.meta['trial']}" for model in made_by]
    controls = no_judges(workspace.experiment, key.backbone)
    contests: dict[tuple[str, str], list[Best]] = {}
    created = stored_studies(stores.storage)
    region = [s for s in workspace.grid if s.key.region == key.region and s.name in created]
    for other in best_studies(workspace, stores, region):
        kind = (other.spec.key.backbone, other.spec.key.readout)
        if kind != (key.backbone, key.readout) and other.spec.key.backbone not in controls:
            contests.setdefault(kind, []).append(other)
    rivals = [rival for mine in contests.values() if (rival := first_told(mine)) is not None]
    others = each(rivals, Best.encoder)
    return made, judges | {rival.spec.name: model for rival, model in others}


def _ranges(numbers: Sequence[int]) -> str:
    """Consecutive numbers as ranges: ``0-11, 24``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
