from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studies.database.claims import FileLocks
from tuner.errors import EnvironmentFailure

HOLDER = """
import sys, time
from pathlib import Path
from studies.database.claims import FileLocks
claims = FileLocks(Path(sys.argv[1]))
with claims.claim(sys.argv[2]) as mine:
    print("mine" if mine else "taken", flush=True)
    if mine:
        {what}
        time.sleep(60)
"""
FORK = """
        import os
        if os.fork() == 0:
            print("child", flush=True)
            time.sleep(60)
            os._exit(0)
"""


def holder(database: Path, cohort: str = "c", what: str = "pass") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(what=what), str(database), cohort],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "mine"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def free(claims: FileLocks, cohort: str = "c") -> bool:
    with claims.claim(cohort) as mine:
        return mine


def test_another_process_sees_the_claim_and_gets_it_when_the_holder_is_killed(
    tmp_path: Path,
) -> None:
    claims = FileLocks(tmp_path / "t.db")
    assert not claims.held("c")
    process = holder(tmp_path / "t.db")
    assert claims.held("c")
    assert not free(claims)
    assert not claims.held("another")
    assert free(claims, "another")
    end(process)
    assert not claims.held("c")
    assert free(claims)


def test_locks_that_are_cleared_away_while_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = FileLocks(tmp_path / "t.db")
    assert free(claims)
    opened = os.open

    def cleared(path: object, *given: object, **named: object) -> int:
        monkeypatch.setattr(os, "open", opened)
        shutil.rmtree(claims.folder)
        return opened(path, *given, **named)  # type: ignore[arg-type]

    for use in (lambda: free(claims), lambda: not claims.held("c")):
        assert claims.folder.exists()
        monkeypatch.setattr(os, "open", cleared)
        assert use()
        assert free(claims)


def test_locks_that_are_cleared_away_between_the_attempt_to_make_them_and_the_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = FileLocks(tmp_path / "t.db")
    assert free(claims)
    make = os.mkdir

    def cleared(path: str, mode: int = 0o777) -> None:
        monkeypatch.setattr(os, "mkdir", make)
        shutil.rmtree(claims.folder)
        raise FileExistsError(17, "File exists", str(path))

    monkeypatch.setattr(os, "mkdir", cleared)
    assert free(claims)
    assert os.mkdir is make


def test_a_file_where_locks_belong_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.db.locks").write_bytes(b"")
    with pytest.raises(EnvironmentFailure, match=r"t\.db\.locks: File exists; make"):
        free(FileLocks(tmp_path / "t.db"))


def test_a_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    claims = FileLocks(tmp_path / "t.db")
    process = holder(tmp_path / "t.db", what=FORK)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "child"
    assert claims.held("c")
    os.kill(process.pid, 9)
    process.wait()
    assert free(claims)
    os.killpg(process.pid, 9)
    process.stdout.close()


def test_a_spawned_child_does_not_keep_it(tmp_path: Path) -> None:
    claims = FileLocks(tmp_path / "t.db")
    with claims.claim("c") as mine:
        assert mine
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        assert free(claims)
    finally:
        child.kill()
        child.wait()


def test_two_ways_to_one_database_meet(tmp_path: Path) -> None:
    (tmp_path / "t.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "t.db")
    with FileLocks(tmp_path / "link.db").claim("c") as mine:
        assert mine
        assert FileLocks(tmp_path / "t.db").held("c")
        assert not free(FileLocks(tmp_path / "t.db"))


def test_looking_does_not_take_it_away(tmp_path: Path) -> None:
    """Somebody who looks all the time keeps nobody from claiming."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom studies.database.claims import FileLocks\n"
        "claims = FileLocks(Path(sys.argv[1]))\nprint('go', flush=True)\n"
        "while True: claims.held('c')"
    )
    claims = FileLocks(tmp_path / "t.db")
    assert free(claims)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "t.db")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    won = 0
    begun = time.monotonic()
    for _ in range(10):
        won += free(claims)
    end(process)
    assert won >= 9
    assert time.monotonic() - begun < 10


def test_own_claims_are_seen_and_end(tmp_path: Path) -> None:
    claims = FileLocks(tmp_path / "t.db")
    with pytest.raises(RuntimeError, match="inside"), claims.claim("c"):
        assert claims.held("c")
        raise RuntimeError("inside")
    assert not claims.held("c")


def test_a_folder_in_the_way_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "t.db.locks").write_text("in the way")
    with pytest.raises(EnvironmentFailure, match=r"t\.db\.locks"):
        free(FileLocks(tmp_path / "t.db"))
