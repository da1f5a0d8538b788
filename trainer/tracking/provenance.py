"""Describe the code, packages and machine that made a run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from trainer.settings.run import RESULTS_VERSION
from trainer.tracking.revision import revision


def provenance(
    seconds: float, starts: int, world_size: int, device: str, execution: str
) -> dict[str, object]:
    """Describe a run's code, packages and machine, for provenance.json.

    Metrics and rule parameters hold none of it. ``starts``: how often the run was started.
    """
    code = revision()
    packages = ("torch", "torchvision", "numpy", "scipy", "ffcv", "snakemake", "wandb")
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
        "versions": {"python": platform.python_version(), **_versions(packages)},
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
    }


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # a conda env per rule holds only what the rule needs
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
