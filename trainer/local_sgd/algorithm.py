"""Run Local SGD: Algorithm 1 of https://arxiv.org/abs/2303.01215 with K simulated clients.

Saving, evaluating, logging and stopping are the caller's: it does them between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from trainer.data.training import Batch
from trainer.local_sgd.clients import ClientBank
from trainer.local_sgd.schedule import Round, Schedule


@dataclass(frozen=True, kw_only=True)
class Step:
    """The state of a run after one local step of every client.

    ``done`` steps are behind it, the last one in ``round``; ``losses`` (clients,) are that step's.
    """

    done: int
    round: Round
    losses: Tensor

    @property
    def ends_round(self) -> bool:
        """Whether the clients have just been averaged."""
        return self.done == self.round.stop


def local_sgd(
    clients: ClientBank,
    average: Callable[[], None],
    schedule: Schedule,
    batches: Iterator[Batch],
    start: int = 0,
) -> Iterator[Step]:
    """Yield after each local step, averaged where the round ends.

    ``start`` steps were done before; ``batches`` begins with the batch of the next one.
    """
    for round in schedule.rounds(start):
        clients.begin(round)
        for step in range(max(round.start, start), round.stop):
            losses = clients.step(next(batches), schedule.lr(step))
            if step + 1 == round.stop:
                average()
            yield Step(done=step + 1, round=round, losses=losses)
