"""Average the parameters of all K clients: of a process's own, then over the processes.

https://arxiv.org/abs/2303.01215, section 2: after H local steps, every client continues from the
mean of the K clients' parameters.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from trainer.local_sgd.clients import ClientBank
from trainer.local_sgd.outer import Outer, OuterOptimizer
from trainer.local_sgd.processes import Processes
from trainer.local_sgd.replicas import Replicas

MomentumPolicy = Literal["keep", "average", "reset"]


class Averaging:
    """Average ``bank`` over all processes, each of which holds K / world_size clients.

    ``momentum``: each client keeps its own (the authors' code), all get the mean (a second
    all-reduce), or all restart from zero. ``outer`` makes the clients' next parameters from the
    mean; where that is the mean itself, there is no ``outer`` optimizer.
    """

    def __init__(
        self,
        bank: ClientBank,
        processes: Processes,
        momentum: MomentumPolicy = "keep",
        outer: Outer | None = None,
    ) -> None:
        self._bank = bank
        self._processes = processes
        self._momentum = momentum
        self._buffer = bank.parameters.memory.new_empty(max(self._sizes))
        self.outer = None
        if outer is not None and outer.vectors:
            self.outer = OuterOptimizer(outer, _flat(bank))

    @property
    def bytes(self) -> int:
        """Count the bytes that one client sends in one averaging."""
        return sum(self._sizes) * self._buffer.itemsize

    @property
    def _sizes(self) -> list[int]:
        """List the lengths of the vectors to average: parameters and, if averaged, momentum."""
        averaged = [self._bank.momentum.size] if self._momentum == "average" else []
        return [self._bank.parameters.size, *averaged]

    def __call__(self, lr: float = 1.0) -> None:
        """Give every client the mean parameters, or what ``outer`` makes of them.

        ``lr``: η of the round's last step, which SlowMo needs.
        """
        self._average(self._bank.parameters, partial(self.outer, lr=lr) if self.outer else None)
        if self._momentum == "average":
            self._average(self._bank.momentum)
        elif self._momentum == "reset":
            self._bank.reset_momentum()

    def restart(self, parameters: Replicas) -> None:
        """Start all clients anew from ``parameters``, the same on all processes; no momentum."""
        self._bank.parameters.fill(parameters.tensors)
        self._bank.reset_momentum()
        if self.outer:
            self.outer.restart(_flat(self._bank))

    @torch.no_grad()
    def processes_agree(self, *further: Tensor) -> bool:
        """Check that processes hold the same bits after averaging, and of ``further`` tensors."""
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}
        tensors = [*self._bank.parameters.replica(0).values(), *further]
        sums = [t.contiguous().view(bits[t.element_size()]).sum(dtype=torch.int64) for t in tensors]
        return self._processes.all_equal(hash(tuple(torch.stack(sums).tolist())))

    @torch.no_grad()
    def _average(self, replicas: Replicas, then: Callable[[Tensor], None] | None = None) -> None:
        """Average ``replicas`` over all processes, ``then`` change the mean (P,) in place.

        Without ``then``, a process's only replica is averaged where it is.
        """
        alone = replicas.count == 1 and then is None
        flat = replicas.memory if alone else replicas.mean(out=self._buffer[: replicas.size])
        # What is not averaged in place is about to be overwritten.
        flat = self._processes.all_mean(flat, self._buffer if alone else replicas.memory)
        if then is not None:
            then(flat)
        if not alone:
            replicas.assign(flat)


def _flat(bank: ClientBank) -> Tensor:
    """Return the first client's parameters (P,)."""
    return torch.cat([p.reshape(-1) for p in bank.parameters.replica(0).values()])
