"""A data set held in memory as uint8, dealt to the clients of one process in whole tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.augment import Views, crop_windows, random_views, take
from trainer.data.prepare import Arrays
from trainer.data.specs import DatasetSpec
from trainer.sampling import Purpose, Sampler, batchnorm_batches, generator, label_offsets

# Steps are gathered in blocks of about this many bytes of pixels: one call serves many small steps,
# and a block of a large set stays small.
BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``images`` (K_process, B_loc, C, H, W), normalised; ``labels`` (K_process, B_loc)."""

    images: Tensor
    labels: Tensor


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
    ) -> None:
        super().__init__(arrays, spec, device, dtype)
        self._windows = crop_windows(self.images, spec.padding if augmented else 0)
        self._augmented = augmented
        self._noise_p = noise_p

    def batches(self, sampler: Sampler, clients: range, start: int, epoch: int) -> Iterator[Batch]:
        """The steps from ``start`` on (counted from the beginning of ``epoch``), without end."""
        epoch, first = epoch + start // sampler.steps_per_epoch, start % sampler.steps_per_epoch
        while True:
            yield from self._epoch(sampler, clients, epoch, first)
            epoch, first = epoch + 1, 0

    def batchnorm_images(
        self, seed: int, step: int, num_batches: int, batch_size: int, own: slice
    ) -> Iterator[Tensor]:
        """The ``own`` share of the re-estimation's batches, each (B_loc, C, H, W)."""
        indices = batchnorm_batches(seed, step, len(self), num_batches, batch_size)
        views = self._views(generator(seed, Purpose.BATCHNORM_VIEWS, step), indices.shape)
        for i in range(num_batches)[own]:
            yield self.normalise(take(self._windows, indices[i], views[i]))

    def _epoch(self, sampler: Sampler, clients: range, epoch: int, first: int) -> Iterator[Batch]:
        indices = sampler.epoch(epoch)
        draw = generator(sampler.seed, Purpose.CROP_AND_FLIP, epoch)
        views = self._views(draw, sampler.shape)
        offsets = self._label_offsets(sampler, epoch)
        own = slice(clients.start, clients.stop)
        block = max(1, BLOCK_BYTES // (len(clients) * sampler.batch_size * self.images[0].numel()))
        for start in range(first, sampler.steps_per_epoch, block):
            part = (slice(start, start + block), own)
            images = self.normalise(take(self._windows, indices[part], views[part]))
            labels = self.labels[torch.from_numpy(indices[part])]
            labels = (labels + offsets[part]) % len(self.spec.classes)
            for step_images, step_labels in zip(images, labels, strict=True):
                yield Batch(images=step_images, labels=step_labels)

    def _views(self, draw: np.random.Generator, shape: tuple[int, ...]) -> Views:
        if self._augmented:
            return random_views(draw, shape, self.spec)
        zeros = np.zeros(shape, np.int64)
        return Views(zeros, zeros, zeros.astype(np.bool_))

    def _label_offsets(self, sampler: Sampler, epoch: int) -> Tensor:
        classes = len(self.spec.classes)
        offsets = label_offsets(sampler.seed, epoch, sampler.shape, self._noise_p, classes)
        return torch.from_numpy(offsets).to(self.labels.device)


def subset(arrays: Arrays, indices: NDArray[np.int64]) -> Arrays:
    return Arrays(arrays.images[indices], arrays.labels[indices])
