"""One averaging of the parameters over all K clients: one flat buffer, one all-reduce.

https://arxiv.org/abs/2303.01215, section 2: after H local steps, every client continues from the
mean of the K clients' parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.clients import ClientBank
from trainer.processes import World


class Averaging:
    """Averages ``bank`` over all processes, each holding K / world_size clients."""

    def __init__(self, bank: ClientBank, world: World) -> None:
        some = next(iter(bank.parameters.values()))
        self._bank = bank
        self._world = world
        self._buffer = torch.empty(bank.size, dtype=some.dtype, device=some.device)

    def __call__(self) -> Tensor:
        """Every client gets the mean; returns it (P,), valid until the next call."""
        self._bank.mean(out=self._buffer)
        self._world.sum_(self._buffer)
        self._buffer /= self._world.size
        self._bank.assign(self._buffer)
        return self._buffer
