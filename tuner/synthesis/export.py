"""What ``export mei`` leaves behind: images, arrays, a contact sheet, and a manifest.

Finished images are set aside in ``.partial`` one by one, so a run that was stopped goes on where it
was; they are used again only under the same settings, encoder and chunk size.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.atomic import replacing, write_bytes
from tuner.encoder import Encoder
from tuner.errors import EnvironmentFailure
from tuner.figures.captions import in_units
from tuner.synthesis.beside import Beside, beside
from tuner.synthesis.canvas import Job
from tuner.synthesis.chunks import chunk_size
from tuner.synthesis.determinism import surroundings
from tuner.synthesis.evaluate import Images, variant_distances
from tuner.synthesis.manifest import FORMAT, KIND, MANIFEST, describe
from tuner.synthesis.mei import Ensemble, Mei, MeiResult, MeiSettings, StepsDone, synthesize
from tuner.synthesis.receptive_fields import Fields, from_readout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ARRAYS = "meis.npz"
SHEET = "sheet.png"
_PARTIAL = ".partial"


def export_meis(
    folder: str | Path,
    encoders: Sequence[Encoder],
    units: Sequence[int] | None,
    settings: MeiSettings,
    *,
    title: str = "",
    about: str = "",
    recorded: Mapping[int, float] | None = None,
    extra: Mapping[str, Any] | None = None,
    fields: Fields | None = None,
    natural: Images | None = None,
    progress: StepsDone | None = None,
) -> tuple[MeiResult, Beside | None]:
    """Make images and write them into a folder; goes on where an earlier run was stopped.

    Parameters
    ----------
    folder
        ``OUT/<study path>``; created if need be.
    encoders
        One, or an ensemble.
    units
        Indices in the recording; None: all.
    settings
        How the images are made.
    title
        Title of the contact sheet, such as the study's name.
    about
        What the encoders are, see :func:`tuner.figures.captions.encoder`: on the sheet and in the manifest.
    recorded
        Unit to the largest response that was recorded of it: images that are predicted to do better are marked.
    extra
        Further plain values for the manifest: the study, its trials.
    fields
        Receptive fields of all the encoders' units, to be drawn on the sheet; None: those of the
        first encoder's readout.
    natural
        Natural images, such as those of the training set: the best one of each unit and an image of noise
        stand beside each unit's images; None: they stand alone.
    progress
        Called with steps done and to do.

    Returns
    -------
    MeiResult
        What was written.
    Beside or None
        What the images are held against.

    Raises
    ------
    InputError
        If a unit is unknown, or the encoder answers with NaN.
    EnvironmentFailure
        If the folder cannot be written.
    """
    folder = Path(folder)
    ensemble = Ensemble(encoders)
    chunk = settings.chunk or chunk_size(ensemble.image_size, ensemble.device.type)
    key = fingerprint(encoders, settings, chunk)
    try:
        partial = _Partial(folder / _PARTIAL, key)
        result = synthesize(
            encoders, units, settings, progress, finished=partial.read, keep=partial.write
        )
        fields = fields or from_readout(encoders[0])
        where = ensemble.positions([int(unit) for unit in result.units])
        fields = fields.of(where)
        held = None if natural is None else beside(encoders, result, settings, natural, fields)
        _write(
            folder,
            encoders,
            settings,
            result,
            fields,
            held,
            title,
            about,
            recorded or {},
            dict(extra or {}),
        )
        partial.remove()
    except OSError as error:
        raise EnvironmentFailure(f"cannot write images to {folder}: {error}") from error
    return result, held


def fingerprint(encoders: Sequence[Encoder], settings: MeiSettings, chunk: int) -> str:
    """Digest of all that decides the bytes of an image, but for its unit and variant."""
    decided = settings.as_dict() | {"variants": 0, "chunk": chunk}
    payload = [
        FORMAT,
        [encoder.checksum() for encoder in encoders],
        decided,
        surroundings(encoders[0].device),
    ]
    return hashlib.blake2b(json.dumps(payload, sort_keys=True).encode(), digest_size=16).hexdigest()


class _Partial:
    """Images that are finished while the run is not."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        stamp = folder / "key"
        if not stamp.is_file() or stamp.read_text() != key:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            stamp.write_text(key)

    def _path(self, job: Job) -> Path:
        return self.folder / f"{job.unit}_{job.variant}.npz"

    def read(self, job: Job) -> Mei | None:
        """Return an image made before, or None; one that was cut off counts as none."""
        try:
            with self._path(job).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                return Mei(job, file["pixels"], float(file["activation"]), int(file["step"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, mei: Mei) -> None:
        """Set an image aside."""
        with replacing(self._path(mei.job)) as partial, partial.open("wb") as file:
            np.savez(file, pixels=mei.pixels, activation=mei.activation, step=mei.step)

    def remove(self) -> None:
        """All is written where it belongs."""
        shutil.rmtree(self.folder, ignore_errors=True)


def file_name(unit: int, name: str, variant: int = 0) -> str:
    """``0007_name.png``; from the second variant on ``0007_name_v1.png``."""
    safe = re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "unit"
    return f"{unit:04d}_{safe[:80]}{f'_v{variant}' if variant else ''}.png"


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Return an image as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _write(
    folder: Path,
    encoders: Sequence[Encoder],
    settings: MeiSettings,
    result: MeiResult,
    fields: Fields,
    held: Beside | None,
    title: str,
    about: str,
    recorded: Mapping[int, float],
    extra: dict[str, Any],
) -> None:
    from tuner.figures.style import render

    folder.mkdir(parents=True, exist_ok=True)
    simulated = any(encoder.simulated for encoder in encoders)
    entries = []
    apart = variant_distances(result)
    for k, (unit, name) in enumerate(zip(result.units, result.names, strict=True)):
        images = []
        for variant in range(settings.variants):
            payload = png_bytes(result.pixels[k, variant])
            file = file_name(int(unit), name, variant)
            write_bytes(folder / file, payload)
            images.append(
                {
                    "file": file,
                    "blake2b": hashlib.blake2b(payload, digest_size=20).hexdigest(),
                    "activation": float(result.activation[k, variant]),
                    "kept_after_step": int(result.steps[k, variant]),
                }
            )
        entry = {"unit": int(unit), "name": name, "images": images}
        if int(unit) in recorded:
            entry["largest_recorded"] = recorded[int(unit)]
        if settings.variants > 1:  # 1 less the correlation of pixels, every pair of variants
            entry["distances"] = np.round(apart[k], 4).tolist()
        if held is not None:
            entry["natural"] = {
                "image": held.names[k],
                "activation": float(held.natural_activation[k]),
            }
            entry["noise"] = {"activation": float(held.noise_activation[k])}
        entries.append(entry)
    write_bytes(folder / ARRAYS, _npz(result, settings.variants, held))
    figure = sheet_of(
        *(result, settings, fields, held, title, simulated, about, recorded),
        encoders[0].meta.get("measured_in", ""),
    )
    write_bytes(folder / SHEET, render(figure, "png"))
    manifest = {
        "format": FORMAT,
        "kind": KIND,
        "simulated": simulated,
        **({"about": about} if about else {}),
        **extra,
        **({} if held is None else {"verdict": held.verdict(result.activation)}),
        "encoders": [describe(encoder) for encoder in encoders],
        "settings": settings.as_dict() | {"chunk": result.chunk},
        "units": entries,
        "surroundings": surroundings(encoders[0].device),
        "nondeterministic_operations": list(result.nondeterministic),
    }
    write_bytes(
        folder / MANIFEST, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()
    )


def sheet_of(
    result: MeiResult,
    settings: MeiSettings,
    fields: Fields,
    held: Beside | None,
    title: str,
    simulated: bool,
    about: str = "",
    recorded: Mapping[int, float] | None = None,
    measured_in: object = "",
) -> Figure:
    """Draw all images, with what they are held against and where their units read.

    Parameters
    ----------
    result
        The images.
    settings
        How they were made.
    fields
        Receptive fields of their units.
    held
        What they are held against; None: nothing.
    title
        Said after "Most exciting images", such as the study's name.
    simulated
        Whether the recording is.
    about
        What the encoder is, see :mod:`tuner.figures.captions`.
    recorded
        Unit to the largest response that was recorded of it.
    measured_in
        What responses are measured in, where that is known.
    """
    from tuner.figures.fields import draw, explained
    from tuner.figures.sheets import sheet

    variants = result.pixels.shape[1]
    pictures, labels, notes, further = [], [], [], False
    written = alike(result.activation)
    for k, (unit, name) in enumerate(zip(result.units, result.names, strict=True)):
        best = np.inf if held is None else held.natural_activation[k]
        for variant in range(variants):
            pictures.append(result.pixels[k, variant])
            labels.append(f"{unit} {name}" if variant == 0 else f"{unit}, variant {variant}")
            value = result.activation[k, variant]
            beyond = value > (recorded or {}).get(int(unit), np.inf)
            further |= beyond
            notes.append(
                written(value)
                + ("*" if beyond else "")
                + (", less" if held and value <= best else "")
            )
        if held is not None:
            pictures += [held.natural[k], held.noise[k]]
            labels += ["best natural", "noise"]
            notes += [written(best), written(held.noise_activation[k])]
    read = fields.ellipses()
    losing = held is not None and held.losing(result.activation)
    group = variants + (0 if held is None else 2)
    where = " inside the field" if settings.match == "field" else ""
    verdict = [about] if about else []
    if held is not None:
        verdict.append(held.verdict(result.activation))
        verdict += filter(None, [held.colour(settings)])
    figure = sheet(
        np.stack(pictures),
        labels,
        notes=notes,
        title=f"Most exciting images{f': {title}' if title else ''}",
        sub="; ".join(
            [
                *verdict,
                f"numbers: predicted responses {in_units(measured_in)}; {settings.prior} prior, "
                f"{settings.photometry}{where}, {settings.steps} steps, seed {settings.seed}",
                *(["*: more than was ever recorded of the unit"] if further else []),
                *(["less: than to the best natural image"] if losing else []),
                *explained(read, fields.image_size),
            ]
        ),
        simulated=simulated,
        columns=None if held is None else group * max(1, round(6 / group)),
    )
    for axes, ellipse in zip(figure.axes, read.repeat(group, axis=0), strict=True):
        draw(axes, ellipse, fields.image_size)
    return figure


def alike(values: ArrayLike) -> Callable[[float], str]:
    """Return what writes numbers with equally many decimals, three figures of the largest.

    Examples
    --------
    >>> [alike([5.961, 0.7])(value) for value in (5.961, 0.7)], alike([1234.5])(1234.5)
    (['5.96', '0.70'], '1234')
    """
    largest = np.abs(np.asarray(values, dtype=np.float64)).max(initial=0.0)
    digits = 2 - int(np.floor(np.log10(largest))) if np.isfinite(largest) and largest > 0 else 2
    return lambda value: f"{value:.{min(max(digits, 0), 9)}f}"


def _npz(result: MeiResult, variants: int, held: Beside | None) -> bytes:
    """Arrays without a date in the archive: same images, same bytes."""
    flat = result.images.reshape(len(result.units), variants, *result.pixels.shape[2:])
    arrays: dict[str, NDArray[Any]] = {
        "images": flat[:, 0],
        "activation": result.activation[:, 0],
        "units": result.units,
        "names": np.array(result.names, dtype=np.str_),
    }
    if variants > 1:
        arrays["variant_images"] = flat
        arrays["variant_activation"] = result.activation
        arrays["variant_distances"] = variant_distances(result)
    if held is not None:
        arrays["natural_activation"] = held.natural_activation
        arrays["noise_activation"] = held.noise_activation
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return buffer.getvalue()
