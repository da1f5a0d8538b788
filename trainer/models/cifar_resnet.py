"""Build CIFAR ResNets (He et al. 2016, section 4.2; https://arxiv.org/abs/1512.03385).

With BatchNorm and ReLU or, given ``n_groups``, with GroupNorm and SiLU; parameter-free shortcuts
(option A).
Names of parameters and buffers match every key of the paper's published checkpoints: the
normalisation layers are called ``bn`` in both variants.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.data.specs import DatasetSpec

Norm = Callable[[int], nn.Module]
Activation = Callable[[Tensor], Tensor]


class Block(nn.Module):
    """Apply two 3×3 convolutions; the shortcut subsamples and pads channels with zeros."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm: Norm, activation: Activation
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = norm(outputs)
        self.activation = activation
        self.stride = stride
        self.new_channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.activation(out + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.new_channels == 0:
            return x
        x = x[..., :: self.stride, :: self.stride]
        half = self.new_channels // 2
        return F.pad(x, (0, 0, 0, 0, half, self.new_channels - half))


class CifarResNet(nn.Module):
    """Stack ``depth`` = 6n + 2 layers: n blocks each of 16, 32 and 64 channels."""

    def __init__(self, data: DatasetSpec, depth: int, n_groups: int | None = None) -> None:
        super().__init__()
        n = (depth - 2) // 6
        norm: Norm = nn.BatchNorm2d
        activation: Activation = F.relu
        if n_groups is not None:
            norm, activation = partial(nn.GroupNorm, n_groups), F.silu

        def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            first = Block(inputs, outputs, stride, norm, activation)
            rest = [Block(outputs, outputs, 1, norm, activation) for _ in range(n - 1)]
            return nn.Sequential(first, *rest)

        self.conv1 = nn.Conv2d(data.channels, 16, 3, padding=1, bias=False)
        self.bn1 = norm(16)
        self.layer1 = stage(16, 16, stride=1)
        self.layer2 = stage(16, 32, stride=2)
        self.layer3 = stage(32, 64, stride=2)
        self.linear = nn.Linear(64, data.num_classes)
        self.activation = activation
        initialise(self, self.linear)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.mean(x, dim=(-2, -1)))
        return logits


def initialise(model: nn.Module, classifier: nn.Linear) -> None:
    """Initialise as the authors do: He for convolutions, a small normal for the classifier."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
