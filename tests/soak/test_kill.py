from __future__ import annotations

from pathlib import Path

from studies.database.killpoints import POINTS
from tests.soak.kill import TRIALS, soak


def test_searches_that_are_killed_end_like_one_that_was_not(tmp_path: Path) -> None:
    """Ten of the runs that ``python -m tests.soak.kill`` does a hundred of."""
    job, problems = soak(tmp_path, runs=10, seed=1, kills=2)
    assert problems == []
    assert len(job.whole.outcome) == 12
    assert job.whole.trials == 8 * TRIALS + 4 * 4
    assert sum(job.kills.values()) >= 10
    assert set(job.kills) - {"at random"} <= set(POINTS)
    assert len(job.kills) >= 6
