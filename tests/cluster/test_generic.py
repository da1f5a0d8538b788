"""Jobs through Snakemake's generic cluster plugin, and a stand-in for PBS that starts them here."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.conftest import trained_here
from tests.cluster.test_slurm import FIG2A, LONG
from tests.commands import BIN, environment
from tests.workflows import TINY, copy_project, edit

PLUGIN = "snakemake_executor_plugin_cluster_generic"
GROUPED = TINY.replace("device: cpu", "device: cpu, grouped: true")
TABLE = "results/laptop/tables/fig1a.csv"
# A job is a session of its own; its exit status lies in a file named after its number.
PBS = {
    "qsub": """
        number=$(ls "$PBS" | wc -l)
        echo "$@" > "$PBS/$number.asked"
        setsid bash -c 'trap : TERM; bash "$0"; echo $? > "$1"' "${@: -1}" "$PBS/$number.status" \\
          > "$PBS/$number.out" 2>&1 < /dev/null &
        echo $! > "$PBS/$number.pid"
        echo "$number.here"
    """,
    "qstat": """
        number=${3%.here}
        if [ -e "$PBS/$number.status" ]; then
          echo "    job_state = F"; echo "    Exit_status = $(cat "$PBS/$number.status")"
        else
          echo "    job_state = R"
        fi
    """,
    "qdel": """
        for job; do kill -TERM -- "-$(cat "$PBS/${job%.here}.pid")"; done
    """,
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec(PLUGIN) is None,
        reason="needs `pip install snakemake-executor-plugin-cluster-generic`",
    ),
]


@pytest.fixture
def pbs(tmp_path: Path) -> Iterator[Path]:
    """Yield the folder of jobs: submissions (asked), processes (pid), ends (status)."""
    jobs, programs = tmp_path / "jobs", tmp_path / "programs"
    jobs.mkdir()
    programs.mkdir()
    for name, text in PBS.items():
        script = f"#!/usr/bin/env bash\nPBS={jobs}\n{textwrap.dedent(text)}"
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    yield jobs
    for left in jobs.glob("*.pid"):
        with suppress(ProcessLookupError):
            os.killpg(int(left.read_text()), 9)


def project(folder: Path, experiments: str) -> Path:
    copy_project(folder)
    (folder / "experiments" / "laptop.yaml").write_text(experiments)
    edit(folder / "workflow/profiles/pbs/config.yaml", "latency-wait: 60", "latency-wait: 10")
    return folder


def start(there: Path, jobs: Path, target: str) -> subprocess.Popen[str]:
    programs = jobs.parent / "programs"
    words = ("--workflow-profile", "workflow/profiles/pbs", "--seconds-between-status-checks", "1")
    return subprocess.Popen(
        [BIN / "snakemake", *words, "--", target],
        cwd=there,
        env=environment() | {"PATH": f"{programs}:{environment()['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_tables_are_those_of_one_machine(pbs: Path, tmp_path: Path) -> None:
    here = trained_here(tmp_path / "here", GROUPED, "fig1a")
    there = project(tmp_path / "there", GROUPED)
    process = start(there, pbs, "fig1a")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert (there / TABLE).read_bytes() == (here / TABLE).read_bytes()
    [asked] = [file.read_text() for file in pbs.glob("*.asked")]  # two seeds share a job
    # Four runs side by side, after the two start points: what the profile gives each, added up
    assert "-l select=1:ncpus=4:mem=128000mb -l walltime=480:00" in asked


def test_a_cancelled_run_saves_and_goes_on(pbs: Path, tmp_path: Path) -> None:
    """Ctrl-C calls qdel, which sends SIGTERM to all processes of a job."""
    here = trained_here(tmp_path / "here", LONG, FIG2A)
    there = project(tmp_path / "there", LONG)
    process = start(there, pbs, FIG2A)
    while not [*there.glob("results/laptop/checkpoints/*/metrics.partial.jsonl")]:
        assert process.poll() is None, "Snakemake ended"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode != 0, said
    while len([*pbs.glob("*.status")]) < len([*pbs.glob("*.pid")]):
        time.sleep(0.1)  # a job that was not cancelled would train for much longer than the test
    assert "0" not in {file.read_text().strip() for file in pbs.glob("*.status")}
    assert [*there.glob("results/laptop/checkpoints/*/state/*")] != []
    process = start(there, pbs, FIG2A)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert (there / FIG2A).read_bytes() == (here / FIG2A).read_bytes()
