"""Runs of different trainer code, in a repository that git itself made."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from workflow.commands.commits import mixture


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(project: Path, file: str, text: str) -> str:
    (project / file).parent.mkdir(parents=True, exist_ok=True)
    (project / file).write_text(text)
    git(project, "add", ".")
    git(project, "commit", "-m", text)
    return git(project, "rev-parse", "HEAD")


def run(folder: Path, made_by: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text(json.dumps({"git_commit": made_by}))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init")
    return folder


def test_only_another_trainer_is_another_version(project: Path, tmp_path: Path) -> None:
    first = commit(project, "trainer/a.py", "1")
    second = commit(project, "README.md", "2")
    runs = [run(tmp_path / "a", first), run(tmp_path / "b", second)]
    assert mixture(runs, project) == mixture([], project) == ""
    third = commit(project, "trainer/a.py", "3")
    now = f"; the next are by {third[:10]}. Nothing is repeated"
    assert f"finished are 2 by commit {first[:10]}{now}" in mixture(runs, project)
    runs.append(run(tmp_path / "c", third))
    assert f"2 by commit {first[:10]}, 1 by commit {third[:10]}{now}" in mixture(runs, project)
    assert mixture(runs[2:], project) == ""


def test_a_stranger_around_the_project_and_odd_notes_say_nothing(
    project: Path, tmp_path: Path
) -> None:
    commit(project, "copy/trainer/a.py", "1")
    made = "a" * 40
    odd = [run(tmp_path / str(i), noted) for i, noted in enumerate([None, 3, [], "--all", ""])]
    odd += [tmp_path / "none", run(tmp_path / "own", made)]
    assert mixture(odd, project / "copy") == ""
    assert f"1 by commit {'a' * 10}; the next" in mixture(odd, project)
    odd.append(run(tmp_path / "other", "b" * 40))
    assert "the next" not in mixture(odd, project / "copy") != ""
