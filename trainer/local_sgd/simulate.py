"""Train a model of your own by Local SGD, in one process, without settings or files.

docs/from-python.md shows how.
"""

import copy
from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.data.training import Batch
from trainer.errors import UserError
from trainer.local_sgd.algorithm import Step, local_sgd
from trainer.local_sgd.averaging import Averaging, MomentumPolicy
from trainer.local_sgd.clients import ClientBank, Execution, ExecutionPlan, Loss
from trainer.local_sgd.optimizer import SGD, AdamW
from trainer.local_sgd.outer import Outer
from trainer.local_sgd.processes import OneProcess
from trainer.local_sgd.schedule import Schedule
from trainer.local_sgd.weight_averaging import WeightAverage

PLAIN_SGD = SGD()


def simulate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    schedule: Schedule,
    *,
    num_clients: int,
    loss: Loss = F.cross_entropy,
    optimizer: SGD | AdamW = PLAIN_SGD,
    momentum: MomentumPolicy = "keep",
    outer: Outer | None = None,
    ema_decay: float = 0.999,
    vectorized: bool = False,
) -> Iterator[Step]:
    """Yield after each local step of K = ``num_clients`` copies of ``model``.

    At a round's end, ``model`` holds what all of them continue from, or the phase's mean of that,
    so that the caller may evaluate or save it between two steps. ``batches`` gives one step at a
    time: inputs and targets, both (K, B_loc, …), on the model's device. ``loss`` maps one client's
    outputs and targets to a scalar. ``vectorized``: all clients at once, by `vmap`; for small
    models that draw no random numbers. Raises UserError for batches of another number of clients,
    or too few of them.
    """
    plan = ExecutionPlan("vectorized", num_clients) if vectorized else ExecutionPlan("serial")
    execution = Execution(one_step=plan, several_steps=plan)
    clients = ClientBank(copy.deepcopy(model), num_clients, optimizer, execution, loss=loss)
    average = Averaging(clients, OneProcess(next(model.parameters()).device), momentum, outer)
    mean = WeightAverage(clients, average, ema_decay)
    checked = _checked(batches, num_clients, schedule.steps)
    for step in mean.follow(local_sgd(clients, average, schedule, checked)):
        if step.ends_round:
            mean.export(model)
        yield step


def _checked(
    batches: Iterable[tuple[Tensor, Tensor]], num_clients: int, steps: int
) -> Iterator[Batch]:
    done = 0
    for inputs, targets in batches:
        for name, tensor in (("inputs", inputs), ("targets", targets)):
            if len(tensor) != num_clients:
                raise UserError(
                    f"batches: {name} of shape {tuple(tensor.shape)} at step {done}, but "
                    f"num_clients is {num_clients}; give (num_clients, B_loc, …)"
                )
        yield Batch(images=inputs, labels=targets, seeds=np.zeros(num_clients, np.int64))
        done += 1
    raise UserError(f"batches: {done} steps, but the schedule has {steps}; give more batches")
