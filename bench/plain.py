"""Feed the plain reference by torchvision's transforms in a `DataLoader`, NCHW float32."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bench.reference import local_sgd
from trainer.data.preparation.prepared import Arrays
from trainer.data.specs import DatasetSpec

Step = tuple[Tensor, Tensor]  # images (K, B_loc, C, H, W) and labels (K, B_loc)


class Transformed(Dataset[tuple[Tensor, int]]):
    """Transform one image at a time, as torchvision's CIFAR10 does."""

    def __init__(self, spec: DatasetSpec, arrays: Arrays, *, augmented: bool = True) -> None:
        self._images = arrays.images.squeeze(-1) if spec.channels == 1 else arrays.images
        self._labels = arrays.labels
        augmentation = [
            transforms.RandomCrop(spec.image_size, padding=spec.padding),
            *([transforms.RandomHorizontalFlip()] if spec.flip else []),
        ]
        self._transform = transforms.Compose(
            [
                *(augmentation if augmented else []),
                transforms.ToTensor(),
                transforms.Normalize(spec.mean, spec.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[i])), int(self._labels[i])


def plain_steps(data: Transformed, clients: int, batch_size: int) -> Iterator[Step]:
    """Yield steps without end, in a new order each epoch."""
    loader = DataLoader(data, clients * batch_size, shuffle=True, drop_last=True)
    while True:
        for images, labels in loader:
            yield images.unflatten(0, (clients, -1)), labels.unflatten(0, (clients, -1))


def plain_seconds(
    model: nn.Module,
    steps: Iterable[Step],
    *,
    rounds: int,
    local_steps: int,
    clients: int,
    weight_decay: float = 0.0,
    autocast: torch.dtype | None = None,
) -> float:
    """Time rounds of the reference from its first request of a batch, without copying clients."""
    clock = Clock(islice(steps, rounds * local_steps))
    plan = [local_steps] * rounds
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        local_sgd(model, clock, plan, clients, lambda step: 0.0, weight_decay=weight_decay)
    return time.perf_counter() - clock.start


class Clock(Iterator[Step]):
    """Iterate over ``steps`` and record when the first was requested."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps = iter(steps)
        self.start = 0.0

    def __next__(self) -> Step:
        self.start = self.start or time.perf_counter()
        return next(self._steps)
