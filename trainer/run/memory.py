"""Estimate whether a process's clients fit into memory, before it is allocated."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import psutil
import torch
from tqdm import tqdm

from trainer.data.training import Batch
from trainer.errors import UserError
from trainer.local_sgd.clients import ClientBank, ExecutionPlan
from trainer.local_sgd.outer import Outer
from trainer.models.registry import model_spec
from trainer.settings.run import RunSettings

CPU = torch.device("cpu")
# For each sample of an epoch: its index, view, label noise, and what they are drawn from
PLACE_BYTES = 64
MEAN_BYTES = 8  # of a parameter, in float64
MOST_PROCESSES = 4096


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Count the bytes that one client takes; ``replica`` is its parameters and momentum.

    ``shared``: the state of the outer optimizer and the mean of iterates, of all clients together.
    """

    replica: int
    gradients: int
    activations: int
    shared: int = 0

    @classmethod
    def of_client(
        cls, one: ClientBank, batch: Batch, outer: Outer, *, averages_weights: bool
    ) -> MemoryEstimate:
        """Measure the client of the bank ``one``, which has a single client."""
        parameters = one.parameters.memory.nbytes
        mean = one.parameters.size * MEAN_BYTES if averages_weights else 0
        return cls(
            replica=parameters + one.momentum.memory.nbytes,
            gradients=parameters,
            activations=one.activation_bytes(batch),
            shared=outer.vectors * parameters + mean,
        )

    def total(self, replicas: int, plan: ExecutionPlan) -> int:
        """Count the bytes of ``replicas`` replicas, with those of a pass being trained."""
        at_once = plan.clients_per_pass
        gradients = self.gradients * (1 if plan.mode == "fused" else at_once)
        return replicas * self.replica + gradients + at_once * self.activations + self.shared


def check_batches(settings: RunSettings, steps_per_epoch: int, processes: int) -> None:
    """Raise UserError if an epoch's sample order or a step's images do not fit into memory."""
    s, free = settings, free_bytes(CPU)
    image_bytes = s.data.image_size**2 * s.data.channels
    value_bytes = 8 if s.precision == "fp64" else 4
    order = s.total_batch_size * steps_per_epoch * PLACE_BYTES
    for_batchnorm = s.bn_batches * s.batch_size * PLACE_BYTES * model_spec(s.model).batchnorm
    images = s.total_batch_size // processes * image_bytes * (1 + value_bytes)
    needs = [
        ({"total_batch_size": s.total_batch_size, "steps_per_epoch": steps_per_epoch},
         "the order of their samples", order),
        ({"bn_batches": s.bn_batches, "batch_size": s.batch_size},
         "the order of their samples", for_batchnorm),
        ({"total_batch_size": s.total_batch_size},
         "the images of a step on each process", images),
    ]  # fmt: skip
    for factors, what, needed in needs:
        if needed > free:
            product = " × ".join(f"{name} {value}" for name, value in factors.items())
            raise UserError(
                f"{product}: {what} need about {_size(needed)} of memory, {_size(free)} are free; "
                f"lower {' or '.join(factors)}"
            )


def fits(need: MemoryEstimate, replicas: int, plan: ExecutionPlan, device: torch.device) -> bool:
    """Check that ``replicas`` replicas of a process, executed by ``plan``, fit on ``device``."""
    return need.total(replicas, plan) <= free_bytes(device)


def free_bytes(device: torch.device) -> int:
    """Return the memory free to one process: of its GPU, or its share of the machine's."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # PyTorch keeps freed memory, which would count as taken
        return torch.cuda.mem_get_info(device)[0]
    available: int = psutil.virtual_memory().available
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def out_of_memory_message(
    settings: RunSettings,
    need: MemoryEstimate,
    replicas: int,
    plan: ExecutionPlan,
    device: torch.device,
    processes: int,
) -> str:
    """Say how much memory is missing on ``device``, and how many processes would be enough."""
    k = settings.num_clients
    missing = (
        f"K = {k} clients: {replicas} of model {settings.model} on each process need about "
        f"{_size(need.total(replicas, plan))} of memory, {_size(free_bytes(device))} are free on "
        f"{device}"
    )
    if device.type == "cpu":  # processes of one machine share it
        return f"{missing}; lower total_batch_size, or start processes on more machines"
    more = range(processes, min(k, MOST_PROCESSES) + 1)
    passes = {n: replace(plan, clients_per_pass=min(plan.clients_per_pass, k // n)) for n in more}
    enough = [n for n in more if k % n == 0 and fits(need, k // n, passes[n], device)]
    start = f"start {enough[0]} processes" if enough else "lower total_batch_size"
    return f"{missing}; {start}"


def _size(number: float) -> str:
    return tqdm.format_sizeof(number, suffix="B", divisor=1000)
