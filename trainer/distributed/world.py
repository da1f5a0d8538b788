"""Join the processes of a run, and communicate among them."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.distributed.failures import fail_together
from trainer.distributed.gpu_lease import own_gpu, visible_gpus, warn_about_unused_gpu
from trainer.distributed.launcher_variables import read_launcher_variables
from trainer.distributed.pair_mean import pair_mean
from trainer.distributed.process_group import join_store, peer_failures_as_user_errors
from trainer.errors import StoppedError, UserError
from trainer.settings.run import RunSettings

T = TypeVar("T")

# Below, two processes average fastest by an all-reduce: 3 MB so, 59 MB by exchanging pieces, as
# measured on one machine.
LONG_BYTES = 2**24

# gloo and NCCL would otherwise listen where other machines could reach them.
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo"}


@dataclass(frozen=True)
class World:
    """Hold this process's rank among ``size`` processes, and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """Name the device, a GPU with its model, on which timings depend."""
        if self.device.type == "cuda":
            return f"{self.device}, {torch.cuda.get_device_name(self.device)}"
        return str(self.device)

    def own_clients(self, num_clients: int) -> range:
        """Return the clients that this process executes."""
        share = num_clients // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def all_sum(self, tensor: Tensor) -> Tensor:
        """Sum ``tensor`` over all processes, in place."""
        self._communicate(dist.all_reduce, tensor)
        return tensor

    def all_mean(self, tensor: Tensor, scratch: Tensor) -> Tensor:
        """Average ``tensor`` (n,) over all processes, in place; overwrite ``scratch`` (≥ n,)."""
        if self.size == 2 and self.device.type == "cpu" and tensor.nbytes > LONG_BYTES:
            self._communicate(pair_mean, tensor, scratch, self.rank)
        elif self.size > 1:
            tensor = self.all_sum(tensor)
            tensor /= self.size
        return tensor

    def all_min(self, value: int) -> int:
        """Return the least of all processes' values."""
        found = torch.tensor(value, device=self.device)
        self._communicate(dist.all_reduce, found, dist.ReduceOp.MIN)
        return int(found)

    def all_equal(self, value: int) -> bool:
        """Check whether all processes have the same ``value``."""
        return self.all_min(value) == -self.all_min(-value)

    def broadcast(self, value: T) -> T:
        """Return the main process's ``value`` on every process."""
        values = [value]
        self._communicate(dist.broadcast_object_list, values)
        return values[0]

    def all_gather(self, value: T) -> list[T]:
        """Return every process's ``value``, in the order of ranks, on every process."""
        values = [value] * self.size
        self._communicate(dist.all_gather_object, values, value)
        return values

    def _communicate(self, collective: Callable[..., object], *arguments: object) -> None:
        """Call ``collective``, unless this process is alone."""
        if self.size > 1:
            with peer_failures_as_user_errors():
                collective(*arguments)


@contextmanager
def join_world(settings: RunSettings) -> Iterator[World]:
    """Join the processes that a launcher started (NCCL on GPUs, gloo on CPUs), then leave them.

    On GPUs each process leases one of its own within the context. If one process fails there, all
    end.
    """
    cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if cuda and not torch.cuda.is_available():
        raise UserError("device cuda: no CUDA device is available; set device to cpu or auto")
    if settings.backend == "nccl" and not cuda:
        raise UserError("backend nccl is for GPUs, this run is on the CPU; set backend gloo")
    own = read_launcher_variables()
    if settings.device == "auto" and not cuda and own.rank == 0:
        warn_about_unused_gpu()
    timeout = timedelta(minutes=settings.timeout)
    with ExitStack() as stack:
        store = None
        if own.size > 1:
            if own.local_size == own.size:  # all on this machine
                os.environ |= LOOPBACK | os.environ
            store = join_store(own, timeout)
            stack.enter_context(fail_together(store, own))
        device = torch.device("cpu")
        with peer_failures_as_user_errors():
            if cuda:
                lease = own_gpu(visible_gpus(), own.rank, own.local_rank, own.local_size, store)
                device = torch.device("cuda", stack.enter_context(lease))
                torch.cuda.set_device(device)
                # A resumed run is to end with the bits of an undisturbed one, on GPUs, too.
                torch.backends.cudnn.deterministic = True
            if store is not None:
                automatic = "nccl" if cuda else "gloo"
                backend = automatic if settings.backend == "auto" else settings.backend
                dist.init_process_group(
                    backend, store=store, rank=own.rank, world_size=own.size, timeout=timeout
                )
        try:
            yield World(own.rank, own.size, device)
        except StoppedError:  # all processes raise it together
            _leave()
            raise
        _leave()


def _leave() -> None:
    """Destroy the process group; not after a failure, as NCCL then waits for the others."""
    if dist.is_initialized():
        dist.destroy_process_group()
