"""Measure wall time of ``python -m trainer --help`` and of a digits run of one step.

The run is timed whole, with an evaluation and its files: an upper bound of the time to its first
step. Under torchrun each of the 2 processes is timed from its own start, and the slower counts; the
whole command, launcher and rendezvous included, stands beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.digits import digits_options, prepare_digits
from bench.measure import Record, Spread, Target, measure_interleaved

HELP_SECONDS, STEP_SECONDS = 1.0, 4.0
PROCESSES = 2
TRAINER = [sys.executable, "-m", "trainer"]
# Write the command's seconds to the file $0/<rank>.
TIMED = 'TIMEFORMAT=%R; exec 3>&2; { time "$@" 2>&3; } 2> "$0/$RANK"'


def run(repetitions: int) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_digits(folder)
        one_step = one_step_command(folder)
        values = measure_interleaved(
            {
                "python -m trainer --help": lambda: time_command([*TRAINER, "--help"]),
                "1 process, whole": lambda: time_command(one_step),
                "torchrun, slower process": lambda: time_slower_process(one_step, folder),
                "torchrun, whole command": lambda: time_command(torchrun(one_step)),
            },
            repetitions,
        )
    for name, bound in (
        ("python -m trainer --help", HELP_SECONDS),
        ("1 process, whole", STEP_SECONDS),
        ("torchrun, slower process", STEP_SECONDS),
    ):
        yield Record(
            benchmark=f"startup: {name}",
            unit="s",
            variants={k: Spread.of(v) for k, v in values.items() if same_command(name, k)},
            figure_is=f"{name}, s",
            figure=Spread.of(values[name]),
            target=Target(bound=bound, at_most=True),
            settings={"run": "digits mlp, K = 16, 1 step", "OMP_NUM_THREADS": 1},
        )


def same_command(name: str, variant: str) -> bool:
    """Tell whether both names are of the same command, by the part before the comma."""
    return name.split(",")[0] == variant.split(",")[0]


def one_step_command(folder: Path) -> list[str]:
    """Build the command of the laptop scale's run, shortened to one step."""
    options = {"batch-size": 8, "total-batch-size": 128, "epochs": 1, "steps-per-epoch": 1}
    paths = {"data-pth": folder, "log-pth": folder / "run"}
    return [*TRAINER, "train", *digits_options(**options, **paths)]


def torchrun(command: Sequence[str]) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    return [*launcher, "--nproc-per-node", str(PROCESSES), *command]


def time_slower_process(command: Sequence[str], folder: Path) -> float:
    time_command(torchrun(["bash", "-c", TIMED, str(folder), *command]))
    return max(float((folder / str(rank)).read_text()) for rank in range(PROCESSES))


def time_command(command: Sequence[str]) -> float:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start
