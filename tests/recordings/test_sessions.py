"""Sessions of different units and images as one recording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cli.main import main
from tuner.errors import InputError
from tuner.recordings import Recording, check_responses, cut, load_recording, write_recording
from tuner.recordings.inspect import inspect
from tuner.recordings.sessions import join_sessions
from tuner.recordings.sources import ArrayImages


def session(seed: int, images: np.ndarray, test: np.ndarray, units: int, repeats: int) -> Recording:
    rng = np.random.default_rng(seed)
    return Recording(
        label=f"session {seed}",
        source=f"{seed}.h5",
        simulated=True,
        units={"area": np.full(units, "V4"), "array": np.arange(units)},
        train_images=ArrayImages(images, "train/images"),
        train_responses=rng.normal(size=(len(images), units)).astype(np.float32),
        test_images=ArrayImages(test, "test/images"),
        test_responses=rng.normal(size=(repeats, len(test), units)).astype(np.float32),
    )


def pictures(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def two() -> dict[str, Recording]:
    """Sessions that share ten training images and one test image, in another order."""
    a, b, t, s = pictures(0, 40), pictures(1, 30), pictures(2, 5), pictures(3, 6)
    b[:10] = a[20:10:-1]
    s[2] = t[4]
    return {"mon": session(0, a, t, 3, 4), "tue": session(1, b, s, 2, 1)}


def test_every_unit_keeps_its_own_responses_to_its_own_images(two: dict[str, Recording]) -> None:
    both = join_sessions(two)
    assert both.train_responses.shape == (60, 5)
    assert both.test_responses is not None
    assert both.test_responses.shape == (4, 10, 5)
    assert both.units["session"].tolist() == ["mon"] * 3 + ["tue"] * 2
    assert both.units["area"].tolist() == ["V4"] * 5
    assert both.units["array"].tolist() == ["mon/0", "mon/1", "mon/2", "tue/0", "tue/1"]
    for units, one in ((slice(0, 3), two["mon"]), (slice(3, 5), two["tue"])):
        rows = {both.train_images.read(i).tobytes(): i for i in range(60)}
        mine = [rows[one.train_images.read(i).tobytes()] for i in range(one.n_train)]
        np.testing.assert_array_equal(both.train_responses[mine, units], one.train_responses)
        assert np.isnan(np.delete(both.train_responses, mine, 0)[:, units]).all()
        assert one.test_images is not None
        assert both.test_images is not None
        tests = {both.test_images.read(i).tobytes(): i for i in range(10)}
        where = [tests[one.test_images.read(i).tobytes()] for i in range(one.n_test)]
        found = both.test_responses[: one.n_repeats, :, units][:, where]
        np.testing.assert_array_equal(found, one.test_responses)
    assert both.train_groups is None
    assert any("10 training images were shown in several" in note for note in both.notes)


def test_groups_that_share_an_image_become_one_and_no_cut_takes_them_apart(
    two: dict[str, Recording],
) -> None:
    codes = np.arange(40) // 2
    grouped = {
        "mon": replace(two["mon"], train_groups=codes, test_groups=np.array([0, 50, 51, 52, 53])),
        "tue": replace(two["tue"], train_groups=np.arange(30) // 3),
    }
    both = join_sessions(grouped)
    assert both.train_groups is not None
    assert both.test_groups is not None
    # mon's 20 and 19 are tue's 0 and 1, of one group there with mon's 18: so 18 to 21 of mon, too, and tue's next.
    assert len(set(both.train_groups[[18, 19, 20, 21]].tolist())) == 1
    assert both.train_groups[0] == both.test_groups[0]
    assert both.train_groups[0] != both.train_groups[2]
    split = cut(both.n_train, both.train_groups, 0.2, 0)
    assert not set(both.train_groups[split.fit]) & set(both.train_groups[split.validation])


def test_an_image_shown_twice_in_a_session_keeps_both_responses_in_one_group(
    two: dict[str, Recording],
) -> None:
    images = two["mon"].train_images.array.copy()  # type: ignore[attr-defined]
    images[7] = images[3]
    twice = replace(two["mon"], train_images=ArrayImages(images))
    both = join_sessions({"mon": twice, "tue": two["tue"]})
    assert both.train_groups is not None
    assert both.train_groups[3] == both.train_groups[7]
    np.testing.assert_array_equal(both.train_responses[:40, :3], twice.train_responses)


def test_what_cannot_be_joined_is_refused(two: dict[str, Recording]) -> None:
    with pytest.raises(InputError, match="at least two"):
        join_sessions({"mon": two["mon"]})
    untested = replace(two["tue"], test_images=None, test_responses=None)
    with pytest.raises(InputError, match="tue has no test images and others have"):
        join_sessions({"mon": two["mon"], "tue": untested})
    named = {
        n: replace(r, units=r.units | {"session": np.full(r.n_units, "x")}) for n, r in two.items()
    }
    with pytest.raises(InputError, match="'x' stands in mon and tue"):
        join_sessions(named)


def test_gaps_between_sessions_are_not_missing_responses(two: dict[str, Recording]) -> None:
    both = join_sessions(two)
    summary = inspect(both)
    assert [(s.session, s.n_units, s.n_train, s.n_test, s.n_repeats) for s in summary.sessions] == [
        ("mon", 3, 40, 5, 4),
        ("tue", 2, 30, 6, 1),
    ]
    assert summary.regions[0].missing_train == 0
    assert summary.regions[0].missing_test == 0
    said = "\n".join(summary.suspicious)
    assert "many missing" not in said
    assert "2 of 5 units (3, 4) have one response to each test image" in said
    check_responses(both, cut(both.n_train, None, 0.3, 0), "mse", "area")
    with pytest.raises(InputError, match="data.session"):
        inspect(both, session="day")


def test_the_command_joins_files_that_the_others_read(
    two: dict[str, Recording], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(write_recording(one, tmp_path / f"{name}.h5")) for name, one in two.items()]
    out = tmp_path / "both.h5"
    assert main(["data", "join", *files, "-o", str(out)]) == 0
    capsys.readouterr()
    both = load_recording(out)
    np.testing.assert_array_equal(both.train_responses, join_sessions(two).train_responses)
    assert main(["data", "join", *files, "-o", str(out)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["data", "join", files[0], files[0], "-o", str(tmp_path / "x.h5")]) == 2
    assert "two of the files are called so" in capsys.readouterr().err
    config = tmp_path / "tuner.toml"
    config.write_text(
        '[data]\npath = "both.h5"\nimage_size = 32\nsession = "session"\n'
        '[[backbone]]\nname = "efficientnet_lite0"\n'
    )
    assert main(["-c", str(config), "data", "inspect"]) == 0
    assert "session   tue: 2 units, 30 training images, 6 test images" in capsys.readouterr().out
    config.write_text(config.read_text().replace('session = "session"', 'session = "day"'))
    assert main(["-c", str(config), "data", "inspect"]) == 2
    assert "data.session" in capsys.readouterr().err
