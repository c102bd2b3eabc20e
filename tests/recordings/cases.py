"""One small recording per format, written as its authors write it, with what must arrive."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tests.recordings import matlab_files as matlab
from tests.recordings.pictures import pictures, write_pictures
from tuner.recordings import Recording, load_recording
from tuner.recordings.hdf5.writer import write_recording
from tuner.recordings.sources import ArrayImages

N_TRAIN, N_TEST, N_REPEATS = 30, 6, 4


@dataclass(frozen=True)
class Case:
    """A recording on disk and what must arrive.

    Parameters
    ----------
    format, path, images, options
        What `load_recording` is called with.
    units
        Columns that must arrive, among others.
    train, test
        Responses, (n_train, n_units) and (n_repeats, n_test, n_units) or None.
    train_pixels, test_pixels
        Images.
    groups
        A name for the group of each training image, or None.
    names_files
        Whether the recording names image files.
    """

    format: str
    path: Path
    images: Path | None
    units: dict[str, NDArray[Any]]
    train: NDArray[np.float32]
    test: NDArray[np.float32] | None
    train_pixels: NDArray[np.uint8]
    test_pixels: NDArray[np.uint8] | None
    groups: list[str] | None = None
    names_files: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def load(self, **changes: Any) -> Recording:
        """Read the recording."""
        images = changes.pop("images", self.images)
        path = changes.pop("path", self.path)
        return load_recording(path, self.format, images=images, **(self.options | changes))


def responses(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw responses; no two are alike, and some are missing."""
    rng = np.random.default_rng([7, seed, *shape])
    values = rng.standard_normal(shape)
    values[rng.random(shape) < 0.02] = np.nan
    return values


