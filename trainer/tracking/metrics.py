"""Write metrics.jsonl, the authoritative record of a run: one line per evaluation."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from trainer.files.atomic import writing

METRICS = "metrics.jsonl"
# In log_pth, while the run is in progress
PARTIAL = "metrics.partial.jsonl"
STATE = "state"  # checkpoints, ``trainer.run.checkpoint``


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Hold one line of metrics.jsonl: no time and no path, so that equal runs have equal files.

    ``epoch`` counts from the start point's epoch on, ``step`` and ``round`` from this run's start.
    ``lr`` and ``local_steps`` are those of the last step; ``train_loss`` is the clients' mean over
    the steps since the last evaluation, None before the first step. ``bytes_sent`` is what one
    client has sent so far: one model per round, two where momentum is averaged. The Hessian's
    numbers are None unless ``sharpness``. ``diverged``: the run ended because losses or parameters
    were not finite after ``step`` steps; the accuracies are that model's, the losses None.
    """

    step: int
    round: int
    phase: int
    epoch: float
    lr: float
    local_steps: int
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float
    test_top5_accuracy: float
    bytes_sent: int
    hessian_trace: float | None = None
    hessian_largest_eigenvalue: float | None = None
    diverged: bool = False


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Hold the metrics so far, as text, and the seconds and starts that they took."""

    metrics: str = ""
    seconds: float = 0.0
    starts: int = 0


class MetricsFile:
    """Append evaluations to a file as JSON lines, each flushed to the disk."""

    def __init__(self, path: Path, text: str = "") -> None:
        """Replace the file by one that holds the lines ``text``."""
        self.path = path
        self.text = ""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered, so that closing does not retry what a full disk did not take.
            self._file: IO[bytes] = path.open("wb", buffering=0)
            self._append(text)

    def write(self, evaluation: Evaluation) -> None:
        with writing(self.path):
            self._append(json.dumps(asdict(evaluation)) + "\n")

    def _append(self, text: str) -> None:
        self._file.write(text.encode())
        os.fsync(self._file.fileno())
        self.text += text

    def close(self) -> None:
        self._file.close()
