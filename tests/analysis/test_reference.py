"""Whole runs against the plain reference: K copies of the model, each sample fetched by hand.

Trainer and reference share the initial weights and the random draws (which sample, which crop,
which label offset), which have tests of their own; everything else is written twice.

Rounding differs between the two, and training amplifies it from step to step: learning rates are
small and runs short, so that in float32, too, a difference means a mistake.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from bench.reference import local_sgd
from tests.plain_batches import DTYPES, plain_batches
from trainer.data.specs import DATASETS
from trainer.distributed.world import World
from trainer.models.registry import build
from trainer.run.session import train
from trainer.settings.run import RunSettings

WORLD = World(0, 1, torch.device("cpu"))
TOLERANCES = {"fp32": 1e-5, "fp64": 1e-10}  # absolute; parameters are of order 1 or below


@dataclass(frozen=True)
class Variant:
    """Changed settings, and by hand what they mean: H of every round, η of every step."""

    changes: dict[str, object] = field(default_factory=dict)
    rounds: tuple[int, ...] = (3, 3, 1, 5, 5, 4)
    lr: Callable[[int], float] = lambda step: 0.2 if step < 7 else 0.02
    weight_averaging: tuple[tuple[int, str], ...] = ()  # rounds of each phase, and its mean


VARIANTS = {
    "plain": Variant(),
    "serial": Variant({"clients": "serial"}),
    "not_augmented": Variant({"aug": False}),
    "replacement": Variant({"replacement": True}),
    "noise": Variant({"label_noise": True, "noise_p": 0.3}),
    "resumed": Variant({"resume": 3}),
    "batchnorm": Variant({"model": "cnn_bn", "clients": "serial"}),
    "momentum": Variant({"momentum": 0.9}),
    "nesterov": Variant({"momentum": 0.9, "nesterov": True}),
    "momentum_average": Variant({"momentum": 0.9, "momentum_averaging": "average"}),
    "momentum_reset": Variant({"momentum": 0.9, "momentum_averaging": "reset"}),
    "diloco": Variant({"outer_lr": 0.7, "outer_momentum": 0.9, "outer_nesterov": True}),
    "slowmo": Variant(
        {
            "outer_momentum": 0.6,
            "outer_slowmo": True,
            "momentum": 0.9,
            "momentum_averaging": "reset",
        }
    ),
    **{f"adamw_{policy}": Variant(
        {"optimizer": "adamw", "start_lr": 0.0005, "wd": 0.1, "beta2": 0.99,
         "momentum_averaging": policy},
        lr=lambda step: 0.002 if step < 7 else 0.0002,
    ) for policy in ("keep", "average", "reset")},
    "adamw_of_one_step": Variant(
        {"optimizer": "adamw", "model": "cnn_bn", "group_weight": True, "wd": 0.1, "eps": 1e-6,
         "start_lr": 0.0005, "step1": 1, "step2": 1, "outer_lr": 0.7, "outer_momentum": 0.9,
         "outer_nesterov": True},
        rounds=(1,) * 21,
        lr=lambda step: 0.002 if step < 7 else 0.0002,
    ),
    "group_weight": Variant({"model": "cnn_bn", "group_weight": True, "wd": 0.1}),
    "warm_up": Variant(
        {"warm_up": True, "warmup_epochs": 1, "start_lr": 0.01, "max_lr": 0.2},
        lr=lambda step: 0.01 + 0.19 * step / 7 if step < 7 else 0.02,
    ),
    "cosine": Variant(
        {"lr_schedule": "cosine", "decay1": None, "step1": 5, "step2": 1},
        rounds=(5, 5, 5, 5, 1),
        lr=lambda step: 0.1 * (1 + math.cos(math.pi * step / 21)),
    ),
    # The next phase begins from the mean of the first's three iterates, without momentum.
    "swa": Variant(
        {"weight_averaging1": "swa", "momentum": 0.9, "momentum_averaging": "average"},
        weight_averaging=((3, "swa"), (3, "none")),
    ),
    "swa_of_each_step": Variant(
        {"weight_averaging1": "swa", "step1": 1, "momentum": 0.9, "nesterov": True},
        rounds=(1,) * 7 + (5, 5, 4),
        weight_averaging=((7, "swa"), (3, "none")),
    ),
    "swa_in_both_phases": Variant(
        {"weight_averaging1": "ema", "ema_decay": 0.7, "weight_averaging2": "swa",
         "optimizer": "adamw", "start_lr": 0.00025, "outer_lr": 0.7, "outer_momentum": 0.9},
        lr=lambda step: 0.001 if step < 7 else 0.0001,
        weight_averaging=((3, "ema"), (3, "swa")),
    ),
    "ema": Variant(
        {"weight_averaging2": "ema", "ema_decay": 0.8, "model": "cnn_bn", "outer_lr": 0.7},
        weight_averaging=((3, "none"), (3, "ema")),
    ),
    # H = max(2, ⌊(0.05/η)²⌋): 2 for 7 steps of η = 0.2, then 6
    "qsr": Variant(
        {"h_rule": "qsr", "h_base": 2, "alpha": 0.05, "step1": 1, "step2": 1},
        rounds=(2, 2, 2, 1, 6, 6, 2),
    ),
}  # fmt: skip


def settings(data: Path, **changes: object) -> RunSettings:
    """Two phases with H = 3 and 5, neither dividing the phase: 7 steps an epoch, 3 epochs."""
    values: dict[str, object] = {
        "data_pth": data, "batch_size": 7, "total_batch_size": 28, "train_subset": 200,
        "epochs": 3, "decay1": 1, "step1": 3, "step2": 5, "start_lr": 0.05, "seed": 11,
        "precision": "fp64", "eval_on_start": True, "bn_batches": 3,
    }  # fmt: skip
    return RunSettings(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_ends_where_the_plain_reference_ends(
    digits: Path, tmp_path: Path, variant: str, precision: str
) -> None:
    changes = {"precision": precision, "log_pth": tmp_path, "eval_on_start": False}
    chosen = settings(digits, **changes, **VARIANTS[variant].changes)
    assert_ends_where_the_reference_ends(chosen, VARIANTS[variant])


SHORT_ROUNDS = (2, 1, 4, 2)  # 3 steps an epoch: H = 2 in one epoch, H = 4 in the two after
NO_DECAY_OF_NORMS = {"group_weight": True, "wd": 0.1}
FIGURE_7 = {
    "label_noise": True, "noise_p": 0.3, "replacement": True, "aug": False,
    "start_lr": 0.01, "max_lr": 0.04, "warm_up": True, "warmup_epochs": 1,
}  # fmt: skip


def decayed_from(peak: float) -> Callable[[int], float]:
    return lambda step: peak if step < 3 else 0.1 * peak


def warmed_up(step: int) -> float:
    return 0.01 * (1 + step) if step < 3 else 0.004


# BatchNorm over four images amplifies rounding about a thousand times: it gets smaller steps.
ARCHITECTURES = {
    **{f"resnet8_{clients}": Variant(
        {"model": "resnet8", "start_lr": 0.002, "clients": clients} | NO_DECAY_OF_NORMS,
        SHORT_ROUNDS, decayed_from(0.004),
    ) for clients in ("serial", "vectorized")},
    "resnet8_gn": Variant(
        {"model": "resnet8_gn", "clients": "vectorized"} | FIGURE_7, SHORT_ROUNDS, warmed_up
    ),
    "resnet20": Variant(
        {"model": "resnet20", "start_lr": 0.002} | NO_DECAY_OF_NORMS,
        SHORT_ROUNDS,
        decayed_from(0.004),
    ),
    "resnet20_nesterov": Variant(
        {"model": "resnet20", "start_lr": 0.002, "momentum": 0.9, "nesterov": True,
         "clients": "vectorized"},
        SHORT_ROUNDS,
        decayed_from(0.004),
    ),
    "resnet20_gn": Variant(
        {"model": "resnet20_gn"} | FIGURE_7 | NO_DECAY_OF_NORMS, SHORT_ROUNDS, warmed_up
    ),
    "resnet20_gn_2_groups": Variant(
        {"model": "resnet20_gn", "n_groups": 2, "momentum": 0.9, "clients": "vectorized"},
        SHORT_ROUNDS,
        decayed_from(0.04),
    ),
    "vgg11": Variant(
        {"model": "vgg11", "momentum": 0.9} | FIGURE_7 | NO_DECAY_OF_NORMS, SHORT_ROUNDS, warmed_up
    ),
}  # fmt: skip


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_papers_networks_end_where_the_plain_reference_ends(
    tiny_cifar10: Path, tmp_path: Path, architecture: str, precision: str
) -> None:
    variant = ARCHITECTURES[architecture]
    b_loc = 2 if architecture == "vgg11" else 4  # it is 30 times the others' size
    few = {"batch_size": b_loc, "total_batch_size": 2 * b_loc, "train_subset": None,
           "steps_per_epoch": 3, "step1": 2, "step2": 4, "start_lr": 0.02,
           "eval_on_start": False, "eval_freq1": 9, "eval_freq2": 9}  # fmt: skip
    changes = {"dataset": "cifar10", "precision": precision, "log_pth": tmp_path} | few
    chosen = settings(tiny_cifar10, **(changes | variant.changes))
    assert_ends_where_the_reference_ends(chosen, variant)


def assert_ends_where_the_reference_ends(chosen: RunSettings, variant: Variant) -> None:
    start = build(chosen.model, DATASETS[chosen.dataset], chosen.seed, chosen.n_groups)
    start = start.to(DTYPES[chosen.precision])
    adamw = {"betas": (chosen.beta1, chosen.beta2), "eps": chosen.eps}
    expected = local_sgd(
        start,
        plain_batches(chosen),
        variant.rounds,
        chosen.num_clients,
        variant.lr,
        weight_decay=chosen.wd,
        group_weight=chosen.group_weight,
        momentum=chosen.momentum,
        nesterov=chosen.nesterov,
        momentum_averaging=chosen.momentum_averaging,
        adamw=adamw if chosen.optimizer == "adamw" else None,
        outer_lr=chosen.outer_lr,
        outer_momentum=chosen.outer_momentum,
        outer_nesterov=chosen.outer_nesterov,
        outer_slowmo=chosen.outer_slowmo,
        weight_averaging=variant.weight_averaging,
        ema_decay=chosen.ema_decay,
    )
    train(chosen, WORLD)
    state = torch.load(chosen.log_pth / "model.pt", weights_only=True)
    got = torch.cat([state[name].flatten() for name, _ in expected.named_parameters()])
    wanted, before = (parameters_to_vector(m.parameters()).detach() for m in (expected, start))
    tolerance = TOLERANCES[chosen.precision]
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)
    # Agreement of parameters that hardly moved would say nothing.
    assert (wanted - before).abs().max() > 100 * tolerance
