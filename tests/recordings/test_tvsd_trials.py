from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from tests.recordings.cases import AREAS, things_names
from tests.recordings.pictures import write_pictures
from tests.recordings.trials_file import WINDOWS, mapping, write_sparse, write_trials
from tuner.errors import InputError
from tuner.recordings import load_recording, write_recording
from tuner.recordings.tvsd import trials as tvsd_trials
from tuner.recordings.tvsd import windows as trial_windows
from tuner.recordings.tvsd.table import TrialTable
from tuner.recordings.tvsd.trials import read_trials


def test_the_map_is_not_its_own_inverse() -> None:
    """Else no test could tell its direction; its last 512 are."""
    found = mapping() - 1
    assert sorted(found) == list(range(1024))
    inverse = np.argsort(found)
    assert (found != inverse).any()
    assert (found[512:] == inverse[512:]).all()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("monkey", ["N", "F"])
def test_values_are_those_of_the_authors_code(
    monkey: str, transposed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_trials(tmp_path, transposed=transposed)
    train, test = raw.expected(monkey, mapping() - 1)
    monkeypatch.setattr(trial_windows, "BLOCK_BYTES", 2**19)  # many blocks, of channels as well
    seen: list[tuple[str, int, int]] = []
    found = read_trials(raw.path, monkey=monkey, progress=lambda *step: seen.append(step))
    channels = found.units["channel"]
    np.testing.assert_allclose(found.train_responses, train[:, channels], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(found.test_responses, test[:, :, channels], rtol=2e-5, atol=2e-6)
    assert len(channels) == (960 if monkey == "N" else 1024)
    assert len(seen) > 5
    assert seen[-1][1:] == (len(seen), len(seen))
    pairs = [(a, b) for a in range(4) for b in range(a)]
    for unit in (0, 500, 900):
        reps = test[:, :, channels[unit]]
        wanted = np.mean([np.corrcoef(reps[a], reps[b])[0, 1] for a, b in pairs])
        assert found.units["reliability"][unit] == pytest.approx(wanted, rel=1e-6)


def test_the_dead_array_lands_on_its_place(tmp_path: Path) -> None:
    """Monkey N's dead raw channels are physical 320 to 383; inversely mapped 256 to 319."""
    dead = mapping()[320:384] - 1
    assert sorted(dead) == [*range(256, 288), *range(352, 384)]
    raw = write_trials(tmp_path, raw_dead=dead)
    found = read_trials(raw.path, monkey="N")
    # All other channels live: none but array 6 is dropped.
    assert found.units["channel"].tolist() == [*range(320), *range(384, 1024)]
    assert len(found.notes) == 1
    # As monkey F, which has no dead array, the silent channels show where they landed.
    as_f = read_trials(raw.path, monkey="F")
    silent = sorted(set(range(1024)) - set(as_f.units["channel"].tolist()))
    assert silent == list(range(320, 384))


def test_a_wrong_direction_would_be_seen(tmp_path: Path) -> None:
    dead = mapping()[320:384] - 1
    raw = write_trials(tmp_path, raw_dead=dead)
    inverse = np.argsort(mapping() - 1) + 1
    wrong = tmp_path / "inverse.mat"
    scipy.io.savemat(wrong, {"mapping": inverse})
    found = read_trials(raw.path, monkey="F", mapping=wrong)
    silent = sorted(set(range(1024)) - set(found.units["channel"].tolist()))
    assert silent == list(range(256, 320))


def test_skipping_the_map_would_mislabel_64_channels_of_f() -> None:
    from tuner.recordings.tvsd.layout import columns

    for monkey, mislabelled in (("N", []), ("F", [*range(768, 800), *range(832, 864)])):
        area = columns(monkey)["area"]  # type: ignore[arg-type]
        raw_area = np.empty_like(area)
        raw_area[mapping() - 1] = area
        assert np.flatnonzero(raw_area != area).tolist() == mislabelled
        if monkey == "F":
            assert set(raw_area[768:800]) == {"V4"}
            assert set(raw_area[832:864]) == {"IT"}


def test_the_map_is_applied_to_f(tmp_path: Path) -> None:
    """Raw 768:800 are V4 in monkey F, so its window counts for them and its place is theirs."""
    raw = write_trials(tmp_path)
    with h5py.File(raw.path, "a") as file:
        # A response only after 150 ms: IT's window has it and V4's has not.
        late = file["tb"][()].ravel() > 150
        for channel in (770, 840):
            file["ALLMUA"][:, :, channel] = 0.0
            file["ALLMUA"][np.flatnonzero(late), :, channel] = np.random.default_rng(
                channel
            ).standard_normal((late.sum(), raw.mua.shape[1]))
    found = read_trials(raw.path, monkey="F")
    there = dict(zip(found.units["channel"].tolist(), found.units["area"].tolist(), strict=True))
    place = {int(m) - 1: i for i, m in enumerate(mapping())}
    assert place[840] == 776
    assert there[776] == "IT"
    assert place[770] == 834
    assert 834 not in there  # V4, silent in V4's window


def test_converted_once_to_the_generic_file(tmp_path: Path) -> None:
    raw = write_trials(tmp_path)
    train_names, test_names = things_names(raw.n_train, raw.n_test)
    images = tmp_path / "images"
    write_pictures(images, train_names)
    write_pictures(images, test_names, first=500)
    for given in (None, images):
        recording = read_trials(raw.path, monkey="F", images=given)
        out = write_recording(recording, tmp_path / "out.h5")
        found = load_recording(out, images=images)
        direct = read_trials(raw.path, monkey="F")
        np.testing.assert_array_equal(found.train_responses, direct.train_responses)
        np.testing.assert_array_equal(found.test_responses, direct.test_responses)
        assert list(found.train_images.names) == train_names
    with pytest.raises(InputError, match=r"data\.images"):
        write_recording(read_trials(raw.path, monkey="F"), tmp_path / "out.h5", embed=True)


def test_repeats_days_and_gaps(tmp_path: Path) -> None:
    """Images shown again are averaged, repeats that were not made are missing, and a day without
    test images cannot be normalised."""
    raw = write_trials(tmp_path)
    with h5py.File(raw.path, "a") as file:
        table = file["ALLMAT"][()]
        tested = np.flatnonzero(table[2] > 0)
        trained = np.flatnonzero(table[1] > 0)
        table[2, tested[0]], table[1, tested[0]] = 0, 1  # image 1 twice, one repeat fewer
        table[5, trained[-1]] = 20220109  # a day of one training presentation
        file["ALLMAT"][...] = table
    found = read_trials(raw.path, monkey="F")
    raw.table = table
    lost = int(table[1, trained[-1]]) - 1
    assert np.isnan(found.train_responses[lost]).all() == (lost != 0)
    assert np.isnan(found.test_responses[-1]).any(axis=1).sum() == 1
    assert any("1 days have no test images: 1 presentations" in note for note in found.notes)
    assert np.isfinite(np.delete(found.train_responses, lost, axis=0)).all()


def test_a_missing_sample_costs_its_own_presentation(tmp_path: Path) -> None:
    """Not the channel's day: the others are normalised by the pool of whole presentations."""
    raw = write_trials(tmp_path)
    sound = read_trials(raw.path, monkey="F")
    tested = int(np.flatnonzero(raw.table[2] > 0)[0])
    sample = int(np.flatnonzero(raw.times > 60)[0])  # in the window of every area but IT's
    with h5py.File(raw.path, "a") as file:
        file["ALLMUA"][sample, tested, 0] = np.nan
    found = read_trials(raw.path, monkey="F")
    channel = int(np.flatnonzero(mapping() - 1 == 0)[0])
    unit = found.units["channel"].tolist().index(channel)
    image = int(raw.table[2, tested]) - 1
    lost = np.argwhere(np.isnan(found.test_responses))
    assert lost.tolist() == [[0, image, unit]]
    assert np.isfinite(found.train_responses).all()
    raw.mua[sample, tested, 0] = np.nan
    after, until = WINDOWS[AREAS["F"][channel]]
    inside = raw.mua[(raw.times > after) & (raw.times <= until), :, 0]
    day = raw.table[5]
    pool = inside[:, (day == day[tested]) & (raw.table[2] > 0)]
    pool = pool[:, ~np.isnan(pool).any(axis=0)]
    trained = int(np.flatnonzero((raw.table[1] > 0) & (day == day[tested]))[0])
    z = (inside[:, trained].mean() - pool.mean()) / pool.std(ddof=1)
    row = int(raw.table[1, trained]) - 1
    assert found.train_responses[row, unit] == pytest.approx(z, rel=1e-5)
    others = np.delete(np.arange(found.n_units), unit)
    np.testing.assert_array_equal(
        found.train_responses[:, others], sound.train_responses[:, others]
    )
    assert [n for n in found.notes if n not in sound.notes] == [
        "1 responses are left out, in 1 presentations and 1 channels: a sample in their window is missing"
    ]


def table(**columns: Any) -> Any:
    rows = {"trial": [1, 1, 1], "train": [1, 2, 0], "test": [0, 0, 1], "rep": [1, 1, 1],
            "count": [1, 2, 3], "day": [5, 5, 7]} | columns  # fmt: skip
    return np.array(list(rows.values()), dtype=float)


def test_the_table_of_trials() -> None:
    found = TrialTable.parse(Path("x"), table(), 2, 1)
    assert found.train.tolist() == [0, 1, -1]
    assert found.test.tolist() == [-1, -1, 0]
    assert found.day.tolist() == [0, 0, 1]
    assert found.n_days == 2
    seven = np.insert(table(), 5, 1, axis=0)  # with the column "correct"
    assert TrialTable.parse(Path("x"), seven, 2, 1).day.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"train": [1, 2, 3]}, "presentation 2 .* names no image, or both"),
        ({"test": [0, 0, 0]}, "presentation 2 .* names no image"),
        ({"train": [1, 9, 0]}, "presentation 1 .* showed train image 9, but the stimuli list 2"),
        ({"test": [0, 0, 2]}, "test image 2"),
        ({"test": [0, -1, 1]}, "showed test image -1"),
        ({"train": [1, 1.5, 0]}, "training image column must hold whole"),
        ({"day": [1, float("nan"), 2]}, "day column"),
    ],
)
def test_a_damaged_table(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrialTable.parse(Path("x"), table(**columns), 2, 1)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ALLMUA", lambda v: v[:, :, :1000], "neither as it is nor transposed"),
        ("ALLMUA", lambda v: v.astype(int), "must hold floats on 3 axes"),
        ("ALLMUA", lambda v: v[0], "must hold floats on 3 axes"),
        ("ALLMUA", lambda v: np.where(v == v[30, 2, 700], -np.inf, v), "holds infinite numbers"),
        ("ALLMUA", lambda v: v * 1e200, "beyond 3.4e38"),
        ("ALLMAT", lambda v: v[:, :-1], "ALLMAT has shape"),
        ("tb", lambda v: v[::-1], "increasing times"),
        ("tb", lambda v: v / 1000, "no sample from 25 to 125 ms"),
    ],
)
def test_damaged_trials(name: str, change: Any, message: str, tmp_path: Path) -> None:
    raw = write_trials(tmp_path, n_train=5, n_test=2, repeats=2)
    with h5py.File(raw.path, "a") as file:
        values = change(file[name][()])
        del file[name]
        file[name] = values
    with pytest.raises(InputError, match=message):
        read_trials(raw.path, monkey="F")


