"""What a run leaves behind: metrics.jsonl (the truth), settings, provenance, progress."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from trainer.files.atomic import writing
from trainer.tracking.revision import revision

PROGRESS_SECONDS = 10.0
# In log_pth, while the run is in progress
PARTIAL = "metrics.partial.jsonl"
STATE = "state"  # checkpoints, ``trainer.run.checkpoint``


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


class Progress:
    """Says on stderr how far the run is and how long it will take: a bar, or a line at times."""

    def __init__(self, total: int, done: int = 0) -> None:
        self._total = total
        self._done = done
        self._start = time.monotonic()
        self._next = self._start + PROGRESS_SECONDS
        self._bar = tqdm(total=total, initial=done, unit="step") if sys.stderr.isatty() else None
        self._accuracy = ""

    def evaluated(self, evaluation: Evaluation) -> None:
        self._accuracy = f"test accuracy {evaluation.test_accuracy:.4f}"
        if self._bar is not None:
            self._bar.set_postfix_str(self._accuracy)

    def stepped(self, step: int) -> None:
        """``step`` steps are done."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        elif time.monotonic() >= self._next or step == self._total:
            self._next = time.monotonic() + PROGRESS_SECONDS
            elapsed = time.monotonic() - self._start
            meter = tqdm.format_meter(
                step,
                self._total,
                elapsed,
                unit="step",
                postfix=self._accuracy,
                ncols=100,
                initial=self._done,
            )
            print(meter, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def provenance(
    seconds: float, starts: int, world_size: int, device: str, execution: str
) -> dict[str, object]:
    """Where and with what a run was made; kept apart from the metrics and from rule parameters.

    ``starts``: in so many, of which this was the last.
    """
    code = revision()
    packages = ("torch", "torchvision", "numpy", "scipy", "ffcv", "snakemake", "wandb")
    return {
        "seconds": round(seconds, 3),
        "starts": starts,
        "processes": world_size,
        "device": device,
        "execution": execution,
        "command": sys.argv,
        "version": code.version,
        "git_commit": code.commit,
        "git_dirty": code.dirty,
        "versions": {"python": platform.python_version(), **_versions(packages)},
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
    }


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # a conda env per rule holds only what the rule needs
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
