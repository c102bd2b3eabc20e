"""Write the parts of the documentation that are made from the code: ``make reference``.

Between ``<!-- generated: cli -->`` and ``<!-- end -->`` stands the command line, after ``<!-- generated: config -->`` the
keys of ``tuner.toml``, and after ``<!-- generated: ecoset -->`` the layers of the networks that ecoset weights exist for.
They are kept in the pages, so that they can be read where nothing was built; a test holds that they are what the code says.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent

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
    """Write anew what stands between the markers of a page."""
    return re.sub(
        r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{PARTS[found[2]]().strip()}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def pages() -> Iterator[Path]:
    """Every page that holds a marker."""
    for page in sorted(DOCS.rglob("*.md")):
        if "<!-- generated: " in page.read_text(encoding="utf-8"):
            yield page


def write() -> None:
    """Write every such page anew."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        filled = fill(text)
        if filled != text:
            page.write_text(filled, encoding="utf-8")
            print(f"wrote {page.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent))  # the commands of this checkout
    write()
