"""Average a phase's iterates: controls that average as Local SGD does, without clients that drift.

Stochastic weight averaging (SWA, https://arxiv.org/abs/1803.05407) takes the equal mean, an EMA the
exponential moving average; both as `torch.optim.swa_utils.AveragedModel` does.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainer.local_sgd.algorithm import Step
from trainer.local_sgd.averaging import Averaging
from trainer.local_sgd.clients import ClientBank
from trainer.local_sgd.replicas import Replicas
from trainer.local_sgd.schedule import Round


class WeightAverage:
    """Hold the mean of the phase's iterates, which all clients hold after each averaging.

    All processes compute the same bits. The mean is in float64: in float32, an iterate's share of a
    mean of many would be lost to rounding. Where a phase ends, the next one starts from the mean
    with zero momentum, which was accumulated at other parameters.
    """

    def __init__(self, clients: ClientBank, average: Averaging, ema_decay: float) -> None:
        """Start without iterates; ``ema_decay`` is what an EMA keeps of itself at each of them."""
        self._clients = clients
        self._average = average
        self._ema_decay = ema_decay
        first = clients.parameters.replica(0)
        device = clients.parameters.memory.device
        self._mean = Replicas.of({name: p.double() for name, p in first.items()}, 1, device)
        self._count = 0  # iterates in the mean

    @property
    def state(self) -> dict[str, Tensor]:
        """Return the mean (P,), in parameter order, and the number of iterates in it."""
        return {"mean": self._mean.memory, "count": torch.tensor(self._count)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore a copy of ``state``."""
        self._mean.memory.copy_(state["mean"])
        self._count = int(state["count"])

    def follow(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield ``steps``, once the iterates that end their rounds are in the mean."""
        for step in steps:
            if step.ends_round:
                self.update(step.round)
            yield step

    @torch.no_grad()
    def update(self, round: Round) -> None:
        """Take in the iterate after ``round``; where its phase ends, train on from the mean."""
        if round.weight_averaging == "none":
            return
        self._count += 1
        ema = round.weight_averaging == "ema" and self._count > 1
        share = 1 - self._ema_decay if ema else 1 / self._count
        for name, iterate in self._clients.parameters.replica(0).items():
            self._mean.tensors[name][0].lerp_(iterate.double(), share)
        if round.decay:
            self._average.restart(self._mean)
            self._count = 0

    def export(self, model: nn.Module) -> None:
        """Copy the mean into ``model``; the clients' parameters where no iterate is in it."""
        (self._mean if self._count else self._clients.parameters).export(model)
