"""The images of a .beton, decoded by FFCV's Loader in an order of ours.

FFCV draws crops inside its compiled code, where no seed reaches them, and orders samples by itself.
Here the traversal order says both: each of its entries names a sample and the part of it to take,
and a decoder of ours reads them. Order, crops and flips are thus the sampler's, a function of
(seed, epoch, step, client), whatever the number of processes and workers.
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

from trainer.data.beton.format import RGB_IMAGE, BetonIndex
from trainer.data.crops import order, whole
from trainer.data.images import Fetch, Request
from trainer.errors import UserError

# FFCV decodes so many images at once, each into memory for the largest, in several places.
READ_AT_ONCE = 256
# One iterator of FFCV's, and one order in memory, for about so many images.
IMAGES_PER_ORDER = 2**16
LOOK_SECONDS = 0.0005


class StreamedImages:
    """Each image as (size, size, 3) uint8: the part that is asked for, resized."""

    def __init__(
        self, path: Path, index: BetonIndex, size: int, workers: int, *, pinned: bool = False
    ) -> None:
        """``pinned``: in memory from which a GPU fetches them while others are decoded.

        Raises UserError for images that it does not read, or more workers than cores.
        """
        if index.kind != RGB_IMAGE:
            raise UserError(
                f"{path}: images without colours, which loader ffcv does not read; check dataset "
                "and the path"
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

    def fetched(self, requests: Iterator[Request]) -> Iterator[Fetch]:
        """In order, decoded ahead; close it to end that."""
        for first in requests:
            count = max(1, IMAGES_PER_ORDER // first.indices.size)
            several = [first, *islice(requests, count - 1)]
            with self._decoded(np.concatenate([*map(self._lines, several)])) as images:
                for request in several:
                    yield partial(_itself, _copied(images, request, self._pinned))

    def _lines(self, request: Request) -> NDArray[np.void]:
        indices = request.indices
        heights, widths = self.heights[indices], self.widths[indices]
        crops = request.crops or whole(heights, widths)
        # The decoder would read beyond the image's memory.
        assert (crops.top + crops.height <= heights).all(), "a crop ends below its image"
        assert (crops.left + crops.width <= widths).all(), "a crop ends beside its image"
        return order(self._samples[indices], crops)

    @contextmanager
    def _decoded(self, lines: NDArray[np.void]) -> Iterator[Iterator[NDArray[np.uint8]]]:
        """The images of ``lines``, one by one; its memory is used again once others are asked for.

        Closed at the end, which stops FFCV's thread.
        """
        loader = self._loader
        loader.batch_size = min(READ_AT_ONCE, len(lines))
        loader.traversal_order.lines = loader.first_traversal_order = lines
        with _own_threads():
            batches = iter(loader)
        try:
            yield chain.from_iterable(_watched(batches, self._path))
        finally:
            batches.close()


def _loader(path: Path, size: int, workers: int) -> Any:
    """FFCV's Loader; its order is to be given."""
    with _own_threads():
        from ffcv.loader import Loader
        from numba.core import config

        from trainer.data.decoder import Given, PartOfImage

        cores: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        if workers > cores:
            raise UserError(f"nw {workers}: this machine has {cores} cores for it; lower nw")
        loader = Loader(
            str(path),
            batch_size=1,
            num_workers=workers,
            os_cache=True,
            pipelines={"image": [PartOfImage((size, size))], "label": None},
            drop_last=False,
        )
        loader.traversal_order = Given(loader)  # its constructor takes none of ours
        return loader


@contextmanager
def _own_threads() -> Iterator[None]:
    """FFCV sets torch's number of threads to that of its workers; it is set back."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _watched(batches: Any, path: Path) -> Iterator[NDArray[np.uint8]]:
    """What FFCV's thread decodes. It would be waited for for ever, once it had failed."""
    from trainer.data.decoder import DamagedImageError

    while True:
        while batches.output_queue.empty():
            batches.join(LOOK_SECONDS)
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


def _copied(images: Iterator[NDArray[np.uint8]], request: Request, pinned: bool) -> Tensor:
    """The next images, (*indices' shape, H, W, C), in memory of their own."""
    first = next(images)
    shape = (*request.indices.shape, *first.shape)
    copies = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
    own = copies.numpy().reshape(-1, *first.shape)
    own[0] = first
    for i, image in enumerate(islice(images, len(own) - 1), start=1):
        own[i] = image
    return copies


def _itself(images: Tensor) -> Tensor:
    return images
