"""Test that freed memory is kept for the next step."""

import ctypes
import subprocess
import sys

import pytest

# Pages that the process holds more after a first tensor of 20 MiB, 5,120 pages, came and went.
KEPT = """
import torch
from trainer.run.allocator import keep_freed_memory
{call}
def held():
    return int(open("/proc/self/statm").read().split()[1])
before = held()
torch.ones(5 * 2**20)
print(held() - before)
"""


def pages_kept(call: str) -> int:
    command = [sys.executable, "-c", KEPT.format(call=call)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not the GNU C library")
def test_freed_memory_is_kept() -> None:
    assert pages_kept("keep_freed_memory()") > 5_000 > 1_000 > pages_kept("")
