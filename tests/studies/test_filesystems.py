from __future__ import annotations

from pathlib import Path

import pytest

from studies.database import filesystems
from studies.database.connection import Storage
from studies.database.filesystems import file_system, refuse_network
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment
from tuner.errors import InputError


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    """A table in which a part of the test's folder lies on the network."""
    for name in ("net", "net/local", "my disk"):
        (tmp_path / name).mkdir()
    blank = str(tmp_path / "my disk").replace(" ", "\\040")
    table = tmp_path / "mounts"
    table.write_text(
        "/dev/sda1 / ext4 rw 0 0\n"
        "proc /proc proc rw 0 0\n"
        f"server:/export {tmp_path}/net nfs4 rw 0 0\n"
        f"/dev/sdb1 {tmp_path}/net/local xfs rw 0 0\n"
        f"//host/share {blank} cifs rw 0 0\n"
    )
    return table


def test_the_innermost_mount_counts(mounts: Path, tmp_path: Path) -> None:
    assert file_system(tmp_path / "x.db", mounts) == ("ext4", "/")
    assert file_system(tmp_path / "net/x.db", mounts) == ("nfs4", f"{tmp_path}/net")
    assert file_system(tmp_path / "net/deep/er/x.db", mounts) == ("nfs4", f"{tmp_path}/net")
    assert file_system(tmp_path / "net/local/x.db", mounts) == ("xfs", f"{tmp_path}/net/local")
    assert file_system(tmp_path / "network/x.db", mounts) == ("ext4", "/")
    assert file_system(tmp_path / "my disk/x.db", mounts) == ("cifs", f"{tmp_path}/my disk")


def test_a_link_leads_to_where_it_leads(mounts: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "net")
    assert file_system(tmp_path / "link/x.db", mounts) == ("nfs4", f"{tmp_path}/net")


def test_of_two_mounts_on_one_point_the_later_counts(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(f"a {tmp_path} nfs rw 0 0\nb {tmp_path} tmpfs rw 0 0\n")
    assert file_system(tmp_path / "x", table) == ("tmpfs", str(tmp_path))


def test_without_a_table_nothing_is_refused(tmp_path: Path) -> None:
    assert file_system(tmp_path, tmp_path / "none") is None
    refuse_network(tmp_path / "x.db", tmp_path / "none")


@pytest.mark.parametrize("where", ["net/x.db", "my disk/x.db"])
def test_a_network_file_system_is_refused_with_the_reason(
    mounts: Path, tmp_path: Path, where: str
) -> None:
    with pytest.raises(InputError) as caught:
        refuse_network(tmp_path / where, mounts)
    text = str(caught.value)
    assert "network file system" in text
    assert "locks" in text
    assert "PostgreSQL" in text
    refuse_network(tmp_path / "net/local/x.db", mounts)


def test_the_command_refuses_it(
    make_experiment: MakeExperiment,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = tmp_path / "mounts"
    table.write_text(f"server:/home {tmp_path} nfs rw 0 0\n")
    monkeypatch.setattr(filesystems, "MOUNTS", table)
    config = make_experiment()
    run("study", "create", "-c", config).check_one_line_error(2, "storage.url", "nfs", "PostgreSQL")
    assert not (config.parent / "tuner.db").exists()


def test_the_disk_that_tests_run_on_is_accepted(tmp_path: Path) -> None:
    Storage(f"sqlite:///{tmp_path}/x.db", create=True).close()
