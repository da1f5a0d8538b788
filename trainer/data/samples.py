"""Locate a data set's pixels, in their own memory or in the pages of a mapped file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.preparation.prepared import Arrays


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

    @classmethod
    def of(cls, arrays: Arrays) -> Samples:
        """Wrap arrays in memory, whose images lie one behind the other."""
        n, height, width, channels = arrays.images.shape
        return cls(
            content=arrays.images.reshape(-1),
            starts=np.arange(n) * (height * width * channels),
            shape=(height, width, channels),
            labels=arrays.labels,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_bytes(self) -> int:
        return math.prod(self.shape)

    def subset(self, indices: NDArray[np.int64]) -> Samples:
        """Select samples without copying pixels."""
        return Samples(
            content=self.content,
            starts=self.starts[indices],
            shape=self.shape,
            labels=self.labels[indices],
        )

    def arrays(self) -> Arrays:
        """Copy the images to an array (N, H, W, C)."""
        anywhere = np.lib.stride_tricks.sliding_window_view(self.content, self.image_bytes)
        return Arrays(anywhere[self.starts].reshape(-1, *self.shape), self.labels)
