"""Did the units do as predicted? Prediction, preference and selectivity of recorded responses.

*Prediction*: predicted against measured over all images, per unit and encoder, with the noise
ceiling and confidence intervals. *Preference*: a unit's own image against its best natural one,
paired by repeat. *Selectivity*: whether an image drives the unit it was made for and leaves the
others alone, after the one-hot population control of Bashivan et al. 2019: responses are z-scored
per unit over all images, and an image's score is the softmax share of its own unit,
``exp(z_own) / sum_j exp(z_j)``, over the units of the study that were shown their own images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.scores import score_units
from tuner.synthesis.stimuli.answers import Answers
from tuner.synthesis.stimuli.choice import KINDS
from tuner.synthesis.stimuli.manifest import Folder

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
class Selectivity:
    """Responses of a study's units to one another's images.

    Attributes
    ----------
    units
        ``(n,)`` unit indices; rows are the images made for them, columns their responses.
    z
        ``(n, n)`` z-scored responses; NaN where an image was not shown.
    share
        ``(n,)``: softmax share of the own unit.
    rank
        ``(n,)``: how many units respond more than the own one.
    """

    units: NDArray[np.int64]
    z: Floats
    share: Floats
    rank: NDArray[np.int64]


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
        Bootstrap samples behind intervals: of images for predictions, of repeats for preferences.
    seed
        Seed of the bootstrap.

    Raises
    ------
    InputError
        If no unit that was recorded was predicted.
    """
    with np.errstate(invalid="ignore"):
        measured = _mean(answers.responses, 0)
    prediction = _prediction(folder, answers, draws, seed)
    preference, selectivity, summary = [], {}, []
    for study in dict.fromkeys(str(row["study"]) for row in folder.rows if row["study"]):
        mine = _preference(folder, answers, measured, study, draws, seed)
        preference += mine
        for kind in ("mei", "natural_best"):
            found = _selectivity(folder, answers, measured, study, kind)
            if found is not None:
                selectivity[study, kind] = found
        summary.append(_summary(study, mine, prediction, selectivity, draws, seed))
    return Scores(
        prediction, preference, selectivity, summary, measured, answers.responses.shape[0]
    )


