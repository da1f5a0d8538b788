"""The client bank: the K replicas of one process as one stacked set of tensors.

Parameter p of all clients is one tensor (K, *p.shape); client k's copy is its k-th slice. Local SGD
is elementwise in the clients, so that one multi-tensor SGD call steps many of them, and averaging
is a mean over the first dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from trainer.data.training import Batch
from trainer.local_sgd.optimizer import SGD, Descent
from trainer.local_sgd.replicas import Stack
from trainer.models.stacked_layers import for_several_clients, takes_stacked_weights

TRIED_SAMPLES = 1024
Way = Literal["serial", "vectorized", "fused", "offloaded"]

# float16's smallest number is 6e-8, and many gradients are less. A power of two costs no digits.
FLOAT16_LOSS_SCALE = 1024.0


@dataclass(frozen=True)
class Plan:
    """How a process executes its clients.

    ``serial``: one after the other. ``vectorized``: each pass computes ``clients_per_pass`` of
    them, by `vmap` over their parameters or, where all layers with parameters are linear, as
    products of stacked matrices without its overhead. ``fused``: for rounds of one step, after
    which all clients are equal again: one replica, whose gradient is the mean of the clients'.
    ``offloaded``: serial, but all replicas lie in the host's memory, and one at a time is copied to
    the device for its step and back.
    """

    way: Way
    clients_per_pass: int = 1

    def __str__(self) -> str:
        return f"{self.way}, {self.clients_per_pass} a pass"


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Some clients that are computed together: their part of a batch, and what they train.

    Parameters are leaves of their own that share the stack's memory; but where clients are
    offloaded, those of ``home`` are copied to them and back.
    """

    clients: slice
    home: int | None = None
    parameters: dict[str, Tensor]
    momentum: dict[str, Tensor]


