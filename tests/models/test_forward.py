"""Test forward passes and first weights of CIFAR's networks against formulas written out here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.data.specs import DATASETS
from trainer.models.registry import build

CIFAR10 = DATASETS["cifar10"]
Weights = dict[str, Tensor]


def varied(model: nn.Module) -> Weights:
    """Give norms and biases other values than 0 and 1, so that one left out shows."""
    w = {key: value.clone() for key, value in model.state_dict().items()}
    for key in w:
        if ("bn" in key or key.endswith("bias")) and "num_batches" not in key:
            w[key] = torch.rand_like(w[key]) + 0.5
    model.load_state_dict(w)
    return w


def norm(x: Tensor, w: Weights, key: str) -> Tensor:
    if f"{key}.running_mean" not in w:
        return F.group_norm(x, 8, w[f"{key}.weight"], w[f"{key}.bias"])
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(w[f"{key}.{each}"] for each in names))


def assert_forward(
    model: nn.Module, images: Tensor, features: Tensor, w: Weights, key: str
) -> None:
    wanted = features @ w[f"{key}.weight"].T + w[f"{key}.bias"]
    torch.testing.assert_close(model(images), wanted, rtol=1e-10, atol=1e-12)


def some_images() -> Tensor:
    return torch.randn(3, 3, 32, 32, dtype=torch.float64)


@pytest.mark.parametrize("name", ["resnet8", "resnet8_gn"])
def test_resnet8_is_mlperf_tinys_without_biases_with_silu_and_a_stem_of_stride_2(name: str) -> None:
    model = build(name, CIFAR10, seed=0).double().eval()
    # MLPerf Tiny's has 78,666 with the biases of 9 convolutions (336), means and variances (480).
    count = sum(p.numel() for p in model.parameters())
    assert count == 78_666 - 336 - 480 == 77_850
    w = varied(model)
    assert "layer1.projection.weight" not in w
    assert w["layer2.projection.weight"].shape == (32, 16, 1, 1)
    assert w["layer3.projection.weight"].shape == (64, 32, 1, 1)
    images = some_images()
    x = F.silu(norm(F.conv2d(images, w["conv1.weight"], stride=2, padding=1), w, "bn1"))
    for layer, stride in (("layer1", 1), ("layer2", 2), ("layer3", 2)):
        y = F.conv2d(x, w[f"{layer}.conv1.weight"], stride=stride, padding=1)
        y = F.silu(norm(y, w, f"{layer}.bn1"))
        y = norm(F.conv2d(y, w[f"{layer}.conv2.weight"], padding=1), w, f"{layer}.bn2")
        if stride == 2:
            x = F.conv2d(x, w[f"{layer}.projection.weight"], stride=2)
        x = F.silu(x + y)
    assert x.shape == (3, 64, 4, 4)
    assert_forward(model, images, x.mean((2, 3)), w, "linear")


@pytest.mark.parametrize(("name", "activation"), [("resnet20", F.relu), ("resnet20_gn", F.silu)])
def test_resnet20_is_he_et_als_with_shortcuts_without_parameters(
    name: str, activation: Callable[[Tensor], Tensor]
) -> None:
    model = build(name, CIFAR10, seed=0).double().eval()
    w = varied(model)
    images = some_images()
    x = activation(norm(F.conv2d(images, w["conv1.weight"], padding=1), w, "bn1"))
    for layer in (1, 2, 3):
        for block in (0, 1, 2):
            key, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = F.conv2d(x, w[f"{key}.conv1.weight"], stride=stride, padding=1)
            y = activation(norm(y, w, f"{key}.bn1"))
            y = norm(F.conv2d(y, w[f"{key}.conv2.weight"], padding=1), w, f"{key}.bn2")
            if stride == 2:  # twice as many channels: half as many zeros before and after
                x = x[:, :, ::2, ::2]
                zeros = torch.zeros_like(x[:, ::2])
                x = torch.cat([zeros, x, zeros], 1)
            x = activation(x + y)
    assert x.shape == (3, 64, 8, 8)
    assert_forward(model, images, x.mean((2, 3)), w, "linear")


def test_vgg11_is_simonyan_and_zissermans_with_silu_and_average_pooling() -> None:
    model = build("vgg11", CIFAR10, seed=0).double().eval()
    w = varied(model)
    images = some_images()
    x, layer = images, 0
    for convolutions in (1, 1, 2, 2, 2):  # before each pooling: column A of table 1
        for _ in range(convolutions):
            key = f"features.{layer}"
            x = F.silu(F.conv2d(x, w[f"{key}.weight"], w[f"{key}.bias"], padding=1))
            layer += 2
        x = F.avg_pool2d(x, 2)
        layer += 1
    assert x.shape == (3, 512, 1, 1)
    assert_forward(model, images, x.flatten(1), w, "classifier")


@pytest.mark.parametrize("name", ["resnet20", "resnet20_gn", "vgg11"])
def test_first_weights_are_normal_with_he_et_als_deviations(name: str) -> None:
    """Expect √(2 / fan-in) (https://arxiv.org/abs/1502.01852), in ResNets' classifiers 0.01."""
    draws = []
    for key, p in build(name, CIFAR10, seed=0).named_parameters():
        if p.ndim == 1:  # norms begin as the identity, biases at zero
            assert (p == ("bn" in key and key.endswith("weight"))).all(), key
            continue
        deviation = 0.01 if key == "linear.weight" else (2 / p[0].numel()) ** 0.5
        draw = p.detach().flatten() / deviation
        spread = 1 / (2 * p.numel()) ** 0.5  # of the deviation of so many draws
        assert draw.std().item() == pytest.approx(1, abs=5 * spread), key
        draws.append(draw[:1000])
    assert stats.kstest(torch.cat(draws).numpy(), "norm").pvalue > 1e-4
