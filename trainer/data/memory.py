"""A data set as uint8 in memory or a mapped file, dealt to the clients in whole tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.augment import Views, crop_and_flip, random_views
from trainer.data.loading import in_order, sent
from trainer.data.samples import Samples
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


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What is random in some steps of one process, each (steps, K_process, …)."""

    indices: NDArray[np.int64]
    views: Views
    label_offsets: NDArray[np.int64]
    seeds: NDArray[np.int64]


class MemorySet:
    """Images uint8 and labels (N,) on ``device``, dealt normalised to ``dtype``."""

    def __init__(
        self, samples: Samples, spec: DatasetSpec, device: torch.device, dtype: torch.dtype
    ) -> None:
        content = torch.from_numpy(samples.content).to(device)
        # The image that begins at any byte, as a view: gathering copies each in one piece.
        self._any_image = content.as_strided(
            (len(content) - samples.image_bytes + 1, samples.image_bytes), (1, 1)
        )
        self._starts = torch.from_numpy(samples.starts).to(device)
        self._shape = samples.shape
        self.labels = torch.from_numpy(samples.labels).to(device)
        self.spec = spec
        # One value for each byte of an image: broadcasting three channels is 20 times slower.
        pixels = samples.image_bytes // spec.channels
        self._mean = (255 * torch.tensor(spec.mean, device=device, dtype=dtype)).repeat(pixels)
        self._std = (255 * torch.tensor(spec.std, device=device, dtype=dtype)).repeat(pixels)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Tensor) -> Tensor:
        """The images of ``indices``, normalised: (*indices.shape, C, H, W), channels last."""
        return self._normalised(self._gathered(indices))

    def _gathered(self, indices: Tensor) -> Tensor:
        """As stored: (*indices.shape, H, W, C) uint8."""
        flat = self._any_image.index_select(0, self._starts[indices.flatten()])
        return flat.view(*indices.shape, *self._shape)

    def _normalised(self, images: Tensor) -> Tensor:
        values = images.flatten(-3).to(self._mean.dtype).sub_(self._mean).div_(self._std)
        return values.view(images.shape).movedim(-1, -3)


class TrainingSet(MemorySet):
    """The batches of every step and of every BatchNorm re-estimation, as the settings ask."""

    def __init__(
        self,
        samples: Samples,
        spec: DatasetSpec,
        device: torch.device,
        dtype: torch.dtype,
        *,
        augmented: bool,
        noise_p: float,
        workers: int = 0,
    ) -> None:
        super().__init__(samples, spec, device, dtype)
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
            yield self._seen(sent(indices[i], self.labels.device), views[i])

    def _blocks(self, sampler: Sampler, clients: range, start: int, epoch: int) -> Iterator[Draws]:
        """The random choices of all steps from ``start`` on, some steps at a time."""
        classes, shape = len(self.spec.classes), sampler.shape
        size = max(1, BLOCK_BYTES // (len(clients) * sampler.batch_size * self._any_image.shape[1]))
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
        device = self.labels.device
        indices = sent(block.indices, device)
        images = self._seen(indices, block.views)
        offsets = sent(block.label_offsets, device)
        labels = (self.labels[indices] + offsets) % len(self.spec.classes)
        steps = zip(images, labels, block.seeds, strict=True)
        return [Batch(images=x, labels=y, seeds=seeds) for x, y, seeds in steps]

    def _seen(self, indices: Tensor, views: Views) -> Tensor:
        """What a client sees of these samples, (*indices.shape, C, H, W)."""
        images = self._gathered(indices)
        if self._augmented:
            images = crop_and_flip(images, views, self.spec.padding)
        return self._normalised(images)

    def _views(self, draw: np.random.Generator, shape: tuple[int, ...]) -> Views:
        if self._augmented:
            return random_views(draw, shape, self.spec)
        zeros = np.zeros(shape, np.int64)
        return Views(zeros, zeros, zeros.astype(np.bool_))
