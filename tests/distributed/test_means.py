"""Check the mean over processes, bit by bit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.going_on import group, in_processes
from trainer.distributed.world import LONG_BYTES

LENGTHS = (3, LONG_BYTES // 4 + 1, LONG_BYTES // 4 + 1_000_006)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_mean_has_the_bits_of_a_sum_that_is_divided(processes: int, tmp_path: Path) -> None:
    in_processes(processes, save_means, processes, tmp_path)
    for length in LENGTHS:
        files = [tmp_path / f"{rank}-{length}.pt" for rank in range(processes)]
        found = [torch.load(file, weights_only=True) for file in files]
        for mean, total in found:
            assert torch.equal(mean, found[0][0])
            assert torch.equal(mean, total / processes)
        if processes < 3:  # the order of two addends does not matter
            draws = [drawn(rank, length) for rank in range(processes)]
            assert torch.equal(found[0][0], sum(draws[1:], draws[0]) / processes)


def save_means(rank: int, processes: int, folder: Path) -> None:
    """Save this process's mean and, apart from it, its all-reduced sum."""
    with group(rank, processes, folder / "place") as world:
        for length in LENGTHS:
            mean = world.all_mean(drawn(rank, length), torch.empty(length))
            total = world.all_sum(drawn(rank, length))
            torch.save((mean, total), folder / f"{rank}-{length}.pt")


def drawn(rank: int, length: int) -> Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(rank))
