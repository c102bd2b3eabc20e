"""Names of studies: ``backbone/layer/region/readout``, safe as a path and reversible."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote


def escape(part: str) -> str:
    """Percent-escape one part, so that it can be a folder's name and holds no slash.

    Dots are escaped only where they would make the part ``.`` or ``..``.
    """
    if not part.strip("."):
        return part.replace(".", "%2E")
    return quote(part, safe=" !#$&'()+,;=@[]{}~^")


@dataclass(frozen=True, order=True)
class StudyKey:
    """The combination that a study is about."""

    backbone: str
    layer: str
    region: str
    readout: str

    @property
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
