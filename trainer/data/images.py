"""Provide images with labels as models see them, wherever the pixels come from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.crops import Crops, central_crops
from trainer.data.specs import DatasetSpec

# Returns a request's pixels, (*indices' shape, H, W, C) uint8; the caller's thread does the work.
Fetch = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Ask for samples, in any shape, and a crop of each in the same shape; None: whole images."""

    indices: NDArray[np.int64]
    crops: Crops | None


AnyRequest = TypeVar("AnyRequest", bound=Request)


class Images(ABC):
    """Serve the pixels of N images.

    ``places`` (N,): where a subclass finds each one. ``sizes`` (2, N): heights and widths.
    """

    def __init__(
        self, places: NDArray[np.int64], sizes: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> None:
        self.places, self.sizes, self.labels = places, sizes, labels

    def subset(self, indices: NDArray[np.int64]) -> Self:
        """Select images without copying pixels."""
        part = copy(self)
        Images.__init__(part, self.places[indices], self.sizes[:, indices], self.labels[indices])
        return part

    @abstractmethod
    def fetch(self, requests: Iterator[AnyRequest]) -> Iterator[tuple[AnyRequest, Fetch]]:
        """Yield each request with what returns its pixels, in order."""


class ImageSet:
    """Hold ``images`` with their labels on ``device``, to be normalised to ``dtype``."""

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
        """Yield images (n, C, H, W) and clean labels (n,) for evaluation, ``size`` at once."""
        parts = (indices[i : i + size] for i in range(0, len(indices), size))
        requests = (Request(indices=part, crops=self._central_crops(part)) for part in parts)
        for request, fetch in self._images.fetch(requests):
            labels = self.labels[torch.from_numpy(request.indices).to(self.labels.device)]
            yield self._normalise(fetch()), labels

    def _central_crops(self, indices: NDArray[np.int64]) -> Crops | None:
        """Return evaluation's crops of image files; images of one size are seen whole."""
        return central_crops(*self._images.sizes[:, indices]) if self.spec.of_files else None

    def _normalise(self, images: Tensor) -> Tensor:
        """Turn (…, H, W, C) uint8 on any device into (…, C, H, W), channels last in memory.

        Copies from pinned memory to a GPU are asynchronous. PyTorch does not reuse that memory
        before they finish.
        """
        there = images.to(self._mean.device, non_blocking=True)
        values = there.flatten(-3).to(self._mean.dtype)
        return values.sub_(self._mean).div_(self._std).view(images.shape).movedim(-1, -3)
