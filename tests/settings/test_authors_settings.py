"""The authors' four scripts resolve to the published settings, and so do this project's runs.

The values are those of https://github.com/hmgxr128/Local-SGD at commit b4c73db, as the scripts'
options, the trainers' defaults and the checkpoints have them; paths and GPUs are left out.
"""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from torch import nn

from tests.commands import ROOT
from tests.settings.test_authors_commands import (
    IMAGENET,
    LABEL_NOISE_RESNET,
    LABEL_NOISE_VGG,
    POST_LOCAL,
)
from tests.settings.test_config import parse
from trainer.models.registry import build
from trainer.run.build import make_schedule
from trainer.settings.run import RunSettings
from workflow.experiments import RunSpec, expand, load_experiments
from workflow.published import PublishedCheckpoint

# One column of the paper's settings for each script; the rows are `resolve`'s.
COMMON = {
    "batch per client": 128, "batch": 4096, "K": 32, "steps per epoch": 12, "momentum": 0.0,
    "nesterov": False, "momentum at averaging": "keep", "decays": 0, "rule of H": "constant",
    "precision": "fp32", "evaluated on": "test", "samples": None, "evaluated at the start": True,
    "image side": 32,
}  # fmt: skip
TABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "fig1a": (
        POST_LOCAL,
        COMMON | {
            "data": "cifar10", "model": "resnet56", "parameters": 853_018, "start": 250,
            "norm": (nn.BatchNorm2d, None), "BatchNorm batches": 100,
            "rates": (0.32, 0.32, 0.32), "epochs": 250, "H": 600, "rounds between": 1,
            "weight decay": 5e-4, "not on norm and bias": True, "replacement": False,
            "augmented": True, "label noise": 0.0,
        },
    ),
    "fig7a": (
        LABEL_NOISE_RESNET,
        COMMON | {
            "data": "cifar10", "model": "resnet56_gn", "parameters": 853_018, "start": 500,
            "norm": (nn.GroupNorm, 8), "BatchNorm batches": None,
            "rates": (0.1, 0.1, 0.1), "epochs": 500_000, "H": 384, "rounds between": 1,
            "weight decay": 5e-4, "not on norm and bias": True, "replacement": True,
            "augmented": False, "label noise": 0.1,
        },
    ),
    "fig7b": (
        LABEL_NOISE_VGG,
        COMMON | {
            "data": "cifar10", "model": "vgg16", "parameters": 14_719_818, "start": 500,
            "norm": None, "BatchNorm batches": None,
            "rates": (0.1, 0.1, 0.1), "epochs": 50_000, "H": 384, "rounds between": 1,
            "weight decay": 0.0, "not on norm and bias": False, "replacement": True,
            "augmented": False, "label noise": 0.1,
        },
    ),
    "fig1b": (
        f"{IMAGENET} --precision fp16",  # which their trainer has no option for
        COMMON | {
            "batch per client": 32, "batch": 8192, "K": 256, "steps per epoch": 156,
            "data": "imagenet", "model": "resnet50", "parameters": 25_557_032, "start": 100,
            "norm": (nn.BatchNorm2d, None), "BatchNorm batches": 100,
            "rates": (0.16, 0.16, 0.16), "epochs": 50, "H": 26, "rounds between": 6,
            "weight decay": 1e-4, "not on norm and bias": True, "replacement": False,
            "augmented": True, "label noise": 0.0, "precision": "fp16", "image side": 224,
            "evaluated at the start": False,
        },
    ),
}  # fmt: skip
# How long label noise is trained no script says, and one of ImageNet's does not evaluate its start.
OURS: dict[str, dict[str, Any]] = {
    "fig1a": {},
    "fig1b": {"evaluated at the start": True},
    "fig7a": {"epochs": 8192},
    "fig7b": {"epochs": 8192},
}


