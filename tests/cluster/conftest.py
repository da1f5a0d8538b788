"""Fixtures: a real Slurm, and copies of the project that send their jobs to it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.cluster import slurm
from tests.commands import BIN, command
from tests.workflows import copy_project, edit, snakemake

T = TypeVar("T")
PROFILE = "workflow/profiles/slurm/config.yaml"


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    try:
        with slurm.running():
            yield
    except slurm.NoSlurmError as error:
        pytest.skip(str(error))


def for_this_cluster(folder: Path, experiments: str) -> Path:
    """Create a project with the profile that users copy, edited for this small cluster."""
    copy_project(folder)
    (folder / "experiments" / "laptop.yaml").write_text(experiments)
    profile = folder / PROFILE
    edit(profile, "  slurm_account: default\n", "")
    edit(profile, "slurm-no-account: false", "slurm-no-account: true")
    edit(profile, "mem_mb: 4000", "mem_mb: 500")
    edit(profile, "    mem_mb: 32000\n    # EDIT", "    mem_mb: 500\n    # EDIT")
    edit(profile, "latency-wait: 60", "latency-wait: 10")
    edit(profile, "runs_at_once: 4", "runs_at_once: 2")
    with profile.open("a") as file:
        # It has no accounting; and nobody wants to wait 40 s to see a job of 4 s end.
        file.write("slurm-status-command: squeue\n")
        file.write("slurm-init-seconds-before-status-checks: 2\n")
        file.write("seconds-between-status-checks: 1\n")
    return folder


def on_slurm(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = ("--workflow-profile", Path(PROFILE).parent, *arguments)
    return command(BIN / "snakemake", *words, cwd=folder)


def trained_here(folder: Path, experiments: str, *words: object) -> Path:
    """Create a project and make its figure without Slurm."""
    copy_project(folder)
    (folder / "experiments" / "laptop.yaml").write_text(experiments)
    done = snakemake(folder, "--cores", 2, *words)
    assert done.returncode == 0, done.stderr
    return folder


def in_a_job(words: Sequence[object], nodes: int = 2) -> tuple[int, str]:
    """Status and output of a command in an allocation of so many nodes."""
    asked = ("salloc", "--quiet", f"--nodes={nodes}", f"--ntasks={nodes}", "--time=5")
    done = command(*asked, *words)
    return done.returncode, done.stdout + done.stderr


@dataclass(frozen=True)
class Training:
    """Snakemake that has sent a run to Slurm: ``job`` is training into ``progress``."""

    folder: Path
    snakemake: subprocess.Popen[bytes]
    job: str
    progress: Path

    def finish(self, seconds: float = 180) -> None:
        assert self.snakemake.wait(seconds) == 0, self.said

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    @property
    def starts(self) -> int:
        """Of the run, once it is complete."""
        run = self.folder / "results" / "laptop" / "runs" / self.progress.name
        count: int = json.loads((run / "provenance.json").read_text())["starts"]
        return count


@contextmanager
def training(folder: Path, target: str, *config: str) -> Iterator[Training]:
    """Once a run has metrics."""
    words = ["--workflow-profile", str(Path(PROFILE).parent), "--config", *config, "--", target]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [BIN / "snakemake", *words], cwd=folder, stdout=said, stderr=said
        )
    try:
        job, progress = until(lambda: _begun(folder), process)
        yield Training(folder, process, job, progress)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def until(found: Callable[[], T | None], process: subprocess.Popen[bytes]) -> T:
    """Poll ``found`` until it returns a true value; fail if ``process`` ends first."""
    deadline = time.monotonic() + 120
    while not (value := found()):
        assert process.poll() is None, "Snakemake ended"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return value


def _begun(folder: Path) -> tuple[str, Path] | None:
    """Find a job whose run has at least two evaluations; return its id and the run's folder."""
    words = ["squeue", "--noheader", "--states=RUNNING", "--format=%i %k"]
    for line in subprocess.run(words, capture_output=True, text=True).stdout.splitlines():
        if match := re.fullmatch(r"(\d+) rule_train_wildcards_(\S+)", line):
            progress = folder / "results" / "laptop" / "checkpoints" / match[2]
            partial = progress / "metrics.partial.jsonl"
            if partial.exists() and len(partial.read_text().splitlines()) >= 2:
                return match[1], progress
    return None


def assert_same_bits(here: Path, there: Path, *kinds: str) -> None:
    """Metrics and models of all runs."""
    found = [path for kind in kinds for path in (here / "results/laptop" / kind).glob("*/m*")]
    assert found
    for path in found:
        assert (there / path.relative_to(here)).read_bytes() == path.read_bytes(), path.name