class ClientBank:
    """``num_clients`` replicas of ``model`` and their momentum, executed by a ``Plan``.

    ``model`` is taken over as the template of the computation: its BatchNorm layers stop tracking
    statistics, which are per client and batch in training and re-estimated for evaluation.
    ``stochastic``: the model draws random numbers, each client's from the seed that its batch
    brings. ``autocast``: the forward passes compute in this type; float16's backward passes start
    from a loss that is a constant times larger. ``compiled``: by `torch.compile`, without CUDA
    graphs, whose memory the next pass would overwrite while fused gradients add up.
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
        compiled: bool = False,
    ) -> None:
        self.num_clients = num_clients
        self._stochastic = stochastic
        self._in_batch = for_several_clients(model.train())
        self._stackable = takes_stacked_weights(model)

        def logits(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
            with torch.autocast(images.device.type, autocast, enabled=autocast is not None):
                result: Tensor = functional_call(model, parameters, (images,))
            return result

        # Functions that know the model and not the bank, which is thus freed when it is dropped.
        self._logits = torch.compile(logits) if compiled else logits
        self._logits_of_many = vmap(logits)
        if compiled:
            self._logits_of_many = torch.compile(self._logits_of_many)
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        self._device = next(iter(parameters.values())).device
        momentum = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self._descend = Descent(optimizer, model)
        self._loss_scale = None
        if autocast == torch.float16:
            self._loss_scale = torch.tensor(FLOAT16_LOSS_SCALE, device=self._device)
        self._start(plan, parameters, momentum if optimizer.momentum else {})

    def execute(self, plan: Plan) -> None:
        """Go on by ``plan``. Right after averaging only, when all clients are equal."""
        if plan != self.plan:
            self._start(plan, self.parameters.replica(0), self.momentum.replica(0))

    def state(self, *, averaged: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and momentum, of each client or, where all are equal, of one."""
        return (
            self.parameters.replicas_or_one(equal=averaged),
            self.momentum.replicas_or_one(equal=False),
        )

    def restore(self, parameters: dict[str, Tensor], momentum: dict[str, Tensor]) -> None:
        """What ``state`` gave, under the same plan."""
        self.parameters.fill(parameters)
        self.momentum.fill(momentum)

    def step(self, batch: Batch, lr: float) -> Tensor:
        """One local step of every client on its own batch; returns the clients' losses (K,)."""
        fused = self.plan.way == "fused"
        all_losses = []
        for part in self._passes:
            self._fetch(part)
            losses = self._losses(part, batch)
            total = losses.sum()
            if self._loss_scale is not None:
                total = total * self._loss_scale
            elif fused:
                total = total / self.num_clients
            total.backward()
            if not fused:
                self._descend(part.parameters, part.momentum, lr, self._loss_scale)
                self._store(part)
            all_losses.append(losses.detach())
        if fused:  # the gradients of all passes have added up
            scale = None if self._loss_scale is None else self._loss_scale * self.num_clients
            last = self._passes[-1]
            self._descend(last.parameters, last.momentum, lr, scale)
        return torch.cat(all_losses)

    @torch.no_grad()
    def export(self, model: nn.Module) -> None:
        """Copy the first client's parameters into ``model``; after averaging, all are equal."""
        first = self.parameters.replica(0)
        for name, parameter in model.named_parameters():
            parameter.copy_(first[name])

    def activation_bytes(self, batch: Batch) -> int:
        """What one client's forward pass keeps in memory for its backward pass.

        Of a batch too large to be tried, by a part of it.
        """
        samples = batch.images.shape[1]
        if samples > TRIED_SAMPLES:
            part = batch.of_samples(slice(TRIED_SAMPLES))
            return self.activation_bytes(part) * samples // TRIED_SAMPLES
        given = [batch.images, batch.labels, self.parameters.memory]
        here_already = {tensor.untyped_storage().data_ptr() for tensor in given}
        kept: dict[int, torch.UntypedStorage] = {}

        def note(tensor: Tensor) -> None:
            # The storage alone is kept, lest its address is used anew. The tensor would tie its own
            # graph into a cycle that is never freed.
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in here_already:
                kept[storage.data_ptr()] = storage

        with torch.autograd.graph.saved_tensors_hooks(note, lambda nothing: nothing):
            self._losses(self._pass(slice(0, 1), 0), batch)
        return sum(storage.nbytes() for storage in kept.values())

    def _start(
        self, plan: Plan, parameters: dict[str, Tensor], momentum: dict[str, Tensor]
    ) -> None:
        """By ``plan``, all clients with these of one."""
        self.plan = plan
        k, size = self.num_clients, plan.clients_per_pass
        replicas = 1 if plan.way == "fused" else k
        offloaded = plan.way == "offloaded"
        place = torch.device("cpu") if offloaded else self._device
        pinned = offloaded and self._device.type == "cuda"  # copied several times faster
        self.parameters = Stack.of(parameters, replicas, place, pinned=pinned)
        self.momentum = Stack.of(momentum, replicas, place, pinned=pinned)
        if offloaded:
            working = Pass(
                clients=slice(0, 1),
                parameters={
                    name: p.to(self._device, copy=True).requires_grad_()
                    for name, p in parameters.items()
                },
                momentum={name: m.to(self._device, copy=True) for name, m in momentum.items()},
            )
            self._passes = [replace(working, clients=slice(c, c + 1), home=c) for c in range(k)]
            return
        if plan.way == "serial":
            self._passes = [self._pass(slice(client, client + 1), client) for client in range(k)]
            return
        parts = [slice(start, min(start + size, k)) for start in range(0, k, size)]
        if plan.way == "vectorized":
            self._passes = [self._pass(part, part) for part in parts]
        else:
            only = self._pass(parts[0], 0)
            self._passes = [replace(only, clients=part) for part in parts]

    def _pass(self, clients: slice, replicas: int | slice) -> Pass:
        shared = {n: p[replicas].detach() for n, p in self.parameters.tensors.items()}
        return Pass(
            clients=clients,
            parameters={name: p.requires_grad_() for name, p in shared.items()},
            momentum={name: m[replicas] for name, m in self.momentum.tensors.items()},
        )

    def _fetch(self, part: Pass) -> None:
        """Of an offloaded client, what it trains; the others' is there."""
        for working, stored in self._copies(part):
            working.copy_(stored, non_blocking=True)

    def _store(self, part: Pass) -> None:
        """The opposite of ``_fetch``; waited for, since averaging reads it in the host's memory."""
        for working, stored in self._copies(part):
            stored.copy_(working)

    def _copies(self, part: Pass) -> Iterator[tuple[Tensor, Tensor]]:
        """What an offloaded client trains, on the device and in the host's memory."""
        if part.home is not None:
            for working, stack in (
                (part.parameters, self.parameters),
                (part.momentum, self.momentum),
            ):
                for name, tensor in working.items():
                    yield tensor.detach(), stack.tensors[name][part.home]

    def _losses(self, part: Pass, batch: Batch) -> Tensor:
        """Of the clients of ``part``, (clients,)."""
        images, labels = batch.images[part.clients], batch.labels[part.clients]
        if self.plan.way == "vectorized" and not self._stackable:
            logits = self._logits_of_many(part.parameters, images).flatten(0, 1)
        else:
            if self._stochastic:
                torch.manual_seed(int(batch.seeds[part.clients.start]))
            self._in_batch.count = len(images)
            # By way of (…, H, W, C): flatten() alone forgets that a single channel lies last, too.
            flat = images.movedim(-3, -1).flatten(0, 1).movedim(-1, -3)
            logits = self._logits(part.parameters, flat)
            self._in_batch.count = 1
        losses = F.cross_entropy(logits.to(images.dtype), labels.flatten(), reduction="none")
        return losses.view_as(labels).mean(1)
