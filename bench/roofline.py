"""Measure how fast this machine computes a network's own convolutions, and nothing else."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Convolution:
    """Describe one layer as the network calls it; ``first``: its input needs no gradient."""

    input: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    first: bool

    def prepare(self, like: Tensor) -> Prepared:
        """Draw input, weights and gradient of the device and type of ``like``."""
        draw = partial(torch.randn, dtype=like.dtype, device=like.device)
        x = draw(self.input).to(memory_format=torch.channels_last)
        weight = draw(self.weight, requires_grad=True)
        if not self.first:
            x.requires_grad_()
        y = F.conv2d(x, weight, stride=self.stride, padding=self.padding)
        return Prepared(self, [weight] if self.first else [x, weight], x, torch.randn_like(y))


@dataclass(frozen=True, eq=False)
class Prepared:
    layer: Convolution
    gradient_of: list[Tensor]
    input: Tensor
    gradient: Tensor

    def __call__(self) -> None:
        """Run forward and backward."""
        layer, weight = self.layer, self.gradient_of[-1]
        y = F.conv2d(self.input, weight, stride=layer.stride, padding=layer.padding)
        torch.autograd.grad(y, self.gradient_of, self.gradient)


class Convolutions:
    """Run the convolutions of a training step of ``model`` on ``images``, on random data.

    They use channels last, the faster layout. Calls of one layer follow one another, unlike in the
    network, so that inputs stay cached: the bound is somewhat above what the network can reach.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        counted: Counter[Convolution] = Counter()

        def note(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            assert isinstance(layer, nn.Conv2d) and layer.bias is None and layer.groups == 1
            assert isinstance(layer.padding, tuple)
            counted[
                Convolution(
                    tuple(inputs[0].shape),
                    tuple(layer.weight.shape),
                    layer.stride,
                    layer.padding,
                    first=not counted,
                )
            ] += 1

        layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        hooks = [layer.register_forward_hook(note) for layer in layers]
        with torch.no_grad():
            model(images)
        for hook in hooks:
            hook.remove()
        self._all = [(layer.prepare(images), times) for layer, times in counted.items()]
        self._device = images.device
        with FlopCounterMode(display=False) as counter:
            self()
        self.flops = counter.get_total_flops()

    def __call__(self) -> None:
        for convolution, times in self._all:
            for _ in range(times):
                convolution()

    def seconds(self) -> float:
        synchronize(self._device)
        start = time.perf_counter()
        self()
        synchronize(self._device)
        return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU has been given to do; a CPU has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_flops(model: nn.Module, images: Tensor, labels: Tensor) -> Any:
    """Count the FLOPs of a forward and a backward pass of the whole network by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(images), labels).backward()
    return counter.get_total_flops()
