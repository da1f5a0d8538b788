"""Processes that save and restore banks of clients, each run by many: for forks, without pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tests.commands import _forks
from trainer.data.specs import DATASETS
from trainer.data.training import Batch
from trainer.distributed.world import World
from trainer.local_sgd.averaging import Averaging, MomentumPolicy
from trainer.local_sgd.clients import ClientBank, Execution, ExecutionPlan
from trainer.local_sgd.optimizer import SGD
from trainer.models.registry import build
from trainer.run.checkpoint import Checkpoints, ClientState
from trainer.tracking.metrics import RunProgress

K, B_LOC, STEPS, SAVED = 4, 3, 8, 5
PROCESSES = (1, 2, 4)
SERIAL, FUSED = ExecutionPlan("serial"), ExecutionPlan("fused", 3)
WAYS = [SERIAL, ExecutionPlan("vectorized", 3)]
OPTIMIZER = SGD(weight_decay=0.01, momentum=0.9, nesterov=True)
CPU = torch.device("cpu")

Node = tuple[ExecutionPlan, int]


def nodes(rounds: Sequence[int]) -> list[Node]:
    """Every way of execution on every number of processes that such rounds can have."""
    ways = [*WAYS, FUSED] if set(rounds) == {1} else WAYS
    return [(way, count) for count in PROCESSES for way in ways]


def data() -> list[tuple[Tensor, Tensor]]:
    """Draw STEPS of noise images (K, B_loc, 1, 8, 8) and labels (K, B_loc), in float64."""
    draw = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(K, B_LOC, 1, 8, 8, generator=draw, dtype=torch.float64),
            torch.randint(10, (K, B_LOC), generator=draw),
        )
        for _ in range(STEPS)
    ]


def lr(step: int) -> float:
    return 0.1 + 0.02 * step


class Trained:
    """The clients of one process of a run with these rounds."""

    def __init__(self, world: World, way: ExecutionPlan, policy: MomentumPolicy) -> None:
        self.world = world
        self.clients = world.own_clients(K)
        model = build("mlp", DATASETS["digits"], seed=5).double()
        execution = Execution(one_step=way, several_steps=way)
        self.bank = ClientBank(model, len(self.clients), OPTIMIZER, execution)
        self.average = Averaging(self.bank, world, policy)

    def train(self, rounds: Sequence[int], start: int, stop: int) -> None:
        ends = np.cumsum(rounds)
        own = slice(self.clients.start, self.clients.stop)
        for step, (images, labels) in list(enumerate(data()))[start:stop]:
            seeds = np.zeros(len(self.clients), np.int64)
            self.bank.step(Batch(images=images[own], labels=labels[own], seeds=seeds), lr(step))
            if step + 1 in ends:
                self.average()

    def state(self, *, averaged: bool) -> ClientState:
        parameters, momentum = self.bank.state(averaged=averaged)
        return ClientState(
            clients=self.clients,
            parameters=parameters,
            momentum=momentum,
            loss_sum=0.0,
            loss_steps=0,
        )

    def flat(self) -> Tensor:
        flat = self.bank.parameters.memory.new_empty(self.bank.parameters.size)
        return self.world.all_sum(self.bank.parameters.mean(flat)) / self.world.size


def go_on(rank: int, folder: Path, rounds: Sequence[int], policy: MomentumPolicy) -> None:
    """Save at step SAVED by every node and go on from there by every node, ``(from, to)``."""
    torch.set_num_threads(1)
    here = nodes(rounds)
    for world, own in _groups(rank, folder / "saving", here):
        for way in own:
            trained = Trained(world, way, policy)
            trained.train(rounds, 0, SAVED)
            state = trained.state(averaged=SAVED in np.cumsum(rounds))
            _checkpoints(folder, world, (way, world.size)).save(SAVED, state, _progress(world))
    ends = {}
    for world, own in _groups(rank, folder / "going on", here):
        for source in here:
            checkpoint = _checkpoints(folder, world, source).newest()
            assert checkpoint is not None and checkpoint.step == SAVED
            for way in own:
                trained = Trained(world, way, policy)
                state = checkpoint.state(trained.clients)
                trained.bank.restore(state.parameters, state.momentum)
                trained.train(rounds, SAVED, STEPS)
                ends[_name(source), _name((way, world.size))] = trained.flat()
    if rank == 0:
        torch.save(ends, folder / "ends.pt")


def save_numbered(rank: int, folder: Path, processes: int, clients: int) -> None:
    """Save a checkpoint from many processes; every client's parameter is the client's number."""
    with _group(rank, processes, folder / "group") as world:
        own = world.own_clients(clients)
        numbers = torch.arange(own.start, own.stop, dtype=torch.float64)[:, None]
        state = ClientState(
            clients=own,
            parameters={"w": numbers},
            momentum={"w": -numbers},
            loss_sum=float(own.start),
            loss_steps=1,
        )
        Checkpoints(folder, world, "numbered").save(1, state, _progress(world))


def in_processes(count: int, work: Callable[..., None], *arguments: object) -> None:
    """``work(rank, *arguments)`` in ``count`` forks."""
    forks = [_forks().Process(target=work, args=(rank, *arguments)) for rank in range(count)]
    for fork in forks:
        fork.start()
    running = set(forks)
    try:
        while running:
            wait([fork.sentinel for fork in running])
            running = {fork for fork in running if fork.is_alive()}
            assert {fork.exitcode for fork in forks} <= {0, None}
    finally:
        for fork in running:
            fork.kill()


def _checkpoints(folder: Path, world: World, source: Node) -> Checkpoints:
    return Checkpoints(folder / _name(source), world, "this run")


def _name(node: Node) -> str:
    way, size = node
    return f"{way}, {size} processes"


def _progress(world: World) -> RunProgress | None:
    return RunProgress() if world.is_main else None


def _groups(
    rank: int, place: Path, here: list[Node]
) -> Iterator[tuple[World, list[ExecutionPlan]]]:
    """Worlds of each number of processes that this one belongs to, the one of all last."""
    for size in PROCESSES:
        if rank < size:
            with _group(rank, size, Path(f"{place} by {size}")) as world:
                yield world, [way for way, count in here if count == size]
                dist.barrier()


@contextmanager
def _group(rank: int, size: int, place: Path) -> Iterator[World]:
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=size)
    try:
        yield World(rank, size, CPU)
    finally:
        dist.destroy_process_group()
