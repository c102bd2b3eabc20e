"""Compiled steps are kept where nobody else can write, and are never loaded unless they are what was compiled."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tuner.errors import EnvironmentFailure
from tuner.fitting.plan import compiler_there
from tuner.readouts.native import build, cache

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="there is no C compiler here")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's cache folder that is still empty, and a temporary folder to look at."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(build, "_FLAGS", ("-O0", "-march=native", "-shared", "-fPIC"))  # quick
    build.library.cache_clear()
    yield tmp_path / "cortex-tuner"
    build.library.cache_clear()


def kept(home: Path) -> Path:
    (path,) = home.glob("*.so")
    return path


def load() -> None:
    build.library.cache_clear()
    assert build.library().full_packed(2, 3, 4) > 0


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_what_was_cut_short_is_compiled_anew(home: Path) -> None:
    load()
    path = kept(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    content = path.read_bytes()
    for size in (0, 5000, len(content) - 1):
        path.unlink()  # it is loaded: cut short in place it would kill this process
        path.write_bytes(content[:size])
        assert cache.find(home, path.name.rsplit("-", 1)[0]) is None
        load()
        assert kept(home).stat().st_size > 5000


def test_a_folder_or_file_of_another_user_is_not_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    path = kept(home)
    path.chmod(0o666)
    assert cache.find(home, path.name.rsplit("-", 1)[0]) is None
    home.chmod(0o777)
    assert cache.private_folder() == home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    assert cache.private_folder() is None
    load()  # for this process alone
    assert not list((home.parent / "scratch").iterdir())


def test_without_a_cache_nothing_is_left_behind(home: Path) -> None:
    home.write_text("in the way")
    load()
    assert not list((home.parent / "scratch").iterdir())


def test_a_link_in_place_of_the_folder_is_not_followed(home: Path) -> None:
    (home.parent / "elsewhere").mkdir()
    home.symlink_to(home.parent / "elsewhere")
    load()
    assert not list((home.parent / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "text",
    ['while [ "$1" != -o ]; do shift; done; : > "$2"', "exit 0", "echo broken >&2; exit 1"],
    ids=["writes an empty file", "writes nothing", "fails"],
)
def test_a_compiler_that_does_not_work_poisons_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    monkeypatch.setenv("CC", script(home.parent / "bad-cc", text))
    with pytest.raises(EnvironmentFailure, match=r"bad-cc: cannot compile .*CC=clang"):
        build.library()
    # New studies are made without it.
    assert not compiler_there(torch.device("cpu"))
    assert "tensor operations" in caplog.text
    assert not list(home.glob("*.so"))
    assert not list(home.glob(".building*"))
    monkeypatch.delenv("CC")
    load()
    assert compiler_there(torch.device("cpu"))
