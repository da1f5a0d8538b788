"""Run Local SGD the plain way: K deep copies of a model, one `torch.optim.SGD` each, a loop.

The trainer is tested against it as the truth and timed against it as the baseline. It shares no
code with the trainer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
STATE = {"momentum_buffer", "exp_avg", "exp_avg_sq"}


def local_sgd(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    local_steps: Sequence[int],
    num_clients: int,
    lr: Callable[[int], float],
    *,
    weight_decay: float = 0.0,
    group_weight: bool = False,
    momentum: float = 0.0,
    nesterov: bool = False,
    momentum_averaging: str = "keep",
    adamw: Mapping[str, Any] | None = None,
    outer_lr: float = 1.0,
    outer_momentum: float = 0.0,
    outer_nesterov: bool = False,
    outer_slowmo: bool = False,
) -> nn.Module:
    """Return the averaged model after rounds of ``local_steps`` steps each.

    ``batches`` gives one step at a time: images (K, B_loc, …) and labels (K, B_loc). ``lr`` maps
    the step to η. ``adamw`` are the arguments of `torch.optim.AdamW`, which then takes the place of
    SGD. At averaging, each client's momentum is kept, averaged or reset; then an outer SGD's
    gradient is what the clients moved, or SlowMo's that per η, at η times the learning rate.
    """
    start = copy.deepcopy(model)  # of a round
    outer = torch.optim.SGD(
        start.parameters(), lr=outer_lr, momentum=outer_momentum, nesterov=outer_nesterov
    )
    clients = [copy.deepcopy(model).train() for _ in range(num_clients)]
    groups = [parameter_groups(client, weight_decay, group_weight) for client in clients]
    optimizers: list[torch.optim.Optimizer] = (
        [torch.optim.SGD(g, lr=1.0, momentum=momentum, nesterov=nesterov) for g in groups]
        if adamw is None
        else [torch.optim.AdamW(g, lr=1.0, **adamw) for g in groups]
    )
    steps = iter(batches)
    step = 0
    for count in local_steps:
        for _ in range(count):
            images, labels = next(steps)
            for k, (client, optimizer) in enumerate(zip(clients, optimizers, strict=True)):
                for group in optimizer.param_groups:
                    group["lr"] = lr(step)
                optimizer.zero_grad()
                F.cross_entropy(client(images[k]), labels[k]).backward()
                optimizer.step()
            step += 1
        for same in zip(*(client.parameters() for client in clients), strict=True):
            average(same)
            states = [o.state[p] for o, p in zip(optimizers, same, strict=True)]
            if momentum_averaging == "average":
                for name in STATE & states[0].keys():
                    average([state[name] for state in states])
            elif momentum_averaging == "reset":
                for state in states:
                    state.clear()
        if outer_lr != 1 or outer_momentum > 0:
            unit = lr(step - 1) if outer_slowmo else 1.0
            outer.param_groups[0]["lr"] = outer_lr * unit
            outer_step(outer, start, clients, unit)
    return clients[0]


@torch.no_grad()
def outer_step(
    optimizer: torch.optim.SGD, start: nn.Module, clients: Sequence[nn.Module], unit: float
) -> None:
    """Move ``start`` by ``optimizer``, and the averaged ``clients`` to where it then is."""
    for before, mean in zip(start.parameters(), clients[0].parameters(), strict=True):
        before.grad = (before - mean) / unit
    optimizer.step()
    for client in clients:
        for parameter, next_start in zip(client.parameters(), start.parameters(), strict=True):
            parameter.copy_(next_start)


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Overwrite every tensor with the mean of all."""
    mean = torch.stack(list(tensors)).mean(0)
    for tensor in tensors:
        tensor.copy_(mean)


def parameter_groups(
    model: nn.Module, weight_decay: float, group_weight: bool
) -> list[dict[str, object]]:
    """Decay all weights, or (``group_weight``) all but those of norm layers and biases."""
    if not group_weight:
        return [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    spared = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters()}
    spared |= {id(p) for name, p in model.named_parameters() if name.endswith("bias")}
    return [
        {
            "params": [p for p in model.parameters() if (id(p) in spared) == spare],
            "weight_decay": 0.0 if spare else weight_decay,
        }
        for spare in (False, True)
    ]
