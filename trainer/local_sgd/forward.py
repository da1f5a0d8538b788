"""Compute a model's outputs with other parameters than its own."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

Forward = Callable[[dict[str, Tensor], Tensor], Tensor]


def functional_forward(model: nn.Module, autocast: torch.dtype | None) -> Forward:
    """Leave ``model`` as it was after each call, as `vmap` and `torch.compile` need."""

    def forward(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, autocast, enabled=autocast is not None):
            # Looking for tied weights, which no model has, takes a tenth of a small step.
            result: Tensor = functional_call(model, parameters, (images,), tie_weights=False)
        return result

    return forward


def direct_forward(model: nn.Module, autocast: torch.dtype | None) -> Forward:
    """Put each call's parameters into ``model`` for good: saves putting its own ones back."""
    owners = dict(model.named_modules())
    places = []
    for name, _ in model.named_parameters():
        module, _, own_name = name.rpartition(".")
        places.append((name, owners[module]._parameters, own_name))

    def forward(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        for name, owner, own_name in places:
            owner[own_name] = parameters[name]  # no nn.Parameter, as in functional_call
        with torch.autocast(images.device.type, autocast, enabled=autocast is not None):
            result: Tensor = model(images)
        return result

    return forward
