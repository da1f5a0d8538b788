"""Measure images per second of augmented input, and its share of a training step.

The images are random, of CIFAR-10's shape, written by the trainer's own .beton writer; each variant
uses one thread. PyTorch's `DataLoader` and FFCV's `Loader` give batches of one client (FFCV was no
faster with one batch for all).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bench.measure import Record, Target, measure_interleaved, ratios, spreads
from bench.plain import Transformed
from trainer.data.beton.writer import write_betons
from trainer.data.preparation.prepared import read_prepared
from trainer.data.specs import DATASETS, DatasetSpec
from trainer.distributed.world import World
from trainer.run.build import load_data, make_sampler
from trainer.run.training_run import TrainingRun
from trainer.settings.run import RunSettings

CIFAR10 = DATASETS["cifar10"]
CPU = torch.device("cpu")
CLIENTS, BATCH_SIZE, STEPS = 8, 128, 10
TOTAL = CLIENTS * BATCH_SIZE
EPOCHS = 3  # per measurement of a loader; torchvision, which is slow, takes one


def run(repetitions: int) -> Iterator[Record]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from measure_input(repetitions)
    finally:
        torch.set_num_threads(before)  # other benchmarks follow in this process


def measure_input(repetitions: int) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as folder:
        settings = RunSettings(
            dataset="cifar10",
            data_pth=write_random_images(Path(folder)),
            model="resnet56",
            batch_size=BATCH_SIZE,
            total_batch_size=TOTAL,
            clients="serial",
            log_pth=Path(folder),
        )
        yield from measure_throughput(settings, repetitions)
        yield measure_share_of_step(settings, repetitions)


def write_random_images(folder: Path, test: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for split, n in (("train", TOTAL * STEPS), ("test", test)):
        np.savez(
            folder / f"{split}.npz",
            images=draw.integers(0, 256, (n, 32, 32, 3), np.uint8),
            labels=draw.integers(0, 10, n),
            classes=list(CIFAR10.classes),
        )
    threads = torch.get_num_threads()
    write_betons(folder)
    torch.set_num_threads(threads)  # importing ffcv sets them to 1
    return folder


def measure_throughput(settings: RunSettings, repetitions: int) -> Iterator[Record]:
    training, _ = load_data(settings, CPU)
    sampler = make_sampler(settings, len(training))
    batches = training.batches(sampler, range(CLIENTS), 0, 0)
    arrays, _ = read_prepared(settings.data_pth / "train.npz")
    plain = DataLoader(Transformed(CIFAR10, arrays), BATCH_SIZE, shuffle=True)
    ffcv = cropped_by_ffcv(settings.data_pth / "train.beton")
    variants: dict[str, Callable[[], float]] = {
        "trainer": lambda: images_per_second(
            batch.images.flatten(0, 1) for batch in islice(batches, EPOCHS * STEPS)
        ),
        "torchvision": lambda: images_per_second(images for images, _ in plain),
        "FFCV": lambda: images_per_second(images for _ in range(EPOCHS) for images, _ in ffcv),
    }
    values = measure_interleaved(variants, repetitions)
    about = {"images": len(training), "K": CLIENTS, "batch": BATCH_SIZE, "threads": 1}
    for other, bound in (("torchvision", 10.0), ("FFCV", 1.0)):
        yield Record(
            benchmark=f"input: crop, flip and normalisation, against {other}",
            unit="images/s",
            variants={name: s for name, s in spreads(values).items() if name in ("trainer", other)},
            figure_is=f"trainer ÷ {other}",
            figure=ratios(values, "trainer", other),
            target=Target(bound=bound),
            settings=about,
        )


def measure_share_of_step(settings: RunSettings, repetitions: int) -> Record:
    training_run = TrainingRun(settings, World(0, 1, CPU))
    batches = training_run.batches()

    def step() -> None:
        training_run.clients.step(next(batches), 0.1)

    values = measure_interleaved(
        {
            "input alone": lambda: time_action(lambda: next(batches)),
            "step with its input": lambda: time_action(step),
        },
        repetitions,
    )
    return Record(
        benchmark="input: share of a training step",
        unit="s",
        variants=spreads(values),
        figure_is="input ÷ step",
        figure=ratios(values, "input alone", "step with its input"),
        target=Target(bound=0.02, at_most=True),
        settings={"model": settings.model, "K": CLIENTS, "batch": BATCH_SIZE, "threads": 1},
    )


def cropped_by_ffcv(beton: Path) -> Iterable[Any]:
    from ffcv.fields.decoders import SimpleRGBImageDecoder
    from ffcv.transforms import RandomHorizontalFlip, RandomTranslate

    operations = [
        SimpleRGBImageDecoder(),
        RandomHorizontalFlip(),
        RandomTranslate(padding=CIFAR10.padding),
    ]
    return ffcv_loader(beton, BATCH_SIZE, CIFAR10, operations)


def ffcv_loader(
    beton: Path, batch_size: int, spec: DatasetSpec, operations: list[Any]
) -> Iterable[Any]:
    """Build FFCV's loader: ``operations``, then its normalisation, in its own random order."""
    from ffcv.fields.decoders import IntDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, ToTensor, ToTorchImage

    mean, std = (255 * np.array(values) for values in (spec.mean, spec.std))
    normalised = NormalizeImage(mean, std, np.float32)  # converts as well
    loader: Iterable[Any] = Loader(
        str(beton),
        batch_size=batch_size,
        num_workers=1,
        os_cache=True,
        order=OrderOption.RANDOM,
        drop_last=True,
        pipelines={
            "image": [*operations, normalised, ToTensor(), ToTorchImage()],
            "label": [IntDecoder(), ToTensor()],
        },
    )
    return loader


def images_per_second(batches: Iterable[Tensor], side: int = 32) -> float:
    start, count = time.perf_counter(), 0
    for images in batches:
        assert images.shape[1:] == (3, side, side) and images.dtype == torch.float32
        count += len(images)
    return count / (time.perf_counter() - start)


def time_action(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
