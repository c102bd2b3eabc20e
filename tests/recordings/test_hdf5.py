from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.recordings.cases import generic
from tests.recordings.pictures import pictures
from tuner.errors import EnvironmentFailure, InputError
from tuner.recordings import Recording, load_recording, write_recording
from tuner.recordings.hdf5.images import Hdf5Images
from tuner.recordings.hdf5.locking import open_beside
from tuner.recordings.hdf5.open import open_hdf5
from tuner.recordings.join import shared_unit
from tuner.recordings.sources import ArrayImages


def edit(path: Path, name: str, values: Any) -> None:
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if values is not None:
            file[name] = values


def put(name: str, values: Any) -> Callable[[Path], None]:
    return lambda path: edit(path, name, values)


def link(name: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with h5py.File(path.with_name("other.h5"), "w") as other:
            other["there"] = np.zeros((30, 9))
        edit(path, name, h5py.ExternalLink("other.h5", "/there"))

    return make


def unfinished(path: Path) -> None:
    edit(path, "train/responses", None)
    with h5py.File(path, "a") as file:
        data = file.create_dataset("train/responses", (30, 9), chunks=(10, 9), dtype="f8")
        data[:10] = 1.5


def as_group(path: Path) -> None:
    edit(path, "train/responses", None)
    edit(path, "train/responses/x", 1)


def unreadable_name(path: Path) -> None:
    edit(path, "train/responses", None)
    with h5py.File(path, "a") as file:
        file.create_group(b"\xffresponses")


R = np.random.default_rng(0).standard_normal((30, 9))
WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "no responses": (put("train/responses", None), "has no train/responses; it holds"),
    "responses of text": (put("train/responses", ["a"] * 30), "train/responses must hold real"),
    "complex responses": (put("train/responses", R + 1j), "must hold real numbers"),
    "one axis": (put("train/responses", R[:, 0]), r"must have 2 axes, not shape \(30,\)"),
    "a group for responses": (as_group, "is a group where a dataset"),
    "too few rows": (put("train/responses", R[:29]), "30 training images but 29 rows"),
    "transposed": (put("train/responses", R.T), "30 training images but 9 rows"),
    "infinite": (put("train/responses", np.where(R > 2, np.inf, R)), "infinite value"),
    "too large": (put("train/responses", R * 1e300), "beyond 3.4e38"),
    "a silent unit": (
        put("train/responses", np.where(np.arange(9) == 8, np.nan, R)),
        r"unit 8 \(unit 8 µ, IT\) has no training response",
    ),
    "no images": (put("train/images", None), "neither train/images nor train/image_paths"),
    "both images and paths": (put("train/image_paths", ["a"] * 30), "has both"),
    "images of floats": (put("train/images", np.zeros((30, 8, 8, 3))), "must be uint8"),
    "channels first": (put("train/images", np.zeros((30, 3, 8, 8), np.uint8)), "channels before"),
    "four channels": (put("train/images", np.zeros((30, 8, 8, 4), np.uint8)), "height, width, 3"),
    "flat images": (put("train/images", np.zeros((30, 64), np.uint8)), "height, width, 3"),
    "groups of another length": (put("train/groups", np.zeros(29, int)), "train/groups has shape"),
    "groups with gaps": (put("train/groups", np.full(30, np.nan)), "missing values"),
    "groups of two kinds": (put("test/groups", ["a"] * 6), "both be text or both numbers"),
    "groups in two axes": (put("train/groups", R), "one value per unit|one axis|shape"),
    "no areas": (put("units/area", None), "no units/area"),
    "no units": (put("units", None), "no units/area"),
    "areas of another length": (put("units/area", ["V1"] * 8), "units/area has shape"),
    "areas not in UTF-8": (put("units/area", np.array([b"\xff"] * 9)), "not UTF-8"),
    "a complex column": (put("units/x", np.ones(9, complex)), "strings or numbers"),
    "a column of two axes": (put("units/x", np.ones((9, 2))), "one value per unit"),
    "test without responses": (put("test/responses", None), "no test/responses"),
    "test without images": (put("test/images", None), "neither test/images"),
    "test responses of two axes": (put("test/responses", np.ones((6, 9))), "must have 3 axes"),
    "test responses swapped": (put("test/responses", np.ones((6, 4, 9))), "6 test images but"),
    "other units in the test set": (put("test/responses", np.ones((4, 6, 8))), "of 8 units but"),
    "responses elsewhere": (link("train/responses"), "kept in another file"),
    "a name that is not UTF-8": (unreadable_name, r"it holds .*\\xffresponses"),
    "never finished": (unfinished, "not stored whole"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named(wrong: str, tmp_path: Path) -> None:
    case = generic(tmp_path)
    damage, message = WRONG[wrong]
    damage(case.path)
    with pytest.raises(InputError, match=message) as caught:
        case.load()
    assert "\n" not in str(caught.value)
    assert str(case.path) in str(caught.value)


@pytest.mark.parametrize("name", ["../a/003.png", "/etc/passwd", "a\\..\\..\\x.png", "C:\\x.png"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_paths_out_of_the_images_folder_are_refused(part: str, name: str, tmp_path: Path) -> None:
    case = generic(tmp_path, files=True)
    with h5py.File(case.path, "a") as file:
        file[f"{part}/image_paths"][2] = name
    with pytest.raises(InputError, match="leaves the images folder") as caught:
        case.load()
    assert str(case.path) in str(caught.value)


def test_a_recording_without_a_test_set(tmp_path: Path) -> None:
    case = generic(tmp_path)
    edit(case.path, "test", None)
    recording = case.load()
    assert recording.test_images is None
    assert recording.test_responses is None


def test_integer_responses_and_text_groups(tmp_path: Path) -> None:
    case = generic(tmp_path)
    counts = np.arange(270).reshape(30, 9)
    edit(case.path, "train/responses", counts)
    edit(case.path, "train/groups", [f"g{i // 10}" for i in range(30)])
    edit(case.path, "test/groups", ["g0", "h"] * 3)
    recording = case.load()
    np.testing.assert_array_equal(recording.train_responses, counts)
    assert (np.bincount(recording.train_groups) == 10).all()
    assert recording.test_groups[0] == recording.train_groups[0]
    assert recording.test_groups[1] not in recording.train_groups


def test_greyscale_images_get_three_equal_channels(tmp_path: Path) -> None:
    case = generic(tmp_path)
    grey = pictures(30)[..., 0]
    for stored in (grey, grey[..., None]):
        edit(case.path, "train/images", stored)
        image = case.load().train_images.read(7)
        assert (image == grey[7][..., None]).all()
        assert image.shape == (8, 8, 3)


def test_images_in_a_file_hash_as_in_memory(tmp_path: Path) -> None:
    case = generic(tmp_path)
    assert case.load().train_images.digest() == ArrayImages(case.train_pixels).digest()


def test_images_are_read_from_many_threads(tmp_path: Path) -> None:
    case = generic(tmp_path)
    images = Hdf5Images(case.path, "train/images")
    wrong = []

    def read(offset: int) -> None:
        for i in range(200):
            index = (i * 7 + offset) % 30
            if (images.read(index) != case.train_pixels[index]).any():
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"MATLAB 5.0 MAT-file" + b" " * 200, "-v7.3"),
        (b"version https://git-lfs.github.com/spec/v1", "only a pointer"),
    ],
)
def test_well_known_other_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_recording(path)
    with pytest.raises(InputError, match="not a file"):
        load_recording(tmp_path)


def test_unknown_formats_are_answered_with_the_known() -> None:
    with pytest.raises(InputError, match="hdf5, tvsd, tvsd-arrays"):
        load_recording("x", "matlab")
    with pytest.raises(InputError, match=r"data\.path is missing"):
        load_recording(None, "hdf5")


def test_a_failed_writing_leaves_the_old_file(tmp_path: Path) -> None:
    recording = generic(tmp_path).load()
    path = tmp_path / "out.h5"
    write_recording(recording, path)
    before = path.read_bytes()
    whole = recording.train_images

    class Broken:
        names = ("a",) * recording.n_train

        def __len__(self) -> int:
            return recording.n_train

        def digest(self) -> str:
            return ""

        def read(self, index: int) -> Any:
            if index == 20:
                raise InputError("image 20 is damaged")
            return whole.read(index)

    object.__setattr__(recording, "train_images", Broken())
    with pytest.raises(InputError, match="image 20"):
        write_recording(recording, path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5", "recording.h5"]


def test_bytes_behind_the_end_are_noticed(tmp_path: Path) -> None:
    case = generic(tmp_path)
    whole = case.path.read_bytes()
    case.path.write_bytes(whole + bytes(-len(whole) % 512 + 512))
    case.load()
    case.path.write_bytes(whole[:20000] + bytes(8) + whole[20000:])
    with pytest.raises(InputError, match="goes on behind its end"):
        case.load()
    case.path.write_bytes(whole[:20000] + b"1234" + whole[20000:])
    with pytest.raises(InputError, match="goes on behind its end"):
        case.load()


def test_chunks_that_are_listed_and_not_found_are_noticed(tmp_path: Path) -> None:
    """A damaged index reads as zeros; zeros that are really there are read as such."""
    case = generic(tmp_path)
    values = R.copy()
    values[10:20] = 0
    with h5py.File(case.path, "a") as file:
        del file["train/responses"]
        file.create_dataset("train/responses", data=values, chunks=(10, 9), compression=1)
    np.testing.assert_array_equal(case.load().train_responses, values.astype(np.float32))
    whole = case.path.read_bytes()
    # The last offset of a chunk's key, in units of elements, is always 0.
    key = np.array([10, 0, 0], dtype="<u8").tobytes()
    assert whole.count(key) == 1
    case.path.write_bytes(whole.replace(key, np.array([10, 0, 8], dtype="<u8").tobytes()))
    with pytest.raises(InputError, match="train/responses cannot be read"):
        case.load()


def test_a_type_of_numbers_that_no_program_writes_is_noticed(tmp_path: Path) -> None:
    """A flipped bit in the exponent's bias quadruples every response."""
    case = generic(tmp_path)
    with h5py.File(case.path, "a") as file:
        stored = h5py.h5t.IEEE_F64LE.copy()
        stored.set_ebias(1021)
        name = b"train/responses"
        assert not stored.equal(file["train/responses"].id.get_type())
        del file["train/responses"]
        made = h5py.h5d.create(file.id, name, stored, h5py.h5s.create_simple(R.shape))
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, R, mtype=stored)  # as it is: no conversion
        assert not np.allclose(file["train/responses"][()], R, equal_nan=True)
    with pytest.raises(InputError, match="train/responses is of no number type"):
        case.load()


@pytest.mark.parametrize("kind", [">f8", "f4", ">f4", "f2"])
def test_every_type_of_numbers_that_programs_write_is_read(kind: str, tmp_path: Path) -> None:
    case = generic(tmp_path)
    with h5py.File(case.path, "a") as file:
        del file["train/responses"]
        file["train/responses"] = R.astype(kind)
    expected = R.astype(kind).astype(np.float32)
    np.testing.assert_array_equal(case.load().train_responses, expected)


def test_a_chunk_that_says_it_was_not_compressed_is_noticed(tmp_path: Path) -> None:
    case = generic(tmp_path)
    for damaged in (False, True):
        with h5py.File(case.path, "a") as file:
            del file["train/responses"]
            data = file.create_dataset(
                "train/responses", R.shape, "f8", chunks=R.shape, compression=1
            )
            # Bit 0 of its mask: filter 0 was left out, as HDF5 does where it does not help.
            content = R.astype("<f8").tobytes()
            data.id.write_direct_chunk((0, 0), content[:-8] if damaged else content, filter_mask=1)
        if damaged:
            with pytest.raises(InputError, match="train/responses is not stored whole"):
                case.load()
        else:
            np.testing.assert_array_equal(case.load().train_responses, R.astype(np.float32))


@pytest.mark.parametrize("over", ["another dataset", "a header"])
def test_a_dataset_that_lies_over_something_else_is_noticed(over: str, tmp_path: Path) -> None:
    """A flipped bit in an address: the values are then those of elsewhere, or all shifted."""
    case = generic(tmp_path)
    with h5py.File(case.path) as file:
        data = file["test/responses"].id
        address, size = data.get_offset(), data.get_storage_size()
        if over == "another dataset":
            wrong = file["train/groups"].id.get_offset() - 8
        else:
            wrong = h5py.h5o.get_info(file["train/responses"].id).addr - 64
    whole = case.path.read_bytes()
    stored = struct.pack("<QQ", address, size)
    assert whole.count(stored) == 1
    case.path.write_bytes(whole.replace(stored, struct.pack("<QQ", wrong, size)))
    with pytest.raises(InputError, match="lies where something else does"):
        case.load()


def test_our_files_notice_every_damaged_value(tmp_path: Path) -> None:
    """Any bit of the responses, columns or images that flips is noticed when it is read."""
    from tests.recordings.mutations import raw_ranges

    path = write_recording(generic(tmp_path).load(), tmp_path / "out.h5")
    whole = path.read_bytes()
    ranges = raw_ranges(path)
    assert len(ranges) > 30
    rng = np.random.default_rng(0)
    for start, stop in ranges:
        damaged = bytearray(whole)
        damaged[int(rng.integers(start, stop))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            load_recording(path).train_images.digest()
            load_recording(path).test_images.digest()


def test_images_of_several_sizes_are_not_embedded(tmp_path: Path) -> None:
    case = generic(tmp_path, files=True)
    from tests.recordings.pictures import write_pictures

    write_pictures(case.images, ["a/003.png"], size=12)
    with pytest.raises(InputError, match=r"a/003\.png is 12 x 12 .* must be of one size"):
        write_recording(case.load(), tmp_path / "out.h5", embed=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    recording = generic(tmp_path).load()
    with pytest.raises(InputError, match="no such folder"):
        write_recording(recording, tmp_path / "nowhere" / "out.h5")
    with pytest.raises(InputError, match="is a folder"):
        write_recording(recording, tmp_path)
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        write_recording(recording, Path("/proc/out.h5"))


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = generic(tmp_path).load()

    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFailure, match="disk is full"):
        write_recording(recording, tmp_path / "out.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["recording.h5"]


def three(path: Path) -> Path:
    with h5py.File(path, "w", libver="v110") as file:
        file["x"] = np.arange(3)
    return path


@pytest.mark.parametrize("locking", [None, True, False, "best-effort"])
def test_a_file_that_this_process_holds_open_is_read(tmp_path, locking):
    path = three(tmp_path / "r.h5")
    with h5py.File(path, "r", locking=locking) as mine:
        with open_hdf5(path) as file:
            assert file["x"][:].tolist() == [0, 1, 2]
        assert mine["x"][:].tolist() == [0, 1, 2], "closing ours left theirs open"


def test_a_file_that_this_process_writes_is_refused_plainly(tmp_path):
    path = tmp_path / "r.h5"
    with (
        h5py.File(path, "w"),
        pytest.raises(InputError, match=r"r\.h5: this process holds it open for writing"),
        open_hdf5(path),
    ):
        pass


def test_a_file_that_is_being_read_can_be_opened_by_the_user(tmp_path):
    path = three(tmp_path / "r.h5")
    with open_hdf5(path):
        with h5py.File(path) as mine:
            assert mine["x"][:].tolist() == [0, 1, 2]
        with open_hdf5(path) as again:
            assert again["x"][:].tolist() == [0, 1, 2]


def elsewhere(path: Path, mode: str) -> subprocess.CompletedProcess[str]:
    code = "import h5py, sys; h5py.File(sys.argv[1], sys.argv[2])['x'][:]"
    return subprocess.run(
        [sys.executable, "-c", code, str(path), mode], capture_output=True, text=True, check=False
    )


def test_another_process_reads_the_file_but_does_not_write_it_meanwhile(tmp_path):
    path = three(tmp_path / "r.h5")
    with open_hdf5(path):
        assert elsewhere(path, "r").returncode == 0
        refused = elsewhere(path, "r+")
        assert "unable to lock file" in refused.stderr
    assert elsewhere(path, "r+").returncode == 0


def test_a_file_that_another_process_holds_locked_is_read(tmp_path):
    path = three(tmp_path / "r.h5")
    with path.open("rb") as other:  # as a process that has it open for writing
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="unable to lock file"):
            h5py.File(path)
        with open_hdf5(path) as file:
            assert file["x"][:].tolist() == [0, 1, 2]


def test_a_file_is_read_where_locks_are_refused(tmp_path, monkeypatch):
    """As network file systems without a lock service do."""
    path = three(tmp_path / "r.h5")
    plain, tried = h5py.File, []

    def refusing(name: Path, mode: str, locking: bool | str | None = None) -> h5py.File:
        tried.append(locking)
        if locking is not False:
            raise OSError(37, "Unable to open (unable to lock file, errno = 37)")
        return plain(name, mode, locking=locking)

    monkeypatch.setattr("tuner.recordings.hdf5.locking.h5py.File", refusing)
    with open_beside(path) as file:
        assert file["x"][:].tolist() == [0, 1, 2]
    assert tried == [None, False]


def test_what_responses_are_measured_in_is_read_carried_on_and_written(tmp_path: Path) -> None:
    def measured(name: str, unit: object) -> Recording:
        (tmp_path / name).mkdir()
        path = generic(tmp_path / name).path
        with h5py.File(path, "a") as file:
            if unit is not None:
                file["train/responses"].attrs["unit"] = unit
        return load_recording(path)

    assert measured("none", None).measured_in == ""
    assert measured("number", 3).measured_in == ""
    long = measured("long", " spikes\nper 100 ms " + "x" * 100).measured_in
    assert long == "spikes per 100 ms " + "x" * 42
    counts = measured("counts", "spikes per 100 ms").select_units(np.array([0, 1]))
    copy = load_recording(write_recording(counts, tmp_path / "copy.h5"))
    assert copy.measured_in == "spikes per 100 ms"
    assert shared_unit([copy, copy]) == "spikes per 100 ms"
    assert shared_unit([copy, measured("other", "mV")]) == ""
