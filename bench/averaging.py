"""Time one averaging of 2 processes against a bare all-reduce of the same bytes.

The plain way divides after the all-reduce, which reads and writes the model once more; the trainer
does so for small models. Several clients cost reading and writing each of their models once more,
which no all-reduce does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench.measure import Record, Spread, Target, measure_interleaved, ratios
from bench.under_torchrun import slowest, under_torchrun
from trainer.distributed.world import World
from trainer.local_sgd.averaging import Averaging
from trainer.run.build import make_bank
from trainer.run.execution import SERIAL
from trainer.settings.run import RunSettings

PROCESSES, CLIENTS = 2, (1, 4)
MODELS = ("mlp", "resnet56", "vgg16")
CALLS_BYTES = 2**27  # averaged in one measurement, in at least 5 and at most 500 calls
BARE, PLAIN = "bare all-reduce", "all-reduce, then division"


def run(repetitions: int) -> Iterator[Record]:
    for model in MODELS:
        found = under_torchrun(measure, PROCESSES, model=model, repetitions=repetitions)
        values, size = found["milliseconds"], found["bytes"]
        for clients in CLIENTS:
            name = variant_name(clients)
            yield Record(
                benchmark=f"averaging: {model}, {size:,} bytes, {clients} client(s) per process",
                unit="ms",
                variants={each: Spread.of(values[each]) for each in (name, PLAIN, BARE)},
                figure_is=f"averaging ÷ {BARE}",
                figure=ratios(values, name, BARE),
                target=Target(bound=1.1, at_most=True) if clients == 1 else None,
                settings={"processes": PROCESSES, "bytes": size, "clients": clients},
            )


def measure(world: World, model: str, repetitions: int) -> dict[str, Any]:
    """Measure the milliseconds of one call of each variant, interleaved."""
    settings = RunSettings(model=model)

    def averaging(clients: int) -> Averaging:
        return Averaging(make_bank(settings, clients, SERIAL, world.device), world)

    averagings = {variant_name(clients): averaging(clients) for clients in CLIENTS}
    size = averagings[variant_name(1)].bytes
    calls = min(500, max(5, CALLS_BYTES // size))
    buffer = torch.zeros(size // 4, device=world.device)
    actions: dict[str, Callable[[], object]] = {
        **averagings,
        PLAIN: lambda: world.all_sum(buffer).div_(PROCESSES),
        BARE: lambda: world.all_sum(buffer),
    }
    milliseconds = {
        name: slowest(world, mean_milliseconds(calls, act)) for name, act in actions.items()
    }
    return {"milliseconds": measure_interleaved(milliseconds, repetitions), "bytes": size}


def variant_name(clients: int) -> str:
    return f"averaging, {clients} client(s) per process"


def mean_milliseconds(calls: int, action: Callable[[], object]) -> Callable[[], float]:
    """Return a function that times ``calls`` calls in a row, in milliseconds per call."""

    def measure_mean() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            action()
        return 1e3 * (time.perf_counter() - start) / calls

    return measure_mean
