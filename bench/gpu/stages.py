"""Run the stages of `make gpu` within its time, and leave what each found in one folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from trainer.files.atomic import write_json

State = Literal["done", "stopped", "failed", "left out"]

SAVE_SECONDS = 20.0  # what a stage that is stopped may take to save what it has


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Say how a stage ended, what failed in it and what it left out, each with the reason.

    A stage that is ``stopped`` resumes in the next call; one that is ``done`` is not run again.
    """

    state: State
    summary: str
    failed: Sequence[str] = ()
    left_out: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Site:
    """Hold where results, state and inputs lie, and until when the call may work.

    ``out`` can be committed; ``state`` holds what the next call resumes from.
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
        """Run ``python WORDS``, its output in ``log``; return its status, None if time was up.

        The command and all that it starts are a process group of their own, which this ends with
        the call: no test that is left behind holds the GPU when the next stage is timed.
        """
        with (self.out / log).open("w", encoding="utf-8") as file:
            command = subprocess.Popen(
                [sys.executable, *map(str, words)],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                process_group=0,
            )  # fmt: skip
            try:
                return command.wait(max(1.0, seconds))
            except subprocess.TimeoutExpired:
                return None
            finally:
                _end_group(command)


def _end_group(command: subprocess.Popen[bytes]) -> None:
    """End ``command``, which may save before, and whatever it has started and left."""
    try:
        if command.poll() is None:
            os.killpg(command.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                command.wait(SAVE_SECONDS)
    finally:  # at once if Ctrl-C is pressed again
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.wait()


def read_outcome(site: Site, name: str) -> Outcome | None:
    """Return how the stage ended in an earlier call; None if it did not, or cannot be read."""
    try:
        return Outcome(**json.loads((site.out / f"{name}.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_outcome(site: Site, name: str, outcome: Outcome) -> None:
    write_json(site.out / f"{name}.json", asdict(outcome))
