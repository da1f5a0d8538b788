"""Identify the code that makes a run: by the project's git commit, else by its version."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = "local-sgd-generalization"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Revision:
    """Hold the project's version and, where its folder is a repository that tracks it, commit."""

    version: str | None
    commit: str | None = None
    dirty: bool = False

    def __str__(self) -> str:
        if self.commit is None:
            return f"version {self.version or 'unknown'}, in no git repository of its own"
        return f"commit {self.commit}{', with uncommitted changes' if self.dirty else ''}"


@cache
def revision() -> Revision:
    """Identify the code that this process runs; cached, as files may change while it runs."""
    version = _version()
    own = Path(__file__).resolve().relative_to(ROOT)
    status = git(ROOT, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None or git(ROOT, "ls-files", "--error-unmatch", str(own)) is None:
        return Revision(version)
    lines = status.splitlines()
    commit = next(line for line in lines if line.startswith("# branch.oid ")).split()[-1]
    if commit == "(initial)":
        return Revision(version)
    return Revision(version, commit, not all(line.startswith("#") for line in lines))


def git(project: Path, *arguments: str) -> str | None:
    """Return the output of git in the repository whose top is ``project``; None if it fails.

    No other repository is used: neither one around ``project``, nor a hook's GIT_DIR.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    places = (f"--git-dir={project / '.git'}", f"--work-tree={project}")
    command = ["git", "--no-optional-locks", *places, *arguments]
    try:
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


def _version() -> str | None:
    """Read the version in pyproject.toml beside the code, else the installed package's."""
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
