"""What a study's units did, in one row of numbers and in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.scores import counted_units
from tuner.scores.few import median_interval
from tuner.synthesis.stimuli.selectivity import Selectivity

Floats = NDArray[np.float64]

BETTER = ("own", "natural", "undecided")
"""Which image units prefer, as ``better`` in the summary says it."""

SURE = 0.05
"""P value of the signed-rank test below which a preference is called one."""

FEWEST = 6
"""Units of which that test can be so sure, and of which a median has a 95 % interval; fewer cannot, whatever they do."""


def summarised(
    study: str,
    preference: Sequence[Mapping[str, Any]],
    prediction: Sequence[Mapping[str, Any]],
    selectivity: Mapping[str, Selectivity | None],
) -> dict[str, Any]:
    """One row of the summary.

    Parameters
    ----------
    study
        Its name.
    preference
        A row for each unit that was shown its own image.
    prediction
        A row for each encoder and unit; those of the study's own encoder count.
    selectivity
        Kind of image (``mei``, ``natural_best``) to what the units did.
    """
    scored = [row for row in prediction if row["encoder"] == study]
    difference = _finite(
        [
            row["difference"] / row["response_sd"]
            for row in preference
            if row["difference"] is not None and row["response_sd"] > 0
        ]
    )
    gains = _finite([row["gain"] for row in preference])
    p_value = _signed_rank(difference)
    row: dict[str, Any] = {
        "study": study,
        "n_units": len(preference),
        "own_better_than_natural": float((difference > 0).mean())
        if len(difference)
        else float("nan"),
        "n_difference": len(difference),
        **_median(difference, "difference"),
        "p_value": p_value,
        "better": _better(difference, p_value),
        "n_gain": len(gains),
        **_median(gains, "gain"),
        **_predicted(scored),
    }
    for kind, name in (("mei", "selectivity"), ("natural_best", "selectivity_natural")):
        found = selectivity[kind]
        row[name] = float(np.nanmean(found.share)) if found is not None else float("nan")
    own = selectivity["mei"]
    row["selectivity_chance"] = 1 / len(own.units) if own is not None else float("nan")
    row["most_driven_is_target"] = (
        float((own.rank == 0).mean()) if own is not None else float("nan")
    )
    return row


def _predicted(scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians of a study's predictions over all its units; of what a ceiling is needed for, over units that have one."""
    correlation = _finite([row["test_correlation"] for row in scored])
    found: dict[str, Any] = {
        "n_predicted": len(correlation),
        "correlation": float(np.median(correlation)) if len(correlation) else float("nan"),
    }
    columns = {name: [row[name] for row in scored] for name in (scored[0] if scored else ())}
    with_ceiling = np.zeros(len(scored), dtype=bool)
    if scored:
        with_ceiling = counted_units(columns) & np.asarray(columns["has_ceiling"], dtype=bool)
    found["n_with_ceiling"] = int(with_ceiling.sum())
    for name, column in (
        ("correlation_normalized", "test_correlation_normalized"),
        ("noise_ceiling", "noise_ceiling"),
    ):
        counted = _finite([row[column] for row, it in zip(scored, with_ceiling, strict=True) if it])
        found[name] = float(np.median(counted)) if len(counted) else float("nan")
    return found


def said(row: Mapping[str, Any]) -> str:
    """Say in a sentence whether a study's units prefer their own images.

    Parameters
    ----------
    row
        Of the summary.

    Examples
    --------
    >>> row = {"n_difference": 6, "own_better_than_natural": 0.0, "difference": -0.51, "difference_low": -0.7}
    >>> row |= {"difference_high": -0.3, "p_value": 0.031, "better": "natural", "n_gain": 5, "gain": 0.62}
    >>> print(said(row | {"gain_low": np.nan, "gain_high": np.nan}))
    own image better for 0% of 6 units; own less best natural response: median -0.51 sd [-0.70, -0.30], p = .031: the \
natural images are better; median gain 0.62 of 5 units (own over natural, both less grey: below 1 the natural one is better)
    """
    share, n = row["own_better_than_natural"], row["n_difference"]
    if not n:
        return "own and best natural images cannot be compared: one of them was not recorded"
    sentence = (
        f"own image better for {share:.0%} of {n} {_units(n)}; own less best natural response: "
        f"median {_with_limits(row, 'difference', ' sd')}{_verdict(row)}"
    )
    if not row["n_gain"]:
        return sentence
    of = "" if row["n_gain"] == n else f" of {row['n_gain']} {_units(row['n_gain'])}"
    return (
        f"{sentence}; median gain {_with_limits(row, 'gain')}{of} (own over natural, both less grey: "
        "below 1 the natural one is better)"
    )


def _units(n: int) -> str:
    return "unit" if n == 1 else "units"


def _verdict(row: Mapping[str, Any]) -> str:
    """Whether it is sure, and by what."""
    if row["n_difference"] < FEWEST:
        return f" (too few units to tell: {FEWEST} at least)"
    if not np.isfinite(row["p_value"]):
        return ", undecided"
    p = f"= {row['p_value']:.2g}".replace("0.", ".") if row["p_value"] >= 0.001 else "< .001"
    if row["better"] == BETTER[2]:
        return f", p {p}: undecided"
    return f", p {p}: the {row['better']} images are better"


def _with_limits(row: Mapping[str, Any], name: str, unit: str = "") -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    limits = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low + high) else ""
    return f"{row[name]:.2f}{unit}{limits}"


def _finite(values: Sequence[Any]) -> Floats:
    array = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return array[np.isfinite(array)]


def _median(values: Floats, name: str) -> dict[str, float]:
    """A median over units and its interval."""
    low, high = median_interval(values)
    median = float(np.median(values)) if len(values) else float("nan")
    return {name: median, f"{name}_low": low, f"{name}_high": high}


def _better(difference: Floats, p_value: float) -> str:
    """Which image the units prefer, where the signed-rank test is sure; by the sign of its ranks."""
    if not len(difference):
        return ""
    if not p_value < SURE:
        return BETTER[2]
    from scipy.stats import rankdata

    there = difference[difference != 0]
    return BETTER[0] if float(rankdata(np.abs(there)) @ np.sign(there)) > 0 else BETTER[1]


def _signed_rank(difference: Floats) -> float:
    """P of Wilcoxon's signed-rank test across units, two-sided; NaN with fewer than 5 units."""
    if len(difference) < 5 or not np.any(difference):
        return float("nan")
    from scipy.stats import wilcoxon

    return float(wilcoxon(difference).pvalue)
