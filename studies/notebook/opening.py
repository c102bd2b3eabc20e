"""``tuner.open``: an experiment from its config file, or from keyword arguments and arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from studies.config.experiment import DEFAULT_FILE, load_experiment, parse_experiment
from studies.notebook.arrays import table, write_arrays
from studies.notebook.document import refuse_other, toml
from studies.notebook.opened import OpenExperiment
from studies.notebook.progress import show_figures
from tuner.atomic import write_bytes
from tuner.errors import InputError

RECORDING = "recording.h5"
"""Where arrays are written, beside the config file."""

Table = Mapping[str, Any]


def open_experiment(
    config: str | Path = DEFAULT_FILE,
    *,
    images: ArrayLike | None = None,
    responses: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    test_images: ArrayLike | None = None,
    repeats: ArrayLike | None = None,
    test_groups: ArrayLike | None = None,
    units: Mapping[str, ArrayLike] | None = None,
    measured_in: str = "",
    label: str = "recording",
    simulated: bool = False,
    data: Table | None = None,
    backbone: str | Table | Sequence[str | Table] | None = None,
    training: Table | None = None,
    search: Table | None = None,
    storage: Table | None = None,
    quiet: bool = False,
) -> OpenExperiment:
    """Open an experiment to search and to look at, in a notebook or a script.

    With nothing but a config file, that is the experiment. With keyword arguments the config file is written, and the arrays
    beside it as ``recording.h5``: then it is an experiment like any other, on which every command works too.

    Parameters
    ----------
    config
        The config file; the folder is made if need be.
    images
        ``(n_images, height, width, 3)`` uint8, those of training, or ``(n_images, height, width)`` grey.
    responses
        ``(n_images, n_units)`` responses to them, NaN where one is missing.
    groups
        ``(n_images,)`` images of one group, such as crops of one photograph, stay on one side of every cut.
    test_images
        ``(n_test_images, height, width, 3)`` uint8.
    repeats
        ``(n_repeats, n_test_images, n_units)`` responses to the test images, NaN where one is missing.
    test_groups
        ``(n_test_images,)`` in the terms of ``groups``: intervals of test scores leave out one group after the other.
    units
        Columns that describe the units, each ``(n_units,)``: ``area``, ``name``, ...; without ``area`` all units are one
        region, ``all``.
    measured_in
        What responses are measured in, such as ``spikes per 100 ms``; sheets of images and encoders say it.
    label
        What figures call the recording.
    simulated
        Whether the responses are computed and not measured: then every figure says so.
    data, training, search, storage
        The tables of ``tuner.toml`` of these names.
    backbone
        The network, by name or as its ``[[backbone]]`` table, or several; ``efficientnet_lite0`` where not given.
    quiet
        Whether no progress is shown.

    Returns
    -------
    OpenExperiment

    Raises
    ------
    InputError
        If a key, an array or the file is wrong, naming it; or if the config file is there and says something else.

    Examples
    --------
    In the folder of an experiment that was searched:

    >>> import tuner
    >>> experiment = tuner.open("tuner.toml", quiet=True)
    >>> experiment.best_layers(per="region", readout="full").columns[:3].tolist()
    ['region', 'backbone', 'layer']
    """
    path = Path(config)
    given: dict[str, Any] = {
        name: table(value, name)
        for name, value in (
            ("data", data),
            ("training", training),
            ("search", search),
            ("storage", storage),
        )
        if value is not None
    }
    if backbone is not None:
        several = [backbone] if isinstance(backbone, str | Mapping) else list(backbone)
        given["backbone"] = [
            {"name": one} if isinstance(one, str) else table(one, "backbone") for one in several
        ]
    arrays = {
        "images": images,
        "responses": responses,
        "groups": groups,
        "test_images": test_images,
        "repeats": repeats,
        "test_groups": test_groups,
        "units": units,
    }
    if any(value is not None for value in arrays.values()):
        if images is None or responses is None:
            raise InputError("images and responses: a recording from arrays needs both")
        if "path" in given.get("data", {}) or "format" in given.get("data", {}):
            raise InputError('data: name no "path" and no "format" where arrays are given')
        given["data"] = {"path": RECORDING} | given.get("data", {})
    if given:
        order = ("data", "backbone", "training", "search", "storage")
        document = {"backbone": [{"name": "efficientnet_lite0"}]} | given
        document = {name: document[name] for name in order if name in document}
        parse_experiment(document, path)  # refused before anything is written
        refuse_other(document, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if images is not None and responses is not None:
            write_arrays(
                path.parent / RECORDING,
                images=images,
                responses=responses,
                groups=groups,
                test_images=test_images,
                repeats=repeats,
                test_groups=test_groups,
                units=units or {},
                measured_in=measured_in,
                label=label,
                simulated=simulated,
            )
        if not path.is_file():
            write_bytes(path, toml(document).encode("utf-8"))
    show_figures()
    return OpenExperiment(load_experiment(path), quiet=quiet)
