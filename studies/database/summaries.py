"""The state of the search, read fast: counts, best trials, and what is running now."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from studies.config.ranges import CLOSED_FORM
from studies.database import optuna_tables as tables
from studies.database import trials
from studies.database.claims import Claims
from studies.database.connection import Storage
from studies.database.marks import SETTLED, marks
from studies.database.pictures import SCORED_AFTER
from studies.database.studies import Stored
from studies.database.trials import Trial
from studies.names import StudyKey

ENOUGH = 10
"""Complete trials below which nothing is said of what matters: a handful of the best always have something in common."""


def no_better(loss: float) -> bool:
    """Whether a validation loss is no better than that of predicting every unit's mean, which is 1.

    It is what the database alone can say. Where predictions are at hand `studies.results.judged` also asks whether a loss
    below 1 may be chance.
    """
    return not loss < 1.0


TEST_CORRELATION, FIT_FAILED = "test_correlation", "fit_failed"
"""Attributes of a study that has been scored."""

ENCODER_LOSS = "encoder_loss"
"""Attribute of a closed form's best trial: validation loss of its encoder, whose units each have a setting of their own."""


@dataclass
class Summary:
    """Counts of a study's trials, and its best.

    Attributes
    ----------
    encoder_loss
        Validation loss of the encoder, where it is not that of the best trial: of a closed form.
    settled
        After how many ``trials`` further ones were not expected to gain anything, and the ``expected_gain``; None where
        ``--until-settled`` did not find so.
    test_correlation
        Of what the study exports; None without test images, or where trials have finished since it was scored.
    scored_failed
        Whether its predictions were then found to be not surely better than the mean; None as above.
    """

    study: Stored
    counts: dict[TrialState, int] = field(default_factory=dict)
    best: Trial | None = None
    encoder_loss: float | None = None
    settled: dict[str, Any] | None = None
    test_correlation: float | None = None
    scored_failed: bool | None = None

    @property
    def finished(self) -> int:
        """COMPLETE and PRUNED trials."""
        return sum(self.counts.get(state, 0) for state in trials.FINISHED)

    @property
    def loss(self) -> float | None:
        """Validation loss of what the study exports; None before its first complete trial."""
        if self.best is None or self.encoder_loss is not None:
            return self.encoder_loss
        return self.best.value

    @property
    def fit_failed(self) -> bool | None:
        """Whether the fit is not surely better than the mean, once it is scored; before, whether its loss is 1 or more."""
        if self.loss is None or self.scored_failed is not None:
            return self.scored_failed
        return no_better(self.loss)


def summaries(storage: Storage, studies: Sequence[Stored]) -> list[Summary]:
    """Summaries of studies, in their order, by a few queries over all of them.

    ``best`` is the lowest value among COMPLETE trials, ties to the lower number.
    """
    found = {study.study_id: Summary(study) for study in studies}
    t, v = tables.trials, tables.values
    with storage.read() as connection:
        counting = sa.select(t.c.study_id, t.c.state, sa.func.count()).group_by(
            t.c.study_id, t.c.state
        )
        for study_id, state, count in connection.execute(counting):
            if study_id in found:
                found[study_id].counts[state] = count
        # The least value of each study first: of forty thousand trials only the best ones are fetched.
        least = (
            sa.select(t.c.study_id, sa.func.min(v.c.value).label("value"))
            .join(v, v.c.trial_id == t.c.trial_id)
            .where(t.c.state == TrialState.COMPLETE, v.c.value.is_not(None))
            .group_by(t.c.study_id)
            .subquery()
        )
        complete = (
            sa.select(t.c.study_id, t.c.trial_id, t.c.number, v.c.value)
            .join(v, v.c.trial_id == t.c.trial_id)
            .join(least, sa.and_(least.c.study_id == t.c.study_id, least.c.value == v.c.value))
            .where(t.c.state == TrialState.COMPLETE)
        )
        for study_id, trial_id, number, value in connection.execute(complete):
            summary = found.get(study_id)
            if summary is None:
                continue
            best = summary.best
            if best is None or number < best.number:
                summary.best = Trial(trial_id, study_id, number, TrialState.COMPLETE, {}, value)
        best_trials = {s.best.trial_id: s.best for s in found.values() if s.best is not None}
        trials.fill_params(connection, best_trials)
        a = tables.user_attrs.c
        losses = (
            sa.select(t.c.study_id, a.value_json)
            .join(t, t.c.trial_id == a.trial_id)
            .where(a.key == ENCODER_LOSS, t.c.state == TrialState.COMPLETE)
        )
        for study_id, encoded in connection.execute(losses):
            if study_id in found:
                found[study_id].encoder_loss = float(json.loads(encoded))
    marked = marks(storage, studies, SETTLED, SCORED_AFTER, TEST_CORRELATION, FIT_FAILED)
    for study_id, summary in found.items():
        summary.settled = marked[SETTLED].get(study_id)
        if marked[SCORED_AFTER].get(study_id) == summary.finished:
            summary.test_correlation = marked[TEST_CORRELATION].get(study_id)
            summary.scored_failed = marked[FIT_FAILED].get(study_id)
    return [found[study.study_id] for study in studies]


@dataclass(frozen=True)
class Line:
    """What the closed form comes to at each layer and region: the line that every search is shown against.

    Attributes
    ----------
    losses
        Backbone, layer and region to the validation loss of their closed form.
    """

    losses: Mapping[tuple[str, str, str], float]

    def below(self, key: StudyKey, loss: float | None) -> bool | None:
        """Whether a study has a higher validation loss than the closed form; None where either is missing, or it is one."""
        line = self.losses.get((key.backbone, key.layer, key.region))
        if line is None or loss is None or key.readout == CLOSED_FORM:
            return None
        return line < loss


def closed_form_line(storage: Storage, studies: Iterable[Stored]) -> Line:
    """The line among some studies: those that are fitted in closed form, and have been."""
    mine = [study for study in studies if study.key.readout == CLOSED_FORM]
    return Line(
        {
            (item.study.key.backbone, item.study.key.layer, item.study.key.region): item.loss
            for item in summaries(storage, mine)
            if item.loss is not None
        }
    )


def listing(
    items: Sequence[Summary], claims: Claims, line: Line | None = None
) -> list[dict[str, Any]]:
    """What ``tuner study list`` shows; ``running`` counts trials that a living process works on.

    With ``line``, ``below_smooth`` says whether the closed form of the layer and region has the lower validation loss; None
    where there is none. ``loss`` is that of what the study exports: its best trial, or of a closed form the encoder whose
    units each have a setting of their own. ``fit_failed`` is what scoring said, and before it whether the loss is 1 or more.
    ``settled`` is the number of trials after which a study was, or None.
    """
    held = functools.cache(claims.held)
    out = []
    for item in items:
        study, best = item.study, item.best
        trials_in = {word: item.counts.get(state, 0) for state, word in trials.WORDS.items()}
        if trials_in["running"] and not held(study.claim):
            # Orphans: they go on where they are as soon as the search does.
            trials_in["waiting"] += trials_in["running"]
            trials_in["running"] = 0
        out.append(
            {
                "study": study.name,
                **study.columns,
                "trials": trials_in,
                "best": None
                if best is None
                else {"number": best.number, "value": best.value, "params": best.params},
                "loss": item.loss,
                "test_correlation": item.test_correlation,
                "fit_failed": item.fit_failed,
                "below_smooth": None if line is None else line.below(study.key, item.loss),
                "settled": None if item.settled is None else item.settled["trials"],
            }
        )
    return out
