"""Encoders: what they compute, and that what is loaded is what was saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import tuner
from tests.encoders import SIZE, backbone, pictures, random_encoder
from tuner.backbones import load_backbone
from tuner.encoder import Encoder, as_batch, load_encoder, save_encoder
from tuner.encoder.files import DESCRIPTION, TENSORS
from tuner.errors import InputError

READOUTS = ("full", "factorized")


@pytest.fixture
def images() -> torch.Tensor:
    return as_batch(pictures(3, seed=5))


@pytest.mark.parametrize("readout", READOUTS)
def test_mse_answers_in_the_recordings_own_units(readout, images):
    encoder = random_encoder(readout)
    y = encoder.readout.predict(encoder.readout_parameters, encoder.features(images))
    expected = encoder.response_mean + encoder.response_scale * y
    torch.testing.assert_close(encoder(images), expected)
    assert encoder(images).shape == (3, 5)


def test_poisson_answers_are_never_negative_and_scaled(images):
    encoder = random_encoder(loss="poisson")
    y = encoder.drive(images)
    expected = encoder.response_scale * torch.where(y > 0, y + 1, y.exp())
    torch.testing.assert_close(encoder(images), expected)
    assert (encoder(images) >= 0).all()


@pytest.mark.parametrize("readout", READOUTS)
def test_some_units_are_the_same_numbers_as_among_all(readout, images):
    encoder = random_encoder(readout)
    assert torch.equal(encoder.predict_units(images, [3, 1]), encoder(images)[:, [3, 1]])


@pytest.mark.parametrize("readout", READOUTS)
def test_own_drive_is_the_diagonal(readout, images):
    encoder = random_encoder(readout)
    own = encoder.own_drive(images, [4, 0, 2])
    expected = encoder.drive(images, [4, 0, 2]).diagonal()
    torch.testing.assert_close(own, expected)


def test_gradients_reach_the_image(images):
    images.requires_grad_(True)
    random_encoder()(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_stays_in_evaluation_mode():
    encoder = random_encoder()
    encoder.train()
    assert not encoder.training
    assert not any(module.training for module in encoder.backbone.module.modules())


def test_rows_that_do_not_match_are_named():
    with pytest.raises(InputError, match="unit column 'name' has 2 rows"):
        random_encoder(units={"name": np.array(["a", "b"])})


def test_an_unknown_loss_is_answered_with_the_known():
    with pytest.raises(InputError, match="mse, poisson"):
        random_encoder(loss="l1")


def test_images_of_another_size_are_refused():
    with pytest.raises(InputError, match="3, 32, 32"):
        random_encoder()(torch.zeros(1, 3, 16, 16))


def test_checksum_sees_every_part():
    one = random_encoder()
    assert one.checksum() == random_encoder().checksum()
    others = [
        random_encoder(seed=1),
        random_encoder("factorized"),
        random_encoder(layer="_blocks.0"),
        random_encoder(loss="poisson"),
    ]
    assert len({one.checksum(), *(other.checksum() for other in others)}) == 5


# on disk


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_encoder(tmp_path / "encoder", random_encoder(), check_images=pictures(4, seed=2))


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("with_backbone", [False, True])
@pytest.mark.parametrize("loss", ["mse", "poisson"])
def test_round_trip(tmp_path, readout, with_backbone, loss, images):
    encoder = random_encoder(readout, loss=loss, meta={"simulated": True, "study": "a/b/c/d"})
    folder = save_encoder(tmp_path, encoder, check_images=pictures(4), with_backbone=with_backbone)
    for path in (folder, folder / TENSORS, folder / DESCRIPTION, str(folder)):
        loaded = tuner.load_encoder(path)
        assert torch.equal(loaded(images), encoder(images))
    assert loaded.checksum() == encoder.checksum()
    assert loaded.meta == encoder.meta
    assert loaded.simulated
    assert loaded.unit_names() == encoder.unit_names()
    np.testing.assert_array_equal(loaded.unit_indices, encoder.unit_indices)
    np.testing.assert_array_equal(loaded.units["reliability"], encoder.units["reliability"])
    assert not list(folder.glob(".*")), "temporary files are left"


def test_missing_values_of_a_unit_column_come_back(tmp_path):
    columns = {"reliability": np.array([0.5, np.nan, 0.1, 0.2, 0.3]), "array": np.arange(5)}
    folder = save_encoder(tmp_path, random_encoder(units=columns), check_images=pictures(1))
    json.loads((folder / DESCRIPTION).read_text(), parse_constant=pytest.fail)
    loaded = load_encoder(folder)
    np.testing.assert_array_equal(loaded.units["reliability"], columns["reliability"])
    assert loaded.units["array"].dtype == np.int64


def test_a_given_backbone_is_used(saved, images):
    loaded = load_encoder(saved, backbone=backbone())
    assert loaded.backbone is backbone()
    assert torch.equal(loaded(images), random_encoder()(images))


def test_an_embedded_backbone_is_cut_off(tmp_path):
    encoder = random_encoder(layer="_blocks.0")
    folder = save_encoder(tmp_path, encoder, check_images=pictures(1), with_backbone=True)
    names = [n for n in load_file(folder / TENSORS) if n.startswith("backbone.")]
    assert any(n.startswith("backbone._blocks.0.") for n in names)
    assert not any(n.startswith("backbone._blocks.1.") for n in names)


def test_another_backbone_is_refused(saved):
    with pytest.raises(InputError, match="fitted on backbone efficientnet_lite0"):
        load_encoder(saved, backbone=load_backbone("efficientnet_lite0", "random", seed=3))


def test_other_weights_are_refused(saved):
    with pytest.raises(InputError, match="give its weights"):
        load_encoder(saved, weights="random")


def test_nothing_else_is_opened(tmp_path):
    path = tmp_path / "encoder.pt"
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"encoder\.pt: not an encoder.*nothing is unpickled"):
        load_encoder(path)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.safetensors", "nowhere.json"])
def test_a_missing_encoder_is_named(tmp_path, name):
    with pytest.raises(InputError, match=name):
        load_encoder(tmp_path / name)


@pytest.mark.parametrize("name", [TENSORS, DESCRIPTION])
def test_a_missing_half_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(InputError, match=f"{name}: missing"):
        load_encoder(saved)


@pytest.mark.parametrize("where", [0, 100, -1])
def test_a_damaged_byte_is_noticed(saved, where):
    payload = bytearray((saved / TENSORS).read_bytes())
    payload[where] ^= 0xFF
    (saved / TENSORS).write_bytes(bytes(payload))
    with pytest.raises(InputError, match=TENSORS):
        load_encoder(saved)


def test_a_file_that_was_cut_short_is_noticed(saved):
    payload = (saved / TENSORS).read_bytes()
    (saved / TENSORS).write_bytes(payload[: len(payload) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_encoder(saved)


def test_a_pickle_under_the_right_name_is_refused(saved):
    torch.save({"a": torch.zeros(1)}, saved / TENSORS)
    with pytest.raises(InputError, match=TENSORS):
        load_encoder(saved)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "\x00", pytest.param("[" * 200_000, id="deep")]
)
def test_a_damaged_description_is_named(saved, text):
    (saved / DESCRIPTION).write_text(text)
    with pytest.raises(InputError, match=DESCRIPTION):
        load_encoder(saved)


def _edit(folder: Path, **changes: object) -> None:
    path = folder / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"readout": "gaussian"}, "unknown readout 'gaussian'"),
        ({"layer": "_blocks.99"}, "unknown layer '_blocks.99'"),
        ({"units": None}, "damaged or incomplete"),
        ({"unit_indices": [1]}, "unit_indices has 1 rows"),
        ({"image_size": "big"}, "damaged or incomplete"),
    ],
)
def test_an_edited_description_is_refused(saved, changes, message):
    _edit(saved, **changes)
    with pytest.raises(InputError, match=message):
        load_encoder(saved)


def test_other_answers_are_refused(saved):
    import hashlib

    tensors = load_file(saved / TENSORS)
    tensors["readout.weight"] = tensors["readout.weight"] * 1.05
    save_file(tensors, saved / TENSORS)
    _edit(saved, file_blake2b=hashlib.blake2b((saved / TENSORS).read_bytes()).hexdigest())
    with pytest.raises(InputError, match="answered differently"):
        load_encoder(saved)


def test_rounding_within_a_thousandth_is_let_pass(saved):
    import hashlib

    tensors = load_file(saved / TENSORS)
    tensors["check.outputs"] = tensors["check.outputs"] * (1 + 2e-4)
    save_file(tensors, saved / TENSORS)
    _edit(saved, file_blake2b=hashlib.blake2b((saved / TENSORS).read_bytes()).hexdigest())
    assert isinstance(load_encoder(saved), Encoder)


@pytest.mark.parametrize(
    "check",
    [
        np.zeros((0, SIZE, SIZE, 3), np.uint8),
        np.zeros((1, SIZE, SIZE, 3), np.float32),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((1, 16, 16, 3), np.uint8),
    ],
)
def test_unusable_check_images_are_refused(tmp_path, check):
    with pytest.raises(InputError):
        save_encoder(tmp_path, random_encoder(), check_images=check)


def test_an_encoder_that_answers_nan_is_not_saved(tmp_path):
    encoder = random_encoder()
    encoder.response_mean[2] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        save_encoder(tmp_path, encoder, check_images=pictures(1))
    assert not (tmp_path / TENSORS).exists()


def test_it_is_found_again_after_moving(saved, tmp_path, images):
    moved = shutil.move(saved, tmp_path / "elsewhere")
    assert torch.equal(load_encoder(moved)(images), random_encoder()(images))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.full((1, 3, 32, 32), 255.0), "lie between 255 and 255"),
        (torch.full((1, 3, 32, 32), -2.1), "do not normalise"),
        (torch.zeros((1, 3, 32, 32), dtype=torch.uint8), "are uint8, and must be floats"),
        (torch.full((1, 3, 32, 32), torch.nan), "lie between nan and nan"),
        (np.zeros((1, 3, 32, 32)), "are ndarray, and must be a tensor"),
    ],
)
def test_images_that_are_not_in_0_to_1_are_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        random_encoder()(wrong)


def test_images_of_double_precision_are_read(images):
    encoder = random_encoder()
    assert torch.equal(encoder(images.double()), encoder(images))


def test_images_of_any_size_are_prepared_as_the_search_does(tmp_path):
    encoder, large = random_encoder(), pictures(3, size=50)
    made = encoder.prepare(large)
    bicubic = [Image.fromarray(one).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for one in large]
    assert torch.equal(made, as_batch(np.stack([np.asarray(one) for one in bicubic])))
    assert encoder(made).shape == (3, encoder.n_units)
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, one in zip(files, large, strict=True):
        Image.fromarray(one).save(file)
    assert torch.equal(encoder.prepare(files), made)
    assert torch.equal(encoder.prepare(str(files[1])), made[1:2])
    assert torch.equal(encoder.prepare([large[0], files[1]]), made[:2])
    as_read = pictures(2)
    assert torch.equal(encoder.prepare(as_read), as_batch(as_read))


def test_images_that_are_not_square_are_prepared_as_the_search_does():
    encoder, wide = random_encoder(), pictures(2, size=40)[:, :30]
    with pytest.raises(
        InputError, match=r'images\[0\] is 40 x 30 pixels, not square; pass fit="crop"'
    ):
        encoder.prepare(wide)
    cropped = encoder.prepare(wide, fit="crop")
    assert torch.equal(cropped, encoder.prepare(wide[:, :, 5:35]))
    encoder.meta["fit"] = "crop"
    assert torch.equal(encoder.prepare(wide), cropped)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((2, 40, 40, 3)), "images must be .* uint8, not .* float64"),
        (["none.png"], "none.png: no such image file"),
        ([np.zeros((40, 40), np.uint8)], r"images\[0\] must be .* not \(40, 40\) uint8"),
        ([3.0], r"images\[0\] must be .* not float"),
    ],
)
def test_what_cannot_be_prepared_is_named(wrong, said):
    with pytest.raises(InputError, match=said):
        random_encoder().prepare(wrong)
