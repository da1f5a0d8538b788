"""Declare what the algorithm needs of the processes that share a run's clients."""

from typing import Protocol

import torch
from torch import Tensor


class Processes(Protocol):
    """Reduce values over the processes of a run (``trainer.distributed.world.World``).

    Each executes K / ``size`` clients on its ``device``; all make the same calls in order.
    """

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def device(self) -> torch.device: ...

    def all_sum(self, tensor: Tensor) -> Tensor:
        """Sum ``tensor`` over all processes, in place."""
        ...

    def all_min(self, value: int) -> int:
        """Return the minimum of all processes' ``value``."""
        ...

    def all_equal(self, value: int) -> bool:
        """Return whether all processes have the same ``value``."""
        ...
