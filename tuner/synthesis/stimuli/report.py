"""What ``stimuli score`` writes: tables and figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tuner.atomic import write_bytes
from tuner.errors import EnvironmentFailure
from tuner.figures.style import save
from tuner.figures.tables import write_csv
from tuner.synthesis.stimuli import figures
from tuner.synthesis.stimuli.answers import Answers
from tuner.synthesis.stimuli.manifest import Folder
from tuner.synthesis.stimuli.score import PREFERENCE_COLUMNS, Scores


def write_scores(out: str | Path, folder: Folder, answers: Answers, scores: Scores) -> list[Path]:
    """Write tables and figures of a scored session.

    Parameters
    ----------
    out
        Folder; made if need be.
    folder, answers, scores
        The stimuli, what was recorded, and the scores.

    Returns
    -------
    list of Path
        ``summary.csv``, ``prediction.csv``, ``preference.csv``, ``selectivity.csv``,
        ``notes.json`` and, as PNG and SVG, ``predicted_<encoder>``, ``own_<study>`` and
        ``selectivity_<study>``.

    Raises
    ------
    EnvironmentFailure
        If the folder cannot be written.
    """
    out = Path(out)
    try:
        paths = [
            _table(scores.summary, out / "summary.csv"),
            _table(scores.prediction, out / "prediction.csv"),
            write_csv(scores.preference, PREFERENCE_COLUMNS, out / "preference.csv"),
            write_csv(
                _selectivity_rows(scores),
                ("study", "kind", "image_for", "unit", "z"),
                out / "selectivity.csv",
            ),
            write_bytes(out / "notes.json", _notes(folder, answers)),
        ]
        for encoder in dict.fromkeys(str(row["encoder"]) for row in scores.prediction):
            figure = figures.predicted_against_measured(folder, answers, scores, encoder)
            paths += save(figure, out / f"predicted_{_safe(encoder)}")
        for row in scores.summary:
            study = str(row["study"])
            if row["n_units"]:
                figure = figures.own_against_natural(folder, scores, study)
                paths += save(figure, out / f"own_{_safe(study)}")
            matrix = figures.who_responds(folder, scores, study)
            if matrix is not None:
                paths += save(matrix, out / f"selectivity_{_safe(study)}")
    except OSError as error:
        raise EnvironmentFailure(f"cannot write scores to {out}: {error}") from error
    return paths


def _table(rows: list[dict[str, Any]], path: Path) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return write_csv(rows, columns, path)


def _selectivity_rows(scores: Scores) -> list[dict[str, Any]]:
    return [
        {
            "study": study,
            "kind": kind,
            "image_for": int(found.units[i]),
            "unit": int(found.units[j]),
            "z": float(found.z[i, j]),
        }
        for (study, kind), found in scores.selectivity.items()
        for i in range(len(found.units))
        for j in range(len(found.units))
    ]


def _notes(folder: Folder, answers: Answers) -> bytes:
    repeats, images, units = answers.responses.shape
    content = {
        "simulated": folder.simulated,
        "stimuli": str(folder.path),
        "repeats": repeats,
        "images": images,
        "units": units,
        "notes": list(answers.notes),
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "study"
