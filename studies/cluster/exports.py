"""``tuner export --on``: studies are scored, and encoders made, by workers; the same bytes come of it.

The coordinator reads kept weights and sends them by value. What comes back is put together and written by the code that
does so without workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from studies.cluster import messages
from studies.cluster.engine import Engine
from studies.cluster.evaluating import pack_weights, scored_of
from studies.cluster.spread import Job, Spread
from studies.database.artifacts import UnreadableWeights
from studies.export.encoders import WRITING
from studies.results.encoders import Best, Whole, each
from studies.results.scores import Scored, loss_of, shown

if TYPE_CHECKING:
    from tuner.encoder import EncoderFiles

Say = Callable[[str], None]


def scores_on(
    engine: Engine, say: Say, opened: Sequence[Best]
) -> Iterator[tuple[Whole | None, Scored | None]]:
    """Score studies on workers; a :data:`studies.results.scores.Scorer`, engine and listener given."""
    ready = [i for i, best in enumerate(opened) if best.summary.best is not None]
    notes: dict[int, Whole] = {}

    def message(place: int) -> bytes:
        best = opened[place]
        kept = shown(best)
        header = _about(best)
        if kept is None:
            return messages.pack(header | {"lost": True})
        notes[place] = Whole(kept.trial, {}, kept.note)
        header |= {"value": loss_of(best, kept), "finished": best.summary.finished}
        return pack_weights(header, kept.parameters)

    jobs = [Job("score", _layer(opened[i]), partial(message, i)) for i in ready]
    came: dict[int, bytes] = {}
    answers = Spread(opened[0].workspace, engine, jobs, say).answers() if jobs else iter(())
    for place, best in enumerate(opened):
        if best.summary.best is None:
            yield None, None
            continue
        while place not in came:
            number, answer = next(answers)
            came[ready[number]] = answer
        worth = scored_of(came.pop(place))
        if worth is None:
            yield None, None
            continue
        kept = notes.pop(place)
        number_kept = None if best.spec.closed_form else kept.trial.number
        # Read again: all weights together would fill the memory.
        yield Whole(kept.trial, best.parameters(number_kept), kept.note), worth


def encoders_on(
    engine: Engine, say: Say, ready: Sequence[Best], per_unit: bool, with_backbone: bool
) -> Iterator[tuple[Best, EncoderFiles]]:
    """Make encoders on workers; a :data:`studies.export.encoders.Encoding`, engine and listener given."""
    from tuner.encoder import EncoderFiles

    workspace = ready[0].workspace

    def message(best: Best) -> bytes:
        try:
            what = best.ingredients(per_unit=per_unit)
        except UnreadableWeights as error:
            return messages.pack(_about(best) | {"lost": str(error)})
        tensors = {f"parameters/{name}": value for name, value in what.parameters.items()}
        tensors |= {f"own/{name}": value for name, value in (what.own or {}).items()}
        how = {"trial": what.trial, "value": what.value, "with_backbone": with_backbone}
        how |= {"judged": what.judged, "finished": what.finished}
        return pack_weights(_about(best) | how, tensors)

    def encode(pair: tuple[Best, messages.Message]) -> EncoderFiles:
        header, tensors = pair[1].header, pair[1].tensors
        if "lost" in header:
            raise UnreadableWeights(header["lost"])
        return EncoderFiles(*(tensors[name].numpy().tobytes() for name in ("tensors", "text")))

    jobs = [Job("encode", _layer(best), partial(message, best)) for best in ready]

    def made() -> Iterator[tuple[Best, messages.Message]]:
        for done, (number, answer) in enumerate(Spread(workspace, engine, jobs, say).answers(), 1):
            yield ready[number], messages.unpack(answer)
            workspace.progress(WRITING, done, len(jobs))

    for (best, _), files in each(made(), encode):
        yield best, files


def _about(best: Best) -> dict[str, Any]:
    """What every message says: which study it is about, and whether the worker's cache is its own."""
    own_cache = best.workspace.experiment.cluster.cache is not None
    return {"studies": [messages.plain_study(best.stored)], "own_cache": own_cache}


def _layer(best: Best) -> tuple[str, str]:
    return best.spec.key.backbone, best.spec.key.layer
