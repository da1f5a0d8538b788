"""Apply torch's SGD or AdamW to all parameters of one or many clients in one call."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

NORMALISATION = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")


class Update(NamedTuple):
    """Describe one update of the parameters ``names``; gradients are divided by ``scale``.

    It is the ``number``-th since their ``momentum`` was zero.
    """

    names: list[str]
    parameters: list[Tensor]
    gradients: list[Tensor]
    momentum: Mapping[str, Tensor]
    number: int
    lr: float
    weight_decay: float
    scale: Tensor | None


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Hold SGD's settings; ``group_weight`` decays no normalisation layer and no bias."""

    weight_decay: float = 0.0
    group_weight: bool = False
    momentum: float = 0.0
    nesterov: bool = False

    def zero_momentum(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the momentum before the first update; empty if there is none."""
        return {n: torch.zeros_like(p) for n, p in parameters.items() if self.momentum}

    def apply(self, update: Update) -> None:
        """Update parameters and momentum in place."""
        sgd(
            update.parameters,
            update.gradients,
            [update.momentum.get(n) for n in update.names],
            fused=True,
            weight_decay=update.weight_decay,
            momentum=self.momentum,
            lr=update.lr,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
            grad_scale=update.scale,
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Hold AdamW's settings; its momentum are both moments (https://arxiv.org/abs/1711.05101)."""

    weight_decay: float = 0.0
    group_weight: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def zero_momentum(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the moments before the first update."""
        moments = [(moment, *item) for moment in ADAM_MOMENTS for item in parameters.items()]
        return {f"{moment}.{name}": torch.zeros_like(p) for moment, name, p in moments}

    def apply(self, update: Update) -> None:
        """Update parameters and moments in place."""
        parameters = update.parameters
        first, second = (
            [update.momentum[f"{moment}.{name}"] for name in update.names]
            for moment in ADAM_MOMENTS
        )
        # torch counts each parameter's updates in a tensor, to which it adds one.
        before = torch.full((len(parameters),), update.number - 1.0, device=parameters[0].device)
        adamw(
            parameters,
            update.gradients,
            first,
            second,
            [],
            list(before.unbind()),
            fused=True,
            amsgrad=False,
            beta1=self.beta1,
            beta2=self.beta2,
            lr=update.lr,
            weight_decay=update.weight_decay,
            eps=self.eps,
            maximize=False,
            grad_scale=update.scale,
        )


class ClientOptimizer:
    """Update parameters that are named as ``model``'s, of one client or stacked."""

    def __init__(self, optimizer: SGD | AdamW, model: nn.Module) -> None:
        self._optimizer = optimizer
        names = [name for name, _ in model.named_parameters()]
        undecayed = set(undecayed_names(model)) if optimizer.group_weight else set()
        self._groups = [
            ([n for n in names if n not in undecayed], optimizer.weight_decay),
            ([n for n in names if n in undecayed], 0.0),
        ]

    @torch.no_grad()
    def __call__(
        self,
        parameters: dict[str, Tensor],
        momentum: dict[str, Tensor],
        count: int,
        lr: float,
        scale: Tensor | None = None,
    ) -> None:
        """Update ``parameters`` and ``momentum`` in place, and drop the gradients.

        Gradients are divided by ``scale``, a scalar on their device. This is the ``count``-th
        update since the momentum was zero.
        """
        for names, weight_decay in self._groups:
            if names:
                own = [parameters[n] for n in names]
                gradients = [_gradient(parameter) for parameter in own]
                self._optimizer.apply(
                    Update(names, own, gradients, momentum, count, lr, weight_decay, scale)
                )
        for parameter in parameters.values():
            parameter.grad = None


def undecayed_names(model: nn.Module) -> list[str]:
    """List the parameters that ``group_weight`` does not decay."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if isinstance(module, NORMALISATION) or name.endswith("bias")
    ]


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
