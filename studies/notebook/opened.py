"""An experiment that is open in a notebook: what the commands do, as methods that return figures, tables and encoders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from studies.config.experiment import Experiment
from studies.database.stores import Stores, as_made, open_stores
from studies.database.studies import stored_studies
from studies.grid import Spec
from studies.notebook.progress import Bars, Watched
from studies.selection import Selection, select
from studies.workspace import Workspace
from tuner.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from studies.results.encoders import Best
    from studies.results.frames import Per
    from studies.search.create import Created
    from studies.search.ledger import Done
    from tuner.encoder import Encoder
    from tuner.figures.style import ThemeName
    from tuner.recordings import Recording
    from tuner.synthesis.beside import Beside
    from tuner.synthesis.mei import MeiResult

Patterns = str | Sequence[str] | None
"""Names, with ``*`` and ``?``; None means all."""


@dataclass(frozen=True)
class Images:
    """Most exciting images of some units.

    Attributes
    ----------
    study
        Name of the study whose encoder they were made with.
    result
        The images, and the responses that are predicted to them.
    beside
        The best natural images and noise that they are held against.
    figure
        All of them on a sheet.
    verdict
        How many do better than the best natural image.
    """

    study: str
    result: MeiResult
    beside: Beside
    figure: Figure
    verdict: str


class OpenExperiment:
    """An experiment that is open.

    Every method that takes ``backbone``, ``layer``, ``region`` and ``readout`` is about the studies whose names they match:
    a name, a pattern with ``*`` and ``?``, or several; all where not given.

    Parameters
    ----------
    experiment
        The checked config file.
    quiet
        Whether no progress is shown.
    """

    def __init__(self, experiment: Experiment, *, quiet: bool = False) -> None:
        self._experiment = experiment
        self._bars = Bars(quiet=quiet)
        self._workspace: Workspace | None = None

    def __repr__(self) -> str:
        return f"<experiment {self._experiment.file}>"

    @property
    def workspace(self) -> Workspace:
        """What the commands work with: the recording, the cut, the networks, the grid."""
        if self._workspace is None:
            from studies.results.worth import worth

            self._workspace = Workspace(as_made(self._experiment), self._bars.update)
            self._workspace.scorer = worth
        return self._workspace

    @property
    def recording(self) -> Recording:
        """The recording, checked."""
        return self.workspace.recording

    @contextmanager
    def _opened(
        self, selection: Selection, *, create: bool = False, all_of: bool = False
    ) -> Iterator[tuple[Stores, list[Spec]]]:
        """The stores and the selected studies; those that were created, unless all are wanted."""
        workspace = self.workspace
        try:
            with open_stores(workspace.experiment, create=create) as stores:
                specs = select(workspace.grid, selection)
                if not all_of:
                    created = stored_studies(stores.storage)
                    specs = [spec for spec in specs if spec.name in created]
                    if not specs:
                        raise InputError(
                            f"{workspace.experiment.file}: none of these studies was created; call "
                            "create() first"
                        )
                yield stores, specs
        finally:
            self._bars.close()

    def create(
        self,
        *,
        backbone: Patterns = None,
        layer: Patterns = None,
        region: Patterns = None,
        readout: Patterns = None,
        force: bool = False,
    ) -> Created:
        """Make the studies that are not there yet, as ``tuner study create``; doing it again does nothing.

        Parameters
        ----------
        force
            Whether studies that were made with other settings are deleted and made anew.
        """
        from studies.search.create import create

        chosen = _selection(backbone, layer, region, readout)
        with self._opened(chosen, create=True, all_of=True) as (stores, specs):
            return create(self.workspace, stores, specs, force=force, say=self._bars.say)

    def optimize(
        self,
        n_trials: int,
        *,
        backbone: Patterns = None,
        layer: Patterns = None,
        region: Patterns = None,
        readout: Patterns = None,
        timeout: float | None = None,
        order: str = "fewest",
    ) -> Done:
        """Bring every selected study to so many finished trials, as ``tuner optimize``.

        Interrupt the kernel to stop: finished trials are kept, and doing it again goes on.

        Parameters
        ----------
        n_trials
            Finished trials that every study is brought to.
        timeout
            Seconds after which no new round is begun.
        order
            Which studies come first: fewest, depth, region or promising.
        """
        from studies.search.ledger import Ledger
        from studies.search.queue import ORDERS
        from studies.search.search import Search
        from tuner.errors import unknown

        if order not in ORDERS:
            raise unknown("order", order, ORDERS)
        if n_trials < 1:
            raise InputError(f"n_trials = {n_trials}: must be at least 1")
        chosen = _selection(backbone, layer, region, readout)
        with self._opened(chosen, all_of=True) as (stores, specs):
            listener = Watched(self._bars)
            ledger = Ledger(
                self.workspace, stores, specs, n_trials=n_trials, timeout=timeout, listener=listener
            )
            try:
                return Search(ledger, order=order).run()
            except KeyboardInterrupt:
                self._bars.close()
                self._bars.say("stopped; finished trials are kept: optimize() again to go on")
                raise

    def results(self, *, per: Per = "study") -> pd.DataFrame:
        """Return the search as a table; see :func:`tuner.load_results`."""
        from studies.results.frames import load_results

        return load_results(self._experiment.file, per=per)

    def heatmap(
        self,
        metric: str | None = None,
        *,
        backbone: Patterns = None,
        layer: Patterns = None,
        region: Patterns = None,
        readout: Patterns = None,
        references: Sequence[str] = (),
        theme: ThemeName = "light",
    ) -> Figure:
        """Draw which layer explains which region, as ``tuner export heatmap``.

        Parameters
        ----------
        metric
            Column of ``heatmap.csv``; None: test correlation, or validation correlation without test images.
        references
            What is drawn beside: ``ridge``, ``fwrf``, ``located``, ``random``.
        theme
            ``"light"`` or ``"dark"``.
        """
        from studies.export.heatmap import draw_heatmap
        from studies.results.references import REFERENCES
        from tuner.errors import unknown
        from tuner.figures.metrics import metric_named

        if metric is not None:
            metric_named(metric)
        for name in references:
            if name not in REFERENCES:
                raise unknown("reference", name, REFERENCES)
        with self._opened(_selection(backbone, layer, region, readout)) as (stores, specs):
            made = draw_heatmap(
                self.workspace,
                stores,
                specs,
                metric=metric,
                references=references,
                theme=theme,
                say=lambda message: None,
            )
        made.figure.set_dpi(SCREEN_DPI)
        return made.figure

    def best_layers(
        self,
        *,
        per: Literal["unit", "region"] = "region",
        backbone: Patterns = None,
        layer: Patterns = None,
        region: Patterns = None,
        readout: Patterns = None,
    ) -> pd.DataFrame:
        """Return the best layer of every unit, or of every region, chosen by validation loss.

        Where no fit is surely better than predicting the mean there is no best layer: ``layer`` is ``none``, ``note`` says
        why, and there are no scores.

        Test scores stand beside and choose nothing: what is chosen by test score and then reported by it is too good. The
        validation loss of what it chose is optimistic too; report the test score.

        Parameters
        ----------
        per
            ``"unit"`` or ``"region"``.

        Returns
        -------
        pandas.DataFrame
            A row per unit or region, with the columns of ``units.csv`` or ``heatmap.csv``, and ``next_backbone``,
            ``next_layer`` and ``next_validation_loss``: the best fit at any other layer. Of a unit also how sure that is:
            ``next_difference``, that loss less the best one's on the same held-out images, with its 95 % interval
            ``next_difference_low`` and ``next_difference_high``; ``choice``, which is ``sure`` where every other layer's
            lower limit is above 0, else ``undecided``; and ``rivals``, the layers that are not surely worse. Of a region
            ``against_smooth`` and ``against_start``, as in ``heatmap.csv``; how sure its layer is,
            ``tuner export heatmap --resplit`` says.
        """
        from studies.results.best_layers import PER, best_of

        if per not in PER:
            from tuner.errors import unknown

            raise unknown("per", per, PER)
        with self._opened(_selection(backbone, layer, region, readout)) as (stores, specs):
            return best_of(self.workspace, stores, specs, per)

    def encoder(
        self,
        region: str,
        *,
        backbone: Patterns = None,
        layer: Patterns = None,
        readout: Patterns = None,
        per_unit: bool = False,
    ) -> Encoder:
        """Return the encoder of a region: that of the study with the lowest validation loss.

        Parameters
        ----------
        region
            The region.
        per_unit
            Whether every unit has the weights of its own best trial.

        Raises
        ------
        InputError
            If several studies match and no fit of them is surely better than predicting the mean.
        """
        with self._best(region, backbone, layer, readout) as best:
            return best.encoder(per_unit=per_unit)

    @contextmanager
    def _best(
        self, region: str, backbone: Patterns, layer: Patterns, readout: Patterns
    ) -> Iterator[Best]:
        """The best study of a region; the only one that matches, whatever it is worth."""
        from studies.results.encoders import best_studies
        from studies.results.trusted import first_told
        from tuner.figures.panels import NOT_TOLD

        with self._opened(_selection(backbone, layer, region, readout)) as (stores, specs):
            ready = best_studies(self.workspace, stores, specs)
            best = ready[0] if len(ready) == 1 else first_told(ready)
            if best is None:
                raise InputError(
                    f"region {region}: {NOT_TOLD}, so there is no best layer; name one study with "
                    "backbone=, layer= and readout= to have its encoder anyway"
                )
            yield best

    def images(
        self,
        region: str,
        *,
        backbone: Patterns = None,
        layer: Patterns = None,
        readout: Patterns = None,
        units: Sequence[int] | None = None,
        **settings: Any,
    ) -> Images:
        """Make most exciting images of a region's units, with the encoder of the lowest validation loss.

        They are held against the best natural image and noise of equal mean and contrast, as ``tuner export mei`` does.

        Parameters
        ----------
        region
            The region.
        units
            Indices in the recording; all of the region where not given.
        settings
            Of :class:`tuner.synthesis.mei.MeiSettings`: ``steps``, ``contrast``, ``prior``, ...
        """
        from studies.basis import basis_of
        from studies.export.images import largest_recorded, row_of
        from studies.results.trusted import judge
        from tuner.figures import captions
        from tuner.synthesis.beside import beside
        from tuner.synthesis.export import sheet_of
        from tuner.synthesis.mei import MeiSettings, synthesize
        from tuner.synthesis.receptive_fields import from_readout

        how = MeiSettings(**settings)
        with self._best(region, backbone, layer, readout) as best:
            model = best.encoder()
            failed = judge(best, [model])
            about = captions.encoder(row_of(best), basis_of(self.workspace), failed=failed)
        study = best.spec.name
        what = f"images of {study}"
        try:
            result = synthesize(
                [model], units, how, lambda done, total: self._bars.update(what, done, total)
            )
        finally:
            self._bars.close()
        place = {int(unit): k for k, unit in enumerate(model.unit_indices)}
        fields = from_readout(model).of([place[int(unit)] for unit in result.units])
        held = beside([model], result, how, self.workspace.images, fields)
        figure = sheet_of(
            result,
            how,
            fields,
            held,
            study,
            model.simulated,
            about,
            largest_recorded(self.workspace.recording, best.spec.units),
            self.workspace.recording.measured_in,
        )
        figure.set_dpi(SCREEN_DPI)
        return Images(study, result, held, figure, held.verdict(result.activation))


SCREEN_DPI = 150
"""Of figures that a notebook shows; files have 300."""


def _selection(
    backbone: Patterns, layer: Patterns, region: Patterns, readout: Patterns
) -> Selection:
    """Patterns of studies from what was given."""

    def several(given: Patterns) -> tuple[str, ...]:
        if given is None:
            return ()
        return (given,) if isinstance(given, str) else tuple(given)

    return Selection(*map(several, (backbone, layer, region, readout)))
