"""Ask Slurm about the job that this process is part of: when it ends, which nodes it has."""

import os
import subprocess
from datetime import datetime

from trainer.errors import UserError

# A run stops the shorter of these before its job ends, to finish its step and save a checkpoint.
MARGIN_SHARE = 0.05
MARGIN_SECONDS = 300.0


def job_id() -> str | None:
    """Return the job's number; None if this process is part of none."""
    return os.environ.get("SLURM_JOB_ID")


def stop_time() -> float | None:
    """Return when a run in this job must stop by itself, in seconds since 1970, or None.

    Asks the scheduler, as the time left differs from the one that the job was submitted with for
    the later runs of a group, and after a change of the limit.
    """
    number = job_id()
    if number is None:
        return None
    try:
        times = _query("squeue", "--noheader", "--jobs", number, "--format=%S|%e").split("|")
        start, end = (datetime.fromisoformat(time).timestamp() for time in times)
    except (UserError, ValueError):  # no limit, or no answer: SIGTERM will come
        return None
    return end - min(MARGIN_SECONDS, MARGIN_SHARE * (end - start))


def node_addresses() -> list[str]:
    """Return the addresses of the job's nodes, in Slurm's order, as its scheduler reaches them."""
    # SLURM_JOB_NODELIST is not set in the steps of Snakemake's plugin.
    listed = _query("squeue", "--noheader", "--jobs", job_id() or "", "--format=%N")
    names = _query("scontrol", "show", "hostnames", listed).split()
    described = _query("scontrol", "--oneliner", "show", "node", ",".join(names)).splitlines()
    of_node = [dict(w.split("=", 1) for w in line.split() if "=" in w) for line in described]
    addresses = {node["NodeName"]: node["NodeAddr"] for node in of_node}
    return [addresses[name] for name in names]


def _query(*words: str) -> str:
    """Return what one of Slurm's commands prints. Raises UserError if it fails."""
    try:
        asked = subprocess.run(
            words, capture_output=True, text=True, errors="replace", check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise UserError(f"Slurm does not answer to {' '.join(words)} ({said})") from None
    return asked.stdout.strip()
