"""The folder for the rig: what is in it, how it is shown, and that nothing can be slipped in."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.encoders import SIZE, pictures, random_encoder
from tuner.encoder import as_batch
from tuner.errors import EnvironmentFailure, InputError
from tuner.synthesis.mei import MeiSettings, synthesize
from tuner.synthesis.noise import pink_noise
from tuner.synthesis.patches import scramble
from tuner.synthesis.photometry import Photometry, statistics
from tuner.synthesis.receptive_fields import from_readout
from tuner.synthesis.stimuli.choice import (
    KINDS,
    Choice,
    Source,
    Stimulus,
    choose,
)
from tuner.synthesis.stimuli.folder import _note, block_order, read_stimuli, write_stimuli
from tuner.synthesis.stimuli.lacking import lacking
from tuner.synthesis.stimuli.manifest import COLUMNS, file_hash, seen_images
from tuner.synthesis.stimuli.placement import (
    Field,
    Light,
    Rig,
    light_inside,
    light_of,
    moved,
    show,
)

SETTINGS = MeiSettings(steps=15, chunk=4, variants=2)
STUDY = "b/l/V1/full"


class Pictures:
    """Prepared images, in memory."""

    def __init__(self, count: int = 30) -> None:
        self.pixels = pictures(count, seed=11)
        self.names = [f"train/images[{k}]" for k in range(count)]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices):
        return self.pixels[indices]


@pytest.fixture(scope="module")
def source():
    encoder = random_encoder(n_units=4, layer="_blocks.0", meta={"simulated": True})
    result = synthesize([encoder], None, SETTINGS)
    return Source(STUDY, result, encoder, SETTINGS.photometry)


@pytest.fixture(scope="module")
def other():
    return random_encoder("factorized", n_units=4, layer="_blocks.1", seed=3)


# which images


def test_every_unit_gets_its_images_and_controls(source):
    stimuli = choose([source], Pictures(), Choice(natural=2, noise=1, scrambled=3), "full")
    counts = {kind: sum(s.kind == kind for s in stimuli) for kind in KINDS}
    assert counts == {
        "mei": 8,
        "natural_best": 8,
        "natural_worst": 8,
        "mei_other": 0,  # every unit sees the others' images anyway
        "noise": 4,
        "scrambled": 12,
        "patch": 4,
        "patch_scrambled": 4,
        "grey": 1,
    }
    assert {s.unit for s in stimuli if s.kind == "noise"} == {7, 8, 9, 10}


def test_a_single_unit_is_shown_others_images_too(source):
    stimuli = choose([source], None, Choice(others=2), "full", units=[8])
    others = [s for s in stimuli if s.kind == "mei_other"]
    assert len(others) == 2
    assert all(s.unit == 8 and s.origin != "unit 8" for s in others)
    assert not any(s.kind.startswith("natural") for s in stimuli)


def test_centred_images_of_others_are_moved_to_the_field(source):
    stimuli = choose([source], None, Choice(others=1), "centred")
    assert sum(s.kind == "mei_other" for s in stimuli) == 4


def test_natural_images_are_the_encoders_extremes(source):
    images = Pictures()
    stimuli = choose([source], images, Choice(), "full")
    matched = source.photometry.match(images.pixels)
    with torch.no_grad():
        answers = source.encoder(as_batch(matched)).numpy()
    for k, unit in enumerate(source.encoder.unit_indices):
        (best,) = (s for s in stimuli if s.kind == "natural_best" and s.unit == unit)
        (worst,) = (s for s in stimuli if s.kind == "natural_worst" and s.unit == unit)
        assert best.origin == images.names[answers[:, k].argmax()]
        assert worst.origin == images.names[answers[:, k].argmin()]
        np.testing.assert_array_equal(best.image, matched[answers[:, k].argmax()])


def test_all_have_the_same_mean_and_contrast(source):
    stimuli = choose([source], Pictures(), Choice(), "full")
    whole = [s for s in stimuli if s.kind != "grey" and not s.kind.startswith("patch")]
    means, contrasts = statistics(np.stack([s.image for s in whole]))
    np.testing.assert_allclose(means, 0.5, atol=0.004)
    np.testing.assert_allclose(contrasts, 0.1, rtol=0.04)


def test_a_field_as_large_as_the_image_has_no_patches(source, monkeypatch):
    """They would be the natural images over again."""
    from tuner.synthesis.receptive_fields import Fields

    size = source.result.pixels.shape[2]
    monkeypatch.setattr(Fields, "windows", lambda self: np.ones((len(self.x), size, size)))
    kinds = {s.kind for s in choose([source], Pictures(), Choice(patches=2), "full")}
    assert "natural_best" in kinds
    assert not {"patch", "patch_scrambled"} & kinds


def test_what_is_lacking_is_said_with_its_reason_and_in_the_note(source, monkeypatch, tmp_path):
    from tuner.synthesis.receptive_fields import Fields

    windows = Fields.windows

    def first_as_large_as_the_image(self: Fields) -> np.ndarray:
        found = windows(self)
        found[self.x == self.x[0]] = 1
        return found

    assert len(lacking(choose([source], Pictures(), Choice(), "full"), patches=True)) == 1
    monkeypatch.setattr(Fields, "windows", first_as_large_as_the_image)
    stimuli = choose([source], Pictures(), Choice(), "full")
    few, without = lacking(stimuli, patches=True)
    assert 'will say "too few to tell", it takes 6 at least' in few
    assert "no patches for unit 7: the window" in without
    assert lacking(stimuli, patches=False) == [few]
    folder = write_stimuli(
        tmp_path / "folder", stimuli, {STUDY: source.encoder}, Rig(), blocks=1, notes=[few]
    )
    said = " ".join((folder / "README.txt").read_text().split())
    assert f"What is lacking {few}" in said
    assert "Predictions in manifest.csv are in the recording's units." in said


def test_a_patch_and_its_control_show_no_more_than_the_field_and_are_matched_there(source):
    stimuli = choose([source], Pictures(), Choice(patches=2), "full")
    windows = from_readout(source.encoder).windows()
    for unit, window in zip(source.encoder.unit_indices, windows, strict=True):
        mine = [s for s in stimuli if s.unit == unit]
        patches, controls = (
            [s for s in mine if s.kind == kind] for kind in ("patch", "patch_scrambled")
        )
        assert [s.origin for s in patches] == [s.origin for s in controls]
        assert len({s.origin for s in patches}) == 2
        for one in patches + controls:
            assert (one.image[window == 0] == 128).all()
        with torch.no_grad():
            both = np.stack([s.image for s in patches])
            answers = source.encoder(as_batch(both))[:, int(unit) - 7]
        assert answers[0] >= answers[1]
        for patch, control in zip(patches, controls, strict=True):
            inside = window > 0.5
            a, b = (s.image[inside].astype(float).ravel() for s in (patch, control))
            assert b.std() == pytest.approx(a.std(), rel=0.15)
            assert np.corrcoef(a, b)[0, 1] < 0.9


def test_full_images_are_matched_inside_the_field_and_whole_only_where_asked(source):
    image = pictures(1, 64)[0]
    field = Field(20.0, 40.0, 4.0)
    light = Light(120.0, 15.0)
    shown = show(image, Rig(size=128), 128, field, light)
    assert light_inside(shown.seen, Rig(), field).rms == pytest.approx(15, rel=0.15)
    whole = show(image, Rig(size=128, match="image"), 128, field, light)
    assert whole.pixels.std() == pytest.approx(15, rel=0.05)
    assert light_of(whole.pixels, Rig(match="image"), 128).rms == pytest.approx(15, rel=0.05)


def test_the_choice_depends_on_the_seed_alone(source):
    one, again, other = (choose([source], None, Choice(seed=seed), "full") for seed in (0, 0, 1))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
    noise = [next(s.image for s in each if s.kind == "noise") for each in (one, other)]
    assert not np.array_equal(*noise)


def test_a_unit_without_images_is_an_error(source):
    with pytest.raises(InputError, match="one of these units"):
        choose([source], None, Choice(), "full", units=[99])


def test_negative_counts_are_refused():
    with pytest.raises(InputError, match="noise = -1"):
        Choice(noise=-1)


def test_scrambling_keeps_amplitudes_and_mean():
    image = pictures(1)[0]
    scrambled = scramble(image, np.random.default_rng(0))
    before, after = (np.abs(np.fft.fft2(x, axes=(0, 1))) for x in (image.astype(float), scrambled))
    np.testing.assert_allclose(after, before, atol=1e-6 * before.max())
    assert np.corrcoef(image.ravel(), scrambled.ravel())[0, 1] < 0.5


def test_noise_is_pink_and_grey():
    spectra = []
    for seed in range(30):
        noise = pink_noise(64, np.random.default_rng(seed))
        assert (noise == noise[..., :1]).all()
        spectra.append(np.abs(np.fft.fft2(noise[..., 0] - noise.mean())) ** 2)
    power = np.mean(spectra, axis=0)
    slope = np.log(power[0, 16] / power[0, 2]) / np.log(16 / 2)
    assert slope == pytest.approx(-2, abs=0.4)


# how they are shown


def test_full_field_at_the_encoders_size_is_the_image():
    image = pictures(1)[0]
    shown = show(image, Rig(), 128)
    np.testing.assert_array_equal(shown.pixels, image)
    np.testing.assert_array_equal(shown.seen, image)
    assert (shown.x, shown.y) == (0, 0)


def test_centred_shows_the_surroundings_of_the_field_where_it_is():
    image = pictures(1, 64)[0]
    field = Field(x=40.0, y=20.0, sigma=3.0)
    rig = Rig(size=128, placement="centred", window=3.0)
    shown = show(image, rig, 128, field)
    # twice the size: x 40 has its centre at 80.5, 17 right of the middle at 63.5
    assert shown.x == pytest.approx(80.5 - 63.5, abs=0.51)
    assert shown.y == pytest.approx(63.5 - 40.5, abs=0.51)
    assert (shown.pixels[0] == 128).all()
    assert (shown.pixels[:, -1] == 128).all()
    rows, columns = np.mgrid[:64, :64]
    distance = np.hypot(columns - 40, rows - 20)
    assert (shown.seen[distance > 11] == 128).all()
    inside = distance < 5
    np.testing.assert_allclose(
        shown.seen[inside].astype(float), image[inside].astype(float), atol=12
    )


def test_a_field_at_the_edge_is_padded_with_grey():
    image = pictures(1, 64)[0]
    shown = show(image, Rig(placement="centred"), 100, Field(1.0, 62.0, 4.0))
    assert shown.pixels.shape == (27, 27, 3)
    assert (shown.pixels[:, :10] == 100).all()
    assert shown.seen.shape == image.shape


def test_within_the_window_mean_and_contrast_are_those_asked_for():
    image = pictures(1, 64)[0]
    rig = Rig(size=128, placement="centred")
    field = Field(30.0, 33.0, 4.0)
    shown = show(image, rig, 128, field, Light(110.0, 20.0))
    assert light_of(image, rig, 128, field).rms != pytest.approx(20, rel=0.05)
    weight = light_of(shown.seen, Rig(placement="centred"), 128, field)
    assert weight.mean == pytest.approx(110, abs=6)
    assert weight.rms == pytest.approx(20, rel=0.2)


def test_moving_fills_with_grey():
    image = pictures(1)[0]
    shifted = moved(image, 3.2, -2.0, 50)
    np.testing.assert_array_equal(shifted[:-2, 3:], image[2:, :-3])
    assert (shifted[:, :3] == 50).all()
    assert (shifted[-2:] == 50).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"placement": "left"},
        {"size": -1},
        {"pixels_per_degree": -2.0},
        {"window": 0.0},
        {"match": "eye"},
    ],
)
def test_an_impossible_rig_is_refused(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        Rig(**arguments)


# the folder


@pytest.fixture(scope="module", params=["full", "centred"])
def written(request, source, other, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "session"
    stimuli = choose([source], Pictures(), Choice(), request.param)
    rig = Rig(size=80, pixels_per_degree=20.0, placement=request.param)
    encoders = {STUDY: source.encoder, "b/m/V1/factorized": other}
    return write_stimuli(folder, stimuli, encoders, rig, blocks=3, seed=4)


def test_the_manifest_predicts_what_is_shown(written, source, other):
    folder = read_stimuli(written)
    seen = seen_images(folder)
    for name, encoder in ((STUDY, source.encoder), ("b/m/V1/factorized", other)):
        with torch.no_grad():
            answers = encoder(as_batch(seen)).numpy()
        np.testing.assert_allclose(folder.predictions[name], answers, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(folder.units[name], encoder.unit_indices)


def test_the_folder_is_plain(written):
    names = sorted(path.name for path in written.iterdir())
    assert names == ["README.txt", "images", "manifest.csv", "order.csv", "stimuli.json"]
    with (written / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS
    assert len(rows[0]) == len(COLUMNS) + 8
    for row in rows:
        with Image.open(written / "images" / row["image"]) as image:
            assert image.size == (int(row["width_px"]), int(row["width_px"]))
            assert image.mode == "RGB"
        assert float(row["width_deg"]) == pytest.approx(int(row["width_px"]) / 20, abs=1e-3)
    note = (written / "README.txt").read_text()
    assert note.startswith("SIMULATED")
    assert "gamma" in note
    assert json.loads((written / "stimuli.json").read_text())["simulated"] is True


@pytest.mark.parametrize(("reach", "past"), [((0.0, 41), False), ((60.0, 41), True)])
def test_the_note_says_where_a_picture_ends_within_the_field(source, reach, past):
    """It fades into the background there as everywhere, it said, where it has a straight edge."""
    x, width = reach
    row = {"kind": "mei", "x_px": x, "y_px": 0.0, "width_px": width}
    encoders = {STUDY: source.encoder}
    rig = Rig(size=100, placement="centred")
    note = _note([row, row | {"kind": "grey"}], rig, encoders, 1, 0.5, {}, ())
    assert ("Of 1 images the field reaches past the border" in " ".join(note.split())) == past
    assert max(map(len, note.splitlines())) < 101


def test_own_and_natural_image_have_equal_contrast_as_shown(written):
    folder = read_stimuli(written)
    rig = Rig(**folder.description["rig"])
    if rig.placement == "centred":
        return  # there it is held within the window, see above
    for unit in (7, 8):
        rows = [
            r for r in folder.rows if r["unit"] == unit and r["kind"] in ("mei", "natural_best")
        ]
        contrasts = [float(r["contrast_inside"]) for r in rows]
        assert max(contrasts) / min(contrasts) < 1.1


def test_a_folder_of_before_is_read(written, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(written, old)
    with (old / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if not name.endswith("_inside")]
    with (old / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    description = json.loads((old / "stimuli.json").read_text())
    description["files"]["manifest.csv"] = file_hash((old / "manifest.csv").read_bytes())
    del description["rig"]["match"]
    (old / "stimuli.json").write_text(json.dumps(description))
    assert len(read_stimuli(old).rows) == len(rows)


def test_every_block_has_every_image_once(written):
    folder = read_stimuli(written)
    with (written / "order.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for block in ("1", "2", "3"):
        shown = [row["image"] for row in rows if row["block"] == block]
        assert sorted(shown) == sorted(folder.images)
    assert len(rows) == 3 * len(folder.images)


def test_more_blocks_begin_with_the_same_ones():
    images = ["a", "b", "c", "d", "e"]
    assert block_order(images, 4, 1)[:10] == block_order(images, 2, 1)
    assert block_order(images, 2, 1) != block_order(images, 2, 2)


def test_the_same_stimuli_give_the_same_bytes(source, tmp_path):
    stimuli = choose([source], None, Choice(), "full")
    for name in ("a", "b"):
        write_stimuli(tmp_path / name, stimuli, {STUDY: source.encoder}, Rig())
    for path in (tmp_path / "a").rglob("*.*"):
        twin = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == twin.read_bytes()


@pytest.fixture
def copied(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def _some(folder):
    return sorted((folder / "images").iterdir())[2]


def test_an_edited_image_is_named(copied):
    path = _some(copied)
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    with pytest.raises(InputError, match=f"{path.name} was edited"):
        read_stimuli(copied)


def test_a_missing_image_is_named(copied):
    path = _some(copied)
    path.unlink()
    with pytest.raises(InputError, match=f"{path.name} is missing"):
        read_stimuli(copied)


def test_a_renamed_image_is_named(copied):
    path = _some(copied)
    path.rename(path.with_name("nice.png"))
    with pytest.raises(InputError, match=rf"{path.name} was renamed to images/nice\.png"):
        read_stimuli(copied)


def test_two_images_that_changed_places_are_named(copied):
    one, two = sorted((copied / "images").iterdir())[:2]
    swap = one.with_name("swap")
    one.rename(swap)
    two.rename(one)
    swap.rename(two)
    with pytest.raises(InputError, match=f"{one.name} was edited; images/{two.name} was edited"):
        read_stimuli(copied)


def test_a_strange_image_is_named(copied):
    shutil.copy(_some(copied), copied / "images" / "extra.png")
    with pytest.raises(InputError, match=r"extra\.png does not belong here"):
        read_stimuli(copied)


def test_an_edited_manifest_is_named(copied):
    with (copied / "manifest.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match=r"manifest\.csv was edited"):
        read_stimuli(copied)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "stimuli", "format": 9}'])
def test_a_damaged_description_is_named(copied, text):
    (copied / "stimuli.json").write_text(text)
    with pytest.raises(InputError, match=r"stimuli\.json"):
        read_stimuli(copied)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("encoders", [], "encoders: missing or empty"),
        ("encoders", [{}], r"encoders\[0\].name is missing"),
        ("files", ["a"], "files is no table"),
        ("rig", {"size": 10**9}, "rig.size = 1000000000"),
        ("rig", {"wide": 1}, "wide"),
        ("background", 300, "background = 300"),
    ],
)
def test_a_description_is_bounded(copied, key, value, line):
    file = copied / "stimuli.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(InputError, match=rf"stimuli\.json: .*{line}"):
        read_stimuli(copied)


@pytest.mark.parametrize("named", ["../../secret.png", "/etc/passwd", "extra.png"])
def test_a_manifest_names_images_of_its_folder_alone(copied, named):
    table = copied / "manifest.csv"
    first = json.loads((copied / "stimuli.json").read_text())["files"]
    image = next(name for name in first if name.startswith("images/")).removeprefix("images/")
    table.write_text(table.read_text().replace(image, named))
    description = json.loads((copied / "stimuli.json").read_text())
    description["files"]["manifest.csv"] = file_hash(table.read_bytes())
    (copied / "stimuli.json").write_text(json.dumps(description))
    with pytest.raises(
        InputError, match=rf"manifest\.csv: '{named}' is none of the folder's images"
    ):
        read_stimuli(copied)


def test_another_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="tuner stimuli export"):
        read_stimuli(tmp_path)


def test_stimuli_are_not_written_over_others(written, source):
    stimuli = choose([source], None, Choice(), "full")
    with pytest.raises(InputError, match="holds stimuli already"):
        write_stimuli(written, stimuli, {STUDY: source.encoder}, Rig())


def test_no_blocks_are_refused(source, tmp_path):
    with pytest.raises(InputError, match="blocks = 0"):
        write_stimuli(tmp_path / "x", [], {STUDY: source.encoder}, Rig(), blocks=0)


def test_a_folder_that_cannot_be_written(source, tmp_path):
    (tmp_path / "file").write_text("")
    stimuli = [Stimulus("grey", "", -1, "", 0, "", np.full((SIZE, SIZE, 3), 128, np.uint8), None)]
    with pytest.raises(EnvironmentFailure, match="cannot write stimuli"):
        write_stimuli(tmp_path / "file" / "x", stimuli, {STUDY: source.encoder}, Rig())


def test_photometry_of_the_source_is_what_natural_images_get(source):
    bright = Source(STUDY, source.result, source.encoder, Photometry(mean=0.6, contrast=0.05))
    stimuli = choose([bright], Pictures(), Choice(), "full")
    natural = np.stack([s.image for s in stimuli if s.kind == "natural_best"])
    means, contrasts = statistics(natural)
    np.testing.assert_allclose(means, 0.6, atol=0.004)
    np.testing.assert_allclose(contrasts, 0.05, rtol=0.05)
