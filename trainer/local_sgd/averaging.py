"""One averaging over all K clients: one flat buffer, one all-reduce.

https://arxiv.org/abs/2303.01215, section 2: after H local steps, every client continues from the
mean of the K clients' parameters.
"""

from __future__ import annotations

from typing import Literal

import torch

from trainer.distributed.world import World
from trainer.local_sgd.clients import ClientBank
from trainer.local_sgd.replicas import Stack

MomentumPolicy = Literal["keep", "average", "reset"]


class Averaging:
    """Averages ``bank`` over all processes, each holding K / world_size clients.

    ``momentum`` says what becomes of the clients' momentum: each keeps its own (the authors' code),
    all get the mean (a second all-reduce), or all begin anew.
    """

    def __init__(self, bank: ClientBank, world: World, momentum: MomentumPolicy = "keep") -> None:
        self._bank = bank
        self._world = world
        self._momentum = momentum
        self._buffer = bank.parameters.memory.new_empty(bank.parameters.size)

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
            self._bank.momentum.memory.zero_()

    @torch.no_grad()
    def is_the_same(self) -> bool:
        """Whether all processes hold the same parameters, bit by bit, right after averaging."""
        first = self._bank.parameters.replica(0).values()
        whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}
        sums = [p.contiguous().view(whole[p.element_size()]).sum(dtype=torch.int64) for p in first]
        return self._world.same(hash(tuple(torch.stack(sums).tolist())))

    @torch.no_grad()
    def _average(self, stack: Stack) -> None:
        """A single replica is averaged where it lies; offloaded ones on the device."""
        alone = stack.replicas == 1
        if alone and self._world.size == 1:
            return  # it is its own mean
        own = stack.memory if alone else stack.mean(out=self._buffer)
        flat = self._world.sum_(own.to(self._world.device))
        flat /= self._world.size
        if flat is not stack.memory:
            stack.assign(flat)
