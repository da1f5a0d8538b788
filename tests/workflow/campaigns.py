"""Tiny campaigns in a folder of their own, without Snakemake."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflows import TINY

SECOND = TINY.partition("experiments:\n")[2].replace("fig1a", "fig2e")
SHARED = TINY + SECOND.replace("{step1: 6", "{step1: 4")
PHOTOS = TINY.replace("digits", "photos").replace("processes: 1, threads: 1, device: cpu", "")


def campaign_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, experiments: str) -> Path:
    """Fill ``folder`` with only a tiny campaign's settings, and make it the working directory."""
    (folder / "experiments").mkdir()
    (folder / "config.yaml").write_text("scale: laptop\n")
    write(folder, experiments)
    monkeypatch.chdir(folder)
    return folder


def write(folder: Path, experiments: str) -> None:
    (folder / "experiments" / "laptop.yaml").write_text(experiments)
