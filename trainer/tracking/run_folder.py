"""Name the files of a run in progress, and hold its progress."""

from __future__ import annotations

from dataclasses import dataclass

# In log_pth, while the run is in progress
PARTIAL = "metrics.partial.jsonl"
STATE = "state"  # checkpoints, ``trainer.run.checkpoint``


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Hold the metrics so far, as text, and the seconds and starts that they took."""

    metrics: str = ""
    seconds: float = 0.0
    starts: int = 0
