"""Which part of an image file a client sees: random resized crops, or the centre in evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.specs import CENTRE

# As torchvision's RandomResizedCrop and FFCV's: share of the area, width over height, tries.
SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10

Integers = NDArray[np.int64]
# One line for each image to decode, in order. FFCV hands it to the decoder as it is.
ORDER = np.dtype(
    [
        ("sample", "<u8"),
        ("top", "<u4"),
        ("left", "<u4"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("mirrored", "u1"),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Rectangles in pixels, and whether they are mirrored then; all of one shape."""

    top: Integers
    left: Integers
    height: Integers
    width: Integers
    mirrored: NDArray[np.bool_]

    def __getitem__(self, part: Any) -> Crops:
        return Crops(**{name: values[part] for name, values in vars(self).items()})


def stacked(parts: list[Crops]) -> Crops:
    """``parts`` along a new first dimension."""
    names = vars(parts[0])
    return Crops(**{name: np.stack([vars(part)[name] for part in parts]) for name in names})


def random_crops(
    draw: np.random.Generator, heights: Integers, widths: Integers, *, flip: bool
) -> Crops:
    """One of each image, distributed as torchvision's RandomResizedCrop.

    A rectangle that does not fit is drawn again, ten times at most; then the largest centre whose
    ratio of the sides is allowed (Szegedy et al. 2015, section 6).
    """
    shape = (TRIES, *heights.shape)
    area = heights * widths * draw.uniform(*SCALE, size=shape)
    ratio = np.exp(draw.uniform(log(RATIO[0]), log(RATIO[1]), size=shape))
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width > 0) & (width <= widths) & (height > 0) & (height <= heights)
    first = fits.argmax(0)[None]
    found = fits.any(0)
    width = np.where(found, np.take_along_axis(width, first, 0)[0], _bounded(widths, heights, 1))
    height = np.where(found, np.take_along_axis(height, first, 0)[0], _bounded(heights, widths, 0))
    place = draw.random((2, *heights.shape))
    spare_rows, spare_columns = heights - height, widths - width
    top = np.where(found, (place[0] * (spare_rows + 1)).astype(np.int64), spare_rows // 2)
    left = np.where(found, (place[1] * (spare_columns + 1)).astype(np.int64), spare_columns // 2)
    mirrored = draw.random(heights.shape) < 0.5 if flip else np.zeros(heights.shape, np.bool_)
    return Crops(top=top, left=left, height=height, width=width, mirrored=mirrored)


def central_crops(heights: Integers, widths: Integers) -> Crops:
    """The central squares of evaluation, as FFCV's CenterCropRGBImageDecoder takes them.

    At least one pixel of each image: OpenCV ends the process over an empty crop.
    """
    side = np.maximum(1, (CENTRE * np.minimum(heights, widths)).astype(np.int64))
    return Crops(
        top=(heights - side) // 2,
        left=(widths - side) // 2,
        height=side,
        width=side,
        mirrored=np.zeros(heights.shape, np.bool_),
    )


def whole(heights: Integers, widths: Integers) -> Crops:
    """All of each image."""
    zeros = np.zeros_like(heights)
    return Crops(
        top=zeros, left=zeros, height=heights, width=widths, mirrored=zeros.astype(np.bool_)
    )


def order(indices: Integers, crops: Crops) -> NDArray[np.void]:
    """Which image and which part of it, one line each."""
    lines = np.empty(indices.size, ORDER)
    lines["sample"] = indices.ravel()
    for name, values in vars(crops).items():
        lines[name] = values.ravel()
    return lines


def _bounded(side: Integers, other: Integers, longest: int) -> Integers:
    """``side``, or what the allowed ratio leaves of it: width (1) or height (0)."""
    most = RATIO[1] if longest else 1 / RATIO[0]
    bounded: Integers = np.minimum(side, np.rint(other * most).astype(np.int64))
    return bounded
