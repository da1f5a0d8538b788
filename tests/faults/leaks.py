"""Nothing piles up: descriptors, threads, processes and memory of long and of many runs.

``python -m tests.faults.leaks`` looks at one run of 500 rounds and at 200 short ones in a row, in
one process; other numbers by argument.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from tests.faults.kills import prepared
from trainer.distributed.world import World
from trainer.local_sgd.schedule import Round
from trainer.run.preemption import CheckpointPolicy, Decision
from trainer.run.session import train
from trainer.settings.run import RunSettings

WORLD = World(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class Count:
    """Of this process; ``memory`` in MB, resident."""

    descriptors: int
    threads: int
    processes: int
    shared_memory: int
    memory: float

    @classmethod
    def now(cls) -> Count:
        process = psutil.Process()
        children = process.children(recursive=True)
        return cls(
            process.num_fds(),
            process.num_threads(),
            len(children),
            len(shared_memory([process, *children])),
            process.memory_info().rss / 1e6,
        )


def shared_memory(processes: list[psutil.Process]) -> set[str]:
    """List what they have open or mapped in /dev/shm; other programs have theirs there, too."""
    paths = set()
    for process in processes:
        folder = Path("/proc", str(process.pid))
        with contextlib.suppress(OSError):  # it has ended
            for line in (folder / "maps").read_text().splitlines():
                paths.add(line.split(maxsplit=5)[-1])
            for link in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    paths.add(str(link.readlink()))
    return {path for path in paths if path.startswith("/dev/shm/")}  # noqa: S108


@dataclass
class Growth:
    """``counts`` at equal distances; what is allocated once is so before the first half ends."""

    counts: list[Count]

    @property
    def more(self) -> dict[str, int]:
        """How much more there is at the end than in the middle, of what can be counted."""
        middle, end = self.counts[len(self.counts) // 2], self.counts[-1]
        names = ("descriptors", "threads", "processes", "shared_memory")
        return {name: getattr(end, name) - getattr(middle, name) for name in names}

    @property
    def memory(self) -> float:
        """MB from one count to the next, by least squares over the second half."""
        half = [count.memory for count in self.counts[len(self.counts) // 2 :]]
        return float(np.polyfit(range(len(half)), half, 1)[0])


def settings(data: Path, folder: Path, **changes: object) -> RunSettings:
    values: dict[str, object] = {
        "data_pth": data, "log_pth": folder, "batch_size": 8, "total_batch_size": 32,
        "train_subset": 160, "model": "cnn_bn", "bn_batches": 2, "step1": 2, "epochs": 2,
        "start_lr": 0.002, "checkpoint_every": 0, "device": "cpu",
    }  # fmt: skip
    return RunSettings.model_validate(values | changes)


def over_rounds(data: Path, folder: Path, rounds: int) -> Growth:
    """Of one run with a checkpoint and an evaluation in every round."""
    counts: list[Count] = []
    decide = CheckpointPolicy.decide

    def counted(self: CheckpointPolicy, step: int, round: Round) -> Decision | None:
        if step == round.stop and round.index % max(1, rounds // 20) == 0:
            counts.append(Count.now())
        return decide(self, step, round)

    CheckpointPolicy.decide = counted  # type: ignore[method-assign]
    try:
        train(settings(data, folder, epochs=-(-2 * rounds // 5)), WORLD)
    finally:
        CheckpointPolicy.decide = decide  # type: ignore[method-assign]
    return Growth(counts)


def over_runs(data: Path, folder: Path, runs: int) -> Growth:
    counts = []
    for run in range(runs):
        train(settings(data, folder / "run", seed=run, checkpoint_every=10), WORLD)
        if run % max(1, runs // 20) == 0:
            counts.append(Count.now())
    return Growth(counts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--runs", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        folder = Path(name)
        data = prepared(folder / "digits")
        for what, growth in (
            (f"{arguments.rounds} rounds", over_rounds(data, folder / "long", arguments.rounds)),
            (f"{arguments.runs} runs", over_runs(data, folder, arguments.runs)),
        ):
            print(f"{what}: {growth.counts[0]}\n  … {growth.counts[-1]}")
            print(f"  second half: {growth.more}, {growth.memory:+.3f} MB per twentieth")
    return 0


if __name__ == "__main__":
    sys.exit(main())
