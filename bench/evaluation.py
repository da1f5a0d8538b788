"""Measure an evaluation of ResNet-56 against forward passes alone, of plain channels-last PyTorch.

The plain way has its images ready, normalised and channels last, and keeps no result. Of its batch
sizes the faster counts. All run in one thread, in seconds of its core, not of the clock.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from bench.input import write_random_images
from bench.measure import Record, Target, measure_interleaved, ratios, spreads
from bench.rounds import benchmark_settings
from trainer.distributed.world import World
from trainer.local_sgd.evaluation import Evaluator
from trainer.run.allocator import keep_freed_memory
from trainer.run.build import initial_model, load_data

MODEL, DATASET, IMAGES = "resnet56", "cifar10", 500
PLAIN_BATCHES = (50, 250)
EVALUATION, PLAIN = "evaluation", "forward passes alone"


def run(repetitions: int) -> Iterator[Record]:
    keep_freed_memory()  # as every run on a CPU does
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_random_images(Path(folder), IMAGES)
            seconds = measure(Path(folder), repetitions)
    finally:
        torch.set_num_threads(before)  # other benchmarks follow in this process
    speeds = {name: [IMAGES / s for s in some] for name, some in seconds.items()}
    best = max((name for name in speeds if name != EVALUATION), key=lambda n: median(speeds[n]))
    yield Record(
        benchmark="evaluation: ResNet-56",
        unit="images/s",
        variants=spreads(speeds),
        figure_is=f"{EVALUATION} ÷ {best}",
        figure=ratios(speeds, EVALUATION, best),
        target=Target(bound=0.9),
        settings={"model": MODEL, "images": IMAGES, "threads": 1},
    )


def measure(folder: Path, repetitions: int) -> dict[str, list[float]]:
    """Measure the seconds in which each variant has seen all images."""
    settings = benchmark_settings(DATASET, folder, model=MODEL, k=1, batch_size=1, local_steps=1)
    world = World(0, 1, torch.device("cpu"))
    _, test = load_data(settings, world.device)
    model, evaluate = initial_model(settings), Evaluator(test, world)
    plain = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    (images, _), *_ = test.in_batches(np.arange(IMAGES), IMAGES)
    images = images.contiguous(memory_format=torch.channels_last)
    variants: dict[str, Callable[[], float]] = {
        EVALUATION: partial(core_seconds, partial(evaluate, model))
    }
    for size in PLAIN_BATCHES:
        variants[f"{PLAIN}, {size} at once"] = partial(
            core_seconds, partial(forward, plain, images.split(size))
        )
    return measure_interleaved(variants, repetitions)


@torch.no_grad()
def forward(model: nn.Module, batches: tuple[Tensor, ...]) -> None:
    for images in batches:
        model(images)


def core_seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start
