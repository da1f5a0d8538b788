"""Serve the images of a .beton, decoded by FFCV's Loader in this project's own order.

FFCV draws crops inside its compiled code, where no seed reaches them, and orders samples by itself.
Here each entry of the traversal order names a sample and the part of it to decode
(``crops.PLAN_LINE``), and a decoder of this project reads them. Order, crops and flips are thus
the sampler's, a function of (seed, epoch, step, client), for any number of processes and workers.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.beton.format import RGB_IMAGE, BetonIndex
from trainer.data.crops import Crops, crop_and_flip, decode_plan, whole_images
from trainer.data.images import AnyRequest, Fetch, Images, Request
from trainer.errors import UserError

# FFCV decodes this many images at once, ahead of those that are taken: it has memory for five times
# as many, resized.
READ_AT_ONCE = 256
# One FFCV iterator, and one plan in memory, serves about this many images.
IMAGES_PER_PLAN = 2**16
CHECK_SECONDS = 0.1  # between looks whether the decoding thread still lives


class StreamedImages(Images):
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
        sizes = np.stack([index.heights, index.widths])
        super().__init__(np.arange(len(index)), sizes, index.labels)
        self._path, self._size, self._pinned = path, size, pinned
        self._loader = _loader(path, size, workers)

    def fetch(self, requests: Iterator[AnyRequest]) -> Iterator[tuple[AnyRequest, Fetch]]:
        """Decode the requests ahead, in order; close the iterator to stop."""
        for first in requests:
            count = max(1, IMAGES_PER_PLAN // first.indices.size)
            several = [first, *islice(requests, count - 1)]
            decoded = [(request, self._decoder_crops(request)) for request in several]
            plans = [decode_plan(self.places[request.indices], crops) for request, crops in decoded]
            with self._decode(np.concatenate(plans)) as images:
                for request, crops in decoded:
                    pixels = self._copy_next(images, request.indices.shape)
                    rest = None if crops is request.crops else request.crops
                    yield request, partial(crop_and_flip, pixels, rest)

    def _decoder_crops(self, request: Request) -> Crops:
        """Return the crops that the decoder takes: whole images if any crop reaches beyond one.

        The decoder would read memory beyond the image; such crops are taken after decoding.
        """
        sizes = self.sizes[:, request.indices]
        if request.crops is not None and request.crops.lie_inside(*sizes):
            return request.crops
        return whole_images(*sizes)

    @contextmanager
    def _decode(self, plan: NDArray[np.void]) -> Iterator[Iterator[NDArray[np.uint8]]]:
        """Yield the images of ``plan``, in memory that later ones overwrite; stop FFCV on exit."""
        loader = self._loader
        loader.batch_size = min(READ_AT_ONCE, len(plan))
        loader.traversal_order.plan = loader.first_traversal_order = plan
        with _torch_threads_kept():
            batches = iter(loader)
        with closing(batches):
            yield chain.from_iterable(_watch(batches, self._path))

    def _copy_next(self, images: Iterator[NDArray[np.uint8]], shape: tuple[int, ...]) -> Tensor:
        """Copy the next images, (*shape, size, size, 3), into memory of their own."""
        image_shape = (self._size, self._size, 3)
        copies = torch.empty((*shape, *image_shape), dtype=torch.uint8, pin_memory=self._pinned)
        # In this order, zip takes no image beyond the last copy.
        for copy, image in zip(copies.numpy().reshape(-1, *image_shape), images, strict=False):
            copy[:] = image
        return copies


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
        try:
            decoded = batches.output_queue.get(timeout=CHECK_SECONDS)
        except Empty:
            if batches.is_alive() or not batches.output_queue.empty():
                continue
            if isinstance(batches.failure, DamagedImageError):
                [sample] = batches.failure.args
                raise UserError(
                    f"{path}: sample {sample} is damaged; delete it and run `beton` again"
                ) from None
            raise RuntimeError("FFCV's decoding thread failed") from batches.failure
        if decoded is None:
            return
        _slot, (images,) = decoded
        yield images
