"""The training samples, dealt to the clients in whole tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.augment import Views, crop_and_flip, random_views
from trainer.data.crops import Crops, central_crops, random_crops, stacked
from trainer.data.images import Fetch, Images, ImageSet, Request
from trainer.data.loading import in_order, sent
from trainer.data.sampling import (
    Purpose,
    Sampler,
    batchnorm_batches,
    generator,
    label_offsets,
    model_seeds,
)
from trainer.data.specs import DatasetSpec

# Steps are gathered in blocks of about this many bytes of pixels: one call serves many small steps,
# and what it works on stays in the processor's caches (blocks of 16 MiB took 4 times as long).
BLOCK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``images`` (K_process, B_loc, C, H, W), normalised; ``labels`` (K_process, B_loc).

    In memory, the channels come last: each client's images are in torch.channels_last.

    ``seeds`` (K_process,): of what else a client draws in this step.
    """

    images: Tensor
    labels: Tensor
    seeds: NDArray[np.int64]

    def of_clients(self, clients: slice) -> Batch:
        return Batch(
            images=self.images[clients], labels=self.labels[clients], seeds=self.seeds[clients]
        )

    def of_samples(self, samples: slice) -> Batch:
        """Of each client's."""
        return Batch(
            images=self.images[:, samples], labels=self.labels[:, samples], seeds=self.seeds
        )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What is random in some steps of one process, each (steps, K_process, …).

    ``crops`` are taken of image files as they are read, ``views`` of images of one size after that.
    """

    indices: NDArray[np.int64]
    crops: Crops | None
    views: Views | None
    label_offsets: NDArray[np.int64]
    seeds: NDArray[np.int64]


class TrainingSet(ImageSet):
    """The batches of every step and of every BatchNorm re-estimation, as the settings ask."""

    def __init__(
        self,
        images: Images,
        spec: DatasetSpec,
        device: torch.device,
        dtype: torch.dtype,
        *,
        augmented: bool,
        noise_p: float,
        workers: int = 0,
    ) -> None:
        super().__init__(images, spec, device, dtype)
        self._augmented = augmented
        self._noise_p = noise_p
        self._workers = workers

    def batches(self, sampler: Sampler, clients: range, start: int, epoch: int) -> Iterator[Batch]:
        """The steps from ``start`` on (counted from the beginning of ``epoch``), without end."""
        drawn: deque[Draws] = deque()

        def requests() -> Iterator[Request]:
            for block in self._blocks(sampler, clients, start, epoch):
                drawn.append(block)
                yield Request(indices=block.indices, crops=block.crops)

        blocks = ((drawn.popleft(), fetch) for fetch in self._images.fetched(requests()))
        for block in in_order(self._finished, blocks, self._workers):
            yield from block

    def batchnorm_images(
        self, seed: int, step: int, num_batches: int, batch_size: int, own: slice
    ) -> Iterator[Tensor]:
        """The ``own`` share of the re-estimation's batches, each (B_loc, C, H, W)."""
        indices = batchnorm_batches(seed, step, len(self), num_batches, batch_size)
        draw = generator(seed, Purpose.BATCHNORM_VIEWS, step)
        views, crops = self._views(draw, indices.shape), self._crops(draw, indices)
        parts = range(num_batches)[own]
        fetches = self._images.fetched(
            Request(indices=indices[i], crops=crops and crops[i]) for i in parts
        )
        for i, fetch in zip(parts, fetches, strict=True):
            yield self._seen(fetch, views and views[i])

    def _blocks(self, sampler: Sampler, clients: range, start: int, epoch: int) -> Iterator[Draws]:
        """The random choices of all steps from ``start`` on, some steps at a time."""
        classes, shape = self.spec.num_classes, sampler.shape
        step_bytes = len(clients) * sampler.batch_size * self.values_per_image
        size = max(1, BLOCK_BYTES // step_bytes)
        skipped, first = divmod(start, sampler.steps_per_epoch)
        for now in count(epoch + skipped):
            indices = sampler.epoch(now)
            views = self._views(generator(sampler.seed, Purpose.CROP_AND_FLIP, now), shape)
            offsets = label_offsets(sampler.seed, now, shape, self._noise_p, classes)
            seeds = model_seeds(sampler.seed, now, shape[:2])
            for step in range(first, sampler.steps_per_epoch, size):
                steps = range(step, min(step + size, sampler.steps_per_epoch))
                part = (slice(steps.start, steps.stop), slice(clients.start, clients.stop))
                yield Draws(
                    indices=indices[part],
                    crops=self._crops_of_steps(sampler, now, indices, steps, part[1]),
                    views=views and views[part],
                    label_offsets=offsets[part],
                    seeds=seeds[part],
                )
            first = 0

    def _finished(self, block: tuple[Draws, Fetch]) -> list[Batch]:
        draws, fetch = block
        device = self.labels.device
        images = self._seen(fetch, draws.views)
        offsets = sent(draws.label_offsets, device)
        labels = (self.labels[sent(draws.indices, device)] + offsets) % self.spec.num_classes
        steps = zip(images, labels, draws.seeds, strict=True)
        return [Batch(images=x, labels=y, seeds=seeds) for x, y, seeds in steps]

    def _seen(self, fetch: Fetch, views: Views | None) -> Tensor:
        """What a client sees of these images, (*their shape, C, H, W)."""
        images = fetch()
        if views is not None:
            assert self.spec.padding is not None
            images = crop_and_flip(images, views, self.spec.padding)
        return self._normalised(images)

    def _views(self, draw: np.random.Generator, shape: tuple[int, ...]) -> Views | None:
        if self.spec.of_files or not self._augmented:
            return None
        return random_views(draw, shape, self.spec)

    def _crops(self, draw: np.random.Generator, indices: NDArray[np.int64]) -> Crops | None:
        if not self.spec.of_files:
            return None
        sizes = self._images.heights[indices], self._images.widths[indices]
        if not self._augmented:
            return central_crops(*sizes)
        return random_crops(draw, *sizes, flip=self.spec.flip)

    def _crops_of_steps(
        self,
        sampler: Sampler,
        epoch: int,
        indices: NDArray[np.int64],
        steps: range,
        clients: slice,
    ) -> Crops | None:
        """Drawn step by step, since those of an epoch of ImageNet are hundreds of megabytes."""
        if not self.spec.of_files:
            return None
        before = epoch * sampler.steps_per_epoch
        draws = (generator(sampler.seed, Purpose.RESIZED_CROP, before + step) for step in steps)
        all_clients = [
            self._crops(draw, indices[step]) for draw, step in zip(draws, steps, strict=True)
        ]
        return stacked([crops[clients] for crops in all_clients if crops])
