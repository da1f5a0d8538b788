"""envs/setup.sh chooses a Python that everything runs on, or says what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT

# Runs what follows -c as if this were another Python, one without venv
OTHER = """#!/bin/sh
exec {python} -c 'import sys; sys.version_info = {version}; sys.modules["ensurepip"] = None
exec(sys.argv[1])' "$2"
"""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Make a PATH without Python, compiler and apt-get."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "dirname", "echo", "id", "xargs"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def add(folder: Path, name: str, version: tuple[int, int]) -> Path:
    shim = folder / name
    shim.write_text(OTHER.format(python=sys.executable, version=(*version, 0)))
    shim.chmod(0o755)
    return shim


def said(folder: Path, **variables: str) -> str:
    """Run a copy's set-up with ``folder`` as PATH, which it cannot finish, for its one line."""
    project = folder.parent / "project"
    shutil.copytree(ROOT / "envs", project / "envs", dirs_exist_ok=True)
    done = subprocess.run(
        ["bash", project / "envs" / "setup.sh"],
        env={"PATH": str(folder)} | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("pythons", "chosen"),
    [
        ({"python3": (3, 12)}, "python3.12"),
        ({"python3": (3, 14), "python3.13": (3, 13)}, "python3.13"),
        ({"python3": (3, 13), "python3.11": (3, 11)}, "python3.11"),
    ],
)
def test_a_python_that_fits_is_chosen(
    bare: Path, pythons: dict[str, tuple[int, int]], chosen: str
) -> None:
    for name, version in pythons.items():
        add(bare, name, version)
    line = said(bare)
    assert line.startswith("error: set-up needs packages (FFCV is compiled); run: sudo apt-get ")
    assert f" {chosen}-venv " in line


def test_the_python_that_is_given_is_taken_or_refused(bare: Path, tmp_path: Path) -> None:
    add(bare, "python3", (3, 11))
    with_space = tmp_path / "a folder"
    with_space.mkdir()
    assert " python3.13-venv " in said(bare, PYTHON=str(add(with_space, "python", (3, 13))))
    old = str(add(with_space, "old", (3, 10)))
    assert said(bare, PYTHON=old).startswith(f"error: no Python 3.11, 3.12 or 3.13 (tried {old}); ")


def test_without_python_it_says_what_to_install(bare: Path) -> None:
    add(bare, "python3", (3, 9))
    assert "apt-get install python3) or set PYTHON=/path/to/one" in said(bare)


def test_make_passes_the_python_on() -> None:
    shown = subprocess.run(
        ["make", "--silent", "--eval", "shown: ; @echo $$PYTHON", "shown"],
        cwd=ROOT,
        env=os.environ | {"PYTHON": "/a/python"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "/a/python\n"