def _mean(values: Floats, axis: int) -> Floats:
    """Mean over what is there; NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis)
    total = np.where(there, values, 0.0).sum(axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


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
    folder: Folder, answers: Answers, measured: Floats, study: str, draws: int, seed: int
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
            row[f"response_{kind}"] = float(_mean(values, 0)) if images else float("nan")
        row["response_sd"] = float(
            np.sqrt(_mean((measured[:, column] - _mean(measured[:, column], 0)) ** 2, 0))
        )
        own, natural = (_images(folder, study, k, unit) for k in ("mei", "natural_best"))
        if own and natural:
            responses = answers.responses[:, :, column]
            difference = _mean(responses[:, own], 1) - _mean(responses[:, natural], 1)
            row |= _interval(difference[np.isfinite(difference)], draws, (seed, unit))
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


def _interval(difference: Floats, draws: int, key: tuple[int, ...]) -> dict[str, float]:
    """Mean of paired differences and its bootstrap interval over repeats."""
    nothing = float("nan")
    if not len(difference):
        return {"difference": nothing, "difference_low": nothing, "difference_high": nothing}
    mean = float(difference.mean())
    if len(difference) < 2 or draws < 1:
        return {"difference": mean, "difference_low": nothing, "difference_high": nothing}
    rng = np.random.default_rng(key)
    picked = rng.integers(len(difference), size=(draws, len(difference)))
    low, high = np.quantile(difference[picked].mean(1), [0.025, 0.975])
    return {"difference": mean, "difference_low": float(low), "difference_high": float(high)}


def _selectivity(
    folder: Folder, answers: Answers, measured: Floats, study: str, kind: str
) -> Selectivity | None:
    targets = _targets(folder, answers, study)
    column_of = {int(unit): k for k, unit in enumerate(answers.units)}
    columns = [column_of[unit] for unit in targets]
    images = [_images(folder, study, kind, unit) for unit in targets]
    if len(targets) < 2 or not all(images):
        return None
    own = measured[:, columns]
    centre = _mean(own, 0)
    spread = np.sqrt(_mean((own - centre) ** 2, 0))
    z = (own - centre) / np.where(spread > 0, spread, np.nan)
    matrix = np.stack([_mean(z[each], 0) for each in images])
    diagonal = matrix.diagonal()
    with np.errstate(invalid="ignore"):
        share = np.exp(diagonal) / np.nansum(np.exp(matrix), axis=1)
        rank = (matrix > diagonal[:, None]).sum(1)
    return Selectivity(np.array(targets), matrix, np.asarray(share), rank.astype(np.int64))


def _summary(
    study: str,
    preference: Sequence[Mapping[str, Any]],
    prediction: Sequence[Mapping[str, Any]],
    selectivity: Mapping[tuple[str, str], Selectivity],
    draws: int,
    seed: int,
) -> dict[str, Any]:
    scored = [row for row in prediction if row["encoder"] == study]
    difference = _finite(
        [
            row["difference"] / row["response_sd"]
            for row in preference
            if row["difference"] is not None and row["response_sd"] > 0
        ]
    )
    gains = _finite([row["gain"] for row in preference])
    row: dict[str, Any] = {
        "study": study,
        "n_units": len(preference),
        "correlation": _median([r["test_correlation"] for r in scored]),
        "correlation_normalized": _median([r["test_correlation_normalized"] for r in scored]),
        "noise_ceiling": _median([r["noise_ceiling"] for r in scored]),
        "own_better_than_natural": float((difference > 0).mean())
        if len(difference)
        else float("nan"),
        "difference": float(np.median(difference)) if len(difference) else float("nan"),
        **_median_interval("difference", difference, draws, (seed, 0xD1F)),
        "p_value": _signed_rank(difference),
        "better": _better(difference),
        "gain": float(np.median(gains)) if len(gains) else float("nan"),
        **_median_interval("gain", gains, draws, (seed, 0x6A1)),
    }
    for kind, name in (("mei", "selectivity"), ("natural_best", "selectivity_natural")):
        found = selectivity.get((study, kind))
        row[name] = float(np.nanmean(found.share)) if found is not None else float("nan")
    own = selectivity.get((study, "mei"))
    row["selectivity_chance"] = 1 / len(own.units) if own is not None else float("nan")
    row["most_driven_is_target"] = (
        float((own.rank == 0).mean()) if own is not None else float("nan")
    )
    return row


def said(row: Mapping[str, Any]) -> str:
    """Say in a sentence whether a study's units prefer their own images.

    Parameters
    ----------
    row
        Of the summary.

    Examples
    --------
    >>> row = {"n_units": 6, "own_better_than_natural": 0.0, "difference": -0.51, "difference_low": -0.7}
    >>> row |= {"difference_high": -0.3, "p_value": 0.031, "better": "natural", "gain": 0.62}
    >>> print(said(row | {"gain_low": 0.5, "gain_high": 0.8}))
    own image better for 0% of 6 units; own less best natural response: median -0.51 sd [-0.70, -0.30], p = .031 (natural \
better); median gain 0.62 [0.50, 0.80] (own over natural, both less grey: below 1 the natural one is better)
    """
    share = row["own_better_than_natural"]
    if not np.isfinite(share):
        return "own and best natural images cannot be compared: one of them was not recorded"
    test = ""
    if np.isfinite(row["p_value"]):
        p = f"= {row['p_value']:.2g}".replace("0.", ".") if row["p_value"] >= 0.001 else "< .001"
        test = f", p {p}"
    better = row["better"] if row["better"] == BETTER[2] else f"{row['better']} better"
    sentence = (
        f"own image better for {share:.0%} of {row['n_units']} units; own less best natural response: "
        f"median {_with_limits(row, 'difference', ' sd')}{test} ({better})"
    )
    if not np.isfinite(row["gain"]):
        return sentence
    return (
        f"{sentence}; median gain {_with_limits(row, 'gain')} (own over natural, both less grey: "
        "below 1 the natural one is better)"
    )


def _with_limits(row: Mapping[str, Any], name: str, unit: str = "") -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    limits = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low + high) else ""
    return f"{row[name]:.2f}{unit}{limits}"


def _finite(values: Sequence[Any]) -> Floats:
    array = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return array[np.isfinite(array)]


def _median(values: Sequence[Any]) -> float:
    found = _finite(values)
    return float(np.median(found)) if len(found) else float("nan")


def _median_interval(
    name: str, values: Floats, draws: int, key: tuple[int, int]
) -> dict[str, float]:
    """Bootstrap interval, over units, of a median."""
    if len(values) < 2 or draws < 1:
        return {f"{name}_low": float("nan"), f"{name}_high": float("nan")}
    rng = np.random.default_rng(key)
    picked = rng.integers(len(values), size=(draws, len(values)))
    low, high = np.quantile(np.median(values[picked], axis=1), [0.025, 0.975])
    return {f"{name}_low": float(low), f"{name}_high": float(high)}


BETTER = ("own", "natural", "neither")
"""Which image units prefer, as ``better`` in the summary says it."""


def _better(difference: Floats) -> str:
    """Which image the units prefer: the direction of the signed-rank test, whatever its p value."""
    if not len(difference):
        return ""
    from scipy.stats import rankdata

    there = difference[difference != 0]
    total = float((rankdata(np.abs(there)) * np.sign(there)).sum()) if len(there) else 0.0
    return BETTER[0] if total > 0 else BETTER[1] if total < 0 else BETTER[2]


def _signed_rank(difference: Floats) -> float:
    """P of Wilcoxon's signed-rank test across units, two-sided; NaN with fewer than 5 units."""
    if len(difference) < 5 or not np.any(difference):
        return float("nan")
    from scipy.stats import wilcoxon

    return float(wilcoxon(difference).pvalue)
