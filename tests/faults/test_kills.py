"""A few kills of each kind; ``python -m tests.faults.kills 100`` for more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import more
from tests.faults.kills import ENVIRONMENT, FIGURE, RUNS, compare, results, torture
from tests.workflows import copy_project, edit, snakemake


@pytest.mark.slow
@pytest.mark.parametrize("name", [name if name == "momentum" else more(name) for name in RUNS])
def test_a_killed_run_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    outcomes = list(torture([name], 2, 0, tmp_path))
    assert sum(len(outcome.killed) for outcome in outcomes) >= 2
    assert [outcome.differs for outcome in outcomes] == [[]] * len(outcomes)


@pytest.mark.slow
def test_after_a_kill_of_everything_only_unfinished_runs_go_on(
    tmp_path: Path,
) -> None:
    """Killed once the figure's start point is finished and a run has a checkpoint."""
    folders = {name: copy_project(tmp_path / name) for name in ("whole", "killed")}
    for folder in folders.values():
        (folder / "experiments" / "laptop.yaml").write_text(FIGURE.replace("[1, 2]", "[1]"))
        edit(folder / "config.yaml", "checkpoint_every: 10", "checkpoint_every: 0.002")
    done = snakemake(folders["whole"], "fig1a")
    assert done.returncode == 0, done.stdout + done.stderr
    place = folders["killed"] / "results" / "laptop"
    process = subprocess.Popen(
        ["snakemake", "fig1a"], cwd=folders["killed"], env=ENVIRONMENT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    begun: list[str] = []
    while not begun:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
        saved = {path.parents[1].name for path in place.glob("checkpoints/*/state/step=*")}
        begun = sorted(saved - {path.name for path in place.glob("start_points/*")})
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list(place.glob("start_points/*/metrics.jsonl"))) == 1
    before = {path: path.stat().st_mtime_ns for path in place.glob("*/*/metrics.jsonl")}
    assert snakemake(folders["killed"], "--unlock").returncode == 0
    done = snakemake(folders["killed"], "fig1a")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    made = json.loads((place / "runs" / begun[0] / "provenance.json").read_text())
    assert made["starts"] == 2
    assert results(folders["killed"]) == results(folders["whole"])
    assert compare(folders["whole"], folders["killed"], results(folders["whole"])) == []
