"""Test outer optimizers: every way of execution against plain copies, and against torchft's DiLoCo.

torchft is no dependency: ``pip install torchft`` to run its test.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn

from bench.reference import local_sgd
from tests.going_on import by_torch
from tests.local_sgd.test_clients import DIGITS, FUSED, REPLICAS, WORLD, K, always, batch, batches
from trainer.local_sgd.averaging import Averaging
from trainer.local_sgd.clients import ClientBank, ExecutionPlan
from trainer.local_sgd.optimizer import SGD, AdamW
from trainer.local_sgd.outer import Outer
from trainer.models.registry import build

DILOCO = Outer(lr=0.7, momentum=0.9, nesterov=True)
SLOWMO = Outer(lr=0.8, momentum=0.6, slowmo=True)
MOMENTUM, ADAMW = SGD(weight_decay=0.01, momentum=0.9), AdamW(weight_decay=0.1)
STEPS = 8


def lr(step: int) -> float:
    return 0.02 * 0.7**step


def trained(optimizer: SGD | AdamW, outer: Outer, plan: ExecutionPlan, rounds: list[int]) -> Tensor:
    """Return all clients' parameters (K or 1, P) after ``rounds``."""
    bank = ClientBank(build("mlp", DIGITS, seed=5).double(), K, optimizer, always(plan))
    average = Averaging(bank, WORLD, outer=outer)
    steps = iter(enumerate(batches()))
    for count in rounds:
        for _ in range(count):
            step, (images, labels) = next(steps)
            bank.step(batch(images, labels), lr(step))
        average(lr(step))
    return torch.cat([tensor.flatten(1) for tensor in bank.parameters.all().values()], 1)


@pytest.mark.parametrize("outer", [Outer(lr=0.5), DILOCO, SLOWMO], ids=["lr", "diloco", "slowmo"])
@pytest.mark.parametrize(
    ("optimizer", "plan", "rounds"),
    [
        *((optimizer, plan, [3, 3, 2]) for optimizer in (MOMENTUM, ADAMW) for plan in REPLICAS),
        *((MOMENTUM, plan, [1] * STEPS) for plan in FUSED),
        (ADAMW, REPLICAS[1], [1] * STEPS),
    ],
    ids=str,
)
def test_rounds_equal_a_loop_over_plain_copies(
    optimizer: SGD | AdamW, outer: Outer, plan: ExecutionPlan, rounds: list[int]
) -> None:
    model = local_sgd(
        build("mlp", DIGITS, seed=5).double(),
        batches(),
        rounds,
        K,
        lr,
        weight_decay=optimizer.weight_decay,
        **by_torch(optimizer),
        outer_lr=outer.lr,
        outer_momentum=outer.momentum,
        outer_nesterov=outer.nesterov,
        outer_slowmo=outer.slowmo,
    )
    wanted = nn.utils.parameters_to_vector(model.parameters())
    for replica in trained(optimizer, outer, plan, rounds):
        torch.testing.assert_close(replica, wanted, rtol=1e-10, atol=1e-12)


def test_slowmo_is_its_papers_algorithm() -> None:
    """Check u ← β·u + (x − mean)/γ, x ← x − α·γ·u on numbers; γ is η, as the paper calls it."""
    bank = ClientBank(nn.Linear(1, 1, bias=False).double(), 1, SGD(), always(REPLICAS[0]))
    [w] = bank.parameters.all().values()
    w.fill_(1.0)
    average = Averaging(bank, WORLD, outer=Outer(lr=0.5, momentum=0.6, slowmo=True))
    x, u = 1.0, 0.0
    for moved, gamma in ((-0.3, 0.1), (0.2, 0.01), (-0.1, 0.04)):
        w += moved
        average(gamma)
        u = 0.6 * u - moved / gamma
        x -= 0.5 * gamma * u
        assert w.item() == pytest.approx(x, rel=1e-12)


def test_a_learning_rate_beyond_floats_is_no_error_here() -> None:
    """Leave it to the check for parameters that are not finite, which says so in one line."""
    bank = ClientBank(build("mlp", DIGITS, seed=5), K, SGD(), always(REPLICAS[0]))
    bank.parameters.memory[0] += 1
    Averaging(bank, WORLD, outer=Outer(lr=1e300))()
    assert not bank.parameters.memory.isfinite().all()


def test_plain_averaging_holds_nothing_more() -> None:
    bank = ClientBank(build("mlp", DIGITS, seed=5), K, SGD(), always(REPLICAS[0]))
    assert Averaging(bank, WORLD, outer=Outer()).outer is None


class Meeting:
    """Average tensors of K threads in place, in the order in which each thread brings them."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(K, timeout=60)
        self._brought: list[Tensor] = [torch.empty(0)] * K

    def average(self, client: int, tensor: Tensor) -> MagicMock:
        self._brought[client] = tensor.clone()
        self._barrier.wait()
        mean = torch.stack(self._brought).mean(0)
        self._barrier.wait()
        tensor.copy_(mean)
        return MagicMock()  # work that is done


def test_diloco_is_torchfts() -> None:
    """Check AdamW inside and Nesterov outside, as DiLoCo's authors train."""
    diloco = pytest.importorskip("torchft.local_sgd", reason="needs torchft").DiLoCo
    meeting, data = Meeting(), batches()[:6]
    models = [build("mlp", DIGITS, seed=5).double() for _ in range(K)]  # draws from torch's state

    def client(k: int) -> Tensor:
        model = models[k]
        inner = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.1)
        outer = torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.9, nesterov=True)
        manager = MagicMock(_use_async_quorum=False)
        manager.current_step.return_value = 0
        manager.allreduce = lambda tensor, **_: meeting.average(k, tensor)
        with diloco(manager, [model], inner, outer, sync_every=3):
            for step, (images, labels) in enumerate(data):
                inner.param_groups[0]["lr"] = lr(step)
                inner.zero_grad()
                nn.functional.cross_entropy(model(images[k]), labels[k]).backward()
                inner.step()
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    with ThreadPoolExecutor(K) as pool:
        theirs = list(pool.map(client, range(K)))
    ours = trained(ADAMW, DILOCO, REPLICAS[1], [3, 3])
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-10, atol=1e-12)
