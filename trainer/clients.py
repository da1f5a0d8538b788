"""The client bank: the K replicas of one process as one stacked set of tensors.

Parameter p of all clients is one tensor (K, *p.shape); client k's copy is its k-th slice. Local SGD
is elementwise in the clients, so that one multi-tensor SGD call steps many of them, and averaging
is a mean over the first dimension.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from trainer.data.memory import Batch
from trainer.layers import for_several_clients
from trainer.optimizer import SGD, Descent

Stack = dict[str, Tensor]  # by parameter name, each (replicas, *shape)
Way = Literal["serial", "vectorized", "fused"]


@dataclass(frozen=True)
class Plan:
    """How a process executes its clients.

    ``serial``: one after the other. ``vectorized``: each pass computes ``clients_per_pass`` of
    them by `vmap` over their parameters. ``fused``: for rounds of one step, after which all clients
    are equal again: one replica, whose gradient is the mean of the clients'.
    """

    way: Way
    clients_per_pass: int = 1

    def __str__(self) -> str:
        return f"{self.way}, {self.clients_per_pass} a pass"


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Some clients that are computed together: their part of a batch, and what they train.

    Parameters are leaves of their own that share the stack's memory.
    """

    clients: int | slice
    parameters: Stack
    momentum: Stack


class ClientBank:
    """``num_clients`` replicas of ``model`` and their momentum, executed by a ``Plan``.

    ``model`` is taken over as the template of the computation: its BatchNorm layers stop tracking
    statistics, which are per client and batch in training and re-estimated for evaluation.
    ``stochastic``: the model draws random numbers, each client's from the seed that its batch
    brings. ``autocast``: the forward passes compute in this type.
    """

    def __init__(
        self,
        model: nn.Module,
        num_clients: int,
        optimizer: SGD,
        plan: Plan,
        *,
        stochastic: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.num_clients = num_clients
        self._stochastic = stochastic
        self._autocast = autocast
        self._model = model.train()
        self._in_batch = for_several_clients(model)
        self.parameters: Stack = {n: p.detach()[None] for n, p in model.named_parameters()}
        self.momentum: Stack = {
            n: torch.zeros_like(p) for n, p in self.parameters.items() if optimizer.momentum
        }
        self._descend = Descent(optimizer, model)
        self._start(plan)

    def execute(self, plan: Plan) -> None:
        """Go on by ``plan``. Right after averaging only, when all clients are equal."""
        if plan != self.plan:
            self._start(plan)

    def step(self, batch: Batch, lr: float) -> Tensor:
        """One local step of every client on its own batch; returns the clients' losses (K,)."""
        fused = self.plan.way == "fused"
        all_losses = []
        for part in self._passes:
            losses = self._losses(part, batch)
            if fused:  # the gradients of all passes add up
                (losses.sum() / self.num_clients).backward()
            else:
                losses.sum().backward()
                self._descend(part.parameters, part.momentum, lr)
            all_losses.append(losses.detach())
        if fused:
            self._descend(self._passes[-1].parameters, self._passes[-1].momentum, lr)
        return torch.cat(all_losses)

    @torch.no_grad()
    def export(self, model: nn.Module) -> None:
        """Copy the first client's parameters into ``model``; after averaging, all are equal."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.parameters[name][0])

    @property
    def size(self) -> int:
        """P, the number of parameters of one client."""
        return sum(p[0].numel() for p in self.parameters.values())

    @property
    def replicas(self) -> int:
        """How many sets of parameters there are: one per client, or a single one (``fused``)."""
        return 1 if self.plan.way == "fused" else self.num_clients

    def activation_bytes(self, batch: Batch) -> int:
        """What one client's forward pass keeps in memory for its backward pass."""
        given = [batch.images, batch.labels, *self.parameters.values()]
        here_already = {tensor.untyped_storage().data_ptr() for tensor in given}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in here_already:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        one = Pass(clients=0, parameters=_share(self.parameters, 0), momentum={})
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._loss(one.parameters, batch.images[0], batch.labels[0])
        return sum(kept.values())

    def _start(self, plan: Plan) -> None:
        self.plan = plan
        self.parameters = _spread(self.parameters, self.replicas)
        self.momentum = _spread(self.momentum, self.replicas)
        k, size = self.num_clients, plan.clients_per_pass
        if plan.way == "serial":
            self._passes = [self._pass(client, client) for client in range(k)]
            return
        parts = [slice(start, min(start + size, k)) for start in range(0, k, size)]
        if plan.way == "vectorized":
            self._passes = [self._pass(part, part) for part in parts]
        else:
            only = self._pass(parts[0], 0)
            self._passes = [replace(only, clients=part) for part in parts]

    def _pass(self, clients: int | slice, replicas: int | slice) -> Pass:
        return Pass(
            clients=clients,
            parameters=_share(self.parameters, replicas),
            momentum={name: m[replicas] for name, m in self.momentum.items()},
        )

    def _losses(self, part: Pass, batch: Batch) -> Tensor:
        """Of the clients of ``part``, (clients,)."""
        images, labels = batch.images[part.clients], batch.labels[part.clients]
        if self.plan.way == "vectorized":
            losses: Tensor = vmap(self._loss)(part.parameters, images, labels)
            return losses
        if self.plan.way == "fused":
            return self._losses_of_equals(part.parameters, images, labels)
        if self._stochastic:
            torch.manual_seed(int(batch.seeds[part.clients]))
        return self._loss(part.parameters, images, labels)[None]

    def _loss(self, parameters: Stack, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self._logits(parameters, images), labels)

    def _losses_of_equals(self, parameters: Stack, images: Tensor, labels: Tensor) -> Tensor:
        """Of several clients that share their ``parameters``, in one large batch."""
        self._in_batch.count = len(images)
        logits = self._logits(parameters, images.flatten(0, 1))
        self._in_batch.count = 1
        losses = F.cross_entropy(logits, labels.flatten(), reduction="none")
        return losses.view_as(labels).mean(1)

    def _logits(self, parameters: Stack, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, self._autocast, enabled=self._autocast is not None):
            logits: Tensor = functional_call(self._model, parameters, (images,))
        return logits.to(images.dtype)


@torch.no_grad()
def mean(stack: Stack, out: Tensor) -> Tensor:
    """The clients' mean of ``stack``, flat, written to ``out`` (P,)."""
    for stacked, part in _flat_parts(stack, out):
        torch.mean(stacked, 0, out=part)
    return out


@torch.no_grad()
def assign(stack: Stack, flat: Tensor) -> None:
    """Give every client the values ``flat`` (P,)."""
    for stacked, part in _flat_parts(stack, flat):
        stacked.copy_(part.expand_as(stacked))


def _flat_parts(stack: Stack, flat: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    start = 0
    for stacked in stack.values():
        size = stacked[0].numel()
        yield stacked, flat[start : start + size].view(stacked.shape[1:])
        start += size


def _share(stack: Stack, replicas: int | slice) -> Stack:
    """Parameters of ``replicas`` as leaves of their own that share the stack's memory."""
    return {name: p[replicas].detach().requires_grad_() for name, p in stack.items()}


def _spread(stack: Stack, replicas: int) -> Stack:
    """``replicas`` copies of the first replica of ``stack``."""
    return {name: p[:1].expand(replicas, *p.shape[1:]).clone() for name, p in stack.items()}
