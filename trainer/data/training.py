"""Deal the training samples to the clients in whole tensors."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.crops import (
    Crops,
    central_crops,
    random_padded_crops,
    random_resized_crops,
    stack_crops,
)
from trainer.data.images import Fetch, Images, ImageSet, Request
from trainer.data.loading import prefetch, to_device
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
# and its data stays in the processor's caches (blocks of 16 MiB took 4 times as long).
BLOCK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Hold what the clients of one process see in one step.

    ``images`` (K_process, B_loc, C, H, W), normalised, each client's in torch.channels_last;
    ``labels`` (K_process, B_loc); ``seeds`` (K_process,) of a model's own random numbers.
    """

    images: Tensor
    labels: Tensor
    seeds: NDArray[np.int64]

    def of_samples(self, samples: slice) -> Self:
        """Select the same samples of each client."""
        return replace(self, images=self.images[:, samples], labels=self.labels[:, samples])


@dataclass(frozen=True, kw_only=True)
class Block(Request):
    """Request the images of some steps of one process, with all that is random in these steps.

    Every array is (steps, K_process, …). No ``label_offsets``: labels are as they are.
    """

    label_offsets: NDArray[np.int64] | None
    seeds: NDArray[np.int64]


class TrainingSet(ImageSet):
    """Yield the batches of every step and of every BatchNorm re-estimation."""

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
        """Yield batches without end, from step ``start``, counted from ``epoch``'s beginning."""
        fetches = self._images.fetch(self._blocks(sampler, clients, start, epoch))
        for batches in prefetch(self._make_batches, fetches, self._workers):
            yield from batches

    def batchnorm_images(
        self, seed: int, step: int, num_batches: int, batch_size: int, own: slice
    ) -> Iterator[Tensor]:
        """Yield the ``own`` share of the re-estimation's batches, each (B_loc, C, H, W)."""
        indices = batchnorm_batches(seed, step, len(self), num_batches, batch_size)
        crops = self._crops(generator(seed, Purpose.BATCHNORM_VIEWS, step), indices)
        requests = (
            Request(indices=indices[i], crops=crops and crops[i]) for i in range(num_batches)[own]
        )
        for _, fetch in self._images.fetch(requests):
            yield self._normalise(fetch())

    def _blocks(self, sampler: Sampler, clients: range, start: int, epoch: int) -> Iterator[Block]:
        """Draw all that is random from step ``start`` on, some steps at a time."""
        classes, shape = self.spec.num_classes, sampler.shape
        step_bytes = len(clients) * sampler.batch_size * self.values_per_image
        size = max(1, BLOCK_BYTES // step_bytes)
        skipped, first = divmod(start, sampler.steps_per_epoch)
        for now in count(epoch + skipped):
            indices = sampler.epoch(now)
            draw = generator(sampler.seed, Purpose.CROP_AND_FLIP, now)
            crops = None if self.spec.of_files else self._crops(draw, indices)
            offsets = None
            if self._noise_p > 0:
                offsets = label_offsets(sampler.seed, now, shape, self._noise_p, classes)
            seeds = model_seeds(sampler.seed, now, shape[:2])
            for step in range(first, sampler.steps_per_epoch, size):
                steps = range(step, min(step + size, sampler.steps_per_epoch))
                part = (slice(steps.start, steps.stop), slice(clients.start, clients.stop))
                own = crops and crops[part]
                if self.spec.of_files:
                    own = self._file_crops_of_steps(sampler, now, indices, steps)[:, part[1]]
                yield Block(
                    indices=indices[part],
                    crops=own,
                    label_offsets=None if offsets is None else offsets[part],
                    seeds=seeds[part],
                )
            first = 0

    def _make_batches(self, block_and_fetch: tuple[Block, Fetch]) -> list[Batch]:
        """Make one batch for each step of a block."""
        block, fetch = block_and_fetch
        device = self.labels.device
        images = self._normalise(fetch())
        indices = to_device(block.indices, device)
        labels = self.labels.index_select(0, indices.flatten()).view(indices.shape)
        if block.label_offsets is not None:
            labels = (labels + to_device(block.label_offsets, device)) % self.spec.num_classes
        steps = zip(images, labels, block.seeds, strict=True)
        return [Batch(images=x, labels=y, seeds=seeds) for x, y, seeds in steps]

    def _crops(self, draw: np.random.Generator, indices: NDArray[np.int64]) -> Crops | None:
        """Choose what training sees of each sample; None: the whole image."""
        if self.spec.of_files:
            return self._file_crops(draw, indices)
        return random_padded_crops(draw, indices.shape, self.spec) if self._augmented else None

    def _file_crops(self, draw: np.random.Generator, indices: NDArray[np.int64]) -> Crops:
        sizes = self._images.sizes[:, indices]
        if not self._augmented:
            return central_crops(*sizes)
        return random_resized_crops(draw, *sizes, flip=self.spec.flip)

    def _file_crops_of_steps(
        self, sampler: Sampler, epoch: int, indices: NDArray[np.int64], steps: range
    ) -> Crops:
        """Choose the crops of ``steps`` alone: ImageNet's of an epoch take hundreds of MB."""
        before = epoch * sampler.steps_per_epoch
        draws = (generator(sampler.seed, Purpose.RESIZED_CROP, before + step) for step in steps)
        return stack_crops(
            [self._file_crops(draw, indices[step]) for draw, step in zip(draws, steps, strict=True)]
        )
