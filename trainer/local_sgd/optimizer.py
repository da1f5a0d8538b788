"""Apply `torch.optim.SGD` to all parameters of one or many clients in one call."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

NORMALISATION = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Hold SGD's settings; ``group_weight`` decays no normalisation layer and no bias."""

    weight_decay: float = 0.0
    group_weight: bool = False
    momentum: float = 0.0
    nesterov: bool = False


class ClientOptimizer:
    """Update parameters that are named as ``model``'s, of one client or stacked."""

    def __init__(self, optimizer: SGD, model: nn.Module) -> None:
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
        lr: float,
        scale: Tensor | None = None,
    ) -> None:
        """Update ``parameters`` and ``momentum`` in place, and drop the gradients.

        Gradients are divided by ``scale``, a scalar on their device.
        """
        for names, weight_decay in self._groups:
            if not names:
                continue
            sgd(
                [parameters[n] for n in names],
                [_gradient(parameters[n]) for n in names],
                [momentum.get(n) for n in names],
                fused=True,
                weight_decay=weight_decay,
                momentum=self._optimizer.momentum,
                lr=lr,
                dampening=0.0,
                nesterov=self._optimizer.nesterov,
                maximize=False,
                grad_scale=scale,
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
