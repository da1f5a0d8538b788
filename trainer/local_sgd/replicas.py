"""The parameters of many replicas of a model as tensors that lie in one piece of memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stack:
    """``tensors[name]`` (replicas, *shape) is that parameter of all replicas.

    All of them lie one behind the other in ``memory`` (replicas · P,), that of a single replica
    therefore as one flat vector.
    """

    replicas: int
    memory: Tensor
    tensors: Mapping[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        parameters: Mapping[str, Tensor],
        replicas: int,
        device: torch.device,
        *,
        pinned: bool = False,
    ) -> Stack:
        """So many copies of ``parameters``, of which there may be none, on ``device``."""
        size = sum(p.numel() for p in parameters.values())
        some = next(iter(parameters.values()), torch.empty(0))
        memory = torch.empty(replicas * size, dtype=some.dtype, device=device, pin_memory=pinned)
        tensors, start = {}, 0
        for name, p in parameters.items():
            stop = start + replicas * p.numel()
            tensors[name] = memory[start:stop].view(replicas, *p.shape)
            tensors[name].copy_(p.expand_as(tensors[name]))
            start = stop
        return cls(replicas, memory, tensors)

    @property
    def size(self) -> int:
        """P, the number of parameters of one replica."""
        return len(self.memory) // self.replicas

    def replica(self, index: int) -> dict[str, Tensor]:
        """One replica's parameters, which share the memory."""
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    def replicas_or_one(self, *, equal: bool) -> dict[str, Tensor]:
        """All replicas' parameters, sharing the memory; of ``equal`` ones a copy of the first."""
        if equal:
            return {name: tensor[:1].clone() for name, tensor in self.tensors.items()}
        return dict(self.tensors)

    @torch.no_grad()
    def fill(self, parameters: Mapping[str, Tensor]) -> None:
        """Restore ``parameters`` of as many replicas, or of one for all (``replicas_or_one``).

        A single replica stands for all clients of its process and gets the mean of any number: SGD
        is linear in parameters and momentum, so that with H = 1 the mean is all that ever counts.
        """
        for name, tensor in self.tensors.items():
            given = parameters[name]
            if self.replicas == 1:
                given = given.mean(0, keepdim=True)
            tensor.copy_(given.expand_as(tensor))

    @torch.no_grad()
    def mean(self, out: Tensor) -> Tensor:
        """The replicas' mean, flat, written to ``out`` (P,)."""
        for tensor, part in self._parts(out):
            torch.mean(tensor, 0, out=part)
        return out

    @torch.no_grad()
    def assign(self, flat: Tensor) -> None:
        """Give every replica the values ``flat`` (P,)."""
        for tensor, part in self._parts(flat):
            tensor.copy_(part.expand_as(tensor))

    def _parts(self, flat: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        start = 0
        for tensor in self.tensors.values():
            size = tensor[0].numel()
            yield tensor, flat[start : start + size].view(tensor.shape[1:])
            start += size
