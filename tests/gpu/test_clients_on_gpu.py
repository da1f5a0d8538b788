"""Clients on the GPU against plain copies of the model on the CPU, in all ways of execution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.reference import local_sgd
from tests.gpu.needs import needs_compiler, needs_gpu
from trainer.data.specs import DATASETS
from trainer.data.training import Batch
from trainer.distributed.world import World
from trainer.local_sgd.averaging import Averaging
from trainer.local_sgd.clients import ClientBank, Execution, ExecutionPlan
from trainer.local_sgd.optimizer import SGD
from trainer.models.registry import build

K, B_LOC = 4, 6
SIDE = 32 if torch.cuda.is_available() else 8  # pixels; few suffice to try the checks themselves
CIFAR10 = DATASETS["cifar10"]
OPTIMIZER = SGD(weight_decay=0.01, group_weight=True, momentum=0.9)
SERIAL = ExecutionPlan("serial")
VECTORIZED = [ExecutionPlan("vectorized", K), ExecutionPlan("vectorized", 3)]
FUSED = [ExecutionPlan("fused", 3), ExecutionPlan("fused", K)]
TOLERANCE = {torch.float64: (1e-9, 1e-11), torch.float32: (1e-3, 1e-4)}


def steps(count: int, dtype: torch.dtype, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Draw images (K, B_loc, 3, SIDE, SIDE) and labels on the CPU, equal on all devices."""
    draw = torch.Generator().manual_seed(3)
    shape = (K, B_LOC, 3, SIDE, SIDE)
    images = [torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(count)]
    labels = [torch.randint(10, (K, B_LOC), generator=draw) for _ in range(count)]
    return [(x.to(device, dtype), y.to(device)) for x, y in zip(images, labels, strict=True)]


def trained(
    model: str,
    plan: ExecutionPlan,
    rounds: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    optimizer: SGD = OPTIMIZER,
    **options: object,
) -> tuple[Tensor, Tensor]:
    """Return the averaged parameters, on the CPU in float64, and the losses of the last step."""
    template = build(model, CIFAR10, seed=5).to(device, dtype)
    bank = ClientBank(
        template, K, optimizer, Execution(one_step=plan, several_steps=plan), **options
    )
    average = Averaging(bank, World(0, 1, device))
    data = iter(steps(sum(rounds), dtype, device))
    for count in rounds:
        for _ in range(count):
            images, labels = next(data)
            losses = bank.step(Batch(images=images, labels=labels, seeds=np.arange(K)), 0.02)
        average()
    assert {p.device.type for p in bank.parameters.tensors.values()} == {device.type}
    flat = bank.parameters.mean(torch.empty_like(bank.parameters.memory[: bank.parameters.size]))
    return flat.cpu().double(), losses.cpu().double()


@cache
def reference(
    model: str, rounds: tuple[int, ...], dtype: torch.dtype, optimizer: SGD = OPTIMIZER
) -> Tensor:
    """Train plain copies on the CPU; once for all plans, as a GPU computes them faster."""
    trained = local_sgd(
        build(model, CIFAR10, seed=5).to(dtype),
        steps(sum(rounds), dtype, torch.device("cpu")),
        rounds,
        K,
        lambda step: 0.02,
        weight_decay=optimizer.weight_decay,
        group_weight=optimizer.group_weight,
        momentum=optimizer.momentum,
    )
    return nn.utils.parameters_to_vector(trained.parameters()).detach().double()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("plan", [SERIAL, *VECTORIZED], ids=str)
@pytest.mark.parametrize("model", ["resnet8", "resnet8_gn"])
def test_rounds_equal_plain_copies_on_the_cpu(
    model: str, plan: ExecutionPlan, dtype: torch.dtype, device: torch.device
) -> None:
    got, _ = trained(model, plan, (3, 2), dtype, device)
    rtol, atol = TOLERANCE[dtype]
    torch.testing.assert_close(got, reference(model, (3, 2), dtype), rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("plan", FUSED, ids=str)
def test_one_replica_for_h_1_equals_plain_copies_on_the_cpu(
    plan: ExecutionPlan, dtype: torch.dtype, device: torch.device
) -> None:
    sgd = SGD(weight_decay=0.01)
    got, _ = trained("resnet8_gn", plan, [1, 1, 1], dtype, device, sgd)
    rtol, atol = TOLERANCE[dtype]
    expected = reference("resnet8_gn", (1, 1, 1), dtype, sgd)
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


@needs_gpu
@pytest.mark.parametrize("plan", [SERIAL, VECTORIZED[0]], ids=str)
def test_tf32_is_what_pytorch_says_it_is(plan: ExecutionPlan, device: torch.device) -> None:
    """Lose a few of float32's bits, as fractions of 10 bits do, and no more."""
    torch.backends.cudnn.allow_tf32 = True
    _, rounded = trained("resnet8", plan, [1], torch.float32, device)
    torch.backends.cudnn.allow_tf32 = False
    _, exact = trained("resnet8", plan, [1], torch.float32, device)
    assert ((rounded - exact).abs() / exact).max() < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("plan", [SERIAL, FUSED[0]], ids=str)
def test_16_bits_stay_near_float32_and_the_parameters_in_it(
    plan: ExecutionPlan, dtype: torch.dtype, device: torch.device
) -> None:
    sgd = SGD(weight_decay=0.01)
    got, losses = trained("resnet8_gn", plan, [1, 1], torch.float32, device, sgd, autocast=dtype)
    exact, exact_losses = trained("resnet8_gn", plan, [1, 1], torch.float32, device, sgd)
    torch.testing.assert_close(losses, exact_losses, rtol=0.05, atol=0.02)
    assert (got != exact).any()
    # Two steps apart: by less than a tenth of how far these two steps have gone
    moved = exact - nn.utils.parameters_to_vector(build("resnet8_gn", CIFAR10, 5).parameters())
    assert (got - exact).norm() < 0.1 * moved.norm()


@needs_gpu
@needs_compiler
@pytest.mark.parametrize("plan", [SERIAL, VECTORIZED[0], FUSED[0]], ids=str)
def test_compiled_passes_compute_the_same(plan: ExecutionPlan, device: torch.device) -> None:
    sgd, rounds = SGD(weight_decay=0.01), [1, 1]
    got, _ = trained("resnet8_gn", plan, rounds, torch.float32, device, sgd, compiled=True)
    plain, _ = trained("resnet8_gn", plan, rounds, torch.float32, device, sgd)
    torch.testing.assert_close(got, plain, rtol=1e-3, atol=1e-4)


def test_the_same_steps_give_the_same_bits(deterministic: None, device: torch.device) -> None:
    for plan in (SERIAL, VECTORIZED[0]):
        first, _ = trained("resnet8", plan, [2, 2], torch.float32, device)
        again, _ = trained("resnet8", plan, [2, 2], torch.float32, device)
        assert torch.equal(first, again), plan
