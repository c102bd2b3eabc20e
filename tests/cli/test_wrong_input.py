"""Wrong recordings, images, layers and weights, met through the command line as a user meets them.

Each ends with exit code 2 and one line that names what is at fault. Wrong config files are in
``tests/studies/test_experiment.py``, one of each family here too.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

N_TRAIN, N_TEST, N_REPEATS, N_UNITS, SIZE = 60, 10, 3, 4, 32

CONFIG = """
[data]
image_size = 32
{data}
[[backbone]]
name = "{name}"
layers = {layers}
weights = "{weights}"
[training]
steps = 10
report_every = 5
folds = 1
device = "cpu"
{training}
[search]
{search}
"""


def write_config(folder: Path, **changes: str) -> None:
    filled = {"data": "", "training": "", "search": "", "name": "efficientnet_lite0"}
    filled |= {"layers": '["_blocks.0"]', "weights": "random"} | changes
    (folder / "tuner.toml").write_text(CONFIG.format(**filled))


def write_recording(path: Path) -> None:
    """A small recording that is right."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["train/images"] = rng.integers(0, 256, (N_TRAIN, SIZE, SIZE, 3), dtype=np.uint8)
        file["train/responses"] = rng.normal(size=(N_TRAIN, N_UNITS))
        file["train/groups"] = np.arange(N_TRAIN) // 2
        file["test/images"] = rng.integers(0, 256, (N_TEST, SIZE, SIZE, 3), dtype=np.uint8)
        file["test/responses"] = rng.normal(size=(N_REPEATS, N_TEST, N_UNITS))
        file["units/area"] = np.array(["V1", "V1", "IT", "IT"], dtype=object)
        file["units/reliability"] = np.array([0.9, 0.2, 0.5, 0.4])


def replace(file: h5py.File, name: str, values: object) -> None:
    """Put something else in a dataset's place."""
    if name in file:
        del file[name]
    file[name] = values


def by_paths(file: h5py.File, folder: Path, names: list[str]) -> None:
    """Name image files in the training images' place."""
    del file["train/images"]
    file["train/image_paths"] = np.array(names, dtype=object)


def write_images(
    folder: Path, count: int = N_TRAIN, size: tuple[int, int] = (SIZE, SIZE)
) -> list[str]:
    rng = np.random.default_rng(1)
    (folder / "images").mkdir(exist_ok=True)
    names = [f"{index:03}.png" for index in range(count)]
    for name in names:
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
    return names


def edit(name: str, change: Callable[[np.ndarray], object]) -> Callable[[h5py.File, Path], None]:
    """Change the values of a dataset."""
    return lambda file, folder: replace(file, name, change(file[name][()]))


def remove(name: str) -> Callable[[h5py.File, Path], None]:
    """Remove a dataset or a group."""

    def change(file: h5py.File, folder: Path) -> None:
        del file[name]

    return change


