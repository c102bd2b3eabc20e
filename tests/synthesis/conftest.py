from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests import generators


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small batches: threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def prior_options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Options of the priors that cannot do without."""
    return generators.options(tmp_path_factory.mktemp("generator"))
