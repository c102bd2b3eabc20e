"""Only what h5py raises is the file's fault."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from tuner.errors import InputError
from tuner.recordings.hdf5.errors import guarded


def test_what_h5py_raises_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3)
        line = r"r\.h5: the responses cannot be read .*get it again"
        with pytest.raises(InputError, match=line), guarded(path, "the responses"):
            file["y"]
        with pytest.raises(InputError, match=r"r\.h5"), guarded(path, "the responses"):
            file["x"][7]


@pytest.mark.parametrize("kind", [AttributeError, TypeError, ValueError, KeyError, RuntimeError])
def test_what_we_raise_is_a_defect_of_ours(tmp_path: Path, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="ours"), guarded(tmp_path / "r.h5", "the responses"):
        raise kind("ours")
