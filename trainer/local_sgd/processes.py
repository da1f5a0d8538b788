"""State what the algorithm needs of the processes that share the clients of a run."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Processes(Protocol):
    """Reduce values over the processes of a run (``trainer.distributed.world.World``).

    Each executes K / ``size`` clients on its ``device``; all call the same methods in the same
    order.
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
        """Return the least of all processes' ``value``."""
        ...

    def all_equal(self, value: int) -> bool:
        """Return whether all processes have the same ``value``."""
        ...
