from __future__ import annotations

import pytest

from tuner.recordings.hdf5 import probe


@pytest.fixture(autouse=True)
def _no_probe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no child process per file, except where that is what is tested."""
    if "probed" not in request.fixturenames:
        monkeypatch.setattr(probe, "ENABLED", False)


@pytest.fixture
def probed() -> None:
    """Files are walked through by a child first, as for a user."""
