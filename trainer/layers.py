"""Layers of a model that computes several clients in one pass.

They stand in for the model's own, whose parameters and names they keep.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.func import replace_all_batch_norm_modules_
from torch.nn import functional as F


class Clients:
    """How many clients' samples lie one after the other in the batch that a model is given."""

    count = 1


def for_several_clients(model: nn.Module) -> Clients:
    """Readies ``model`` for `vmap` and for batches (clients · B_loc, …); returns their count.

    BatchNorm stops tracking statistics, which are each client's and batch's own in training.
    """
    clients = Clients()
    replace_all_batch_norm_modules_(model)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.forward = partial(_batch_norm, module, clients)  # type: ignore[method-assign]
        elif type(module) is nn.Linear:
            module.forward = partial(_linear, module)  # type: ignore[method-assign]
    return clients


def _batch_norm(layer: nn.modules.batchnorm._BatchNorm, clients: Clients, x: Tensor) -> Tensor:
    """Statistics of each client's samples alone: the clients become groups of channels.

    "Ghost batches" (https://arxiv.org/abs/1705.08741, algorithm 1).
    """
    k = clients.count
    if k > 1:
        # With the channels last, as images lie in memory: (k, B, …, C) to (B, …, k, C)
        x = x.movedim(1, -1).unflatten(0, (k, -1)).movedim(0, -2).flatten(-2).movedim(-1, 1)
    weight, bias = (w if w is None else w.repeat(k) for w in (layer.weight, layer.bias))
    y = F.batch_norm(x, None, None, weight, bias, training=True, eps=layer.eps)
    if k > 1:
        y = y.movedim(1, -1).unflatten(-1, (k, -1)).movedim(-2, 0).flatten(0, 1).movedim(-1, 1)
    return y


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """(W xᵀ)ᵀ + b: under `vmap`, the gradient of W is then one product, not one to be transposed.

    It took 38 % of a step of the small network, 32 clients of 4 samples.
    """
    if x.dim() != 2:
        return F.linear(x, layer.weight, layer.bias)
    if layer.bias is None:
        return (layer.weight @ x.T).T
    return torch.addmm(layer.bias[:, None], layer.weight, x.T).T
