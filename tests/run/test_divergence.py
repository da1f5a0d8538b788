"""Losses and parameters that are not finite: found at their step, an error or a result."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands import torchrun, trainer
from tests.conftest import metrics, one_line
from tests.option_runs import WORLD, configured, covers
from tests.run.test_resume import checkpoints, signalled
from trainer.errors import UserError
from trainer.local_sgd.clients import ClientBank
from trainer.local_sgd.evaluation import Evaluator, Scores
from trainer.run.session import train
from trainer.tracking.metrics import STATE

WORDS = (
    "--batch-size", 8, "--total-batch-size", 32, "--train-subset", 160, "--step1", 4,
    "--start-lr", 0.6, "--clients", "serial", "--epochs", 400, "--eval-freq1", 100,
)  # fmt: skip


def first_step_not_finite(digits: Path, tmp_path: Path) -> int:
    """Found by asking for the losses of every step, one evaluation each."""
    run = configured(
        digits, precision="fp32", start_lr=0.6, step1=4, epochs=400, seed=0, wd=5e-4,
        log_pth=tmp_path / "plain", eval_freq1=100,
    )  # fmt: skip
    losses = []
    original = ClientBank.step

    def stepped(bank, batch, lr):  # type: ignore[no-untyped-def]
        losses.append(original(bank, batch, lr))
        return losses[-1]

    ClientBank.step = stepped  # type: ignore[method-assign]
    try:
        with pytest.raises(UserError):
            train(run, WORLD)
    finally:
        ClientBank.step = original  # type: ignore[method-assign]
    return next(i for i, loss in enumerate(losses, start=1) if not loss.isfinite().all())


@covers("allow_divergence")
def test_the_step_is_named_and_is_the_result_where_that_is_allowed(
    digits: Path, tmp_path: Path
) -> None:
    """On one process and two, by whichever of them it is noticed first."""
    step = first_step_not_finite(digits, tmp_path)
    lines = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        words = ["train", "--data-pth", digits, "--log-pth", folder, *WORDS]
        refused = torchrun(processes, *words)
        assert refused.returncode != 0
        [error] = {line for line in refused.stderr.splitlines() if line.startswith("error: ")}
        assert f"the loss is not finite at step {step} (lr 2.4, H 4): training diverged" in error
        assert "lower start_lr" in error and "no checkpoint yet" in error
        assert not (folder / "metrics.jsonl").exists()
        done = torchrun(processes, *words, "--allow-divergence", 1)
        assert done.returncode == 0, done.stderr
        assert f"diverged: the loss is not finite at step {step}" in done.stderr
        lines.append(metrics(folder)[-1])
        assert [line["diverged"] for line in metrics(folder)].count(True) == 1
        assert (folder / "model.pt").exists()
    assert lines[0] == lines[1]
    last = lines[0]
    assert (last["step"], last["train_loss"], last["test_loss"]) == (step, None, None)
    assert last["test_accuracy"] == pytest.approx(0.1, abs=0.02)  # it guesses one class of ten


def test_the_last_good_checkpoint_is_named_and_leads_there_again(
    digits: Path, tmp_path: Path
) -> None:
    words = ["train", "--data-pth", digits, "--log-pth", tmp_path, *WORDS, "--checkpoint-every", 0]
    first, again = one_line(trainer(*words)), one_line(trainer(*words))
    assert first == again
    step = int(re.findall(r"at step (\d+)", first)[0])
    newest = checkpoints(configured(digits, log_pth=tmp_path))[-1]
    assert f"the last good checkpoint is {newest}" in first
    assert int(newest.name.removeprefix("step=")) == step - 1


def test_parameters_that_are_not_finite_are_never_saved(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that no loss has seen yet."""
    run = configured(digits, log_pth=tmp_path, step1=4)
    original = ClientBank.step

    def stepped(bank, batch, lr):  # type: ignore[no-untyped-def]
        losses = original(bank, batch, lr)
        bank.parameters.memory[17] = torch.inf
        return losses

    monkeypatch.setattr(ClientBank, "step", stepped)
    with signalled(1), pytest.raises(UserError, match="parameters are not finite at step 1 "):
        train(run, WORLD)
    assert not list((tmp_path / STATE).glob("*"))


def test_an_averaged_round_whose_loss_is_not_finite_is_not_averaged_again(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outer optimizer would take another step, the mean the same iterate twice."""
    outer = {"outer_momentum": 0.9, "weight_averaging1": "ema", "step1": 5, "epochs": 2}
    expected = configured(digits, log_pth=tmp_path / "expected", **outer)
    train(expected, WORLD)
    run = configured(digits, log_pth=tmp_path / "run", allow_divergence=True, **outer)
    original = Evaluator.__call__

    def evaluated(evaluator: Evaluator, model: nn.Module) -> Scores:
        return replace(original(evaluator, model), loss=math.nan)

    monkeypatch.setattr(Evaluator, "__call__", evaluated)
    train(run.model_copy(update={"eval_freq1": 100}), WORLD)
    assert metrics(run.log_pth)[-1]["diverged"]
    one, other = (torch.load(s.log_pth / "model.pt", weights_only=True) for s in (expected, run))
    for name in one:
        assert torch.equal(one[name], other[name])


@pytest.mark.parametrize(
    ("words", "lower"),
    [
        (("--lr", 1e6), "lower lr, or H"),
        (("--warm-up", 1, "--max-lr", 1e6), "lower max_lr, or H"),
        (("--start-lr", 1e6), "lower start_lr, or H"),
    ],
)
def test_the_setting_to_lower_is_the_one_that_was_set(
    digits: Path, tmp_path: Path, words: tuple[object, ...], lower: str
) -> None:
    done = trainer("train", "--data-pth", digits, "--log-pth", tmp_path, "--epochs", 200, *words)
    assert lower in one_line(done)


@pytest.mark.parametrize(("sharpness", "precision"), [(0, "fp32"), (1, "fp32"), (0, "fp16")])
def test_a_run_that_diverges_at_once_says_what_to_do(
    digits: Path, tmp_path: Path, sharpness: int, precision: str
) -> None:
    done = trainer("train", "--data-pth", digits, "--log-pth", tmp_path, "--epochs", 200,
                   "--start-lr", 1e6, "--sharpness", sharpness,
                   "--precision", precision)  # fmt: skip
    message = one_line(done)
    assert "not finite at step" in message
    assert "lower start_lr" in message
    assert ("set precision bf16" in message) == (precision == "fp16")  # it may have overflowed
