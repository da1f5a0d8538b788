"""Hold arrays as training holds a .beton's images, and the other way around."""

import math

import numpy as np
import torch

from trainer.data.memory import MemoryImages, Samples
from trainer.data.preparation.prepared import Arrays


def in_memory(arrays: Arrays) -> MemoryImages:
    """Serve arrays, whose images lie one behind the other, on the CPU."""
    n, height, width, channels = arrays.images.shape
    samples = Samples(
        content=arrays.images.reshape(-1),
        starts=np.arange(n) * (height * width * channels),
        shape=(height, width, channels),
        labels=arrays.labels,
    )
    return MemoryImages(samples, torch.device("cpu"))


def to_arrays(samples: Samples) -> Arrays:
    size = math.prod(samples.shape)
    images = [samples.content[start : start + size] for start in samples.starts]
    return Arrays(np.stack(images).reshape(-1, *samples.shape), samples.labels)
