"""Train as ``python -m trainer`` does, but follow each averaging by a bare all-reduce as long.

``python -m bench.traced_trainer FILE train …`` writes to FILE (.npz) when each averaging ``began``
and ``ended`` and when the all-reduce after it was ``through``, by the clock that all processes of a
Linux machine share.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from torch import Tensor

from trainer.__main__ import main as train
from trainer.distributed.world import World


def main() -> int:
    file, *arguments = sys.argv[1:]
    times: dict[str, list[float]] = {"began": [], "ended": [], "through": []}
    all_mean = World.all_mean

    def traced(world: World, tensor: Tensor, scratch: Tensor) -> Tensor:
        times["began"].append(time.monotonic())
        all_mean(world, tensor, scratch)
        times["ended"].append(time.monotonic())
        world.all_sum(torch.zeros_like(tensor))
        times["through"].append(time.monotonic())
        return tensor

    World.all_mean = traced  # type: ignore[method-assign,assignment]
    status = train(arguments)
    np.savez(file, **times)  # type: ignore[arg-type]
    return status


if __name__ == "__main__":
    sys.exit(main())
