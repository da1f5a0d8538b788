"""Images of one size in memory or in a mapped file, gathered by one call for many."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.images import Fetch, Request
from trainer.data.loading import sent
from trainer.data.samples import Samples


class MemoryImages:
    """Whole images of ``samples``, on ``device``."""

    def __init__(self, samples: Samples, device: torch.device) -> None:
        self._samples = samples
        content = torch.from_numpy(samples.content).to(device)
        # The image that begins at any byte, as a view: gathering copies each in one piece.
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

    def fetched(self, requests: Iterator[Request]) -> Iterator[Fetch]:
        return (partial(self._gathered, request) for request in requests)

    def _gathered(self, request: Request) -> Tensor:
        assert request.crops is None, "crops of images in memory are the augmentation's"
        indices = sent(request.indices, self._starts.device)
        flat = self._any_image.index_select(0, self._starts[indices.flatten()])
        return flat.view(*indices.shape, *self._shape)
