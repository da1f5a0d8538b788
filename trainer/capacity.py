"""Whether there is memory for a process's clients, known before it is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import torch
from tqdm import tqdm

from trainer.config import RunSettings
from trainer.processes import World

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Need:
    """In bytes: parameters and momentum of a client; gradients and activations of one at work."""

    replica: int
    working: int

    def of(self, clients: int) -> int:
        return clients * self.replica + self.working


def fits(need: Need, clients: int, device: torch.device) -> bool:
    """Whether ``device`` holds so many clients of a process."""
    return need.of(clients) <= free_bytes(device)


def free_bytes(device: torch.device) -> int:
    """For one process: of its GPU, or its share of this machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available: int = psutil.virtual_memory().available
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def refusal(settings: RunSettings, need: Need, clients: int, world: World) -> str:
    """What is missing, and how many processes would do."""
    device, k = world.device, settings.num_clients
    missing = (
        f"K = {k} clients: {clients} of model {settings.model} on each process need about "
        f"{_size(need.of(clients))} of memory, {_size(free_bytes(device))} are free on {device}"
    )
    if device.type == "cpu":  # processes of one machine share it
        return f"{missing}; lower total_batch_size, or start processes on more machines"
    enough = [n for n in range(world.size, k + 1) if k % n == 0 and fits(need, k // n, device)]
    start = f"start {enough[0]} processes, or " if enough else ""
    return f"{missing}; {start}set clients offloaded"


def _size(number: int) -> str:
    return tqdm.format_sizeof(number, suffix="B", divisor=1000)
