"""Test the linear layer of several clients against torch's, one client after the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from trainer.models.stacked_layers import adapt_to_clients, takes_stacked_weights

CLIENTS, BATCH = 3, 5


@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_torchs(bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(7, 4, bias=bias, dtype=torch.float64)
    layer = nn.Sequential(nn.Linear(7, 4, bias=bias, dtype=torch.float64))
    adapt_to_clients(layer).count = CLIENTS
    weights = {"0.weight": torch.randn(CLIENTS, 4, 7, dtype=torch.float64)}
    if bias:
        weights["0.bias"] = torch.randn(CLIENTS, 4, dtype=torch.float64)
    stacked = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    x = torch.randn(CLIENTS, BATCH, 7, dtype=torch.float64).requires_grad_()
    y = functional_call(layer, stacked, (x.flatten(0, 1),)).unflatten(0, (CLIENTS, BATCH))
    pull = torch.randn_like(y)
    *of_stacked, of_x = torch.autograd.grad(y, [*stacked.values(), x], pull)
    for k in range(CLIENTS):
        own = {name[2:]: weight[k].clone().requires_grad_() for name, weight in weights.items()}
        images = x[k].detach().requires_grad_()
        one = functional_call(plain, own, (images,))
        torch.testing.assert_close(y[k], one)
        *of_own, of_images = torch.autograd.grad(one, [*own.values(), images], pull[k])
        for got, wanted in zip(of_stacked, of_own, strict=True):
            torch.testing.assert_close(got[k], wanted)
        torch.testing.assert_close(of_x[k], of_images)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2))


def test_stacked_weights_are_for_linear_layers_alone() -> None:
    assert takes_stacked_weights(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.SiLU()))
    others = [nn.Conv2d(1, 1, 1), nn.BatchNorm1d(2), nn.LayerNorm(2), Scaled()]
    for layer in others:
        assert not takes_stacked_weights(nn.Sequential(nn.Linear(2, 2), layer)), layer
