"""The table ``[search]``: how settings are chosen, and which are possible."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_serializer, field_validator

from studies.config.keys.table import Count, Seed, Table
from studies.config.ranges import Space, parse_spaces, plain_space


def _warm(value: object) -> object:
    """Take the words, and what the releases before wrote."""
    if value is True:
        return "neighbour"
    if value is False or value in ("finished", "neighbour"):
        return value
    raise ValueError('must be "finished", "neighbour" or false')


class SearchConfig(Table):
    """``[search]``: how settings are chosen, and which are possible."""

    sampler: Literal["tpe", "random"] = Field("tpe", description="what proposes settings")
    proposals: Literal["tuner", "optuna"] = Field(
        "tuner",
        description="who computes what tpe proposes: tuner, a round's trials at once, or optuna's own sampler, "
        "as before; they differ by rounding alone, and in time",
    )
    pruner: Literal["median", "none"] = Field(
        "median", description="what stops trials that do worse than the others"
    )
    rungs: Literal["auto", "reports"] = Field(
        "auto",
        description="where trials are stopped: at a fifteenth of the steps the worst quarter of all trials that "
        "reached it, at a sixth and a third the worse half; or by the median rule at every report from 30 % on, as before",
    )
    parallel_trials: Count = Field(
        8, description="trials of a study that are asked together: a round"
    )
    keep: Count = Field(3, description="best trials of a study whose weights are kept")
    warm_start: Annotated[Literal["finished", "neighbour", False], BeforeValidator(_warm)] = Field(
        "finished",
        description="a study's first trials: the best settings of up to 8 others of its readout, nearest "
        "first, which are begun before it, where they are fewer also settings known to be good; "
        "neighbour: the first trial of its second round is the best "
        "of the next shallower layer, as before (true means this too); false: nothing is taken over",
        json_schema_extra={"words": '"finished" or "neighbour" or false'},
    )
    seed: Seed = Field(0, description="seed of sampler, initial weights and batches")
    space: dict[str, Space] = Field(
        default_factory=dict,
        description="one table per readout that is to be tried; where none is given, all",
    )

    @field_validator("space", mode="plain")
    @classmethod
    def _space(cls, document: object) -> dict[str, Space]:
        return parse_spaces(document)

    @field_serializer("space")
    def _plain_space(self, space: dict[str, Space]) -> dict[str, dict[str, object]]:
        return {readout: plain_space(settings) for readout, settings in space.items()}
