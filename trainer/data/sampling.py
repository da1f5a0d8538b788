"""Draw which sample each client sees at each step, and every other random choice of a run.

All draws are counter-based: Philox (Salmon et al. 2011) keyed by (seed, purpose) and counted by
epoch or step. A draw covers all K clients and is cut to a process's share afterwards, so that the
run does not depend on the number of processes and can begin at any step.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """Give each use of random numbers a stream of its own. Never renumber."""

    ORDER = 0
    CROP_AND_FLIP = 1
    LABEL_NOISE = 2
    TRAIN_SUBSET = 3
    BATCHNORM = 4
    BATCHNORM_VIEWS = 5
    MODEL = 6
    RESIZED_CROP = 7  # counted by step, not by epoch
    SHARPNESS = 8


def generator(seed: int, purpose: Purpose, count: int = 0) -> np.random.Generator:
    """Return the stream of ``purpose`` at ``count`` (an epoch or a step) of a run with ``seed``."""
    # The stream itself counts in the low words and never reaches the high word, `count`.
    return np.random.Generator(np.random.Philox(key=[seed, int(purpose)], counter=[0, 0, 0, count]))


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Deal ``num_samples`` training samples to K clients in batches of B_loc.

    Without replacement, each epoch's permutation is dealt step by step and client by client, no
    sample twice in an epoch; what is left after ``steps_per_epoch`` steps of B = K · B_loc samples
    is dropped. With replacement, each sample is drawn uniformly.
    """

    seed: int
    num_samples: int
    num_clients: int
    batch_size: int
    steps_per_epoch: int
    replacement: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (steps of an epoch, K, B_loc)."""
        return self.steps_per_epoch, self.num_clients, self.batch_size

    @property
    def dropped(self) -> int:
        """Count the samples that an epoch without replacement leaves out."""
        return self.num_samples - int(np.prod(self.shape))

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """Draw the sample indices of one epoch, (steps, K, B_loc)."""
        draw = generator(self.seed, Purpose.ORDER, epoch)
        if self.replacement:
            return draw.integers(self.num_samples, size=self.shape)
        order = draw.permutation(self.num_samples)
        return order[: int(np.prod(self.shape))].reshape(self.shape)


def train_subset(seed: int, num_samples: int, size: int) -> NDArray[np.int64]:
    """Choose ``size`` of ``num_samples`` indices, sorted, by ``seed`` alone."""
    return _subset(seed, Purpose.TRAIN_SUBSET, num_samples, size)


def sharpness_subset(seed: int, num_samples: int, size: int) -> NDArray[np.int64]:
    """Choose the indices, sorted, that all of a run's sharpness is measured on, by ``seed`` alone.

    Data prepared from class folders are sorted by class: their first samples are of one class.
    """
    return _subset(seed, Purpose.SHARPNESS, num_samples, size)


def _subset(seed: int, purpose: Purpose, num_samples: int, size: int) -> NDArray[np.int64]:
    return np.sort(generator(seed, purpose).choice(num_samples, size, replace=False))


def label_offsets(
    seed: int, epoch: int, shape: tuple[int, ...], p: float, num_classes: int
) -> NDArray[np.int64]:
    """Draw what to add to labels modulo ``num_classes``: 0 with probability 1 − p, else uniform.

    This is the label noise of the paper's section 5 and Figure 7: drawn afresh at every step,
    uniformly over the other classes.
    """
    draw = generator(seed, Purpose.LABEL_NOISE, epoch)
    flipped = draw.random(shape) < p
    return np.where(flipped, draw.integers(1, num_classes, size=shape), 0)


def model_seeds(seed: int, epoch: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Draw a seed for each step and client, for models that use random numbers (dropout)."""
    return generator(seed, Purpose.MODEL, epoch).integers(2**63, size=shape)


def batchnorm_batches(
    seed: int, step: int, num_samples: int, num_batches: int, batch_size: int
) -> NDArray[np.int64]:
    """Draw the indices (num_batches, B_loc) of the batches that re-estimate BatchNorm at ``step``.

    They are dealt from as many permutations as needed.
    """
    draw = generator(seed, Purpose.BATCHNORM, step)
    passes = -(-num_batches * batch_size // num_samples)
    order = np.concatenate([draw.permutation(num_samples) for _ in range(passes)])
    return order[: num_batches * batch_size].reshape(num_batches, batch_size)
