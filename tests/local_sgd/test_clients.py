"""Test the client bank against K plain copies of the model."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.reference import local_sgd
from tests.going_on import by_torch
from trainer.data.specs import DATASETS
from trainer.data.training import Batch
from trainer.distributed.world import World
from trainer.local_sgd.averaging import Averaging, MomentumPolicy
from trainer.local_sgd.clients import ClientBank, Execution, ExecutionPlan
from trainer.local_sgd.optimizer import SGD, AdamW
from trainer.local_sgd.schedule import Round
from trainer.models.registry import build

K, B_LOC, ROUNDS = 4, 6, [3, 3, 2]
SERIAL = ExecutionPlan("serial")
REPLICAS = [SERIAL, ExecutionPlan("vectorized", K), ExecutionPlan("vectorized", 3)]
FUSED = [ExecutionPlan("fused", 1), ExecutionPlan("fused", 3), ExecutionPlan("fused", K)]
DIGITS = DATASETS["digits"]
WORLD = World(0, 1, torch.device("cpu"))


def batches(seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Draw steps of noise images (K, B_loc, 1, 8, 8) and labels (K, B_loc) in float64."""
    draw = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(K, B_LOC, 1, 8, 8, generator=draw, dtype=torch.float64),
            torch.randint(10, (K, B_LOC), generator=draw),
        )
        for _ in range(sum(ROUNDS))
    ]


def batch(images: Tensor, labels: Tensor, first_seed: int = 0) -> Batch:
    return Batch(images=images, labels=labels, seeds=np.arange(first_seed, first_seed + K))


def always(plan: ExecutionPlan) -> Execution:
    return Execution(one_step=plan, several_steps=plan)


def round_of(local_steps: int) -> Round:
    return Round(
        index=1, phase=0, start=0, stop=local_steps, local_steps=local_steps, evaluate=False
    )


def lr(step: int) -> float:
    return 0.1 + 0.02 * step


def trained_by_bank(
    model: nn.Module, optimizer: SGD | AdamW, plan: ExecutionPlan, rounds: list[int] | None = None
) -> Tensor:
    bank = ClientBank(model, K, optimizer, always(plan))
    average = Averaging(bank, WORLD)
    steps = iter(enumerate(batches()))
    for count in rounds or ROUNDS:
        for _ in range(count):
            step, (images, labels) = next(steps)
            bank.step(batch(images, labels), lr(step))
        average()
    return bank.parameters.mean(torch.empty(bank.parameters.size, dtype=torch.float64))


