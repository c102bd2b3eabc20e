"""The folder that images are written to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from matplotlib.text import Text
from PIL import Image

from tests import generators
from tests.encoders import SIZE, pictures, random_encoder
from tuner.errors import EnvironmentFailure, InputError
from tuner.figures import style
from tuner.figures.fields import draw, explained, outline
from tuner.progress import about
from tuner.synthesis import described, estimate, export
from tuner.synthesis.beside import Beside
from tuner.synthesis.estimate import announced
from tuner.synthesis.evaluate import responses
from tuner.synthesis.export import export_meis, file_name, sheet_of
from tuner.synthesis.manifest import read_manifest
from tuner.synthesis.mei import MeiResult, MeiSettings, synthesize
from tuner.synthesis.receptive_fields import Fields

QUICK = MeiSettings(steps=4, keep_every=2, chunk=2)


@pytest.fixture
def encoder():
    return random_encoder(n_units=5, layer="_blocks.0", meta={"simulated": True, "trial": 3})


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_is_written(tmp_path, encoder):
    result, _ = export_meis(tmp_path / "a", [encoder], None, QUICK, title="b/l/V1/full")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    pngs = ["0007_el-0-a.png", "0008_el-1-b.png", "0009_el-2-c.png", "0010_el-3-a.png"]
    assert names == [*pngs, "0011_el-4-b.png", "manifest.json", "meis.npz", "sheet.png"]
    with np.load(tmp_path / "a" / "meis.npz", allow_pickle=False) as arrays:
        assert arrays["images"].shape == (5, SIZE, SIZE, 3)
        assert arrays["images"].dtype == np.float32
        np.testing.assert_array_equal(arrays["activation"], result.activation[:, 0])
        assert arrays["units"].tolist() == [7, 8, 9, 10, 11]
        shown = np.stack([np.asarray(Image.open(tmp_path / "a" / name)) for name in names[:5]])
        np.testing.assert_array_equal(np.rint(arrays["images"] * 255).astype(np.uint8), shown)


def test_same_seed_same_bytes(tmp_path, encoder):
    for name in ("a", "b"):
        export_meis(tmp_path / name, [encoder], None, QUICK)
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b")


def test_the_manifest_makes_it_again(tmp_path, encoder):
    settings = MeiSettings(
        steps=4, keep_every=2, prior="pixel", transforms="none", contrast=0.2, seed=5, variants=2
    )
    export_meis(tmp_path / "a", [encoder], [9, 7], settings, extra={"study": "b/l/V1/full"})
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["study"] == "b/l/V1/full"
    assert manifest["simulated"] is True
    again = read_manifest(tmp_path / "a")
    again.check_same([encoder])
    export_meis(
        tmp_path / "b", [encoder], again.units, again.settings, extra={"study": "b/l/V1/full"}
    )
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b")


def test_the_manifest_vouches_for_every_file(tmp_path, encoder):
    export_meis(tmp_path, [encoder], None, QUICK)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for entry in manifest["units"]:
        (image,) = entry["images"]
        payload = (tmp_path / image["file"]).read_bytes()
        assert hashlib.blake2b(payload, digest_size=20).hexdigest() == image["blake2b"]
    assert manifest["settings"]["chunk"] == 2
    assert manifest["encoders"][0]["checksum"] == encoder.checksum()
    assert manifest["surroundings"]["versions"]["torch"]


def test_another_encoder_is_refused(tmp_path, encoder):
    export_meis(tmp_path, [encoder], None, QUICK)
    with pytest.raises(InputError, match="made with the encoders"):
        read_manifest(tmp_path).check_same([random_encoder(seed=1)])


def test_variants_have_files_of_their_own(tmp_path, encoder):
    settings = MeiSettings(steps=2, variants=2, chunk=2)
    export_meis(tmp_path, [encoder], [7], settings)
    assert (tmp_path / "0007_el-0-a.png").exists()
    assert (tmp_path / "0007_el-0-a_v1.png").exists()
    with np.load(tmp_path / "meis.npz") as arrays:
        assert arrays["images"].shape == (1, SIZE, SIZE, 3)
        assert arrays["variant_images"].shape == (1, 2, SIZE, SIZE, 3)


def test_a_stopped_run_goes_on(tmp_path, encoder):
    calls: list[int] = []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_meis(tmp_path / "a", [encoder], None, QUICK, progress=stop)
    assert sorted(p.name for p in (tmp_path / "a" / ".partial").glob("*.npz")) == [
        "7_0.npz",
        "8_0.npz",
    ]
    totals: list[int] = []
    export_meis(
        tmp_path / "a", [encoder], None, QUICK, progress=lambda _, total: totals.append(total)
    )
    assert set(totals) == {8}, "the first batch was made again"
    export_meis(tmp_path / "b", [encoder], None, QUICK)
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b")


def test_what_was_set_aside_under_other_settings_is_not_used(tmp_path, encoder):
    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_meis(tmp_path / "a", [encoder], None, QUICK, progress=stop)
    other = MeiSettings(steps=4, keep_every=2, chunk=2, seed=1)
    result, _ = export_meis(tmp_path / "a", [encoder], None, other)
    np.testing.assert_array_equal(result.pixels, synthesize([encoder], None, other).pixels)


def test_an_image_that_was_cut_off_is_made_again(tmp_path, encoder):
    partial = export._Partial(tmp_path / "p", "key")
    from tuner.synthesis.canvas import Job

    (tmp_path / "p" / "7_0.npz").write_bytes(b"PK\x03\x04 cut")
    assert partial.read(Job(7)) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 9, "kind": "x"}'])
def test_a_damaged_manifest_is_named(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("keys", "value", "line"),
    [
        (("settings", "steps"), 10**9, "settings.steps = 1000000000: must be a whole number"),
        (("settings", "steps"), 1e9, "settings.steps"),
        (("settings", "variants"), "2", "settings.variants"),
        (("settings", "mean"), float("nan"), "settings.mean is not finite"),
        (("settings", "steps"), 0, "steps = 0"),
        (("settings",), None, "settings is missing"),
        (("encoders",), [], "encoders: missing or empty"),
        (("encoders", 0, "meta"), None, r"encoders\[0\].meta is missing"),
        (("encoders", 0, "meta", "trial"), [1], "trial is no number"),
        (("units",), [{"unit": 1e300}], "unit = 1e"),
    ],
)
def test_a_manifest_is_bounded(tmp_path, encoder, keys, value, line):
    export_meis(tmp_path, [encoder], [7], QUICK)
    file = tmp_path / "manifest.json"
    changed = content = json.loads(file.read_text())
    for key in keys[:-1]:
        changed = changed[key]
    changed[keys[-1]] = value
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"manifest\.json: .*{line}"):
        read_manifest(tmp_path)


def test_a_manifest_too_deep_or_too_large_is_named(tmp_path, monkeypatch):
    file = tmp_path / "manifest.json"
    file.write_text("[" * 200_000)
    with pytest.raises(InputError, match=r"manifest\.json: damaged, it is nested too deeply"):
        read_manifest(file)
    monkeypatch.setattr(described, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match=r"manifest\.json: is larger than"):
        read_manifest(file)


def test_a_manifest_opens_no_file_and_runs_no_program(tmp_path):
    network = generators.script(generators.Small(), tmp_path / "mine.pt")
    options = {"path": network, "code": generators.CODE}
    settings = MeiSettings(prior="generator", prior_options=options, steps=1, chunk=1)
    encoder = random_encoder(n_units=1, layer="_blocks.0")
    export_meis(tmp_path, [encoder], None, settings)
    with pytest.raises(
        InputError, match=r"manifest\.json: made with a generator .*mine\.pt.*path=FILE"
    ):
        read_manifest(tmp_path)
    assert read_manifest(tmp_path, {"path": network}).settings == settings
    other = generators.script(generators.Small(seed=1), tmp_path / "other.pt")
    for further in ({}, {"blake2b": settings.prior_options["blake2b"]}):
        with pytest.raises(InputError, match=r"other\.pt: not the generator"):
            read_manifest(tmp_path, {"path": other, **further})
    content = json.loads((tmp_path / "manifest.json").read_text())
    for key, value, line in (
        ("bounds", "/etc/passwd", "bounds=FILE"),
        ("blake2b", None, "blake2b is missing"),
    ):
        changed = json.loads(json.dumps(content))
        changed["settings"]["prior_options"][key] = value
        (tmp_path / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=rf"manifest\.json: .*{line}"):
            read_manifest(tmp_path, {"path": network})


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_manifest(tmp_path / "nowhere" / "manifest.json")


def test_a_folder_that_cannot_be_written_is_the_environments_fault(tmp_path, encoder):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailure, match="cannot write images"):
        export_meis(tmp_path / "file" / "below", [encoder], [7], QUICK)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("V1-03", "0003_V1-03.png"),
        ("a/b c", "0003_a-b-c.png"),
        ("../..", "0003_unit.png"),
        ("é", "0003_é.png"),
        ("x" * 300, f"0003_{'x' * 80}.png"),
    ],
)
def test_names_are_safe(name, expected):
    assert file_name(3, name) == expected


def test_variants_stand_side_by_side_with_their_distances(tmp_path):
    encoder = random_encoder(n_units=3)
    settings = MeiSettings(steps=2, keep_every=1, chunk=4, variants=3)
    result, _ = export_meis(tmp_path, [encoder], None, settings)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    flat = result.pixels.reshape(3, 3, -1).astype(float)
    for unit in range(3):
        expected = 1 - np.corrcoef(flat[unit])
        np.testing.assert_allclose(manifest["units"][unit]["distances"], expected, atol=1e-4)
        assert expected[0, 1] > 0.01
    with np.load(tmp_path / "meis.npz") as arrays:
        assert arrays["variant_distances"].shape == (3, 3, 3)


class Pictures:
    """Natural images, as a recording has them."""

    def __init__(self, pixels):
        self.pixels = pixels
        self.names = [f"photo {k}" for k in range(len(pixels))]

    def __len__(self):
        return len(self.pixels)

    def read(self, indices):
        return self.pixels[indices]


@pytest.mark.parametrize("match", ["image", "field"])
def test_images_stand_beside_the_best_natural_one_and_noise(tmp_path, encoder, monkeypatch, match):
    heads = []
    monkeypatch.setattr(style, "head", lambda figure, title, sub, *rest: heads.append(sub) or 0.1)
    settings = MeiSettings(steps=1, keep_every=1, chunk=2, match=match)
    natural = Pictures(pictures(12))
    result, held = export_meis(tmp_path, [encoder], [9, 7], settings, natural=natural)
    assert held.natural.shape == held.noise.shape == (2, SIZE, SIZE, 3)
    shown = np.concatenate([held.natural, held.noise])
    (answers,) = responses([encoder], shown)
    own = [2, 0]  # columns of units 9 and 7
    np.testing.assert_array_equal(answers[[0, 1], own], held.natural_activation)
    np.testing.assert_array_equal(answers[[2, 3], own], held.noise_activation)
    if match == "image":  # nothing better is among them, at the images' own mean and contrast
        (every,) = responses([encoder], settings.photometry.match(natural.pixels))
        np.testing.assert_allclose(every[:, own].max(0), held.natural_activation)
        assert held.names == [natural.names[k] for k in every[:, own].argmax(0)]
    better = int((result.activation[:, 0] > held.natural_activation).sum())
    assert f"{better} of 2 images are predicted to do better than the best of 12" in heads[0]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [e["natural"]["image"] for e in manifest["units"]] == held.names
    with np.load(tmp_path / "meis.npz") as arrays:
        np.testing.assert_array_equal(arrays["natural_activation"], held.natural_activation)


@pytest.mark.parametrize("grey", [True, False])
def test_colours_of_a_recording_without_any_are_called_guesses(
    tmp_path, encoder, monkeypatch, grey
):
    heads = []
    monkeypatch.setattr(style, "head", lambda figure, title, sub, *rest: heads.append(sub) or 0.1)
    shown = pictures(4)
    natural = Pictures(np.repeat(shown[..., :1], 3, axis=-1) if grey else shown)
    for colour in (0.15, 0.0):
        settings = MeiSettings(steps=2, keep_every=1, prior_options={"colour": colour})
        export_meis(tmp_path / f"{colour}", [encoder], [9], settings, natural=natural)
    said = ["the training images are grey, colours here are guesses" in sub for sub in heads]
    assert said == [grey, False]


def test_how_long_images_take_is_said_beforehand(encoder):
    said = announced([encoder], 5, MeiSettings(steps=3, chunk=2, variants=2))
    assert said.startswith("10 images in 5 batches of 2, 3 steps: ")


def test_looking_and_judging_are_in_the_time_that_is_said(encoder, monkeypatch):
    monkeypatch.setattr(estimate, "_step", lambda ensemble, chunk: 1.0)
    monkeypatch.setattr(
        estimate, "_look", lambda encoders, images, photometry: float(len(encoders))
    )
    natural, settings = Pictures(pictures(12)), MeiSettings(steps=3, chunk=2, variants=2)
    looking = 12 + 5 * 25
    said = announced([encoder], 5, settings, natural=natural)
    assert said.endswith(f"3 steps: {about(15 + looking)}")
    judging = (12 + 3 * 10) * 2 + 5 * 25 * 2
    said = announced([encoder], 5, settings, natural=natural, judges=[encoder, encoder])
    assert said.endswith(f"3 steps, judged by 2 encoders: {about(15 + looking + judging)}")
    assert about(15 + looking) != about(15 + looking + judging)


def test_looking_at_natural_images_is_timed(encoder):
    assert estimate._look([encoder], Pictures(pictures(12)), MeiSettings().photometry) > 0


@pytest.mark.parametrize(
    ("ellipse", "drawn"),
    [
        ([31.5, 31.5, 5.0, 3.0, 30.0], "line"),
        ([31.5, 31.5, 60.0, 50.0, 0.0], "frame"),  # all of the picture lies inside
        (
            [21.0, 21.0, 27.0, 27.0, 0.0],
            "frame",
        ),  # nearly all: an arc in the other corner would be left
        ([31.5, 31.5, 60.0, 10.0, 0.0], "line"),
        ([60.0, 40.0, 30.0, 1.0, 90.0], "line"),  # turned the other way it would not be
        ([70.0, 31.5, 30.0, 1.0, 90.0], "none"),
        ([31.5, np.nan, 5.0, 3.0, 0.0], "none"),
    ],
)
def test_a_field_is_drawn_so_that_no_arc_looks_like_another(ellipse, drawn):
    assert outline(np.array(ellipse), 64) == drawn


def test_of_fields_only_what_is_drawn_is_explained():
    inside, whole, cut = (
        [32.0, 32.0, 4.0, 3.0, 0.0],
        [32.0, 32.0, 60.0, 50.0, 0.0],
        [2.0, 9, 6, 5, 0],
    )
    ellipses = [np.array(one, float) for one in (inside, whole, cut)]
    (plain,) = explained(ellipses[:1], 64)
    assert plain == "ellipse: where the unit reads (2 sd)"
    assert explained(ellipses[1:2], 64) == [
        "frame: the unit reads all of the image, or most of it (2 sd)"
    ]
    assert explained(ellipses[2:], 64) == [
        f"{plain}, cross: its middle, where the line leaves the image"
    ]
    figure = Figure()
    for ellipse, middle in zip(ellipses, (False, False, True), strict=True):
        axes = figure.add_subplot()
        draw(axes, ellipse, 64)
        assert any(line.get_marker() == "+" for line in axes.lines) == middle
        assert {type(patch) for patch in axes.patches} == {
            Rectangle if ellipse is ellipses[1] else Ellipse
        }


def test_a_sheet_of_many_images_a_unit_cuts_no_number_and_says_whose_field_is_not_seen():
    pixels = np.zeros((2, 2, SIZE, SIZE, 3), np.uint8)
    activation = np.array([[0.3241, 12.345], [1.5, 0.686]])
    steps = np.ones((2, 2), np.int64)
    result = MeiResult(np.array([9, 7]), ["a", "b"], pixels, activation, steps, 1, ())
    still = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    held = Beside(still, np.array([13.0, 1.0]), ["x", "y"], still, np.zeros(2), 3, 3)
    middle, spread = np.array([SIZE / 2, np.nan]), np.array([3.0, np.nan])
    fields = Fields(middle, middle, spread, spread, np.zeros(2), np.ones(2), SIZE)
    figure = sheet_of(result, MeiSettings(variants=2), fields, held, "study", False)
    written = [text.get_text() for text in figure.findobj(Text)]
    assert {"0.3, less", "12.3, less", "1.5", "0.7, less", "13.0"} <= set(written)
    said = " ".join(written)
    assert "numbers: predicted responses in the recording's units" in said
    arguments = (result, MeiSettings(variants=2), fields, held, "study", False, "", None)
    known = sheet_of(*arguments, "spikes per 100 ms")
    said = " ".join(" ".join(text.get_text() for text in known.findobj(Text)).split())
    assert "predicted responses in spikes per 100 ms;" in said
    assert "no line in 1 of 2 units: no field is known" in said
