"""Check means over processes, bit by bit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.going_on import group, in_processes
from tests.local_sgd.test_clients import SERIAL, always
from trainer.data.specs import DATASETS
from trainer.distributed import world as world_module
from trainer.distributed.world import LONG_BYTES, World
from trainer.local_sgd.averaging import Averaging
from trainer.local_sgd.clients import ClientBank
from trainer.local_sgd.optimizer import SGD
from trainer.local_sgd.outer import Outer
from trainer.models.registry import build

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


@pytest.mark.parametrize("outer", [Outer(), Outer(lr=0.7, momentum=0.9)], ids=["plain", "outer"])
@pytest.mark.parametrize("clients", [1, 3], ids="{} per process".format)
def test_two_processes_average_clients_alike_by_pieces_and_by_an_all_reduce(
    clients: int, outer: Outer, tmp_path: Path
) -> None:
    in_processes(2, save_averages, clients, outer, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for by_pieces, by_all_reduce in found:
        assert torch.equal(by_pieces, by_all_reduce)
        parameters, momentum = by_pieces
        assert torch.equal(parameters, found[0][0][0][:1].expand_as(parameters))
        assert momentum.any()
    assert torch.equal(found[0][0], found[1][0])


def save_averages(rank: int, clients: int, outer: Outer, folder: Path) -> None:
    """Save all clients' parameters and momentum after two averagings by either way."""
    with group(rank, 2, folder / "place") as world:
        ways = []
        for world_module.LONG_BYTES in (0, LONG_BYTES):
            ways.append(averaged_twice(world, clients, outer))
        torch.save(ways, folder / f"{rank}.pt")


def averaged_twice(world: World, clients: int, outer: Outer) -> Tensor:
    """Return parameters and momentum (2, clients, P) of a bank that moved between averagings."""
    model = build("mlp", DATASETS["digits"], seed=5)
    bank = ClientBank(model, clients, SGD(momentum=0.9), always(SERIAL))
    average = Averaging(bank, world, momentum="average", outer=outer)
    for number in range(2):
        for memory in (bank.parameters.memory, bank.momentum.memory):
            memory += drawn(10 * number + world.rank, memory.numel()).view_as(memory)
        average()
    both = [replicas.all().values() for replicas in (bank.parameters, bank.momentum)]
    return torch.stack([torch.cat([t.flatten(1) for t in tensors], 1) for tensors in both])


def drawn(rank: int, length: int) -> Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(rank))
