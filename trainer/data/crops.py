"""Choose the part of each image that a client sees: a random crop, or evaluation's centre."""

from dataclasses import dataclass, replace
from functools import cache
from math import log
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.loading import to_device
from trainer.data.specs import CENTRE, DatasetSpec

# As torchvision's RandomResizedCrop and FFCV's: share of the area, width over height, tries.
SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10

Integers = NDArray[np.int64]
# One line per image to decode. FFCV hands it to the decoder unchanged.
PLAN_LINE = np.dtype(
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
    """Hold one rectangle per image, in pixels, and whether it is mirrored after cropping.

    All arrays have one shape. A rectangle may reach beyond its image.
    """

    top: Integers
    left: Integers
    height: Integers
    width: Integers
    mirrored: NDArray[np.bool_]

    def __getitem__(self, part: Any) -> Self:
        return replace(self, **{name: values[part] for name, values in vars(self).items()})

    def lie_inside(self, heights: Integers, widths: Integers) -> bool:
        """Check that no rectangle reaches beyond its image."""
        fits = (self.top >= 0) & (self.top + self.height <= heights)
        return bool((fits & (self.left >= 0) & (self.left + self.width <= widths)).all())


def stack_crops(parts: list[Crops]) -> Crops:
    """Stack ``parts`` along a new first dimension."""
    names = vars(parts[0])
    return Crops(**{name: np.stack([vars(part)[name] for part in parts]) for name in names})


def random_padded_crops(
    draw: np.random.Generator, shape: tuple[int, ...], spec: DatasetSpec
) -> Crops:
    """Draw crops of the image's size, moved by up to ``spec.padding`` pixels in each direction.

    Where the data set allows it, half of them are mirrored (He et al. 2016, section 4.2).
    """
    assert spec.padding is not None
    rows, columns = draw.integers(2 * spec.padding + 1, size=(2, *shape))
    size = np.full(shape, spec.image_size)
    return Crops(
        top=rows - spec.padding,
        left=columns - spec.padding,
        height=size,
        width=size,
        mirrored=_mirrored(draw, shape, spec.flip),
    )


def random_resized_crops(
    draw: np.random.Generator, heights: Integers, widths: Integers, *, flip: bool
) -> Crops:
    """Draw one crop of each image, distributed as torchvision's RandomResizedCrop.

    A rectangle that does not fit is drawn again, at most ten times; then the largest centre whose
    ratio of the sides is allowed is taken (Szegedy et al. 2015, section 6).
    """
    shape = (TRIES, *heights.shape)
    area = heights * widths * draw.uniform(*SCALE, size=shape)
    ratio = np.exp(draw.uniform(log(RATIO[0]), log(RATIO[1]), size=shape))
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width > 0) & (width <= widths) & (height > 0) & (height <= heights)
    first = fits.argmax(0)[None]
    found = fits.any(0)
    largest_width = np.minimum(widths, np.rint(heights * RATIO[1]).astype(np.int64))
    largest_height = np.minimum(heights, np.rint(widths * (1 / RATIO[0])).astype(np.int64))
    width = np.where(found, np.take_along_axis(width, first, 0)[0], largest_width)
    height = np.where(found, np.take_along_axis(height, first, 0)[0], largest_height)
    place = draw.random((2, *heights.shape))
    spare_rows, spare_columns = heights - height, widths - width
    top = np.where(found, (place[0] * (spare_rows + 1)).astype(np.int64), spare_rows // 2)
    left = np.where(found, (place[1] * (spare_columns + 1)).astype(np.int64), spare_columns // 2)
    mirrored = _mirrored(draw, heights.shape, flip)
    return Crops(top=top, left=left, height=height, width=width, mirrored=mirrored)


def central_crops(heights: Integers, widths: Integers) -> Crops:
    """Return the central squares of evaluation, those of FFCV's CenterCropRGBImageDecoder.

    At least one pixel of each image: OpenCV aborts the process over an empty crop.
    """
    side = np.maximum(1, (CENTRE * np.minimum(heights, widths)).astype(np.int64))
    return Crops(
        top=(heights - side) // 2,
        left=(widths - side) // 2,
        height=side,
        width=side,
        mirrored=np.zeros(heights.shape, np.bool_),
    )


def whole_images(heights: Integers, widths: Integers) -> Crops:
    """Return crops that cover each image."""
    zeros = np.zeros_like(heights)
    return Crops(
        top=zeros, left=zeros, height=heights, width=widths, mirrored=zeros.astype(np.bool_)
    )


def decode_plan(indices: Integers, crops: Crops) -> NDArray[np.void]:
    """List which image to decode and which part of it, one ``PLAN_LINE`` each."""
    lines = np.empty(indices.size, PLAN_LINE)
    lines["sample"] = indices.ravel()
    for name, values in vars(crops).items():
        lines[name] = values.ravel()
    return lines


def crop_and_flip(images: Tensor, crops: Crops | None) -> Tensor:
    """Cut ``crops`` out of ``images`` (*crops' shape, H, W, C); same shape, contiguous.

    All crops have the images' size. Beyond an image they show zeros (black, before normalisation),
    as torchvision's RandomCrop with padding does. None: the images themselves.
    """
    if crops is None:
        return images
    height, width, channels = images.shape[-3:]
    assert (crops.height == height).all() and (crops.width == width).all(), "crops would resize"
    top, left, mirrored = crops.top.ravel(), crops.left.ravel(), crops.mirrored.ravel()
    padding = max(int(np.abs(top).max()), int(np.abs(left).max()))
    count, row, size = len(mirrored), width * channels, height * width * channels
    place, flat = np.arange(count), images.flatten(0, -4)
    margin = padding * (row + channels)
    memory = images.new_empty(margin + count * size + margin)
    inside = memory[margin : margin + count * size].view(flat.shape)
    if mirrored.any():
        # Move the mirrored ones to the end, where one call flips them; cropping restores the order.
        order = np.argsort(mirrored, kind="stable")
        place[order] = np.arange(count)
        upright = count - int(np.count_nonzero(mirrored))
        unmoved, flipped = to_device(order, images.device).tensor_split([upright])
        torch.index_select(flat, 0, unmoved, out=inside[:upright])
        inside[upright:] = flat.index_select(0, flipped).flip(2)
        left = np.where(mirrored, -left, left)
    else:
        inside.copy_(flat)
    # Copy each crop in one piece, wherever it begins. Where it reaches beyond its image, it shows
    # the end of a neighbouring row or image, which the mask blackens.
    any_piece = memory.as_strided((len(memory) - size + 1, size), (1, 1))
    first = margin + place * size + top * row + left * channels
    pieces = any_piece.index_select(0, to_device(first, images.device))
    if padding > 0:
        offsets = (top + padding) * (2 * padding + 1) + left + padding
        masks = _masks(padding, height, width, channels, images.device)
        pieces &= masks.index_select(0, to_device(offsets, images.device))
    return pieces.view(images.shape)


@cache
def _masks(padding: int, height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Return 255 where a crop shows its image, else 0: ((2 · padding + 1)², H · W · C) uint8.

    The first dimension is the crop's offset, by rows, from (−padding, −padding) to
    (padding, padding).
    """
    moved = np.arange(-padding, padding + 1)[:, None]
    rows, columns = (
        (moved + np.arange(n) >= 0) & (moved + np.arange(n) < n) for n in (height, width)
    )
    shown = rows[:, None, :, None, None] & columns[None, :, None, :, None]
    bytes_shown = np.where(shown, 255, 0).astype(np.uint8).repeat(channels, -1)
    return torch.from_numpy(bytes_shown.reshape(len(moved) ** 2, -1)).to(device)


def _mirrored(draw: np.random.Generator, shape: tuple[int, ...], flip: bool) -> NDArray[np.bool_]:
    return draw.random(shape) < 0.5 if flip else np.zeros(shape, np.bool_)
