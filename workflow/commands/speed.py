"""Measure how fast this machine trains, evaluates and measures sharpness, on random images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from statistics import quantiles

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.data.images import AnyRequest, Fetch
from trainer.data.memory import MemoryImages, Samples
from trainer.data.specs import DatasetSpec
from trainer.distributed.world import World
from trainer.local_sgd.sharpness import hessian_product
from trainer.run.build import make_data
from trainer.run.training_run import TrainingRun
from trainer.settings.run import RunSettings
from trainer.settings.schedule import PHASE_OPTIONS, PhaseSettings
from workflow.commands.work import Work, data_sizes, model_cost
from workflow.experiments import DEFAULT

WORLD = World(0, 1, torch.device("cpu"))
SECONDS, REPETITIONS = 0.04, 8  # of a measurement
LONGEST = 0.15  # seconds of a call: what takes longer is measured once
# Of what is measured at once, a fraction of a second: of a larger batch, a part is measured.
MOST_OPERATIONS = 5e9
STORED_BYTES = 2**25  # of random images, which repeat
LONG = 10**6  # epochs: no measurement reaches the end of a phase
# Settings that the time of a step does not depend on, or that ``kind_of`` replaces
REPLACED = (
    *PHASE_OPTIONS, "schedule", "h_rule", "h_base", "alpha", "seed", "resume", "resume_sha256",
    "eval_on_start", "lr", "start_lr", "max_lr", "warm_up", "warmup_epochs", "lr_schedule",
    "sharpness", "sharpness_probes", "train_subset", "evaluate_on",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Hold what the speed of one process of a run depends on.

    ``settings``: with this process's clients, and a phase each for H = 1 and H > 1, if the run has
    both. ``evaluated_on``, ``batches``: this process's share of an evaluation's samples, and of a
    BatchNorm re-estimation's batches.
    """

    settings: RunSettings
    trained_on: int
    evaluated_on: int
    batches: int
    threads: int


def kind_of(settings: RunSettings, work: Work, processes: int, threads: int) -> Kind:
    """Reduce a run, of ``processes`` processes with ``threads`` threads each, to its kind."""
    single = PhaseSettings(epochs=LONG, local_steps=1)
    several = PhaseSettings(epochs=LONG, local_steps=1 + LONG * work.steps_per_epoch)
    changes = {name: getattr(DEFAULT, name) for name in REPLACED} | {
        "total_batch_size": settings.total_batch_size // processes,
        "steps_per_epoch": work.steps_per_epoch,
        "schedule": (single,) * (work.single_steps > 0) + (several,) * (work.local_steps > 0),
        "start_lr": 1e-12,  # random labels teach nothing, but could make the Hessian infinite
    }
    trained_on, evaluated_on = data_sizes(settings)
    return Kind(
        settings.model_copy(update=changes),
        trained_on,
        ceil(evaluated_on / processes),
        ceil(settings.bn_batches / processes),
        threads,
    )


def measure(kind: Kind, names: frozenset[str]) -> dict[str, float]:
    """Measure some of a kind's speeds, by the names of the methods of ``Speed``."""
    before = torch.get_num_threads()
    torch.set_num_threads(kind.threads)
    try:
        speed = Speed(kind)
        return {name: getattr(speed, name)() for name in sorted(names)}
    finally:
        torch.set_num_threads(before)


