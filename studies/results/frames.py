"""The search as a table for notebooks: every trial, or every study, of an experiment in one pandas frame."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optuna.trial import TrialState

from studies.config.experiment import DEFAULT_FILE, Experiment, load_experiment
from studies.config.ranges import Setting
from studies.database import trials
from studies.database.stores import Stores, as_made, open_stores
from studies.database.studies import Stored, stored_studies
from studies.database.summaries import listing, summaries
from studies.database.trials import Trial
from tuner.errors import unknown

if TYPE_CHECKING:
    import pandas as pd

Per = Literal["trial", "study"]

PARTS = ("backbone", "layer", "layer_index", "region", "readout")
TRIAL_COLUMNS = ("study", *PARTS, "trial", "state", "value", "best_step", "last_step", "best")
STUDY_COLUMNS = (
    "study",
    *PARTS,
    *("complete", "pruned", "failed", "running", "waiting"),
    *("best_trial", "validation_loss", "test_correlation", "fit_failed", "set_aside"),
)


def load_results(config: str | Path = DEFAULT_FILE, *, per: Per = "trial") -> pd.DataFrame:
    """Read the search of an experiment as a tidy frame, also while it runs.

    Parameters
    ----------
    config
        The config file of the experiment.
    per
        ``"trial"``: a row per trial. ``"study"``: a row per study.

    Returns
    -------
    pandas.DataFrame
        Both kinds begin with ``study``, ``backbone``, ``layer``, ``layer_index`` (depth order),
        ``region`` and ``readout``, and end with a column ``params_<name>`` per hyperparameter: what
        the trial was given, or the study's best trial. A value that the config file fixes is there
        too; NaN where the readout has no hyperparameter of that name.

        Per trial: ``trial`` (its number in the study), ``state`` (complete, pruned, failed, running
        or waiting), ``value`` (least validation loss at a report, 1 = predicts every unit's mean; NaN
        before it finished; infinite if it diverged before it had one), ``best_step`` and
        ``last_step`` (the steps of that report and of the last one), ``best`` (whether it is the
        study's best complete trial).

        Per study: the number of trials in each state, ``best_trial``, ``validation_loss`` (its
        value, or of a closed form that of the encoder, whose units each have a setting of their own),
        ``test_correlation`` (as in ``heatmap.csv``; NaN until the search has ended, and where
        trials have finished since), ``fit_failed`` (as in ``heatmap.csv``, once the search has ended and its best trials are
        scored; before, whether that loss is 1 or more) and ``set_aside`` (why no more trials are
        run, where that is so).

    Raises
    ------
    InputError
        If the config file is wrong, or no database is there.
    EnvironmentFailure
        If the database cannot be read.

    Examples
    --------
    In the folder of an experiment that was searched:

    >>> import tuner
    >>> trials = tuner.load_results("tuner.toml")
    >>> trials[["layer", "region", "readout", "trial", "state"]].head(1).values.tolist()
    [['_blocks.0', 'A', 'full', 0, ...]]

    The layer with the lowest validation loss, for every region and readout:

    >>> studies = tuner.load_results("tuner.toml", per="study")
    >>> rows = studies.groupby(["region", "readout"])["validation_loss"].idxmin()
    >>> best = studies.loc[rows, ["region", "readout", "layer", "validation_loss"]]
    >>> best[["region", "readout"]].values.tolist()
    [['A', 'factorized'], ['A', 'full'], ['A', 'smooth'], ['B', 'factorized'], ...]
    """
    import pandas as pd

    if per not in ("trial", "study"):
        raise unknown("per", per, ("trial", "study"))
    experiment = as_made(load_experiment(config))
    with open_stores(experiment) as stores:
        studies = list(stored_studies(stores.storage).values())
        rows = (
            _trial_rows(stores, studies, experiment)
            if per == "trial"
            else _study_rows(stores, studies, experiment)
        )
    first = TRIAL_COLUMNS if per == "trial" else STUDY_COLUMNS
    named = {f"params_{name}" for space in experiment.search.space.values() for name in space}
    named |= {key for row in rows for key in row if key.startswith("params_")}
    frame = pd.DataFrame(rows, columns=[*first, *sorted(named)])
    whole = ("layer_index", "trial", "best_step", "last_step", "best_trial", *STUDY_COLUMNS[6:11])
    kinds: dict[str, Any] = {name: "Int64" for name in whole if name in first}
    kinds |= {name: "boolean" for name in ("best", "fit_failed") if name in first}
    kinds |= {
        name: "float64"
        for name in ("value", "validation_loss", "test_correlation")
        if name in first
    }
    kinds |= dict.fromkeys(sorted(named), "float64")
    texts = ("study", "backbone", "layer", "region", "readout", "state")
    kinds |= {name: "str" for name in texts if name in first}  # of these none is ever missing
    return frame.astype(kinds)


def _parameters(
    study: Stored, params: Mapping[str, float], experiment: Experiment
) -> dict[str, float]:
    """What a trial was given, with what was fixed for all trials of its study."""
    space: Mapping[str, Setting] = experiment.search.space.get(study.key.readout, {})
    fixed = {k: v for k, v in space.items() if isinstance(v, int | float)}
    return {f"params_{name}": float(value) for name, value in {**fixed, **params}.items()}


def _trial_rows(
    stores: Stores, studies: list[Stored], experiment: Experiment
) -> list[dict[str, Any]]:
    best = {
        item.study.study_id: item.best.number
        for item in summaries(stores.storage, studies)
        if item.best is not None
    }
    loaded = trials.load(stores.storage, [study.study_id for study in studies])
    held = functools.cache(stores.claims.held)
    return [
        {"study": study.name}
        | study.columns
        | _trial(study, trial, held, best.get(study.study_id))
        | _parameters(study, trial.params, experiment)
        for study in studies
        for trial in loaded[study.study_id]
    ]


def _trial(
    study: Stored, trial: Trial, held: Callable[[str], bool], best: int | None
) -> dict[str, Any]:
    state = trial.state
    if state == TrialState.RUNNING and not held(study.claim):
        state = TrialState.WAITING  # what nobody works on goes on as soon as the search does
    finite = {step: value for step, value in trial.curve.items() if value == value}
    return {
        "trial": trial.number,
        "state": trials.WORDS[state],
        "value": trial.value,
        "best_step": min(finite, key=lambda step: (finite[step], step), default=None),
        "last_step": max(trial.curve, default=None),
        "best": trial.number == best,
    }


def _study_rows(
    stores: Stores, studies: list[Stored], experiment: Experiment
) -> list[dict[str, Any]]:
    rows = []
    items = listing(summaries(stores.storage, studies), stores.claims)
    for study, item in zip(studies, items, strict=True):
        best = item["best"]
        row = (
            {"study": study.name} | study.columns | item["trials"] | {"set_aside": study.set_aside}
        )
        if best is not None:
            row |= {
                "best_trial": best["number"],
                "validation_loss": item["loss"],
                "test_correlation": item["test_correlation"],
                "fit_failed": item["fit_failed"],
            }
            row |= _parameters(study, best["params"], experiment)
        rows.append(row)
    return rows
