"""Keep many replicas of a model's parameters in one piece of memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Replicas:
    """Hold ``count`` replicas' parameters: ``tensors[name]`` is (count, *shape).

    The tensors lie one behind the other in ``memory`` (count · P,): a single replica is one flat
    vector.
    """

    count: int
    memory: Tensor
    tensors: Mapping[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, parameters: Mapping[str, Tensor], count: int, device: torch.device) -> Replicas:
        """Copy ``parameters`` (possibly none) ``count`` times to ``device``."""
        size = sum(p.numel() for p in parameters.values())
        some = next(iter(parameters.values()), torch.empty(0))
        memory = torch.empty(count * size, dtype=some.dtype, device=device)
        tensors, start = {}, 0
        for name, p in parameters.items():
            stop = start + count * p.numel()
            tensors[name] = memory[start:stop].view(count, *p.shape)
            tensors[name].copy_(p.expand_as(tensors[name]))
            start = stop
        return cls(count, memory, tensors)

    @property
    def size(self) -> int:
        """Count the parameters of one replica, P."""
        return len(self.memory) // self.count

    def replica(self, index: int) -> dict[str, Tensor]:
        """Return one replica's parameters, which share the memory."""
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    def all(self) -> dict[str, Tensor]:
        """Return the parameters (count, *shape) of all replicas, which share the memory."""
        return dict(self.tensors)

    def first(self) -> dict[str, Tensor]:
        """Return a copy (1, *shape) of the first replica's parameters."""
        return {name: tensor[:1].clone() for name, tensor in self.tensors.items()}

    @torch.no_grad()
    def export(self, model: nn.Module) -> None:
        """Copy the first replica's parameters into ``model``."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.tensors[name][0])

    @torch.no_grad()
    def fill(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy ``parameters`` of ``all`` replicas, or the ``first`` one's to all.

        A single replica stands for all clients of its process and gets the mean of any number: SGD
        is linear in parameters and momentum, so that with H = 1 the mean is all that ever counts.
        """
        for name, tensor in self.tensors.items():
            given = parameters[name]
            if self.count == 1:
                given = given.mean(0, keepdim=True)
            tensor.copy_(given.expand_as(tensor))

    @torch.no_grad()
    def mean(self, out: Tensor) -> Tensor:
        """Write the mean of the replicas to ``out`` (P,) and return it."""
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