class Speed:
    """Measure a kind of run in seconds.

    Where a batch is too large, a part is measured, and time assumed proportional to samples.
    """

    def __init__(self, kind: Kind) -> None:
        self._threads = kind.threads
        s = kind.settings
        most = int(MOST_OPERATIONS / model_cost(s.model, s.data, s.n_groups)[0])
        # BatchNorm needs two samples, averaging two clients.
        size = min(s.batch_size, max(2, most))
        clients = min(s.num_clients, max(2, most // size))
        forward = max(1, 3 * most)  # two thirds of training are the backward pass
        batches = min(kind.batches, max(1, forward // size))
        evaluated = min(kind.evaluated_on, forward)
        curved = min(s.sharpness_samples, kind.trained_on, max(1, most))
        self._clients = s.num_clients / clients
        self._batch = s.batch_size / size
        self._batches = kind.batches / batches if batches else 1.0
        self._evaluated = kind.evaluated_on / evaluated
        self._curved = s.sharpness_samples / curved
        part = s.model_copy(
            update={
                "batch_size": size,
                "total_batch_size": size * clients,
                "bn_batches": batches,
                "sharpness_samples": curved,
            }
        )
        train, test = _random_images(s.data, kind.trained_on), _random_images(s.data, evaluated)
        self._run = TrainingRun(part, WORLD, make_data(part, train, test, WORLD.device))

    def single_step(self) -> float:
        """Measure a step of all clients with H = 1, and the averaging after it."""
        return self._step(0)

    def local_step(self) -> float:
        """Measure a step of all clients with H > 1."""
        return self._step(-1)

    def averaging(self) -> float:
        """Measure the averaging after a round with H > 1."""
        start = self._run.schedule.phases[-1].start
        self._run.clients.begin(next(self._run.schedule.rounds(start)))
        return self._clients * self._seconds(self._run.average)

    def export(self) -> float:
        """Measure the copy of the averaged model, with BatchNorm re-estimated."""
        round = self._run.schedule.initial_round()
        return self._batches * self._batch * self._seconds(lambda: self._run.export(round))

    def evaluation(self) -> float:
        """Measure the evaluation of the averaged model."""
        return self._evaluated * self._seconds(lambda: self._run.evaluate(self._run.model))

    def gradient(self) -> float:
        """Measure the gradient that products of the Hessian and a vector begin from."""
        return self._curved * self._seconds(self._make_product)

    def product(self) -> float:
        """Measure a product of the Hessian and a vector."""
        product, size = self._make_product()
        vector = np.ones(size)
        return self._curved * self._seconds(lambda: product(vector))

    def _step(self, phase: int) -> float:
        self._run.done = self._run.schedule.phases[phase].start
        steps = self._run.steps()
        add = self._run.loss.add
        return self._clients * self._batch * self._seconds(lambda: add(next(steps).losses))

    def _make_product(self) -> tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], int]:
        samples = np.arange(self._run.settings.sharpness_samples)
        return hessian_product(self._run.model, self._run.training, samples)

    def _seconds(self, function: Callable[[], object]) -> float:
        """Return the time of a call of ``function``, after one that warms up.

        It is the lower quartile, and a single thread's own time, since other work only adds to it.
        """
        clock = time.process_time if self._threads == 1 else time.perf_counter
        function()
        once = _timed(function, 1, clock)
        if once > LONGEST:
            return once
        calls = ceil(SECONDS / max(once, 1e-6))
        return quantiles((_timed(function, calls, clock) for _ in range(REPETITIONS)), n=4)[0]


class _WholeImages(MemoryImages):
    """Serve whole images for crops of image files, which nothing here decodes or resizes."""

    def fetch(self, requests: Iterator[AnyRequest]) -> Iterator[tuple[AnyRequest, Fetch]]:
        return super().fetch(replace(request, crops=None) for request in requests)


def _random_images(spec: DatasetSpec, count: int) -> MemoryImages:
    draw = np.random.default_rng(0)
    size = int(np.prod(spec.shape))
    stored = min(count, max(1, STORED_BYTES // size))
    samples = Samples(
        content=draw.integers(256, size=stored * size, dtype=np.uint8),
        starts=np.arange(count) % stored * size,
        shape=spec.shape,
        labels=draw.integers(spec.num_classes, size=count),
    )
    return (_WholeImages if spec.of_files else MemoryImages)(samples, WORLD.device)


def _timed(function: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    begin = clock()
    for _ in range(calls):
        function()
    return (clock() - begin) / calls
