"""What a scale's figures cost, from their settings alone: an estimate before any run.

Operations are PyTorch's count (``torch.utils.flop_counter``) of a forward and a backward pass, on
tensors without content, times the samples that a run trains on; evaluations are left out.
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
from trainer.models import build
from trainer.run.build import make_schedule
from trainer.settings.run import RunSettings
from workflow.commands.plan import samples
from workflow.experiments import Experiments, expand, start_points

BYTES = 4  # of a parameter, as it is sent
BATCH = 2  # BatchNorm needs more than one sample
# What a GPU sustains in training: small networks of small images, large ones in mixed precision
TERA_PER_SECOND = (3, 30)


@dataclass(frozen=True)
class Cost:
    """Of one figure's runs with their start points, ``runs`` in all.

    ``operations``: floating-point, of all of them. ``sent``: bytes that each client sends in a run,
    the least and the most of all.
    """

    figure: str
    runs: int
    operations: float
    sent: tuple[int, int]

    def hours(self, tera_per_second: float) -> float:
        return self.operations / (tera_per_second * 1e12) / 3600


def costs(experiments: Experiments) -> Iterator[Cost]:
    """By figure; a run that figures share counts for each. Raises UserError without its data."""
    for name, experiment in experiments.experiments.items():
        runs = expand(experiment)
        every = [run.settings for run in [*start_points(runs), *runs]]
        sent = [_sent(settings) for settings in every]
        yield Cost(name, len(every), sum(map(_operations, every)), (min(sent), max(sent)))


def show(found: list[Cost]) -> Iterator[str]:
    """A table in Markdown."""
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


def _samples(settings: RunSettings) -> int:
    seen = samples(settings)
    if seen is None:
        raise UserError(
            f"{settings.betons[0]} says how many samples there are; make it by `snakemake data`"
        )
    return seen


def _operations(settings: RunSettings) -> float:
    return _samples(settings) * _of_model(settings.model, settings.data, settings.n_groups)[0]


def _sent(settings: RunSettings) -> int:
    """Bytes: the client's parameters once a round."""
    parameters = _of_model(settings.model, settings.data, settings.n_groups)[1]
    return _rounds(settings.model_copy(update={"seed": 0})) * BYTES * parameters


@cache
def _rounds(settings: RunSettings) -> int:
    """Counted one by one, once for all seeds: rules of H may make each round another length."""
    steps = settings.steps_per_epoch or round(
        _samples(settings) / settings.total_epochs / settings.total_batch_size
    )
    return sum(1 for _ in make_schedule(settings, steps).rounds())


@cache
def _of_model(name: str, data: DatasetSpec, n_groups: int) -> tuple[float, int]:
    """Operations of training on one sample, and parameters."""
    model = build(name, data, 0, n_groups).to("meta")
    size = data.image_size
    images = torch.empty(BATCH, data.channels, size, size, device="meta")
    labels = torch.empty(BATCH, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model(images), labels).backward()
    return counter.get_total_flops() / BATCH, sum(p.numel() for p in model.parameters())
