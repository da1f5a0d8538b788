"""Helpers of the tests of conda environments."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.commands import ROOT

FILES = sorted((ROOT / "envs").glob("*.yaml"))
LOCK = dict(
    line.split("==")
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if "==" in line
)


def parts(file: Path) -> tuple[list[str], list[str]]:
    """List what conda installs, and what pip installs."""
    dependencies = yaml.safe_load(file.read_text())["dependencies"]
    from_pip = [p for d in dependencies if isinstance(d, dict) for p in d["pip"]]
    return [d for d in dependencies if isinstance(d, str)], from_pip


def on_pypi(name: str) -> str:
    return {"pytorch": "torch"}.get(name, name)
