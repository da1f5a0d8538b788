"""Helpers of the tests that run Snakemake in a copy of the project's files."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from tests import snakemake_forks
from tests.commands import BIN, ROOT, command, environment

TINY = """
execution: {processes: 1, threads: 1, device: cpu}
experiments:
  fig1a:
    title: tiny
    seeds: [1, 2]
    settings: {dataset: digits, model: mlp, batch_size: 8, total_batch_size: 32, train_subset: 100}
    phase1: {epochs: 2}
    phase2: {epochs: 4, eval_on_start: true}
    runs:
      - {step1: 1, eval_freq1: 6}
      - {step1: 6}
"""
PIECES = ("Snakefile", "config.yaml", "experiments", "workflow", "trainer", "envs", "profiles")
TARGETS = re.compile(r"all|figures|claims|runs|trained|communication|slowtime|theory|fig\w+")


def snakemake(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [str(argument) for argument in arguments]
    forked = snakemake_forks.fork(words, folder, environment())
    return forked or command(BIN / "snakemake", *words, cwd=folder)


def planned(folder: Path, *arguments: object) -> Counter[str]:
    """Jobs per rule that a dry run lists; targets themselves are left out."""
    done = snakemake(folder, "--dry-run", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.MULTILINE)
    return Counter(job for job in jobs if job == "figure" or not TARGETS.fullmatch(job))


def copy_project(folder: Path) -> Path:
    folder.mkdir()
    for piece in PIECES:
        source = ROOT / piece
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / piece)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refused(folder: Path, *arguments: object) -> str:
    """Return the only error line of a dry run of fig1a, which must fail."""
    done = snakemake(folder, "--dry-run", *(arguments or ("fig1a",)))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line
