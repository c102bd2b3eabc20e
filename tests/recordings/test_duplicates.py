"""Equal images: which are taken for the same, and what becomes of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.recordings.pictures import pictures
from tuner.errors import InputError
from tuner.recordings import Recording, cut
from tuner.recordings.duplicates import find, group, look, refuse_leaks, same
from tuner.recordings.sources import ArrayImages

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def crops() -> list[Pixels]:
    """Crops of photographs that do not overlap."""
    from skimage import data

    found = []
    for photograph in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket()):
        height, width = photograph.shape[:2]
        found += [
            np.ascontiguousarray(photograph[y : y + 96, x : x + 96])
            for y in range(0, height - 95, 96)
            for x in range(0, width - 95, 96)
        ]
    return found


def jpeg(image: Pixels) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file).convert("RGB"))


def smaller(image: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((60, 60), Image.Resampling.BICUBIC))


def brighter(image: Pixels) -> Pixels:
    return np.clip(image * 1.1 + 5, 0, 255).astype(np.uint8)


def test_no_two_crops_of_photographs_are_the_same(crops: list[Pixels]) -> None:
    assert len(crops) > 60
    assert same([look(image) for image in crops]).size == 0


@pytest.mark.parametrize("change", [jpeg, smaller, brighter])
def test_a_changed_copy_is_the_same(
    crops: list[Pixels], change: Callable[[Pixels], Pixels]
) -> None:
    textured = [image for image in crops if image.std() > 25]
    looks = [look(image) for image in textured]
    found = same([*looks, *(look(change(image)) for image in textured)])
    n = len(textured)
    copies = {(i, i + n) for i in range(n)}
    assert {tuple(pair) for pair in found.tolist()} <= copies
    assert len(found) >= 0.95 * n


def test_flat_images_are_the_same_only_if_they_are_equal() -> None:
    flat = [np.full((8, 8, 3), level, dtype=np.uint8) for level in (0, 128, 129, 128)]
    assert same([look(image) for image in flat]).tolist() == [[1, 3]]


def recording(train: Pixels, test: Pixels) -> Recording:
    rng = np.random.default_rng(0)
    return Recording(
        label="r",
        source="r.h5",
        simulated=False,
        units={"area": np.array(["V1"])},
        train_images=ArrayImages(train, "train/images"),
        train_responses=rng.standard_normal((len(train), 1)).astype(np.float32),
        test_images=ArrayImages(test, "test/images"),
        test_responses=rng.standard_normal((2, len(test), 1)).astype(np.float32),
    )


def test_equal_training_images_stay_together_and_are_said() -> None:
    """Every image twice: without groups a tenth of them leaks into validation."""
    half = pictures(40)
    found = recording(np.concatenate([half, half]), pictures(4, first=900))
    apart = cut(found.n_train, found.train_groups, 0.1, 0)
    assert set(apart.validation % 40) & set(apart.fit % 40)
    grouped = group(found, find(found))
    assert grouped.train_groups is not None
    assert grouped.train_groups.tolist() == [*range(40), *range(40)]
    together = cut(grouped.n_train, grouped.train_groups, 0.1, 0)
    assert not set(together.validation % 40) & set(together.fit % 40)
    assert grouped.notes == (
        "80 of 80 training images occur more than once, exactly or nearly (train/images[0], "
        "train/images[1], train/images[2], train/images[3], train/images[4] and 75 more): equal ones "
        "are a group, on one side of every cut",
    )


def test_groups_that_share_an_image_become_one_and_others_stay() -> None:
    images = pictures(8)
    images[5] = images[0]
    found = replace(
        recording(images, pictures(2, first=900)), train_groups=np.array([7, 7, 3, 3, 5, 5, 9, 9])
    )
    grouped = group(found, find(found))
    assert grouped.train_groups is not None
    assert grouped.train_groups.tolist() == [5, 5, 3, 3, 5, 5, 9, 9]
    inside = replace(found, train_groups=np.array([1, 1, 1, 1, 1, 1, 2, 2]))
    assert group(inside, find(inside)) is inside


def test_a_test_image_that_is_a_training_image_is_refused() -> None:
    test = pictures(4, first=900)
    test[2] = pictures(10)[3]
    found = recording(pictures(10), test)
    pairs = find(found)
    with pytest.raises(
        InputError,
        match=r"r\.h5: 1 of 4 test images are training images too, exactly or nearly "
        r"\(test/images\[2\] is train/images\[3\]\); .* data\.test_duplicates = \"allow\"",
    ):
        refuse_leaks(found, pairs)
    assert group(found, pairs) is found
    refuse_leaks(recording(pictures(10), pictures(4, first=900)), pairs[:0])


def test_equal_test_images_are_a_group_of_their_own_codes() -> None:
    test = pictures(4, first=900)
    test[3] = test[1]
    found = recording(pictures(10), test)
    grouped = group(found, find(found))
    assert grouped.train_groups is None
    assert grouped.test_groups is not None
    assert grouped.test_groups.tolist() == [10, 11, 12, 11]
