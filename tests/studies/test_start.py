"""Where the columns of a search start."""

from __future__ import annotations

import pytest

from studies.config.experiment import load_experiment
from studies.search import start
from studies.workspace import Workspace
from tests.studies.conftest import MakeExperiment
from tuner.readouts.full import FullReadout


def test_no_closed_form_is_solved_for_a_readout_that_starts_by_itself(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(
        load_experiment(make_experiment({"training": {"folds": 3, "start": "closed_form"}}))
    )
    (spec,) = [s for s in workspace.grid if s.key.readout == "full"][:1]
    asked: list[str] = []

    def located(*_: object, **__: object) -> None:
        asked.append("located")
        raise InterruptedError

    monkeypatch.setattr(start, "located_fits", located)
    store = workspace.features.of(spec.key.backbone, spec.key.layer).train
    arguments = (workspace, spec, workspace.targets, store, 1 << 30)
    with pytest.raises(InterruptedError):
        start.start_of(*arguments, center=None)  # type: ignore[arg-type]
    monkeypatch.setattr(FullReadout, "start", lambda *_: None)
    assert start.start_of(*arguments, center=None) is None  # type: ignore[arg-type]
    assert asked == ["located"]


def test_where_there_is_no_place_to_know_the_readout_starts_by_itself(
    make_experiment: MakeExperiment,
) -> None:
    """At 32 pixels the two layers have grids of 4 and of 2 cells a side."""
    layers = [{"name": "efficientnet_lite0", "layers": ["_blocks.4", "_blocks.10"]}]
    workspace = Workspace(load_experiment(make_experiment({"backbone": layers})))
    starts = {
        (spec.shape.height, workspace.start(spec), workspace.fingerprint(spec)["training.start"])
        for spec in workspace.grid
        if not spec.closed_form
    }
    assert starts == {(4, "closed_form", "closed_form"), (2, "readout", "readout")}
