"""The wheel: built, installed where nothing else of ours is, and used."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tuner", "studies", "cli")
HEAVY = ("torch", "torchvision", "optuna", "sqlalchemy", "matplotlib", "numpy", "pandas", "lucent")


def sources(pattern: str) -> set[str]:
    """Files of ours, relative to the repository's root."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob(pattern))
    return {
        path.relative_to(ROOT).as_posix()
        for path in found
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that nothing is written beside the sources."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(out)]
    subprocess.run([*command, *options, str(copy)], check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install it in a fresh environment that sees the other packages of this one."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    options = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*command, *options], check=True)
    # Files that make an installation editable are not read from a folder that is named this way,
    # so our own packages can only come from the wheel.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run something of that environment's, elsewhere, without what this one was told."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(folder / "bin" / words[0]), *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_everything_of_ours_is_in_the_wheel_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = sources("*.py")
    data = {name for name in sources("*") - code if not name.endswith(".md")}
    assert held - data >= code
    assert data <= held
    assert {name.split("/")[0] for name in held} == set(PACKAGES)
    assert "tuner/py.typed" in held


def test_every_folder_with_code_is_a_package():
    folders = {str(Path(name).parent) for name in sources("*.py")}
    assert folders == {str(Path(name).parent) for name in sources("__init__.py")}


def test_every_module_can_be_imported_from_the_wheel(installed):
    names = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in sources("*.py")
    )
    check = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    module = importlib.import_module(name)\n"
        "    assert module.__file__.startswith(sys.prefix), module.__file__\n"
        "print('all of', len(sys.modules))"
    )
    ended = call(installed, "python", "-c", check)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("all of")


def test_the_command_answers_at_once(installed):
    ended = call(installed, "tuner", "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Usage: tuner" in ended.stdout
    assert call(installed, "tuner", "--version").stdout.startswith("tuner 0.1.0")

    # What it imports decides how long it takes, and is the same on a machine that is busy.
    command = str(installed / "bin" / "tuner")
    traced = call(installed, "python", "-X", "importtime", command, "--help").stderr
    imported = {line.split("|")[-1].strip().split(".")[0] for line in traced.splitlines()}
    assert "typer" in imported
    assert imported.isdisjoint(HEAVY)

    def processor_seconds() -> float:
        before = os.times()
        call(installed, "tuner", "--help")
        after = os.times()
        return (after.children_user + after.children_system) - (
            before.children_user + before.children_system
        )

    assert min(processor_seconds() for _ in range(3)) < 0.5


def test_templates_and_the_public_names_come_along(installed, tmp_path):
    ended = call(installed, "tuner", "init", str(tmp_path / "new"), "--template", "demo")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "new" / "tuner.toml").exists()
    check = (
        "import sys, tuner\n"
        "assert 'torch' not in sys.modules\n"
        "print(sorted(tuner.__all__), all(callable(getattr(tuner, n)) for n in tuner.__all__))"
    )
    ended = call(installed, "python", "-c", check)
    assert ended.stdout == "['load_encoder', 'load_recording', 'load_results'] True\n", ended.stderr


def test_what_is_imported_is_declared():
    """Each package that the code imports is among the dependencies, by the name it has there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        requirement.split(">")[0].split("[")[0].replace("-", "_").lower()
        for requirement in [
            *project["dependencies"],
            *project["optional-dependencies"]["postgres"],
            *project["optional-dependencies"]["nwb"],
            *project["optional-dependencies"]["timm"],
            *project["optional-dependencies"]["cluster"],
        ]
    }
    called_otherwise = {"skimage": "scikit_image", "PIL": "pillow", "lucent": "torch_lucent"}
    # Of pydantic, torch, timm and distributed.
    transitive = {"pydantic_core", "triton", "huggingface_hub", "dask"}
    imported = set()
    for name in sources("*.py"):
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    ours = {called_otherwise.get(name, name) for name in imported}
    third_party = ours - set(sys.stdlib_module_names) - {*PACKAGES, "__future__"} - transitive
    assert {name.lower() for name in third_party} <= declared
    assert all("<" not in requirement for requirement in project["dependencies"])
