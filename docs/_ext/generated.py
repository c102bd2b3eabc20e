"""Reference pages that are made from the code, so that they cannot differ from it.

A page that holds ``<!-- generated: cli -->`` gets the command line there, one that holds ``<!-- generated: config -->`` the
keys of ``tuner.toml``, and ``<!-- generated: ecoset -->`` the layers of the networks that ecoset weights exist for.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

ECOSET = {
    "alexnet": "t6h3c",
    "vgg16": "z5uf3",
    "vgg16_bn": "fe7s5",
    "resnet50": "gd9kn",
    "inception_v3": "zn24d",
}
"""Network to the project on osf.io that holds its weights (Mehrer et al. 2021, as listed by thingsvision)."""


def commands() -> Iterator[tuple[str, ...]]:
    """Every command that does something, as the words that are typed."""
    from cli.main import COMMANDS, load

    for name in COMMANDS:
        below = getattr(load(name), "commands", None)
        yield from ((name, sub) for sub in below) if below else ((name,),)


def help_of(*words: str) -> str:
    """What ``--help`` prints, 80 columns wide wherever it is printed."""
    from cli.main import main

    shown = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        with contextlib.redirect_stdout(shown):
            main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return "\n".join(line.rstrip() for line in shown.getvalue().strip().splitlines())


def cli() -> str:
    """Write the command line as Markdown: the help of every command."""
    parts = [("tuner", help_of())]
    parts += [(" ".join(("tuner", *words)), help_of(*words)) for words in commands()]
    return "\n".join(f"## {title}\n\n```text\n{text}\n```\n" for title, text in parts)


def config() -> str:
    """Write the keys of ``tuner.toml`` as Markdown."""
    from studies.config.reference import render_reference

    return render_reference()


def ecoset() -> str:
    """Write which layers belong to which network with ecoset weights."""
    from tuner.backbones import load_backbone

    rows = ['| `name` | weights | layers of `"all"`, in depth order |', "|---|---|---|"]
    for name, project in ECOSET.items():
        layers = ", ".join(f"`{layer}`" for layer in load_backbone(name, "random").layers)
        rows.append(f"| `{name}` | `https://osf.io/{project}/download` | {layers} |")
    return "\n".join(rows)


PARTS: dict[str, Callable[[], str]] = {"cli": cli, "config": config, "ecoset": ecoset}


def fill(text: str) -> str:
    """Replace every marker of a page."""
    return re.sub(r"<!-- generated: (\w+) -->", lambda found: PARTS[found.group(1)](), text)


def _on_source(app: Any, page: str, source: list[str]) -> None:
    source[0] = fill(source[0])


def _plain_references(
    app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]
) -> None:
    """Turn the numbered references of a docstring into a list: a page holds many docstrings, each with its own 1."""
    out: list[str] = []
    within = False
    for line in lines:
        reference = re.match(r"\.\. (\[\d+\]) (.*)", line)
        if reference:
            out.append(f"- {reference[1]} {reference[2]}")
        elif within and line.startswith("   "):
            out.append(f"  {line.strip()}")
        else:
            out.append(re.sub(r"(\[\d+\])_(?!\w)", r"\1", line))
        within = bool(reference) or (within and line.startswith("   "))
    lines[:] = out


def setup(app: Any) -> dict[str, Any]:
    """Fill markers while pages are read, and write references out."""
    app.connect("source-read", _on_source)
    app.connect("autodoc-process-docstring", _plain_references, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
