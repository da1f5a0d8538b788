"""Name the files of a run in progress, and hold what they say so far."""

from __future__ import annotations

from dataclasses import dataclass

# In log_pth, while the run is in progress
PARTIAL = "metrics.partial.jsonl"
STATE = "state"  # checkpoints, ``trainer.run.checkpoint``


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Hold the lines of the metrics so far, and in how many seconds and starts they were made."""

    metrics: str = ""
    seconds: float = 0.0
    starts: int = 0
