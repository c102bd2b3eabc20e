"""``tuner.toml``: what it may say, what is assumed where it says nothing, and how it is read."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from studies.config.errors import explain
from studies.config.keys import (
    BackboneConfig,
    ClusterConfig,
    DataConfig,
    SearchConfig,
    StorageConfig,
    Table,
    TrainingConfig,
)
from studies.config.networks import drawn, of_patterns
from studies.config.ranges import problem
from tuner.errors import InputError

DEFAULT_FILE = "tuner.toml"


class Experiment(Table):
    """Everything that ``tuner.toml`` says, checked, with paths that start at its folder."""

    data: DataConfig
    backbone: tuple[BackboneConfig, ...] = Field(strict=False)
    training: TrainingConfig
    search: SearchConfig
    storage: StorageConfig
    cluster: ClusterConfig

    _file: Path = PrivateAttr(default=Path(DEFAULT_FILE))
    _written: frozenset[str] = PrivateAttr(default=frozenset())

    @property
    def file(self) -> Path:
        """The config file."""
        return self._file

    @property
    def written(self) -> frozenset[str]:
        """Keys that the config file writes, with their tables: ``training.steps``; the others have their defaults."""
        return self._written

    @property
    def folder(self) -> Path:
        """The folder of the config file, where relative paths start."""
        return self._file.parent

    @model_validator(mode="before")
    @classmethod
    def _every_table(cls, document: object) -> object:
        # Tables that are not written are validated all the same: their defaults hold paths, which
        # start at the config file's folder.
        if not isinstance(document, dict):
            return document
        if "backbone" in document:
            document = {**document, "backbone": of_patterns(document["backbone"])}
        tables = ("data", "training", "search", "storage", "cluster")
        return {**{table: {} for table in tables}, **document}

    @model_validator(mode="after")
    def _aliases_differ(self) -> Self:
        if not self.backbone:
            raise problem("backbone", "needs at least one [[backbone]] table with a name")
        seen: dict[str, int] = {}
        for index, backbone in enumerate(self.backbone):
            if backbone.alias in seen:
                raise problem(
                    f"backbone[{index}].alias",
                    f'"{backbone.alias}" is the alias of backbone[{seen[backbone.alias]}] too; '
                    "give each [[backbone]] its own",
                )
            seen[backbone.alias] = index
        return self


def parse_experiment(document: Mapping[str, object], file: str | Path = DEFAULT_FILE) -> Experiment:
    """Check a configuration that is already a dictionary.

    Parameters
    ----------
    document
        What the TOML holds, tables as dictionaries.
    file
        The config file: relative paths start at its folder, and messages name it.

    Returns
    -------
    Experiment
        The checked configuration.

    Raises
    ------
    InputError
        One line that names the file, the key, and what would be valid.
    """
    path = Path(file).absolute()
    try:
        experiment = Experiment.model_validate(document, context={"folder": path.parent})
    except ValidationError as error:
        # Not chained: pydantic's own text can show what was written, passwords included.
        raise InputError(f"{file}: {explain(error, Experiment)}") from None
    experiment = experiment.model_copy(update={"backbone": drawn(experiment.backbone)})
    aliases = [table.alias for table in experiment.backbone]
    twice = next((alias for alias in aliases if aliases.count(alias) > 1), None)
    if twice is not None:
        raise InputError(
            f'{file}: "{twice}" is the alias of a draw (seeds) and of another [[backbone]]; rename one'
        )
    experiment._file = path
    experiment._written = frozenset(_keys(document))
    return experiment


def _keys(document: Mapping[str, object], table: str = "") -> Iterator[str]:
    """Name all keys of nested tables, the tables too."""
    for name, value in document.items():
        yield table + name
        if isinstance(value, Mapping):
            yield from _keys(value, f"{table}{name}.")


def load_experiment(path: str | Path = DEFAULT_FILE) -> Experiment:
    """Read and check a config file.

    Parameters
    ----------
    path
        The config file.

    Returns
    -------
    Experiment
        The checked configuration, paths absolute.

    Raises
    ------
    InputError
        One line that names the file, the key or line, and what would be valid.
    """
    return parse_experiment(_read_toml(Path(path)), path)


def _read_toml(path: Path) -> dict[str, object]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"{path}: not found; write one with 'tuner init DIR', or name yours with -c"
        ) from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; did you mean {path / DEFAULT_FILE}?") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: not valid TOML: nested too deeply") from None
