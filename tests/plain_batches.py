"""Fetch the batches of a run by hand, one sample at a time, with the trainer's random draws."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.crops import random_padded_crops
from trainer.data.sampling import Purpose, Sampler, generator, label_offsets, train_subset
from trainer.data.specs import DATASETS, DatasetSpec
from trainer.settings.run import RunSettings

DTYPES = {"fp32": torch.float32, "fp64": torch.float64}


def plain_batches(chosen: RunSettings) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (K, B_loc, C, H, W) and labels (K, B_loc) of each step, one sample at a time."""
    spec = DATASETS[chosen.dataset]
    images, labels = prepared(chosen)
    sampler = Sampler(
        seed=chosen.seed,
        num_samples=len(labels),
        num_clients=chosen.num_clients,
        batch_size=chosen.batch_size,
        steps_per_epoch=chosen.steps_per_epoch or len(labels) // chosen.total_batch_size,
        replacement=chosen.replacement,
    )
    for epoch in itertools.count(chosen.resume):
        indices = sampler.epoch(epoch)
        draw = generator(chosen.seed, Purpose.CROP_AND_FLIP, epoch)
        crops = random_padded_crops(draw, sampler.shape, spec)
        classes = len(spec.classes)
        offsets = label_offsets(chosen.seed, epoch, sampler.shape, chosen.noise_p, classes)
        seen = np.empty((*sampler.shape, *images.shape[1:]))
        told = np.empty(sampler.shape, np.int64)
        for place in np.ndindex(sampler.shape):
            image, label = images[indices[place]], labels[indices[place]]
            if chosen.aug:
                top, left = crops.top[place], crops.left[place]
                image = cropped(image, top, left, bool(crops.mirrored[place]))
            seen[place] = normalised(image, spec)
            told[place] = noisy(label, offsets[place], classes) if chosen.label_noise else label
        for step in range(sampler.steps_per_epoch):
            batch = torch.from_numpy(seen[step]).movedim(-1, -3)
            yield batch.to(DTYPES[chosen.precision]), torch.from_numpy(told[step])


def prepared(chosen: RunSettings) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Load the training images and labels that the run may use, as `prepare` wrote them."""
    content = np.load(chosen.data_pth / "train.npz")
    images, labels = content["images"], content["labels"]
    if chosen.train_subset is None:
        return images, labels
    kept = train_subset(chosen.seed, len(labels), chosen.train_subset)
    return images[kept], labels[kept]


def cropped(image: NDArray[np.uint8], top: int, left: int, mirrored: bool) -> NDArray[np.uint8]:
    """Move ``image`` (H, W, C) under a window of its size that begins at its (top, left)."""
    height, width, _ = image.shape
    out = np.zeros_like(image)
    for y, x in np.ndindex(height, width):
        from_y, from_x = y + top, x + left
        if 0 <= from_y < height and 0 <= from_x < width:
            out[y, width - 1 - x if mirrored else x] = image[from_y, from_x]
    return out


def normalised(image: NDArray[np.uint8], spec: DatasetSpec) -> NDArray[np.float64]:
    return (image / 255 - np.array(spec.mean)) / np.array(spec.std)


def noisy(label: int, offset: int, classes: int) -> int:
    """Return the class ``offset`` after ``label``, wrapping around after the last class."""
    return label if offset == 0 else [*range(classes), *range(classes)][label + offset]
