"""Check the effect of each option of schedule, learning rate, optimizer and sharpness."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.option_runs import Trained, configured, covers
from trainer.run.build import initial_model

# Sharpness


@covers("sharpness", "sharpness_samples", "sharpness_probes")
def test_sharpness_is_of_so_many_samples_and_probes(trained: Callable[..., Trained]) -> None:
    off = trained(epochs=1)
    asked = {"epochs": 1, "sharpness": True, "sharpness_samples": 20, "sharpness_probes": 2}
    base, samples, probes = (
        trained(**asked),
        trained(**(asked | {"sharpness_samples": 40})),
        trained(**(asked | {"sharpness_probes": 3})),
    )
    trace, largest = "hessian_trace", "hessian_largest_eigenvalue"
    assert set(off.column(trace) + off.column(largest)) == {None}
    assert base.column(trace) != probes.column(trace)
    assert base.column(largest) == pytest.approx(probes.column(largest), rel=1e-6)
    assert base.column(largest) != pytest.approx(samples.column(largest), rel=1e-3)
    assert base.column("test_loss") == off.column("test_loss")


# Schedule: 4 epochs of 5 steps; without decays, rounds of H = 2 end at 2, 4, …, 20

EVEN = list(range(2, 21, 2))
DECAYS = {"decay1": 1, "decay2": 2, "decay3": 3}


@covers("epochs", "steps_per_epoch", "step1", "step2", "step3", "decay1", "decay2", "decay3",
        "eval_freq1", "eval_freq2", "eval_freq3", "h_rule", "h_base", "alpha",
        "switch")  # fmt: skip
@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, EVEN),
        ({"epochs": 1}, [2, 4, 5]),
        ({"steps_per_epoch": 3}, EVEN[:6]),
        ({"step1": 7}, [7, 14, 20]),
        ({"decay1": 3}, [2, 4, 6, 8, 10, 12, 14, 15, 16, 17, 18, 19, 20]),
        ({"decay1": 3, "step2": 4}, [2, 4, 6, 8, 10, 12, 14, 15, 19, 20]),
        ({"decay1": 1, "decay2": 3, "step2": 9, "step3": 3}, [2, 4, 5, 14, 15, 18, 20]),
        (DECAYS | {"step2": 9, "step3": 4}, [2, 4, 5, 10, 14, 15, 19, 20]),
        ({"eval_freq1": 3}, [6, 12, 18, 20]),
        ({"decay1": 2, "eval_freq1": 5, "eval_freq2": 4}, [10, 14, 18, 20]),
        ({"decay1": 1, "decay2": 2, "eval_freq1": 9, "eval_freq2": 9, "eval_freq3": 6}, [16, 20]),
        ({"decay1": 2, "gamma": 0.5, "step1": 1, "h_rule": "qsr", "alpha": 0.08},
         [4, 8, 10, 20]),  # (0.08/0.04)² = 4, then 16
        ({"decay1": 2, "gamma": 0.5, "step1": 1, "h_rule": "qsr", "alpha": 0.04, "h_base": 3},
         [3, 6, 9, 10, 14, 18, 20]),  # 1 and 4, at least 3
        ({"decay1": 2, "gamma": 0.5, "step1": 1, "h_rule": "inverse", "alpha": 0.12},
         [3, 6, 9, 10, 16, 20]),  # 0.12/0.04 = 3, then 6
        ({"decay1": 2, "gamma": 0.5, "step1": 1, "h_rule": "cubic", "alpha": 0.04},
         [*range(1, 11), 18, 20]),  # 1, then 8
        ({"step1": 1, "h_rule": "post-local", "h_base": 7, "switch": 2}, [*range(1, 11), 17, 20]),
    ],
)  # fmt: skip
def test_rounds_end_and_are_evaluated_when_told(
    trained: Callable[..., Trained], changes: dict[str, object], steps: list[int]
) -> None:
    assert trained(**changes).column("step") == steps


@covers("gamma", "decay1", "decay2", "decay3")
def test_the_learning_rate_decays_by_gamma(trained: Callable[..., Trained]) -> None:
    lr = trained(**DECAYS, gamma=0.5, step1=5, step2=5, step3=5).column("lr")
    assert lr == pytest.approx([0.04, 0.02, 0.01, 0.005])


@covers("save_freq1", "save_freq2", "save_freq3")
def test_models_are_saved_as_often_as_told_in_each_phase(trained: Callable[..., Trained]) -> None:
    phases = {"decay1": 1, "decay2": 2, "step1": 1, "step2": 1, "step3": 1}
    for changes, rounds in (
        ({"save_freq1": 2}, {2, 4}),
        ({"save_freq2": 3}, {8}),
        ({"save_freq3": 4}, {14, 18}),
    ):
        saved = trained(**phases, **changes).folder.glob("epoch=*_round=*.pt")
        assert {int(path.stem.split("round=")[1]) for path in saved} == rounds


@covers("schedule")
def test_a_list_of_phases_is_the_same_as_flags(trained: Callable[..., Trained]) -> None:
    flags = trained(decay1=1, decay2=3, gamma=0.5, step2=9, step3=3, eval_freq3=2, save_freq2=1)
    phases = [
        {"epochs": 1, "local_steps": 2},
        {"epochs": 2, "lr_factor": 0.5, "local_steps": 9, "save_freq": 1},
        {"epochs": 1, "lr_factor": 0.25, "local_steps": 3, "eval_freq": 2},
    ]
    values = {"schedule": phases, "epochs": 300, "step1": 1}  # the defaults of what it replaces
    listed = trained(**values)
    assert listed.metrics == flags.metrics
    names = [{path.name for path in run.folder.glob("*.pt")} for run in (listed, flags)]
    assert names[0] == names[1]
    assert {"phase_epoch=1.pt", "phase_epoch=3.pt", "epoch=2.8_round=4.pt"} <= names[0]


# Learning rate; lines every step


@covers("lr", "start_lr", "max_lr", "warm_up", "warmup_epochs", "lr_schedule")
@pytest.mark.parametrize(
    ("changes", "lr"),
    [
        ({"start_lr": 0.02}, [0.08] * 20),
        ({"lr": 0.8, "start_lr": 0.01}, [0.1] * 20),
        ({"warm_up": True, "warmup_epochs": 1},
         np.linspace(0.01, 0.04, 6)[:5].tolist() + [0.04] * 15),
        ({"warm_up": True, "warmup_epochs": 2, "max_lr": 0.11},
         np.linspace(0.01, 0.11, 11)[:10].tolist() + [0.11] * 10),
        ({"lr_schedule": "cosine"}, [0.02 * (1 + math.cos(math.pi * t / 20)) for t in range(20)]),
    ],
)  # fmt: skip
def test_the_learning_rate_of_each_step(
    trained: Callable[..., Trained], changes: dict[str, object], lr: list[float]
) -> None:
    assert trained(step1=1, **changes).column("lr") == pytest.approx(lr)


@covers("lr", "total_batch_size", "warm_up")
def test_goyals_warm_up_begins_at_lr(digits: Path) -> None:
    batch = {"total_batch_size": 512, "train_subset": None}
    settings = configured(digits, lr=0.1, warm_up=True, warmup_epochs=1, **batch)
    assert (settings.initial_lr, settings.peak_lr) == (0.1, pytest.approx(0.2))


# Optimizer: whole runs of one or two steps, against the formula of the update

ONE_STEP = {"epochs": 1, "steps_per_epoch": 1, "step1": 1, "model": "cnn_bn", "bn_batches": 1}
TWO_STEPS = ONE_STEP | {"steps_per_epoch": 2, "step1": 2}


@covers("wd", "group_weight")
def test_weight_decay_shrinks_what_it_should(trained: Callable[..., Trained]) -> None:
    plain, decayed = trained(**ONE_STEP), trained(**ONE_STEP, wd=0.5)
    spared = trained(**ONE_STEP, wd=0.5, group_weight=True)
    initial = plain.state("init.pt")
    for name, _ in initial_model(plain.settings).named_parameters():
        shrunk = plain.state()[name] - 0.04 * 0.5 * initial[name]
        torch.testing.assert_close(decayed.state()[name], shrunk)
        norm_or_bias = name.startswith(("1.", "5.")) or name.endswith("bias")
        wanted = plain.state()[name] if norm_or_bias else shrunk
        torch.testing.assert_close(spared.state()[name], wanted)


@covers("momentum", "nesterov", "momentum_averaging")
def test_momentum_follows_its_formula(trained: Callable[..., Trained]) -> None:
    """Check one client: step 1 is −η·g, step 2 −η·(μ·g + g₂); Nesterov's first −η·(1 + μ)·g."""
    single = {"total_batch_size": 8, "model": "mlp", "start_lr": 0.04, "aug": False}
    one, two = ONE_STEP | single, TWO_STEPS | single

    def moved(**changes: object) -> Tensor:
        run = trained(**changes)
        return nn.utils.parameters_to_vector(run.state().values()) - nn.utils.parameters_to_vector(
            run.state("init.pt").values()
        )

    first, second = moved(**one), moved(**two)
    torch.testing.assert_close(moved(**one, momentum=0.9), first)
    torch.testing.assert_close(moved(**two, momentum=0.9), second + 0.9 * first)
    torch.testing.assert_close(moved(**one, momentum=0.9, nesterov=True), 1.9 * first)
    rounds = two | {"step1": 1, "momentum": 0.9}
    torch.testing.assert_close(moved(**rounds, momentum_averaging="keep"), second + 0.9 * first)
    torch.testing.assert_close(moved(**rounds, momentum_averaging="average"), second + 0.9 * first)
    torch.testing.assert_close(moved(**rounds, momentum_averaging="reset"), second)
    # What each client keeps matters once there are several, and several steps a round.
    several = rounds | {"total_batch_size": 32, "steps_per_epoch": 4, "step1": 2}
    policies = [moved(**several, momentum_averaging=p) for p in ("keep", "average", "reset")]
    for a, b in itertools.combinations(policies, 2):
        assert (a - b).abs().max() > 1e-4


