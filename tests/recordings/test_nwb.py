from __future__ import annotations

import builtins
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pynwb
import pytest
from pynwb.base import ImageReferences, Images
from pynwb.image import ImageSeries, IndexSeries, RGBImage

from tests.recordings.cases import nwb as nwb_case
from tests.recordings.pictures import pictures
from tuner.errors import InputError
from tuner.recordings import load_recording
from tuner.recordings.told import told_format

N_IMAGES, N_UNITS = 12, 3
IMAGE = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 3, 3, 5])


def blank() -> Any:
    return pynwb.NWBFile(
        session_description="made by a test",
        identifier="one",
        session_start_time=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    )


def series(name: str = "shown", **options: Any) -> Any:
    options.setdefault("data", pictures(N_IMAGES))
    return ImageSeries(name=name, unit="n.a.", rate=1.0, **options)


def trials(nwb: Any, image: Any = IMAGE, **columns: Any) -> None:
    nwb.add_trial_column("image", "index of the image")
    for name in columns:
        nwb.add_trial_column(name, name)
    for row, which in enumerate(image):
        more = {name: values[row] for name, values in columns.items()}
        nwb.add_trial(start_time=row * 1.0, stop_time=row + 0.2, image=which, **more)


def responses(nwb: Any, values: Any = None, name: str = "responses") -> Any:
    if values is None:
        values = np.random.default_rng(0).standard_normal((len(IMAGE), N_UNITS))
    module = nwb.processing.get("mua") or nwb.create_processing_module("mua", "activity")
    module.add(pynwb.TimeSeries(name=name, data=values, unit="a.u.", rate=1.0))
    return values


def units(nwb: Any, column: str = "area", count: int = N_UNITS) -> None:
    nwb.add_unit_column(column, "where it is")
    for unit in range(count):
        nwb.add_unit(**{column: "V1" if unit else "V4"})


def saved(nwb: Any, folder: Path) -> Path:
    path = folder / "session.nwb"
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwb)
    return path


