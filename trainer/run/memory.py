"""Whether there is memory for a process's clients, known before it is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import torch
from tqdm import tqdm

from trainer.errors import UserError
from trainer.models import model_spec
from trainer.settings.run import RunSettings

CPU = torch.device("cpu")
# Of a sample's place in an epoch: its index, view, label noise, and what they are drawn from
PLACE_BYTES = 64
MOST_PROCESSES = 4096


@dataclass(frozen=True, kw_only=True)
class Need:
    """Of one client, in bytes; ``replica`` is its parameters and momentum."""

    replica: int
    gradients: int
    activations: int

    def of(self, replicas: int) -> int:
        """With one client at work."""
        return replicas * self.replica + self.gradients + self.activations


def check_batches(settings: RunSettings, steps_per_epoch: int, processes: int) -> None:
    """Raises UserError where an epoch's order, or the images of a step, are more than fits."""
    s, free = settings, free_bytes(CPU)
    image_bytes = s.data.image_size**2 * s.data.channels
    value_bytes = 8 if s.precision == "fp64" else 4
    needs = {
        f"total_batch_size {s.total_batch_size} × steps_per_epoch {steps_per_epoch}: the order of "
        "their samples": s.total_batch_size * steps_per_epoch * PLACE_BYTES,
        f"bn_batches {s.bn_batches} × batch_size {s.batch_size}: the order of their "
        "samples": s.bn_batches * s.batch_size * PLACE_BYTES * model_spec(s.model).batchnorm,
        f"total_batch_size {s.total_batch_size}: the images of a step on each process":
        s.total_batch_size // processes * image_bytes * (1 + value_bytes),
    }  # fmt: skip
    for what, needed in needs.items():
        if needed > free:
            raise UserError(
                f"{what} need about {_size(needed)} of memory, {_size(free)} are free; lower it"
            )


def fits(need: Need, replicas: int, device: torch.device) -> bool:
    """Whether ``device`` holds so many replicas of a process."""
    return need.of(replicas) <= free_bytes(device)


def free_bytes(device: torch.device) -> int:
    """For one process: of its GPU, or its share of this machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available: int = psutil.virtual_memory().available
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def refusal(
    settings: RunSettings, need: Need, replicas: int, place: torch.device, processes: int
) -> str:
    """What is missing on ``place``, where they were to lie, and what would do."""
    k = settings.num_clients
    missing = (
        f"K = {k} clients: {replicas} of model {settings.model} on each process need about "
        f"{_size(need.of(replicas))} of memory, {_size(free_bytes(place))} are free on {place}"
    )
    if place.type == "cpu":  # processes of one machine share it
        return f"{missing}; lower total_batch_size, or start processes on more machines"
    more = range(processes, min(k, MOST_PROCESSES) + 1)
    enough = [n for n in more if k % n == 0 and fits(need, k // n, place)]
    start = f"start {enough[0]} processes, or " if enough else ""
    return f"{missing}; {start}set clients offloaded"


def _size(number: float) -> str:
    return tqdm.format_sizeof(number, suffix="B", divisor=1000)
