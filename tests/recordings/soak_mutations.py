"""Damaged recordings by the thousand: ``python -m tests.recordings.soak_mutations``.

Every damaged file must end in a one-line error, or in data that are right wherever the damage is
not: never a traceback, a crash, a hang, or a response in another unit's or image's place. Files
are read in a child process. Where HDF5 itself hangs or crashes there, the file is read once more
as a user would, and must then be refused.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import multiprocessing
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.recordings import cases
from tests.recordings.cases import CASES, Case
from tests.recordings.mutations import damage_bytes, damage_structure, structure
from tests.recordings.trials_file import trials_case

TIME_LIMIT_S = 10.0
SOAKED = {
    **CASES,
    "hdf5-rewritten-files": lambda folder: cases.rewritten(folder, files=True),
    "tvsd-arrays": lambda folder: cases.arrays(folder, square=5),
    "tvsd-trials": trials_case,
}
IDENTITY = (("channel",), ("array", "good_channel"), ("name",), ("neuroid_id",), ("depth",))


@dataclass
class Report:
    """What became of the damaged files of one case."""

    case: str
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Say it in one line."""
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        return f"{self.case:20s} {sum(self.outcomes.values()):5d} damaged: {counts}"


def soak(
    name: str,
    numbers: Iterable[int],
    seed: int,
    folder: Path,
    limit_s: float = TIME_LIMIT_S,
) -> Report:
    """Damage a recording again and again and read it each time.

    Parameters
    ----------
    name
        A name in `SOAKED`.
    numbers, seed
        Of the damage: each pair of them is one and the same damage.
    folder
        An empty folder to work in.
    limit_s
        Seconds after which a reading counts as hanging.
    """
    base = folder / "base"
    base.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case = SOAKED[name](base)
    targets = [p for p in sorted(base.rglob("*")) if p.is_file() and not _is_image(case, p)]
    places = {path: structure(path) for path in targets}
    report = Report(name)
    reader = _Reader(case, limit_s)
    try:
        for number in numbers:
            rng = np.random.default_rng([seed, number])
            scratch = folder / "scratch"
            target = targets[int(rng.integers(len(targets)))]
            damaged = _mirror(base, scratch, target, case)
            if rng.random() < 0.3 and h5py.is_hdf5(damaged):
                what, touched = damage_structure(damaged, rng), -1
            else:
                what, touched = damage_bytes(damaged, places[target], rng)
            outcome, detail = reader.read(_moved(case, base, scratch), touched)
            report.outcomes[outcome] += 1
            if outcome == "WRONG":
                report.wrong.append(f"{name} seed {seed} number {number}: {what}: {detail}")
            shutil.rmtree(scratch)
    finally:
        reader.stop()
    return report


def judge(found: Any, case: Case, touched: int, *, rewritten: bool = False) -> str | None:
    """Compare what was read from a damaged file with what was there before.

    Parameters
    ----------
    found
        The recording.
    case
        What it was.
    touched
        How many bytes were damaged: so many images, units and responses may be wrong.
    rewritten
        Whether a whole dataset was rewritten, so that its values may be others, but not those of
        other images or units.

    Returns
    -------
    str or None
        What is in a wrong place.
    """
    unit = _identities(found, case)
    if unit is None:
        return f"{found.n_units} units that cannot be told apart"
    for key in ("area",):
        other = int((found.units[key].astype(str) != case.units[key].astype(str)[unit]).sum())
        if other > touched:
            return f"{other} units have another {key}"
    for part, images, responses in (
        ("train", found.train_images, found.train_responses[None]),
        ("test", found.test_images, found.test_responses),
    ):
        if images is None:
            continue
        pixels = case.train_pixels if part == "train" else case.test_pixels
        before = case.train[None] if part == "train" else case.test
        known = {image.tobytes(): index for index, image in enumerate(pixels)}
        rows = [known.get(images.read(index).tobytes(), -1) for index in range(len(images))]
        misplaced = _misplaced(responses, before, np.array(rows), unit)
        if misplaced > max(2, touched):
            return f"{misplaced} {part} responses of other units or images"
        changed = _changed(responses, before, np.array(rows), unit)
        if changed > max(2, touched) and not rewritten:
            return f"{part} responses to {changed} images or units are not what they were"
    return None


def _changed(responses: Any, before: Any, rows: Any, unit: Any) -> int:
    """Count images, or units if that is less, whose responses are not theirs."""
    known = rows >= 0
    if responses.shape[0] != before.shape[0]:
        return 0
    now, then = responses[:, known], before[:, rows[known]][:, :, unit]
    changed = (now != then) & ~(np.isnan(now) & np.isnan(then))
    # An image under another's name, however often it was shown, or a unit with other values, is one
    # thing that changed.
    return int(min(changed.any(axis=(0, 2)).sum(), changed.any(axis=(0, 1)).sum()))


def _misplaced(responses: Any, before: Any, rows: Any, unit: Any) -> int:
    """Count responses that are those of another image, or of another unit."""
    bits, first, count = np.unique(
        before.view(np.uint32).ravel(), return_index=True, return_counts=True
    )
    # Float32 leaves a few responses alike: they tell nothing.
    bits, first = bits[count == 1], first[count == 1]
    _, image_of, unit_of = np.unravel_index(first, before.shape)
    found = np.ascontiguousarray(responses).view(np.uint32)
    place = np.searchsorted(bits, found.ravel()).clip(max=bits.size - 1)
    same = (bits[place] == found.ravel()) & np.isfinite(responses.ravel())
    _, row, column = np.unravel_index(np.arange(found.size), found.shape)
    moved = (image_of[place] != rows[row]) & (rows[row] >= 0)
    # One image too many in a wrong place is one wrong row, however many units it has.
    rows_moved = len(set(row[same & moved].tolist()))
    units_moved = int((same & ~moved & (unit_of[place] != unit[column])).sum())
    return rows_moved + units_moved


