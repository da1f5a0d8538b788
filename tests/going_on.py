"""Processes that save and restore banks of clients, each run by many: for forks, without pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

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
from trainer.local_sgd.optimizer import SGD, AdamW
from trainer.local_sgd.outer import Outer
from trainer.local_sgd.schedule import Round, WeightAveraging
from trainer.local_sgd.weight_averaging import WeightAverage
from trainer.models.registry import build
from trainer.run.checkpoint import Checkpoints, ClientState
from trainer.tracking.metrics import RunProgress

K, B_LOC, STEPS, SAVED = 4, 3, 8, 5
EMA_DECAY = 0.8
PROCESSES = (1, 2, 4)
SERIAL, FUSED = ExecutionPlan("serial"), ExecutionPlan("fused", 3)
WAYS = [SERIAL, ExecutionPlan("vectorized", 3)]
OPTIMIZER = SGD(weight_decay=0.01, momentum=0.9, nesterov=True)
PLAIN = Outer()
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


@dataclass(frozen=True, kw_only=True)
class Method:
    """How clients step, what averaging does, and what is evaluated."""

    optimizer: SGD | AdamW = OPTIMIZER
    policy: MomentumPolicy = "keep"
    outer: Outer = PLAIN
    weight_averaging: WeightAveraging = "none"

    def lr(self, step: int) -> float:
        return (0.1 + 0.02 * step) * (1 if isinstance(self.optimizer, SGD) else 0.02)


def by_torch(optimizer: SGD | AdamW) -> dict[str, Any]:
    """Return the reference's arguments for ``optimizer``."""
    if isinstance(optimizer, SGD):
        return {"momentum": optimizer.momentum, "nesterov": optimizer.nesterov}
    return {"adamw": {"betas": (optimizer.beta1, optimizer.beta2), "eps": optimizer.eps}}


class Trained:
    """The clients of one process of a run with these rounds."""

    def __init__(self, world: World, way: ExecutionPlan, method: Method) -> None:
        self.world = world
        self.lr = method.lr
        self.clients = world.own_clients(K)
        model = build("mlp", DATASETS["digits"], seed=5).double()
        execution = Execution(one_step=way, several_steps=way)
        self.bank = ClientBank(model, len(self.clients), method.optimizer, execution)
        self.average = Averaging(self.bank, world, method.policy, method.outer)
        self.mean = WeightAverage(self.bank, self.average, EMA_DECAY)
        self.kind = method.weight_averaging

    def train(self, rounds: Sequence[int], start: int, stop: int) -> None:
        ends = np.cumsum(rounds)
        own = slice(self.clients.start, self.clients.stop)
        for step, (images, labels) in list(enumerate(data()))[start:stop]:
            seeds = np.zeros(len(self.clients), np.int64)
            batch = Batch(images=images[own], labels=labels[own], seeds=seeds)
            self.bank.step(batch, self.lr(step))
            if step + 1 in ends:
                self.average(self.lr(step))
                self.mean.update(self.round_until(step + 1))

    def round_until(self, stop: int) -> Round:
        return Round(
            index=1,
            phase=0,
            start=0,
            stop=stop,
            local_steps=1,
            evaluate=False,
            decay=stop == STEPS,
            weight_averaging=self.kind,
        )

    def state(self, *, averaged: bool) -> ClientState:
        parameters, momentum = self.bank.state(averaged=averaged)
        return ClientState(
            clients=self.clients,
            parameters=parameters,
            momentum=momentum,
            updates=self.bank.updates,
            outer=self.average.outer.state if self.average.outer else {},
            mean=self.mean.state,
            loss_sum=0.0,
            loss_steps=0,
        )

    def flat(self) -> Tensor:
        flat = self.bank.parameters.memory.new_empty(self.bank.parameters.size)
        return self.world.all_sum(self.bank.parameters.mean(flat)) / self.world.size


def go_on(rank: int, folder: Path, rounds: Sequence[int], method: Method) -> None:
    """Save at step SAVED by every node and go on from there by every node, ``(from, to)``."""
    torch.set_num_threads(1)
    here = nodes(rounds)
    for world, own in _groups(rank, folder / "saving", here):
        for way in own:
            trained = Trained(world, way, method)
            trained.train(rounds, 0, SAVED)
            state = trained.state(averaged=SAVED in np.cumsum(rounds))
            _checkpoints(folder, world, (way, world.size)).save(SAVED, state, _progress(world))
    ends = {}
    for world, own in _groups(rank, folder / "going on", here):
        for source in here:
            checkpoint = _checkpoints(folder, world, source).newest()
            assert checkpoint is not None and checkpoint.step == SAVED
            for way in own:
                trained = Trained(world, way, method)
                state = checkpoint.state(trained.clients)
                trained.bank.restore(state.parameters, state.momentum, state.updates)
                if trained.average.outer:
                    trained.average.outer.restore(state.outer)
                trained.mean.restore(state.mean)
                trained.train(rounds, SAVED, STEPS)
                assert trained.average.processes_agree(*trained.mean.state.values())
                ends[_name(source), _name((way, world.size))] = trained.flat()
    if rank == 0:
        torch.save(ends, folder / "ends.pt")


def save_numbered(rank: int, folder: Path, processes: int, clients: int) -> None:
    """Save a checkpoint from many processes; every client's parameter is the client's number."""
    with group(rank, processes, folder / "group") as world:
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
            with group(rank, size, Path(f"{place} by {size}")) as world:
                yield world, [way for way, count in here if count == size]
                dist.barrier()


@contextmanager
def group(rank: int, size: int, place: Path) -> Iterator[World]:
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=size)
    try:
        yield World(rank, size, CPU)
    finally:
        dist.destroy_process_group()
