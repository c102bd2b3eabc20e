"""Ways that are searched: by the command itself, in a folder of its own, as shipped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd

from cli.main import main


def run(folder: Path, *words: str) -> float:
    """CPU seconds of a command."""
    begin = time.process_time()
    if main(["-q", "-c", str(folder / "tuner.toml"), *words]):
        raise SystemExit(f"error: {folder}: tuner {' '.join(words)} ended with an error")
    return time.process_time() - begin


def search(folder: Path, layer: str, readout: str, trials: int) -> tuple[pd.DataFrame, int, float]:
    """Search a layer's studies of a readout, and score the best trials on the test images.

    Returns
    -------
    tuple
        Rows of ``units.csv``, finished trials of a study, and CPU seconds of the search.
    """
    chosen = ("--layer", layer, "--readout", readout)
    run(folder, "study", "create", *chosen)
    seconds = run(folder, "optimize", "--n-trials", str(trials), *chosen)
    units, studies = export(folder, f"{layer}.{readout}", *chosen)
    return units, int(studies["n_trials"].max()), seconds


def stack(folder: Path, *words: str) -> tuple[pd.DataFrame, int]:
    """Units of the stacked encoder of all studies that a folder has, and how many studies these are."""
    units, studies = export(folder, "stacked", "--stacked", *words)
    return units[units["readout"] == "stacked"], int((studies["readout"] != "stacked").sum())


def export(folder: Path, name: str, *words: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``units.csv`` and ``heatmap.csv``."""
    out = folder / "exports" / name
    run(folder, "export", "heatmap", "-o", str(out), *words)
    text: dict[str, Any] = {"layer": str, "region": str}
    return pd.read_csv(out / "units.csv", dtype=text), pd.read_csv(out / "heatmap.csv", dtype=text)
