"""Check the mean over processes, bit by bit."""

from pathlib import Path

import torch

from tests.going_on import group, in_processes
from trainer.distributed.world import LONG_BYTES


def test_a_mean_has_the_bits_of_a_sum_that_is_divided(tmp_path: Path) -> None:
    for processes in (1, 2, 3):
        in_processes(processes, compare_means, processes, tmp_path / str(processes))


def compare_means(rank: int, processes: int, place: Path) -> None:
    """Compare with one sum of the whole; with two addends, their order does not matter."""
    with group(rank, processes, place) as world:
        for length in (3, LONG_BYTES // 4 + 1, LONG_BYTES // 4 + 1_000_006):
            draws = [torch.Generator().manual_seed(i) for i in range(processes)]
            numbers = [torch.randn(length, generator=draw) for draw in draws]
            mean = numbers[rank].clone()
            assert world.all_mean(mean, torch.empty(length)) is mean
            assert torch.equal(mean, world.all_sum(numbers[rank].clone()) / processes)
            if processes < 3:
                assert torch.equal(mean, sum(numbers[1:], numbers[0]) / processes)
