"""Step from one averaging to the next: x ← outer(x, mean of the clients − x).

x − mean, what the clients moved, is the outer optimizer's gradient. Plain averaging is x ← mean.
DiLoCo (https://arxiv.org/abs/2311.08105) takes SGD with Nesterov momentum; SlowMo
(https://arxiv.org/abs/1910.00643, algorithm 1) takes SGD with momentum on that gradient divided by
the clients' η, and multiplies its learning rate by η: while η is constant, that changes nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Hold the outer optimizer's settings; the defaults are plain averaging."""

    lr: float = 1.0
    momentum: float = 0.0
    nesterov: bool = False
    slowmo: bool = False

    @property
    def vectors(self) -> int:
        """Count the vectors (P,) of its state: x, unless x is the mean, and the momentum."""
        return int(self.lr != 1 or self.momentum > 0) + (self.momentum > 0)


class OuterOptimizer:
    """Hold x and its momentum on this process; all processes compute the same bits from the mean.

    ``start`` (P,): the initial parameters.
    """

    def __init__(self, outer: Outer, start: Tensor) -> None:
        self._outer = outer
        self.state = {"iterate": start.clone()}
        if outer.momentum:
            self.state["momentum"] = torch.zeros_like(start)

    @torch.no_grad()
    def __call__(self, mean: Tensor, lr: float) -> None:
        """Overwrite the ``mean`` (P,) with the next x; ``lr`` is η of the round's last step."""
        outer, iterate = self._outer, self.state["iterate"]
        unit = lr if outer.slowmo else 1.0
        step = torch.sub(iterate, mean, out=mean)
        if outer.slowmo:
            step /= unit
        if outer.momentum:
            momentum = self.state["momentum"].mul_(outer.momentum).add_(step)
            step = step.add_(momentum, alpha=outer.momentum) if outer.nesterov else momentum
        iterate -= torch.mul(step, outer.lr * unit, out=mean)
        mean.copy_(iterate)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore a copy of ``state``."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])
