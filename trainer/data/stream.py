"""Serve the images of a .beton, decoded by FFCV's Loader in this project's own order.

FFCV draws crops inside its compiled code, where no seed reaches them, and orders samples by itself.
Here each entry of the traversal order names a sample and the part of it to decode
(``crops.PLAN_LINE``), and a decoder of this project reads them. Order, crops and flips are thus
the sampler's, a function of (seed, epoch, step, client), for any number of processes and workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.augment import crop_and_flip
from trainer.data.beton.format import RGB_IMAGE, BetonIndex
from trainer.data.crops import Crops, decode_plan, whole_images
from trainer.data.images import AnyRequest, Fetch, Request
from trainer.errors import UserError

# FFCV decodes this many images at once, each into memory for the largest, in several places.
READ_AT_ONCE = 256
# One FFCV iterator, and one plan in memory, serves about this many images.
IMAGES_PER_PLAN = 2**16
POLL_SECONDS = 0.0005


class StreamedImages:
    """Serve each image as (size, size, 3) uint8: the requested crop, resized."""

    def __init__(
        self, path: Path, index: BetonIndex, size: int, workers: int, *, pinned: bool = False
    ) -> None:
        """Open the file; ``pinned``: images lie where a GPU can copy them while others are decoded.

        Raises UserError for grey images, or more workers than cores.
        """
        if index.kind != RGB_IMAGE:
            raise UserError(
                f"{path}: grey images, which loader ffcv cannot read; check dataset and the path"
            )
        self._path = path
        self._pinned = pinned
        self.heights, self.widths, self.labels = index.heights, index.widths, index.labels
        self._samples = np.arange(len(index))  # of the file
        self._loader = _loader(path, size, workers)

    def subset(self, indices: NDArray[np.int64]) -> StreamedImages:
        part = copy(self)
        part._samples = self._samples[indices]
        part.heights, part.widths = self.heights[indices], self.widths[indices]
        part.labels = self.labels[indices]
        return part

    def fetch(self, requests: Iterator[AnyRequest]) -> Iterator[tuple[AnyRequest, Fetch]]:
        """Decode the requests ahead, in order; close the iterator to stop."""
        for first in requests:
            count = max(1, IMAGES_PER_PLAN // first.indices.size)
            several = [first, *islice(requests, count - 1)]
            crops = [self._decoder_crops(request) for request in several]
            plans = [
                decode_plan(self._samples[request.indices], decoded)
                for request, decoded in zip(several, crops, strict=True)
            ]
            with self._decode(np.concatenate(plans)) as images:
                for request, decoded in zip(several, crops, strict=True):
                    pixels = _copy_next(images, request.indices.shape, pinned=self._pinned)
                    rest = None if decoded is request.crops else request.crops
                    yield request, partial(crop_and_flip, pixels, rest)

    def _decoder_crops(self, request: Request) -> Crops:
        """Return the crops that the decoder takes: whole images if any crop reaches beyond one.

        The decoder would read memory beyond the image; such crops are taken after decoding.
        """
        heights, widths = self.heights[request.indices], self.widths[request.indices]
        if request.crops is not None and request.crops.lie_inside(heights, widths):
            return request.crops
        return whole_images(heights, widths)

    @contextmanager
    def _decode(self, plan: NDArray[np.void]) -> Iterator[Iterator[NDArray[np.uint8]]]:
        """Yield the images of ``plan`` one by one, in memory that later images overwrite.

        On exit, stop FFCV's thread.
        """
        loader = self._loader
        loader.batch_size = min(READ_AT_ONCE, len(plan))
        loader.traversal_order.plan = loader.first_traversal_order = plan
        with _torch_threads_kept():
            batches = iter(loader)
        try:
            yield chain.from_iterable(_watch(batches, self._path))
        finally:
            batches.close()


def _loader(path: Path, size: int, workers: int) -> Any:
    """Make FFCV's Loader, which follows ``traversal_order.plan``."""
    with _torch_threads_kept():
        from ffcv.loader import Loader
        from numba.core import config

        from trainer.data.decoder import CropDecoder, PlannedOrder

        cores: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        if workers > cores:
            raise UserError(f"nw {workers}: this machine has {cores} cores for it; lower nw")
        loader = Loader(
            str(path),
            batch_size=1,
            num_workers=workers,
            os_cache=True,
            pipelines={"image": [CropDecoder((size, size))], "label": None},
            drop_last=False,
        )
        loader.traversal_order = PlannedOrder(loader)  # the constructor takes only FFCV's orders
        return loader


@contextmanager
def _torch_threads_kept() -> Iterator[None]:
    """Restore torch's number of threads, which FFCV sets to that of its workers."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _watch(batches: Any, path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield what FFCV's thread decodes; raise if it failed, where FFCV would wait for ever."""
    from trainer.data.decoder import DamagedImageError

    while True:
        while batches.output_queue.empty():
            batches.join(POLL_SECONDS)
            if not batches.is_alive() and batches.output_queue.empty():
                if isinstance(batches.failure, DamagedImageError):
                    [sample] = batches.failure.args
                    raise UserError(
                        f"{path}: sample {sample} is damaged; delete it and run `beton` again"
                    )
                raise RuntimeError("FFCV's decoding thread failed") from batches.failure
        batch = next(batches, None)
        if batch is None:
            return
        yield batch[0]


def _copy_next(
    images: Iterator[NDArray[np.uint8]], shape: tuple[int, ...], *, pinned: bool
) -> Tensor:
    """Copy the next images, (*shape, H, W, C), into memory of their own."""
    first = next(images)
    copies = torch.empty((*shape, *first.shape), dtype=torch.uint8, pin_memory=pinned)
    own = copies.numpy().reshape(-1, *first.shape)
    own[0] = first
    for i, image in enumerate(islice(images, len(own) - 1), start=1):
        own[i] = image
    return copies
