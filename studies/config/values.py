"""Values of ``tuner.toml`` that are written as text: paths, sizes, devices, addresses."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)

POSTGRES = "postgresql+psycopg://"
SQLITE = "sqlite:///"
WEIGHT_FILES = (".pth", ".pt", ".safetensors", ".tar", ".bin")


_BYTES = TypeAdapter(ByteSize)


def _folder(info: ValidationInfo) -> Path:
    """Return the folder that relative paths start from."""
    context = info.context
    return Path(context["folder"]) if isinstance(context, Mapping) else Path()


def _resolve(value: object, info: ValidationInfo) -> object:
    """Turn text into a path that starts at the config file's folder."""
    if isinstance(value, Path):
        return _folder(info) / value
    if not isinstance(value, str):
        return value  # pydantic names the wrong type
    if not value or "\0" in value:
        raise ValueError("must be a path")
    return _folder(info) / Path(value).expanduser()


ConfigPath = Annotated[Path, BeforeValidator(_resolve)]


def parse_size(text: object) -> int:
    """Read an amount of memory or disk.

    Parameters
    ----------
    text
        A number and a unit, such as ``"4GB"`` (10^9 bytes each) or ``"1.5 GiB"`` (2^30 bytes each).

    Returns
    -------
    int
        Bytes, at least 1.

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> parse_size("4GB")
    4000000000
    """
    size = 0
    if isinstance(text, str) and re.fullmatch(r"\s*\d{1,15}(\.\d+)?\s*[kmgt]?i?b\s*", text, re.I):
        with contextlib.suppress(ValidationError):  # of units that nobody has
            size = int(_BYTES.validate_python(text))
    if size < 1:
        raise ValueError('must be a size above zero with its unit, such as "4GB" or "500MB"')
    return size


def _size(value: object) -> int:
    if isinstance(value, int | float):
        raise ValueError('must be a size with its unit in quotes, such as "4GB" or "500MB"')
    return parse_size(value)


def _memory(value: object) -> int | str:
    if value == "auto":
        return "auto"
    try:
        return _size(value)
    except ValueError as error:
        raise ValueError(f'{error}, or "auto"') from None


Size = Annotated[int, BeforeValidator(_size)]
Memory = Annotated[int | Literal["auto"], BeforeValidator(_memory)]


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
        raise ValueError('must be "auto", "cpu", "cuda", "cuda:0" (or another index) or "mps"')
    return value


Device = Annotated[str, AfterValidator(_device)]


def _weights(value: object, info: ValidationInfo) -> object:
    """Keep the two words, resolve anything that looks like a file."""
    if value in ("imagenet", "random") or not isinstance(value, str):
        return value
    if not value.endswith(WEIGHT_FILES) and "/" not in value and "\\" not in value:
        raise ValueError(
            'must be "imagenet", "random" or the path of a state_dict (.pth, .safetensors)'
        )
    return str(_resolve(value, info))


Weights = Annotated[str, BeforeValidator(_weights)]


def _name(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be a name of printable characters")
    return value


Name = Annotated[str, AfterValidator(_name)]


def _expand(text: str) -> str:
    """Put environment variables in, percent-encoded where they are a user name or a password."""
    start = text.find("://")
    end = text.rfind("@")

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise ValueError(f"names the environment variable {name}, which is not set")
        inside = 0 <= start < match.start() < end
        return quote(os.environ[name], safe="") if inside else os.environ[name]

    return re.sub(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", value, text)


def _url(value: object, info: ValidationInfo) -> object:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError('must be text, such as "sqlite:///tuner.db"')
    return SecretStr(parse_url(value, _folder(info)))


def parse_url(text: str, folder: Path) -> str:
    """Read the address of a database; no message repeats it, it can hold a password.

    Parameters
    ----------
    text
        The address as written, with environment variables.
    folder
        Where the path of an SQLite file starts.

    Returns
    -------
    str
        The address, its path absolute.

    Raises
    ------
    ValueError
        If it is none.
    """
    url = _expand(text)
    if url.startswith(SQLITE):
        return _sqlite(url.removeprefix(SQLITE), folder)
    if url.startswith(POSTGRES):
        try:
            _ = urlsplit(url).port
        except ValueError:
            raise ValueError(
                "is not an address: percent-encode special characters of user and password, "
                "and give the port as a number"
            ) from None
        return url
    if url.startswith(("postgres:", "postgresql:", "postgresql+")):
        raise ValueError('must start with "postgresql+psycopg://" for PostgreSQL')
    if url.startswith("sqlite:"):
        raise ValueError('must name a file, such as "sqlite:///tuner.db"')
    raise ValueError(
        'must be "sqlite:///FILE" or "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"'
    )


def _sqlite(rest: str, folder: Path) -> str:
    """Make the path in an SQLite address start at the config file's folder."""
    path, mark, query = rest.partition("?")
    if not path or path.startswith((":memory:", "file:")) or "\0" in path:
        raise ValueError('must name a file, such as "sqlite:///tuner.db"')
    absolute = str((folder / path).absolute())
    if "?" in absolute:
        raise ValueError("must not lie in a folder with a '?' in its name")
    return f"{SQLITE}{absolute}{mark}{query}"


StorageUrl = Annotated[SecretStr, BeforeValidator(_url)]


def redact(text: str) -> str:
    """Replace every password in addresses within a text by ``***``.

    Examples
    --------
    >>> redact("postgresql+psycopg://ann:secret@host/db?password=secret")
    'postgresql+psycopg://ann:***@host/db?password=***'
    """
    text = re.sub(r"(\w://[^\s:/@]*):[^\s/]*@", r"\1:***@", text)
    return re.sub(r"(?i)([?&](?:ssl)?passw(?:or)?d=)[^&\s]*", r"\1***", text)
