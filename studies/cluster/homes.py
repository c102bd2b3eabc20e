"""Which worker has which layers: features are extracted where they are used, once, and rounds go where theirs are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

Layer = tuple[str, str]
"""Backbone and layer."""

_SHARE = 0.9
"""Of the cache's limit that layers may take which are extracted in one sweep."""


class Homes:
    """Deals layers to workers as they come.

    Parameters
    ----------
    sizes
        Layer to the bytes of its features on disk, in the grid's order.
    limit
        What a cache may hold.
    shared
        Whether all workers have the same cache.
    """

    def __init__(self, sizes: Mapping[Layer, int], limit: int, *, shared: bool) -> None:
        self.shared = shared
        self._sizes = dict(sizes)
        self._limit = limit
        self._home: dict[Layer, str] = {}

    def of(self, layer: Layer) -> str | None:
        """Name of the worker that has a layer."""
        return self._home.get(layer)

    def choose(self, layer: Layer, idle: Collection[str], living: Collection[str]) -> str | None:
        """Name of the idle worker that a round of a layer goes to; None where its own worker is at work.

        Parameters
        ----------
        idle, living
            Names of the workers that have nothing to do, and of all.
        """
        home = self._home.get(layer)
        if home in idle:
            return home
        if home in living:
            return None
        counts = {name: sum(own == name for own in self._home.values()) for name in idle}
        return min(counts, key=lambda name: (counts[name], name), default=None)

    def settle(self, layer: Layer, name: str, wanted: int, living: Collection[str]) -> None:
        """Make a worker the home of a layer, and a newcomer that of its share of the layers that have none.

        Parameters
        ----------
        wanted
            Workers that there are to be.
        """
        if self._home.get(layer) in living:
            return  # another helps out
        settled = {own for own in self._home.values() if own in living}
        if name not in settled:
            free = [one for one in self._sizes if self._home.get(one) not in living]
            at = free.index(layer)
            share = max(1, wanted - len(settled))
            self._home |= dict.fromkeys([*free[at:], *free[:at]][::share], name)
        self._home[layer] = name

    def together(self, layer: Layer, name: str) -> Sequence[str]:
        """Layers of the same backbone that a worker extracts in one sweep with this one."""
        backbone = layer[0]
        mine = [one for one in self._sizes if one[0] == backbone and self._home.get(one) == name]
        # Where the others' layers lie in the same cache they have to fit too.
        counted = list(self._sizes) if self.shared else mine
        if layer not in mine or sum(self._sizes[one] for one in counted) > _SHARE * self._limit:
            return [layer[1]]
        return [one[1] for one in mine]
