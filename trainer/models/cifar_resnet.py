"""CIFAR ResNets (He et al. 2016, section 4.2; https://arxiv.org/abs/1512.03385).

Parameter-free shortcuts (option A). Names of parameters and buffers are those of the paper's
published checkpoints, so that they load with every key matched.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.data.specs import DatasetSpec


class Block(nn.Module):
    """Two 3×3 convolutions; the shortcut subsamples and pads channels with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.new_channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.new_channels == 0:
            return x
        x = x[..., :: self.stride, :: self.stride]
        half = self.new_channels // 2
        return F.pad(x, (0, 0, 0, 0, half, self.new_channels - half))


class CifarResNet(nn.Module):
    """6n + 2 layers: n blocks each of 16, 32 and 64 channels."""

    def __init__(self, n: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, n, stride=1)
        self.layer2 = self._stage(16, 32, n, stride=2)
        self.layer3 = self._stage(32, 64, n, stride=2)
        self.linear = nn.Linear(64, classes)
        self.apply(_initialise)

    @staticmethod
    def _stage(inputs: int, outputs: int, n: int, stride: int) -> nn.Sequential:
        first = Block(inputs, outputs, stride)
        return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(n - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.mean(x, dim=(-2, -1)))
        return logits


def _initialise(module: nn.Module) -> None:
    """The authors' initialisation: He for convolutions, a small normal for the classifier."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


def resnet(data: DatasetSpec, depth: int) -> nn.Module:
    return CifarResNet((depth - 2) // 6, data.channels, len(data.classes))
