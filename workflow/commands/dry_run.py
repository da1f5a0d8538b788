"""Ask Snakemake which jobs it would run, and why."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from trainer.errors import UserError

# A job's first output, and the reason to run it
JOB = re.compile(r"^    output: ([^,\n]+).*\n(?:    .*\n)*?    reason: (.+)$", re.MULTILINE)
# Snakemake's reasons in words about a run
REASONS = {
    "Missing output files": "model.pt is missing, which a run starts from",
    "Input files updated by another job": "what it is made from, or with, is made anew",
    "Forced execution": "Snakemake was killed before it had noted its end",
}


def would_run(overrides: Sequence[str]) -> dict[Path, str]:
    """Say why ``snakemake all`` would run each job, by the folder of its outputs.

    Raises UserError when Snakemake refuses to plan.
    """
    command = [sys.executable, "-m", "snakemake", "all", "--dry-run", "--nolock", "--nocolor"]
    # Given tables are for figures, as only_finished is; runs stay where they are. Nor must this
    # machine, a login node perhaps, have the nodes and GPUs that runs need.
    here = ["tables=None", "only_finished=False", "nodes=1", "processes=1"]
    given = ["--quiet", "host", "--resources", "gpu=1", "--config", *overrides, *here]
    done = subprocess.run([*command, *given], capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
        reason = next((line for line in said if line.startswith("error: ")), said[-1])
        raise UserError(f"snakemake --dry-run: {reason.removeprefix('error: ')}")
    jobs = JOB.findall(done.stdout + done.stderr)
    return {Path(output).parent: _translate_reason(said) for output, said in jobs}


def _translate_reason(said: str) -> str:
    """Put the first of a job's reasons into words about runs."""
    what, _, files = said.split("; ")[0].partition(": ")
    named = ": " + ", ".join(sorted(files.split(", "))) if files else ""
    return REASONS.get(what, what[:1].lower() + what[1:] + named)
