"""Adapt a model's layers to compute several clients in one pass.

The layers keep their parameters and names; only their forward passes are replaced.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import replace_all_batch_norm_modules_
from torch.nn import functional as F


class ClientCount:
    """Tell layers how many clients' samples lie one after the other in their batch."""

    count = 1


def adapt_to_clients(model: nn.Module) -> ClientCount:
    """Prepare ``model`` for `vmap` and for batches (clients · B_loc, …); return the count to set.

    BatchNorm stops tracking statistics, which are each client's and batch's own in training.
    """
    clients = ClientCount()
    replace_all_batch_norm_modules_(model)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.forward = partial(_batch_norm, module, clients)  # type: ignore[method-assign]
        elif type(module) is nn.Linear:
            module.forward = partial(_linear, module, clients)  # type: ignore[method-assign]
    return clients


def takes_stacked_weights(model: nn.Module) -> bool:
    """Return whether an adapted model takes weights (clients, …) without `vmap`.

    It does if all layers with weights are linear: the others treat each sample by itself.
    """
    weighted = (m for m in model.modules() if any(True for _ in m.parameters(recurse=False)))
    return all(type(module) is nn.Linear for module in weighted)


def _batch_norm(layer: nn.modules.batchnorm._BatchNorm, clients: ClientCount, x: Tensor) -> Tensor:
    """Normalise each client's samples alone: the clients become groups of channels.

    These are "ghost batches" (https://arxiv.org/abs/1705.08741, algorithm 1).
    """
    k = clients.count
    weight: Tensor | None = layer.weight
    bias: Tensor | None = layer.bias
    if k > 1:
        # Move the clients with the channels last, as in memory: (k, B, …, C) to (B, …, k, C)
        x = x.movedim(1, -1).unflatten(0, (k, -1)).movedim(0, -2).flatten(-2).movedim(-1, 1)
        weight, bias = (w if w is None else w.repeat(k) for w in (weight, bias))
    y: Tensor = F.batch_norm(x, None, None, weight, bias, training=True, eps=layer.eps)
    if k > 1:
        y = y.movedim(1, -1).unflatten(-1, (k, -1)).movedim(-2, 0).flatten(0, 1).movedim(-1, 1)
    return y


class _Linear(torch.autograd.Function):
    """Compute x Wᵀ + b of x (clients, vectors, in), W (clients, out, in), b (clients, out).

    For few samples, autograd's own rule transposes W and its gradient in memory, most of a small
    network's step on a CPU; these products read and write them in place.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        if bias is None:
            return x @ weight.mT
        return torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        x_gradient = gradient @ weight if ctx.needs_input_grad[0] else None
        return x_gradient, gradient.mT @ x, gradient.sum(-2) if ctx.has_bias else None


def _linear(layer: nn.Linear, clients: ClientCount, x: Tensor) -> Tensor:
    if layer.weight.dim() == 2:
        return F.linear(x, layer.weight, layer.bias)
    own = x.reshape(clients.count, -1, x.shape[-1])
    result: Tensor = _Linear.apply(own, layer.weight, layer.bias)
    return result.view(*x.shape[:-1], -1)