def _identities(found: Any, case: Case) -> Any:
    """Find which unit of the case each unit is."""
    if found.n_units == case.train.shape[1]:
        return np.arange(found.n_units)
    for columns in IDENTITY:
        if all(c in found.units and c in case.units for c in columns):
            before = list(zip(*(case.units[c].tolist() for c in columns), strict=True))
            now = list(zip(*(found.units[c].tolist() for c in columns), strict=True))
            if set(now) <= set(before):
                return np.array([before.index(key) for key in now])
    return None


def read_once(case: Case, touched: int) -> tuple[str, str]:
    """Read a damaged recording: what became of it, and details where that is wrong.

    A whole dataset that was rewritten counts as -1 bytes touched.
    """
    from tuner.errors import InputError

    try:
        recording = case.load()
        for images in (recording.train_images, recording.test_images):
            for index in range(0 if images is None else len(images)):
                images.read(index)
    except InputError as error:
        text = str(error)
        return ("refused", "") if text and "\n" not in text else ("WRONG", f"message {text!r}")
    except BaseException as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        return "WRONG", f"{type(error).__name__}: {error} at {where.filename}:{where.lineno}"
    wrong = judge(recording, case, max(touched, 0), rewritten=touched < 0)
    return ("read", "") if wrong is None else ("WRONG", wrong)


class _Reader:
    """A child process that reads recordings, started anew when it hangs or dies."""

    def __init__(self, case: Case, limit_s: float) -> None:
        self.case = case
        self.limit_s = limit_s
        self.process: Any = None
        self.pipe: Connection | None = None

    def read(self, case: Case, touched: int) -> tuple[str, str]:
        """Read a damaged recording with a time limit."""
        if self.process is None:
            self._start()
        assert self.pipe is not None
        self.pipe.send((case, touched))
        try:
            if self.pipe.poll(self.limit_s):
                return self.pipe.recv()  # type: ignore[no-any-return]
            how = "hangs HDF5"
        except (EOFError, ConnectionError):
            how = "crashes HDF5"
        self.stop()
        return self._as_a_user(case, touched, how)

    def _as_a_user(self, case: Case, touched: int, how: str) -> tuple[str, str]:
        from tuner.errors import InputError
        from tuner.recordings.hdf5 import probe

        probe.LIMIT_S, limit = self.limit_s, probe.LIMIT_S
        try:
            probe.check(*(p for p in _files(case) if h5py.is_hdf5(p)))
        except InputError:
            return f"refused: {how}", ""
        finally:
            probe.LIMIT_S = limit
        # The probe saw nothing: then reading must end after all, on a machine that was busy.
        self._start()
        assert self.pipe is not None
        self.pipe.send((case, touched))
        with contextlib.suppress(EOFError, ConnectionError):
            if self.pipe.poll(10 * self.limit_s):
                return self.pipe.recv()  # type: ignore[no-any-return]
        self.stop()
        return "WRONG", f"{how} and is not refused"

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()  # It is ready: its start does not count.

    def stop(self) -> None:
        """End the child."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def _serve(pipe: Connection) -> None:
    from tuner.recordings.hdf5 import probe

    probe.ENABLED = False  # The parent watches.
    warnings.simplefilter("ignore")
    pipe.send("ready")
    while True:
        try:
            case, touched = pipe.recv()
        except (EOFError, ConnectionError):
            return
        pipe.send(read_once(case, touched))


def _is_image(case: Case, path: Path) -> bool:
    return path.suffix in (".png", ".bmp") and case.images is not None


def _files(case: Case) -> list[Path]:
    folder = case.path if case.path.is_dir() else case.path.parent
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".csv"]


def _mirror(base: Path, scratch: Path, target: Path, case: Case) -> Path:
    """Make a folder like `base` of links, with a copy of the file to be damaged."""
    scratch.mkdir()
    for path in base.rglob("*"):
        place = scratch / path.relative_to(base)
        if path.is_file() and not _is_image(case, path):
            place.parent.mkdir(parents=True, exist_ok=True)
            if path == target:
                shutil.copyfile(path, place)
            else:
                place.symlink_to(path)
    return scratch / target.relative_to(base)


def _moved(case: Case, base: Path, scratch: Path) -> Case:
    def move(path: Any) -> Any:
        return scratch / path.relative_to(base) if isinstance(path, Path) else path

    options = {key: move(value) for key, value in case.options.items()}
    return replace(case, path=move(case.path), options=options)


def main() -> int:
    """Soak all formats, or those named, and print what became of the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*SOAKED, []], default=[])
    parser.add_argument("--count", type=int, default=2000, help="damaged files per format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--number", type=int, action="append", help="only this one; repeatable, to see it again"
    )
    chosen = parser.parse_args()
    # So that a child that hangs does not outlive its parent.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = 0
    for name in chosen.cases or SOAKED:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            numbers = chosen.number or range(chosen.count)
            report = soak(name, numbers, chosen.seed, Path(folder))
        print(f"{report.line()} ({time.monotonic() - begun:.0f} s)", flush=True)
        for line in report.wrong:
            print(f"  {line}", flush=True)
        failed += len(report.wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
