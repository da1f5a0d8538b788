"""The Slurm job that this process is part of: when it ends, and which nodes it has."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime

from trainer.errors import UserError

# A run stops so long before its job's wall time: time for the last step and the checkpoint.
MARGIN_SHARE = 0.05
MARGIN_SECONDS = 300.0


def job() -> str | None:
    """Its number; None where this process is part of none."""
    return os.environ.get("SLURM_JOB_ID")


def stop_time() -> float | None:
    """When a run in this job is to stop by itself, in seconds since 1970; None: not at all.

    Asks the scheduler: a group's later runs, and a limit that was changed, have less or more time
    than the job was submitted with.
    """
    number = job()
    if number is None:
        return None
    try:
        started, ends = _ask("squeue", "--noheader", "--jobs", number, "--format=%S|%e").split("|")
        start, end = (datetime.fromisoformat(time).timestamp() for time in (started, ends))
    except (UserError, ValueError):  # no limit, or no answer: SIGTERM is still to come
        return None
    return end - min(MARGIN_SECONDS, MARGIN_SHARE * (end - start))


def node_addresses() -> list[str]:
    """Of the job's nodes in Slurm's order, as its scheduler reaches them."""
    # Not by SLURM_JOB_NODELIST, which the steps of Snakemake's plugin lack
    listed = _ask("squeue", "--noheader", "--jobs", job() or "", "--format=%N")
    names = _ask("scontrol", "show", "hostnames", listed).split()
    described = _ask("scontrol", "--oneliner", "show", "node", ",".join(names)).splitlines()
    of_node = [dict(w.split("=", 1) for w in line.split() if "=" in w) for line in described]
    addresses = {node["NodeName"]: node["NodeAddr"] for node in of_node}
    return [addresses[name] for name in names]


def _ask(*words: str) -> str:
    """What one of Slurm's commands prints. Raises UserError where it cannot say."""
    try:
        asked = subprocess.run(
            words, capture_output=True, text=True, errors="replace", check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise UserError(f"Slurm does not answer to {' '.join(words)} ({said})") from None
    return asked.stdout.strip()
