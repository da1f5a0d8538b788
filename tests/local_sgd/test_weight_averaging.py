"""Test what is particular to means of iterates; tests of whole runs compare them with torch's."""

import numpy as np
import torch
from torch import nn

from tests.local_sgd.test_clients import SERIAL, WORLD, always
from trainer.local_sgd.averaging import Averaging
from trainer.local_sgd.clients import ClientBank
from trainer.local_sgd.optimizer import SGD
from trainer.local_sgd.schedule import Round
from trainer.local_sgd.weight_averaging import WeightAverage

ROUND = Round(
    index=1, phase=0, start=0, stop=1, local_steps=1, evaluate=False, weight_averaging="swa"
)


def test_a_mean_of_many_iterates_in_float32_follows_their_drift() -> None:
    """What each adds to a mean near 1 is a sixth of what float32 can tell apart there."""
    model = nn.Linear(1, 1)
    bank = ClientBank(model, 2, SGD(), always(SERIAL))
    mean = WeightAverage(bank, Averaging(bank, WORLD), ema_decay=0.0)
    iterates = np.linspace(1, 1 + 4e-5, 2000, dtype=np.float32)
    for iterate in iterates:
        bank.parameters.memory.fill_(iterate)
        mean.update(ROUND)
    mean.export(model)
    for parameter in model.parameters():
        assert parameter.item() == np.float32(iterates.mean(dtype=np.float64))


def test_a_process_whose_mean_differs_is_found() -> None:
    class Pair:
        """Pretend that the other process has the value seen first."""

        rank, size, device = 0, 1, torch.device("cpu")
        others: int | None = None

        def all_sum(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor

        def all_mean(self, tensor: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
            return tensor

        def all_min(self, value: int) -> int:
            return value

        def all_equal(self, value: int) -> bool:
            self.others = value if self.others is None else self.others
            return value == self.others

    bank = ClientBank(nn.Linear(3, 2), 2, SGD(), always(SERIAL))
    average = Averaging(bank, Pair())
    mean = WeightAverage(bank, average, ema_decay=0.0)
    mean.update(ROUND)
    for flipped, equal in ((0.0, True), (1e-12, False)):
        mean.state["mean"][3] += flipped
        assert average.processes_agree(*mean.state.values()) == equal