def generic(folder: Path, *, files: bool = False) -> Case:
    """The generic file, with images in it or beside it."""
    n_units = 9
    train, test = responses(N_TRAIN, n_units), responses(N_REPEATS, N_TEST, n_units)
    units = {
        "area": np.array(["V1"] * 4 + ["V4"] * 3 + ["IT"] * 2),
        "array": np.arange(n_units) // 2,
        "name": np.array([f"unit {i} µ" for i in range(n_units)]),
        "reliability": np.linspace(0.1, 0.9, n_units),
        "good": np.arange(n_units) % 2 == 0,
    }
    path = folder / "recording.h5"
    train_pixels, test_pixels = pictures(N_TRAIN), pictures(N_TEST, first=500)
    with h5py.File(path, "w") as file:
        if files:
            train_names = [f"a/{i:03d}.png" for i in range(N_TRAIN)]
            test_names = [f"b\\{i:03d}.png" for i in range(N_TEST)]
            write_pictures(folder / "images", train_names)
            slashes = [name.replace("\\", "/") for name in test_names]
            write_pictures(folder / "images", slashes, first=500)
            file["train/image_paths"] = train_names
            file["test/image_paths"] = test_names
        else:
            file["train/images"] = train_pixels
            file["test/images"] = test_pixels
        file["train/responses"] = train
        file["train/groups"] = np.arange(N_TRAIN) // 3
        file["test/responses"] = test
        for name, values in units.items():
            file[f"units/{name}"] = values.tolist() if values.dtype.kind == "U" else values
    return Case(
        "hdf5",
        path,
        folder / "images" if files else None,
        units,
        train.astype(np.float32),
        test.astype(np.float32),
        train_pixels,
        test_pixels,
        groups=[str(i // 3) for i in range(N_TRAIN)],
        names_files=files,
    )


def rewritten(folder: Path, *, files: bool = False) -> Case:
    """The generic file as our own writer makes it."""
    case = generic(folder, files=files)
    path = folder / "rewritten.h5"
    write_recording(case.load(), path)
    return Case(**(case.__dict__ | {"path": path}))


def things_names(n_train: int, n_test: int) -> tuple[list[str], list[str]]:
    """Name images as THINGS does, concept by concept."""
    train = [
        f"concept{i // 3:02d}/concept{i // 3:02d}_{i % 3 + 1:02d}b.png" for i in range(n_train)
    ]
    test = [f"tést{i}/tést{i}_01b.png" for i in range(n_test)]
    return train, test


AREAS = {
    "N": ["V1"] * 512 + ["V4"] * 256 + ["IT"] * 256,
    "F": ["V1"] * 512 + ["IT"] * 320 + ["V4"] * 192,
}


def tvsd(folder: Path, monkey: str = "N") -> Case:
    """``THINGS_normMUA.mat`` and all that belongs to it."""
    (folder / "_logs").mkdir(parents=True, exist_ok=True)
    train_names, test_names = things_names(N_TRAIN, N_TEST)
    matlab.stimuli(folder / "_logs" / "things_imgs.mat", train_names, test_names)
    train_pixels = write_pictures(folder / "images", train_names)
    test_pixels = write_pictures(folder / "images", test_names, first=500)
    train, test = responses(N_TRAIN, 1024), responses(N_REPEATS, N_TEST, 1024)
    rng = np.random.default_rng(3)
    pairs = len(list(itertools.combinations(range(N_REPEATS), 2)))
    reliab, days = rng.uniform(0, 1, (1024, pairs)), rng.uniform(0, 9, (1024, 4))
    path = folder / "THINGS_normMUA.mat"
    with matlab.matlab_file(path) as file:  # MATLAB's shapes
        matlab.array(file, "train_MUA", train.T)
        matlab.array(file, "test_MUA", np.nanmean(test, axis=0).T)
        matlab.array(file, "test_MUA_reps", test.transpose(2, 1, 0))
        matlab.array(file, "SNR", days)
        matlab.array(file, "SNR_max", days.max(axis=1)[None])
        matlab.array(file, "lats", 10 * days)
        matlab.array(file, "oracle", reliab.max(axis=1)[None])
        matlab.array(file, "reliab", reliab)
        matlab.array(file, "tb", np.arange(-100.0, 200.0)[None])
    live = np.arange(1024)
    if monkey == "N":
        live = np.r_[0:320, 384:1024]
    units = {
        "area": np.array(AREAS[monkey])[live],
        "array": live // 64 + 1,
        "electrode": live % 64 + 1,
        "channel": live,
        "reliability": reliab.mean(axis=1)[live],
        "snr": days.mean(axis=1)[live],
        "snr_max": days.max(axis=1)[live],
        "latency_ms": 10 * days.mean(axis=1)[live],
        "oracle": reliab.max(axis=1)[live],
    }
    return Case(
        "tvsd",
        path,
        folder / "images",
        units,
        train[:, live].astype(np.float32),
        test[:, :, live].astype(np.float32),
        train_pixels,
        test_pixels,
        groups=[name.split("/")[0] for name in train_names],
        options={"monkey": monkey},
    )


def arrays(folder: Path, *, square: int = N_TRAIN) -> Case:
    """The per-array exports: 16 files, array 6 empty, array 13 with a single channel.

    Array 2 has as many channels as there are images: its shape does not tell the axes apart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train_names = [f"train/THINGS_train/{i + 1:05d}.bmp" for i in range(N_TRAIN)]
    test_names = [f"val/test/{i + 1:05d}.bmp" for i in range(N_TEST)]
    train_pixels = write_pictures(folder / "images", train_names)
    test_pixels = write_pictures(folder / "images", test_names, first=500)
    parts, tests, array, channel = [], [], [], []
    for number in range(1, 17):
        count = {2: square, 6: 0, 13: 1}.get(number, 2 + number % 3)
        train, test = responses(N_TRAIN, count, seed=number), responses(N_TEST, count, seed=number)
        good = np.sort(np.random.default_rng(number).choice(64, count, replace=False)) + 1.0
        with matlab.matlab_file(folder / f"THINGS_exportMUA_array{number}.mat") as file:
            if count:
                matlab.array(file, "good_chns", good[None])
                matlab.array(file, "train_MUA", train.T[None])
                matlab.array(file, "test_MUA", test.T)
            else:
                matlab.array(file, "good_chns", np.empty((0, 1)))
                matlab.array(file, "train_MUA", np.empty((1, 0, N_TRAIN)))
                matlab.array(file, "test_MUA", np.empty((0, N_TEST)))
            matlab.array(file, "temp_rel", np.arange(64.0)[None])
        parts.append(train)
        tests.append(test)
        array += [number] * count
        channel += good.astype(int).tolist()
    areas = ["V1" if a < 9 else "V4" if a < 13 else "IT" for a in array]
    units = {"area": np.array(areas), "array": np.array(array), "good_channel": np.array(channel)}
    return Case(
        "tvsd-arrays",
        folder,
        folder / "images",
        units,
        np.concatenate(parts, axis=1).astype(np.float32),
        np.concatenate(tests, axis=1).astype(np.float32)[None],
        train_pixels,
        test_pixels,
    )


def presentations() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shuffle the presentations: image shown (test: from N_TRAIN on), and how often before."""
    image = np.r_[np.arange(N_TRAIN), np.tile(np.arange(N_TRAIN, N_TRAIN + N_TEST), N_REPEATS)]
    image = np.random.default_rng(2).permutation(image)
    repeat = np.array([int((image[:i] == which).sum()) for i, which in enumerate(image)])
    return image, repeat


def by_image(
    values: NDArray[np.float64], image: NDArray[np.int64], repeat: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[int], list[int]]:
    """Sort what presentations evoked, by hand: images are in order of first presentation."""
    train_order = [i for i in dict.fromkeys(image.tolist()) if i < N_TRAIN]
    test_order = [i for i in dict.fromkeys(image.tolist()) if i >= N_TRAIN]
    train = np.stack([values[np.flatnonzero(image == i)[0]] for i in train_order])
    test = np.empty((N_REPEATS, N_TEST, values.shape[1]))
    for row, (which, times) in enumerate(zip(image.tolist(), repeat.tolist(), strict=True)):
        if which >= N_TRAIN:
            test[times, test_order.index(which)] = values[row]
    return train.astype(np.float32), test.astype(np.float32), train_order, test_order


def assembly(folder: Path) -> Case:
    """A Brain-Score assembly as xarray writes it through netCDF-4, with its stimulus set."""
    folder.mkdir(parents=True, exist_ok=True)
    image, repeat = presentations()
    n_units = 7
    values = responses(len(image), n_units)
    path = folder / "assy_test.nc"
    with h5py.File(path, "w") as file:
        lengths = {"presentation": len(image), "neuroid": n_units, "time_bin": 1}
        for name, length in lengths.items():
            scale = file.create_dataset(name, data=np.zeros(length, dtype=">f4"))
            scale.make_scale(f"This is a netCDF dimension but not a netCDF variable.{length:10d}")

        def variable(name: str, data: Any, *dims: str) -> None:
            text = np.asarray(data).dtype.kind == "U"
            kind = h5py.string_dtype() if text else None
            stored = file.create_dataset(
                name, data=np.asarray(data, dtype=object if text else None), dtype=kind
            )
            for axis, dim in enumerate(dims):
                stored.dims[axis].attach_scale(file[dim])

        variable("responses", values.T[:, :, None], "neuroid", "presentation", "time_bin")
        ids = np.array([f"im{i:03d}" for i in image])
        variable("stimulus_id", ids, "presentation")
        variable("repetition", repeat, "presentation")
        region = np.array(["V4"] * 3 + ["IT"] * 4)
        variable("region", region, "neuroid")
        variable("neuroid_id", np.array([f"n{i}" for i in range(n_units)]), "neuroid")
        variable("x", np.arange(n_units) * 0.4, "neuroid")
        variable("time_bin_start", np.array([70]), "time_bin")
        variable("time_bin_end", np.array([170]), "time_bin")
    names = [f"{i:03d}.png" for i in range(N_TRAIN + N_TEST)]
    pixels = write_pictures(folder / "images", names)
    with (folder / "stimuli.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["stimulus_id", "object_name", "filename"])
        writer.writerows([f"im{i:03d}", "x", name] for i, name in enumerate(names))
    train, test, train_order, test_order = by_image(values, image, repeat)
    return Case(
        "assembly",
        path,
        folder / "images",
        {"area": region, "x": np.arange(n_units) * 0.4},
        train,
        test,
        pixels[train_order],
        pixels[test_order],
        options={"stimuli": folder / "stimuli.csv"},
    )


def nwb(folder: Path, *, files: bool = False) -> Case:
    """An NWB file with responses in a processing module, images in it or beside it."""
    import datetime

    import pynwb
    from pynwb.base import ImageReferences, Images
    from pynwb.image import RGBImage

    folder.mkdir(parents=True, exist_ok=True)
    image, repeat = presentations()
    n_units = 5
    values = responses(len(image), n_units)
    area = ["V1", "V1", "V4", "V4", "IT"]
    written = pynwb.NWBFile(
        session_description="made by a test",
        identifier="one",
        session_start_time=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    )
    names = [f"{i:03d}.png" for i in range(N_TRAIN + N_TEST)]
    if files:
        pixels = write_pictures(folder / "images", names)
        written.add_trial_column("image_path", "file of the image")
    else:
        pixels = pictures(N_TRAIN + N_TEST)
        # Named so that their alphabetical order is not theirs.
        images = [RGBImage(name=f"im{-i % 100}", data=pixels[i]) for i in range(len(pixels))]
        order = ImageReferences(name="order_of_images", data=images)
        written.add_stimulus_template(Images(name="shown", images=images, order_of_images=order))
        written.add_trial_column("image", "index of the image")
    written.add_trial_column("split", "train or test")
    for row, which in enumerate(image.tolist()):
        shown = {"image_path": names[which]} if files else {"image": which}
        part = "test" if which >= N_TRAIN else "train"
        written.add_trial(start_time=row * 0.4, stop_time=row * 0.4 + 0.2, split=part, **shown)
    written.add_unit_column("area", "cortical area")
    written.add_unit_column("depth", "mm")
    for unit in range(n_units):
        written.add_unit(area=area[unit], depth=0.1 * unit)
    module = written.create_processing_module("mua", "multi-unit activity")
    module.add(
        pynwb.TimeSeries(
            name="responses", data=values, unit="a.u.", timestamps=np.arange(len(image)) * 0.4
        )
    )
    path = folder / "session.nwb"
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(written)
    train, test, train_order, test_order = by_image(values, image, repeat)
    return Case(
        "nwb",
        path,
        folder / "images" if files else None,
        {"area": np.array(area), "depth": 0.1 * np.arange(n_units)},
        train,
        test,
        pixels[train_order],
        pixels[test_order],
        names_files=files,
    )


def expected(case: Case) -> Recording:
    """Build what must arrive, without any reader."""
    groups = None
    if case.groups is not None:
        groups = np.unique(case.groups, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return Recording(
        label="expected",
        source="expected",
        simulated=False,
        units=case.units,
        train_images=ArrayImages(case.train_pixels),
        train_responses=case.train,
        train_groups=groups,
        test_images=None if case.test_pixels is None else ArrayImages(case.test_pixels),
        test_responses=case.test,
    )


CASES: dict[str, Callable[[Path], Case]] = {
    "hdf5": generic,
    "hdf5-files": lambda folder: generic(folder, files=True),
    "hdf5-rewritten": rewritten,
    "tvsd-N": lambda folder: tvsd(folder, "N"),
    "tvsd-F": lambda folder: tvsd(folder, "F"),
    "tvsd-arrays": arrays,
    "assembly": assembly,
    "nwb": nwb,
    "nwb-files": lambda folder: nwb(folder, files=True),
}
