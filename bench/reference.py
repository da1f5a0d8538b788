"""Run Local SGD the plain way: K deep copies of a model, one `torch.optim.SGD` each, a loop.

The trainer is tested against it as the truth and timed against it as the baseline. It shares no
code with the trainer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


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
) -> nn.Module:
    """Return the averaged model after rounds of ``local_steps`` steps each.

    ``batches`` gives one step at a time: images (K, B_loc, …) and labels (K, B_loc). ``lr`` maps
    the step to η. At averaging, each client's momentum is kept, averaged or reset.
    """
    clients = [copy.deepcopy(model).train() for _ in range(num_clients)]
    optimizers = [
        torch.optim.SGD(
            parameter_groups(client, weight_decay, group_weight),
            lr=1.0,
            momentum=momentum,
            nesterov=nesterov,
        )
        for client in clients
    ]
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
            buffers = [
                optimizer.state[parameter].get("momentum_buffer")
                for optimizer, parameter in zip(optimizers, same, strict=True)
            ]
            if momentum_averaging == "average":
                average(buffers)
            elif momentum_averaging == "reset":
                for buffer in buffers:
                    buffer.zero_()
    return clients[0]


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