def test_repeated_images_are_the_test_set(tmp_path: Path) -> None:
    nwb = blank()
    nwb.add_stimulus_template(series())
    trials(nwb, group=[f"g{i // 4}" for i in IMAGE])
    values = responses(nwb)
    units(nwb, "location")
    recording = load_recording(saved(nwb, tmp_path), "nwb")
    trained = [i for i in range(12) if i not in (3, 5)]
    np.testing.assert_array_equal(recording.train_responses, values[trained].astype(np.float32))
    assert recording.test_responses.shape == (3, 2, N_UNITS)
    np.testing.assert_array_equal(
        recording.test_responses[:, 0], values[[3, 12, 13]].astype(np.float32)
    )
    np.testing.assert_array_equal(
        recording.test_responses[:2, 1], values[[5, 14]].astype(np.float32)
    )
    assert np.isnan(recording.test_responses[2, 1]).all()
    np.testing.assert_array_equal(recording.train_images.read(3), pictures(N_IMAGES)[4])
    np.testing.assert_array_equal(recording.test_images.read(1), pictures(N_IMAGES)[5])
    assert recording.train_groups.tolist() == [i // 4 for i in trained]
    assert recording.test_groups.tolist() == [0, 1]
    assert recording.units["area"].tolist() == ["V4", "V1", "V1"]


def test_spikes_are_counted_in_the_window(tmp_path: Path) -> None:
    nwb = blank()
    nwb.add_stimulus_template(series())
    trials(nwb)
    nwb.add_unit_column("area", "where it is")
    rng = np.random.default_rng(1)
    spikes = [np.sort(rng.uniform(0, len(IMAGE), 400)) for _ in range(N_UNITS)]
    for times in spikes:
        nwb.add_unit(spike_times=times, area="V1")
    path = saved(nwb, tmp_path)
    found = load_recording(path, "nwb", window_ms=(100, 400))
    for unit, times in enumerate(spikes):
        for row, image in enumerate((0, 1, 2, 4)):
            wanted = ((times >= image + 0.1) & (times < image + 0.4)).sum()
            assert found.train_responses[row, unit] == wanted
    assert found.train_responses.max() > 3
    default = load_recording(path, "nwb")
    assert default.train_responses.sum() < found.train_responses.sum()
    with pytest.raises(InputError, match=r"data\.window_ms"):
        load_recording(path, "nwb", window_ms=(100, 100))


def test_an_index_series_names_the_images(tmp_path: Path) -> None:
    nwb = blank()
    pixels = pictures(N_IMAGES)
    images = [RGBImage(name=f"im{i:02d}", data=pixels[i]) for i in range(N_IMAGES)]
    order = ImageReferences(name="order_of_images", data=images)
    shown = Images(name="shown", images=images, order_of_images=order)
    nwb.add_stimulus_template(shown)
    index = IndexSeries(
        name="order", data=IMAGE.astype(np.uint32), unit="N/A", indexed_images=shown, rate=1.0
    )
    nwb.add_stimulus(index)
    values = responses(nwb)
    units(nwb)
    found = load_recording(saved(nwb, tmp_path), "nwb")
    assert (found.n_train, found.n_test, found.n_repeats) == (10, 2, 3)
    np.testing.assert_array_equal(found.train_responses[0], values[0].astype(np.float32))
    np.testing.assert_array_equal(found.train_images.read(9), pictures(N_IMAGES)[11])


def test_a_table_of_responses_and_areas_of_electrodes(tmp_path: Path) -> None:
    from hdmf.common import DynamicTable, VectorData

    nwb = blank()
    nwb.add_stimulus_template(series(data=pictures(N_IMAGES)[..., 0]))
    trials(nwb, split=["test" if i == 3 else "train" for i in IMAGE])
    values = np.random.default_rng(0).standard_normal((len(IMAGE), N_UNITS))
    table = DynamicTable(
        name="responses",
        description="one row per presentation",
        columns=[VectorData(name="response", description="per unit", data=values)],
    )
    nwb.create_processing_module("mua", "activity").add(table)
    device = nwb.create_device("probe")
    group = nwb.create_electrode_group("g", "d", "IT", device)
    for unit in range(N_UNITS):
        nwb.add_electrode(location=f"IT{unit}", group=group)
    found = load_recording(saved(nwb, tmp_path), "nwb")
    assert found.units["area"].tolist() == ["IT0", "IT1", "IT2"]
    assert found.test_responses.shape == (3, 1, N_UNITS)
    # Image 5 was shown twice and is a training image: its mean counts.
    row = [i for i in range(12) if i != 3].index(5)
    wanted = values[[5, 14]].mean(axis=0)
    np.testing.assert_allclose(found.train_responses[row], wanted, rtol=1e-6)
    assert (found.train_images.read(0) == pictures(1)[0][..., :1]).all()


def test_without_repeats_there_is_no_test_set(tmp_path: Path) -> None:
    nwb = blank()
    nwb.add_stimulus_template(series())
    trials(nwb, np.arange(12))
    responses(nwb, np.random.default_rng(0).standard_normal((12, N_UNITS)))
    units(nwb)
    found = load_recording(saved(nwb, tmp_path), "nwb")
    assert found.test_responses is None
    assert "no test set" in found.notes[0]


def _no_images(nwb: Any) -> None:
    trials(nwb)
    responses(nwb)
    units(nwb)


def _two_templates(nwb: Any) -> None:
    nwb.add_stimulus_template(series())
    nwb.add_stimulus_template(series("more"))
    _no_images(nwb)


def _no_presentations(nwb: Any) -> None:
    nwb.add_stimulus_template(series())
    responses(nwb)
    units(nwb)


def _no_responses(nwb: Any) -> None:
    nwb.add_stimulus_template(series())
    trials(nwb)
    units(nwb)


def _short_responses(nwb: Any) -> None:
    nwb.add_stimulus_template(series())
    trials(nwb)
    responses(nwb, np.ones((4, N_UNITS)))
    units(nwb)


def _flat_responses(nwb: Any) -> None:
    nwb.add_stimulus_template(series())
    trials(nwb)
    responses(nwb, np.ones(len(IMAGE)))
    units(nwb)


def _other_units(nwb: Any) -> None:
    nwb.add_stimulus_template(series())
    trials(nwb)
    responses(nwb)
    units(nwb, count=7)


def _no_areas(nwb: Any) -> None:
    nwb.add_stimulus_template(series())
    trials(nwb)
    responses(nwb)
    units(nwb, "cell_type")


def _beyond(nwb: Any) -> None:
    nwb.add_stimulus_template(series())
    trials(nwb, IMAGE + 1)
    responses(nwb)
    units(nwb)


def _other_split(nwb: Any) -> None:
    nwb.add_stimulus_template(series())
    trials(nwb, split=["val"] * len(IMAGE))
    responses(nwb)
    units(nwb)


def _both_splits(nwb: Any) -> None:
    nwb.add_stimulus_template(series())
    trials(nwb, split=["train"] * 12 + ["test"] * 3)
    responses(nwb)
    units(nwb)


def _external(nwb: Any) -> None:
    nwb.add_stimulus_template(
        series(
            data=None,
            external_file=["../movie.avi"],
            format="external",
            starting_frame=[0],
            num_samples=3,
        )
    )
    _no_images(nwb)


def _no_order(nwb: Any) -> None:
    pixels = pictures(N_IMAGES)
    images = [RGBImage(name=f"im{i:02d}", data=pixels[i]) for i in range(N_IMAGES)]
    nwb.add_stimulus_template(Images(name="shown", images=images))
    _no_images(nwb)


def _float_images(nwb: Any) -> None:
    nwb.add_stimulus_template(series(data=pictures(N_IMAGES) / 255))
    _no_images(nwb)


WRONG: dict[str, tuple[Callable[[Any], None], str]] = {
    "no images": (_no_images, "0 containers in stimulus/templates"),
    "two templates": (_two_templates, "2 containers in stimulus/templates"),
    "no presentations": (_no_presentations, "no interval table with a column image"),
    "no responses": (_no_responses, "neither responses in a processing module nor spike"),
    "short responses": (_short_responses, "4 rows of responses but 15 presentations"),
    "flat responses": (_flat_responses, r"\(presentations, units\)"),
    "other units": (_other_units, "neither units nor electrodes has 3 rows"),
    "no areas": (_no_areas, "no column area, location"),
    "beyond": (_beyond, "show image 12 of 12"),
    "another split": (_other_split, "split must be train or test"),
    "both splits": (_both_splits, "2 images are presented both as training and as test"),
    "external": (_external, "keeps its frames in other files"),
    "no order": (_no_order, "shown has no order_of_images"),
    "float images": (_float_images, "must be uint8"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrong", WRONG)
def test_other_layouts_are_named(wrong: str, tmp_path: Path) -> None:
    make, message = WRONG[wrong]
    nwb = blank()
    make(nwb)
    path = saved(nwb, tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_recording(path, "nwb")
    assert str(path) in str(caught.value)


def test_paths_out_of_the_images_folder_are_refused(tmp_path: Path) -> None:
    nwb = blank()
    nwb.add_trial_column("image_path", "file of the image")
    for row in range(len(IMAGE)):
        path = "../a.png" if row == 3 else f"{row}.png"
        nwb.add_trial(start_time=row * 1.0, stop_time=row + 0.2, image_path=path)
    responses(nwb)
    units(nwb)
    with pytest.raises(InputError, match="leaves the images folder"):
        load_recording(saved(nwb, tmp_path), "nwb", images=tmp_path)


def test_without_pynwb_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = nwb_case(tmp_path)
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "pynwb":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"cortex-tuner\[nwb\]"):
        case.load()


def test_another_hdf5_file_is_no_nwb(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "x.nwb", "w") as file:
        file["a"] = 1
    with pytest.raises(InputError, match="not a readable NWB file"):
        load_recording(tmp_path / "x.nwb", "nwb")


def test_a_file_of_this_format_is_told(tmp_path: Path) -> None:
    nwb = blank()
    nwb.add_stimulus_template(series())
    trials(nwb)
    assert told_format(saved(nwb, tmp_path)) == "nwb"
