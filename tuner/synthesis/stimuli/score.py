"""Did the units do as predicted? Prediction, preference and selectivity of recorded responses.

*Prediction*: predicted against measured over all images, per unit and encoder, with the noise
ceiling and confidence intervals. *Preference*: a unit's own image against its best natural one,
paired by repeat. *Selectivity*: see :mod:`tuner.synthesis.stimuli.selectivity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.scores import score_units
from tuner.scores.few import mean_interval
from tuner.synthesis.stimuli.answers import Answers
from tuner.synthesis.stimuli.choice import KINDS
from tuner.synthesis.stimuli.manifest import Folder
from tuner.synthesis.stimuli.selectivity import Selectivity, mean_there, selectivity_of
from tuner.synthesis.stimuli.summary import summarised

Floats = NDArray[np.float64]

PREFERENCE_COLUMNS = (
    "study",
    "unit",
    "name",
    "region_units",
    *(f"response_{kind}" for kind in KINDS),
    "response_sd",
    "difference",
    "difference_low",
    "difference_high",
    "gain",
    "predicted_gain",
)


@dataclass(frozen=True)
class Scores:
    """All that is reported.

    Attributes
    ----------
    prediction
        A row per encoder and unit: scores of predicted against measured.
    preference
        A row per study and unit, with the :data:`PREFERENCE_COLUMNS`.
    selectivity
        Study and kind (``mei``, ``natural_best``) to responses to one another's images.
    summary
        A row per study.
    measured
        ``(n_images, n_units)``: mean responses.
    repeats
        Most responses of a unit to one image.
    """

    prediction: list[dict[str, Any]]
    preference: list[dict[str, Any]]
    selectivity: dict[tuple[str, str], Selectivity]
    summary: list[dict[str, Any]]
    measured: Floats
    repeats: int


def score(folder: Folder, answers: Answers, *, draws: int = 1000, seed: int = 0) -> Scores:
    """Score recorded responses.

    Parameters
    ----------
    folder
        The stimuli, with their predictions.
    answers
        The recorded responses.
    draws
        Bootstrap samples of images, behind the intervals of predictions.
    seed
        Seed of the bootstrap.

    Raises
    ------
    InputError
        If no unit that was recorded was predicted.
    """
    with np.errstate(invalid="ignore"):
        measured = mean_there(answers.responses, 0)
    prediction = _prediction(folder, answers, draws, seed)
    preference, selectivity, summary = [], {}, []
    for study in dict.fromkeys(str(row["study"]) for row in folder.rows if row["study"]):
        mine = _preference(folder, answers, measured, study)
        preference += mine
        for kind in ("mei", "natural_best"):
            found = _selectivity(folder, answers, measured, study, kind)
            if found is not None:
                selectivity[study, kind] = found
        own = {kind: selectivity.get((study, kind)) for kind in ("mei", "natural_best")}
        summary.append(summarised(study, mine, prediction, own))
    return Scores(
        prediction, preference, selectivity, summary, measured, answers.responses.shape[0]
    )


def _prediction(folder: Folder, answers: Answers, draws: int, seed: int) -> list[dict[str, Any]]:
    column_of = {int(unit): k for k, unit in enumerate(answers.units)}
    names = folder.unit_names()
    rows: list[dict[str, Any]] = []
    for encoder, predicted in folder.predictions.items():
        pairs = [
            (j, column_of[int(unit)], int(unit))
            for j, unit in enumerate(folder.units[encoder])
            if int(unit) in column_of
        ]
        if not pairs:
            continue
        p = predicted[:, [pair[0] for pair in pairs]]
        y = answers.responses[:, :, [pair[1] for pair in pairs]]
        shown = np.isfinite(y).any((0, 2))
        scores = score_units(p[shown], y[:, shown], draws=draws, seed=seed)
        for k, (_, _, unit) in enumerate(pairs):
            rows.append(
                {
                    "encoder": encoder,
                    "unit": unit,
                    "name": names.get(unit, ""),
                    "n_images": int(np.isfinite(y[:, :, k]).any(0).sum()),
                    **{name: values[k].item() for name, values in scores.items()},
                }
            )
    if not rows:
        raise InputError("none of the recorded units was predicted by an encoder of the stimuli")
    return rows


def _images(folder: Folder, study: str, kind: str, unit: int) -> list[int]:
    return [
        k
        for k, row in enumerate(folder.rows)
        if row["kind"] == kind
        and (kind == "grey" or (row["study"] == study and row["unit"] == unit))
    ]


def _targets(folder: Folder, answers: Answers, study: str) -> list[int]:
    """Units of a study that were shown their own image and recorded."""
    recorded = set(answers.units.tolist())
    units = [int(r["unit"]) for r in folder.rows if r["study"] == study and r["kind"] == "mei"]
    return [unit for unit in dict.fromkeys(units) if unit in recorded]


def _preference(
    folder: Folder, answers: Answers, measured: Floats, study: str
) -> list[dict[str, Any]]:
    column_of = {int(unit): k for k, unit in enumerate(answers.units)}
    names = folder.unit_names()
    targets = _targets(folder, answers, study)
    rows = []
    for unit in targets:
        column = column_of[unit]
        row: dict[str, Any] = dict.fromkeys(PREFERENCE_COLUMNS)
        row |= {
            "study": study,
            "unit": unit,
            "name": names.get(unit, ""),
            "region_units": len(targets),
        }
        for kind in KINDS:
            images = _images(folder, study, kind, unit)
            if kind == "mei_other":
                images += [
                    k
                    for other in targets
                    if other != unit
                    for k in _images(folder, study, "mei", other)
                ]
            values = measured[images, column]
            row[f"response_{kind}"] = float(mean_there(values, 0)) if images else float("nan")
        row["response_sd"] = float(
            np.sqrt(mean_there((measured[:, column] - mean_there(measured[:, column], 0)) ** 2, 0))
        )
        own, natural = (_images(folder, study, k, unit) for k in ("mei", "natural_best"))
        if own and natural:
            responses = answers.responses[:, :, column]
            difference = mean_there(responses[:, own], 1) - mean_there(responses[:, natural], 1)
            row |= _interval(difference[np.isfinite(difference)])
            row["gain"] = _gain(
                row["response_mei"], row["response_natural_best"], row["response_grey"]
            )
            row["predicted_gain"] = _predicted_gain(folder, study, unit, own, natural)
        rows.append(row)
    return rows


def _gain(own: float, natural: float, grey: float) -> float:
    """Response to the own image over that to the natural one, both less grey's."""
    base = grey if np.isfinite(grey) else 0.0
    return (own - base) / (natural - base) if natural > base else float("nan")


