"""Call a function of a benchmark in each of several processes that torchrun starts.

``python -m bench.under_torchrun MODULE:FUNCTION ARGUMENTS OUT`` is what each process runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from trainer.distributed.world import World, join_world
from trainer.settings.run import RunSettings
from workflow.machine import threads_per_process


def under_torchrun(function: Callable[..., Any], processes: int, **arguments: Any) -> Any:
    """Return what ``function(world, **arguments)`` returns on the main process, through JSON.

    Each process gets its share of the cores as threads. Raises RuntimeError where one fails.
    """
    threads = threads_per_process(os.cpu_count() or 1, processes, 1, None, None)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    name = f"{function.__module__}:{function.__qualname__}"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "returned.json"
        done = subprocess.run(
            [
                *(*launcher, "--nproc-per-node", str(processes), "-m", __name__),
                *(name, json.dumps(arguments, default=str), str(out)),
            ],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{name} on {processes} processes failed:\n{done.stderr}")
        return json.loads(out.read_text("utf-8"))


def slowest(world: World, measure: Callable[[], float]) -> Callable[[], float]:
    """Wrap ``measure``: all processes begin together, and the largest result counts."""

    def measure_together() -> float:
        if world.size > 1:
            dist.barrier()
        found = torch.tensor(measure(), dtype=torch.float64, device=world.device)
        if world.size > 1:
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.item()

    return measure_together


def main() -> None:
    name, arguments, out = sys.argv[1:]
    module, function = name.split(":")
    with join_world(RunSettings(device="cpu")) as world:
        returned = getattr(import_module(module), function)(world, **json.loads(arguments))
        if world.is_main:
            Path(out).write_text(json.dumps(returned), "utf-8")


if __name__ == "__main__":
    main()
