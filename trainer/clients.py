"""The client bank: the K replicas of one process as one stacked set of tensors.

Parameter p of all clients is one tensor (K, *p.shape); client k's copy is its k-th slice. Local SGD
is elementwise in the clients, so that one multi-tensor SGD call steps all of them, and averaging is
a mean over the first dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_, vmap
from torch.nn import functional as F
from torch.optim.sgd import sgd

from trainer.data.memory import Batch

Stack = dict[str, Tensor]  # by parameter name, each (K, *shape)

NORMALISATION = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True, kw_only=True)
class SGD:
    """The local optimizer, `torch.optim.SGD`'s; ``group_weight`` spares norm layers and biases."""

    weight_decay: float = 0.0
    group_weight: bool = False
    momentum: float = 0.0
    nesterov: bool = False


class ClientBank:
    """``num_clients`` replicas of ``model`` and their momentum, executed one way or another.

    ``model`` is taken over as the template of the computation: its BatchNorm layers stop tracking
    statistics, which are per client and batch in training and re-estimated for evaluation.
    ``stochastic``: the model draws random numbers, each client's from the seed that its batch
    brings. ``autocast``: the forward passes compute in this type. Either needs serial execution.
    """

    def __init__(
        self,
        model: nn.Module,
        num_clients: int,
        optimizer: SGD,
        execution: str,
        *,
        stochastic: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        assert execution == "serial" or not (stochastic or autocast)
        self._stochastic = stochastic
        self._autocast = autocast
        self._model = replace_all_batch_norm_modules_(model).train()
        self.num_clients = num_clients
        self.optimizer = optimizer
        self.parameters = {
            name: p.detach().expand(num_clients, *p.shape).clone().requires_grad_()
            for name, p in model.named_parameters()
        }
        self.momentum = {
            name: torch.zeros_like(p) for name, p in self.parameters.items() if optimizer.momentum
        }
        undecayed = set(undecayed_names(model)) if optimizer.group_weight else set()
        self._groups = [
            ([n for n in self.parameters if n not in undecayed], optimizer.weight_decay),
            ([n for n in self.parameters if n in undecayed], 0.0),
        ]
        self._views = [_share(self.parameters, k) for k in range(num_clients)]
        executions: dict[str, Callable[[Batch, float], Tensor]] = {
            "vectorized": self._step_vectorized,
            "serial": self._step_serial,
        }
        self._step = executions[execution]

    def step(self, batch: Batch, lr: float) -> Tensor:
        """One local step of every client on its own batch; returns the clients' losses (K,)."""
        return self._step(batch, lr)

    @torch.no_grad()
    def export(self, model: nn.Module) -> None:
        """Copy the first client's parameters into ``model``; after averaging, all are equal."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.parameters[name][0])

    @property
    def size(self) -> int:
        """P, the number of parameters of one client."""
        return sum(p[0].numel() for p in self.parameters.values())

    def _step_vectorized(self, batch: Batch, lr: float) -> Tensor:
        losses: Tensor = vmap(self._loss)(self.parameters, batch.images, batch.labels)
        losses.sum().backward()
        self._descend(self.parameters, self.momentum, lr)
        return losses.detach()

    def _step_serial(self, batch: Batch, lr: float) -> Tensor:
        losses = []
        for k, parameters in enumerate(self._views):
            if self._stochastic:
                torch.manual_seed(int(batch.seeds[k]))
            loss = self._loss(parameters, batch.images[k], batch.labels[k])
            loss.backward()
            self._descend(parameters, {n: m[k] for n, m in self.momentum.items()}, lr)
            losses.append(loss.detach())
        return torch.stack(losses)

    def _loss(self, parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(images.device.type, self._autocast, enabled=self._autocast is not None):
            logits = functional_call(self._model, parameters, (images,))
        return F.cross_entropy(logits.to(images.dtype), labels)

    @torch.no_grad()
    def _descend(
        self, parameters: dict[str, Tensor], momentum: dict[str, Tensor], lr: float
    ) -> None:
        for names, weight_decay in self._groups:
            if not names:
                continue
            sgd(
                [parameters[n] for n in names],
                [_gradient(parameters[n]) for n in names],
                [momentum.get(n) for n in names],
                fused=True,
                weight_decay=weight_decay,
                momentum=self.optimizer.momentum,
                lr=lr,
                dampening=0.0,
                nesterov=self.optimizer.nesterov,
                maximize=False,
            )
        for parameter in parameters.values():
            parameter.grad = None


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


def undecayed_names(model: nn.Module) -> list[str]:
    """Parameters without weight decay under ``group_weight``: all of norm layers, and biases."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if isinstance(module, NORMALISATION) or name.endswith("bias")
    ]


def _flat_parts(stack: Stack, flat: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    start = 0
    for stacked in stack.values():
        size = stacked[0].numel()
        yield stacked, flat[start : start + size].view(stacked.shape[1:])
        start += size


def _share(parameters: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    """Client k's parameters as leaves of their own that share the stack's memory."""
    return {name: p.detach()[k].requires_grad_() for name, p in parameters.items()}


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
