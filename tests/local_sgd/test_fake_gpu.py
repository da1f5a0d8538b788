"""Steps on tensors that say they are on a GPU, without one: devices, layouts and types.

A fake tensor has no data, but PyTorch takes the path of its device, and raises where two devices
meet: https://docs.pytorch.org/docs/stable/torch.compiler_fake_tensor.html. The backward pass, which
needs a driver, and the fused update, which has no fake, are stood in for.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.data.specs import DATASETS
from trainer.data.training import Batch
from trainer.distributed.world import World
from trainer.local_sgd.averaging import Averaging
from trainer.local_sgd.clients import ClientBank, Execution, ExecutionPlan
from trainer.local_sgd.evaluation import TrainLoss
from trainer.local_sgd.optimizer import SGD, Update
from trainer.models.registry import build

K, GPU, CIFAR10 = 4, torch.device("cuda", 0), DATASETS["cifar10"]
PLANS = [("serial", 1), ("vectorized", 3), ("vectorized", K), ("fused", 3)]

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None, reason="needs a torch that is built for CUDA; no GPU"
)


def check_update(self: SGD, update: Update) -> None:
    """Hold what a fused update of CUDA asks for: one device, type and layout for each parameter."""
    assert update.scale is None or update.scale.device == GPU
    momentum = [update.momentum[name] for name in update.names]
    for tensors in zip(update.parameters, update.gradients, momentum, strict=True):
        assert {t.device for t in tensors} == {GPU}
        assert len({(t.dtype, t.shape, t.stride()) for t in tensors}) == 1


def moved(model: nn.Module) -> nn.Module:
    """Move ``model`` to the fake GPU; ``to`` cannot exchange the data of fake parameters."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().to(GPU)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(GPU))
    return model


@pytest.mark.parametrize(("mode", "size"), PLANS)
@pytest.mark.parametrize("model", ["resnet8", "resnet8_gn", "mlp"])
def test_steps_and_averaging_stay_on_the_gpu(
    model: str, mode: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the last pass has a single client, 3 + 1, whose images are channels last."""
    monkeypatch.setattr(SGD, "apply", check_update)
    with FakeTensorMode(allow_non_fake_inputs=True):
        plan = ExecutionPlan(mode, size)  # type: ignore[arg-type]
        both = Execution(one_step=plan, several_steps=plan)
        bank = ClientBank(moved(build(model, CIFAR10, seed=5)), K, SGD(momentum=0.9), both)

        def backward(losses: Tensor, weights: Tensor) -> None:
            assert losses.device == weights.device == GPU and losses.requires_grad
            for each in bank._passes:
                for parameter in each.parameters.values():
                    parameter.grad = torch.zeros_like(parameter)

        monkeypatch.setattr(Tensor, "backward", backward)
        images = torch.randn(K, 6, 32, 32, 3, device=GPU).movedim(-1, -3)
        labels = torch.randint(10, (K, 6), device=GPU)
        losses = bank.step(Batch(images=images, labels=labels, seeds=np.arange(K)), lr=0.1)
        assert losses.device == GPU and losses.shape == (K,)
        TrainLoss(World(0, 1, GPU)).add(losses)
        Averaging(bank, World(0, 1, GPU))()
        assert bank.parameters.memory.device == GPU
