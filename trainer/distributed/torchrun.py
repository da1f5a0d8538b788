"""Check whether torchrun started this process, and make it end with torchrun."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2)


def started_by_torchrun() -> bool:
    """Check whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def end_with_torchrun() -> None:
    """Make the kernel send this process SIGTERM when its torchrun dies, killed or not."""
    if started_by_torchrun() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
