"""Rounds of the trainer as `Run.train` makes them, input included, without evaluations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from trainer.distributed.world import World
from trainer.run.engine import Run
from trainer.settings.run import RunSettings


def benchmark_settings(
    dataset: str, data_pth: Path, *, k: int, batch_size: int, local_steps: int, **more: Any
) -> RunSettings:
    """Of K clients that all take batches of B_loc; input is augmented, weights decay."""
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
    """``seconds(n)`` of n rounds of a run, which finds its own way to execute the clients."""

    def __init__(self, settings: RunSettings, world: World) -> None:
        self.run = Run(settings, world)
        self._world = world
        self._local_steps = next(self.run.schedule.rounds()).local_steps
        self.plan = self.run.plans.of(next(self.run.schedule.rounds()))
        self.run.bank.execute(self.plan)
        self._batches = self.run.training.batches(self.run.sampler, self.run.clients, 0, 0)

    def seconds(self, rounds: int) -> float:
        start = time.perf_counter()
        for _ in range(rounds):
            for _ in range(self._local_steps):
                self.run.bank.step(next(self._batches), lr=0.0)
            self.run.average()
        self._world.synchronise()
        return time.perf_counter() - start
