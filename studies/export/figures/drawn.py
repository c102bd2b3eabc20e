"""What ``tuner export figures`` draws, how, and what came of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.figures.style import ThemeName, WidthName

OF_STUDIES = ("curves", "importance", "slices", "weights")
OF_REGIONS = ("units_by_readout", "units_by_layer", "best_layer_by_region")
FIGURES = (*OF_STUDIES, *OF_REGIONS)
"""What their files are called, without a suffix and the region."""


@dataclass
class Drawn:
    """What was written, and what was not and why.

    Attributes
    ----------
    wanted
        Of :data:`FIGURES`.
    paths
        Files, PNG and SVG.
    skipped
        Reason to the figures that it is the reason for.
    """

    wanted: Collection[str] = FIGURES
    paths: list[Path] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, figure: str, reason: str) -> None:
        """Note a figure that cannot be drawn."""
        self.skipped.setdefault(reason, []).append(figure)

    def notes(self) -> list[str]:
        """A line per reason."""
        out = []
        for reason, figures in self.skipped.items():
            more = f" and {len(figures) - 3} more" if len(figures) > 3 else ""
            out.append(f"not drawn: {', '.join(figures[:3])}{more}: {reason}")
        return out


@dataclass(frozen=True)
class Look:
    """How figures are drawn."""

    theme: ThemeName
    width: WidthName | None
    simulated: bool

    def options(self, *, width: bool = True) -> dict[str, Any]:
        """Arguments of a figure; not all have a width that can be chosen."""
        out: dict[str, Any] = {"theme": self.theme, "simulated": self.simulated}
        return out | {"width": self.width} if width else out
