"""Name the code that makes a run: this project's commit or, outside of its repository, version."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = "local-sgd-generalization"
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Revision:
    """The project's version; its commit, where its folder is a repository that tracks it."""

    version: str | None
    commit: str | None = None
    dirty: bool = False

    def __str__(self) -> str:
        if self.commit is None:
            return f"version {self.version or 'unknown'}, in no git repository of its own"
        return f"commit {self.commit}{', with uncommitted changes' if self.dirty else ''}"


@cache
def revision() -> Revision:
    """Identify the code that this process runs: asked at its start, it stays so while it runs."""
    version = _version()
    own = Path(__file__).resolve().relative_to(ROOT)
    status = _git("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None or _git("ls-files", "--error-unmatch", str(own)) is None:
        return Revision(version)
    lines = status.splitlines()
    commit = next(line for line in lines if line.startswith("# branch.oid ")).split()[-1]
    if commit == "(initial)":
        return Revision(version)
    return Revision(version, commit, not all(line.startswith("#") for line in lines))


def _git(*arguments: str) -> str | None:
    """The output of git on the repository whose top is the project's folder; None: it fails.

    Nothing leads to another one: neither a folder above, nor a hook's GIT_DIR.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "--no-optional-locks", f"--git-dir={ROOT / '.git'}", f"--work-tree={ROOT}"]
    try:
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode("utf-8", "replace")


def _version() -> str | None:
    """That of pyproject.toml beside the code, else of the package that was installed."""
    try:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        if project["name"] == PROJECT:
            return str(project["version"])
    except (OSError, ValueError, KeyError):
        pass  # installed without it
    try:
        return importlib.metadata.version(PROJECT)
    except importlib.metadata.PackageNotFoundError:
        return None
