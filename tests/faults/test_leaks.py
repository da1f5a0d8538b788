"""Smaller than ``python -m tests.faults.leaks``, which looks at 500 rounds and 200 runs."""

from __future__ import annotations

import mmap
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.faults import leaks

NOTHING = {"descriptors": 0, "threads": 0, "processes": 0, "shared_memory": 0}
KEPT: list[tuple[int, mmap.mmap]] = []


def test_nothing_piles_up_over_rounds_and_runs(digits: Path, tmp_path: Path) -> None:
    for growth in (
        leaks.over_rounds(digits, tmp_path / "long", 100),
        leaks.over_runs(digits, tmp_path, 20),
    ):
        assert growth.more == NOTHING
        assert growth.memory < 1


def test_shared_memory_is_what_this_process_and_its_children_hold() -> None:
    before = leaks.Count.now().shared_memory

    def held() -> int:
        return leaks.Count.now().shared_memory - before

    path = Path("/dev/shm", f"leaks-{os.getpid()}")  # noqa: S108
    path.write_bytes(b"1")
    try:
        assert held() == 0  # another program's looks so
        with path.open() as file:
            assert held() == 1
            child = subprocess.Popen(["sleep", "60"], stdin=file)
        assert held() == 1
        child.kill()
        child.wait()
        assert held() == 0
        mapped = torch.from_file(str(path), shared=True, size=1, dtype=torch.uint8)
        assert held() == 1
        del mapped
        assert held() == 0
    finally:
        path.unlink()


def test_what_piles_up_is_found(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.tracking.recorder import Recorder

    close = Recorder.close

    def leaky(self: Recorder) -> None:
        close(self)
        fresh = mmap.mmap(-1, 5_000_000)  # what malloc gives may be memory that was freed before
        fresh.write(b"1" * 5_000_000)
        KEPT.append((os.open("/dev/null", os.O_RDONLY), fresh))

    monkeypatch.setattr(Recorder, "close", leaky)
    growth = leaks.over_runs(digits, tmp_path, 20)
    for descriptor, _ in KEPT:
        os.close(descriptor)
    KEPT.clear()
    assert growth.more["descriptors"] == 9
    assert growth.memory > 3