def with_value(index: object, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[index] = value
        return values

    return change


def damaged_image(file: h5py.File, folder: Path) -> None:
    names = write_images(folder)
    (folder / "images" / names[7]).write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    by_paths(file, folder, names)


def missing_images(file: h5py.File, folder: Path) -> None:
    by_paths(file, folder, [*write_images(folder)[:-2], "lost.png", "gone.png"])


def outside_image(file: h5py.File, folder: Path) -> None:
    by_paths(file, folder, ["../secret.png", *write_images(folder)[1:]])


def linked_image(file: h5py.File, folder: Path) -> None:
    names = write_images(folder)
    (folder / "images" / names[3]).rename(folder / "elsewhere.png")
    (folder / "images" / names[3]).symlink_to(folder / "elsewhere.png")
    by_paths(file, folder, names)


def oblong_images(file: h5py.File, folder: Path) -> None:
    by_paths(file, folder, write_images(folder, size=(SIZE, 2 * SIZE)))


def no_images_folder(file: h5py.File, folder: Path) -> None:
    by_paths(file, folder, [f"{index}.png" for index in range(N_TRAIN)])


RECORDINGS = {
    # what is done to the recording, what the line names
    "no training responses": (remove("train/responses"), ["recording.h5", "train/responses"]),
    "no training images": (remove("train/images"), ["train/images", "train/image_paths"]),
    "no areas": (remove("units/area"), ["units/area"]),
    "no test responses": (remove("test/responses"), ["test/responses"]),
    "no test images": (remove("test/images"), ["test/images"]),
    "images and paths": (
        lambda file, folder: file.create_dataset("train/image_paths", data=["a"] * N_TRAIN),
        ["both", "train/image_paths"],
    ),
    "real images": (edit("train/images", lambda x: x / 255), ["train/images", "uint8"]),
    "channels first": (
        edit("train/images", lambda x: x.transpose(0, 3, 1, 2)),
        ["train/images", "(n_images, height, width, 3)"],
    ),
    "four channels": (
        edit("train/images", lambda x: np.concatenate([x, x[..., :1]], axis=3)),
        ["train/images", "(n_images, height, width, 3)"],
    ),
    "flat images": (edit("train/images", lambda x: x.reshape(N_TRAIN, -1)), ["train/images"]),
    "fewer images than rows": (edit("train/images", lambda x: x[:-1]), ["59", "60"]),
    "responses transposed": (edit("train/responses", lambda x: x.T), ["recording.h5", "60", "4"]),
    "responses of three axes": (edit("train/responses", lambda x: x[None]), ["2 axes"]),
    "responses of text": (
        edit("train/responses", lambda x: np.full(x.shape, b"x")),
        ["train/responses", "numbers"],
    ),
    "complex responses": (edit("train/responses", lambda x: x + 1j), ["train/responses"]),
    "no responses": (edit("train/responses", lambda x: x[:, :0]), ["at least one"]),
    "infinite response": (
        edit("train/responses", with_value((3, 2), np.inf)),
        ["infinite", "unit 2"],
    ),
    "infinite test response": (
        edit("test/responses", with_value((0, 3, 1), -np.inf)),
        ["infinite", "unit 1"],
    ),
    "response beyond float32": (
        edit("train/responses", with_value((3, 2), 1e39)),
        ["train/responses", "3.4e38"],
    ),
    "unit without responses": (
        edit("train/responses", with_value((slice(None), 3), np.nan)),
        ["unit 3", "no training response"],
    ),
    "unit with few responses": (
        edit("train/responses", with_value((slice(10, None), 3), np.nan)),
        ["unit 3", "fewer than"],
    ),
    "NaN everywhere": (edit("train/responses", lambda x: x * np.nan), ["unit 0", "3 more"]),
    "constant unit": (
        edit("train/responses", with_value((slice(None), 1), 7.0)),
        ["unit 1", "alike"],
    ),
    "test responses of two axes": (
        edit("test/responses", lambda x: x[0]),
        ["test/responses", "3 axes"],
    ),
    "test responses of other units": (
        edit("test/responses", lambda x: x[:, :, :-1]),
        ["3 units", "4"],
    ),
    "test responses of other images": (edit("test/responses", lambda x: x[:, :-1]), ["10", "9"]),
    "areas of other units": (edit("units/area", lambda x: x[:-1]), ["units/area", "4 units"]),
    "a unit without area": (
        edit("units/area", lambda x: np.array(["V1", "", "IT", "IT"], dtype=object)),
        ["unit 1", "units/area"],
    ),
    "areas that are not UTF-8": (
        edit("units/area", lambda x: np.array([b"V1", b"\xff", b"IT", b"IT"])),
        ["units/area", "UTF-8"],
    ),
    "column of two axes": (
        edit("units/reliability", lambda x: x[:, None]),
        ["units/reliability", "one value per unit"],
    ),
    "groups of other images": (edit("train/groups", lambda x: x[:-1]), ["group", "60"]),
    "training images, none of them": (
        lambda file, folder: replace(file, "train/images", np.zeros((0, 32, 32, 3), np.uint8)),
        ["train/images", "at least one"],
    ),
    "groups with gaps": (
        edit("train/groups", lambda x: with_value(4, np.nan)(x.astype(float))),
        ["train/groups", "missing"],
    ),
    "one group": (edit("train/groups", lambda x: x * 0), ["recording.h5", "at least 2"]),
    "a dataset that is a group": (
        lambda file, folder: (
            remove("train/responses")(file, folder),
            file.create_group("train/responses"),
        ),
        ["train/responses", "group"],
    ),
    "missing image files": (missing_images, ["2 of 60", "lost.png", "data.images"]),
    "no images folder": (no_images_folder, ["images", "no such folder", "data.images"]),
    "image outside the folder": (outside_image, ["../secret.png", "leaves"]),
    "image behind a link": (linked_image, ["003.png", "link"]),
}


@pytest.mark.parametrize(
    ("damage", "mentions"), [pytest.param(*case, id=name) for name, case in RECORDINGS.items()]
)
def test_a_wrong_recording(run, folder, damage, mentions):
    write_config(folder)
    write_recording(folder / "recording.h5")
    with h5py.File(folder / "recording.h5", "r+") as file:
        damage(file, folder)
    run("study", "create", "--quiet").check_one_line_error(2, *mentions)


@pytest.mark.parametrize(
    ("damage", "mentions"),
    [
        (damaged_image, ["007.png", "not a readable image"]),
        (oblong_images, ["recording.h5: 000.png", "64 x 32", 'data.fit to "crop" or "pad"']),
    ],
)
@pytest.mark.parametrize("looked_at", [True, False])
def test_images_that_are_wrong_inside_are_found_when_studies_are_made(
    run, folder, damage, mentions, looked_at
):
    # Looking for equal images decodes all of them; headers are read all the same.
    unread = 'duplicates = "ignore"\ntest_duplicates = "allow"'
    write_config(folder, data="" if looked_at else unread)
    write_recording(folder / "recording.h5")
    with h5py.File(folder / "recording.h5", "r+") as file:
        damage(file, folder)
    run("study", "create", "--quiet").check_one_line_error(2, *mentions)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "mentions"),
    [
        pytest.param(Path.unlink, ["recording.h5: no such file"], id="missing"),
        pytest.param(folder_instead, ["recording.h5: is not a file"], id="folder"),
        pytest.param(cut_short, ["recording.h5", "cannot be read"], id="cut short"),
        pytest.param(lambda p: p.write_bytes(b""), ["recording.h5"], id="empty"),
        pytest.param(lambda p: p.write_text("a,b\n1,2\n"), ["recording.h5"], id="text"),
        pytest.param(
            lambda p: p.write_bytes(b"MATLAB 5.0 MAT-file" + b" " * 200), ["-v7.3"], id="old MATLAB"
        ),
    ],
)
def test_a_file_that_is_no_recording(run, folder, damage, mentions):
    write_config(folder)
    write_recording(folder / "recording.h5")
    damage(folder / "recording.h5")
    run("study", "create", "--quiet").check_one_line_error(2, *mentions)


