"""What the profile for PBS tells Snakemake of a job, by what ``qstat`` answers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.commands import ROOT

RUNNING = "echo '    job_state = R'"
UNKNOWN = "echo 'qstat: Unknown Job Id 7.here' >&2; exit 153"
NO_HISTORY = "echo 'qstat: PBS is not configured to maintain job history' >&2; exit 1"
DOWN = "echo 'Connection refused' >&2; exit 111"


@pytest.mark.parametrize(
    ("with_history", "without", "said"),
    [
        ("echo '    job_state = F'; echo '    Exit_status = 0'", "exit 1", "success"),
        ("echo '    job_state = F'; echo '    Exit_status = 75'", "exit 1", "failed"),
        (RUNNING, RUNNING, "running"),
        (UNKNOWN, UNKNOWN, "success"),
        (NO_HISTORY, RUNNING, "running"),
        (NO_HISTORY, UNKNOWN, "success"),
        (DOWN, DOWN, "running"),
    ],
)
def test_a_jobs_state(tmp_path: Path, with_history: str, without: str, said: str) -> None:
    """Where the server has forgotten a job, Snakemake looks at its files."""
    qstat = tmp_path / "qstat"
    qstat.write_text(f'#!/bin/sh\nif [ "$1" = -x ]; then {with_history}; else {without}; fi\n')
    qstat.chmod(0o755)
    done = subprocess.run(
        ["bash", ROOT / "profiles/pbs/status", "7.here"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [said]
