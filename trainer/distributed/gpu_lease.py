"""Lease each GPU to one run at a time, so that runs started side by side share a machine well.

A lease is a locked file per GPU in a folder of the user's. The kernel releases the lock when its
process ends: a killed run never leaves its GPUs leased.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch.distributed.distributed_c10d import Store

from trainer.errors import UserError, report

# Long enough for another run to end, short enough not to look like a hang
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.2


def visible_gpus() -> list[str]:
    """List the GPUs this process may use, in PyTorch's order, by names equal in all processes."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if visible.startswith("MIG-"):  # slices share their GPU's UUID; CUDA shows the first only
        return [visible.split(",")[0].replace("/", "-")]
    count = torch.cuda.device_count()
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(count)]


def find_driver(root: Path = Path("/")) -> Path | str | None:
    """Find what shows that an NVIDIA driver is installed; None also if its GPUs are hidden.

    GPUs hidden by CUDA_VISIBLE_DEVICES are the user's choice.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles"):
        return None
    # A GPU's device, the kernel module's file, or the driver's program
    files = [*sorted(root.glob("dev/nvidia[0-9]*")), root / "proc/driver/nvidia/version"]
    return next((file for file in files if file.exists()), shutil.which("nvidia-smi"))


def warn_about_unused_gpu(root: Path = Path("/")) -> None:
    """Warn that a run uses the CPU although an NVIDIA driver is installed."""
    if found := find_driver(root):
        report(
            f"warning: device auto: an NVIDIA driver is installed ({found}), but PyTorch can use "
            "no GPU, so this run trains on the CPU; repair it, install a PyTorch for it, or "
            "set device to cpu (cuda: an error instead)"
        )


@contextmanager
def leased(
    gpus: Sequence[str], count: int = 1, wait_seconds: float = WAIT_SECONDS
) -> Iterator[list[int]]:
    """Lease ``count`` of ``gpus`` within the context; yield their indices.

    No other run of this user gets them. Takes all or none, so that two runs never wait for each
    other. Raises UserError if there are too few, or if other runs still hold too many after
    ``wait_seconds``.
    """
    if count > len(gpus):
        raise UserError(
            f"{count} processes need a GPU each, this machine has {len(gpus)}; "
            f"start {len(gpus)} processes (config.yaml: processes) or set device to cpu"
        )
    deadline = time.monotonic() + wait_seconds
    with ExitStack() as held:
        while not (indices := _try_lease(gpus, count, held)):
            if time.monotonic() > deadline:
                raise UserError(
                    f"{count} of this machine's {len(gpus)} GPUs needed, other runs hold too many; "
                    f"run fewer at once (snakemake --resources gpu={len(gpus)}) "
                    "or set device to cpu"
                )
            time.sleep(POLL_SECONDS)
        yield indices


@contextmanager
def own_gpu(
    gpus: Sequence[str], rank: int, local: int, processes: int, store: Store | None
) -> Iterator[int]:
    """Yield the index of the GPU of process ``local`` of a run's ``processes`` on this machine.

    ``rank`` is the process's among those of all machines. The first process here leases for all,
    tells the others through ``store`` and leaves last; torchrun ends them if it dies.
    """
    key = f"gpus of the node of process {rank - local}"
    if local > 0:
        assert store is not None
        yield json.loads(store.get(key))[local]
        store.set(f"{key}: {local} is done", "")
        return
    with leased(gpus, processes) as indices:
        if store is not None:
            store.set(key, json.dumps(indices))
        yield indices[0]
        if store is not None:
            store.wait([f"{key}: {other} is done" for other in range(1, processes)])


def _try_lease(gpus: Sequence[str], count: int, held: ExitStack) -> list[int]:
    """Lock ``count`` GPUs until ``held`` closes, and return their indices; else lock none."""
    folder = Path(tempfile.gettempdir()) / f"local-sgd-gpus-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # One run chooses at a time: two could each take a part, give it back, and so on for ever.
        with FileLock(folder / "choosing.lock"), ExitStack() as chosen:
            indices: list[int] = []
            for index, gpu in enumerate(gpus):
                if len(indices) < count:
                    with suppress(Timeout):
                        chosen.enter_context(FileLock(folder / f"{gpu}.lock", timeout=0))
                        indices.append(index)
            if len(indices) < count:
                return []
            held.push(chosen.pop_all())
            return indices
    except OSError as error:
        raise UserError(
            f"{folder}: GPUs cannot be leased there ({error}); remove it or set TMPDIR"
        ) from None
