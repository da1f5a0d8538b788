"""A data set held in memory as uint8, dealt to the clients of one process in whole tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.augment import Views, crop_windows, random_views, take
from trainer.data.loading import in_order
from trainer.data.prepare import Arrays
from trainer.data.specs import DatasetSpec
from trainer.sampling import (
    Purpose,
    Sampler,
    batchnorm_batches,
    generator,
    label_offsets,
    model_seeds,
)

# Steps are gathered in blocks of about this many bytes of pixels: one call serves many small steps,
# and a block of a large set stays small.
BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``images`` (K_process, B_loc, C, H, W), normalised; ``labels`` (K_process, B_loc).

    ``seeds`` (K_process,): of what else a client draws in this step.
    """

    images: Tensor
    labels: Tensor
    seeds: NDArray[np.int64]

    def of_clients(self, clients: slice) -> Batch:
        return Batch(
            images=self.images[clients], labels=self.labels[clients], seeds=self.seeds[clients]
        )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What is random in some steps of one process, each (steps, K_process, …)."""

    indices: NDArray[np.int64]
    views: Views
    label_offsets: NDArray[np.int64]
    seeds: NDArray[np.int64]


class MemorySet:
    """Images (N, C, H, W) uint8 and labels (N,) on ``device``, normalised to ``dtype``."""

    def __init__(
        self, arrays: Arrays, spec: DatasetSpec, device: torch.device, dtype: torch.dtype
    ) -> None:
        images = np.ascontiguousarray(arrays.images.transpose(0, 3, 1, 2))
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(arrays.labels).to(device)
        self.spec = spec
        shape = (spec.channels, 1, 1)
        self._mean = 255 * torch.tensor(spec.mean, device=device, dtype=dtype).view(shape)
        self._std = 255 * torch.tensor(spec.std, device=device, dtype=dtype).view(shape)

    def __len__(self) -> int:
        return len(self.labels)

    def normalise(self, images: Tensor) -> Tensor:
        return (images.to(self._mean.dtype) - self._mean) / self._std


class TrainingSet(MemorySet):
    """The batches of every step and of every BatchNorm re-estimation, as the settings ask."""

    def __init__(
        self,
        arrays: Arrays,
        spec: DatasetSpec,
        device: torch.device,
        dtype: torch.dtype,
        *,
        augmented: bool,
        noise_p: float,
        workers: int = 0,
    ) -> None:
        super().__init__(arrays, spec, device, dtype)
        self._windows = crop_windows(self.images, spec.padding if augmented else 0)
        self._augmented = augmented
        self._noise_p = noise_p
        self._workers = workers

    def batches(self, sampler: Sampler, clients: range, start: int, epoch: int) -> Iterator[Batch]:
        """The steps from ``start`` on (counted from the beginning of ``epoch``), without end."""
        blocks = self._blocks(sampler, clients, start, epoch)
        for block in in_order(self._gather, blocks, self._workers):
            yield from block

    def batchnorm_images(
        self, seed: int, step: int, num_batches: int, batch_size: int, own: slice
    ) -> Iterator[Tensor]:
        """The ``own`` share of the re-estimation's batches, each (B_loc, C, H, W)."""
        indices = batchnorm_batches(seed, step, len(self), num_batches, batch_size)
        views = self._views(generator(seed, Purpose.BATCHNORM_VIEWS, step), indices.shape)
        for i in range(num_batches)[own]:
            yield self.normalise(take(self._windows, indices[i], views[i]))

    def _blocks(self, sampler: Sampler, clients: range, start: int, epoch: int) -> Iterator[Draws]:
        """The random choices of all steps from ``start`` on, some steps at a time."""
        classes, shape = len(self.spec.classes), sampler.shape
        size = max(1, BLOCK_BYTES // (len(clients) * sampler.batch_size * self.images[0].numel()))
        skipped, first = divmod(start, sampler.steps_per_epoch)
        for now in count(epoch + skipped):
            indices = sampler.epoch(now)
            views = self._views(generator(sampler.seed, Purpose.CROP_AND_FLIP, now), shape)
            offsets = label_offsets(sampler.seed, now, shape, self._noise_p, classes)
            seeds = model_seeds(sampler.seed, now, shape[:2])
            for step in range(first, sampler.steps_per_epoch, size):
                part = (slice(step, step + size), slice(clients.start, clients.stop))
                yield Draws(
                    indices=indices[part],
                    views=views[part],
                    label_offsets=offsets[part],
                    seeds=seeds[part],
                )
            first = 0

    def _gather(self, block: Draws) -> list[Batch]:
        images = self.normalise(take(self._windows, block.indices, block.views))
        offsets = torch.from_numpy(block.label_offsets).to(self.labels.device)
        labels = self.labels[torch.from_numpy(block.indices)]
        labels = (labels + offsets) % len(self.spec.classes)
        steps = zip(images, labels, block.seeds, strict=True)
        return [Batch(images=x, labels=y, seeds=seeds) for x, y, seeds in steps]

    def _views(self, draw: np.random.Generator, shape: tuple[int, ...]) -> Views:
        if self._augmented:
            return random_views(draw, shape, self.spec)
        zeros = np.zeros(shape, np.int64)
        return Views(zeros, zeros, zeros.astype(np.bool_))


def subset(arrays: Arrays, indices: NDArray[np.int64]) -> Arrays:
    return Arrays(arrays.images[indices], arrays.labels[indices])
