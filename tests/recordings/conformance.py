"""What every recording format must pass: call each function with a `Case` of the format."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.recordings.cases import Case, expected
from tuner.errors import InputError
from tuner.recordings import Recording, load_recording, write_recording


def check_arrives(case: Case) -> None:
    """Every response, image, group and column arrives where it belongs."""
    check_equal(case.load(), expected(case))


def check_equal(found: Recording, wanted: Recording) -> None:
    """Compare all but labels and additional columns."""
    np.testing.assert_array_equal(found.train_responses, wanted.train_responses)
    assert found.train_responses.dtype == np.float32
    for name, values in wanted.units.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found.units[name], values, rtol=1e-12, err_msg=name)
        else:
            np.testing.assert_array_equal(found.units[name], values, err_msg=name)
    assert found.regions("area").keys() == wanted.regions("area").keys()
    check_images(found.train_images, wanted.train_images)
    if wanted.train_groups is None:
        assert found.train_groups is None
    else:
        assert same_partition(found.train_groups, wanted.train_groups)
    if wanted.test_responses is None:
        assert found.test_responses is None
        return
    np.testing.assert_array_equal(found.test_responses, wanted.test_responses)
    check_images(found.test_images, wanted.test_images)


def check_images(found: object, wanted: object) -> None:
    """Compare images pixel by pixel, in order."""
    assert len(found) == len(wanted) == len(found.names)
    for index in range(len(wanted)):
        np.testing.assert_array_equal(found.read(index), wanted.read(index), err_msg=str(index))
        assert found.read(index).dtype == np.uint8


def same_partition(first: object, second: object) -> bool:
    """Whether two codings put the same images together."""
    return len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second))


def check_reads_the_same_twice(case: Case) -> None:
    """Two readings are equal, also in what the feature cache goes by, and survive a pickle."""
    first, second = case.load(), case.load()
    assert first.train_images.digest() == second.train_images.digest()
    sent = pickle.loads(pickle.dumps(first.train_images))
    assert sent.digest() == first.train_images.digest()
    np.testing.assert_array_equal(sent.read(1), first.train_images.read(1))
    if first.test_images is not None:
        assert first.test_images.digest() != first.train_images.digest()


def check_converts(case: Case, folder: Path) -> None:
    """Written as the generic file, with and without the images, it is still the same."""
    recording = case.load()
    for embed in (False, True):
        path = write_recording(recording, folder / f"converted{embed}.h5", embed=embed)
        again = load_recording(path, images=None if embed else case.images)
        check_equal(again, recording)
        assert again.label == recording.label
        assert again.notes == recording.notes
        assert next(iter(again.units)) == "area"


def check_refuses_what_is_no_such_file(case: Case, folder: Path) -> None:
    """A missing, empty, foreign or truncated file ends in one line that names it."""
    with pytest.raises(InputError, match="no such"):
        case.load(path=folder / "missing")
    whole = case.path if case.path.is_file() else next(case.path.glob("*array1.mat"))
    for number, content in enumerate((b"", b"not this", b"\x89HDF", whole.read_bytes()[:2000])):
        place = folder / f"damaged{number}"
        place.mkdir()
        path = place / whole.name
        path.write_bytes(content)
        if case.format == "tvsd":
            (place / "_logs").symlink_to(case.path.parent / "_logs")
        with pytest.raises(InputError) as caught:
            case.load(path=path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def check_missing_images_are_listed(case: Case) -> None:
    """Missing files are counted and named; without the folder its key is named."""
    if not case.names_files:
        return
    names = case.load().train_images.names
    for name in (names[2], names[5]):
        (case.images / name).unlink()
    with pytest.raises(InputError, match=r"2 of .* images are missing") as caught:
        case.load()
    assert names[2] in str(caught.value)
    with pytest.raises(InputError, match=r"data\.images"):
        case.load(images=None)
    with pytest.raises(InputError, match="no such folder"):
        case.load(images=case.images / "nowhere")


def check_links_out_are_refused(case: Case, folder: Path) -> None:
    """An image, or a folder of images, that is a link out of the images folder is refused."""
    if not case.names_files:
        return
    image = case.images / case.load().train_images.names[4]
    outside = folder / "outside"
    outside.mkdir()
    image.rename(outside / image.name)
    image.symlink_to(outside / image.name)
    with pytest.raises(InputError, match="leads out of"):
        case.load()
    image.unlink()
    (outside / image.name).rename(image)
    inside = image.parent
    if inside != case.images:
        inside.rename(folder / "moved")
        inside.symlink_to(folder / "moved")
        with pytest.raises(InputError, match="leads out of"):
            case.load()


def check_unknown_options_are_refused(case: Case) -> None:
    """An option of another format is named."""
    with pytest.raises(InputError, match="colour"):
        case.load(colour=1)


CHECKS_WITH_FOLDER = (
    check_converts,
    check_refuses_what_is_no_such_file,
    check_links_out_are_refused,
)
CHECKS = (
    check_arrives,
    check_reads_the_same_twice,
    check_missing_images_are_listed,
    check_unknown_options_are_refused,
)
