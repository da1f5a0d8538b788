"""Estimate what a scale's figures cost, from their settings alone, before any run.

Operations are PyTorch's count (``torch.utils.flop_counter``) of a forward and a backward pass on
meta tensors, times the samples that a run trains on; evaluations are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from trainer.data.specs import DatasetSpec
from trainer.errors import UserError
from trainer.models.registry import build
from trainer.run.build import make_schedule
from trainer.settings.run import RunSettings
from workflow.commands.plan import samples
from workflow.experiments import Experiments, expand, start_points

BYTES = 4  # per parameter sent
BATCH = 2  # BatchNorm needs more than one sample
# Sustained in training by a GPU: small networks on small images; large ones in mixed precision
TERA_PER_SECOND = (3, 30)


@dataclass(frozen=True)
class Cost:
    """Hold the cost of one figure: ``runs`` runs, start points included.

    ``operations``: floating-point operations of all runs. ``sent``: the smallest and largest number
    of bytes that a client sends in a run.
    """

    figure: str
    runs: int
    operations: float
    sent: tuple[int, int]

    def hours(self, tera_per_second: float) -> float:
        return self.operations / (tera_per_second * 1e12) / 3600


def costs(experiments: Experiments) -> Iterator[Cost]:
    """Estimate the cost per figure; shared runs count for each. Raises UserError without data."""
    for name, experiment in experiments.experiments.items():
        runs = expand(experiment)
        settings = [run.settings for run in [*start_points(runs), *runs]]
        sent = [_bytes_sent(each) for each in settings]
        operations = sum(map(_operations, settings))
        yield Cost(name, len(settings), operations, (min(sent), max(sent)))


def show(found: list[Cost]) -> Iterator[str]:
    """Format the costs as a table in Markdown."""
    speeds = " | ".join(f"GPU-hours at {speed}·10¹² a second" for speed in TERA_PER_SECOND)
    yield f"| figure | runs | operations | {speeds} | sent by each client of a run |"
    yield "| --- | --- | --- |" + " --- |" * len(TERA_PER_SECOND) + " --- |"
    for cost in found:
        hours = " | ".join(f"{cost.hours(speed):,.1f}" for speed in TERA_PER_SECOND)
        least, most = (f"{sent / 1e9:,.{0 if sent > 1e10 else 2}f}" for sent in cost.sent)
        yield (
            f"| `{cost.figure}` | {cost.runs} | {cost.operations:.1e} | {hours} | "
            f"{least} to {most} GB |"
        )


def _count_samples(settings: RunSettings) -> int:
    seen = samples(settings)
    if seen is None:
        raise UserError(
            f"{settings.betons[0]} says how many samples there are; make it by `snakemake data`"
        )
    return seen


def _operations(settings: RunSettings) -> float:
    return (
        _count_samples(settings) * _model_cost(settings.model, settings.data, settings.n_groups)[0]
    )


def _bytes_sent(settings: RunSettings) -> int:
    """Count the bytes that a client sends: its parameters once a round."""
    parameters = _model_cost(settings.model, settings.data, settings.n_groups)[1]
    return _count_rounds(settings.model_copy(update={"seed": 0})) * BYTES * parameters


@cache
def _count_rounds(settings: RunSettings) -> int:
    """Count the rounds one by one, since rules of H may vary their length; cached for all seeds."""
    steps = settings.steps_per_epoch or round(
        _count_samples(settings) / settings.total_epochs / settings.total_batch_size
    )
    return sum(1 for _ in make_schedule(settings, steps).rounds())


@cache
def _model_cost(name: str, data: DatasetSpec, n_groups: int) -> tuple[float, int]:
    """Count operations of training on one sample, and parameters."""
    model = build(name, data, 0, n_groups).to("meta")
    size = data.image_size
    images = torch.empty(BATCH, data.channels, size, size, device="meta")
    labels = torch.empty(BATCH, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model(images), labels).backward()
    return counter.get_total_flops() / BATCH, sum(p.numel() for p in model.parameters())
