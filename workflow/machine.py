"""Count this machine's GPUs and divide its cores among processes and their threads."""

from __future__ import annotations

import os
import subprocess
from itertools import takewhile

# Threads that decode image files for a process that trains on a GPU: the authors' number, and the
# most that one GPU can use.
DECODERS = 6
MOST_DECODERS = 16


def visible_gpus() -> int:
    """Count this machine's GPUs that CUDA_VISIBLE_DEVICES allows; 0 without NVIDIA's driver.

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
    cores: int, processes: int, runs: int, gpus: int | None, requested: int | None
) -> int:
    """Return ``requested`` threads, or else a fair share of the cores, at least 1.

    Cores are divided among the processes of ``runs`` runs, or of as many as ``gpus`` allow at once
    (None: GPUs do not bound them). One run never gets more than all cores.
    """
    at_once = runs if gpus is None else min(runs, gpus // processes)
    share = cores // (processes * max(1, at_once)) if requested is None else requested
    return max(1, min(share, cores // processes))


def divide_threads(threads: int, *, decoding: bool, cores: int | None = None) -> tuple[int, int]:
    """Divide a process's ``threads`` into those that compute and those that decode image files.

    ``decoding``: a GPU computes and waits for images, so all but one thread decode, up to the
    number of ``cores``. On the CPU, decoding is cheap beside computing: 0 leaves it to FFCV's one
    thread.
    """
    if not decoding:
        return threads, 0
    threads = min(threads, cores or threads)
    decoders = max(1, min(threads - 1, MOST_DECODERS))
    return max(1, threads - decoders), decoders
