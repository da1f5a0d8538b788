"""Measure images per second over K at fixed B, over processes, and over the model's size.

The reference gets batches made beforehand; the trainer makes its own.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bench.digits import prepare_digits
from bench.input import write_random_images
from bench.measure import Record, Spread, Target, measure_interleaved, ratios, spreads
from bench.plain import Transformed, plain_seconds, plain_steps
from bench.rounds import Rounds, benchmark_settings
from bench.scaling_plot import ONE_STEP, REFERENCE, SERIAL, TRAINER, Curve, draw
from bench.under_torchrun import slowest, under_torchrun
from trainer.data.preparation.prepared import read_prepared
from trainer.data.specs import DATASETS
from trainer.distributed.world import World
from trainer.models.registry import build

SECONDS = 0.3  # approximate length of one measurement


@dataclass(frozen=True, kw_only=True)
class Point:
    """Describe one configuration and the ``variants`` measured of it."""

    model: str
    dataset: str
    clients: int
    batch_size: int
    local_steps: int
    processes: int = 1
    variants: tuple[str, ...] = (REFERENCE, TRAINER)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Describe panels of points; ``x`` maps a point to its abscissa. ``joined``: by lines.

    ``bound``: the least that trainer ÷ reference must be at every point.
    """

    name: str
    xlabel: str
    panels: Mapping[str, Sequence[Point]]
    x: Callable[[Point], float]
    joined: bool = True
    bound: float | None = None


LOCAL_STEPS = {"mlp": 8, "cnn": 8, "resnet20": 2}
B = {"mlp": 512, "cnn": 512, "resnet20": 128}
OVER_K = (REFERENCE, SERIAL, TRAINER, ONE_STEP)
DATA = {"mlp": "digits", "cnn": "digits", "resnet20": "cifar10"}
NAMES = {
    "mlp": "64-128-128-10 network",
    "cnn": "small network",
    "resnet20": "ResNet-20",
}
SIZES = ("mlp", "cnn", "resnet20", "resnet56", "vgg11")

SWEEPS = (
    Sweep(
        name="clients",
        xlabel="clients K",
        panels={
            f"{NAMES[model]}, B = {B[model]}": [
                Point(
                    model=model,
                    dataset=DATA[model],
                    clients=k,
                    batch_size=B[model] // k,
                    local_steps=LOCAL_STEPS[model],
                    variants=OVER_K,
                )
                for k in (1, 2, 4, 8, 16, 32, 64)
            ]
            for model in DATA
        },
        x=lambda point: point.clients,
        bound=0.95,
    ),
    Sweep(
        name="processes",
        xlabel="processes",
        panels={
            f"{NAMES[model]}, K = 16": [
                Point(
                    model=model,
                    dataset=DATA[model],
                    clients=16,
                    batch_size=8,
                    local_steps=LOCAL_STEPS[model],
                    processes=n,
                )
                for n in (1, 2, 4)
            ]
            for model in DATA
        },
        x=lambda point: point.processes,
        bound=0.95,
    ),
    Sweep(
        name="model_size",
        xlabel="parameters",
        panels={
            "K = 4, B_loc = 32, images of 32×32": [
                Point(model=m, dataset="cifar10", clients=4, batch_size=32, local_steps=2)
                for m in SIZES
            ]
        },
        x=lambda point: count_parameters(point.model, point.dataset),
        joined=False,  # models of several kinds
    ),
)  # fmt: skip


def run(repetitions: int) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_digits(folder / "digits")
        write_random_images(folder / "cifar10")
        for sweep in SWEEPS:
            yield measure_sweep(sweep, folder, repetitions)


def measure_sweep(sweep: Sweep, folder: Path, repetitions: int) -> Record:
    measured: dict[str, Spread] = {}
    against: dict[str, Spread] = {}
    panels: dict[str, list[Curve]] = {}
    for panel, points in sweep.panels.items():
        curves: dict[str, list[tuple[float, Spread]]] = {}
        for point in points:
            x = sweep.x(point)
            speeds = measure_point(point, folder, repetitions)
            label = f"{panel}, {sweep.xlabel.split(',')[0].split()[0]} {x:,.0f}"
            against[label] = ratios(speeds, TRAINER, REFERENCE)
            for variant, spread in spreads(speeds).items():
                measured[f"{label}: {variant}"] = spread
                curves.setdefault(variant, []).append((x, spread))
        panels[panel] = [Curve(name, points) for name, points in curves.items()]
    print(f"drawn: {draw(sweep.name, sweep.xlabel, panels, sweep.joined)}")
    worst = min(against, key=lambda label: against[label].median)
    return Record(
        benchmark=f"scaling: {sweep.name}",
        unit="images/s",
        variants=measured,
        figure_is=f"least trainer ÷ reference: {worst}",
        figure=against[worst],
        target=Target(bound=sweep.bound) if sweep.bound else None,
        settings={
            "reference": "without its input",
            "ratios": {label: ratio.median for label, ratio in against.items()},
        },
    )


def measure_point(point: Point, folder: Path, repetitions: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = under_torchrun(
        measure,
        point.processes,
        folder=folder / point.dataset,
        model=point.model,
        dataset=point.dataset,
        clients=point.clients,
        batch_size=point.batch_size,
        local_steps=point.local_steps,
        variants=point.variants,
        repetitions=repetitions,
    )
    return found


def measure(
    world: World,
    folder: str,
    model: str,
    dataset: str,
    clients: int,
    batch_size: int,
    local_steps: int,
    variants: Sequence[str],
    repetitions: int,
) -> dict[str, list[float]]:
    """Measure images per second of all processes together, each variant interleaved."""

    def trainer(local_steps: int, execution: str = "auto") -> Callable[[int], float]:
        settings = benchmark_settings(
            dataset,
            Path(folder),
            model=model,
            k=clients,
            batch_size=batch_size,
            local_steps=local_steps,
            clients=execution,
        )
        return Rounds(settings, world).seconds

    def reference() -> Callable[[int], float]:
        arrays, _ = read_prepared(Path(folder) / "train.npz")
        own = len(world.own_clients(clients))
        steps = plain_steps(Transformed(DATASETS[dataset], arrays), own, batch_size)
        ready = itertools.cycle(list(islice(steps, 4)))
        network = build(model, DATASETS[dataset], seed=0)
        return lambda rounds: plain_seconds(
            network, ready, rounds=rounds, local_steps=local_steps, clients=own, weight_decay=5e-4
        )

    make: dict[str, Callable[[], Callable[[int], float]]] = {
        REFERENCE: reference,
        SERIAL: lambda: trainer(local_steps, "serial"),
        TRAINER: lambda: trainer(local_steps),
        ONE_STEP: lambda: trainer(1),
    }
    images = dict.fromkeys(make, clients * batch_size * local_steps)
    images[ONE_STEP] = clients * batch_size
    speeds = {
        name: measure_images_per_second(world, images[name], make[name]()) for name in variants
    }
    return measure_interleaved(speeds, repetitions)


def measure_images_per_second(
    world: World, images: int, seconds: Callable[[int], float]
) -> Callable[[], float]:
    """Return a function that times rounds of ``images`` for about ``SECONDS``, slowest process."""
    seconds(1)
    rounds = max(1, round(SECONDS / slowest(world, lambda: seconds(1))()))
    measure_slowest = slowest(world, lambda: seconds(rounds))
    return lambda: rounds * images / measure_slowest()


def count_parameters(model: str, dataset: str) -> int:
    return sum(p.numel() for p in build(model, DATASETS[dataset], seed=0).parameters())
