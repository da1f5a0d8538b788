"""Clients in 16 bits, and compiled: what rounds, what does not."""

import pytest
import torch
from torch import Tensor, nn

from tests.local_sgd.test_clients import B_LOC, DIGITS, SERIAL, WORLD, K, always, batch, batches
from trainer.local_sgd.averaging import Averaging
from trainer.local_sgd.clients import ClientBank, ExecutionPlan
from trainer.local_sgd.optimizer import SGD
from trainer.models.registry import build


def test_bfloat16_rounds_the_forward_passes_alone() -> None:
    images, labels = batches()[0]
    images = 20 * images.float()  # for losses that bfloat16 changes visibly
    plain = build("cnn_bn", DIGITS, seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        logits = plain(images[1])
    expected = nn.functional.cross_entropy(logits.float(), labels[1])
    exact = nn.functional.cross_entropy(plain(images[1]), labels[1])
    bank = ClientBank(
        build("cnn_bn", DIGITS, seed=2), K, SGD(), always(SERIAL), autocast=torch.bfloat16
    )
    loss = bank.step(batch(images, labels), 0.1)[1]
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=0)
    assert 1e-4 < abs(exact - expected) < 0.1
    assert {p.dtype for p in bank.parameters.tensors.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("plan", "clients"),
    [
        (ExecutionPlan("serial"), K),
        (ExecutionPlan("fused", K), K),
        (ExecutionPlan("fused", 16), 1024),
    ],
    ids=str,
)
def test_float16_keeps_gradients_that_are_below_its_smallest_number(
    plan: ExecutionPlan, clients: int
) -> None:
    images = torch.randn(clients, B_LOC, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = images + 1  # lest the mean over many clients is as small as its rounding
    labels = torch.zeros(clients, B_LOC, dtype=torch.long)

    def moved(dtype: torch.dtype | None) -> Tensor:
        linear = nn.Linear(64, 10)
        nn.init.zeros_(linear.weight)
        with torch.no_grad():  # so sure of class 0 that the loss's gradient is about 1e-8
            linear.bias.copy_(torch.tensor([16.0] + 9 * [0.0]))
        model = nn.Sequential(nn.Flatten(), linear)
        bank = ClientBank(model, clients, SGD(), always(plan), autocast=dtype)
        bank.step(batch(images, labels), lr=1e4)
        return bank.parameters.tensors["1.weight"][0].clone()

    expected = moved(None)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(moved(torch.float16), expected, rtol=0.05, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan", [SERIAL, ExecutionPlan("vectorized", K), ExecutionPlan("fused", 3)], ids=str
)
def test_compiled_passes_compute_the_same(plan: ExecutionPlan) -> None:
    def trained(compiled: bool) -> Tensor:
        bank = ClientBank(
            build("cnn_bn", DIGITS, seed=5).double(), K, SGD(), always(plan), compiled=compiled
        )
        average = Averaging(bank, WORLD)
        for images, labels in batches()[:3]:
            bank.step(batch(images, labels), 0.1)
            average()
        return bank.parameters.mean(torch.empty(bank.parameters.size, dtype=torch.float64))

    torch.testing.assert_close(trained(True), trained(False), rtol=1e-10, atol=1e-12)
