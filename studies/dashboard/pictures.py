"""Pictures of each study's best trial for the dashboard: its learning curve among the others', and where its units read.

They are made when a study has all its trials, never during a round, and made anew when more trials came. The files are
written first and change hands in one transaction, as kept weights do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from studies.database import trials
from studies.database.pictures import attach, drawn
from studies.database.stores import Stores
from studies.database.studies import Stored
from studies.database.summaries import Summary, summaries
from studies.database.trials import Trial
from studies.database.weights import kept_files
from studies.grid import Spec
from studies.workspace import Workspace
from tuner.errors import InputError
from tuner.progress import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tuner.figures.trials import TrialCurve

CURVE = "learning-curve.png"
MAP = {"full": "weight-map.png"}
OTHER_MAP = "mask.png"
DPI = 110


def trial_curves(loaded: Sequence[Trial]) -> list[TrialCurve]:
    """Trials as figures show them."""
    from tuner.figures.trials import TrialCurve

    return [
        TrialCurve(
            trial.number,
            list(trial.curve),
            list(trial.curve.values()),
            trials.WORDS[trial.state],
        )
        for trial in loaded
    ]


class Pictures:
    """Makes the pictures that are missing or out of date.

    Parameters
    ----------
    workspace
        The experiment.
    stores
        Where its results are kept, and who works on what.
    """

    def __init__(self, workspace: Workspace, stores: Stores) -> None:
        self._workspace = workspace
        self._storage = stores.storage
        self._artifacts = stores.artifacts
        self._claims = stores.claims

    def outdated(self, studies: Sequence[Stored]) -> list[Summary]:
        """Studies with a best trial that has no pictures, or pictures from before its last trials."""
        made = drawn(self._storage, CURVE)
        return [
            summary
            for summary in summaries(self._storage, studies)
            if summary.best is not None
            and made.get(summary.study.study_id) != (summary.best.number, summary.finished)
        ]

    def make(self, specs: Sequence[Spec], stored: Mapping[str, Stored]) -> int:
        """Make pictures of these studies; one that somebody works on is left to them.

        Returns
        -------
        int
            Studies whose pictures are new.
        """
        by_name = {spec.name: spec for spec in specs}
        wanted = self.outdated([stored[name] for name in by_name])
        count = 0
        told = self._workspace.progress
        for summary in counted(wanted, "pictures for the dashboard", told):
            with self._claims.claim(summary.study.claim) as mine:
                if mine:
                    count += self._one(by_name[summary.study.name], summary)
        return count

    def _one(self, spec: Spec, summary: Summary) -> bool:
        study, best = summary.study, summary.best
        assert best is not None
        loaded = trials.load(self._storage, [study.study_id])[study.study_id]
        file = kept_files(self._storage, study.study_id).get(best.number)
        try:
            figures = self._draw(spec, study, loaded, file)
        except InputError:
            # Its kept weights are lost; 'tuner doctor' says so, and the search itself goes on.
            return False
        from tuner.figures import style

        attach(
            self._storage,
            self._artifacts,
            study,
            best,
            summary.finished,
            {name: style.render(figure, "png", dpi=DPI) for name, figure in figures.items()},
        )
        return True

    def _draw(
        self, spec: Spec, study: Stored, loaded: Sequence[Trial], file: str | None
    ) -> dict[str, Figure]:
        from tuner import readouts
        from tuner.figures.curves import learning_curves
        from tuner.figures.maps import masks

        simulated = self._workspace.recording.simulated
        figures = {
            CURVE: learning_curves(trial_curves(loaded), title=study.name, simulated=simulated)
        }
        if file is not None:
            tensors = self._artifacts.read_tensors(file)
            tensors.pop("unit_loss", None)
            profile = readouts.get(study.key.readout).spatial_profile(tensors)
            names = self._workspace.recording.units.get("name")
            labels = [str(u if names is None else names[u]) for u in spec.units]
            figures[MAP.get(study.key.readout, OTHER_MAP)] = masks(
                profile.numpy(), labels, title=study.name, simulated=simulated
            )
        return figures
