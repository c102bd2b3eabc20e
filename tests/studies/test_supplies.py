"""Workers that do not see the coordinator's files: they are sent them, once, as they are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from studies.cluster import messages, spread, supplies
from studies.cluster.exports import scores_on
from studies.cluster.supplied import SuppliedEngine
from studies.config.experiment import Experiment, load_experiment
from studies.database.stores import open_stores
from studies.export.heatmap import export_heatmap
from studies.recording import open_recording
from studies.workspace import Workspace
from tests.studies.conftest import MakeExperiment
from tests.studies.workers import StandIn
from tuner.errors import EnvironmentFailure, InputError


@pytest.fixture(autouse=True)
def _blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this process see nothing of what the coordinator has."""
    monkeypatch.setattr(supplies, "sees", lambda path: False)
    monkeypatch.setattr(supplies, "_moved", {})
    monkeypatch.setattr(supplies, "PARCEL", 1000)


@pytest.fixture
def with_files(make_experiment: MakeExperiment, tmp_path: Path) -> Experiment:
    """An experiment whose recording names image files, one of them beside others that it does not name."""
    config = make_experiment({"cluster": {"cache": str(tmp_path / "own")}})
    folder = config.parent
    images = folder / "images" / "some"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    recording = Path(load_experiment(config).data.path)
    with h5py.File(recording) as old, h5py.File(folder / "named.h5", "w") as new:
        for name in ("train/responses", "test/responses", "units/area"):
            old.copy(name, new, name=name)
        for part in ("train", "test"):
            names = [f"some/{part}{i}.png" for i in range(len(old[f"{part}/images"]))]
            new[f"{part}/image_paths"] = np.array(names, dtype=h5py.string_dtype())
            for name in names:
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                    folder / "images" / name
                )
    (images / "unnamed.png").write_bytes(b"not an image of the recording")
    text = config.read_text().replace(f'"{recording}"', '"named.h5"')
    config.write_text(text)
    return load_experiment(config)


def talk(engine: SuppliedEngine) -> Iterator[dict[str, str]]:
    """Who lives, over and over, while workers are seen to."""
    for _ in range(2000):
        yield engine.living()
        engine.hear(1)
    pytest.fail("workers are never seen to")


def test_files_arrive_as_they_are_and_only_those_that_are_read(with_files: Experiment) -> None:
    lines: list[str] = []
    stand_in = StandIn(count=2, seed=1)
    for living in talk(SuppliedEngine(stand_in, with_files, lines.append)):
        if len(living) == 2:
            break
    kinds = [given.kind for given in stand_in.log]
    assert kinds.count("look") == 2
    assert kinds.count("keep") > 2  # many parcels
    here = messages.experiment_of(supplies.supplied(messages.document(with_files)))
    assert here.data.path != with_files.data.path
    assert here.data.path.is_relative_to(with_files.cluster.cache)  # type: ignore[arg-type]
    assert here.data.path.read_bytes() == with_files.data.path.read_bytes()
    one, other = open_recording(here), open_recording(with_files)
    assert one.train_images.digest() == other.train_images.digest()
    assert not list(here.data.images.rglob("unnamed.png"))
    # The next search finds them there.
    again = StandIn(count=1)
    for living in talk(SuppliedEngine(again, with_files)):
        if living:
            break
    assert [given.kind for given in again.log] == ["look", "have"]


def test_what_is_damaged_on_its_way_is_refused(with_files: Experiment) -> None:
    manifest = supplies.Manifest(with_files)
    plain = messages.document(with_files)
    asked = messages.unpack(messages.pack({"cargo": manifest.plain}))
    lacking = messages.unpack(supplies.have(plain, asked)).header["lacking"]
    parcel = messages.unpack(next(manifest.parcels([lacking[1]], "a")))
    parcel.tensors["content"][0] += 1
    with pytest.raises(EnvironmentFailure, match="is not what was sent"):
        supplies.keep(plain, parcel)


def test_without_a_folder_of_its_own_a_worker_says_which(make_experiment: MakeExperiment) -> None:
    engine = SuppliedEngine(StandIn(count=1), load_experiment(make_experiment()))
    with pytest.raises(InputError, match=r"does not see it; set cluster\.cache"):
        next(living for living in talk(engine) if living)


def test_a_worker_without_the_recording_scores_as_others_do(
    searched_alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(supplies, "PARCEL", 100_000)
    experiment = load_experiment(searched_alone)
    own = experiment.cluster.model_copy(update={"cache": str(tmp_path / "own")})
    with open_stores(experiment) as stores:
        workspace = Workspace(experiment)
        export_heatmap(workspace, stores, workspace.grid, tmp_path / "one")
        workspace = Workspace(experiment.model_copy(update={"cluster": own}))
        engine = SuppliedEngine(StandIn(count=2), workspace.experiment)
        scorer = partial(scores_on, engine, lambda line: None)
        export_heatmap(workspace, stores, workspace.grid, tmp_path / "many", scorer=scorer)
    for name in ("heatmap.csv", "units.csv"):
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    shutil.rmtree(tmp_path / "own")
