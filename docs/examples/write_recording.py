"""Write a recording in the generic HDF5 format; replace what is marked CHANGE by your own data.

As it stands, the responses are computed from photographs that come with scikit-image, so that the
file can be tried at once. They are simulated, and the file says so.
"""

import h5py
import numpy as np
from skimage import data
from skimage.color import rgb2gray

# CHANGE: images, (n, height, width, 3) uint8, all of one size
SIDE = 48
photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
tiles = [
    photograph[top : top + SIDE, left : left + SIDE]
    for photograph in photographs
    for top in range(0, photograph.shape[0] - SIDE + 1, SIDE)
    for left in range(0, photograph.shape[1] - SIDE + 1, SIDE)
]
rng = np.random.default_rng(0)
images = np.stack(tiles)[rng.permutation(len(tiles))]
train_images, test_images = images[30:], images[:30]


# CHANGE: responses, (n, n_units), NaN where one is missing
def responses(images):
    grey = rgb2gray(images)
    dy, dx = np.gradient(grey, axis=(1, 2))
    half = SIDE // 2
    corners = [np.s_[:, :half, :half], np.s_[:, half:, :half], np.s_[:, :half, half:]]
    edges = [np.abs(d[corner]).mean(axis=(1, 2)) for d in (dx, dy) for corner in corners]
    red, green, blue = np.moveaxis(images.mean(axis=(1, 2)) / 255, -1, 0)
    late = [red - blue, green - red, blue, grey.mean(axis=(1, 2)), grey.std(axis=(1, 2)), red]
    clean = np.stack(edges + late, axis=1)
    return (clean - clean.mean(axis=0)) / clean.std(axis=0)


train = responses(train_images)
train += rng.normal(scale=0.5, size=train.shape)
repeats = np.stack([responses(test_images)] * 4)
repeats += rng.normal(scale=0.5, size=repeats.shape)

# CHANGE: the area of every unit, such as V1, V4, IT
area = ["A"] * 6 + ["B"] * 6

with h5py.File("recording.h5", "w") as file:
    file["train/images"] = train_images  # or train/image_paths: names of files in data.images
    file["train/responses"] = train.astype(np.float32)
    file["test/images"] = test_images  # all of test/ is optional
    file["test/responses"] = repeats.astype(np.float32)  # (n_repeats, n_test, n_units)
    file["units/area"] = area  # any other units/<column> is carried through to every table
    file["units/name"] = [f"unit{i:02d}" for i in range(len(area))]
    file.attrs["label"] = "own recording"
    file.attrs["simulated"] = True  # CHANGE: remove this line