@pytest.mark.parametrize("plan", REPLICAS, ids=str)
@pytest.mark.parametrize("name", ["mlp", "cnn", "cnn_bn"])
@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(),
        SGD(weight_decay=0.01),
        SGD(weight_decay=0.1, group_weight=True, momentum=0.9),
        SGD(weight_decay=0.01, momentum=0.9, nesterov=True),
        AdamW(weight_decay=0.1, group_weight=True, beta2=0.9),
    ],
)
def test_rounds_equal_a_loop_over_plain_copies(
    name: str, optimizer: SGD | AdamW, plan: ExecutionPlan
) -> None:
    model = build(name, DIGITS, seed=5).double()
    expected = local_sgd(
        model,
        batches(),
        ROUNDS,
        K,
        lr,
        weight_decay=optimizer.weight_decay,
        group_weight=optimizer.group_weight,
        **by_torch(optimizer),
    )
    got = trained_by_bank(build(name, DIGITS, seed=5).double(), optimizer, plan)
    wanted = nn.utils.parameters_to_vector(expected.parameters())
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("plan", REPLICAS + FUSED, ids=str)
def test_one_local_step_equals_sgd_with_the_whole_batch(plan: ExecutionPlan) -> None:
    """Check that H = 1 without BatchNorm and momentum is SGD with batch size B = K · B_loc."""
    model = build("cnn", DIGITS, seed=1).double()
    bank = ClientBank(
        build("cnn", DIGITS, seed=1).double(), K, SGD(weight_decay=0.01), always(plan)
    )
    average = Averaging(bank, WORLD)
    sgd = torch.optim.SGD(model.parameters(), lr=0.3, weight_decay=0.01)
    for images, labels in batches():
        bank.step(batch(images, labels), 0.3)
        average()
        sgd.zero_grad()
        nn.functional.cross_entropy(model(images.flatten(0, 1)), labels.flatten()).backward()
        sgd.step()
    wanted = nn.utils.parameters_to_vector(model.parameters())
    flat = bank.parameters.mean(torch.empty(bank.parameters.size, dtype=torch.float64))
    torch.testing.assert_close(flat, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("plan", FUSED, ids=str)
@pytest.mark.parametrize("name", ["mlp", "cnn_bn"])
@pytest.mark.parametrize(
    "optimizer", [SGD(weight_decay=0.01), SGD(weight_decay=0.1, momentum=0.9, nesterov=True)]
)
def test_one_replica_equals_a_loop_over_plain_copies(
    name: str, optimizer: SGD, plan: ExecutionPlan
) -> None:
    """Check rounds of one step, even if each client keeps its momentum."""
    rounds = [1] * sum(ROUNDS)
    expected = local_sgd(
        build(name, DIGITS, seed=5).double(),
        batches(),
        rounds,
        K,
        lr,
        weight_decay=optimizer.weight_decay,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
    )
    got = trained_by_bank(build(name, DIGITS, seed=5).double(), optimizer, plan, rounds)
    wanted = nn.utils.parameters_to_vector(expected.parameters())
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("momentum", "policy"), [(0.0, "keep"), (0.9, "average"), (0.9, "reset")])
def test_a_bank_goes_on_by_another_plan(momentum: float, policy: MomentumPolicy) -> None:
    """Go from H = 1 to H = 3, as post-local SGD does at the switch, and back."""
    expected = local_sgd(
        build("cnn_bn", DIGITS, seed=5).double(),
        batches(),
        [1, 1, 3, 1, 1, 1],
        K,
        lr,
        momentum=momentum,
        momentum_averaging=policy,
    )
    execution = Execution(one_step=FUSED[1], several_steps=REPLICAS[1])
    bank = ClientBank(
        build("cnn_bn", DIGITS, seed=5).double(), K, SGD(momentum=momentum), execution
    )
    average = Averaging(bank, WORLD, policy)
    for step, (images, labels) in enumerate(batches()):
        if step not in (3, 4):
            bank.begin(round_of(3 if step == 2 else 1))
        bank.step(batch(images, labels), lr(step))
        if step not in (2, 3):
            average()
    got = bank.parameters.mean(torch.empty(bank.parameters.size, dtype=torch.float64))
    wanted = nn.utils.parameters_to_vector(expected.parameters())
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_losses_are_those_of_each_client_before_its_step() -> None:
    model = build("mlp", DIGITS, seed=2).double()
    images, labels = batches()[0]
    expected = [nn.functional.cross_entropy(model(images[k]), labels[k]) for k in range(K)]
    for plan in REPLICAS + FUSED:
        bank = ClientBank(build("mlp", DIGITS, seed=2).double(), K, SGD(), always(plan))
        losses = bank.step(batch(images, labels), 0.1)
        torch.testing.assert_close(losses, torch.stack(expected).detach())


def test_a_clients_dropout_is_drawn_from_its_own_seed() -> None:
    """Check this while others draw numbers, for any number of clients per process."""

    def model() -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).double()

    images, labels = batches()[0]
    bank = ClientBank(model(), K, SGD(), always(SERIAL), stochastic=True)
    got = bank.step(batch(images, labels, first_seed=40), 0.1)
    plain = model().train()
    for k in reversed(range(K)):
        torch.manual_seed(40 + k)
        expected = nn.functional.cross_entropy(plain(images[k]), labels[k])
        torch.testing.assert_close(got[k], expected.detach(), rtol=1e-12, atol=0)