@pytest.mark.parametrize(
    ("changes", "mentions"),
    [
        ({"data": 'region = "array"'}, ["unknown unit column 'array'", "area", "reliability"]),
        ({"data": "min_reliability = 0.95"}, ["0.95", "the best has 0.9", "data.min_reliability"]),
        ({"data": "validation_fraction = 0.001"}, ["validation", "fewer than 5"]),
        (
            {"data": "validation_fraction = 0.9"},
            ["fewer than 20", "lower data.validation_fraction"],
        ),
        ({"data": 'format = "hdf6"'}, ["data.format", "did you mean hdf5?"]),
        ({"training": 'loss = "poisson"'}, ["negative response", "poisson"]),
        ({"training": "report_evry = 2"}, ["training.report_evry", "did you mean report_every?"]),
        ({"search": "[search.space.fulll]"}, ["search.space.fulll", "full, factorized"]),
        ({"name": "vgg99"}, ["tuner.toml: backbone vgg99: unknown backbone 'vgg99'", "vgg19"]),
        ({"name": "vit_b_16", "layers": '"all"'}, ["vit_b_16", "tokens", "convolutional"]),
        (
            {"layers": '["_blocks.99"]'},
            ["tuner.toml: backbone", "unknown layer '_blocks.99'", "_blocks.15"],
        ),
        ({"layers": '["_blocks.0", "_blocks.0"]'}, ["layers[1]", "listed twice"]),
        ({"layers": '["_fc"]'}, ["_fc"]),
        ({"layers": "[]"}, ["backbone[0].layers"]),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_wrong_config_for_a_recording_that_is_right(run, folder, changes, mentions):
    write_config(folder, **changes)
    write_recording(folder / "recording.h5")
    run("study", "create", "--quiet").check_one_line_error(2, *mentions)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def save_state(path: Path, change: Callable[[dict], object]) -> None:
    import torch

    from tuner.backbones import load_backbone

    state = load_backbone("efficientnet_lite0", "random").module.state_dict()
    torch.save(change(dict(state)), path)


def one_entry_less(state: dict) -> dict:
    return dict(list(state.items())[1:])


def one_entry_reshaped(state: dict) -> dict:
    name = next(iter(state))
    return state | {name: state[name][:, :1]}


def one_entry_not_finite(state: dict) -> dict:
    name = next(iter(state))
    return state | {name: state[name] * float("nan")}


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        pytest.param(lambda path: None, ["w.pth", "does not exist"], id="missing"),
        pytest.param(Path.mkdir, ["w.pth", "folder"], id="folder"),
        pytest.param(lambda path: path.write_bytes(b"x" * 100), ["w.pth"], id="rubbish"),
        pytest.param(lambda path: path.write_bytes(b""), ["w.pth"], id="empty"),
        pytest.param(
            lambda path: path.write_bytes(pickle.dumps(Bomb(path.parent / "exploded"))),
            ["w.pth"],
            id="code",
        ),
        pytest.param(lambda path: save_state(path, lambda s: [1, 2]), ["w.pth"], id="list"),
        pytest.param(lambda path: save_state(path, lambda s: {}), ["w.pth"], id="no entries"),
        pytest.param(
            lambda path: save_state(path, one_entry_less), ["w.pth", "missing"], id="entry missing"
        ),
        pytest.param(
            lambda path: save_state(path, one_entry_reshaped), ["w.pth", "shape"], id="other shape"
        ),
        pytest.param(
            lambda path: save_state(path, one_entry_not_finite),
            ["w.pth", "not finite"],
            id="not finite",
        ),
    ],
)
def test_a_wrong_weights_file(run, folder, make, mentions):
    write_config(folder, weights="w.pth")
    write_recording(folder / "recording.h5")
    make(folder / "w.pth")
    run("study", "create", "--quiet").check_one_line_error(2, *mentions)
    assert not (folder / "exploded").exists()


