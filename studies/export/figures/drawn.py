"""What ``tuner export figures`` draws, how, and what came of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.export.target import is_file
from tuner.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tuner.figures.captions import Basis
    from tuner.figures.style import ThemeName, WidthName

OF_STUDIES = ("curves", "importance", "slices", "weights")
OF_REGIONS = ("units_by_readout", "units_by_layer", "best_layer_by_region")
FIGURES = (*OF_STUDIES, *OF_REGIONS)
"""What their files are called, without a suffix and the region."""


@dataclass
class Drawn:
    """Where figures go and how they are drawn; what was written, and what was not and why.

    Attributes
    ----------
    out
        The folder that they go to, or the one file.
    simulated
        Whether the recording is.
    basis
        What scores rest on.
    wanted
        Which of :data:`FIGURES` are drawn.
    theme, width
        How figures are drawn; see :mod:`tuner.figures.style`.
    paths
        Files, PNG and SVG.
    only
        The one figure, where they go to one file.
    skipped
        Reason to the figures that it is the reason for.
    said
        What a reader of the figures has to know, a sentence each.
    """

    out: Path
    simulated: bool
    basis: Basis
    wanted: Collection[str] = FIGURES
    theme: ThemeName = "light"
    width: WidthName | None = None
    paths: list[Path] = field(default_factory=list)
    only: Figure | None = None
    skipped: dict[str, list[str]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def write(self, figure: Figure, name: str) -> None:
        """Write a figure.

        Parameters
        ----------
        figure
            What was drawn.
        name
            Its path in the folder, without a suffix.

        Raises
        ------
        InputError
            If it is the second, and there is one file for it only.
        """
        from tuner.figures.style import save

        if not is_file(self.out, ".png", ".svg"):
            self.paths += save(figure, self.out / name)
            return
        if self.only is not None:
            raise InputError(
                f"-o {self.out}: is one file, and there are several figures ({name} is the second); "
                "choose one by --only, --region and the like, or name a folder"
            )
        self.only = figure

    def finish(self) -> None:
        """Write the one figure, now that it is the only one."""
        from tuner.figures.style import save_as

        if self.only is not None:
            self.paths.append(save_as(self.only, self.out))

    def skip(self, figure: str, reason: str) -> None:
        """Note a figure that cannot be drawn."""
        self.skipped.setdefault(reason, []).append(figure)

    def say(self, sentence: str) -> None:
        """Tell the reader of the figures something, once."""
        if sentence not in self.said:
            self.said.append(sentence)

    def notes(self) -> list[str]:
        """What has to be known of the figures, and a line for each reason why some were not drawn."""
        out = list(self.said)
        for reason, figures in self.skipped.items():
            more = f" and {len(figures) - 3} more" if len(figures) > 3 else ""
            out.append(f"not drawn: {', '.join(figures[:3])}{more}: {reason}")
        return out

    def options(self, *, width: bool = True) -> dict[str, Any]:
        """Arguments of a figure; not all have a width that can be chosen."""
        out: dict[str, Any] = {"theme": self.theme, "simulated": self.simulated}
        return out | {"width": self.width} if width else out
