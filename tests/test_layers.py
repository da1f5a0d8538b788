"""The linear layer of several clients against torch's own, one client after the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from trainer.layers import for_several_clients

CLIENTS, BATCH = 3, 5


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shared", [True, False], ids=["one image for all", "images of their own"])
def test_products_and_gradients_are_torchs(bias: bool, shared: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(7, 4, bias=bias, dtype=torch.float64)
    layer = nn.Sequential(nn.Linear(7, 4, bias=bias, dtype=torch.float64))
    for_several_clients(layer)
    weights = {"0.weight": torch.randn(CLIENTS, 4, 7, dtype=torch.float64)}
    if bias:
        weights["0.bias"] = torch.randn(CLIENTS, 4, dtype=torch.float64)
    stacked = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    x = torch.randn(*([] if shared else [CLIENTS]), BATCH, 7, dtype=torch.float64)
    x.requires_grad_()
    several = vmap(lambda w, x: functional_call(layer, w, (x,)), (0, None if shared else 0))
    y = several(stacked, x)
    pull = torch.randn_like(y)
    of_stacked = torch.autograd.grad(y, [*stacked.values(), x], pull)
    of_x = torch.zeros_like(x)
    for k in range(CLIENTS):
        own = {name[2:]: weight[k].clone().requires_grad_() for name, weight in weights.items()}
        images = (x if shared else x[k]).detach().requires_grad_()
        one = functional_call(plain, own, (images,))
        torch.testing.assert_close(y[k], one)
        *of_own, of_images = torch.autograd.grad(one, [*own.values(), images], pull[k])
        for got, wanted in zip(of_stacked, of_own, strict=False):
            torch.testing.assert_close(got[k], wanted)
        if shared:
            of_x += of_images
        else:
            of_x[k] = of_images
    torch.testing.assert_close(of_stacked[-1], of_x)
