"""Run the example of docs/from-python.md, and compare it with a plain loop over K copies."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from bench.reference import local_sgd
from tests.commands import ROOT
from trainer.errors import UserError
from trainer.local_sgd.schedule import Phase, Schedule
from trainer.local_sgd.simulate import simulate

[EXAMPLE] = re.findall(
    "```python\n(.*?)```", (ROOT / "docs/from-python.md").read_text("utf-8"), re.S
)
ROUNDS = [8] * 50


def test_the_example_is_a_plain_loop_over_copies(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLE.splitlines()) <= 18
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        start = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
        torch.manual_seed(0)  # so that the example's model is the same
        made: dict[str, Any] = {}
        exec(compile(EXAMPLE, "docs/from-python.md", "exec"), made)  # noqa: S102
    finally:
        torch.set_default_dtype(torch.float32)
    wanted = local_sgd(
        start,
        zip(made["inputs"], made["targets"], strict=True),
        ROUNDS,
        4,
        lambda step: 0.1,
        momentum=0.9,
        loss=F.mse_loss,
    )
    got, expected = (parameters_to_vector(m.parameters()) for m in (made["model"], wanted))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [int(step) for step, _ in printed] == [80, 160, 240, 320, 400]
    assert float(printed[-1][1]) < 0.1 * made["targets"].var()


class Centred(nn.Module):
    """Mix the samples of a batch, and take inputs of two dimensions: for which no path is made."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.score = nn.Linear(6, 3)

    def forward(self, words: Tensor) -> Tensor:
        mean = self.embedding(words).mean(1)
        scores: Tensor = self.score(mean - mean.mean(0))
        return scores


class Mixing(nn.Sequential):
    """Mix the samples of a batch in a model whose layers are all linear."""

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = super().forward(x - x.mean(0))
        return mixed


def smooth(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("kind", ["words", "linear"])
def test_any_model_and_loss_in_phases_with_a_mean(kind: str, vectorized: bool) -> None:
    torch.manual_seed(1)
    model: nn.Module = Centred() if kind == "words" else Mixing(nn.Linear(5, 4), nn.Linear(4, 3))
    model.double()
    start = copy.deepcopy(model)
    words = torch.randint(11, (8, 3, 4, 5))
    inputs = words if kind == "words" else torch.randn(8, 3, 4, 5, dtype=torch.float64)
    batches = list(zip(inputs, torch.randint(3, (8, 3, 4)), strict=True))
    first = Phase(start=0, stop=5, lr_factor=1.0, local_steps=2, eval_freq=1,
                  weight_averaging="swa")  # fmt: skip
    last = Phase(start=5, stop=8, lr_factor=0.5, local_steps=2, eval_freq=1)
    schedule = Schedule(phases=(first, last), peak_lr=0.2, initial_lr=0.2, warmup_steps=0)
    ends, losses = [], []
    for step in simulate(
        model, batches, schedule, num_clients=3, loss=smooth, vectorized=vectorized
    ):
        losses.append(step.losses)
        if step.ends_round:
            ends.append(parameters_to_vector(model.parameters()).detach())
    assert [tuple(loss.shape) for loss in losses] == [(3,)] * 8
    rounds = [2, 2, 1, 2, 1]
    for i, end in enumerate(ends, start=1):
        wanted = local_sgd(
            start,
            batches,
            rounds[:i],
            3,
            lambda step: 0.2 if step < 5 else 0.1,
            weight_averaging=((min(i, 3), "swa"), (max(i - 3, 0), "none")),
            loss=smooth,
        )
        torch.testing.assert_close(
            end, parameters_to_vector(wanted.parameters()), rtol=0, atol=1e-10
        )


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((9, 3, 4, 2), r"inputs of shape \(3, 4, 2\) at step 0, but num_clients is 4; give"),
        ((6, 4, 4, 2), "6 steps, but the schedule has 9; give more batches"),
    ],
)
def test_batches_that_do_not_fit_are_one_line(shape: tuple[int, ...], said: str) -> None:
    schedule = Schedule.constant(steps=9, local_steps=2, lr=0.1)
    inputs = torch.rand(shape)
    batches = zip(inputs, inputs, strict=True)
    with pytest.raises(UserError, match=said):
        list(simulate(nn.Linear(2, 2), batches, schedule, num_clients=4, loss=F.mse_loss))
