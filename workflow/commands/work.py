"""Count what a run computes, from its settings alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from trainer.data.beton.sidecar import read_sidecar, sidecar_path
from trainer.data.specs import SPLITS, DatasetSpec
from trainer.errors import UserError
from trainer.models.registry import build
from trainer.run.build import make_schedule
from trainer.settings.run import RunSettings
from workflow.commands.plan import samples

BATCH = 2  # BatchNorm needs more than one sample
# Of scipy's eigsh for one eigenvalue: a basis of max(2k + 1, 20) = 20 vectors and one product more.
# It restarts, ten products each time, where these are not enough: far from minima, but not where
# runs with label noise were measured.
# https://docs.scipy.org/doc/scipy/reference/generated/scipy.sparse.linalg.eigsh.html
EIGENVALUE_PRODUCTS = 21


@dataclass(frozen=True)
class Work:
    """Count what a run computes.

    ``single_steps``: steps in rounds with H = 1; ``local_steps``: in the ``long_rounds``, with
    H > 1. ``exports``: how often the averaged model is copied, its BatchNorm re-estimated.
    ``products``: of the Hessian and a vector, at each evaluation.
    """

    steps_per_epoch: int
    single_steps: int
    local_steps: int
    rounds: int
    long_rounds: int
    exports: int
    evaluations: int
    products: int


def count_work(settings: RunSettings) -> Work:
    """Count a run's work. Raises UserError if only missing data say how many samples it has."""
    return _count(settings.model_copy(update={"seed": 0}))


@cache
def _count(settings: RunSettings) -> Work:
    """Count round by round, since rules of H may vary their length; cached for all seeds."""
    steps = settings.steps_per_epoch or round(
        count_samples(settings) / settings.total_epochs / settings.total_batch_size
    )
    schedule = make_schedule(settings, steps)
    rounds = list(schedule.rounds())
    long = [round for round in rounds if round.local_steps > 1]
    initial = int(settings.eval_on_start)
    products = settings.sharpness_probes + 1 + EIGENVALUE_PRODUCTS  # one to look for zeros
    return Work(
        steps_per_epoch=steps,
        single_steps=len(rounds) - len(long),
        local_steps=sum(round.stop - round.start for round in long),
        rounds=len(rounds),
        long_rounds=len(long),
        exports=initial + sum(round.exported for round in rounds),
        evaluations=initial + sum(round.evaluate for round in rounds),
        products=products if settings.sharpness else 0,
    )


def data_sizes(settings: RunSettings) -> tuple[int, int]:
    """Count the samples that a run may train on, and those that it is evaluated on."""
    everything = _available(settings, "train")
    trained_on = settings.train_subset or everything
    held_out = settings.evaluate_on == "held_out"
    return trained_on, everything - trained_on if held_out else _available(settings, "test")


def count_samples(settings: RunSettings) -> int:
    """Count the samples that a run trains on, repeats included."""
    seen = samples(settings)
    if seen is None:
        raise UserError(_needs_data(settings, "train"))
    return seen


def _available(settings: RunSettings, split: str) -> int:
    """Count the samples of ``split`` in its file or, before there is one, in a known data set."""
    beton = settings.betons[SPLITS.index(split)]
    if sidecar_path(beton).exists():
        return read_sidecar(beton).samples
    known = settings.data.count(split)
    if known is None:
        raise UserError(_needs_data(settings, split))
    return known


def _needs_data(settings: RunSettings, split: str) -> str:
    beton = settings.betons[SPLITS.index(split)]
    return f"{beton} says how many samples there are; make it by `snakemake data`"


@cache
def model_cost(name: str, data: DatasetSpec, n_groups: int) -> tuple[float, int]:
    """Count operations of training on one sample, and parameters."""
    model = build(name, data, 0, n_groups).to("meta")
    size = data.image_size
    images = torch.empty(BATCH, data.channels, size, size, device="meta")
    labels = torch.empty(BATCH, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model(images), labels).backward()
    return counter.get_total_flops() / BATCH, sum(p.numel() for p in model.parameters())
