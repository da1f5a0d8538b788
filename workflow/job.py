"""Place the files of runs and start points, and tell whether they are finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workflow.earlier import METRICS, earlier
from workflow.experiments import RunSpec

Role = Literal["start_points", "runs"]


@dataclass(frozen=True)
class Job:
    """Place a run, a start point or a figure's run, below results/<scale>."""

    run: RunSpec
    role: Role
    results: Path

    @property
    def folder(self) -> Path:
        """Locate the run's files once it is finished."""
        return self.results / self.role / self.run.id

    @property
    def progress(self) -> Path:
        return self.results / "checkpoints" / self.run.id

    @property
    def log(self) -> Path:
        return self.results / "logs" / f"{self.run.id}.log"

    @property
    def finished(self) -> bool:
        return (self.folder / METRICS).exists()

    @property
    def kept(self) -> bool:
        """Tell whether the results of a finished run are kept while it is repeated."""
        return not self.finished and earlier(self.folder).exists()
