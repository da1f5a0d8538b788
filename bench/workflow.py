"""Measure Snakemake's wall time: dry runs of many runs, and ``figures`` with nothing to do.

All run in a copy of the tracked files. A bare Snakefile, with as many jobs that make one file each,
shows what of a dry run is Snakemake's. For "nothing to do" Snakemake makes the results there: all
runs of the laptop scale's Figure 1(a), shortened to a few steps.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from bench.measure import Record, Spread, Target, measure_interleaved
from workflow.paths import ROOT

RUNS = {2_000: 4.0, 10_000: 20.0}  # and the seconds that a dry run of as many may take
NOTHING_SECONDS = 4.0
PER_SEED = 4  # runs of Figure 1(a), and a start point
BARE = """
rule figures:
    input: [f"runs/{{seed}}-{{h}}" for seed in range({seeds}) for h in range({per_seed})]
rule start_point:
    output: "start_points/{{seed}}"
    shell: "touch {{output}}"
rule train:
    input: "start_points/{{seed}}"
    output: "runs/{{seed}}-{{h}}"
    shell: "touch {{output}}"
"""


def run(repetitions: int) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as temporary:
        project = copy_project(Path(temporary) / "project")
        nothing = partial(
            time_command, project, "snakemake", "figures", expect="Nothing to be done"
        )
        variants: dict[str, Callable[[], float]] = {"nothing to do": nothing}
        for runs in RUNS:
            variants |= many_runs(project, Path(temporary) / f"bare-{runs}", runs)
        shorten_laptop(project)
        time_command(project, "snakemake", "figures")
        values = measure_interleaved(variants, repetitions)
    for runs, seconds in RUNS.items():
        figure = Spread.of(values[f"dry run, {runs} runs"])
        yield Record(
            benchmark=f"workflow: dry run, {runs:,} runs",
            unit="s",
            variants={
                name: Spread.of(values[name]) for name in values if name.endswith(f", {runs} runs")
            },
            figure_is="snakemake figures, dry run, s",
            figure=figure,
            target=Target(bound=seconds, at_most=True),
            settings={"runs": runs, "start points": runs // PER_SEED},
        )
    yield Record(
        benchmark="workflow: nothing to do",
        unit="s",
        variants={"nothing to do": Spread.of(values["nothing to do"])},
        figure_is="snakemake figures, nothing to do, s",
        figure=Spread.of(values["nothing to do"]),
        target=Target(bound=NOTHING_SECONDS, at_most=True),
        settings={"scale": "laptop, Figure 1(a) and theory, few steps"},
    )


def copy_project(folder: Path) -> Path:
    """Copy the tracked files in their present state."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, tracked.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def many_runs(project: Path, bare: Path, runs: int) -> dict[str, Callable[[], float]]:
    """Return what times ``runs`` runs of a new scale, and as many of a Snakefile in ``bare``."""
    scale = f"many{runs}"
    content = figure_1a(project)
    experiment = content["experiments"]["fig1a"]
    assert len(experiment["runs"]) == PER_SEED
    experiment |= {"pilot_seeds": [], "seeds": list(range(runs // PER_SEED))}
    (project / "experiments" / f"{scale}.yaml").write_text(yaml.safe_dump(content))
    bare.mkdir()
    (bare / "Snakefile").write_text(BARE.format(seeds=runs // PER_SEED, per_seed=PER_SEED))
    planned = rf"(?m)^train +{runs}$"
    dry_run, status = ["--dry-run", "--config", f"scale={scale}"], ["status", "--scale", scale]
    return {
        f"dry run, {runs} runs": partial(
            time_command, project, "snakemake", *dry_run, "--", "figures", expect=planned
        ),
        f"dry run of a bare Snakefile, {runs} runs": partial(
            time_command, bare, "snakemake", "--dry-run", "--scheduler", "greedy", expect=planned
        ),
        f"status, {runs} runs": partial(
            time_command,
            project,
            "python",
            "-m",
            "workflow",
            *status,
            expect=f"{runs + runs // PER_SEED} runs asked",
        ),
    }


def shorten_laptop(project: Path) -> None:
    """Leave laptop's Figure 1(a) alone, and a few steps of it."""
    content = figure_1a(project)
    for phase, epochs in (("phase1", 1), ("phase2", 2)):
        content["experiments"]["fig1a"][phase]["epochs"] = epochs
    (project / "experiments" / "laptop.yaml").write_text(yaml.safe_dump(content))


def figure_1a(project: Path) -> dict[str, Any]:
    """Read the laptop scale's experiments, without all but Figure 1(a)."""
    content: dict[str, Any] = yaml.safe_load((project / "experiments/laptop.yaml").read_text())
    return content | {"experiments": {"fig1a": content["experiments"]["fig1a"]}}


def time_command(folder: Path, program: str, *arguments: str, expect: str = "") -> float:
    """Time a command. Raises RuntimeError if it fails or prints nothing matching ``expect``."""
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
    }
    start = time.perf_counter()
    done = subprocess.run(
        [programs / program, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    elapsed = time.perf_counter() - start
    if done.returncode or not re.search(expect, done.stdout):
        raise RuntimeError(f"{program} {' '.join(arguments)}:\n{done.stdout[-2000:]}")
    return elapsed
