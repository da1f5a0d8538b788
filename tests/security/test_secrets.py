"""Passwords and tokens stay where they were: none is printed, logged, or written into a result."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import command, trainer
from tests.conftest import one_line
from tests.workflows import TINY, copy_project, edit, refused

SECRET = "hunter2hunter2"  # noqa: S105 of nobody
URL = f"https://somebody:{SECRET}@example.org/start.pt"
DIGEST = "a" * 64


def holding(folder: Path, secret: str = SECRET) -> list[Path]:
    """List the files below ``folder`` that contain the secret."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (["train", "--resume-pth", URL, "--resume-sha256", DIGEST], "resume_pth"),
        (["train", "--resume-pth", URL.replace("https", "http")], "resume_pth"),
        (["train", "--resume-pth", f"https://{SECRET}@example.org/a"], "resume_pth"),
        (["train", "--resume-pth", f"https://us:{SECRET}/9@example.org/a"], "resume_pth"),
        (["train", "--data-pth", URL], "data_pth"),
        (["train", "--wandb-project", URL], "wandb_project"),
        (["train", "--schedule", f"[{{epochs: '{URL}'}}]"], "schedule"),
        (["train", "--epochs", URL], "epochs"),
        (["download", "--url", URL, "--sha256", DIGEST], "url"),
        (["prepare", "--dataset", "cifar10", "--source", URL], "source"),
    ],
)
def test_a_url_with_a_password_is_refused_and_not_repeated(
    tmp_path: Path, words: list[str], setting: str
) -> None:
    done = command(sys.executable, "-m", "trainer", *words, cwd=tmp_path)
    assert setting in one_line(done)
    assert SECRET not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", [f"resume_pth: {URL}", f"resume_pth: [{URL}]", f"{URL}: 1", f"a: [{URL}\nb: {{"]
)
def test_nor_is_one_in_a_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    done = trainer("train", "--config", file, "--log-pth", tmp_path / "run")
    one_line(done)
    assert SECRET not in done.stdout + done.stderr
    assert holding(tmp_path) == [file]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("config.yaml", "cifar10_source: null", f"cifar10_source: {URL}"),
        ("config.yaml", "wandb: null", f"wandb: {URL}"),
        ("experiments/laptop.yaml", "phase1: {epochs: 2}",
         f"checkpoint: {{path: a.pt, url: '{URL}', sha256: {DIGEST}, epoch: 2}}"),
        ("experiments/laptop.yaml", "phase1: {epochs: 2}",
         f"checkpoint: {{path: a.pt, url: '{URL[5:]}', sha256: {DIGEST}, epoch: 2}}"),
        ("experiments/laptop.yaml", "phase1: {epochs: 2}", f"phase1: {{resume_pth: '{URL}'}}"),
    ],
)  # fmt: skip
def test_nor_is_one_in_the_workflows_files(tmp_path: Path, file: str, old: str, new: str) -> None:
    folder = copy_project(tmp_path / "copy")
    (folder / "experiments" / "laptop.yaml").write_text(TINY)
    edit(folder / file, old, new)
    assert file in refused(folder)
    assert holding(folder) == [folder / file]


def test_provenance_has_no_remote(digits: Path, tmp_path: Path) -> None:
    """A token may be in the address that a repository was cloned from."""
    folder = copy_project(tmp_path / "copy")
    shutil.copytree(digits, folder / "resources" / "digits")

    def git(*words: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)

    git("init")
    git("remote", "add", "origin", URL)
    git("add", "trainer")
    git("commit", "-m", "all")
    words = ["train", "--epochs", "1", "--wandb", "offline", "--log-pth", "run"]
    done = command(sys.executable, "-m", "trainer", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    provenance = (folder / "run" / "provenance.json").read_text()
    assert '"git_dirty": false' in provenance
    assert SECRET not in done.stdout + done.stderr
    assert holding(folder) == [folder / ".git" / "config"]
