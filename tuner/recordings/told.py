"""What a recording on disk is, where nobody said."""

from __future__ import annotations

from pathlib import Path

from tuner.errors import InputError
from tuner.recordings.hdf5 import open as h5


def told_format(path: Path) -> str:
    """Tell a file's format from what is in it: one that can be read without being told more.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    str
        ``hdf5`` or ``nwb``, names of `tuner.recordings.FORMATS`; a file that is neither is taken to be the generic one, so
        that its reader says what it lacks.

    Raises
    ------
    InputError
        If the file cannot be read, or is one of which a config file has to say more.
    """
    if path.suffix.lower() == ".toml":
        raise InputError(f"{path}: is a config file, not a recording; say -c {path}")
    if path.is_dir():
        raise _needs_config(path, "is a folder: per-array exports?", "tvsd-arrays")
    with h5.open_hdf5(path) as file:
        if h5.has(file, "train/responses"):
            return "hdf5"
        if h5.has(file, "train_MUA") or h5.has(file, "ALLMUA"):
            raise _needs_config(path, "is a TVSD recording", "tvsd")
        with h5.guarded(path, "attribute nwb_version"):
            return "nwb" if "nwb_version" in file.attrs else "hdf5"


def _needs_config(path: Path, what: str, name: str) -> InputError:
    return InputError(
        f'{path}: {what}; where its images are, and more, stands in a config file: write format = "{name}" and '
        f'path = "{path}" under [data] of tuner.toml (tuner init DIR --template tvsd) and leave FILE out'
    )
