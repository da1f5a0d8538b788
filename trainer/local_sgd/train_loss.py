"""The training loss between two evaluations."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.distributed.world import World


class TrainLoss:
    """Of this process's clients: summed over steps, on the device, which is not waited for."""

    def __init__(self, world: World, total: float = 0.0, steps: int = 0) -> None:
        """``total`` of the clients' losses over ``steps`` steps so far, all finite."""
        self._world = world
        self._sum = torch.tensor(total, dtype=torch.float64, device=world.device)
        self.steps = steps
        self._finite_steps = torch.tensor(steps, device=world.device)

    @property
    def total(self) -> float:
        return self._sum.item()

    def add(self, losses: Tensor) -> None:
        """Those of the clients in one step, (clients,)."""
        self._sum += losses.sum()
        self._finite_steps += self._sum.isfinite()
        self.steps += 1

    def finite_steps(self) -> int:
        """How many steps had finite losses, of all clients of all processes, before the first that
        had not; ``steps`` where all had.
        """
        return self._world.least(int(self._finite_steps))

    def mean(self, num_clients: int) -> float | None:
        """Over all processes' ``num_clients`` and the steps since it was asked for last."""
        if self.steps == 0:
            return None
        total = self._world.sum_(self._sum).item()
        mean = total / (self.steps * num_clients)
        self._sum.zero_()
        self._finite_steps.zero_()
        self.steps = 0
        return mean
