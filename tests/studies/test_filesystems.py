from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from studies.database.connection import Storage
from studies.database.filesystems import file_system, refuse_network
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment
from tuner.errors import InputError


def mount(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str | Path, str]) -> None:
    """Let the system say that these are mounted: point and kind, in the order of mounting."""
    table = [SimpleNamespace(mountpoint=str(point), fstype=kind) for point, kind in entries]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: table)  # noqa: A006


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the test's folder lies on the network."""
    for name in ("net", "net/local", "my disk"):
        (tmp_path / name).mkdir()
    mount(
        monkeypatch,
        ("/", "ext4"),
        ("/proc", "proc"),
        (tmp_path / "net", "nfs4"),
        (tmp_path / "net" / "local", "xfs"),
        (tmp_path / "my disk", "cifs"),
    )


@pytest.mark.usefixtures("mounts")
def test_the_innermost_mount_counts(tmp_path: Path) -> None:
    assert file_system(tmp_path / "x.db") == ("ext4", "/")
    assert file_system(tmp_path / "net/x.db") == ("nfs4", f"{tmp_path}/net")
    assert file_system(tmp_path / "net/deep/er/x.db") == ("nfs4", f"{tmp_path}/net")
    assert file_system(tmp_path / "net/local/x.db") == ("xfs", f"{tmp_path}/net/local")
    assert file_system(tmp_path / "network/x.db") == ("ext4", "/")
    assert file_system(tmp_path / "my disk/x.db") == ("cifs", f"{tmp_path}/my disk")


@pytest.mark.usefixtures("mounts")
def test_a_link_leads_to_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "net")
    assert file_system(tmp_path / "link/x.db") == ("nfs4", f"{tmp_path}/net")


def test_of_two_mounts_on_one_point_the_later_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount(monkeypatch, (tmp_path, "nfs"), (tmp_path, "tmpfs"))
    assert file_system(tmp_path / "x") == ("tmpfs", str(tmp_path))


def test_without_a_table_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(all: bool) -> None:  # noqa: A002
        raise PermissionError("/proc/self/mounts")

    monkeypatch.setattr(psutil, "disk_partitions", unreadable)
    assert file_system(tmp_path) is None
    refuse_network(tmp_path / "x.db")


@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize("where", ["net/x.db", "my disk/x.db"])
def test_a_network_file_system_is_refused_with_the_reason(tmp_path: Path, where: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse_network(tmp_path / where)
    text = str(caught.value)
    assert "network file system" in text
    assert "locks" in text
    assert "PostgreSQL" in text
    refuse_network(tmp_path / "net/local/x.db")


def test_the_command_refuses_it(
    make_experiment: MakeExperiment, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount(monkeypatch, ("/", "ext4"), (tmp_path, "nfs"))
    config = make_experiment()
    run("study", "create", "-c", config).check_one_line_error(2, "storage.url", "nfs", "PostgreSQL")
    assert not (config.parent / "tuner.db").exists()


def test_the_disk_that_tests_run_on_is_accepted(tmp_path: Path) -> None:
    Storage(f"sqlite:///{tmp_path}/x.db", create=True).close()
