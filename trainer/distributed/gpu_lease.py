"""A GPU is leased to one run at a time, so that runs started side by side share a machine well.

A lease is a locked file per GPU in a folder of the user's. The kernel releases a lock with the
process that holds it: a killed run never leaves its GPUs leased.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch.distributed.distributed_c10d import Store

from trainer.errors import UserError

# Long enough for runs that are just ending, short enough that nobody wonders what it does.
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.2


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, in PyTorch's order, by names all processes agree on."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if visible.startswith("MIG-"):  # slices of a GPU share its UUID; CUDA shows the first of them
        return [visible.split(",")[0].replace("/", "-")]
    count = torch.cuda.device_count()
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(count)]


def warn_of_unused_gpu(root: Path = Path("/")) -> None:
    """Say that a run goes to the CPU on a machine whose NVIDIA driver is there, but not usable.

    Hiding the GPUs by CUDA_VISIBLE_DEVICES is a choice, of which nothing is said.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles")
    if not hidden and (found := _nvidia_driver(root)):
        sys.stderr.write(
            f"warning: device auto: an NVIDIA driver is installed ({found}), but PyTorch can use "
            "no GPU, so this run trains on the CPU; repair it, install a PyTorch for it, or "
            "set device to cpu (cuda: an error instead)\n"
        )


def _nvidia_driver(root: Path) -> str | None:
    """A file that tells of the driver: of a GPU, of the kernel module, or a program of its own."""
    files = [*sorted(root.glob("dev/nvidia[0-9]*")), root / "proc/driver/nvidia/version"]
    return next((str(file) for file in files if file.exists()), shutil.which("nvidia-smi"))


@contextmanager
def leased(
    gpus: Sequence[str], count: int = 1, wait_seconds: float = WAIT_SECONDS
) -> Iterator[list[int]]:
    """Indices of ``count`` of ``gpus``, which no other run of this user gets until the end.

    All or none, so that two runs never wait for each other's. Raises UserError when there are too
    few, or when other runs still hold them after ``wait_seconds``.
    """
    if count > len(gpus):
        raise UserError(
            f"{count} processes need a GPU each, this machine has {len(gpus)}; "
            f"start {len(gpus)} processes (config.yaml: processes) or set device to cpu"
        )
    deadline = time.monotonic() + wait_seconds
    with ExitStack() as held:
        while not (indices := _lease_if_free(gpus, count, held)):
            if time.monotonic() > deadline:
                raise UserError(
                    f"{count} of this machine's {len(gpus)} GPUs needed, other runs hold too many; "
                    f"run fewer at once (snakemake --resources gpu={len(gpus)}) "
                    "or set device to cpu"
                )
            time.sleep(POLL_SECONDS)
        yield indices


@contextmanager
def own_gpu(gpus: Sequence[str], local: int, processes: int, store: Store | None) -> Iterator[int]:
    """The index of the GPU of process ``local`` among a run's ``processes`` on this machine.

    The first process leases for all, tells the others through ``store`` and outstays them; torchrun
    ends them when it dies.
    """
    key = f"gpus of node {os.environ.get('GROUP_RANK', 0)}"
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


def _lease_if_free(gpus: Sequence[str], count: int, held: ExitStack) -> list[int]:
    """``count`` indices, whose locks ``held`` then keeps; or none."""
    folder = Path(tempfile.gettempdir()) / f"local-sgd-gpus-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # One run chooses at a time: otherwise two could each keep a part, again and again.
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
