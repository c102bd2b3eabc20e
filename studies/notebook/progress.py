"""How far things are, in a notebook: bars that tqdm draws."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from studies.search.listener import Listener
from tuner.progress import PerCent

_SHARE = "{l_bar}{bar}| [{elapsed}<{remaining}]"
"""How tqdm writes what is told in per cent: without "40/100"."""


class Bars:
    """A bar for each thing that takes long, gone when it is done.

    Parameters
    ----------
    quiet
        Whether nothing is shown.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bars: dict[str, Any] = {}

    def update(self, what: str, done: int, total: int) -> None:
        """Say how far a thing is."""
        if self.quiet:
            return
        if what not in self._bars:
            form = _SHARE if isinstance(total, PerCent) else None
            self._bars[what] = _tqdm()(total=total, desc=what, leave=False, bar_format=form)
        bar = self._bars[what]
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            self._bars.pop(what).close()

    def say(self, message: str) -> None:
        """Print a line."""
        if not self.quiet:
            print(message)

    def close(self) -> None:
        """Take away what was interrupted."""
        while self._bars:
            self._bars.popitem()[1].close()


def _tqdm() -> Any:
    """Tqdm as the notebook shows it best; without ipywidgets as text, and without its warning."""
    if "ipykernel" in sys.modules and find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm
    else:
        from tqdm import tqdm
    return tqdm


class Watched(Listener):
    """Shows how a search goes in bars."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.target = 0

    def started(self, finished: int, target: int) -> None:
        """Begin the bar at what is there already."""
        self.target = target
        if finished < target:
            self.bars.update("trials", finished, target)

    def training(self, what: str, trials: int, step: int, steps: int, running: int) -> None:
        """Show how far the round is."""
        self.bars.update(f"{what}: {trials} trials", step, steps)

    def told(self, finished: int) -> None:
        """Advance the bar."""
        self.bars.update("trials", finished, self.target)

    def say(self, message: str) -> None:
        """Print a line."""
        self.bars.say(message)


def show_figures() -> None:
    """Have the notebook that this runs in show figures as pictures, also without pyplot."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and "ipykernel" in sys.modules:
        import_module("IPython.core.pylabtools").select_figure_formats(shell, {"png"})
