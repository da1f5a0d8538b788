"""Whether there is memory for a process's clients, known before it is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import torch
from tqdm import tqdm

from trainer.config import RunSettings

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Need:
    """Of one client, in bytes; ``replica`` is its parameters and momentum."""

    replica: int
    gradients: int
    activations: int

    def of(self, replicas: int) -> int:
        """With one client at work."""
        return replicas * self.replica + self.gradients + self.activations


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
    enough = [n for n in range(processes, k + 1) if k % n == 0 and fits(need, k // n, place)]
    start = f"start {enough[0]} processes, or " if enough else ""
    return f"{missing}; {start}set clients offloaded"


def _size(number: int) -> str:
    return tqdm.format_sizeof(number, suffix="B", divisor=1000)
