"""Model a step's wall time over a slow link as compute + bytes / bandwidth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.bare_link import BareLink


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Hold one repetition: by H, seconds and bytes sent per 1,000 steps.

    Seconds as ``measured``, with each process alone without network (``compute``), and with both
    over a link without limit (``unlimited``).
    """

    measured: Mapping[int, float]
    compute: Mapping[int, float]
    unlimited: Mapping[int, float]
    bytes: Mapping[int, float]
    model_bytes: int
    bare: BareLink

    def transfer(self, local_steps: int) -> float:
        return self.bytes[local_steps] / self.bare.bytes_per_second

    def model(self, local_steps: int) -> float:
        return self.compute[local_steps] + self.transfer(local_steps)

    def deviation(self, local_steps: int) -> float:
        """Return the measured time's deviation from the model, signed, in percent of the model."""
        return 100 * (self.measured[local_steps] / self.model(local_steps) - 1)
