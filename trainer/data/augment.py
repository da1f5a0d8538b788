"""Crop and flip whole batches of images of one size (He et al. 2016, section 4.2)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from trainer.data.crops import Crops
from trainer.data.loading import to_device


def crop_and_flip(images: Tensor, crops: Crops | None) -> Tensor:
    """Cut ``crops`` out of ``images`` (*crops' shape, H, W, C); same shape, contiguous.

    All crops have the images' size. Beyond an image they show zeros (black, before normalisation),
    as torchvision's RandomCrop with padding does. None: the images themselves.
    """
    if crops is None:
        return images
    height, width, channels = images.shape[-3:]
    assert (crops.height == height).all() and (crops.width == width).all(), "crops would resize"
    padding = max(int(np.abs(crops.top).max()), int(np.abs(crops.left).max()))
    mirrored = crops.mirrored.ravel()
    count, frame_width = len(mirrored), width + 2 * padding
    # Move the mirrored ones to the end, where one call flips them; cropping restores the order.
    order = np.argsort(mirrored, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(count)
    upright = count - np.count_nonzero(mirrored)
    grouped = images.flatten(0, -4).index_select(0, to_device(order, images.device))
    frames = images.new_zeros((count, height + 2 * padding, frame_width, channels))
    inside = frames[:, padding : padding + height, padding : padding + width]
    inside[:upright] = grouped[:upright]
    inside[upright:] = grouped[upright:].flip(2)
    top = padding + crops.top.ravel()
    left = padding + np.where(mirrored, -crops.left.ravel(), crops.left.ravel())
    first = (place * frames.shape[1] + top) * frame_width + left
    rows = first[:, None] + np.arange(height) * frame_width
    # View a row of an image at every pixel, so that each row of a crop is copied in one piece.
    any_row = frames.as_strided(
        (frames.numel() // channels - width + 1, width * channels), (channels, 1)
    )
    return any_row.index_select(0, to_device(rows.ravel(), images.device)).view(images.shape)
