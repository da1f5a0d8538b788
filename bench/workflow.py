"""Measure Snakemake's wall time: a dry run of 2,000 runs, and ``figures`` with nothing to do.

Both run in a copy of the tracked files. Snakemake itself makes the results of the second there: all
runs of the laptop scale, shortened to a few steps, so that it has as many jobs and files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bench.measure import Record, Spread, Target, measure_interleaved
from workflow.paths import ROOT

RUNS = 2000
DRY_RUN_SECONDS, NOTHING_SECONDS = 10.0, 4.0


def run(repetitions: int) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as temporary:
        project = copy_project(Path(temporary) / "project")
        many, planned = write_scales(project)
        time_snakemake(project, "figures")
        values = measure_interleaved(
            {
                "dry run": lambda: time_snakemake(
                    project, "--dry-run", "--config", "scale=many", "--", "figures", expect=planned
                ),
                "nothing to do": lambda: time_snakemake(
                    project, "figures", expect="Nothing to be done"
                ),
            },
            repetitions,
        )
    for name, bound, settings in (
        ("dry run", DRY_RUN_SECONDS, {"runs": many}),
        ("nothing to do", NOTHING_SECONDS, {"scale": "laptop, Figure 1(a) and theory, few steps"}),
    ):
        yield Record(
            benchmark=f"workflow: {name}",
            unit="s",
            variants={name: Spread.of(values[name])},
            figure_is=f"snakemake figures, {name}, s",
            figure=Spread.of(values[name]),
            target=Target(bound=bound, at_most=True),
            settings=settings,
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


def write_scales(project: Path) -> tuple[int, str]:
    """Write scale ``many`` with about ``RUNS`` runs, and a short ``laptop``.

    Returns the number of runs of ``many``, and a pattern for that line of a dry run.
    """
    laptop = project / "experiments" / "laptop.yaml"
    content: dict[str, Any] = yaml.safe_load(laptop.read_text())
    figure = content["experiments"]["fig1a"]
    content["experiments"] = {"fig1a": figure}
    seeds, figure["pilot_seeds"] = figure["seeds"], []
    figure["seeds"] = list(range(RUNS // len(figure["runs"])))
    laptop.with_name("many.yaml").write_text(yaml.safe_dump(content))
    runs = len(figure["seeds"]) * len(figure["runs"])
    figure["seeds"] = seeds
    figure["phase1"]["epochs"], figure["phase2"]["epochs"] = 1, 2
    laptop.write_text(yaml.safe_dump(content))
    return runs, rf"(?m)^train +{runs}$"


def time_snakemake(project: Path, *arguments: str, expect: str = "") -> float:
    """Time ``snakemake``. Raises RuntimeError if it fails or prints nothing matching ``expect``."""
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(project),
    }
    start = time.perf_counter()
    done = subprocess.run(
        [programs / "snakemake", *arguments],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    elapsed = time.perf_counter() - start
    if done.returncode or not re.search(expect, done.stdout):
        raise RuntimeError(f"snakemake {' '.join(arguments)}:\n{done.stdout[-2000:]}")
    return elapsed
