"""Model wall time over a slow link as compute + waiting + bare all-reduces, all measured.

Bare all-reduces are shown in two parts: bytes / bandwidth, and the latency beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from bench.bare_link import BareLink

Seconds = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Hold where the wall time of a phase went, in seconds, mean of its processes.

    ``compute``: until an averaging begins. ``waiting``: from then until the last process is there.
    ``all_reduces``: from then on. They add up to the wall time. ``bare_all_reduces``, one after
    each averaging, do not count.
    """

    compute: float
    waiting: float
    all_reduces: float
    bare_all_reduces: float

    @property
    def wall(self) -> float:
        return self.compute + self.waiting + self.all_reduces


def split_time(
    began: Seconds, ended: Seconds, through: Seconds, averagings: Sequence[int]
) -> list[Parts]:
    """Split the time of phases of so many ``averagings``, after one averaging that warms up.

    ``began``, ``ended``, ``through``: as a traced trainer's, (processes, all averagings).
    """
    parts = []
    for first, stop in pairwise(accumulate(averagings, initial=1)):
        own = slice(first, stop)
        arrived, left = began[:, own], ended[:, own]
        complete, all_left = arrived.max(0), left.max(0)
        parts.append(
            Parts(
                compute=_total(arrived - through[:, first - 1 : stop - 1]),
                waiting=_total(complete - arrived),
                all_reduces=_total(left - complete),
                bare_all_reduces=_total(through[:, own] - all_left),
            )
        )
    return parts


def _total(seconds: Seconds) -> float:
    """Add up (processes, averagings), mean of the processes."""
    return float(seconds.mean(0).sum())


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Hold one repetition: by H, seconds and bytes sent per 1,000 steps.

    All but the bandwidth, that of the ``bare`` link, is of the same run.
    """

    parts: Mapping[int, Parts]
    bytes: Mapping[int, float]
    model_bytes: int
    bare: BareLink

    def measured(self, local_steps: int) -> float:
        return self.parts[local_steps].wall

    def transfer(self, local_steps: int) -> float:
        return self.bytes[local_steps] / self.bare.bytes_per_second

    def latency(self, local_steps: int) -> float:
        """Return what bare all-reduces take beyond bytes / bandwidth."""
        return self.parts[local_steps].bare_all_reduces - self.transfer(local_steps)

    def deviation(self, local_steps: int) -> float:
        """Return the measured time's deviation from the model, signed, in percent of the model."""
        parts = self.parts[local_steps]
        model = parts.compute + parts.waiting + parts.bare_all_reduces
        return 100 * (parts.wall / model - 1)

    def plain_deviation(self, local_steps: int) -> float:
        """Return the deviation from compute + bytes / bandwidth alone."""
        parts = self.parts[local_steps]
        return 100 * (parts.wall / (parts.compute + self.transfer(local_steps)) - 1)