@covers("optimizer", "beta1", "beta2", "eps")
def test_adamw_is_torchs(trained: Callable[..., Trained]) -> None:
    """Check one client; its gradients are those that SGD moved by."""
    single = TWO_STEPS | {"total_batch_size": 8, "model": "mlp", "start_lr": 0.04, "aug": False}
    one = trained(**single | {"steps_per_epoch": 1})
    for name, changes in {
        "beta1": {"beta1": 0.5}, "beta2": {"beta2": 0.5}, "eps": {"eps": 0.1}, "wd": {"wd": 0.5},
        "none": {},
    }.items():  # fmt: skip
        run = trained(**single | {"steps_per_epoch": 1}, optimizer="adamw", **changes)
        parameter = torch.nn.Parameter(one.state("init.pt")["1.weight"].clone())
        parameter.grad = (one.state("init.pt")["1.weight"] - one.state()["1.weight"]) / 0.04
        s = run.settings
        torch.optim.AdamW(
            [parameter], lr=0.04, betas=(s.beta1, s.beta2), eps=s.eps, weight_decay=s.wd
        ).step()
        torch.testing.assert_close(run.state()["1.weight"], parameter.detach(), msg=name)
    two = [trained(**single, optimizer="adamw", beta1=b1, beta2=b2).state()["1.weight"]
           for b1, b2 in ((0.9, 0.999), (0.5, 0.999), (0.9, 0.5))]  # fmt: skip
    for a, b in itertools.combinations(two, 2):
        assert (a - b).abs().max() > 1e-4


@covers("precision")
def test_precision_is_that_of_the_arithmetic(trained: Callable[..., Trained]) -> None:
    runs = {p: trained(precision=p, clients="serial") for p in ("fp64", "fp32", "bf16", "fp16")}
    types = {p: {value.dtype for value in run.state().values()} for p, run in runs.items()}
    single = {torch.float32}
    assert types == {"fp64": {torch.float64}, "fp32": single, "bf16": single, "fp16": single}
    exact, *others = (np.array(runs[p].column("train_loss")) for p in runs)
    fp32, bf16, fp16 = (abs(other - exact).max() for other in others)
    assert 0 < fp32 < fp16 < bf16 < 0.01