def test_weights_of_another_network(run, folder):
    import torch

    from tuner.backbones import load_backbone

    write_config(folder, weights="w.pth")
    write_recording(folder / "recording.h5")
    torch.save(load_backbone("squeezenet1_1", "random").module.state_dict(), folder / "w.pth")
    run("study", "create", "--quiet").check_one_line_error(2, "w.pth", "efficientnet_lite0")


def test_weights_of_a_file_without_their_input_range(run, folder):
    import torch

    from tuner.backbones import load_backbone

    write_config(folder, weights="w.pth")
    write_recording(folder / "recording.h5")
    state = load_backbone("efficientnet_lite0").module.state_dict()
    torch.save(state, folder / "w.pth")
    run("study", "create", "--quiet").check_one_line_error(
        2, "efficientnet_lite0", "need mean and std", "[0.485, 0.456, 0.406]"
    )


def test_weights_that_are_not_on_this_machine(run, folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder / "nothing"))
    write_config(folder, name="vgg11", layers='["features.0"]', weights="imagenet")
    write_recording(folder / "recording.h5")
    run("study", "create", "--quiet").check_one_line_error(2, "vgg11", "nothing")


def test_searching_what_was_not_created(run, folder):
    write_config(folder)
    write_recording(folder / "recording.h5")
    run("optimize", "--n-trials", 1).check_one_line_error(2, "tuner study create")


def test_the_recording_that_all_this_damages_is_right(run, folder):
    write_config(folder)
    write_recording(folder / "recording.h5")
    ended = run("study", "create")
    assert ended.code == 0, ended.err
    listed = run("study", "list", "--format", "json").json
    assert {study["region"] for study in listed} == {"V1", "IT"}
