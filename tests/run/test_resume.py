"""A run that is stopped anywhere and started again ends with the same bits as one that is not."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from tests.analysis.test_reference import VARIANTS, WORLD, settings
from trainer.data.training import Batch
from trainer.errors import StoppedError, UserError
from trainer.local_sgd.clients import ClientBank
from trainer.run.session import train
from trainer.settings.run import RunSettings
from trainer.tracking.metrics import STATE

pytestmark = pytest.mark.slow  # it begins early

STEPS = 21  # of the variants
FILES = ("metrics.jsonl", "model.pt")


@contextmanager
def signalled(step: int) -> Iterator[None]:
    """SIGTERM to this process during the ``step``-th step from now; 0: before the first."""
    original, count = ClientBank.step, 0

    def stepped(bank: ClientBank, batch: Batch, lr: float) -> Tensor:
        nonlocal count
        count += 1
        if count == max(1, step):
            os.kill(os.getpid(), signal.SIGTERM)
        return original(bank, batch, lr)

    ClientBank.step = stepped  # type: ignore[method-assign]
    try:
        yield
    finally:
        ClientBank.step = original  # type: ignore[method-assign]


def stopped(run: RunSettings, step: int) -> str:
    with signalled(step), pytest.raises(StoppedError) as stop:
        train(run, WORLD)
    return str(stop.value)


def bits(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def checkpoints(run: RunSettings) -> list[Path]:
    """List the run's checkpoints, oldest first."""
    return sorted((run.log_pth / STATE).glob("*"), key=lambda path: int(path.name[5:]))


MORE = {
    **{name: VARIANTS[name].changes for name in ("noise", "batchnorm", "momentum", "qsr")},
    "momentum_average": VARIANTS["momentum_average"].changes,
    "replacement": VARIANTS["replacement"].changes,
    **{name: VARIANTS[name].changes for name in ("slowmo", "adamw_keep", "adamw_reset")},
    "outer momentum of one replica": {"step1": 1, "step2": 1, "clients": "fused", "outer_lr": 0.7,
                                      "outer_momentum": 0.9, "outer_nesterov": True},
    **{name: VARIANTS[name].changes for name in ("swa", "swa_in_both_phases")},
    "vectorized": {"clients": "vectorized", "momentum": 0.9},
    "fused": {"step1": 1, "step2": 1, "clients": "fused", "momentum": 0.9},
    "rare evaluations": {"eval_freq1": 100, "eval_freq2": 3, "eval_on_start": False},
    "no augmentation, sharpness": {"aug": False, "sharpness": True, "sharpness_samples": 10},
    "saved models": {"save_freq1": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_a_run_stopped_at_any_steps_ends_with_the_same_bits(
    digits: Path, tmp_path: Path, name: str
) -> None:
    changes = {"clients": "serial", **MORE[name]}
    whole = settings(digits, log_pth=tmp_path / "whole", **changes)
    train(whole, WORLD)

    @seed(0)
    @hypothesis_settings(max_examples=4)
    @given(stops=st.lists(st.integers(1, STEPS), min_size=1, max_size=4))
    def check(stops: list[int]) -> None:
        run = settings(digits, log_pth=tmp_path / "run", **changes)
        done = 0
        for stop in stops:
            done += stop
            if done > STEPS:
                break
            said = stopped(run, stop)
            assert f"SIGTERM; saved at step {done}, start it again" in said
            assert [path.name for path in checkpoints(run)][-1] == f"step={done}"
            assert not (run.log_pth / "metrics.jsonl").exists()
        train(run, WORLD)
        assert bits(run.log_pth) == bits(whole.log_pth)
        assert not (run.log_pth / STATE).exists()
        names = {path.name for path in whole.log_pth.glob("*.pt")}
        assert {path.name for path in run.log_pth.glob("*.pt")} == names
        shutil.rmtree(run.log_pth)

    check()


def test_a_checkpoint_holds_one_replica_after_averaging_and_all_within_a_round(
    digits: Path, tmp_path: Path
) -> None:
    run = settings(digits, log_pth=tmp_path, clients="serial")  # rounds end at 3, 6, 7, 12 …
    for step, replicas in ((6, 1), (4, run.num_clients)):
        stopped(run, step)
        folder = checkpoints(run)[-1]
        saved = torch.load(folder / "0-of-1.pt", weights_only=True)
        assert {len(tensor) for tensor in saved["parameters"].values()} == {replicas}


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_a_stop_an_error(
    digits: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = settings(digits, log_pth=tmp_path, clients="serial", checkpoint_every=0)
    (tmp_path / STATE).write_text("in the way")
    train(run, WORLD)
    said = capfd.readouterr().err
    assert said.count("no checkpoint can be written (Not a directory); check") == STEPS
    (tmp_path / STATE).write_text("in the way")
    with signalled(3), pytest.raises(UserError, match="no checkpoint can be written"):
        train(run, WORLD)