def resolve(s: RunSettings) -> dict[str, Any]:
    """Look up what a run does, where it is done, not under the option's name."""
    model = build(s.model, s.data, 0, s.n_groups)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    [norm] = {(type(m), getattr(m, "num_groups", None)) for m in norms} or [None]
    assert s.steps_per_epoch is not None
    schedule = make_schedule(s, s.steps_per_epoch)
    [phase] = schedule.phases
    rates = [schedule.lr(step) for step in (0, s.steps_per_epoch, schedule.steps - 1)]
    return {
        "data": s.dataset, "model": s.model, "start": s.resume,
        "parameters": sum(p.numel() for p in model.parameters()),
        "norm": norm,
        "BatchNorm batches": s.bn_batches if norm == (nn.BatchNorm2d, None) else None,
        "batch per client": s.batch_size, "batch": s.total_batch_size, "K": s.num_clients,
        "steps per epoch": s.steps_per_epoch, "rates": tuple(round(rate, 12) for rate in rates),
        "epochs": schedule.steps / s.steps_per_epoch, "H": phase.local_steps,
        "rounds between": phase.eval_freq, "momentum": s.momentum, "nesterov": s.nesterov,
        "momentum at averaging": s.momentum_averaging, "weight decay": s.wd,
        "not on norm and bias": s.group_weight, "replacement": s.replacement, "augmented": s.aug,
        "label noise": s.noise_p if s.label_noise else 0.0, "decays": len(s.phases) - 1,
        "rule of H": s.h_rule, "precision": s.precision, "image side": s.data.image_size,
        "evaluated on": s.evaluate_on, "samples": s.train_subset,
        "evaluated at the start": s.eval_on_start,
    }  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_a_script_resolves_to_the_papers_settings(name: str) -> None:
    script, expected = TABLE[name]
    assert resolve(parse(*shlex.split(script))) == expected


AUTHORS = load_experiments(ROOT / "experiments" / "authors.yaml").experiments


def authors_runs(name: str) -> list[RunSpec]:
    return expand(AUTHORS[name])


@pytest.mark.parametrize("name", TABLE)
def test_the_authors_scale_runs_the_scripts_and_the_same_with_h_1(name: str) -> None:
    """At H = 1 evaluated after as many steps as at the script's H, from the same start point."""
    script, expected = TABLE[name]
    theirs = parse(*shlex.split(script))
    of_one_seed = [run for run in authors_runs(name) if run.settings.seed == 1]
    assert [run.settings.phases[0].local_steps for run in of_one_seed] == [1, expected["H"]]
    between = expected["H"] * expected["rounds between"]
    at_one = {"H": 1, "rounds between": between}
    for run, changed in zip(of_one_seed, (at_one, {}), strict=True):
        assert resolve(run.settings) == expected | OURS[name] | changed
        assert isinstance(run.start, PublishedCheckpoint)
        assert theirs.resume_pth is not None
        assert run.start.path.name == theirs.resume_pth.rpartition("/")[-1]


def test_figure_3a_changes_the_start_point_and_the_clients_of_figure_1a() -> None:
    """Their README's words on it name the start point; η, H and the number of steps stay."""
    _, expected = TABLE["fig1a"]
    for run in authors_runs("fig3a")[::5]:
        found = resolve(run.settings)
        assert found["K"] * found["batch per client"] == found["batch"]
        changed = {"K", "batch"} | ({"epochs", "steps per epoch"} if found["K"] == 64 else set())
        assert {key for key in found if found[key] != expected[key]} <= changed
        assert found["epochs"] * found["steps per epoch"] == 250 * 12
    assert expected["K"] in {run.settings.num_clients for run in authors_runs("fig3a")}


@pytest.mark.parametrize(("name", "of"), [("fig2e", "fig1a"), ("fig2f", "fig1b")])
def test_the_sweeps_of_h_hold_the_figures_own_runs(name: str, of: str) -> None:
    sweep, own = ({run.id for run in authors_runs(each)} for each in (name, of))
    assert own < sweep
    hs = {run.settings.phases[0].local_steps for run in authors_runs(name)} - {1}
    assert min(hs) < TABLE[of][1]["H"] < max(hs)
