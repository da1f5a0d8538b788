"""Run the stages of `make gpu` within its time, and leave what each found in one folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.files.atomic import write_json

State = Literal["done", "stopped", "failed", "left out"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Say how a stage ended, and what it did not do, each with the reason.

    A stage that is ``stopped`` goes on in the next call; one that is ``done`` is not run again.
    """

    state: State
    summary: str
    left_out: Sequence[str] = ()
    found: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Site:
    """Hold where results, state and inputs lie, and until when the call may work.

    ``out`` can be committed; ``state`` holds what the next call goes on from.
    """

    out: Path
    state: Path
    data: Path
    checkpoints: Path
    dry_run: bool
    end: float

    def seconds_left(self) -> float:
        return self.end - time.monotonic()

    def run(self, words: Sequence[object], log: str, seconds: float) -> int | None:
        """Run ``python WORDS``, its output in ``log``; return its status, None if time was up."""
        with (self.out / log).open("w", encoding="utf-8") as file:
            try:
                return subprocess.run(
                    [sys.executable, *map(str, words)],
                    stdout=file, stderr=subprocess.STDOUT, timeout=max(1.0, seconds),
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                return None


def read_outcome(site: Site, name: str) -> Outcome | None:
    """Return how the stage ended in an earlier call; None if it did not, or cannot be read."""
    try:
        return Outcome(**json.loads((site.out / f"{name}.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_outcome(site: Site, name: str, outcome: Outcome) -> None:
    write_json(site.out / f"{name}.json", asdict(outcome))