@pytest.mark.parametrize("transposed", [False, True])
def test_trials_that_are_listed_and_not_found_are_noticed(transposed: bool, tmp_path: Path) -> None:
    """A damaged index reads as zeros."""
    raw = write_trials(tmp_path, n_train=8, n_test=3, repeats=2, transposed=transposed)
    read_trials(raw.path, monkey="F")
    whole = raw.path.read_bytes()
    # The offset of a chunk in the middle; the last, in units of elements, is always 0.
    place = [294, 11, 0] if transposed else [21, 11, 300]
    key = np.array([*place, 0], dtype="<u8").tobytes()
    assert whole.count(key) >= 1
    raw.path.write_bytes(whole.replace(key, np.array([*place, 8], dtype="<u8").tobytes()))
    with pytest.raises(InputError, match="ALLMUA cannot be read"):
        read_trials(raw.path, monkey="F")


def test_trials_that_were_never_written_are_noticed(tmp_path: Path) -> None:
    """HDF5 itself reads zeros there."""
    raw = write_trials(tmp_path, n_train=5, n_test=2, repeats=2)
    with h5py.File(raw.path, "a") as file:
        values = file["ALLMUA"][()]
        del file["ALLMUA"]
        data = file.create_dataset("ALLMUA", values.shape, "f8", chunks=(*values.shape[:2], 128))
        data[:, :, :896] = values[:, :, :896]
    with pytest.raises(InputError, match="ALLMUA is not stored whole"):
        read_trials(raw.path, monkey="F")


