"""Test which part of each image file training sees, in pixels that OpenCV cuts and resizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from tests.data.test_stream import (
    PHOTOS,
    ROUNDING,
    SAMPLER,
    cut_by_opencv,
    first,
    stored,
    streamed,
    training_set,
)
from trainer.data.beton.reader import read_index
from trainer.data.crops import Crops, random_resized_crops
from trainer.data.sampling import Purpose, batchnorm_batches, generator

pytestmark = pytest.mark.slow  # it begins early

START = 3  # a step of epoch 2, counted from its beginning; two steps on, epoch 3 begins
OWN = slice(1, 3)  # the clients of this process


@pytest.fixture(scope="module")
def path(photos: Path) -> Path:
    return photos / "train.beton"


def dealt() -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the steps from ``START`` on, counted from the run's beginning, and their samples."""
    for step in range(2 * 5 + START, 2 * 5 + START + 5):
        yield step, SAMPLER.epoch(step // 5)[step % 5]


def drawn(path: Path, purpose: Purpose, step: int, indices: NDArray[np.int64], flip: bool) -> Crops:
    index = read_index(path)
    sizes = index.heights[indices], index.widths[indices]
    return random_resized_crops(generator(SAMPLER.seed, purpose, step), *sizes, flip=flip)


def central(height: int, width: int) -> Crops:
    """Return the central square of 7/8 of the shorter side, rounded down."""
    side = 7 * min(height, width) // 8
    top, left = (height - side) // 2, (width - side) // 2
    numbers = {"top": top, "left": left, "height": side, "width": side, "mirrored": False}
    return Crops(**{name: np.array(number) for name, number in numbers.items()})


def assert_show(
    images: Tensor, path: Path, indices: NDArray[np.int64], crops: Crops | None
) -> None:
    """Check the pixels of ``images``, (*indices' shape, C, H, W); None: their centres."""
    mean, std = (255 * np.array(values) for values in (PHOTOS.mean, PHOTOS.std))
    got = np.rint(images.movedim(-3, -1).numpy() * std + mean)
    for place in np.ndindex(indices.shape):
        mode, image = stored(path, int(indices[place]))
        crop = central(*image.shape[:2]) if crops is None else crops[place]
        wanted = cut_by_opencv(image, crop, PHOTOS.image_size)
        assert np.abs(got[place] - wanted).max() <= ROUNDING[mode]


@pytest.mark.parametrize("flip", [True, False])
def test_each_step_sees_the_random_parts_that_are_drawn_for_it(path: Path, flip: bool) -> None:
    """Check it across an epoch's end: steps are counted from the run's beginning."""
    options = {"clients": range(OWN.start, OWN.stop), "spec": replace(PHOTOS, flip=flip)}
    batches = first(streamed(path), 5, start=START, **options)
    for batch, (step, indices) in zip(batches, dealt(), strict=True):
        crops = drawn(path, Purpose.RESIZED_CROP, step, indices, flip)
        assert_show(batch.images, path, indices[OWN], crops[OWN])


def test_without_augmentation_each_step_sees_the_centres(path: Path) -> None:
    own = range(OWN.start, OWN.stop)
    batches = first(streamed(path), 5, own, start=START, augmented=False)
    for batch, (_, indices) in zip(batches, dealt(), strict=True):
        assert_show(batch.images, path, indices[OWN], None)


def test_batchnorm_is_estimated_on_random_parts_of_their_own(path: Path) -> None:
    seed, step = SAMPLER.seed, 9
    indices = batchnorm_batches(seed, step, 480, 4, 3)
    crops = drawn(path, Purpose.BATCHNORM_VIEWS, step, indices, flip=True)
    seen = training_set(streamed(path)).batchnorm_images(seed, step, 4, 3, slice(1, 4, 2))
    for images, i in zip(seen, (1, 3), strict=True):
        assert_show(images, path, indices[i], crops[i])
