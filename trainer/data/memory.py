"""Serve images of one size from memory or a mapped file; one call gathers many."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.augment import crop_and_flip
from trainer.data.images import AnyRequest, Fetch, Request
from trainer.data.loading import to_device
from trainer.data.samples import Samples


class MemoryImages:
    """Serve the images of ``samples`` on ``device``; crops have the images' size."""

    def __init__(self, samples: Samples, device: torch.device) -> None:
        self._samples = samples
        content = torch.from_numpy(samples.content).to(device)
        # View an image at every byte, so that gathering copies each in one piece.
        self._any_image = content.as_strided(
            (len(content) - samples.image_bytes + 1, samples.image_bytes), (1, 1)
        )
        self._starts = torch.from_numpy(samples.starts).to(device)
        self._shape = samples.shape
        self.labels = samples.labels
        self.heights = np.full(len(samples), samples.shape[0])
        self.widths = np.full(len(samples), samples.shape[1])

    def subset(self, indices: NDArray[np.int64]) -> MemoryImages:
        return MemoryImages(self._samples.subset(indices), self._starts.device)

    def fetch(self, requests: Iterator[AnyRequest]) -> Iterator[tuple[AnyRequest, Fetch]]:
        return ((request, partial(self._gather, request)) for request in requests)

    def _gather(self, request: Request) -> Tensor:
        indices = to_device(request.indices, self._starts.device)
        flat = self._any_image.index_select(0, self._starts[indices.flatten()])
        return crop_and_flip(flat.view(*indices.shape, *self._shape), request.crops)
