"""NWB files (extra ``cortex-tuner[nwb]``), read by pynwb in exactly this layout.

Presentations
    The trials table, or else the one other interval table (``intervals/``) that has a column
    ``image`` (index into the template images, from 0) or ``image_path`` (text, relative to
    ``data.images``). Optional columns: ``split`` (``train`` or ``test``; without it images shown
    more than once are the test images) and ``group`` (images of a group stay on one side of a
    cut). Without such a table: the one ``IndexSeries`` in ``stimulus/presentation``.
Images
    With ``image_path`` files in ``data.images``. Otherwise the one container in
    ``stimulus/templates``: an ``Images`` in the order of its ``order_of_images``, or an
    ``ImageSeries`` (frames, height, width[, 3]). Pixels are uint8, (height, width[, 3]).
Responses
    A ``TimeSeries`` named ``responses`` in any processing module, its data (presentations,
    units); or a table of that name there with a column ``response`` (one row of units per
    presentation). Without either: spikes of ``units`` counted from ``window_ms[0]`` to
    ``window_ms[1]`` after each start.
Units
    The rows of ``units`` if there are as many as responses have columns, else of ``electrodes``.
    Columns of single values are kept; the area is ``area``, ``location``, ``brain_area`` or
    ``region``, or for ``units`` the location of their first electrode.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.hdf5 import open as h5
from tuner.recordings.hdf5.images import Hdf5Images, Hdf5ImageSet
from tuner.recordings.presentations import Sorted, repeated_are_test, sort_presentations
from tuner.recordings.recording import ImageSource, Recording
from tuner.recordings.sources import FileImages

_AREA = ("area", "location", "brain_area", "region")
_NAME = "responses"


def load(
    path: Path, images: Path | None = None, *, window_ms: tuple[float, float] = (50.0, 150.0)
) -> Recording:
    """Read an NWB file in the layout above.

    Parameters
    ----------
    path
        The file.
    images
        The images folder, where presentations name files.
    window_ms
        For spikes: from when to when they count, ms after the start of a presentation.

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        If pynwb is not installed, the file is damaged, or it has another layout.
    """
    start, stop = (float(edge) for edge in window_ms)
    if not start < stop:
        raise InputError(f"data.window_ms must be two increasing times, not {list(window_ms)}")
    with _opened(path) as nwb, _readable(path):
        shown = _presentations(path, nwb)
        source, index = _template(path, nwb, shown)
        responses = _responses(path, nwb, shown.start, (start / 1000, stop / 1000))
        units = _units(path, nwb, responses.shape[1])
    if len(responses) != len(shown.start):
        raise InputError(
            f"{path}: {len(responses)} rows of responses but {len(shown.start)} presentations"
        )
    is_test = repeated_are_test(index) if shown.is_test is None else shown.is_test
    by_image = sort_presentations(str(path), responses, index, is_test)
    return _recording(path, images, shown, source, index, by_image, units)


class _Shown:
    """The presentations: what was shown when; columns that a file lacks are None."""

    def __init__(
        self,
        start: NDArray[np.float64],
        image: NDArray[np.int64] | None,
        image_path: NDArray[np.str_] | None,
        is_test: NDArray[np.bool_] | None = None,
        group: NDArray[np.int64] | None = None,
        series: Any = None,
    ) -> None:
        self.start = start
        self.image = image
        self.image_path = image_path
        self.is_test = is_test
        self.group = group
        self.series = series


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import pynwb
    except ImportError as error:
        raise InputError(
            f'{path}: reading NWB needs pynwb; run pip install "cortex-tuner[nwb]"'
        ) from error
    with h5.open_hdf5(path) as file, warnings.catch_warnings():
        # pynwb warns of what other programs wrote; none of it stops the reading.
        warnings.simplefilter("ignore")
        with _readable(path):
            reader = pynwb.NWBHDF5IO(file=file, mode="r")
            nwb = reader.read()
        yield nwb


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # pynwb raises almost anything on files it does not understand.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: not a readable NWB file ({reason}); validate it") from error


def _presentations(path: Path, nwb: Any) -> _Shown:
    tables = [] if nwb.trials is None else [nwb.trials]
    tables = [table for table in tables if _names_images(table)] or [
        table for table in (nwb.intervals or {}).values() if _names_images(table)
    ]
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise InputError(f"{path}: several interval tables name images ({names}); keep one")
    if tables:
        return _from_table(path, tables[0])
    series = [s for s in (nwb.stimulus or {}).values() if s.neurodata_type == "IndexSeries"]
    if len(series) != 1:
        raise InputError(
            f"{path}: has no interval table with a column image or image_path, and "
            f"{len(series)} IndexSeries in stimulus/presentation where one is needed"
        )
    index = _whole(path, "IndexSeries", np.asarray(series[0].data[()]))
    if series[0].timestamps is not None:
        start = np.asarray(series[0].timestamps[()], dtype=np.float64)
    else:
        start = series[0].starting_time + np.arange(index.size) / series[0].rate
    return _Shown(start, index, None, series=series[0])


def _names_images(table: Any) -> bool:
    return "image" in table.colnames or "image_path" in table.colnames


def _from_table(path: Path, table: Any) -> _Shown:
    name = table.name
    start = np.asarray(table["start_time"][:], dtype=np.float64)
    image, image_path, is_test, group = None, None, None, None
    if "image_path" in table.colnames:
        image_path = h5.text(path, f"{name}/image_path", np.asarray(table["image_path"][:]))
    else:
        image = _whole(path, f"{name}/image", np.asarray(table["image"][:]))
    if "split" in table.colnames:
        split = h5.text(path, f"{name}/split", np.asarray(table["split"][:]))
        if not np.isin(split, ("train", "test")).all():
            raise InputError(f"{path}: {name}/split must be train or test in every row")
        is_test = split == "test"
    if "group" in table.colnames:
        values = np.asarray(table["group"][:])
        group = np.unique(values.astype(np.str_), return_inverse=True)[1].reshape(-1)
    return _Shown(start, image, image_path, is_test, group)


def _whole(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    if values.dtype.kind not in "iu" or values.ndim != 1 or not values.size:
        raise InputError(f"{path}: {name} must list image indices (whole numbers from 0)")
    return values.astype(np.int64)


def _template(path: Path, nwb: Any, shown: _Shown) -> tuple[Any, NDArray[np.int64]]:
    """Find the images: paths, or datasets of the file; and which one each presentation showed."""
    if shown.image_path is not None:
        names, index = np.unique(shown.image_path, return_inverse=True)
        return [str(name) for name in names], index.reshape(-1).astype(np.int64)
    assert shown.image is not None
    container = None
    if shown.series is not None:
        container = shown.series.indexed_images or shown.series.indexed_timeseries
    else:
        containers = list((nwb.stimulus_template or {}).values())
        if len(containers) != 1:
            raise InputError(
                f"{path}: has {len(containers)} containers in stimulus/templates where one is "
                "needed; or give the presentations a column image_path"
            )
        container = containers[0]
    if container.neurodata_type == "Images":
        if container.order_of_images is None:
            raise InputError(
                f"{path}: {container.name} has no order_of_images, so no index says which image "
                "was shown; write it"
            )
        found: Any = [_place(path, picture.data) for picture in container.order_of_images.data]
        count = len(found)
    else:
        if getattr(container, "external_file", None) is not None:
            raise InputError(
                f"{path}: {container.name} keeps its frames in other files; give the "
                "presentations a column image_path instead"
            )
        found = _place(path, container.data)
        count = len(container.data)
    if shown.image.min() < 0 or shown.image.max() >= count:
        raise InputError(f"{path}: presentations show image {shown.image.max()} of {count}")
    return found, shown.image


def _place(path: Path, data: Any) -> str:
    """Name the dataset within the file, refusing one that lies elsewhere."""
    if not isinstance(data, h5py.Dataset) or Path(data.file.filename).resolve() != path.resolve():
        raise InputError(f"{path}: its images are kept in another file; copy them into this one")
    return str(data.name)


def _responses(
    path: Path, nwb: Any, start: NDArray[np.float64], window: tuple[float, float]
) -> NDArray[np.float64]:
    modules = (nwb.processing or {}).values()
    found = [module[_NAME] for module in modules if _NAME in module.data_interfaces]
    if len(found) > 1:
        raise InputError(f"{path}: several processing modules have {_NAME}; keep one")
    if not found:
        return _counts(path, nwb, start, window)
    container = found[0]
    if hasattr(container, "colnames"):
        if "response" not in container.colnames:
            raise InputError(f"{path}: table {_NAME} has no column response")
        values = _read(path, container["response"].data)
    else:
        values = _read(path, container.data)
        if values.dtype.kind in "fiu":
            values = values * container.conversion + container.offset
    if values.dtype.kind not in "fiu" or values.ndim != 2:
        raise InputError(
            f"{path}: {_NAME} must be numbers (presentations, units), not {values.shape}"
        )
    return values.astype(np.float64)


def _read(path: Path, data: Any) -> NDArray[Any]:
    """Read all of a dataset, with the checks that h5py leaves out."""
    return h5.read(path, data, _NAME) if isinstance(data, h5py.Dataset) else np.asarray(data[()])


def _counts(
    path: Path, nwb: Any, start: NDArray[np.float64], window: tuple[float, float]
) -> NDArray[np.float64]:
    """Count each unit's spikes in the window after each presentation's start."""
    if nwb.units is None or "spike_times" not in nwb.units.colnames:
        raise InputError(
            f"{path}: has neither {_NAME} in a processing module nor spike times in units"
        )
    counts = np.empty((start.size, len(nwb.units)))
    for unit in range(len(nwb.units)):
        spikes = np.sort(np.asarray(nwb.units.get_unit_spike_times(unit), dtype=np.float64))
        before, after = (np.searchsorted(spikes, start + edge) for edge in window)
        counts[:, unit] = after - before
    return counts


def _units(path: Path, nwb: Any, count: int) -> dict[str, NDArray[Any]]:
    for table in (nwb.units, nwb.electrodes):
        if table is not None and len(table) == count:
            break
    else:
        raise InputError(f"{path}: neither units nor electrodes has {count} rows, one per response")
    columns: dict[str, NDArray[Any]] = {}
    for name in table.colnames:
        if f"{name}_index" in {column.name for column in table.columns}:
            continue  # Several values per unit, such as spike times.
        values = np.asarray(table[name][:])
        if values.shape != (count,) or values.dtype.kind not in "fiubSUO":
            continue
        if values.dtype.kind in "SUO":
            if not all(isinstance(value, str | bytes) for value in values.tolist()):
                continue
            values = h5.text(path, name, values)
        columns[name] = values
    area = next((columns[name] for name in _AREA if name in columns), None)
    if area is None and table is nwb.units and "electrodes" in table.colnames:
        area = np.array([_location(table["electrodes"][unit]) for unit in range(count)])
    if area is None:
        raise InputError(f"{path}: units have no column {', '.join(_AREA)} that names their area")
    return {"area": area.astype(np.str_)} | {k: v for k, v in columns.items() if k != "area"}


def _location(electrodes: Any) -> str:
    """Name the location of a unit's electrodes; their first, where it has several."""
    return str(electrodes["location"].iloc[0])


