"""Train the K clients of one process as one stacked set of tensors: the client bank.

Parameter p of all clients is one tensor (K, *p.shape); client k's copy is its k-th slice. So one
multi-tensor SGD call steps many clients, and averaging is a mean over the first dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from trainer.data.training import Batch
from trainer.local_sgd.forward import direct_forward, functional_forward
from trainer.local_sgd.optimizer import SGD, AdamW, ClientOptimizer
from trainer.local_sgd.replicas import Replicas
from trainer.local_sgd.schedule import Round
from trainer.models.stacked_layers import adapt_to_clients, takes_stacked_weights

ExecutionMode = Literal["serial", "vectorized", "fused"]
Loss = Callable[[Tensor, Tensor], Tensor]  # of a client's outputs and targets: a scalar

MEASURED_SAMPLES = 1024  # of a batch, to measure its activations
# Many gradients are less than float16's smallest number, 6e-8. A power of two costs no digits.
FLOAT16_LOSS_SCALE = 1024.0


@dataclass(frozen=True)
class ExecutionPlan:
    """Describe how a process executes its clients in a step.

    ``serial``: one after the other. ``vectorized``: ``clients_per_pass`` at once, by `vmap` over
    their parameters or, where all layers with parameters are linear, as products of stacked
    matrices without its overhead. ``fused``: for rounds of one step, after which all clients are
    equal: one replica, whose gradient is the mean of the clients'.
    """

    mode: ExecutionMode
    clients_per_pass: int = 1

    def __str__(self) -> str:
        return f"{self.mode}, {self.clients_per_pass} a pass"


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Hold a run's two plans: for rounds with H = 1, and for longer ones."""

    one_step: ExecutionPlan
    several_steps: ExecutionPlan

    def plan(self, round: Round) -> ExecutionPlan:
        return self.one_step if round.local_steps == 1 else self.several_steps

    def __str__(self) -> str:
        if self.one_step == self.several_steps:
            return str(self.one_step)
        return f"{self.several_steps}; H = 1: {self.one_step}"


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Group the clients that are computed together, with the parameters that they train.

    Parameters are autograd leaves that share the replicas' memory.
    """

    clients: slice
    parameters: dict[str, Tensor]
    momentum: dict[str, Tensor]


class ClientBank:
    """Hold ``num_clients`` replicas of ``model`` and their momentum, and train them.

    ``model`` becomes the template of the computation: its BatchNorm layers stop tracking
    statistics, which are per client and batch in training and re-estimated for evaluation. Do not
    use it afterwards: its parameters are replaced by those of the clients, one after another.
    ``stochastic``: the model draws random numbers, from the seed in each client's batch.
    ``autocast``: the type of the forward passes; float16 scales the loss of its backward passes.
    ``compiled``: use `torch.compile`, without CUDA graphs, whose memory the next pass would
    overwrite while fused gradients add up. ``loss``: instead of the mean cross-entropy, of a model
    with inputs and targets of any shape; never fused.
    """

    def __init__(
        self,
        model: nn.Module,
        num_clients: int,
        optimizer: SGD | AdamW,
        execution: Execution,
        *,
        stochastic: bool = False,
        autocast: torch.dtype | None = None,
        compiled: bool = False,
        loss: Loss | None = None,
    ) -> None:
        self.num_clients = num_clients
        self.execution = execution
        self._stochastic = stochastic
        self._clients_in_batch = adapt_to_clients(model.train())
        self._loss = loss
        self.stackable = takes_stacked_weights(model)

        # These functions hold the model and not the bank, so that a dropped bank is freed.
        logits = functional_forward(model, autocast)
        self._logits = torch.compile(logits) if compiled else direct_forward(model, autocast)
        self._logits_of_many = torch.compile(vmap(logits)) if compiled else vmap(logits)
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        uses = model.named_parameters(remove_duplicate=False)
        assert len(list(uses)) == len(parameters), "tied weights"
        self._device = next(iter(parameters.values())).device
        momentum = optimizer.zero_momentum(parameters)
        self._descend = ClientOptimizer(optimizer, model)
        scale = torch.tensor(FLOAT16_LOSS_SCALE, device=self._device)
        self._loss_scale = scale if autocast == torch.float16 else None
        self.updates = 0  # of every client since its momentum was zero
        self._replicate(execution.several_steps, parameters, momentum)

    def begin(self, round: Round) -> None:
        """Prepare for ``round``; call right after averaging, when all clients are equal."""
        plan = self.execution.plan(round)
        if plan != self.plan:
            self._replicate(plan, self.parameters.replica(0), self.momentum.replica(0))

    def step(self, batch: Batch, lr: float) -> Tensor:
        """Take one local step of every client on its own batch; return their losses (K,)."""
        fused = self.plan.mode == "fused"
        self.updates += 1
        weight = 1 / self.num_clients if fused else 1.0
        if self._loss_scale is not None:
            weight = FLOAT16_LOSS_SCALE
        all_losses = []
        for part in self._passes:
            losses = self._losses(part, batch)
            losses.backward(torch.full_like(losses, weight))
            if not fused:
                self._update(part, lr, self._loss_scale)
            all_losses.append(losses.detach())
        if fused:  # all passes have added to one gradient
            scale = None if self._loss_scale is None else self._loss_scale * self.num_clients
            self._update(self._passes[-1], lr, scale)
        return torch.cat(all_losses)

    def state(self, *, averaged: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return all clients' parameters, or one's if ``averaged``, and all momentum."""
        parameters = self.parameters
        return parameters.first() if averaged else parameters.all(), self.momentum.all()

    def restore(
        self, parameters: dict[str, Tensor], momentum: dict[str, Tensor], updates: int = 0
    ) -> None:
        """Restore what ``state`` returned under the same plan; AdamW needs ``updates``, too."""
        self.parameters.fill(parameters)
        self.momentum.fill(momentum)
        self.updates = updates

    def reset_momentum(self) -> None:
        """Set all momentum to zero, as before the first update."""
        self.momentum.memory.zero_()
        self.updates = 0

    def export(self, model: nn.Module) -> None:
        """Copy the first client's parameters into ``model``; after averaging, all are equal."""
        self.parameters.export(model)

    def activation_bytes(self, batch: Batch) -> int:
        """Measure what one client's forward pass keeps in memory for its backward pass.

        Large batches are extrapolated from ``MEASURED_SAMPLES``.
        """
        samples = batch.images.shape[1]
        if samples > MEASURED_SAMPLES:
            part = batch.of_samples(slice(MEASURED_SAMPLES))
            return self.activation_bytes(part) * samples // MEASURED_SAMPLES
        inputs = [batch.images, batch.labels, self.parameters.memory]
        excluded = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor) -> None:
            # A kept storage's address is not reused. Keeping the tensor would tie its graph into a
            # cycle that is never freed.
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in excluded:
                kept[storage.data_ptr()] = storage

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda packed: packed):
            self._losses(self._pass(slice(0, 1), 0), batch)
        return sum(storage.nbytes() for storage in kept.values())

    def _replicate(
        self, plan: ExecutionPlan, parameters: dict[str, Tensor], momentum: dict[str, Tensor]
    ) -> None:
        """Copy one client's parameters and momentum to all replicas that ``plan`` needs."""
        self.plan = plan
        k, size = self.num_clients, plan.clients_per_pass
        replicas = 1 if plan.mode == "fused" else k
        self.parameters = Replicas.of(parameters, replicas, self._device)
        self.momentum = Replicas.of(momentum, replicas, self._device)
        parts = [slice(start, min(start + size, k)) for start in range(0, k, size)]
        if plan.mode == "serial":
            self._passes = [self._pass(part, part.start) for part in parts]
        elif plan.mode == "vectorized":
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

    def _update(self, part: Pass, lr: float, scale: Tensor | None) -> None:
        self._descend(part.parameters, part.momentum, self.updates, lr, scale)

    def _losses(self, part: Pass, batch: Batch) -> Tensor:
        """Compute the losses (clients,) of the clients of ``part``."""
        images, labels = batch.images[part.clients], batch.labels[part.clients]
        if images.is_cuda and self.plan.mode == "vectorized":
            # As passes of several clients do. With one, vmap fails in channels-last BatchNorm.
            images = images.contiguous()
        if self._loss is not None:  # The model may mix a client's samples: stack no clients.
            if self.plan.mode == "serial":
                return self._loss(self._logits(part.parameters, images[0]), labels[0]).view(1)
            return vmap(self._loss)(self._logits_of_many(part.parameters, images), labels)
        if self.plan.mode == "vectorized" and not self.stackable:
            logits = self._logits_of_many(part.parameters, images).flatten(0, 1)
        else:
            if self._stochastic:
                torch.manual_seed(int(batch.seeds[part.clients.start]))
            self._clients_in_batch.count = len(images)
            # Flatten as (…, H, W, C): flatten() alone loses the strides of a single channel.
            flat = images.movedim(-3, -1).flatten(0, 1).movedim(-1, -3)
            logits = self._logits(part.parameters, flat)
            self._clients_in_batch.count = 1
        losses = F.cross_entropy(logits.to(images.dtype), labels.flatten(), reduction="none")
        return losses.view_as(labels).mean(1)
