"""Random crop with padding and horizontal flip of whole batches (He et al. 2016, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

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
    rows, columns = draw.integers(2 * spec.padding + 1, size=(2, *shape))
    mirrored = draw.random(shape) < 0.5 if spec.flip else np.zeros(shape, np.bool_)
    return Views(rows, columns, mirrored)


def crop_windows(images: Tensor, padding: int) -> Tensor:
    """Every crop of every image as a view: (N, C, H, W) to (N, 2·padding+1, 2·padding+1, C, H, W).

    Padding is with zeros (black) before normalisation, as torchvision's RandomCrop does.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (padding,) * 4)
    return padded.unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 1, 4, 5)


def take(windows: Tensor, indices: NDArray[np.int64], views: Views) -> Tensor:
    """The chosen views of the chosen samples, (*indices.shape, C, H, W), dtype as stored."""
    images = windows[
        torch.from_numpy(indices), torch.from_numpy(views.rows), torch.from_numpy(views.columns)
    ]
    if views.mirrored.any():
        mirrored = torch.from_numpy(views.mirrored).to(images.device)
        images = torch.where(mirrored[..., None, None, None], images.flip(-1), images)
    return images
