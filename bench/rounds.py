"""Time rounds of the trainer as it executes them, input included, without evaluations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from trainer.distributed.world import World
from trainer.run.training_run import TrainingRun
from trainer.settings.run import RunSettings


def benchmark_settings(
    dataset: str, data_pth: Path, *, k: int, batch_size: int, local_steps: int, **more: Any
) -> RunSettings:
    """Return settings of K clients with batches of B_loc, augmented input and weight decay."""
    chosen = {
        "dataset": dataset,
        "data_pth": data_pth,
        "batch_size": batch_size,
        "total_batch_size": k * batch_size,
        "step1": local_steps,
        "replacement": True,
        "steps_per_epoch": 64,
        "wd": 5e-4,
        "log_pth": data_pth,
    }
    return RunSettings.model_validate(chosen | more)


class Rounds:
    """Time rounds of a run, which chooses itself how to execute the clients."""

    def __init__(self, settings: RunSettings, world: World) -> None:
        self.run = TrainingRun(settings, world)
        self._world = world
        first = next(self.run.schedule.rounds())
        self._local_steps = first.local_steps
        self.run.clients.begin(first)
        self.plan = self.run.clients.plan
        self._batches = self.run.batches()

    def seconds(self, rounds: int) -> float:
        start = time.perf_counter()
        for _ in range(rounds):
            for _ in range(self._local_steps):
                self.run.clients.step(next(self._batches), lr=0.0)
            self.run.average()
        if self._world.device.type == "cuda":
            torch.cuda.synchronize(self._world.device)
        return time.perf_counter() - start
