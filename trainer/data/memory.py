"""Serve images of one size from memory or a mapped file; one call gathers many."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.crops import crop_and_flip
from trainer.data.images import AnyRequest, Fetch, Images, Request
from trainer.data.loading import to_device


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Hold N images of one ``shape`` (H, W, C) and their ``labels`` (N,) int64.

    Image i begins at byte ``starts[i]`` of ``content`` (uint8, flat), row by row. A .beton has gaps
    between its pages, and several writers mix their order; ``starts`` describe both, so that
    nothing is copied and all processes of a machine share the file's pages.
    """

    content: NDArray[np.uint8]
    starts: NDArray[np.int64]
    shape: tuple[int, int, int]
    labels: NDArray[np.int64]


class MemoryImages(Images):
    """Serve the images of ``samples`` on ``device``; crops have the images' size."""

    def __init__(self, samples: Samples, device: torch.device) -> None:
        sizes = np.full((len(samples.labels), 2), samples.shape[:2]).T
        super().__init__(samples.starts, sizes, samples.labels)
        self._shape = samples.shape
        content = torch.from_numpy(samples.content).to(device)
        # View an image at every byte, so that gathering copies each in one piece.
        image_bytes = math.prod(samples.shape)
        self._any_image = content.as_strided((len(content) - image_bytes + 1, image_bytes), (1, 1))

    def fetch(self, requests: Iterator[AnyRequest]) -> Iterator[tuple[AnyRequest, Fetch]]:
        return ((request, partial(self._gather, request)) for request in requests)

    def _gather(self, request: Request) -> Tensor:
        starts = to_device(self.places[request.indices], self._any_image.device)
        flat = self._any_image.index_select(0, starts.flatten())
        return crop_and_flip(flat.view(*starts.shape, *self._shape), request.crops)
