"""Average the parameters of all K clients: one flat buffer, one all-reduce.

https://arxiv.org/abs/2303.01215, section 2: after H local steps, every client continues from the
mean of the K clients' parameters.
"""

from typing import Literal

import torch

from trainer.local_sgd.clients import ClientBank
from trainer.local_sgd.processes import Processes
from trainer.local_sgd.replicas import Replicas

MomentumPolicy = Literal["keep", "average", "reset"]


class Averaging:
    """Average ``bank`` over all processes, each of which holds K / world_size clients.

    ``momentum``: each client keeps its own (the authors' code), all get the mean (a second
    all-reduce), or all restart from zero.
    """

    def __init__(
        self, bank: ClientBank, processes: Processes, momentum: MomentumPolicy = "keep"
    ) -> None:
        self._bank = bank
        self._processes = processes
        self._momentum = momentum
        self._buffer = bank.parameters.memory.new_empty(bank.parameters.size)

    @property
    def bytes(self) -> int:
        """Count the bytes that one client sends in one averaging."""
        models = 2 if self._momentum == "average" else 1
        return models * self._buffer.nbytes

    def __call__(self) -> None:
        """Give every client the mean parameters."""
        self._average(self._bank.parameters)
        if self._momentum == "average":
            self._average(self._bank.momentum)
        elif self._momentum == "reset":
            self._bank.momentum.memory.zero_()

    @torch.no_grad()
    def processes_agree(self) -> bool:
        """Check that all processes hold the same bits after averaging."""
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}
        first = self._bank.parameters.replica(0).values()
        sums = [p.contiguous().view(bits[p.element_size()]).sum(dtype=torch.int64) for p in first]
        return self._processes.all_equal(hash(tuple(torch.stack(sums).tolist())))

    @torch.no_grad()
    def _average(self, replicas: Replicas) -> None:
        """Average ``replicas`` over all processes; a process's only replica in place."""
        alone = replicas.count == 1
        if alone and self._processes.size == 1:
            return
        own = replicas.memory if alone else replicas.mean(out=self._buffer)
        flat = self._processes.all_sum(own)
        flat /= self._processes.size
        if not alone:
            replicas.assign(flat)
