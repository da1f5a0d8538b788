"""Write metrics.jsonl, the truth about a run: one line per evaluation."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from trainer.files.atomic import writing


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One line of metrics.jsonl. Holds no time and no path: equal runs have equal files.

    ``epoch`` counts from the start point's epoch on, ``step`` and ``round`` from this run's start.
    ``lr`` and ``local_steps`` are those of the last step; ``train_loss`` is the clients' mean over
    the steps since the last evaluation, None before the first. ``bytes_sent`` is what one client
    has sent so far: one model per round, two where momentum is averaged. The Hessian's numbers are
    None unless ``sharpness``. ``diverged``: losses or parameters were not finite after ``step``
    steps, for the first time, which ended the run; the accuracies are that model's, losses None.
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


class MetricsFile:
    """Appends evaluations to a file as JSON lines, each on the disk once written."""

    def __init__(self, path: Path, text: str = "") -> None:
        """The file begins with the lines ``text``, whatever it held."""
        self.path = path
        self.text = ""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what a full disk did not take is not tried again at the end.
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
