"""How docstrings get into the pages: their numbered references become a list."""

from __future__ import annotations

import re
from typing import Any


def plain_references(
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
    """Write references out while docstrings are read."""
    app.connect("autodoc-process-docstring", plain_references, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
