from __future__ import annotations

from pathlib import Path

from tests.soak.chaos import chaos
from tests.soak.sequence import OPERATIONS


def test_random_operations_leave_nothing_foreign_and_lose_nothing(tmp_path: Path) -> None:
    """Two of the sequences that ``python -m tests.soak.chaos`` plays hundreds of."""
    problems, done = chaos(tmp_path, 2, seed=1)
    assert problems == []
    assert done.pop("sequences") == 2
    assert sum(done.values()) >= 2 * OPERATIONS
    assert len(done) >= 10
