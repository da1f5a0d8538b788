"""Test that freed memory is used again, by the page faults that fresh memory costs."""

import ctypes
import subprocess
import sys

import pytest

# Page faults while 8 tensors of 4 MB, 1,024 pages each, are written and freed, 20 times over.
COUNT = """
import resource, torch
from trainer.run.allocator import keep_freed_memory
{call}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    return [torch.ones(2**20) for _ in range(8)]
step()
before = faults()
for _ in range(20):
    step()
print(faults() - before)
"""


def count_faults(call: str) -> int:
    command = [sys.executable, "-c", COUNT.format(call=call)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not the GNU C library")
def test_freed_memory_is_used_again() -> None:
    """Without it, from a tenth to all of the 163,840 pages are touched for the first time."""
    assert count_faults("keep_freed_memory()") < 10_000 < count_faults("")
