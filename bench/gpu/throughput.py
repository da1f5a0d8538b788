"""Measure images per second of training against the plain reference and the card's limit.

Batches are ready on the device, the same in each step: input is not part of it. ``H = 1`` is the
trainer's single replica, ``H = 2`` its K replicas, executed by its own rule and one by one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.gpu.cases import DRY_RUN, ON_GPU, Case
from bench.measure import Record, Spread, measure_interleaved, ratios, spreads, write_records
from bench.reference import local_sgd
from bench.roofline import Convolutions, step_flops, synchronize
from trainer.data.training import Batch
from trainer.distributed.world import World
from trainer.errors import UserError, is_out_of_memory
from trainer.local_sgd.averaging import Averaging
from trainer.models.registry import build
from trainer.run.build import make_bank, make_schedule
from trainer.run.execution import SERIAL, choose_execution
from trainer.settings.run import RunSettings

REPETITIONS = 3
SECONDS = 0.3  # approximate length of one measurement
TRAINER, REFERENCE = "trainer", "reference, float32"
# Begin the lines that say what was not measured: `NAME`, and why where that is not the time
LATE, LEFT_OUT, FAILED = "left out, as time is up: ", "left out: ", "failed: "


def records(
    cases: Sequence[Case], device: torch.device, done: set[str], seconds: float
) -> Iterator[Record | str]:
    """Measure what is not ``done`` yet; no case begins after ``seconds``.

    Yields a line that says why in the place of what cannot be measured.
    """
    end = time.monotonic() + seconds
    todo: dict[str, Callable[[], Record]] = {}
    for case in cases:
        for precision in ("fp32", "bf16"):
            todo[_name(case, f"limit, {precision}")] = partial(_limit, case, precision, device)
        for k, h in product(case.clients, (2, 1)):
            todo[_name(case, f"K = {k}, H = {h}")] = partial(_clients, case, k, h, device)
    for name, measure in todo.items():
        if name in done:
            continue
        if time.monotonic() > end:
            yield f"{LATE}{name}"
            continue
        try:
            yield measure()
        except (RuntimeError, ImportError, UserError) as error:
            expected = isinstance(error, ImportError | UserError) or is_out_of_memory(error)
            if not expected:
                traceback.print_exc()
            yield f"{LEFT_OUT if expected else FAILED}{name}: {str(error).partition(chr(10))[0]}"
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _clients(case: Case, clients: int, local_steps: int, device: torch.device) -> Record:
    """Compare ways to execute K clients; the reference averages K copies in a plain loop."""
    batch = _batch(case, clients, device)
    ways: dict[str, dict[str, str]] = {
        f"{TRAINER}, float32": {},
        f"{TRAINER}, bf16": {"precision": "bf16"},
    }
    if local_steps > 1:
        ways[f"{TRAINER}, float32, one by one"] = {"clients": "serial"}
    trainers = {
        name: Rounds(case.settings(clients, local_steps, **options), batch, device)
        for name, options in ways.items()
    }
    timed: dict[str, Callable[[int], float]] = {n: each.seconds for n, each in trainers.items()}
    timed[REFERENCE] = lambda rounds: _reference_seconds(case, batch, rounds, local_steps)
    images = clients * case.batch_size * local_steps
    values = measure_interleaved({n: _per_second(images, s) for n, s in timed.items()}, REPETITIONS)
    return Record(
        benchmark=_name(case, f"K = {clients}, H = {local_steps}"),
        unit="images/s",
        variants=spreads(values),
        figure_is=f"{TRAINER} ÷ reference, float32",
        figure=ratios(values, f"{TRAINER}, float32", REFERENCE),
        settings=_about(case, device)
        | {"K": clients, "H": local_steps}
        | {"executed": {name: each.plan for name, each in trainers.items()}},
    )


def _limit(case: Case, precision: str, device: torch.device) -> Record:
    """Measure the network's convolutions alone, and a large product of matrices."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = build(case.model, case.settings(1, 1).data, seed=0).to(device, dtype)
    batch = _batch(case, 1, device)
    images = batch.images[0].to(dtype)
    alone = Convolutions(model, images)
    flops = step_flops(model, images, batch.labels[0])
    side = 8192 if device.type == "cuda" else 256
    a = torch.randn(side, side, device=device, dtype=dtype)

    def multiply() -> float:
        synchronize(device)
        start = time.perf_counter()
        torch.mm(a, a)
        synchronize(device)
        return 2 * side**3 / (time.perf_counter() - start) / 1e12

    measured = {
        "convolutions alone": lambda: alone.flops / alone.seconds() / 1e12,
        "product of matrices": multiply,
    }
    values = measure_interleaved(measured, REPETITIONS)
    # As if the network were its convolutions, at their own speed
    bound = [case.batch_size * v * 1e12 / flops for v in values["convolutions alone"]]
    return Record(
        benchmark=_name(case, f"limit, {precision}"),
        unit="TFLOP/s",
        variants=spreads(values),
        figure_is="images/s that the convolutions alone allow",
        figure=Spread.of(bound),
        settings=_about(case, device) | {"side_of_matrices": side, "flops_of_a_step": flops},
    )


