"""Measure images per second of Local SGD on small networks against the plain reference.

All in one process. Each variant trains whole rounds with their averaging, on as many threads as
there are cores; ResNet-8 on one, as in the scale ``workstation``, in float32 and in bf16, the
reference in the same precision. The reference loads its images by torchvision's transforms;
"without input" it gets batches made beforehand, which no training can have.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from bench.digits import prepare_digits
from bench.input import write_random_images
from bench.measure import Record, Target, measure_interleaved, ratios, spreads
from bench.plain import Transformed, plain_seconds, plain_steps
from bench.rounds import Rounds, benchmark_settings
from trainer.data.preparation.prepared import read_prepared
from trainer.data.specs import DATASETS
from trainer.distributed.world import World
from trainer.models.registry import build

WORLD = World(0, 1, torch.device("cpu"))
SECONDS = 0.4  # approximate length of one measurement
TRAINER, REFERENCE, WITHOUT_INPUT = "trainer", "reference", "reference without input"
SERIAL = "trainer, one after the other"


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    model: str
    clients: int
    batch_size: int
    dataset: str = "digits"
    local_steps: int = 8
    against: str = REFERENCE
    target: float | None = None
    precision: str = "fp32"
    threads: int | None = None  # default: as many as there are cores


def resnet8(name: str, *, local_steps: int, precision: str, target: float) -> Case:
    """Return a case with the clients and batches of the scale ``workstation``."""
    return Case(
        name=f"ResNet-8, {name}",
        model="resnet8",
        clients=8,
        batch_size=16,
        dataset="cifar10",
        local_steps=local_steps,
        against=WITHOUT_INPUT,
        target=target,
        precision=precision,
        threads=1,
    )


CASES = (
    Case(name="small network", model="cnn", clients=16, batch_size=8, target=4.0),
    Case(name="64-128-128-10 network", model="mlp", clients=32, batch_size=4, target=4.0),
    Case(
        name="small network, H = 1",
        model="cnn",
        clients=16,
        batch_size=8,
        local_steps=1,
        against=WITHOUT_INPUT,
        target=4.0,
    ),
    Case(
        name="64-128-128-10 network, H = 1",
        model="mlp",
        clients=32,
        batch_size=4,
        local_steps=1,
        against=WITHOUT_INPUT,
    ),
    Case(
        name="small network, CIFAR-10's shape",
        model="cnn",
        clients=16,
        batch_size=8,
        dataset="cifar10",
    ),
    Case(name="ResNet-20", model="resnet20", clients=4, batch_size=32, dataset="cifar10"),
    resnet8("float32", local_steps=8, precision="fp32", target=1.5),
    resnet8("bf16", local_steps=8, precision="bf16", target=1.5),
    resnet8("float32, H = 1", local_steps=1, precision="fp32", target=2.0),
    resnet8("bf16, H = 1", local_steps=1, precision="bf16", target=2.0),
)


def run(repetitions: int) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name for name in DATASETS}
        prepare_digits(folders["digits"])
        write_random_images(folders["cifar10"])
        all_threads = torch.get_num_threads()
        for case in CASES:
            torch.set_num_threads(case.threads or all_threads)
            yield from measure_case(case, folders[case.dataset], repetitions)
        torch.set_num_threads(all_threads)


def measure_case(case: Case, folder: Path, repetitions: int) -> Iterator[Record]:
    """Compare with the reference with and without its input, in the same repetitions."""
    speeds, plan = prepare_variants(case, folder)
    values = measure_interleaved(speeds, repetitions)
    for other in (REFERENCE, WITHOUT_INPUT):
        yield Record(
            benchmark=f"clients: {case.name}, {other}",
            unit="images/s",
            variants=spreads(values),
            figure_is=f"{TRAINER} ÷ {other}",
            figure=ratios(values, TRAINER, other),
            target=Target(bound=case.target) if case.target and other == case.against else None,
            settings={
                "model": case.model,
                "K": case.clients,
                "B_loc": case.batch_size,
                "H": case.local_steps,
                "data": case.dataset,
                "precision": case.precision,
                "executed": plan,
                "threads": torch.get_num_threads(),
            },
        )


def prepare_variants(case: Case, folder: Path) -> tuple[dict[str, Callable[[], float]], str]:
    """Prepare measurements in images per second, and describe how the trainer executes clients."""
    settings = benchmark_settings(
        case.dataset,
        folder,
        model=case.model,
        k=case.clients,
        batch_size=case.batch_size,
        local_steps=case.local_steps,
        precision=case.precision,
    )
    trainer = Rounds(settings, WORLD)
    serial = Rounds(settings.model_copy(update={"clients": "serial"}), WORLD)
    arrays, _ = read_prepared(folder / "train.npz")
    data = Transformed(DATASETS[case.dataset], arrays)
    with_input = plain_steps(data, case.clients, case.batch_size)
    ready = itertools.cycle(list(islice(with_input, 8)))
    model = build(case.model, DATASETS[case.dataset], seed=0)

    def plain(steps: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> Callable[[int], float]:
        return lambda rounds: plain_seconds(
            model,
            steps,
            rounds=rounds,
            local_steps=case.local_steps,
            clients=case.clients,
            weight_decay=settings.wd,
            autocast=torch.bfloat16 if case.precision == "bf16" else None,
        )

    images = case.clients * case.batch_size * case.local_steps
    seconds = {
        TRAINER: trainer.seconds,
        SERIAL: serial.seconds,
        REFERENCE: plain(with_input),
        WITHOUT_INPUT: plain(ready),
    }
    speeds = {name: measure_images_per_second(images, some) for name, some in seconds.items()}
    return speeds, str(trainer.plan)


def measure_images_per_second(images: int, seconds: Callable[[int], float]) -> Callable[[], float]:
    """Return a function that times rounds of ``images`` images each for about ``SECONDS``."""
    seconds(1)
    rounds = max(1, round(SECONDS / seconds(1)))
    return lambda: rounds * images / seconds(rounds)
