"""The processes of one run, as torchrun started them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from trainer.config import RunSettings
from trainer.devices import own_gpu, visible_gpus, warn_of_unused_gpu
from trainer.errors import UserError

T = TypeVar("T")

# Of gloo and NCCL, which otherwise listen where other machines could reach them.
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo"}


@dataclass(frozen=True)
class World:
    """This process's place among ``size`` processes, and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def own_clients(self, num_clients: int) -> range:
        """The clients that this process executes."""
        share = num_clients // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def sum_(self, tensor: Tensor) -> Tensor:
        """``tensor`` summed over all processes, in place."""
        if self.size > 1:
            with _in_touch():
                dist.all_reduce(tensor)
        return tensor

    def least(self, value: int) -> int:
        """The least of all processes' ``value``."""
        found = torch.tensor(value, device=self.device)
        if self.size > 1:
            with _in_touch():
                dist.all_reduce(found, dist.ReduceOp.MIN)
        return int(found)

    def same(self, value: int) -> bool:
        """Whether all processes have the same ``value``."""
        return self.least(value) == -self.least(-value)

    def from_main(self, value: T) -> T:
        """The main process's ``value``, on every process."""
        values = [value]
        if self.size > 1:
            with _in_touch():
                dist.broadcast_object_list(values)
        return values[0]

    def of_all(self, value: T) -> list[T]:
        """Every process's ``value``, in order, on every process."""
        values = [value] * self.size
        if self.size > 1:
            with _in_touch():
                dist.all_gather_object(values, value)
        return values

    def synchronise(self) -> None:
        """Until this process's device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            with _in_touch():
                dist.barrier()


@contextmanager
def _in_touch() -> Iterator[None]:
    """Turns what a process that has died or does not answer provokes in the others into a line."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"another process has died or does not answer ({error}); see what it said above, and "
            "start the run again: it goes on from its last checkpoint"
        ) from None


@contextmanager
def join_world(settings: RunSettings) -> Iterator[World]:
    """Joins torchrun's process group (NCCL on GPU, gloo on CPU), leaves it at the end.

    On a GPU each process has one of its own, leased for as long.
    """
    cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if cuda and not torch.cuda.is_available():
        raise UserError("device cuda: no CUDA device is available; set device to cpu or auto")
    if settings.device == "auto" and not cuda and _number("RANK", 0) == 0:
        warn_of_unused_gpu()
    if settings.backend == "nccl" and not cuda:
        raise UserError("backend nccl is for GPUs, this run is on the CPU; set backend gloo")
    with ExitStack() as stack:
        store = None
        rank, size = _number("RANK", 0), _number("WORLD_SIZE", 1)
        if size > 1:
            if _number("LOCAL_WORLD_SIZE", 1) == size:  # all on this machine
                os.environ |= LOOPBACK | os.environ
            store, rank, size = next(rendezvous("env://"))
            # torchrun's store outlives a restart, and so does what the dead left there.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = PrefixStore(f"attempt {attempt}", store)
        device = torch.device("cpu")
        if cuda:
            local, processes = _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1)
            gpu = stack.enter_context(own_gpu(visible_gpus(), local, processes, store))
            device = torch.device("cuda", gpu)
            torch.cuda.set_device(device)
        if store is not None:
            backend = settings.backend
            if backend == "auto":
                backend = "nccl" if cuda else "gloo"
            with _in_touch():
                dist.init_process_group(
                    backend,
                    store=store,
                    rank=rank,
                    world_size=size,
                    timeout=timedelta(minutes=settings.timeout),
                )
            stack.callback(dist.destroy_process_group)
        yield World(rank, size, device)


def _number(variable: str, without_torchrun: int) -> int:
    return int(os.environ.get(variable, without_torchrun))
