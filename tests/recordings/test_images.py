from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.recordings.pictures import pictures, write_pictures
from tuner.errors import InputError
from tuner.recordings import PreparedImages, sources
from tuner.recordings.images import check_sizes
from tuner.recordings.paths import clean, resolve_images
from tuner.recordings.sources import ArrayImages, FileImages, decode


def test_images_of_the_right_size_are_untouched() -> None:
    images = pictures(20)
    prepared = PreparedImages(ArrayImages(images), 8)
    np.testing.assert_array_equal(prepared.read(np.array([3, 1, 3])), images[[3, 1, 3]])
    np.testing.assert_array_equal(prepared.read(np.arange(20)), images)  # in threads
    assert len(prepared) == 20


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    small = PreparedImages(ArrayImages(stripes), 16).read([0])
    # Without antialiasing every fourth column is all there is: one flat extreme.
    assert (np.abs(small.astype(int) - 127) <= 8)[:, :, 2:-2].all()


def test_resizing_is_pillows_bicubic() -> None:
    image = pictures(1, size=50)
    wanted = Image.fromarray(image[0]).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(
        PreparedImages(ArrayImages(image), 32).read([0])[0], np.asarray(wanted)
    )


def test_what_becomes_of_images_that_are_not_square() -> None:
    image = np.zeros((1, 4, 8, 3), dtype=np.uint8)
    image[:, :, 2:6] = 200
    source = ArrayImages(image, "train/images")
    with pytest.raises(InputError, match=r"train/images\[0\] is 8 x 4 pixels.*crop"):
        PreparedImages(source, 4).read([0])
    assert (PreparedImages(source, 4, "crop").read([0]) == 200).all()
    padded = PreparedImages(source, 8, "pad").read([0])[0]
    assert (padded[:2] == 128).all()
    assert (padded[6:] == 128).all()
    np.testing.assert_array_equal(padded[2:6], image[0])


def test_the_digest_goes_by_all_that_decides_the_pixels() -> None:
    images = pictures(4)
    changed = images.copy()
    changed[2, 0, 0, 0] ^= 1
    digests = {
        PreparedImages(ArrayImages(images), 8).digest(),
        PreparedImages(ArrayImages(images), 8, "crop").digest(),
        PreparedImages(ArrayImages(images), 9).digest(),
        PreparedImages(ArrayImages(changed), 8).digest(),
        PreparedImages(ArrayImages(images[::-1]), 8).digest(),
        PreparedImages(ArrayImages(images[:3]), 8).digest(),
    }
    assert len(digests) == 6
    assert PreparedImages(ArrayImages(images, "other"), 8).digest() in digests


@pytest.mark.parametrize(("size", "fit"), [(0, "error"), (8, "stretch")])
def test_impossible_preparation_is_refused(size: int, fit: str) -> None:
    with pytest.raises(InputError, match=r"data\."):
        PreparedImages(ArrayImages(pictures(1)), size, fit)  # type: ignore[arg-type]


def test_other_arrays_are_refused() -> None:
    with pytest.raises(InputError, match="uint8"):
        ArrayImages(np.zeros((2, 8, 8, 3)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="height"):
        ArrayImages(np.zeros((2, 8, 8), np.uint8))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "LA"])
def test_other_kinds_of_images_become_rgb(mode: str, tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    grey.convert("RGB").convert(mode).save(path)
    image = decode(path)
    assert image.shape == (8, 8, 3)
    if mode == "L":
        assert (image == np.asarray(grey)[:, :, None]).all()


def test_images_of_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: has more than 8 bits"):
        decode(tmp_path / "a.png")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "bomb"])
def test_unreadable_images_are_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_pictures(tmp_path, ["a.png"], size=32)
    whole = path.read_bytes()
    if damage == "bomb":  # a header that promises a gigantic image
        whole = whole[:16] + (2**17).to_bytes(4, "big") * 2 + whole[24:]
    path.write_bytes({"empty": b"", "text": b"hello", "cut": whole[:200], "bomb": whole}[damage])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=r"a\.png") as caught:
            decode(path)
    assert "\n" not in str(caught.value)


BAD_PATHS = [
    "/etc/a.png",
    "../a.png",
    "b/../../a.png",
    "C:\\a.png",
    "..\\a.png",
    "",
    "\\\\x\\a",
    "a\0b",
]


@pytest.mark.parametrize("name", BAD_PATHS)
def test_paths_that_leave_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    write_pictures(tmp_path, ["images/a.png", "a.png"])
    with pytest.raises(InputError, match="image path"):
        resolve_images(tmp_path / "images", ["a.png", name], "rec")


def test_paths_inside_are_cleaned() -> None:
    assert clean(".\\a//b\\c.png", "rec") == "a/b/c.png"


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["images/a.png"])
    (tmp_path / "images/b.png").symlink_to("a.png")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    source = FileImages(tmp_path / "link", ["b.png"], "rec")
    np.testing.assert_array_equal(source.read(0), pictures(1)[0])


def test_a_prefix_is_not_the_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["images/a.png", "images2/b.png"])
    (tmp_path / "images/b.png").symlink_to(tmp_path / "images2/b.png")
    with pytest.raises(InputError, match="leads out"):
        FileImages(tmp_path / "images", ["b.png"], "rec")


def test_many_missing_images_are_shortened(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a.png"])
    names = ["a.png", *(f"{i}.png" for i in range(20))]
    with pytest.raises(InputError, match=r"20 of 21 images .* 4\.png and 15 more; check data"):
        FileImages(tmp_path, names, "rec")


def test_a_format_that_starts_a_program_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    def start(*arguments: object, **options: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    path = tmp_path / "picture.png"  # whatever it is called
    Image.new("RGB", (8, 8)).save(path, format="EPS")
    with pytest.raises(InputError, match=r"picture\.png: not a readable image .*PNG, JPEG"):
        decode(path)


def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (12_000, 12_000)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(InputError, match=r"12000 x 12000 pixels, and 30 million are allowed"):
            decode(path)


def test_sizes_are_checked_by_headers_alone(tmp_path, monkeypatch):
    for name, size in (("a.png", (8, 8)), ("b.png", (16, 8))):
        Image.new("RGB", size).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no image")
    monkeypatch.setattr(sources, "decode", None)  # nothing is decoded
    images = FileImages(tmp_path, ["a.png", "b.png"], "r.h5")
    assert [images.size(index) for index in (0, 1)] == [(8, 8), (8, 16)]
    with pytest.raises(InputError, match=r"b\.png is 16 x 8 pixels, not square"):
        check_sizes(images, "error", "r.h5")
    check_sizes(images, "pad", "r.h5")
    with pytest.raises(InputError, match=r"c\.png: not a readable image"):
        check_sizes(FileImages(tmp_path, ["a.png", "c.png"], "r.h5"), "pad", "r.h5")
    with pytest.raises(InputError, match=r"r\.h5: images\[0\] is 5 x 4 pixels, not square"):
        check_sizes(ArrayImages(np.zeros((2, 4, 5, 3), np.uint8)), "error", "r.h5")
