"""How runs share this machine: its GPUs, and the threads of each process."""

from __future__ import annotations

import os
import subprocess
from itertools import takewhile

# Threads that decode image files for a process that trains on a GPU: the authors' number, and more
# than one GPU has use for.
DECODERS = 6
MOST_DECODERS = 16


def visible_gpus() -> int:
    """GPUs of this machine that CUDA_VISIBLE_DEVICES allows; 0 where NVIDIA's driver is missing.

    Asks nvidia-smi, since importing torch would make every call of Snakemake seconds slower.
    """
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    installed = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return installed
    # CUDA ignores everything after the first entry that is no device.
    entries = [entry.strip() for entry in allowed.split(",")]
    valid = takewhile(lambda e: e.isdigit() or e.startswith(("GPU-", "MIG-")), entries)
    return min(installed, len(list(valid)))


def threads_per_process(
    cores: int, processes: int, runs: int, gpus: int | None, asked: int | None
) -> int:
    """``asked``, or else the cores divided among the processes that run at once.

    At once are at most ``runs``, as many as ``gpus`` allow (None: runs are not bound by GPUs).
    Never more than the cores allow to one run; at least 1.
    """
    at_once = runs if gpus is None else min(runs, gpus // processes)
    share = cores // (processes * max(1, at_once)) if asked is None else asked
    return max(1, min(share, cores // processes))


def divide_threads(threads: int, *, decoding: bool, cores: int | None = None) -> tuple[int, int]:
    """Divide a process's ``threads`` into those that compute and those that decode image files.

    ``decoding``: a GPU computes and waits for images, so that all but one thread decode, as far as
    there are ``cores``. On the CPU decoding is little beside computing: 0, which leaves it to
    FFCV's one thread.
    """
    if not decoding:
        return threads, 0
    threads = min(threads, cores or threads)
    decoders = max(1, min(threads - 1, MOST_DECODERS))
    return max(1, threads - decoders), decoders
