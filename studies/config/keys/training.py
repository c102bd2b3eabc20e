"""The table ``[training]``: how one trial is fitted, the same for all."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from studies.config.keys.table import Count, Table
from studies.config.ranges import problem
from studies.config.values import Device, Memory

MAX_FOLDS = 100


def _folds(value: object) -> object:
    """Take the word, or a number that leaves each fold an image or more."""
    if value == "auto":
        return value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_FOLDS:
        raise ValueError(f'must be "auto" or an integer from 1 to {MAX_FOLDS}')
    return value


Folds = Annotated[int | Literal["auto"], BeforeValidator(_folds)]


class TrainingConfig(Table):
    """``[training]``: how one trial is fitted, the same for all."""

    steps: Count = Field(900, description="optimiser steps of a trial")
    batch_size: Count = Field(50, description="images a step")
    report_every: Count = Field(
        45,
        description="steps between validations, one grid for all trials, from the last rung on where "
        "there are rungs; the last step is always reported",
    )
    loss: Literal["mse", "poisson"] = Field(
        "mse",
        description="squared error of z-scored responses, or Poisson likelihood of counts "
        "(output through ELU + 1)",
    )
    start: Literal["auto", "closed_form", "readout"] = Field(
        "auto",
        description="what columns begin with: the closed form that knows where each unit looks, or "
        "the readout's own start; auto: the closed form below 1,500 training images, on grids of at "
        "least 4 cells a side",
    )
    folds: Folds = Field(
        "auto",
        description="into how many parts the images are dealt, by group; each trial is fitted once "
        "without each part and judged on that part, its encoder is the average; 1 = one cut, by "
        "data.validation_fraction; auto = 5 below 4000 training images, else 1",
        json_schema_extra={"words": '"auto" or integer, at least 1'},
    )
    relative: bool = Field(
        True,
        description="whether validation losses are divided by that of predicting every unit's mean on "
        "the same images, so that a fit that is no better has a loss of 1; with folds and under "
        "poisson it is 1 without",
    )
    center: bool = Field(
        True,
        description="whether the mean over the images is taken from each feature; encoders read "
        "features as they are all the same",
    )
    size_invariant: bool = Field(
        True,
        description="whether learning rates and penalties mean the same at every size of a layer: they are what "
        "is written at one of 64 channels on 8 x 8 cells, and elsewhere multiplied by the root of a ratio of sizes, so "
        "that copies of the same features change nothing",
    )
    device: Device = Field(
        "auto",
        description="where it runs",
        json_schema_extra={"words": '"auto" or "cpu" or "cuda" or "cuda:0" or "mps"'},
    )
    memory: Memory = Field(
        "auto",
        description="what training may take on that device",
        json_schema_extra={"words": '"auto" or a size, such as "4GB"'},
    )

    @model_validator(mode="after")
    def _reports_before_the_end(self) -> Self:
        if self.report_every > self.steps:
            raise problem(
                "report_every",
                f"must be at most training.steps ({self.steps}), not {self.report_every}",
            )
        return self
