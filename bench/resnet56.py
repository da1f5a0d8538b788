"""Measure ResNet-56, K = 8, B_loc = 128 on 2 processes against the reference and the machine.

The roofline is what the network's own convolutions reach alone, in both processes at once, in the
same run: share = FLOPs of a step ÷ its time ÷ the convolutions' FLOPs per second.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.input import write_random_images
from bench.measure import Record, Spread, Target, measure_interleaved, ratios, spreads
from bench.plain import Transformed, plain_seconds, plain_steps
from bench.roofline import Convolutions, step_flops
from bench.rounds import Rounds, benchmark_settings
from bench.under_torchrun import slowest, under_torchrun
from trainer.data.preparation.prepared import read_prepared
from trainer.data.specs import DATASETS
from trainer.distributed.world import World
from trainer.models.registry import build

MODEL, CLIENTS, BATCH_SIZE, PROCESSES, LOCAL_STEPS = "resnet56", 8, 128, 2, 2
IMAGES = CLIENTS * BATCH_SIZE * LOCAL_STEPS
REFERENCE, FLOAT32, BFLOAT16 = "reference, float32", "trainer, float32", "trainer, bf16"
COMPILED = "trainer, float32, compiled"
CONVOLUTIONS = "convolutions alone"


def run(repetitions: int) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as folder:
        write_random_images(Path(folder))
        found = under_torchrun(measure, PROCESSES, folder=folder, repetitions=repetitions)
    speeds = {name: [IMAGES / s for s in found["seconds"][name]] for name in found["seconds"]}
    about = {
        "model": MODEL,
        "K": CLIENTS,
        "B_loc": BATCH_SIZE,
        "H": LOCAL_STEPS,
        "processes": PROCESSES,
        "threads": found["threads"],
        "executed": found["executed"],
    }
    for name, bound in ((FLOAT32, 1.4), (BFLOAT16, 2.0), (COMPILED, 1.4)):
        yield Record(
            benchmark=f"ResNet-56: {name}",
            unit="images/s",
            variants=spreads({each: speeds[each] for each in (name, REFERENCE)}),
            figure_is=f"{name} ÷ {REFERENCE}",
            figure=ratios(speeds, name, REFERENCE),
            target=Target(bound=bound),
            settings=about,
        )
    yield roofline(found, about)


def roofline(found: dict[str, Any], about: dict[str, Any]) -> Record:
    """Compare FLOP/s of all processes together: the trainer's with the convolutions'."""
    share = CLIENTS // PROCESSES * LOCAL_STEPS  # forward and backward passes of a process
    flops = {
        FLOAT32: [PROCESSES * share * found["step_flops"] / s for s in found["seconds"][FLOAT32]],
        CONVOLUTIONS: [
            PROCESSES * found["convolution_flops"] / s for s in found["seconds"][CONVOLUTIONS]
        ],
    }
    return Record(
        benchmark="ResNet-56: share of the convolutions' throughput",
        unit="GFLOP/s",
        variants={name: Spread.of([f / 1e9 for f in some]) for name, some in flops.items()},
        figure_is="trainer ÷ convolutions alone",
        figure=ratios(flops, FLOAT32, CONVOLUTIONS),
        target=Target(bound=0.7),
        settings=about
        | {"step_flops": found["step_flops"], "convolution_flops": found["convolution_flops"]},
    )


def measure(world: World, folder: str, repetitions: int) -> dict[str, Any]:
    """Measure seconds of a round of each variant, and of one client's convolutions of a step."""
    settings = benchmark_settings(
        "cifar10",
        Path(folder),
        model=MODEL,
        k=CLIENTS,
        batch_size=BATCH_SIZE,
        local_steps=LOCAL_STEPS,
    )
    float32 = Rounds(settings, world)
    bfloat16 = Rounds(settings.model_copy(update={"precision": "bf16"}), world)
    compiled = Rounds(settings.model_copy(update={"compile": True}), world)
    model = build(MODEL, DATASETS["cifar10"], seed=0)
    arrays, _ = read_prepared(Path(folder) / "train.npz")
    own = len(world.own_clients(CLIENTS))
    steps = plain_steps(Transformed(DATASETS["cifar10"], arrays), own, BATCH_SIZE)
    images, labels = next(steps)
    convolutions = Convolutions(model, images[0])
    seconds = {
        # It averages within the process: no process waits for another.
        REFERENCE: lambda: plain_seconds(
            model,
            steps,
            rounds=1,
            local_steps=LOCAL_STEPS,
            clients=own,
            weight_decay=settings.wd,
        ),
        FLOAT32: lambda: float32.seconds(1),
        BFLOAT16: lambda: bfloat16.seconds(1),
        COMPILED: lambda: compiled.seconds(1),
        CONVOLUTIONS: convolutions.seconds,
    }
    return {
        "seconds": measure_interleaved(
            {name: slowest(world, measure) for name, measure in seconds.items()}, repetitions
        ),
        "step_flops": step_flops(model, images[0], labels[0]),
        "convolution_flops": convolutions.flops,
        "executed": {
            FLOAT32: str(float32.plan),
            BFLOAT16: str(bfloat16.plan),
            COMPILED: str(compiled.plan),
        },
        "threads": torch.get_num_threads(),
    }