class Rounds:
    """Time rounds of the trainer's clients on one batch, as a run would execute them."""

    def __init__(self, settings: RunSettings, batch: Batch, device: torch.device) -> None:
        world = World(0, 1, device)
        assert settings.steps_per_epoch is not None
        schedule = make_schedule(settings, settings.steps_per_epoch)
        one = make_bank(settings, 1, SERIAL, device)
        execution = choose_execution(settings, schedule, one, batch, world)
        self._bank = make_bank(settings, settings.num_clients, execution, device)
        self._average = Averaging(self._bank, world)
        first = next(schedule.rounds())
        self._bank.begin(first)
        self.plan = str(self._bank.plan)
        self._steps, self._batch, self._device = first.local_steps, batch, device

    def seconds(self, rounds: int) -> float:
        torch.backends.cudnn.deterministic = True  # as `join_world` has it
        try:
            return self._seconds(rounds)
        finally:
            torch.backends.cudnn.deterministic = False

    def _seconds(self, rounds: int) -> float:
        synchronize(self._device)
        start = time.perf_counter()
        for _ in range(rounds):
            for _ in range(self._steps):
                self._bank.step(self._batch, lr=0.0)
            self._average()
        synchronize(self._device)
        return time.perf_counter() - start


def _reference_seconds(case: Case, batch: Batch, rounds: int, local_steps: int) -> float:
    """Time the plain loop, without making its copies of the model."""
    device, clients = batch.images.device, len(batch.images)
    model = build(case.model, case.settings(clients, 1).data, seed=0).to(device)
    began: list[float] = []

    def steps() -> Iterator[tuple[Tensor, Tensor]]:
        synchronize(device)
        began.append(time.perf_counter())
        for _ in range(rounds * local_steps):
            yield batch.images, batch.labels

    plan = [local_steps] * rounds
    local_sgd(model, steps(), plan, clients, lambda step: 0.0, weight_decay=5e-4)
    synchronize(device)
    return time.perf_counter() - began[0]


def _per_second(images: int, seconds: Callable[[int], float]) -> Callable[[], float]:
    seconds(1)
    rounds = max(1, round(SECONDS / seconds(1)))
    return lambda: rounds * images / seconds(rounds)


def _batch(case: Case, clients: int, device: torch.device) -> Batch:
    """Draw one step's images, each client's in torch.channels_last, as training has them."""
    data = case.settings(clients, 1).data
    shape = (clients, case.batch_size, case.image_size, case.image_size, data.channels)
    draw = torch.Generator(device).manual_seed(0)
    images = torch.randn(shape, generator=draw, device=device).movedim(-1, -3)
    labels = torch.randint(data.num_classes, shape[:2], generator=draw, device=device)
    return Batch(images=images, labels=labels, seeds=np.arange(clients))


def _name(case: Case, what: str) -> str:
    return f"{case.model}, {what}"


def _about(case: Case, device: torch.device) -> dict[str, object]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu, a dry run"
    return {"device": name, "B_loc": case.batch_size, "image_size": case.image_size}


def whole_lines(path: Path) -> list[str]:
    """Read the lines of ``path``; remove one whose writer was killed from its end."""
    text = path.read_text("utf-8", "replace") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, "utf-8")
    return whole.splitlines()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.throughput", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file to add lines to")
    parser.add_argument("--seconds", type=float, default=360, help="default: %(default)s")
    given = parser.parse_args()
    done = {json.loads(line)["benchmark"] for line in whole_lines(given.out)}
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    failed = 0
    for found in records(ON_GPU if on_gpu else DRY_RUN, device, done, given.seconds):
        if isinstance(found, Record):
            write_records([found], given.out)
        else:
            failed += found.startswith(FAILED)
            print(found, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