@pytest.mark.parametrize(
    "content",
    [b"", b"not matlab", {"mapping": np.arange(1024)}, {"mapping": np.arange(1, 1025) // 2},
     {"mapping": "text"}, {"other": 1}, {"mapping": mapping()[:1000]}],
)  # fmt: skip
def test_a_map_that_is_none(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "map.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        scipy.io.savemat(path, content)
    with pytest.raises(InputError, match=r"map\.mat"):
        tvsd_trials.read_mapping(path)
    with pytest.raises(InputError, match="no such file"):
        tvsd_trials.read_mapping(tmp_path / "missing.mat")


MEASURE = """
import sys
from pathlib import Path
from tuner.recordings import write_recording
from tuner.recordings.tvsd.trials import read_trials
write_recording(read_trials(Path(sys.argv[1]), monkey="F"), Path(sys.argv[2]))
# Not getrusage: its peak is inherited from the process that started this one.
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def test_four_gigabytes_take_little_memory(tmp_path: Path) -> None:
    path = write_sparse(tmp_path, gigabytes=4)
    assert path.stat().st_size > 3.9e9
    assert path.stat().st_blocks * 512 < 2e8  # sparse: it costs the disk next to nothing
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(tmp_path / "out.h5")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ended.stdout) * 1024 < 1.5e9
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["train/responses"].shape[1] == 1024
        assert np.isfinite(file["train/responses"][()]).all()
