"""Images with labels as models see them; where the pixels come from, they need not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.crops import Crops, central_crops
from trainer.data.specs import DatasetSpec

# Pixels of one request, (*indices' shape, H, W, C) uint8; whoever calls it does the work there is.
Fetch = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Samples, any shape, and which part of each, in the same shape; None: all of it."""

    indices: NDArray[np.int64]
    crops: Crops | None


class Images(Protocol):
    """The pixels of N images, their sizes and labels (N,)."""

    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    labels: NDArray[np.int64]

    def subset(self, indices: NDArray[np.int64]) -> Images:
        """Those with these indices alone; their pixels stay where they are."""

    def fetched(self, requests: Iterator[Request]) -> Iterator[Fetch]:
        """What ``requests`` ask for, in order."""


class ImageSet:
    """``images`` with their labels on ``device``, normalised to ``dtype``."""

    def __init__(
        self, images: Images, spec: DatasetSpec, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._images = images
        self.spec = spec
        self.labels = torch.from_numpy(images.labels).to(device)
        # One value for each byte of an image: broadcasting three channels is 20 times slower.
        pixels = spec.image_size**2
        self.values_per_image = pixels * spec.channels
        self._mean = (255 * torch.tensor(spec.mean, device=device, dtype=dtype)).repeat(pixels)
        self._std = (255 * torch.tensor(spec.std, device=device, dtype=dtype)).repeat(pixels)

    def __len__(self) -> int:
        return len(self.labels)

    def in_batches(self, indices: NDArray[np.int64], size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (n, C, H, W) and labels (n,) for evaluation, ``size`` at once, without noise."""
        parts = [indices[i : i + size] for i in range(0, len(indices), size)]
        fetches = self._images.fetched(self._seen_in_evaluation(part) for part in parts)
        for part, fetch in zip(parts, fetches, strict=True):
            labels = self.labels[torch.from_numpy(part).to(self.labels.device)]
            yield self._normalised(fetch()), labels

    def _seen_in_evaluation(self, indices: NDArray[np.int64]) -> Request:
        if not self.spec.of_files:
            return Request(indices=indices, crops=None)
        sizes = self._images.heights[indices], self._images.widths[indices]
        return Request(indices=indices, crops=central_crops(*sizes))

    def _normalised(self, images: Tensor) -> Tensor:
        """(…, H, W, C) uint8 on any device to (…, C, H, W), channels last.

        Nobody waits until a GPU has those in pinned memory, which is not used anew before.
        """
        there = images.to(self._mean.device, non_blocking=True)
        values = there.flatten(-3).to(self._mean.dtype)
        return values.sub_(self._mean).div_(self._std).view(images.shape).movedim(-1, -3)
