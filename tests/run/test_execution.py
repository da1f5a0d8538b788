"""Which way a run's clients are executed: a rule, and what it must not change."""

from pathlib import Path

import pytest
import torch

from tests.commands import BIN, FORKED, command, torchrun, trainer
from tests.conftest import assert_same_metrics, metrics, one_line
from tests.option_runs import WORLD, configured
from trainer.errors import UserError
from trainer.local_sgd.clients import Execution, ExecutionPlan
from trainer.run.build import make_bank
from trainer.run.execution import SERIAL as SERIAL_RUN
from trainer.run.training_run import TrainingRun

TINY = ("--dataset", "digits", "--batch-size", 32, "--epochs", 3, "--eval-freq1", 1)


SERIAL = ExecutionPlan("serial")
SMALL = ("mlp", "cnn", "cnn_bn")


def chosen(data: Path, **changes: object) -> Execution:
    """Return the execution chosen for 4 clients on one process, before any training."""
    return TrainingRun(configured(data, clients="auto", **changes), WORLD).clients.execution


@pytest.mark.parametrize("model", SMALL)
def test_small_networks_compute_all_clients_in_one_pass(digits: Path, model: str) -> None:
    found = chosen(digits, model=model, step1=1, decay1=1, step2=3)
    assert found.one_step == ExecutionPlan("fused", 4)
    assert found.several_steps == ExecutionPlan("vectorized", 4)


def test_convolutions_of_large_images_compute_one_client_after_the_other(
    tiny_cifar10: Path,
) -> None:
    found = chosen(
        tiny_cifar10, model="resnet20", dataset="cifar10", train_subset=None,
        batch_size=4, total_batch_size=16, step1=2,
    )  # fmt: skip
    assert found.several_steps == SERIAL
    # Products of stacked matrices gain nevertheless.
    linear = chosen(
        tiny_cifar10, model="mlp", dataset="cifar10", train_subset=None,
        batch_size=4, total_batch_size=16, step1=2,
    )  # fmt: skip
    assert linear.several_steps == ExecutionPlan("vectorized", 4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_does_not_reach_inside_vmap(digits: Path, precision: str) -> None:
    assert chosen(digits, precision=precision, step1=3).several_steps == SERIAL


def test_dropout_is_drawn_client_by_client(tiny_cifar10: Path) -> None:
    found = chosen(
        tiny_cifar10, model="mobilenet_v3_small", dataset="cifar10", train_subset=None,
        batch_size=4, total_batch_size=16, bn_batches=1,
    )  # fmt: skip
    assert found.one_step == found.several_steps == SERIAL


def test_momentum_that_clients_keep_is_not_fused_away(digits: Path) -> None:
    """Unless every round is one step: the mean of the parameters needs no more than its mean."""
    post_local = {"step1": 1, "decay1": 1, "step2": 3, "momentum": 0.9}
    assert chosen(digits, **post_local).one_step == ExecutionPlan("vectorized", 4)
    for policy in ("average", "reset"):
        found = chosen(digits, **post_local, momentum_averaging=policy)
        assert found.one_step.mode == "fused"
    assert chosen(digits, step1=1, momentum=0.9).one_step.mode == "fused"


def test_adamw_is_never_fused(digits: Path) -> None:
    """The mean of the clients' updates is not the update by their mean gradient."""
    for policy in ("keep", "average", "reset"):
        found = chosen(digits, step1=1, optimizer="adamw", momentum_averaging=policy)
        assert found.one_step == ExecutionPlan("vectorized", 4)


@pytest.mark.parametrize("mode", ["serial", "vectorized", "fused"])
def test_a_mode_that_is_asked_for_is_taken(digits: Path, mode: str) -> None:
    asked = configured(digits, clients=mode, step1=1)
    found = TrainingRun(asked, WORLD).clients.execution
    assert found.one_step.mode == found.several_steps.mode == mode


def test_compiling_without_a_compiler_is_refused(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    words = ("train", "--data-pth", digits, "--log-pth", tmp_path, *TINY, "--compile", 1)
    assert one_line(trainer(*words)) == (
        "error: compile 1 needs a C++ compiler: install g++, or set compile 0"
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs a C compiler: install gcc"):
        make_bank(configured(digits, compile=1), 4, SERIAL_RUN, torch.device("cuda"))


def test_processes_agree(digits: Path, tmp_path: Path) -> None:
    """One that sums gradients while another averages replicas would hang or differ."""
    words = ("train", "--data-pth", digits, *TINY, "--decay1", 1, "--step2", 3)
    assert trainer(*words, "--log-pth", tmp_path / "one").returncode == 0
    done = torchrun(2, *words, "--log-pth", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert_same_metrics(metrics(tmp_path / "one"), metrics(tmp_path / "two"))


def test_forked_processes_compute_the_same_bits(digits: Path, tmp_path: Path) -> None:
    words = ("train", "--data-pth", digits, *TINY, "--clients", "serial")
    launch = (BIN / "torchrun", "--standalone", "--nproc-per-node", 2)
    own = command(*launch, "-m", "trainer", *words, "--log-pth", tmp_path / "own")
    forked = command(*launch, *FORKED, *words, "--log-pth", tmp_path / "forked")
    assert own.returncode == 0 and forked.returncode == 0, forked.stderr
    assert metrics(tmp_path / "own") == metrics(tmp_path / "forked")
