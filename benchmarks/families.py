"""Every family of timm's: does ``layers = "all"`` work, and if not, what is said.

``python -m benchmarks.families -o PAGE.md`` loads the smallest member of every file of timm's that holds networks, with
random weights, for the smallest images that it takes, and runs one image through all of its layers. Nothing is
downloaded. ``--only NAME`` (repeatable) tries some families and writes no page.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.machine import publish
from tuner.backbones import load_backbone
from tuner.backbones.timm_models import PREFIX, timm
from tuner.errors import InputError

SIZES = (64, 128, 224)
"""Sides of the images that are tried, px, before the network's own."""
CANDIDATES = 8
"""Members of a family that are built, without storage, to find the smallest."""
_UNKNOWN = 1 << 60
LARGEST = 300e6
"""Parameters beyond which a network is not tried."""
_SMALL = (
    "test",
    "atto",
    "femto",
    "pico",
    "nano",
    "zepto",
    "xxt",
    "xxs",
    "tiny",
    "xs",
    "mini",
    "small",
    "lite",
)


@dataclass(frozen=True)
class Tried:
    """What came of one family.

    Attributes
    ----------
    layers
        How many layers ``"all"`` means; 0 where it was refused.
    said
        The refusal, or how a defect ended; empty where it works.
    refused
        Whether it ended in one line for the user, and not in a defect.
    """

    family: str
    network: str
    size: int
    layers: int
    said: str = ""
    refused: bool = False


def families() -> dict[str, list[str]]:
    """File of networks to its members; a name that several files have belongs to the first."""
    found: dict[str, list[str]] = {}
    for module in timm().list_modules():
        members = timm().list_models(module=module)
        if members:
            found[module] = members
    return found


def smallest(members: Iterable[str]) -> str:
    """The member with the fewest parameters, of those whose names promise it."""
    hopeful = sorted(members, key=_promise)[:CANDIDATES]
    return min(hopeful, key=_parameters)


def _promise(name: str) -> tuple[int, int, str]:
    words = [rank for rank, word in enumerate(_SMALL) if re.search(rf"(^|_|\d){word}", name)]
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return min(words, default=len(_SMALL)), min(numbers, default=0), name


def _parameters(name: str) -> int:
    try:
        with torch.device("meta"):
            module: nn.Module = timm().create_model(name, pretrained=False)
    except Exception:  # whatever it is that this one's constructor cannot do without storage
        return _UNKNOWN
    return sum(parameter.numel() for parameter in module.parameters())


def attempt(family: str, network: str) -> Tried:
    """Load a network for the smallest images that it takes, and run one image through all its layers."""
    own = int(timm().models.get_pretrained_cfg(network).input_size[-1])
    tried = Tried(family, network, own, 0, "nothing was tried")
    for size in sorted({*(size for size in SIZES if size < own), own}):
        try:
            backbone = load_backbone(f"{PREFIX}{network}", "random", image_size=size)
            described = backbone.describe("all", size)
            image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                found = backbone.features(image, backbone.layers)
            for info in described:
                shape = (1, info.channels, info.height, info.width)
                if tuple(found[info.name].shape) != shape or not found[info.name].isfinite().all():
                    raise AssertionError(f"{info.name} is not as described")
        except InputError as error:
            tried = Tried(family, network, size, 0, str(error), refused=True)
        except Exception as error:  # a defect, which is what is looked for
            tried = Tried(family, network, size, 0, f"{type(error).__name__}: {error}")
        else:
            return Tried(family, network, size, len(described))
    return tried


def sweep(only: Iterable[str] = ()) -> Iterator[Tried]:
    """Try the families."""
    wanted = set(only)
    for family, members in families().items():
        if wanted and family not in wanted:
            continue
        network = smallest(members)
        count = _parameters(network)
        if LARGEST < count < _UNKNOWN:
            yield Tried(
                family, network, 0, 0, f"not tried: {count / 1e6:.0f} million parameters", True
            )
        else:
            yield attempt(family, network)


def page(rows: list[Tried]) -> str:
    """The page."""
    works = [row for row in rows if row.layers]
    lines = [
        "# Families of timm's",
        "",
        f"`python -m benchmarks.families`, timm {timm().__version__}, torch {torch.__version__}. The smallest "
        "member of each of timm's files of networks, random weights, one image through all layers at the smallest size of "
        f"{', '.join(map(str, SIZES))} px and its own that works.",
        "",
        f'`layers = "all"` works for {len(works)} of {len(rows)} families.',
        "",
        "| family | network | px | layers | refused |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.family} | {row.network} | {row.size} | {row.layers or ''} | {row.said.replace('|', '/')} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try all families and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--only", action="append", default=[])
    arguments = parser.parse_args()
    rows = []
    for row in sweep(arguments.only):
        rows.append(row)
        print(row, flush=True)
    if arguments.out:
        publish(page(rows), arguments.out)


if __name__ == "__main__":
    main()
