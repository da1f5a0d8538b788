"""One averaging over all K clients: one flat buffer, one all-reduce.

https://arxiv.org/abs/2303.01215, section 2: after H local steps, every client continues from the
mean of the K clients' parameters.
"""

from __future__ import annotations

from typing import Literal

import torch

from trainer.clients import ClientBank, Stack, assign, mean
from trainer.processes import World

MomentumPolicy = Literal["keep", "average", "reset"]


class Averaging:
    """Averages ``bank`` over all processes, each holding K / world_size clients.

    ``momentum`` says what becomes of the clients' momentum: each keeps its own (the authors' code),
    all get the mean (a second all-reduce), or all begin anew.
    """

    def __init__(self, bank: ClientBank, world: World, momentum: MomentumPolicy = "keep") -> None:
        some = next(iter(bank.parameters.values()))
        self._bank = bank
        self._world = world
        self._momentum = momentum
        self._buffer = torch.empty(bank.size, dtype=some.dtype, device=some.device)

    @property
    def bytes(self) -> int:
        """What one client sends in one averaging."""
        models = 2 if self._momentum == "average" else 1
        return models * self._buffer.nbytes

    def __call__(self) -> None:
        """Every client gets the mean parameters."""
        self._average(self._bank.parameters)
        if self._momentum == "average":
            self._average(self._bank.momentum)
        elif self._momentum == "reset":
            for buffer in self._bank.momentum.values():
                buffer.zero_()

    def _average(self, stack: Stack) -> None:
        if self._bank.replicas * self._world.size == 1:
            return  # it is its own mean
        mean(stack, out=self._buffer)
        self._world.sum_(self._buffer)
        self._buffer /= self._world.size
        assign(stack, self._buffer)
