"""Commented config files to start from, one ``.toml`` each."""

from __future__ import annotations

from importlib.resources import files

from tuner.errors import unknown


def template_names() -> list[str]:
    """List the templates."""
    names = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def read_template(name: str) -> str:
    """Read a template.

    Parameters
    ----------
    name
        One of :func:`template_names`.

    Returns
    -------
    str
        The text of a ``tuner.toml``.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in template_names():
        raise unknown("template", name, template_names())
    return files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