def _predicted_gain(
    folder: Folder, study: str, unit: int, own: Sequence[int], natural: Sequence[int]
) -> float:
    """The same, as the encoder of the study foresaw it."""
    if study not in folder.predictions:
        return float("nan")
    (column,) = np.nonzero(folder.units[study] == unit)
    if not len(column):
        return float("nan")
    predicted = folder.predictions[study][:, int(column[0])]
    grey = _images(folder, study, "grey", unit)
    base = float(predicted[grey].mean()) if grey else float("nan")
    return _gain(float(predicted[list(own)].mean()), float(predicted[list(natural)].mean()), base)


def _interval(difference: Floats) -> dict[str, float]:
    """Mean of paired differences and its interval over repeats."""
    low, high = mean_interval(difference)
    mean = float(difference.mean()) if len(difference) else float("nan")
    return {"difference": mean, "difference_low": low, "difference_high": high}


def _selectivity(
    folder: Folder, answers: Answers, measured: Floats, study: str, kind: str
) -> Selectivity | None:
    targets = _targets(folder, answers, study)
    column_of = {int(unit): k for k, unit in enumerate(answers.units)}
    images = [_images(folder, study, kind, unit) for unit in targets]
    if len(targets) < 2 or not all(images):
        return None
    columns = [column_of[unit] for unit in targets]
    return selectivity_of(np.array(targets), measured[:, columns], images)
