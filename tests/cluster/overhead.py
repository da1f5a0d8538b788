"""What Slurm costs a short run: ``python -m tests.cluster.overhead RUNS`` (as root; 200 take long).

So many runs of a second each, from random initialisation: by Snakemake alone on two cores, as jobs
of their own on two nodes of a core each, and 20 to a job. Prints the seconds of each way.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from tests.cluster import slurm
from tests.cluster.conftest import PROFILE, for_this_cluster, on_slurm
from tests.workflows import edit, snakemake

EXPERIMENTS = """
execution: {{processes: 1, threads: 1, device: cpu, grouped: {grouped}}}
experiments:
  fig2a:
    title: tiny
    seeds: {seeds}
    settings: {{dataset: digits, model: mlp, batch_size: 8, total_batch_size: 32, epochs: 2}}
    runs:
      - {{step1: 1, eval_freq1: 25}}
      - {{step1: 5, eval_freq1: 5}}
"""
TABLE = "results/laptop/tables/fig2a.csv"
Ended = CompletedProcess[str]


def project(folder: Path, runs: int, *, grouped: bool) -> Path:
    text = EXPERIMENTS.format(grouped=str(grouped).lower(), seeds=[*range(1, runs // 2 + 1)])
    copy = for_this_cluster(folder, text)
    edit(copy / PROFILE, "  runs: 8", "  runs: 20")
    edit(copy / PROFILE, "runs_at_once: 2", "runs_at_once: 1")
    return copy


def seconds(folder: Path, make: Callable[[Path, str], Ended]) -> float:
    """Of all runs and their table, the data being there."""
    data = snakemake(folder, "--cores", 2, "data")
    assert data.returncode == 0, data.stderr
    begin = time.monotonic()
    done = make(folder, TABLE)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - begin


def main(runs: int) -> int:
    ways: dict[str, tuple[bool, Callable[[Path, str], Ended]]] = {
        "without Slurm": (False, lambda folder, table: snakemake(folder, "--cores", 2, table)),
        "20 to a job": (True, on_slurm),
        "a job each": (False, on_slurm),
    }
    with tempfile.TemporaryDirectory() as name, slurm.running(cpus=1):
        for way, (grouped, make) in ways.items():
            took = seconds(project(Path(name, way), runs, grouped=grouped), make)
            print(f"{way}: {took:.0f} s, {took / runs:.2f} s a run", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
