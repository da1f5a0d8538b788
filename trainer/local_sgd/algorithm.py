"""Run Local SGD: Algorithm 1 of https://arxiv.org/abs/2303.01215 with K simulated clients.

The caller evaluates, saves, logs and stops between two steps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from trainer.data.training import Batch
from trainer.local_sgd.clients import ClientBank
from trainer.local_sgd.schedule import Round, Schedule


@dataclass(frozen=True, kw_only=True)
class Step:
    """Describe a run after a local step of every client, of which ``done`` have been taken.

    ``round`` and the clients' ``losses`` (clients,) are those of the last step.
    """

    done: int
    round: Round
    losses: Tensor

    @property
    def ends_round(self) -> bool:
        """Return whether the clients have just been averaged."""
        return self.done == self.round.stop


def local_sgd(
    clients: ClientBank,
    average: Callable[[float], None],
    schedule: Schedule,
    batches: Iterator[Batch],
    start: int = 0,
) -> Iterator[Step]:
    """Yield after each local step and, at a round's end, the averaging.

    ``start`` steps were done before; ``batches`` begins with the next step's. ``average`` is given
    η of the round's last step.
    """
    for round in schedule.rounds(start):
        clients.begin(round)
        for step in range(max(round.start, start), round.stop):
            losses = clients.step(next(batches), schedule.lr(step))
            if step + 1 == round.stop:
                average(schedule.lr(step))
            yield Step(done=step + 1, round=round, losses=losses)
