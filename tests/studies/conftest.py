"""A small experiment that tests of the search share: recording and feature cache once, a database each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.main import main
from studies.config.experiment import load_experiment
from studies.database.stores import Stores, open_stores
from tests.soak.outcome import look
from tests.studies.server import Server, running
from tests.studies.small import write_experiment
from tests.studies.workers import SMALL, TRIALS, created
from tuner.recordings.hdf5 import probe

MakeExperiment = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """No child process for every file that is opened."""
    monkeypatch.setattr(probe, "ENABLED", False)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep small products from waiting for threads on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL server of the module's own; modules that have it skip where none is installed."""
    with running() as server:
        yield server


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    """A new database on it."""
    return server.new_database(request.node.name[:60])


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the recording and of the feature cache that all experiments share."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def make_experiment(shared: Path, tmp_path: Path) -> MakeExperiment:
    """Write a config file, with changes to its tables, and return its path."""

    def make(changes: Mapping[str, Any] | None = None, name: str = "experiment") -> Path:
        return write_experiment(tmp_path / name, shared, changes)

    return make


@pytest.fixture
def open_experiment() -> Iterator[Callable[[Path], Stores]]:
    """Open the stores of a config file; closed at the end."""
    opened: list[Stores] = []

    def opener(config: Path) -> Stores:
        opened.append(open_stores(load_experiment(config)))
        return opened[-1]

    yield opener
    for stores in opened:
        stores.storage.close()


@pytest.fixture(scope="session")
def searched_alone(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment that tests of workers share, searched by one process."""
    torch.set_num_threads(1)
    config = created(write_experiment(tmp_path_factory.mktemp("alone"), shared, SMALL))
    assert main(["optimize", "-q", "--n-trials", str(TRIALS), "-c", str(config)]) == 0
    return config


@pytest.fixture(scope="session")
def alone(searched_alone: Path) -> Any:
    """What one process comes to in it."""
    return look(searched_alone, TRIALS).outcome
