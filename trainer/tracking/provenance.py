"""Describe the code, packages and machine that made a run."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trainer.settings.run import RESULTS_VERSION

PROJECT = "local-sgd-generalization"
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "ffcv", "snakemake", "wandb")


def provenance(
    seconds: float, starts: int, world_size: int, device: str, execution: str
) -> dict[str, object]:
    """Describe a run's code, packages and machine, for provenance.json.

    Metrics and rule parameters hold none of it. ``starts``: how often the run was started.
    """
    code = revision()
    # A conda environment per rule holds only what the rule needs.
    versions = {package: found for package in PACKAGES if (found := _installed(package))}
    return {
        "results_version": RESULTS_VERSION,
        "seconds": round(seconds, 3),
        "starts": starts,
        "processes": world_size,
        "device": device,
        "execution": execution,
        "command": sys.argv,
        "version": code.version,
        "git_commit": code.commit,
        "git_dirty": code.dirty,
        "versions": {"python": platform.python_version(), **versions},
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
    }


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        described = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        described = ""
    name = re.search(r"^model name\s*:(.*)$", described, re.MULTILINE)
    return name[1].strip() if name else platform.processor()


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
    status = git(ROOT, "status", "--porcelain=v2", "--branch", "--untracked-files=no") or ""
    commit = re.search(r"^# branch\.oid ([0-9a-f]+)$", status, re.MULTILINE)  # or "(initial)"
    if commit is None or git(ROOT, "ls-files", "--error-unmatch", str(own)) is None:
        return Revision(version)
    return Revision(version, commit[1], not all(line[0] == "#" for line in status.splitlines()))


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
    return _installed(PROJECT)
