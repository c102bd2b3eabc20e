from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np
import pytest

from studies.config.experiment import load_experiment
from studies.fingerprint import array_digest, difference, refuse
from studies.workspace import Workspace
from tests.studies.conftest import MakeExperiment
from tests.studies.small import merged, write_recording
from tuner.errors import InputError


def prints(make: MakeExperiment, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    workspace = Workspace(load_experiment(make(changes)))
    return {spec.name: workspace.fingerprint(spec) for spec in workspace.grid}


CHANGES = {
    "data.image_size": {"data": {"image_size": 48}},
    "data.fit": {"data": {"fit": "crop"}},
    "data.split": {"data": {"seed": 1}},
    "backbone.max_grid": {
        "backbone": [
            {
                "name": "efficientnet_lite0",
                "alias": "net",
                "layers": ["_blocks.2", "_blocks.4"],
                "max_grid": 2,
            }
        ]
    },
    "backbone.weights": {
        "backbone": [
            {
                "name": "efficientnet_lite0",
                "alias": "net",
                "layers": ["_blocks.2", "_blocks.4"],
                "weights": "random",
            }
        ]
    },
    "training.steps": {"training": {"steps": 22}},
    "training.batch_size": {"training": {"batch_size": 10}},
    "training.report_every": {"training": {"report_every": 5}},
    "training.center": {"training": {"center": False}},
    "training.folds": {"training": {"folds": 3}},
    "search.sampler": {"search": {"sampler": "random"}},
    "search.proposals": {"search": {"proposals": "optuna"}},
    "search.pruner": {"search": {"pruner": "none"}},
    "search.rungs": {"search": {"rungs": "auto"}},
    "search.parallel_trials": {"search": {"parallel_trials": 3}},
    "search.warm_start": {"search": {"warm_start": False}},
    "search.seed": {"search": {"seed": 5}},
    "search.space.full": {"search": {"space": {"full": {"sparsity": 0.0}}}},
}
FREE = [
    {"training": {"memory": "1GB"}},
    {"storage": {"cache_limit": "1GB", "artifacts": "elsewhere/"}},
    {"search": {"keep": 5}},
]


@pytest.mark.parametrize("key", CHANGES)
def test_what_changes_results_is_named(make_experiment: MakeExperiment, key: str) -> None:
    before, after = prints(make_experiment), prints(make_experiment, CHANGES[key])
    name = "net/_blocks.2/V1/full"
    assert difference(json.loads(json.dumps(before[name])), after[name]) == key


@pytest.mark.parametrize("changes", FREE)
def test_what_changes_no_result_is_free(
    make_experiment: MakeExperiment, changes: dict[str, Any]
) -> None:
    assert prints(make_experiment) == prints(make_experiment, changes)


def test_the_other_readouts_space_is_free(make_experiment: MakeExperiment) -> None:
    changes = {"search": {"space": {"full": {"sparsity": 0.0}}}}
    before, after = prints(make_experiment), prints(make_experiment, changes)
    name = "net/_blocks.2/V1/factorized"
    assert before[name] == after[name]


@pytest.mark.parametrize("key", CHANGES)
def test_a_closed_form_depends_on_no_step_and_no_sampler(
    make_experiment: MakeExperiment, key: str
) -> None:
    smooth = {"search": {"space": {"smooth": {}}}}
    before = prints(make_experiment, smooth)
    after = prints(make_experiment, merged(smooth, CHANGES[key]))
    name = "net/_blocks.2/V1/smooth"
    changed = difference(json.loads(json.dumps(before[name])), after[name])
    free = key.startswith(("training.", "search.")) and key != "training.folds"
    assert (changed is None) is free


def test_members_of_the_grid_are_free(make_experiment: MakeExperiment) -> None:
    one_layer = {
        "backbone": [{"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2"]}],
    }
    before, after = prints(make_experiment), prints(make_experiment, one_layer)
    assert set(after) < set(before)
    assert all(after[name] == before[name] for name in after)


def test_a_response_that_changes_concerns_its_region_alone(make_experiment: MakeExperiment) -> None:
    config = make_experiment()
    other = write_recording(config.parent / "other.h5")
    before = prints(make_experiment)
    with h5py.File(other, "r+") as file:
        area = file["units/area"].asstr()[:]
        unit = int(np.flatnonzero(area == "IT")[0])
        file["train/responses"][7, unit] += 0.5
    after = prints(make_experiment, {"data": {"path": str(other)}})
    changed = {name for name in before if difference(before[name], after[name])}
    assert changed == {name for name in before if "/IT/" in name}
    assert difference(before["net/_blocks.2/IT/full"], after["net/_blocks.2/IT/full"]) == (
        "data.responses"
    )


def test_a_refusal_names_key_values_and_remedy() -> None:
    with pytest.raises(InputError) as caught:
        refuse("tuner.toml", "a/b/c/d", {"training.steps": 900}, {"training.steps": 300})
    text = str(caught.value)
    for mention in ("tuner.toml", "training.steps", "300", "900", "a/b/c/d", "--force"):
        assert mention in text


def test_a_key_that_one_side_lacks_is_a_difference() -> None:
    assert difference({"a": 1}, {"a": 1, "b": 2}) == "b"
    assert difference({"a": 1, "b": 2}, {"a": 1}) == "b"
    assert difference({"a": 1}, {"a": 1}) is None


def test_digests_tell_type_and_shape_apart() -> None:
    flat = np.zeros(4, dtype=np.float32)
    assert array_digest(flat) != array_digest(flat.reshape(2, 2))
    assert array_digest(flat) != array_digest(flat.astype(np.int32))
    assert array_digest(flat) == array_digest(flat.copy())
