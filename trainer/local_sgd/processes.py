"""Declare what the algorithm needs of the processes that share a run's clients."""

from dataclasses import dataclass
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

    def all_mean(self, tensor: Tensor, scratch: Tensor) -> Tensor:
        """Average ``tensor`` (n,) over all processes, in place; overwrite ``scratch`` (≥ n,)."""
        ...

    def all_min(self, value: int) -> int:
        """Return the minimum of all processes' ``value``."""
        ...

    def all_equal(self, value: int) -> bool:
        """Return whether all processes have the same ``value``."""
        ...


@dataclass(frozen=True)
class OneProcess:
    """Hold all clients in this process, on its ``device``."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def all_sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def all_mean(self, tensor: Tensor, scratch: Tensor) -> Tensor:
        return tensor

    def all_min(self, value: int) -> int:
        return value

    def all_equal(self, value: int) -> bool:
        return True
