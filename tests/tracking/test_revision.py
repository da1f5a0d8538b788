"""A run's provenance names this project's commit or version, and no other repository's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.commands import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    options = (*identity, "-c", "protocol.file.allow=always")
    return subprocess.run(
        ["git", *options, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def new_repository(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    git(folder, "init")
    (folder / "own").touch()
    git(folder, "add", "own")
    git(folder, "commit", "-m", "a stranger's")
    return folder


def unpacked(folder: Path) -> Path:
    """Copy the project's files, as if unpacked from its zip."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(ROOT / "trainer", folder / "trainer")
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def own(folder: Path) -> tuple[Path, str]:
    """Commit the project to a new git repository; return its folder and the commit."""
    git(unpacked(folder), "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "ours")
    return folder, git(folder, "rev-parse", "HEAD")


def found(folder: Path, **variables: str) -> tuple[str | None, str | None, bool]:
    script = (
        "import json; from trainer.tracking.provenance import revision as r;"
        "print(json.dumps([r().version, r().commit, r().dirty]))"
    )
    command = [sys.executable, "-B", "-c", script]
    # Elsewhere, as the workflow's jobs may be
    environment = os.environ | {"PYTHONPATH": str(folder)} | variables
    done = subprocess.run(
        command, cwd=folder.parent, env=environment, check=True, capture_output=True, text=True
    )
    version, commit, dirty = json.loads(done.stdout)
    return version, commit, dirty


def test_the_projects_own_commit_and_whether_files_differ(tmp_path: Path) -> None:
    folder, commit = own(tmp_path / "a clone")
    assert found(folder) == (VERSION, commit, False)
    (folder / "untracked").touch()
    assert found(folder) == (VERSION, commit, False)
    with (folder / "trainer/run/engine.py").open("a") as file:
        file.write("# changed\n")
    assert found(folder) == (VERSION, commit, True)
    git(folder, "add", ".")
    assert found(folder) == (VERSION, commit, True)


@pytest.mark.parametrize("below", ["project", "."])
def test_a_zip_inside_a_strangers_repository(below: str, tmp_path: Path) -> None:
    """Below its top, and into its top: neither tracks the project's files."""
    folder = unpacked(new_repository(tmp_path / "thesis") / below)
    assert found(folder) == (VERSION, None, False)


def test_a_variable_of_a_hook_leads_nowhere_else(tmp_path: Path) -> None:
    stranger = new_repository(tmp_path / "thesis")
    folder, commit = own(tmp_path / "clone")
    variables = {"GIT_DIR": str(stranger / ".git"), "GIT_WORK_TREE": str(stranger)}
    variables["GIT_INDEX_FILE"] = str(stranger / ".git/index")
    assert found(folder, **variables) == (VERSION, commit, False)
    assert found(unpacked(tmp_path / "zip"), **variables) == (VERSION, None, False)


def test_worktrees_and_submodules_are_repositories_of_their_own(tmp_path: Path) -> None:
    folder, commit = own(tmp_path / "clone")
    git(folder, "worktree", "add", "../tree")
    assert found(tmp_path / "tree") == (VERSION, commit, False)
    stranger = new_repository(tmp_path / "thesis")
    git(stranger, "submodule", "add", str(folder), "project")
    assert found(stranger / "project") == (VERSION, commit, False)


def test_without_a_commit_or_without_git_there_is_the_version(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "new")
    git(folder, "init")
    git(folder, "add", ".")
    assert found(folder) == (VERSION, None, False)
    assert found(own(tmp_path / "clone")[0], PATH=str(tmp_path)) == (VERSION, None, False)


def test_a_run_says_and_keeps_it(digits: Path, tmp_path: Path) -> None:
    folder = unpacked(new_repository(tmp_path / "thesis") / "project")
    words = ["--data-pth", str(digits), "--log-pth", "run", "--epochs", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "train", *words],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"code: version {VERSION}, in no git repository of its own\n" in done.stderr
    made = json.loads((folder / "run/provenance.json").read_text())
    assert (made["version"], made["git_commit"], made["git_dirty"]) == (VERSION, None, False)


def test_a_run_keeps_the_code_that_it_began_with(digits: Path, tmp_path: Path) -> None:
    """A commit during a run is none that made it."""
    folder, commit = own(tmp_path / "clone")
    script = (
        "import subprocess, sys; from trainer import __main__\n"
        "from trainer.tracking import recorder\n"
        "publish = recorder.Recorder.publish\n"
        "def late(*given):\n"
        "    open('trainer/run/engine.py', 'a').write('# changed')\n"
        "    publish(*given)\n"
        "recorder.Recorder.publish = late\n"
        "sys.exit(__main__.main())"
    )
    words = ["train", "--data-pth", str(digits), "--log-pth", "run", "--epochs", "1"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made = json.loads((folder / "run/provenance.json").read_text())
    assert (made["git_commit"], made["git_dirty"]) == (commit, False)
    assert found(folder)[2]