def _recording(
    path: Path,
    images: Path | None,
    shown: _Shown,
    source: Any,
    index: NDArray[np.int64],
    by_image: Sorted,
    units: dict[str, NDArray[Any]],
) -> Recording:
    def chosen(which: NDArray[np.int64]) -> ImageSource:
        if shown.image_path is not None:
            return FileImages(images, [source[i] for i in which], str(path))
        if isinstance(source, str):
            return Hdf5Images(path, source, which)
        return Hdf5ImageSet(path, [source[i] for i in which])

    def groups(which: NDArray[np.int64]) -> NDArray[np.int64] | None:
        if shown.group is None:
            return None
        first = {int(image): row for row, image in reversed(list(enumerate(index)))}
        return np.array([shown.group[first[int(image)]] for image in which], dtype=np.int64)

    has_test = by_image.test is not None
    return Recording(
        label=path.stem,
        source=str(path),
        simulated=False,
        units=units,
        train_images=chosen(by_image.train_images),
        train_responses=h5.float32(path, _NAME, by_image.train),
        train_groups=groups(by_image.train_images),
        test_images=chosen(by_image.test_images) if has_test else None,
        test_responses=None if by_image.test is None else h5.float32(path, _NAME, by_image.test),
        test_groups=groups(by_image.test_images) if has_test else None,
        notes=() if has_test else ("no image was shown more than once: there is no test set",),
    )
