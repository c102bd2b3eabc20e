"""Names of studies: ``backbone/layer/region/readout``, safe as a path and reversible."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, unquote

from tuner.errors import InputError

Place = tuple[str, str, str]
"""Backbone, layer and region."""


def escape(part: str) -> str:
    """Percent-escape one part, so that it can be a folder's name and holds no slash.

    Dots are escaped only where they would make the part ``.`` or ``..``.
    """
    if not part.strip("."):
        return part.replace(".", "%2E")
    return quote(part, safe=" !#$&'()+,;=@[]{}~^")


LONGEST_PART, LONGEST_NAME = 255, 512
"""Bytes of a folder's name on most file systems, and of a study's name in the database."""


def refuse_names(names: Iterable[str], config: object) -> None:
    """Refuse names that are no folder's, do not fit into the database, or differ only in upper and lower case.

    Parameters
    ----------
    names
        Of studies, each once.
    config
        The config file, which is named.

    Raises
    ------
    InputError
        Naming the part and its length, or the two names.
    """
    seen: dict[str, str] = {}
    for name in names:
        part = max(name.split("/"), key=len)
        if len(part) > LONGEST_PART:
            raise InputError(
                f"{config}: {unquote(part)[:40]}... takes {len(part)} bytes as a folder's name and "
                f"{LONGEST_PART} are allowed; shorten the region, the alias or the layer"
            )
        if len(name) > LONGEST_NAME:
            raise InputError(
                f"{config}: study {name[:60]}... has a name of {len(name)} bytes and "
                f"{LONGEST_NAME} are allowed; shorten the region or the alias"
            )
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise InputError(
                f"{config}: studies {other} and {name} differ only in upper and lower case, which is "
                "one folder on some file systems; rename a region or alias"
            )


@dataclass(frozen=True, order=True)
class StudyKey:
    """The combination that a study is about."""

    backbone: str
    layer: str
    region: str
    readout: str

    @property
    def place(self) -> Place:
        """What it is about but for the readout."""
        return self.backbone, self.layer, self.region

    @cached_property
    def name(self) -> str:
        """Name of the study; also the folder of its outputs."""
        return "/".join(map(escape, (self.backbone, self.layer, self.region, self.readout)))

    @classmethod
    def parse(cls, name: str) -> StudyKey:
        """Read a name back.

        Raises
        ------
        ValueError
            If it has not four parts.
        """
        backbone, layer, region, readout = map(unquote, name.split("/"))
        return cls(backbone, layer, region, readout)


@dataclass(frozen=True)
class Combination:
    """What a study is about, and where its layer lies: its number in depth order."""

    key: StudyKey
    layer_index: int

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.key.name

    @property
    def cohort(self) -> tuple[str, str, str]:
        """Backbone, layer and readout: studies that share them read the same features and train together."""
        return (self.key.backbone, self.key.layer, self.key.readout)

    @property
    def claim(self) -> str:
        """Name of the claim that work on its cohort takes."""
        return "\0".join(self.cohort)

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that every table of studies has."""
        key = self.key
        return {
            "backbone": key.backbone,
            "layer": key.layer,
            "layer_index": self.layer_index,
            "region": key.region,
            "readout": key.readout,
        }
