"""Measure the core seconds that a run of the laptop scale takes beyond training, and where they go.

Snakemake makes all of the scale in a copy of the tracked files, with runs shortened to a few steps
and as many seeds as make the wanted number of runs. Training is measured in a process of its own,
and subtracted; the theory's simulation is left out. The core seconds of all processes count, so
that other load matters little.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.digits import digits_options, prepare_digits
from bench.measure import Record, Spread, Target
from bench.workflow import copy_project
from workflow.experiments import expand, load_experiments, start_points

SECONDS = 1.5
EPOCHS = 2  # of 2 or 4 steps
# Run Snakemake, then write the core seconds of itself and of its jobs to a file: at the very end,
# once it has waited for the servers that its jobs are forks of.
SNAKEMAKE = """
import atexit, json, resource, sys
from pathlib import Path
from snakemake.cli import main
out = sys.argv.pop(1)
@atexit.register
def write():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    Path(out).write_text(json.dumps([each.ru_utime + each.ru_stime for each in used]))
main()
"""
# Train, then train again and print the core seconds of that.
TRAINING = """
import sys, time
from trainer.__main__ import main
from trainer.run import engine
train = engine.train
def timed(*arguments):
    begin = time.process_time()
    train(*arguments)
    print(time.process_time() - begin)
engine.train = timed
for folder in "12":
    main([*sys.argv[1:], "--log-pth", folder])
"""
IMPORTS = """
from importlib import import_module
from workflow.forks.server import IMPORTS
for name in IMPORTS["trainer.launch"]:
    import_module(name)
"""


@dataclass(frozen=True)
class Used:
    """Hold the core seconds of Snakemake and of its jobs."""

    snakemake: float
    jobs: float

    def __sub__(self, other: Used) -> Used:
        return Used(self.snakemake - other.snakemake, self.jobs - other.jobs)


def run(runs: int) -> Iterator[Record]:
    """Measure once: the runs are the repetitions."""
    with tempfile.TemporaryDirectory() as temporary:
        project = copy_project(Path(temporary) / "project")
        runs = write_scale(project, runs)
        snakemake(project, "data")
        nothing = snakemake(project, "data")
        trained = snakemake(project, "trained") - nothing
        drawn = snakemake(project, "all") - nothing
        training = measure_training(Path(temporary) / "alone")
        jobs = len([*project.glob("results/laptop/*/*.csv"), *project.glob("results/*/pages/*")])
    imports = core_seconds([sys.executable, "-c", IMPORTS])
    client = core_seconds(["bash", "-c", f"{sys.executable} -m workflow.forks platform"])
    parts = {
        "Snakemake's start, twice": 2 * (nothing.snakemake + nothing.jobs) / runs,
        "Snakemake's jobs of training": trained.snakemake / runs,
        "imports, once": imports / runs,
        "a shell and its client": client,
        "start of a forked trainer": (trained.jobs - imports) / runs - client - training,
        "tables, figures, pages": (drawn.snakemake + drawn.jobs) / runs,
    }
    yield Record(
        benchmark="overhead",
        unit="core s a run",
        variants={name: Spread.of([seconds]) for name, seconds in parts.items()},
        figure_is="core seconds a run beyond training",
        figure=Spread.of([sum(parts.values())]),
        target=Target(bound=SECONDS, at_most=True),
        settings={"runs": runs, "tables, figures, pages": jobs, "training, core s": training},
    )


def write_scale(project: Path, wanted: int) -> int:
    """Shorten the runs of the laptop scale; return how many there are, at least ``wanted``."""
    laptop = project / "experiments" / "laptop.yaml"
    content: dict[str, Any] = yaml.safe_load(laptop.read_text("utf-8"))
    runs, seeds = 0, 0
    while runs < wanted:
        seeds += 1
        for experiment in content["experiments"].values():
            experiment |= {"seeds": list(range(seeds)), "pilot_seeds": []}
            for phase in {"phase1", "phase2"} & experiment.keys():
                experiment[phase]["epochs"] = EPOCHS
        laptop.write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
        found = [expand(each) for each in load_experiments(laptop).experiments.values()]
        runs = len({run.id for some in found for run in [*start_points(some), *some]})
    theory = project / "results" / "laptop" / "tables" / "theory.csv"
    theory.parent.mkdir(parents=True)
    # Its time is now, so that nothing is simulated.
    shutil.copyfile(project / "results" / "reference" / "laptop" / "tables" / theory.name, theory)
    return runs


def snakemake(project: Path, target: str) -> Used:
    """Run it. Raises RuntimeError if it fails."""
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(project),
    }
    out = project / "used.json"
    done = subprocess.run(
        [sys.executable, "-c", SNAKEMAKE, str(out), target],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"snakemake {target}:\n{done.stdout[-2000:]}")
    return Used(*json.loads(out.read_text()))


def measure_training(folder: Path) -> float:
    """Return the core seconds to train one of the shortened runs, and to evaluate it."""
    folder.mkdir()
    prepare_digits(folder)
    options = {"batch-size": 8, "total-batch-size": 128, "epochs": EPOCHS, "steps-per-epoch": 4}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, "train", *digits_options(**options), "--data-pth", "."],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.splitlines()[-1])


def core_seconds(command: list[str]) -> float:
    """Run ``command``; return the core seconds of it and of what it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
