"""Memory for the clients: what is needed, and what is said where it is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.commands import command
from tests.conftest import one_line
from tests.option_runs import WORLD, configured
from trainer.data.training import Batch
from trainer.errors import UserError
from trainer.local_sgd.clients import ClientBank, ExecutionPlan
from trainer.local_sgd.optimizer import SGD
from trainer.local_sgd.outer import Outer
from trainer.run import memory
from trainer.run.execution import ONE_BY_ONE, SERIAL
from trainer.run.memory import CPU, MemoryEstimate, fits, free_bytes, out_of_memory_message
from trainer.run.training_run import TrainingRun
from trainer.settings.run import RunSettings

IMAGENET = RunSettings(model="resnet50", batch_size=32, total_batch_size=8192)
PARAMETERS = 4 * 25_557_032  # of ResNet-50, in bytes
NEED = MemoryEstimate(replica=PARAMETERS, gradients=PARAMETERS, activations=3 * 10**9 - PARAMETERS)
GPU = torch.device("cuda", 0)


def room(monkeypatch: pytest.MonkeyPatch, size: float, on_gpu: float = 0) -> None:
    sizes = {"cpu": int(size), "cuda": int(on_gpu)}
    monkeypatch.setattr(memory, "free_bytes", lambda device: sizes[device.type])


def test_the_papers_imagenet_run_is_told_how_many_gpus_would_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """256 replicas of 102 MB are 26.2 GB; 3 GB more for one at work."""
    room(monkeypatch, 0, on_gpu=16e9)
    assert not fits(NEED, 256, ONE_BY_ONE, GPU) and fits(NEED, 64, ONE_BY_ONE, GPU)
    assert out_of_memory_message(IMAGENET, NEED, 256, ONE_BY_ONE, GPU, 1) == (
        "K = 256 clients: 256 of model resnet50 on each process need about 29.2GB of memory, "
        "16.0GB are free on cuda:0; start 4 processes"
    )
    room(monkeypatch, 0, on_gpu=1e9)
    said = out_of_memory_message(IMAGENET, NEED, 256, ONE_BY_ONE, GPU, 1)
    assert "; lower total_batch_size" in said


def test_clients_of_one_pass_have_gradients_and_activations_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """8 replicas of 10, with 10 of gradients and 5 of activations for each at work."""
    need = MemoryEstimate(replica=10, gradients=10, activations=5, shared=3)
    assert need.total(8, ONE_BY_ONE) == 80 + 15 + 3
    assert need.total(8, ExecutionPlan("vectorized", 4)) == 80 + 4 * 15 + 3
    assert need.total(1, ExecutionPlan("fused", 4)) == 10 + 10 + 4 * 5 + 3
    room(monkeypatch, 0, on_gpu=8 * 10**9)
    gigabytes = MemoryEstimate(replica=10**9, gradients=10**9, activations=10**9)
    said = out_of_memory_message(
        RunSettings(batch_size=8, total_batch_size=32),
        gigabytes,
        4,
        ExecutionPlan("vectorized", 4),
        GPU,
        1,
    )
    assert said.endswith(
        "need about 12.0GB of memory, 8.00GB are free on cuda:0; start 2 processes"
    )


def test_outer_state_and_the_mean_of_iterates_are_counted_once_for_all_clients() -> None:
    """6 parameters in float32 are 24 bytes; the outer x and its momentum, and a mean in float64."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False))
    one = ClientBank(model, 1, SGD(momentum=0.9), SERIAL)
    batch = Batch(
        images=torch.zeros(1, 5, 3, 1, 1),
        labels=torch.zeros(1, 5, dtype=torch.int64),
        seeds=np.zeros(1, np.int64),
    )
    for outer, averages, shared in (
        (Outer(), False, 0),
        (Outer(lr=0.7), False, 24),
        (Outer(lr=0.7, momentum=0.9, nesterov=True), True, 24 + 24 + 48),
    ):
        need = MemoryEstimate.of_client(one, batch, outer, averages_weights=averages)
        assert (need.replica, need.gradients, need.shared) == (24 + 24, 24, shared)


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    whole = free_bytes(CPU)
    assert 0.5 < whole / psutil.virtual_memory().available < 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes(CPU) == pytest.approx(whole / 4, rel=0.3)
    room(monkeypatch, 1e9)
    assert "more machines" in out_of_memory_message(IMAGENET, NEED, 256, ONE_BY_ONE, CPU, 1)


