"""Random crop with padding and horizontal flip of whole batches (He et al. 2016, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.loading import sent
from trainer.data.specs import DatasetSpec


@dataclass(frozen=True)
class Views:
    """Where each sample's crop begins (rows, columns in [0, 2·padding]) and whether it is mirrored.

    All three have the same shape, that of the samples' indices.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    mirrored: NDArray[np.bool_]

    def __getitem__(self, part: int | tuple[slice, ...]) -> Views:
        return Views(self.rows[part], self.columns[part], self.mirrored[part])


def random_views(draw: np.random.Generator, shape: tuple[int, ...], spec: DatasetSpec) -> Views:
    """Uniform crops, and a mirror image with probability ½ where the data set allows it."""
    assert spec.padding is not None
    rows, columns = draw.integers(2 * spec.padding + 1, size=(2, *shape))
    mirrored = draw.random(shape) < 0.5 if spec.flip else np.zeros(shape, np.bool_)
    return Views(rows, columns, mirrored)


def crop_and_flip(images: Tensor, views: Views, padding: int) -> Tensor:
    """The chosen view of each image: (*views' shape, H, W, C) to the same shape, contiguous.

    Padding is with zeros (black) before normalisation, as torchvision's RandomCrop does.
    """
    height, width, channels = images.shape[-3:]
    mirrored = views.mirrored.ravel()
    count, frame_width = len(mirrored), width + 2 * padding
    # The mirrored ones go to the end, where one call turns them; the crop puts all back in order.
    order = np.argsort(mirrored, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(count)
    upright = count - np.count_nonzero(mirrored)
    grouped = images.flatten(0, -4).index_select(0, sent(order, images.device))
    frames = images.new_zeros((count, height + 2 * padding, frame_width, channels))
    inside = frames[:, padding : padding + height, padding : padding + width]
    inside[:upright] = grouped[:upright]
    inside[upright:] = grouped[upright:].flip(2)
    columns = np.where(mirrored, 2 * padding - views.columns.ravel(), views.columns.ravel())
    first = (place * frames.shape[1] + views.rows.ravel()) * frame_width + columns
    rows = first[:, None] + np.arange(height) * frame_width
    # The row that begins at any pixel, as a view: each row of a crop is copied in one piece.
    any_row = frames.as_strided(
        (frames.numel() // channels - width + 1, width * channels), (channels, 1)
    )
    return any_row.index_select(0, sent(rows.ravel(), images.device)).view(images.shape)
