"""Write a recording in the generic HDF5 format; replace what is marked CHANGE by your own data.

As it stands, the responses are computed from photographs that come with scikit-image, so that the
file can be tried at once. They are simulated, and the file says so. Units of area A answer to edges
in a part of the image, those of area B to how its edges are oriented and arranged.
"""

import h5py
import numpy as np
from skimage import data
from skimage.color import rgb2gray

# CHANGE: images, (n, height, width, 3) uint8, all of one size, and the group of each: images that
# show the same thing, here neighbouring tiles of a photograph, stay on one side of every cut
SIDE = 48
images, groups = [], []
for number, photograph in enumerate(
    [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
):
    for top in range(0, photograph.shape[0] - SIDE + 1, SIDE):
        for left in range(0, photograph.shape[1] - SIDE + 1, SIDE):
            images.append(photograph[top : top + SIDE, left : left + SIDE])
            groups.append(100 * number + 10 * (top // (3 * SIDE)) + left // (3 * SIDE))
images, groups = np.stack(images), np.array(groups)
rng = np.random.default_rng(0)
tested = np.isin(groups, rng.permutation(np.unique(groups))[:5])  # five groups are the test set


# CHANGE: responses, (n, n_units), NaN where one is missing
def responses(images):
    grey = rgb2gray(images)
    dy, dx = np.gradient(grey, axis=(1, 2))
    half = SIDE // 2
    corners = [np.s_[:, :half, :half], np.s_[:, half:, :half], np.s_[:, :half, half:]]
    edges = [np.abs(d[corner]).mean(axis=(1, 2)) for d in (dx, dy) for corner in corners]

    def local(values):  # means over places of 8 x 8 pixels
        return values.reshape(len(values), SIDE // 8, 8, SIDE // 8, 8).mean(axis=(2, 4))

    xx, yy, xy = local(dx * dx), local(dy * dy), local(dx * dy)
    energy = xx + yy + 1e-4
    textures = [
        (xx - yy) / energy,  # upright or level edges
        2 * xy / energy,  # one diagonal or the other
        -2 * xy[:, :3] / energy[:, :3],  # the same in the upper half, the other way round
        np.hypot(xx - yy, 2 * xy) / energy,  # edges of one orientation
        (xx * yy - xy**2) / energy**2,  # corners
        local(dx * dx + dy * dy) / (local(grey**2) - local(grey) ** 2 + 1e-3),  # fine or coarse
    ]
    clean = np.stack(edges + [texture.mean(axis=(1, 2)) for texture in textures], axis=1)
    return (clean - clean.mean(axis=0)) / clean.std(axis=0)


clean = responses(images)
train = clean[~tested] + rng.normal(scale=0.5, size=clean[~tested].shape)
repeats = clean[tested] + rng.normal(scale=0.5, size=(4, *clean[tested].shape))

# CHANGE: the area of every unit, such as V1, V4, IT
area = ["A"] * 6 + ["B"] * 6

with h5py.File("recording.h5", "w") as file:
    file["train/images"] = images[~tested]  # or train/image_paths: names of files in data.images
    file["train/responses"] = train.astype(np.float32)
    file["train/groups"] = groups[~tested]
    file["test/images"] = images[tested]  # all of test/ is optional
    file["test/responses"] = repeats.astype(np.float32)  # (n_repeats, n_test, n_units)
    file["test/groups"] = groups[tested]
    file["units/area"] = area  # any other units/<column> is carried through to every table
    file["units/name"] = [f"unit{i:02d}" for i in range(len(area))]
    file.attrs["label"] = "own recording"
    file.attrs["simulated"] = True  # CHANGE: remove this line