def test_a_run_without_memory_is_refused_before_it_takes_any(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingRun(configured(digits, log_pth=tmp_path), WORLD)
    replica = run.clients.parameters.memory.nbytes // 4
    assert replica == 8 * 26_122
    said = r"K = 4 clients: 4 of model mlp on each process need"
    room(monkeypatch, 4.5 * replica)  # four clients, and half of the gradients of one
    with pytest.raises(UserError, match=said):
        TrainingRun(configured(digits, log_pth=tmp_path), WORLD)
    room(monkeypatch, 7.5 * replica)  # four clients, with the gradients of less than four
    with pytest.raises(UserError, match=said):
        TrainingRun(configured(digits, log_pth=tmp_path, clients="vectorized"), WORLD)
    assert TrainingRun(configured(digits, log_pth=tmp_path), WORLD).clients.parameters.count == 4
    fused = configured(digits, log_pth=tmp_path, step1=1, clients="fused")
    assert TrainingRun(fused, WORLD).clients.parameters.count == 1


FEW = {"replacement": True, "steps_per_epoch": 1, "batch_size": 1}


@pytest.mark.parametrize(
    ("changes", "said", "lower"),
    [
        (
            {**FEW, "total_batch_size": 10**14},
            "total_batch_size 100000000000000 × steps_per_epoch 1: the order",
            "total_batch_size or steps_per_epoch",
        ),
        (
            {"replacement": True, "steps_per_epoch": 10**13},
            "steps_per_epoch 10000000000000: the order",
            "total_batch_size or steps_per_epoch",
        ),
        (
            {"model": "cnn_bn", "bn_batches": 10**14},
            "bn_batches 100000000000000 × batch_size",
            "bn_batches or batch_size",
        ),
    ],
)
def test_samples_that_no_memory_can_order_are_refused(
    digits: Path, tmp_path: Path, changes: dict[str, object], said: str, lower: str
) -> None:
    ending = rf"need about .*B of memory, .*B are free; lower {lower}$"
    with pytest.raises(UserError, match=ending) as told:
        TrainingRun(configured(digits, log_pth=tmp_path, train_subset=None, **changes), WORLD)
    assert said in str(told.value)


def test_a_step_whose_images_no_memory_can_hold_is_refused(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As float64 and as bytes; the order of the samples would take 0.3 GB."""
    room(monkeypatch, 1e9)
    said = (
        "total_batch_size 5000000: the images of a step on each process need about 2.88GB of "
        "memory, 1.00GB are free; lower total_batch_size$"
    )
    with pytest.raises(UserError, match=said):
        TrainingRun(configured(digits, log_pth=tmp_path, **FEW, total_batch_size=5_000_000), WORLD)


def test_a_batch_too_large_to_be_tried_is_known_by_a_part(digits: Path, tmp_path: Path) -> None:
    run = TrainingRun(configured(digits, log_pth=tmp_path), WORLD)
    few, many = (
        Batch(
            images=torch.zeros(1, n, 1, 8, 8, dtype=torch.float64),
            labels=torch.zeros(1, n, dtype=torch.int64),
            seeds=np.zeros(1, np.int64),
        )
        for n in (64, 64_000)
    )
    assert run.clients.activation_bytes(many) == pytest.approx(
        1000 * run.clients.activation_bytes(few), rel=0.01
    )


def test_memory_that_runs_out_is_one_line(digits: Path, tmp_path: Path) -> None:
    """Of an address space of 4 GB, which no one is told of beforehand."""
    train = f'"{sys.executable}" -m trainer train --data-pth "{digits}" --log-pth "{tmp_path}"'
    large = "--replacement 1 --steps-per-epoch 1 --batch-size 4000000 --total-batch-size 4000000"
    message = one_line(command("bash", "-c", f"ulimit -v 4000000; {train} {large}"))
    assert "memory ran out" in message and "lower batch_size" in message
